//! Events that the manager emits.
//!
//! Each concern has an enum of its own in a file of its own. Next to an event are the three things
//! that depend on it: its class, by which an unread event gives way to newer ones, its JSON, and
//! its text.

#[cfg(feature = "blobs")]
mod blob;
mod connection;
mod discovery;
mod gossip;
#[cfg(feature = "invites")]
mod invite;
mod listener;
mod queue;
mod stream;
#[cfg(test)]
mod tests;

use std::fmt;

use calimero_network_discovery::machine::Namespace;
#[cfg(feature = "blobs")]
use calimero_network_primitives::{BlobId, ContextId};
use calimero_network_primitives::{Multiaddr, PeerId, Topic};
#[cfg(feature = "invites")]
use calimero_network_specialized::InboundRequestId;
use calimero_network_stream::RefuseReason;
use libp2p::{
    StreamProtocol,
    swarm::{ConnectionId, derive_prelude::ListenerId},
};
use serde::Serialize;

#[cfg(feature = "blobs")]
pub use self::blob::BlobEvent;
#[cfg(feature = "invites")]
pub use self::invite::InviteEvent;
pub(crate) use self::queue::EventSender;
use self::queue::Unread;
pub use self::{
    connection::{CloseReason, ConnectionEvent},
    discovery::DiscoveryEvent,
    gossip::GossipEvent,
    listener::ListenerEvent,
    queue::Events,
    stream::StreamEvent,
};

/// An event of the network, by the part of the node that it concerns.
///
/// `Serialize` writes one flat JSON object: `event` is the name of the event in snake case, and the
/// other keys are its fields. Identifiers and addresses are strings in their usual text form, times
/// end in `_ms`. Streams and response channels are left out. `Display` writes one line of text.
#[derive(Debug, Serialize)]
#[serde(untagged)]
#[non_exhaustive]
#[expect(
    clippy::large_enum_variant,
    reason = "an event is moved once, into the queue and out; a box would cost an allocation for each stream"
)]
pub enum NetworkEvent {
    /// An event of the addresses that this node listens on.
    Listener(ListenerEvent),
    /// An event of a connection or of the peer at its other end.
    Connection(ConnectionEvent),
    /// An event of discovery: phase, reachability, external addresses, relays, overlays.
    Discovery(DiscoveryEvent),
    /// An event of streams that peers open.
    Stream(StreamEvent),
    /// An event of topics: messages and subscriptions.
    Gossip(GossipEvent),
    /// An event of a specialized node invite.
    #[cfg(feature = "invites")]
    Invite(InviteEvent),
    /// An event of the announcement, the service or the transfer of a blob.
    #[cfg(feature = "blobs")]
    Blob(BlobEvent),
}

impl NetworkEvent {
    fn class(&mut self, unread: &mut Unread<'_>) -> Class {
        match self {
            Self::Listener(event) => event.class(unread),
            Self::Connection(event) => event.class(unread),
            Self::Discovery(event) => event.class(unread),
            Self::Stream(event) => event.class(unread),
            Self::Gossip(event) => event.class(unread),
            #[cfg(feature = "invites")]
            Self::Invite(event) => event.class(unread),
            #[cfg(feature = "blobs")]
            Self::Blob(event) => event.class(unread),
        }
    }
}

impl fmt::Display for NetworkEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listener(event) => fmt::Display::fmt(event, f),
            Self::Connection(event) => fmt::Display::fmt(event, f),
            Self::Discovery(event) => fmt::Display::fmt(event, f),
            Self::Stream(event) => fmt::Display::fmt(event, f),
            Self::Gossip(event) => fmt::Display::fmt(event, f),
            #[cfg(feature = "invites")]
            Self::Invite(event) => fmt::Display::fmt(event, f),
            #[cfg(feature = "blobs")]
            Self::Blob(event) => fmt::Display::fmt(event, f),
        }
    }
}

macro_rules! concerns {
    ($($concern:ident($event:ty)),* $(,)?) => {
        $(impl From<$event> for NetworkEvent {
            fn from(event: $event) -> Self {
                Self::$concern(event)
            }
        })*
    };
}

concerns! {
    Listener(ListenerEvent),
    Connection(ConnectionEvent),
    Discovery(DiscoveryEvent),
    Stream(StreamEvent),
    Gossip(GossipEvent),
}

#[cfg(feature = "invites")]
concerns! { Invite(InviteEvent) }

#[cfg(feature = "blobs")]
concerns! { Blob(BlobEvent) }

/// How an event is queued, and how it gives way to newer ones while it is unread.
#[derive(Debug)]
enum Class {
    /// A message of this many bytes. The oldest unread messages are dropped and counted when the
    /// bounds of the queue are reached.
    Message { bytes: usize },
    /// Messages that were dropped before they reached the queue.
    Missed { messages: u64 },
    /// The latest state of a subject. It replaces the unread event with the same key, in its place.
    State(Key),
    /// A control event. It is never dropped and never replaced; its emitter bounds the number.
    Control(Bounded),
    /// A report of refusals by one subject. The event itself adds up unread reports.
    Report(Key),
    /// How far a transfer is. It replaces the unread event with the same key and moves to the end of
    /// the queue; beyond [`queue::MAX_TRANSFERS`] keys it is dropped.
    #[cfg(feature = "blobs")]
    Transfer(Key),
    /// Not queued: the reader has all that it says, or needs none of it.
    Void,
}

/// The bounds that unread control events are counted against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bounded {
    /// Bounded by the number of things in the network.
    Subjects,
    /// Inbound streams: at most `handle.event_queue` wait here, the others in `streams`.
    Streams,
    /// Ends of invite requests of this node: at most `specialized.max_outbound`.
    #[cfg(feature = "invites")]
    Answers,
    /// Reports of refusals: at most [`queue::MAX_REPORTS`].
    Reports,
    /// Transfers and announcements: at most [`queue::MAX_TRANSFERS`].
    #[cfg(feature = "blobs")]
    Transfers,
}

/// The subject of an event. A newer event replaces an unread one with an equal key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    /// The kind of state; events that replace one another share it.
    kind: &'static str,
    subject: Subject,
}

impl Key {
    fn new(kind: &'static str, subject: Subject) -> Self {
        Self { kind, subject }
    }
}

/// The thing that an event is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    /// This node as a whole.
    Node,
    Listener(ListenerId, Option<Multiaddr>),
    Address(Multiaddr),
    Connection(ConnectionId),
    /// A peer, connected or not.
    Peer(PeerId),
    /// A peer while it is connected: void once its last connection has closed.
    Connected(PeerId),
    /// A subscription of a connected peer: void once its last connection has closed.
    Subscription(PeerId, Topic),
    Overlay(Namespace),
    Protocol(PeerId, StreamProtocol, RefuseReason),
    #[cfg(feature = "invites")]
    Request(InboundRequestId),
    #[cfg(feature = "blobs")]
    Blob(ContextId, BlobId),
    /// An event that no other one replaces.
    Unique(u64),
}

impl Subject {
    /// Whether nothing is left of the subject once `peer` has no connection.
    fn ends_with(&self, peer: &PeerId) -> bool {
        matches!(self, Self::Connected(of) | Self::Subscription(of, _) if of == peer)
    }
}
