//! A peer-to-peer node in one piece: it owns a libp2p swarm and moves opaque bytes between peers.
//!
//! [`NetworkManager::start`] gives two ends. [`NetworkClient`] is the handle: cheap to clone,
//! every call typed and bounded in time. [`Events`] is what happens by itself: connections,
//! inbound streams, loss. The manager runs until [`NetworkClient::shutdown`], or until its last
//! client is dropped; from then on every call returns `Stopped`.
//!
//! ```
//! use calimero_network::{NetworkConfig, NetworkEvent, NetworkManager, StreamEvent, identity::Keypair};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let loopback = NetworkConfig {
//!     listen: vec!["/ip4/127.0.0.1/tcp/0".parse()?],
//!     ..NetworkConfig::default()
//! };
//! let (alice, _) = NetworkManager::start(Keypair::generate_ed25519(), loopback.clone()).await?;
//! let (bob, mut bob_sees) = NetworkManager::start(Keypair::generate_ed25519(), loopback).await?;
//!
//! let address = bob.status().await?.listening.remove(0);
//! alice.dial(address).await?;
//! let mut stream = alice.open_stream(bob.peer_id()).await?;
//! stream.send("hello".into()).await?;
//!
//! while let Some(event) = bob_sees.next().await {
//!     if let NetworkEvent::Stream(StreamEvent::Opened { peer, mut stream, .. }) = event {
//!         assert_eq!(peer, alice.peer_id());
//!         assert_eq!(stream.next().await.ok_or("closed")??, "hello");
//!         break;
//!     }
//! }
//! alice.shutdown().await?;
//! bob.shutdown().await?;
//! # Ok(())
//! # }
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run()).unwrap();
//! ```
//!
//! # Features
//!
//! All are on by default. A node without any has TCP with Noise, relayed connections, discovery,
//! streams and gossip. Its default configuration uses what exists, and [`NetworkConfig::validate`]
//! refuses a key of a missing part with [`ConfigError::MissingFeature`].
//!
//! - `quic`: the QUIC transport. It enables `tls`.
//! - `tls`: TLS for TCP and relayed connections, preferred to Noise.
//! - `dns`: names in addresses.
//! - `key-types`: peers whose identity is an RSA, ECDSA or secp256k1 key. Without it, only Ed25519
//!   is accepted.
//! - `mdns`: peers on the local link.
//! - `upnp`: port mappings at the router by PCP, NAT-PMP and UPnP.
//! - `blobs`: blobs, the calls and events for them, and the module `blob`.
//! - `invites`: specialized node invites, and the module `specialized`.
//! - `metrics`: metrics for Prometheus.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod actor;
mod behaviour;
#[cfg(feature = "blobs")]
mod blobs;
mod boot_list;
mod boxed_handler;
mod client;
mod command;
mod dials;
mod error;
mod event;
mod json;
mod listening;
mod manager;
#[cfg(feature = "metrics")]
mod metrics;
#[cfg(not(feature = "metrics"))]
#[path = "no_metrics.rs"]
mod metrics;
mod netcheck;
mod peer_cache;
mod read_cache;
#[cfg(feature = "blobs")]
mod records;
mod runtime;
mod status;

#[cfg(feature = "blobs")]
pub use calimero_network_blob as blob;
pub use calimero_network_discovery as discovery;
#[cfg(feature = "upnp")]
pub use calimero_network_discovery::port_mapping;
/// Types of the fields of [`Status`].
pub use calimero_network_discovery::{
    behaviour::{ConnectionStatus, PeerStatus},
    machine::{
        AddressSource, BootNode, BootNodeStatus, CircuitLimit, HolePunch, LastProbe, Namespace,
        OverlayStatus, Phase, ProbeOutcome, Reachability, ReachableBecause, Registration,
        RegistrationStatus, Reservation, ReservationStatus,
    },
};
pub use calimero_network_primitives::resources;
pub use calimero_network_primitives::{
    BlobId, ConfigError, ContextId, GroupId, Keypair, Multiaddr, NamespaceId, NetworkConfig,
    NetworkName, ParseNetworkNameError, PeerId, ProtocolId, Topic, UnreachableCause, addr, config,
    identity, limits, multiaddr,
};
pub use calimero_network_pubsub::{self as pubsub, MeshStats, Message, MessageId};
#[cfg(feature = "invites")]
pub use calimero_network_specialized::{
    self as specialized, InboundRequestId, OutboundRequestId, ResponseChannel,
    SpecializedNodeInviteRequest, SpecializedNodeInviteResponse,
};
pub use calimero_network_stream::{
    AcceptError, FrameConfig, FrameError, FrameReceiver, FrameSender, FrameStream, Inbound,
    Incoming, OpenError, RefuseReason, Substream,
};
pub use calimero_network_transport::{
    AddressError, BuildError, Cipher, CloseCause, Link, MuxerKind, SecurityKind, TransportKind,
};
pub use libp2p::{
    StreamProtocol,
    swarm::{ConnectionId, derive_prelude::ListenerId},
};
#[cfg(feature = "metrics")]
pub use prometheus_client;
/// Crates whose types occur in what is public here, in the versions that are used: everything of
/// libp2p's is found by this one name.
pub use {bytes, futures, libp2p, tokio};

#[cfg(feature = "metrics")]
pub use self::metrics::MetricsFormat;
#[cfg(feature = "upnp")]
pub use self::status::PortMapping;
pub use self::{
    boot_list::BootListStatus,
    client::NetworkClient,
    command::Subscription,
    error::{
        AddressFailure, BootstrapError, Denial, DialError, ListenError, PublishError, StartError,
        Stopped, SubscribeError,
    },
    event::{
        CloseReason, ConnectionEvent, DiscoveryEvent, Events, GossipEvent, ListenerEvent,
        NetworkEvent, StreamEvent,
    },
    manager::{Builder, NetworkManager},
    status::{Connection, Direction, Path, PeerInfo, Status},
};
#[cfg(feature = "blobs")]
pub use self::{
    client::{BlobProviders, BlobTransfer},
    error::{AnnounceBlobError, FetchBlobError, QueryBlobError},
    event::BlobEvent,
    status::BlobProvider,
};
#[cfg(feature = "invites")]
pub use self::{error::InviteError, event::InviteEvent};
