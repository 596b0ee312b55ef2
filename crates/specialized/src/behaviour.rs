//! The libp2p behaviour: sends and serves typed requests. Every request has an
//! id and a deadline and ends exactly once.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use calimero_network_exchange::{dial::DialCause, inbound, outbound};
use calimero_network_primitives::resources::{Limits, Origin, Resource, Resources};
use futures::FutureExt;
use futures_timer::Delay;
use libp2p_core::{Endpoint, Multiaddr, multiaddr::Protocol, transport::PortUse};
use libp2p_identity::PeerId;
use libp2p_swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler,
    THandler, THandlerInEvent, THandlerOutEvent, ToSwarm, derive_prelude::Either,
    dial_opts::DialOpts,
};

use crate::{
    codec::Message,
    config::{ConfigError, SpecializedConfig},
    failure::{InboundFailure, OutboundFailure},
    handler::{Client, Handler, InboundRequestId, ResponseChannel, Server},
    message::{SpecializedNodeInviteRequest, SpecializedNodeInviteResponse},
    outbound::{Effect, OutboundRequestId, OutboundRequests},
};

/// Events that the behaviour emits. Every request ends in exactly one event, on
/// both sides.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A peer sent a request. The request ends in
    /// [`ResponseSent`](Self::ResponseSent) or
    /// [`InboundFailure`](Self::InboundFailure).
    Request {
        /// The remote peer that sent the request.
        peer: PeerId,
        /// The connection on which the request arrived.
        connection: ConnectionId,
        /// Id of the request in later events.
        request_id: InboundRequestId,
        /// The request. It was decoded, but not verified.
        request: SpecializedNodeInviteRequest,
        /// Channel for the response, usable from any task.
        channel: ResponseChannel,
    },
    /// A peer answered a request of this node.
    Response {
        /// The remote peer that answered.
        peer: PeerId,
        /// The id that [`Behaviour::send_request`] returned.
        request_id: OutboundRequestId,
        /// The response of the peer's application. It was decoded, but not
        /// verified.
        response: SpecializedNodeInviteResponse,
    },
    /// A request of this node failed.
    OutboundFailure {
        /// The remote peer to which the request was addressed.
        peer: PeerId,
        /// The id that [`Behaviour::send_request`] returned.
        request_id: OutboundRequestId,
        /// The reason of the failure.
        failure: OutboundFailure,
    },
    /// A response of this node was written to the connection completely.
    ResponseSent {
        /// The remote peer that sent the request.
        peer: PeerId,
        /// Id of the request that was answered.
        request_id: InboundRequestId,
    },
    /// A request of a peer was not answered. No [`Request`](Self::Request)
    /// event precedes it if the request was refused or could not be decoded.
    InboundFailure {
        /// The remote peer that sent the request.
        peer: PeerId,
        /// The connection of the request.
        connection: ConnectionId,
        /// Id of the request that failed.
        request_id: InboundRequestId,
        /// The reason of the failure.
        failure: InboundFailure,
    },
}

/// Sends and serves invite requests over the connections of a swarm.
///
/// Events are queued until the swarm takes them. Connections report one event
/// at a time, so the number of queued events is bounded by the calls of
/// [`send_request`](Self::send_request) and by the requests on a connection
/// that closes.
#[derive(Debug)]
pub struct Behaviour {
    config: Arc<SpecializedConfig>,
    resources: Resources,
    inbound_ids: inbound::Ids,
    outbound: OutboundRequests,
    deadlines: Deadlines,
    /// Requests that were passed to the application and have not ended.
    inbound: HashMap<InboundRequestId, (PeerId, ConnectionId)>,
    events: VecDeque<Event>,
}

impl Behaviour {
    /// A behaviour with the bounds and deadlines of `config` and an accounting of its own.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] with the key of a value that is out of range.
    pub fn new(config: &SpecializedConfig) -> Result<Self, ConfigError> {
        let mut limits = Limits::default();
        limits.set_invites(config);
        Self::with_resources(config, Resources::new(limits))
    }

    /// [`new`](Self::new) with the accounting of a node, whose limits of inbound requests apply in
    /// place of those of `config`.
    ///
    /// # Errors
    ///
    /// Those of [`new`](Self::new).
    pub fn with_resources(
        config: &SpecializedConfig,
        resources: Resources,
    ) -> Result<Self, ConfigError> {
        config.validate("")?;
        Ok(Self {
            outbound: OutboundRequests::new(config.tuning.max_outbound),
            deadlines: Deadlines::new(config.request_timeout, config.tuning.max_outbound),
            config: Arc::new(config.clone()),
            resources,
            inbound_ids: inbound::Ids::default(),
            inbound: HashMap::new(),
            events: VecDeque::new(),
        })
    }

