//! The transports of a node: TCP with TLS or Noise and Yamux, QUIC, WebSocket,
//! DNS names, and relayed connections.
//!
//! [`build`] creates one [`libp2p_core::Transport`] for a swarm. Its
//! connections are authenticated, encrypted and multiplexed according to the
//! libp2p specifications of
//! [TLS](https://github.com/libp2p/specs/blob/master/tls/tls.md),
//! [Noise](https://github.com/libp2p/specs/blob/master/noise/README.md),
//! [Yamux](https://github.com/libp2p/specs/blob/master/yamux/README.md),
//! [QUIC](https://github.com/libp2p/specs/blob/master/quic/README.md),
//! [WebSocket](https://github.com/libp2p/specs/blob/master/websockets/README.md) and
//! [circuit relay
//! v2](https://github.com/libp2p/specs/blob/master/relay/circuit-v2.md).
//!
//! Differences from the transports of libp2p:
//!
//! - **Throughput.** The cipher that is fastest on this processor is preferred,
//!   socket reads and writes are large, and all frames of one poll are sent in
//!   one write.
//! - **The expected peer is part of the handshake.** If an address ends in
//!   `/p2p/<peer>`, only that peer is accepted. With TLS and QUIC, another peer
//!   never gets an established connection.
//! - **One dial filter.** Every dial, and every address to which a name
//!   resolves, passes a
//!   [`DialGate`](calimero_network_primitives::addr::DialGate). A loopback
//!   address that a remote peer announced is not dialled, regardless of the
//!   protocol that delivered it.
//! - **DNS names.** The configuration of name servers is reloaded when the
//!   system changes it. The addresses of a name are dialled with short delays,
//!   so that an unreachable address does not delay a reachable one.
//! - **A port has one owner.** Two nodes cannot listen on the same port,
//!   although outbound connections use it as their source port. Listening on a
//!   wildcard address works without access to the interface list.
//! - **Dead paths are detected** within 20 s, on busy and on idle connections.
//! - **Frames of any size.** Yamux peers may send frames as large as the
//!   window.
//! - **A stream opens without a round trip** if the peer has confirmed its protocol on the same
//!   connection before: the first data follow the proposal of the protocol at once, and the answer
//!   is checked when the stream is read ([`UnconfirmedProtocol`]).
//! - **Excess streams are refused one by one**, and the connection stays open.
//! - **Origins share a thread.** [`FairExecutor`] polls the connections of a swarm on one thread and
//!   shares its time between the origins of connections.
//! - **[`Links`]** report the protocols of each connection and count its bytes.
//!   [`classify`] reports the cause of a failed dial.
//!
//! # Features
//!
//! `tcp`, `quic`, `dns` and `relay` compile a transport each, `tls` compiles TLS for TCP and relayed
//! connections, which `quic` enables as well. `key-types` accepts peers whose identity is not an
//! Ed25519 key. `websocket` compiles WebSocket over TCP, plain and inside of TLS, and enables `tcp` and
//! `tls`. All are default features. Without `tls` and `quic`, connections use Noise, and the
//! crate needs neither `rustls` nor `aws-lc-rs`.
//!
//! # Example
//!
//! Two nodes in one process. [`build`] works in the same way with
//! `/ip4/127.0.0.1/tcp/0`.
//!
//! ```
//! use calimero_network_primitives::config::TransportConfig;
//! use calimero_network_transport::{SecurityKind, build_memory};
//! use futures::StreamExt;
//! use libp2p_identity::Keypair;
//! use libp2p_swarm::{Config, Swarm, SwarmEvent, dummy};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = TransportConfig::default();
//! let mut swarms = Vec::new();
//! let mut links = Vec::new();
//! for _ in 0..2 {
//!     let keypair = Keypair::generate_ed25519();
//!     let transport = build_memory(&keypair, &config)?;
//!     links.push(transport.links);
//!     let peer = keypair.public().to_peer_id();
//!     let config = Config::with_tokio_executor();
//!     swarms.push(Swarm::new(transport.boxed, dummy::Behaviour, peer, config));
//! }
//! let [a, b] = &mut swarms[..] else { unreachable!() };
//!
//! b.listen_on("/memory/0".parse()?)?;
//! let address = loop {
//!     if let SwarmEvent::NewListenAddr { address, .. } = b.select_next_some().await {
//!         break address;
//!     }
//! };
//! a.dial(address.with_p2p(*b.local_peer_id()).unwrap())?;
//! loop {
//!     tokio::select! {
//!         event = a.select_next_some() => {
//!             if let SwarmEvent::ConnectionEstablished { peer_id, endpoint, .. } = event {
//!                 let link = links[0].claim(&peer_id, &endpoint).ok_or("no link")?;
//!                 assert!(matches!(link.security(), SecurityKind::Tls { .. }));
//!                 assert!(link.bytes_out() > 0);
//!                 break;
//!             }
//!         }
//!         _ = b.select_next_some() => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```

#![cfg_attr(docsrs, feature(doc_cfg))]

mod buffer;
mod close;
#[cfg(feature = "tls")]
mod crypto;
#[cfg(feature = "dns")]
mod dns;
mod error;
mod executor;
mod gate;
#[cfg(any(feature = "quic", feature = "tcp"))]
mod interfaces;
mod link;
mod metered;
mod optimistic;
#[cfg(test)]
mod pipe;
#[cfg(feature = "quic")]
pub mod quic;
mod read_ahead;
#[cfg(any(feature = "dns", feature = "websocket"))]
mod stamp;
#[cfg(feature = "tcp")]
mod tcp;
#[cfg(feature = "tls")]
mod tls;
mod transport;
mod upgrade;
#[cfg(feature = "websocket")]
mod websocket;
mod yamux;

#[cfg(feature = "tls")]
pub use self::crypto::{CertificateError, CryptoError, warm_up};
#[cfg(feature = "dns")]
pub use self::dns::{AddressList, ResolvedList};
#[cfg(any(feature = "quic", feature = "tcp"))]
pub use self::error::check_interface_watch;
#[cfg(feature = "tcp")]
pub use self::tcp::CongestionError;
#[cfg(feature = "websocket")]
pub use self::websocket::CertificateFileError;
#[cfg(feature = "websocket")]
#[doc(hidden)]
pub use self::websocket::fuzzing;
pub use self::{
    close::CloseCause,
    error::{AddressError, BuildError, Cause, Chain, classify, os_error},
    executor::{Caused, FairDriver, FairExecutor},
    link::{Bytes, Cipher, Link, Links, MuxerKind, SecurityKind, Totals, TransportKind},
    optimistic::UnconfirmedProtocol,
    transport::{Transport, build, build_memory},
};

#[cfg(feature = "dns")]
pub use hickory_resolver;
#[cfg(feature = "relay")]
pub use libp2p_relay;
#[cfg(feature = "quic")]
pub use quinn;
/// Re-exports of the crates with types in the public API, in the versions that
/// this crate uses.
pub use {futures, libp2p_core, libp2p_noise, multistream_select};
#[cfg(feature = "tls")]
pub use {libp2p_tls, rustls};
