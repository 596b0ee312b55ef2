//! One error type per operation.

use calimero_network_primitives::{ConfigError, PeerId};

/// Error of a publication. The message is lost unless it is published again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// No connected peer is known to subscribe to the topic. Wait for
    /// [`Event::Subscribed`](crate::Event::Subscribed), or have the message kept.
    #[error("no connected peer subscribes to the topic")]
    NoPeers,
    /// The payload is above the limit of this node.
    #[error("payload of {size} bytes, at most {limit} are allowed")]
    TooLarge {
        /// Most bytes that are allowed.
        limit: usize,
        /// Bytes of the payload.
        size: usize,
    },
    /// No subscriber takes a message of this size: published 0.11 nodes take 64 KiB, everything
    /// around the payload included. [`Event::TooLargeForPeer`](crate::Event::TooLargeForPeer) names
    /// each of them with its limit.
    #[error("message of {size} bytes is too large for all {peers} subscribers")]
    TooLargeForPeers {
        /// Number of these subscribers.
        peers: usize,
        /// Bytes of the message, everything around the payload included.
        size: usize,
    },
    /// Subscribers have too much to read before it. Publish more slowly, or wait for
    /// [`Event::Room`](crate::Event::Room).
    #[error("the queues of {peers} subscribers are full")]
    QueueFull {
        /// Number of these subscribers.
        peers: usize,
    },
    /// No peer subscribes to the topic, and no more messages can be kept.
    #[error("{messages} messages of {bytes} bytes are kept already")]
    KeepFull {
        /// Messages that are kept.
        messages: usize,
        /// Bytes of payload kept.
        bytes: usize,
    },
    /// The key does not sign, which no supported key does.
    #[error("the message cannot be signed")]
    Signing,
}

/// Error of a subscription.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// This node subscribes to as many topics as allowed already.
    #[error("{limit} topics are subscribed to already")]
    TooMany {
        /// Most topics that are allowed.
        limit: usize,
    },
    /// The topics of this node are so long in all that other implementations would not accept
    /// their announcement.
    #[error("topics of {limit} bytes in all are subscribed to already")]
    TooLong {
        /// Most bytes of all topics, [`ANNOUNCED_TOPIC_OVERHEAD_BYTES`] counted with each.
        ///
        /// [`ANNOUNCED_TOPIC_OVERHEAD_BYTES`]:
        ///     calimero_network_primitives::limits::ANNOUNCED_TOPIC_OVERHEAD_BYTES
        limit: usize,
    },
}

/// Error of the construction of a behaviour.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The configuration contradicts itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// Cause of a refused connection: the peer misbehaved a short time ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{peer} has misbehaved and is refused for a while")]
pub struct Banned {
    /// The peer that is refused.
    pub peer: PeerId,
}
