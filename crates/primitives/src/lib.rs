//! What all crates of the calimero network share: identifiers, protocol names, limits, topics,
//! addresses and configuration. No IO, no clock, no runtime, no libp2p umbrella crate.
//!
//! - [`ContextId`], [`BlobId`], [`GroupId`], [`NamespaceId`]: 32 bytes, one text form each;
//! - [`Topic`]: gossip topics and the rendezvous namespaces that belong to them;
//! - [`NetworkName`]: the name of a network and the namespace in which its nodes meet;
//! - [`ProtocolId`]: the names that peers negotiate;
//! - [`addr`]: scope, transport and peer of an address, circuit addresses;
//! - [`config`]: [`NetworkConfig`] and its parts, read from TOML and checked before use;
//! - [`limits`]: every bound, with its unit and its reason;
//! - [`resources`]: the accounting of what peers hold, with its limits;
//! - [`round_trips`]: which of several connections with one peer are slow;
//!
//! All parsers accept hostile input: they check lengths before they decode, do not allocate by
//! claims of the input, and return a typed error that names what is wrong and where.
//!
//! ```
//! # #[cfg(feature = "config")] {
//! use calimero_network_primitives::{
//!     ContextId, NetworkConfig, Topic,
//!     addr::{DialPolicy, is_dialable},
//!     config::Security,
//! };
//!
//! let id: ContextId = "29d2S7vB453rNYFdR5Ycwt7y9haRT5fwVwL9zTmBhfV2".parse()?;
//! assert_eq!(
//!     Topic::context(id).rendezvous_namespace().as_deref(),
//!     Some("/calimero/ctx/29d2S7vB453rNYFdR5Ycwt7y9haRT5fwVwL9zTmBhfV2"),
//! );
//!
//! assert!(is_dialable(&"/ip4/10.0.0.7/tcp/2428".parse()?, DialPolicy::Private));
//! assert!(!is_dialable(&"/ip4/127.0.0.1/tcp/2428".parse()?, DialPolicy::Private));
//!
//! let config = NetworkConfig::from_toml("transport.tcp.prefer = 'noise'")?;
//! assert_eq!(config.transport.tcp.prefer, Security::Noise);
//! let error = NetworkConfig::from_toml("transport.quic.windows = 1").unwrap_err();
//! assert!(error.to_string().starts_with("transport.quic.windows: unknown field"));
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//!
//! `config` (default): [`NetworkConfig`]. `peers`, which it turns on: [`PeerId`], [`Keypair`],
//! [`Multiaddr`], [`addr`] and [`ProtocolId`]. Without them the crate has ids, topics and limits.
//!
//! `blobs`, `dns`, `invites`, `mdns`, `quic`, `relay`, `tcp`, `tls` and `upnp` (all default) say which
//! parts of a node are compiled in. The crate that implements a part enables the feature. The default
//! configuration uses the parts that exist, and keys of a missing part are refused.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "peers")]
pub mod addr;
#[cfg(feature = "config")]
pub mod config;
#[cfg(feature = "peers")]
mod dial_failure;
mod ids;
pub mod limits;
mod network_name;
#[cfg(feature = "peers")]
mod protocol;
#[cfg(feature = "peers")]
pub mod resources;
pub mod round_trips;
mod topic;

#[cfg(feature = "peers")]
pub use libp2p_identity::{self as identity, Keypair, PeerId};
#[cfg(feature = "peers")]
pub use multiaddr::{self, Multiaddr};
/// The crate of the error of reading a [`ProtocolId`], in the version that is used.
#[cfg(feature = "peers")]
pub use strum;

#[cfg(feature = "config")]
pub use self::config::{ConfigError, NetworkConfig};
#[cfg(feature = "peers")]
pub use self::dial_failure::{DialFailure, UnreachableCause};
#[cfg(feature = "peers")]
pub use self::protocol::{IDENTIFY_PROTOCOL_VERSION, ProtocolId};
pub use self::{
    ids::{BlobId, ContextId, GroupId, NamespaceId, ParseIdError, TextEncoding},
    network_name::{MAX_NETWORK_NAME_BYTES, NetworkName, ParseNetworkNameError},
    topic::{FreeTopic, GLOBAL_RENDEZVOUS_NAMESPACE, ParseTopicError, Topic},
};

/// Runs the examples of the README.
#[cfg(all(doctest, feature = "config"))]
#[doc = include_str!("../README.md")]
struct ReadmeDoctests;
