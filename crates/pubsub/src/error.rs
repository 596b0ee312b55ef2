//! One error type per operation.

use calimero_network_primitives::{ConfigError, PeerId};

/// Why a message was not published. It is lost unless it is published again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// No peer that is connected follows the topic, as far as is known. Wait for
    /// [`Event::Subscribed`](crate::Event::Subscribed), or have the message kept.
    #[error("no connected peer follows the topic")]
    NoPeers,
    /// The payload is too large; nobody would accept it.
    #[error("payload of {size} bytes, at most {limit} are allowed")]
    TooLarge {
        /// Most bytes allowed.
        limit: usize,
        /// Bytes of the payload.
        size: usize,
    },
    /// Peers that follow the topic have too much to read before it. Publish more slowly, or wait
    /// for [`Event::Room`](crate::Event::Room).
    #[error("the queues of {peers} peers that follow the topic are full")]
    QueueFull {
        /// How many peers.
        peers: usize,
    },
    /// No peer follows the topic, and no more messages can be kept.
    #[error("{messages} messages of {bytes} bytes are kept already")]
    KeepFull {
        /// Messages kept.
        messages: usize,
        /// Bytes of payload kept.
        bytes: usize,
    },
    /// The key does not sign. A key of this crate's users always does.
    #[error("the message cannot be signed")]
    Signing,
}

/// Why a topic is not followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// As many topics as allowed are followed already. Peers would not hear of one more.
    #[error("{limit} topics are followed already")]
    TooMany {
        /// Most topics allowed.
        limit: usize,
    },
    /// The topics followed are so long that they would no longer fit the one message in which a
    /// new peer is told of them; it would hear of none.
    #[error("topics of {limit} bytes in all are followed already")]
    TooLong {
        /// Most bytes of all topics, [`ANNOUNCED_TOPIC_OVERHEAD_BYTES`] counted with each.
        ///
        /// [`ANNOUNCED_TOPIC_OVERHEAD_BYTES`]:
        ///     calimero_network_primitives::limits::ANNOUNCED_TOPIC_OVERHEAD_BYTES
        limit: usize,
    },
}

/// Why a behaviour was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The configuration contradicts itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Gossipsub refuses the configuration. None that validates is refused by version 0.50.1.
    #[error("gossipsub refuses the configuration: {reason}")]
    Gossipsub {
        /// What gossipsub says.
        reason: String,
    },
}

/// Why a connection is refused: the peer misbehaved a moment ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{peer} has misbehaved and is refused for a while")]
pub struct Banned {
    /// The peer.
    pub peer: PeerId,
}
