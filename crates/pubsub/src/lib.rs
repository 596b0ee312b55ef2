//! Publish and subscribe on the topics of the calimero network.
//!
//! [`Behaviour`] speaks [gossipsub] 1.0 to 1.2, and the extensions of 1.3 as far as they are
//! known, with signed messages of at most 1 MiB. All decisions are made by a state machine without
//! IO ([`machine`]); the behaviour feeds it and carries out its effects. It works in any libp2p
//! swarm.
//!
//! - Subscriptions belong to a peer: every new stream begins with all topics, so restarts,
//!   simultaneous connections and lost streams cannot leave one side without them ([`machine`]).
//! - A message is valid to the letter before it is delivered or forwarded, and old messages are
//!   recognized, even by a node that has just started ([`validate`]).
//! - A peer that breaks rules is bounded, and banned in the end; preferences of the application
//!   order peers and never exclude one ([`score`]).
//! - A slow peer costs itself: its queue is bounded in messages, bytes and time.
//! - A message for a topic without subscribers is an error, or kept for a while.
//! - A slow consumer learns how many messages it missed ([`EventQueue`]).
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
//! A received payload is a slice of the buffer it was read into, and is forwarded from there if it
//! arrived in the canonical encoding, which all known implementations write. A published payload is
//! copied once to be signed and once to be encoded; the encoded message is shared by all peers.
//! Writing copies messages up to 16 KiB into one buffer with others.
//!
//! # Features
//!
//! `metrics`: Prometheus metrics (`Behaviour::with_metrics`).
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

mod announcements;
mod behaviour;
pub mod config;
pub mod ed25519;
mod error;
mod event;
mod keep;
pub mod machine;
#[cfg(feature = "metrics")]
mod metrics;
mod queue;
pub mod rpc;
pub mod score;
pub mod validate;
mod views;
pub mod wire;

pub use calimero_network_primitives::Topic;

pub use self::{
    behaviour::Behaviour,
    config::Config,
    error::{Banned, BuildError, PublishError, SubscribeError},
    event::{Event, Message, Published},
    keep::{KeepBook, KeepId, KeepLimits},
    queue::{EventQueue, Queued},
    views::{Counters, MeshStats, TopicStats},
    wire::{MessageId, TopicHash, topic_hash},
};

/// The registry that [`Behaviour::with_metrics`] takes is of this crate.
#[cfg(feature = "metrics")]
pub use prometheus_client;
/// Crates whose types occur in the public API, in the versions that are used.
pub use {bytes, libp2p_core, libp2p_swarm};

/// Runs the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeDoctests;
