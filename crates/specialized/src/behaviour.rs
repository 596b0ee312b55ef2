//! The libp2p behaviour: typed requests out and in, each with an id, a deadline and one end.

use std::{
    collections::{HashMap, VecDeque},
    task::{Context, Poll},
    time::Duration,
};

use calimero_network_primitives::resources::{Limits, Origin, Resource, Resources};
use futures::FutureExt;
use futures_timer::Delay;
use libp2p_core::{Endpoint, Multiaddr, multiaddr::Protocol, transport::PortUse};
use libp2p_identity::PeerId;
use libp2p_swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm, dial_opts::DialOpts,
};

use crate::{
    book::{Book, Effect, OutboundRequestId},
    codec::Message,
    config::{ConfigError, SpecializedConfig},
    failure::{DialFailure, InboundFailure, OutboundFailure},
    handler::{FromBehaviour, Handler, InboundRequestId, ResponseChannel, Shared, ToBehaviour},
    message::{SpecializedNodeInviteRequest, SpecializedNodeInviteResponse},
};

/// What happened. Every request ends in exactly one event, on either side.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A peer asks. It ends in [`ResponseSent`](Self::ResponseSent) or
    /// [`InboundFailure`](Self::InboundFailure).
    Request {
        /// Who asks.
        peer: PeerId,
        /// Over which connection.
        connection: ConnectionId,
        /// Names the request in later events.
        request_id: InboundRequestId,
        /// What is asked. Nothing of it has been verified.
        request: SpecializedNodeInviteRequest,
        /// Takes the answer, from any task.
        channel: ResponseChannel,
    },
    /// The answer to a request of ours.
    Response {
        /// Who answers.
        peer: PeerId,
        /// What [`Behaviour::send_request`] returned.
        request_id: OutboundRequestId,
        /// The answer of the peer's application. Nothing of it has been verified.
        response: SpecializedNodeInviteResponse,
    },
    /// A request of ours has no answer.
    OutboundFailure {
        /// Who was asked.
        peer: PeerId,
        /// What [`Behaviour::send_request`] returned.
        request_id: OutboundRequestId,
        /// Why.
        failure: OutboundFailure,
    },
    /// An answer of ours was handed to the connection, all of it.
    ResponseSent {
        /// Who asked.
        peer: PeerId,
        /// Which request.
        request_id: InboundRequestId,
    },
    /// A request of a peer was not answered. For one that was refused or never understood there
    /// was no [`Request`](Self::Request) before.
    InboundFailure {
        /// Who asked.
        peer: PeerId,
        /// Over which connection.
        connection: ConnectionId,
        /// Which request.
        request_id: InboundRequestId,
        /// Why.
        failure: InboundFailure,
    },
}

