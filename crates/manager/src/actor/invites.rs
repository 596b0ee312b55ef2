//! Specialized node invites: requests, answers, events.

use calimero_network_primitives::PeerId;
use calimero_network_specialized::{
    Event, InboundFailure, InboundRequestId, OutboundRequestId, SpecializedNodeInviteRequest,
};

use super::Actor;
use crate::{error::InviteError, event::InviteEvent};

impl Actor {
    /// Refuses a request beyond the limit. Requests whose end is unread count as pending, so that their
    /// events always have space.
    pub(super) fn send_invite(
        &mut self,
        peer: PeerId,
        request: &SpecializedNodeInviteRequest,
    ) -> Result<OutboundRequestId, InviteError> {
        let limit = self.config.specialized.tuning.max_outbound;
        let unread = self.events.unread_answers();
        let invites = &mut self.swarm.behaviour_mut().invites;
        if invites.outbound_requests() + unread >= limit {
            return Err(InviteError::TooMany { limit });
        }
        Ok(invites.send_request(peer, request))
    }

    pub(super) fn on_invite(&mut self, event: Event) {
        let event = match event {
            Event::Request {
                peer,
                request_id,
                request,
                channel,
                ..
            } => {
                self.asked.insert(request_id);
                InviteEvent::Request {
                    peer,
                    request_id,
                    request,
                    channel,
                }
            }
            Event::Response {
                peer,
                request_id,
                response,
            } => InviteEvent::Response {
                peer,
                request_id,
                response,
            },
            Event::OutboundFailure {
                peer,
                request_id,
                failure,
            } => InviteEvent::Failed {
                peer,
                request_id,
                failure,
            },
            Event::ResponseSent { peer, request_id } => {
                self.asked.remove(&request_id);
                InviteEvent::ResponseSent { peer, request_id }
            }
            Event::InboundFailure {
                peer,
                request_id,
                failure,
                ..
            } => self.invite_failed(peer, request_id, failure),
            _ => return,
        };
        self.events.send(event);
    }

    /// A request that failed before it was emitted is only counted.
    fn invite_failed(
        &mut self,
        peer: PeerId,
        request_id: InboundRequestId,
        failure: InboundFailure,
    ) -> InviteEvent {
        if self.asked.remove(&request_id) {
            InviteEvent::ResponseFailed {
                peer,
                request_id,
                failure,
            }
        } else {
            InviteEvent::Refused {
                peer,
                failure,
                count: 1,
            }
        }
    }
}