    /// Sends a request to `peer`. If the peer is not connected, the swarm dials
    /// it at the addresses that its behaviours know.
    ///
    /// The returned id appears in exactly one [`Event::Response`] or
    /// [`Event::OutboundFailure`], at the latest when the configured deadline
    /// passes.
    pub fn send_request(
        &mut self,
        peer: PeerId,
        request: &SpecializedNodeInviteRequest,
    ) -> OutboundRequestId {
        self.send_request_with_addresses(peer, request, Vec::new())
    }

    /// Same as [`send_request`](Self::send_request), with additional addresses
    /// for the dial. They are not used if the peer is connected or being
    /// dialled.
    pub fn send_request_with_addresses(
        &mut self,
        peer: PeerId,
        request: &SpecializedNodeInviteRequest,
        addresses: Vec<Multiaddr>,
    ) -> OutboundRequestId {
        let wire = request
            .encode(self.config.tuning.max_message_bytes)
            .map_err(OutboundFailure::Request);
        let id = self.outbound.send(peer, wire, addresses);
        if self.outbound.contains(id) {
            self.deadlines.push(id, &self.outbound);
        }
        id
    }

    /// Cancels a request, so that no event is emitted for it. Returns `false`
    /// if the request had already ended.
    ///
    /// The peer may have served the request.
    pub fn cancel_request(&mut self, request: OutboundRequestId) -> bool {
        self.outbound.cancel(request, None)
    }

    /// Returns the number of outbound requests that have not ended.
    #[must_use]
    pub fn outbound_requests(&self) -> usize {
        self.outbound.len()
    }

    /// Requests of all peers that hold a permit: arriving, waiting for the application, or being
    /// answered.
    #[must_use]
    pub fn inbound_requests(&self) -> usize {
        let used = self.resources.used(Resource::InviteRequests);
        usize::try_from(used).unwrap_or(usize::MAX)
    }

    /// Converts an effect of the request table to a command for the swarm.
    fn apply(&mut self, effect: Effect) -> ToSwarm<Event, THandlerInEvent<Self>> {
        let notify = |peer_id, connection, event| ToSwarm::NotifyHandler {
            peer_id,
            handler: NotifyHandler::One(connection),
            event: Either::Right(event),
        };
        match effect {
            Effect::Dial(peer, addresses) => {
                let opts = DialOpts::peer_id(peer)
                    .addresses(addresses)
                    .extend_addresses_through_behaviour()
                    .build();
                self.outbound.dialling(peer, opts.connection_id());
                ToSwarm::Dial { opts }
            }
            Effect::Send(peer, connection, id, wire) => {
                notify(peer, connection, outbound::Command::Send(id.0, wire))
            }
            Effect::Stop(peer, connection, id) => {
                notify(peer, connection, outbound::Command::Cancel(id.0))
            }
            Effect::Fail(peer, request_id, failure) => {
                ToSwarm::GenerateEvent(Event::OutboundFailure {
                    peer,
                    request_id,
                    failure,
                })
            }
        }
    }

    fn handler(&self, peer: PeerId, origin: Option<Origin>) -> Handler {
        let server = Server {
            config: self.config.clone(),
            holder: self.resources.holder(Some(peer), origin),
        };
        inbound::Handler::new(server, self.inbound_ids.clone())
            .select(outbound::Handler::new(Client(self.config.clone())))
    }

    fn on_inbound(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: inbound::Event<Server>,
    ) -> Event {
        match event {
            inbound::Event::Request {
                id,
                request,
                answer,
            } => {
                let request_id = InboundRequestId(id);
                self.inbound.insert(request_id, (peer, connection));
                let limit = self.config.tuning.max_message_bytes;
                Event::Request {
                    peer,
                    connection,
                    request_id,
                    request,
                    channel: ResponseChannel { answer, limit },
                }
            }
            inbound::Event::Ended { id, result } => {
                let request_id = InboundRequestId(id);
                self.inbound.remove(&request_id);
                match result {
                    Ok(()) => Event::ResponseSent { peer, request_id },
                    Err(failure) => Event::InboundFailure {
                        peer,
                        connection,
                        request_id,
                        failure,
                    },
                }
            }
        }
    }