/// Asks and answers, over the connections of any `Swarm`.
///
/// Events wait here until the swarm takes them. What a connection tells comes one at a time, so
/// they are as many as the calls of [`send_request`](Self::send_request) and the requests on a
/// connection that closes.
#[derive(Debug)]
pub struct Behaviour {
    shared: Shared,
    book: Book,
    deadlines: Deadlines,
    /// Requests that the application was given and that have not ended.
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
            book: Book::new(config.tuning.max_outbound),
            deadlines: Deadlines::new(config.request_timeout, config.tuning.max_outbound),
            shared: Shared::new(config.clone(), resources),
            inbound: HashMap::new(),
            events: VecDeque::new(),
        })
    }

    /// Asks `peer`, dialling it if it is not connected: at the addresses that the behaviours of
    /// the swarm know.
    ///
    /// The returned id comes back in exactly one [`Event::Response`] or
    /// [`Event::OutboundFailure`], by the deadline of the configuration at the latest.
    pub fn send_request(
        &mut self,
        peer: PeerId,
        request: &SpecializedNodeInviteRequest,
    ) -> OutboundRequestId {
        self.send_request_with_addresses(peer, request, Vec::new())
    }

    /// As [`send_request`](Self::send_request), dialling at `addresses` besides. They are not
    /// used if a connection is up or being made already.
    pub fn send_request_with_addresses(
        &mut self,
        peer: PeerId,
        request: &SpecializedNodeInviteRequest,
        addresses: Vec<Multiaddr>,
    ) -> OutboundRequestId {
        let wire = request
            .encode(self.shared.config.tuning.max_message_bytes)
            .map_err(OutboundFailure::Request);
        let id = self.book.send(peer, wire, addresses);
        if self.book.holds(id) {
            self.deadlines.push(id, &self.book);
        }
        id
    }

    /// Gives a request up: no event will come for it. False if it had ended.
    ///
    /// The peer may have served it.
    pub fn cancel_request(&mut self, request: OutboundRequestId) -> bool {
        self.book.give_up(request, None)
    }

    /// Requests of ours that have not ended.
    #[must_use]
    pub fn outbound_requests(&self) -> usize {
        self.book.len()
    }

    /// Requests of all peers that hold a permit: arriving, waiting for the application, or being
    /// answered.
    #[must_use]
    pub fn inbound_requests(&self) -> usize {
        let used = self.shared.resources.used(Resource::InviteRequests);
        usize::try_from(used).unwrap_or(usize::MAX)
    }

    /// What `effect` means to the swarm.
    fn carry_out(&mut self, effect: Effect) -> ToSwarm<Event, FromBehaviour> {
        let notify = |peer_id, connection, event| ToSwarm::NotifyHandler {
            peer_id,
            handler: NotifyHandler::One(connection),
            event,
        };
        match effect {
            Effect::Dial(peer, addresses) => {
                let opts = DialOpts::peer_id(peer)
                    .addresses(addresses)
                    .extend_addresses_through_behaviour()
                    .build();
                self.book.dialling(peer, opts.connection_id());
                ToSwarm::Dial { opts }
            }
            Effect::Send(peer, connection, id, wire) => {
                notify(peer, connection, FromBehaviour::Send(id, wire))
            }
            Effect::Stop(peer, connection, id) => notify(peer, connection, FromBehaviour::Stop(id)),
            Effect::Fail(peer, request_id, failure) => {
                ToSwarm::GenerateEvent(Event::OutboundFailure {
                    peer,
                    request_id,
                    failure,
                })
            }
        }
    }

    fn on_closed(&mut self, peer: PeerId, connection: ConnectionId) {
        self.book.closed(peer, connection);
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
        Ok(Handler::new(peer, origin, self.shared.clone()))
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
        Ok(Handler::new(peer, origin, self.shared.clone()))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(up) => {
                let relayed = up
                    .endpoint
                    .get_remote_address()
                    .iter()
                    .any(|part| part == Protocol::P2pCircuit);
                self.book.connected(up.peer_id, up.connection_id, relayed);
            }
            FromSwarm::ConnectionClosed(gone) => self.on_closed(gone.peer_id, gone.connection_id),
            FromSwarm::DialFailure(failed) => {
                if let Some(peer) = failed.peer_id {
                    let failure = DialFailure::of(failed.error);
                    self.book.dial_failed(peer, failed.connection_id, failure);
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
            ToBehaviour::Requested(request_id, request, channel) => {
                self.inbound.insert(request_id, (peer, connection));
                Event::Request {
                    peer,
                    connection,
                    request_id,
                    request,
                    channel,
                }
            }
            ToBehaviour::Served(request_id, result) => {
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
            ToBehaviour::Answered(request_id, result) => {
                if self.book.ended(request_id).is_none() {
                    // Its deadline has been told, or nobody wants it.
                    return;
                }
                match result {
                    Ok(response) => Event::Response {
                        peer,
                        request_id,
                        response,
                    },
                    Err(failure) => Event::OutboundFailure {
                        peer,
                        request_id,
                        failure,
                    },
                }
            }
        };
        self.events.push_back(event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        while let Poll::Ready(id) = self.deadlines.poll(cx, &self.book) {
            let after = self.deadlines.after;
            self.book
                .give_up(id, Some(OutboundFailure::Deadline { after }));
        }
        if let Some(event) = self.events.pop_front() {
            return Poll::Ready(ToSwarm::GenerateEvent(event));
        }
        match self.book.effect() {
            Some(effect) => Poll::Ready(self.carry_out(effect)),
            None => Poll::Pending,
        }
    }
}

/// The deadlines of outbound requests. All are given the same time, so they pass in order and
/// only the first is watched.
#[derive(Debug)]
struct Deadlines {
    after: Duration,
    /// Length above which what has ended is swept out: twice what can be waiting.
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

    fn push(&mut self, id: OutboundRequestId, book: &Book) {
        if self.queue.len() >= self.sweep_above {
            self.queue.retain(|(id, _)| book.holds(*id));
        }
        self.queue.push_back((id, Delay::new(self.after)));
    }

    /// The next request that waits past its deadline.
    fn poll(&mut self, cx: &mut Context<'_>, book: &Book) -> Poll<OutboundRequestId> {
        while let Some((id, delay)) = self.queue.front_mut() {
            let id = *id;
            if book.holds(id) {
                std::task::ready!(delay.poll_unpin(cx));
            }
            self.queue.pop_front();
            if book.holds(id) {
                return Poll::Ready(id);
            }
        }
        Poll::Pending
    }
}
