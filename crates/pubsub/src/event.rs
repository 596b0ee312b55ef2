//! Events of the behaviour.

use bytes::Bytes;
use calimero_network_primitives::{PeerId, Topic};

use crate::{error::PublishError, keep::KeepId, wire::MessageId};

/// An event of the behaviour.
///
/// A peer whose last connection closes loses all its subscriptions, without an event for each.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A message of a topic to which this node subscribes. Emitted once for each message.
    Message(Message),
    /// A peer subscribes to a topic, to which this node need not subscribe.
    Subscribed {
        /// The peer that the event is about.
        peer: PeerId,
        /// The topic it subscribes to.
        topic: Topic,
    },
    /// A peer unsubscribed from a topic.
    Unsubscribed {
        /// The peer that the event is about.
        peer: PeerId,
        /// The topic it unsubscribed from.
        topic: Topic,
    },
    /// A message that was kept or waited for room has been sent.
    KeptSent {
        /// Name of the message while it was kept.
        keep: KeepId,
        /// The topic it was sent to.
        topic: Topic,
        /// The id under which it was sent.
        id: MessageId,
    },
    /// A message that was kept or waited for room is lost.
    KeptLost {
        /// Name of the message while it was kept.
        keep: KeepId,
        /// The topic it was published to.
        topic: Topic,
        /// Why it was not sent in time.
        error: PublishError,
    },
    /// A message that was refused with [`QueueFull`](PublishError::QueueFull) can be published
    /// now.
    Room,
    /// Messages for a peer were dropped because its queue was full or they waited too long.
    /// Emitted at most once a heartbeat.
    Slow {
        /// The peer that the event is about.
        peer: PeerId,
        /// Messages dropped since the last such event.
        lost: usize,
    },
    /// A peer did not read for too long; the connections with it are being closed.
    ClosedSlow {
        /// The peer that the event is about.
        peer: PeerId,
    },
    /// A peer cannot get a message because it takes only smaller RPCs. A published 0.11 node
    /// closes its stream on an RPC above 64 KiB, and a node of this version on one above its
    /// configured limit. The RPC is lost. Larger RPCs are not sent to the peer until it reconnects.
    TooLargeForPeer {
        /// The peer that the event is about.
        peer: PeerId,
        /// Bytes of the RPC.
        size: usize,
        /// Most bytes of an RPC that the peer takes.
        limit: usize,
    },
    /// A peer broke too many rules; it is being closed and refused for a while.
    Banned {
        /// The peer that the event is about.
        peer: PeerId,
    },
    /// A connected peer does not speak gossipsub.
    Unsupported {
        /// The peer that the event is about.
        peer: PeerId,
    },
}

/// A message whose author has been verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The topic it was published to.
    pub topic: Topic,
    /// The author, which signed it.
    pub source: PeerId,
    /// The peer that sent it to this node.
    pub propagated_by: PeerId,
    /// Its sequence number. Of each author it is unique; implementations count from different
    /// starts, use the time, or choose at random.
    pub sequence_number: u64,
    /// Its id, unique in the network: [`MessageId::new`] of the author and the sequence number.
    pub id: MessageId,
    /// Payload of the message.
    pub data: Bytes,
}

/// Result of a publication that may be sent later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Published {
    /// The message is queued for at least one peer.
    Sent(MessageId),
    /// The message is kept. [`Event::KeptSent`] or [`Event::KeptLost`] follows.
    Kept(KeepId),
}
