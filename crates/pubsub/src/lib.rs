//! Publish and subscribe on the topics of the calimero network.
//!
//! [`Behaviour`] speaks [gossipsub] (`/meshsub/1.3.0` and older) through libp2p-gossipsub, with
//! signed messages of at most 1 MiB, and puts around it what long-lived nodes need:
//!
//! - a peer that has missed the announcements is recognised and brought back ([`repair`]);
//! - a peer that announces, repeats, forges or controls too much is bounded, and banned in the
//!   end ([`announcements`], [`replay`], [`standing`]);
//! - preferences of the application order peers and never shut one out ([`standing`]);
//! - a message for a topic that nobody follows yet is an error, or kept for a while ([`keep`]);
//! - a publisher is held back by the slowest of those who get its messages, so that nothing is
//!   lost to one that is only slower ([`hold`]);
//! - a peer that never reads is closed ([`slow`]);
//! - a consumer that is slow is told what it missed ([`queue`]).
//!
//! Each of these is a pure part without clock, socket or runtime; the behaviour feeds them and
//! carries out what they answer. It works in anybody's swarm.
//!
//! ```
//! use calimero_network_primitives::{ContextId, Keypair, Topic};
//! use calimero_network_pubsub::{Behaviour, Config, PublishError};
//!
//! let mut pubsub = Behaviour::new(Keypair::generate_ed25519(), &Config::small())?;
//! let topic = Topic::context(ContextId::new([7; 32]));
//! assert!(pubsub.subscribe(&topic)?);
//! assert_eq!(pubsub.publish(&topic, "hello"), Err(PublishError::NoPeers));
//! assert_eq!(pubsub.mesh_peer_count(&topic), 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Where payloads are copied
//!
//! Payloads are [`Bytes`](bytes::Bytes) at this crate's edge, and what is received is handed on
//! without a copy. Inside, libp2p-gossipsub 0.50 holds payloads as `Vec<u8>` and copies them:
//!
//! - *on receipt*: once to check the signature; once into a `Vec`; once for the transform; once for
//!   the message cache; once for each member it is forwarded to, and once more into that member's
//!   write buffer;
//! - *on publishing*: once where the `Bytes` are shared or a slice; once for the transform; twice
//!   to sign; once for the cache; once for each receiver and once into its write buffer.
//!
//! Inbound streams are read by this crate's own handler, so that a copy of a message that was
//! verified before costs neither a check nor a payload copy ([`rpc`], [`replay`]).
//!
//! # Features
//!
//! `metrics`: gossipsub's Prometheus metrics (`Behaviour::with_metrics`).
//!
//! [gossipsub]: https://github.com/libp2p/specs/tree/master/pubsub/gossipsub

#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        reason = "tests start at an arbitrary time"
    )
)]

pub mod announcements;
mod behaviour;
pub mod config;
pub mod ed25519;
mod error;
mod event;
pub mod hold;
pub mod keep;
pub mod queue;
pub mod repair;
pub mod replay;
pub mod rpc;
pub mod slow;
pub mod standing;
mod wire;

pub use calimero_network_primitives::Topic;
pub use libp2p_gossipsub::TopicHash;

pub use self::{
    behaviour::{Behaviour, Counters, MeshStats, TopicStats},
    config::Config,
    error::{Banned, BuildError, PublishError, SubscribeError},
    event::{Event, Message, Published},
    keep::KeepId,
    queue::{EventQueue, Queued},
    wire::{MessageId, topic_hash},
};

/// The registry that [`Behaviour::with_metrics`] takes is of this crate.
#[cfg(feature = "metrics")]
pub use prometheus_client;
/// Crates whose types occur in what is public here, in the versions that are used.
pub use {bytes, libp2p_core, libp2p_gossipsub, libp2p_swarm};

/// Runs the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeDoctests;