    /// Returns `None` if the deadline was already reported, or the request was
    /// cancelled.
    fn on_answered(
        &mut self,
        peer: PeerId,
        request_id: OutboundRequestId,
        result: Result<SpecializedNodeInviteResponse, outbound::Failure<OutboundFailure>>,
    ) -> Option<Event> {
        self.outbound.ended(request_id)?;
        let failure = match result {
            Ok(response) => {
                return Some(Event::Response {
                    peer,
                    request_id,
                    response,
                });
            }
            Err(outbound::Failure::TooMany { limit }) => OutboundFailure::TooMany { limit },
            Err(outbound::Failure::Unsupported) => OutboundFailure::Unsupported,
            Err(outbound::Failure::TimedOut { after }) => OutboundFailure::Deadline { after },
            Err(outbound::Failure::Stream(failure)) => failure,
        };
        Some(Event::OutboundFailure {
            peer,
            request_id,
            failure,
        })
    }

    fn on_closed(&mut self, peer: PeerId, connection: ConnectionId) {
        self.outbound.closed(peer, connection);
        let mut lost: Vec<_> = self
            .inbound
            .extract_if(|_, (_, over)| *over == connection)
            .map(|(id, _)| id)
            .collect();
        lost.sort_unstable();
        self.events
            .extend(lost.into_iter().map(|request_id| Event::InboundFailure {
                peer,
                connection,
                request_id,
                failure: InboundFailure::ConnectionClosed,
            }));
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let origin = Origin::of_inbound(local, remote);
        Ok(self.handler(peer, origin))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let origin = Origin::of_addr(address);
        Ok(self.handler(peer, origin))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(up) => {
                let relayed = up
                    .endpoint
                    .get_remote_address()
                    .iter()
                    .any(|part| part == Protocol::P2pCircuit);
                self.outbound
                    .connected(up.peer_id, up.connection_id, relayed);
            }
            FromSwarm::ConnectionClosed(closed) => {
                self.on_closed(closed.peer_id, closed.connection_id);
            }
            FromSwarm::DialFailure(failed) => {
                if let Some(peer) = failed.peer_id {
                    let failure = DialCause::of(failed.error);
                    self.outbound
                        .dial_failed(peer, failed.connection_id, failure);
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        let event = match event {
            Either::Left(event) => Some(self.on_inbound(peer, connection, event)),
            Either::Right(outbound::Event::Ended(id, result)) => {
                self.on_answered(peer, OutboundRequestId(id), result)
            }
            Either::Right(outbound::Event::Supported(_)) => None,
        };
        self.events.extend(event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        // Deadlines come first, so that an expired request that still waits for a
        // connection is not sent.
        while let Poll::Ready(id) = self.deadlines.poll(cx, &self.outbound) {
            let after = self.deadlines.after;
            self.outbound
                .cancel(id, Some(OutboundFailure::Deadline { after }));
        }
        if let Some(event) = self.events.pop_front() {
            return Poll::Ready(ToSwarm::GenerateEvent(event));
        }
        match self.outbound.effect() {
            Some(effect) => Poll::Ready(self.apply(effect)),
            None => Poll::Pending,
        }
    }
}

/// The deadlines of outbound requests. All requests have the same duration, so
/// they expire in order and only the first timer is polled.
#[derive(Debug)]
struct Deadlines {
    after: Duration,
    /// Queue length above which ended requests are removed: twice the limit of
    /// pending requests.
    sweep_above: usize,
    queue: VecDeque<(OutboundRequestId, Delay)>,
}

impl Deadlines {
    fn new(after: Duration, limit: usize) -> Self {
        Self {
            after,
            sweep_above: limit.saturating_mul(2),
            queue: VecDeque::new(),
        }
    }

    fn push(&mut self, id: OutboundRequestId, outbound: &OutboundRequests) {
        if self.queue.len() >= self.sweep_above {
            self.queue.retain(|(id, _)| outbound.contains(*id));
        }
        self.queue.push_back((id, Delay::new(self.after)));
    }

    /// Returns the next pending request that is past its deadline.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        outbound: &OutboundRequests,
    ) -> Poll<OutboundRequestId> {
        while let Some((id, delay)) = self.queue.front_mut() {
            let id = *id;
            if outbound.contains(id) {
                std::task::ready!(delay.poll_unpin(cx));
            }
            self.queue.pop_front();
            if outbound.contains(id) {
                return Poll::Ready(id);
            }
        }
        Poll::Pending
    }
}
