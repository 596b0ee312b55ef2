//! What the behaviour tells.

use bytes::Bytes;
use calimero_network_primitives::{PeerId, Topic};

use crate::{keep::KeepId, wire::MessageId};

/// What the behaviour tells.
///
/// A connection that ends takes all subscriptions of its peer with it, without an event for each.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A message of a topic that this node follows. Told once for each message.
    Message(Message),
    /// A peer follows a topic from now on, which this node need not follow.
    Subscribed {
        /// The peer.
        peer: PeerId,
        /// The topic.
        topic: Topic,
    },
    /// A peer follows a topic no longer.
    Unsubscribed {
        /// The peer.
        peer: PeerId,
        /// The topic.
        topic: Topic,
    },
    /// A message that was kept has been sent to the first subscriber of its topic.
    KeptSent {
        /// Which.
        keep: KeepId,
        /// The topic.
        topic: Topic,
        /// The id it was sent under.
        id: MessageId,
    },
    /// A message that was kept is lost: its time ended before anybody followed its topic, or
    /// gossipsub refused it.
    KeptLost {
        /// Which.
        keep: KeepId,
        /// The topic.
        topic: Topic,
    },
    /// No peer holds back messages any more: what was refused with
    /// [`QueueFull`](crate::PublishError::QueueFull) can be published now.
    Room,
    /// Messages for a peer were lost because its queue was full or they waited too long. Told at
    /// most once a heartbeat; with none lost, when others no longer wait for the peer.
    Slow {
        /// The peer.
        peer: PeerId,
        /// Messages lost since the last time.
        lost: usize,
    },
    /// A peer did not read for too long; the connections with it are being closed.
    ClosedSlow {
        /// The peer.
        peer: PeerId,
    },
    /// A peer has missed our announcements or we have missed its. All connections with it are
    /// being closed, and it is dialled again.
    StaleMesh {
        /// The peer.
        peer: PeerId,
    },
    /// The peer that was to be dialled again could not be reached. It is up to discovery now.
    RepairFailed {
        /// The peer.
        peer: PeerId,
    },
    /// A peer made too many faults; it is being closed and refused for a while.
    Banned {
        /// The peer.
        peer: PeerId,
    },
    /// A peer that is connected does not speak gossipsub.
    Unsupported {
        /// The peer.
        peer: PeerId,
    },
}

/// A message, its signature checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The topic.
    pub topic: Topic,
    /// Who wrote and signed it.
    pub source: PeerId,
    /// Who passed it on to this node.
    pub propagated_by: PeerId,
    /// Its id, unique in the network.
    pub id: MessageId,
    /// The payload.
    pub data: Bytes,
}

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Published {
    /// It is on its way to at least one peer.
    Sent(MessageId),
    /// It waits for the first subscriber. [`Event::KeptSent`] or [`Event::KeptLost`] follows.
    Kept(KeepId),
}
