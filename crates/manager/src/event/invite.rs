//! Events of specialized node invites.

use std::fmt;

use calimero_network_primitives::PeerId;
use calimero_network_specialized::{
    InboundFailure, InboundRequestId, OutboundFailure, OutboundRequestId, ResponseChannel,
    SpecializedNodeInviteRequest, SpecializedNodeInviteResponse,
};
use calimero_network_transport::Chain;
use serde::Serialize;

use super::{Bounded, Class, Key, NetworkEvent, Subject, queue::Unread};
use crate::json;

/// An event of a specialized node invite. Payloads are left out of the JSON.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum InviteEvent {
    /// A peer asks to be invited. The application answers with
    /// [`send_specialized_node_invitation_response`]; a dropped channel refuses the request. Followed by
    /// `ResponseSent` or `ResponseFailed`.
    ///
    /// [`send_specialized_node_invitation_response`]:
    ///     crate::NetworkClient::send_specialized_node_invitation_response
    #[serde(rename = "invite_request")]
    Request {
        /// The peer that sent the request.
        #[serde(serialize_with = "json::text")]
        peer: PeerId,
        /// The id of the request in later events.
        #[serde(serialize_with = "json::text")]
        request_id: InboundRequestId,
        /// The request. Nothing of it is verified.
        #[serde(skip)]
        request: SpecializedNodeInviteRequest,
        /// The channel that takes the answer.
        #[serde(skip)]
        channel: ResponseChannel,
    },
    /// A request of this node was answered.
    #[serde(rename = "invite_response")]
    Response {
        /// The peer that answered.
        #[serde(serialize_with = "json::text")]
        peer: PeerId,
        /// The id that [`send_specialized_node_verification_request`] returned.
        ///
        /// [`send_specialized_node_verification_request`]:
        ///     crate::NetworkClient::send_specialized_node_verification_request
        #[serde(serialize_with = "json::text")]
        request_id: OutboundRequestId,
        /// The answer of the peer's application. Nothing of it is verified.
        #[serde(skip)]
        response: SpecializedNodeInviteResponse,
    },
    /// A request of this node was not answered.
    #[serde(rename = "invite_failed")]
    Failed {
        /// The peer that was asked.
        #[serde(serialize_with = "json::text")]
        peer: PeerId,
        /// The id that [`send_specialized_node_verification_request`] returned.
        ///
        /// [`send_specialized_node_verification_request`]:
        ///     crate::NetworkClient::send_specialized_node_verification_request
        #[serde(serialize_with = "json::text")]
        request_id: OutboundRequestId,
        /// The cause of the failure.
        #[serde(rename = "error", serialize_with = "json::error")]
        failure: OutboundFailure,
    },
    /// An answer of this node was written to the connection.
    #[serde(rename = "invite_response_sent")]
    ResponseSent {
        /// The peer that sent the request.
        #[serde(serialize_with = "json::text")]
        peer: PeerId,
        /// The id of the request.
        #[serde(serialize_with = "json::text")]
        request_id: InboundRequestId,
    },
    /// The request of a peer was not answered.
    #[serde(rename = "invite_response_failed")]
    ResponseFailed {
        /// The peer that sent the request.
        #[serde(serialize_with = "json::text")]
        peer: PeerId,
        /// The id of the request.
        #[serde(serialize_with = "json::text")]
        request_id: InboundRequestId,
        /// The cause of the failure.
        #[serde(rename = "error", serialize_with = "json::error")]
        failure: InboundFailure,
    },
    /// Requests of a peer were refused before the application could see them.
    #[serde(rename = "invites_refused")]
    Refused {
        /// The peer that sent the request.
        #[serde(serialize_with = "json::text")]
        peer: PeerId,
        /// The cause of the first refusal.
        #[serde(rename = "error", serialize_with = "json::error")]
        failure: InboundFailure,
        /// Number of requests refused since the last such event.
        count: u64,
    },
    /// Requests were refused in addition to those reported by [`Refused`](Self::Refused), of more
    /// peers than are reported one by one.
    #[serde(rename = "other_invites_refused")]
    OthersRefused {
        /// Number of requests refused since the last such event.
        count: u64,
    },
}

impl InviteEvent {
    pub(super) fn class(&mut self, unread: &mut Unread<'_>) -> Class {
        let request = |id: &InboundRequestId| Key::new("invite", Subject::Request(*id));
        match self {
            Self::Request { request_id, .. } | Self::ResponseSent { request_id, .. } => {
                Class::State(request(request_id))
            }
            Self::ResponseFailed { request_id, .. } => {
                let key = request(request_id);
                // A request that failed before the application read it is of no use to it.
                if unread.retract(&key).is_some() {
                    return Class::Void;
                }
                Class::State(key)
            }
            Self::Response { .. } | Self::Failed { .. } => Class::Control(Bounded::Answers),
            Self::Refused { peer, count, .. } => {
                let key = Key::new("invites refused", Subject::Peer(*peer));
                match unread.report(key, *count, count_of) {
                    Some(class) => class,
                    None => {
                        *self = Self::OthersRefused { count: *count };
                        self.class(unread)
                    }
                }
            }
            Self::OthersRefused { count } => unread.sum(
                Key::new("other invites refused", Subject::Node),
                *count,
                count_of,
            ),
        }
    }
}

fn count_of(event: &mut NetworkEvent) -> Option<&mut u64> {
    match event {
        NetworkEvent::Invite(
            InviteEvent::Refused { count, .. } | InviteEvent::OthersRefused { count },
        ) => Some(count),
        _ => None,
    }
}

impl fmt::Display for InviteEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request { peer, .. } => write!(f, "invite request of {peer}"),
            Self::Response { peer, .. } => write!(f, "invite answered by {peer}"),
            Self::Failed { peer, failure, .. } => {
                write!(f, "invite not answered by {peer}: {}", Chain(failure))
            }
            Self::ResponseSent { peer, .. } => write!(f, "invite answer sent to {peer}"),
            Self::ResponseFailed { peer, failure, .. } => {
                write!(f, "invite answer not sent to {peer}: {}", Chain(failure))
            }
            Self::Refused {
                peer,
                failure,
                count,
            } => write!(f, "refused {count} invites of {peer}: {}", Chain(failure)),
            Self::OthersRefused { count } => write!(f, "refused {count} invites of other peers"),
        }
    }
}
