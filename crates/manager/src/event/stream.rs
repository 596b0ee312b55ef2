//! Events of streams that peers open.

use std::fmt;

use calimero_network_primitives::PeerId;
use calimero_network_stream::{FrameStream, RefuseReason, Substream};
use libp2p::{StreamProtocol, swarm::ConnectionId};
use serde::Serialize;

use super::{Bounded, Class, Key, NetworkEvent, Subject, queue::Unread};
use crate::json;

/// An event of streams that peers open.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
#[expect(
    clippy::large_enum_variant,
    reason = "an event is moved once, into the queue and out; a box would cost an allocation for each stream"
)]
pub enum StreamEvent {
    /// A peer opened a stream of the general protocol. The reader of the event owns the stream;
    /// dropping it resets it.
    #[serde(rename = "stream_opened")]
    Opened {
        /// The id of the remote peer.
        #[serde(serialize_with = "json::text")]
        peer: PeerId,
        /// The connection that carries the stream.
        #[serde(serialize_with = "json::text")]
        connection: ConnectionId,
        /// Protocol that was negotiated.
        #[serde(serialize_with = "json::text")]
        protocol: StreamProtocol,
        /// The stream, in frames.
        #[serde(skip)]
        stream: FrameStream<Substream>,
    },
    /// Streams of a peer were refused because a limit was reached.
    #[serde(rename = "streams_refused")]
    Refused {
        /// The id of the remote peer.
        #[serde(serialize_with = "json::text")]
        peer: PeerId,
        /// Protocol that the peer asked for.
        #[serde(serialize_with = "json::text")]
        protocol: StreamProtocol,
        /// The limit that was reached.
        #[serde(serialize_with = "json::text")]
        reason: RefuseReason,
        /// Number of streams refused since the last such event.
        count: u64,
    },
    /// Streams were refused in addition to those reported by [`Refused`](Self::Refused), of more
    /// peers and protocols than are reported one by one.
    #[serde(rename = "other_streams_refused")]
    OthersRefused {
        /// Number of streams refused since the last such event.
        count: u64,
    },
}

impl StreamEvent {
    pub(super) fn class(&mut self, unread: &mut Unread<'_>) -> Class {
        match self {
            Self::Opened { .. } => Class::Control(Bounded::Streams),
            Self::Refused {
                peer,
                protocol,
                reason,
                count,
            } => {
                let subject = Subject::Protocol(*peer, protocol.clone(), *reason);
                let key = Key::new("streams refused", subject);
                match unread.report(key, *count, count_of) {
                    Some(class) => class,
                    None => {
                        *self = Self::OthersRefused { count: *count };
                        self.class(unread)
                    }
                }
            }
            Self::OthersRefused { count } => unread.sum(
                Key::new("other streams refused", Subject::Node),
                *count,
                count_of,
            ),
        }
    }
}

fn count_of(event: &mut NetworkEvent) -> Option<&mut u64> {
    match event {
        NetworkEvent::Stream(
            StreamEvent::Refused { count, .. } | StreamEvent::OthersRefused { count },
        ) => Some(count),
        _ => None,
    }
}

impl fmt::Display for StreamEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opened { peer, protocol, .. } => write!(f, "stream opened by {peer}: {protocol}"),
            Self::Refused {
                peer,
                protocol,
                reason,
                count,
            } => write!(f, "refused {count} streams of {peer}: {protocol}: {reason}"),
            Self::OthersRefused { count } => write!(f, "refused {count} streams of other peers"),
        }
    }
}
