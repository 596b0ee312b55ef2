//! The libp2p behaviour, which passes requests to the registry and returns its answers.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use calimero_network_exchange::inbound;
use calimero_network_primitives::{
    Multiaddr, PeerId,
    config::{ConfigError, RendezvousServerConfig},
    resources::{Holder, Limits, Origin, Resource, Resources},
};
use futures::FutureExt as _;
use futures_timer::Delay;
use libp2p_core::{Endpoint, transport::PortUse};
use libp2p_swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{
    handler::{Failure, Handler, NotServed, Shared},
    registry::{Held, Registered, Registry},
};
use crate::{
    machine::Namespace,
    server::now,
    wire::rendezvous::{self as wire, AnswerKind, Refusal, Request},
};

/// Shortest time between two searches for expired registrations. An expired registration is not
/// returned, even if it is removed later.
const EXPIRY_PAUSE: Duration = Duration::from_secs(1);

/// An event of the rendezvous server.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// The server registered a peer.
    Registered {
        /// Id of the remote peer.
        peer: PeerId,
        /// Namespace of the registration.
        namespace: Namespace,
        /// Life of the registration, and whether it existed before.
        registered: Registered,
    },
    /// A peer removed its registration, if it had one.
    Unregistered {
        /// Id of the remote peer.
        peer: PeerId,
        /// Namespace of the registration.
        namespace: Namespace,
    },
    /// The server returned members to a peer.
    Discovered {
        /// Id of the remote peer.
        peer: PeerId,
        /// Namespace of the members.
        namespace: Namespace,
        /// Number of members in the answer.
        members: usize,
    },
    /// The server refused a request.
    Refused {
        /// Id of the remote peer.
        peer: PeerId,
        /// Kind of the request.
        request: AnswerKind,
        /// Reason of the refusal.
        refusal: Refusal,
    },
    /// A stream carried no request, or its answer was not taken.
    Failed {
        /// Id of the remote peer.
        peer: PeerId,
        /// Reason of the failure.
        failure: Failure,
    },
    /// Registrations expired because they were not renewed.
    Expired {
        /// Number of expired registrations.
        registrations: usize,
    },
}

/// A rendezvous server in any `Swarm`.
///
/// Events are queued until the swarm polls them. Each event of a connection adds one at most.
#[derive(Debug)]
pub struct Behaviour {
    registry: Registry,
    resources: Resources,
    /// The origin of every connection, which registrations count for. The registry limits those of a
    /// peer.
    holders: HashMap<ConnectionId, Holder>,
    shared: Shared,
    rng: StdRng,
    expiry: Option<(Instant, Delay)>,
    events: VecDeque<Event>,
}

impl Behaviour {
    /// Creates a server with the limits of `config`, whether it is `enabled` there or not. `seed`
    /// decides which members are returned first, so it should be random.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] with the key whose value is invalid.
    pub fn new(config: &RendezvousServerConfig, seed: u64) -> Result<Self, ConfigError> {
        let mut limits = Limits::default();
        limits.set_rendezvous(config);
        Self::with_resources(config, seed, Resources::new(limits))
    }

    /// [`new`](Self::new) with the accounting of a node, whose limits for the registrations of one
    /// IP prefix or relay apply.
    ///
    /// # Errors
    ///
    /// Those of [`new`](Self::new).
    pub fn with_resources(
        config: &RendezvousServerConfig,
        seed: u64,
        resources: Resources,
    ) -> Result<Self, ConfigError> {
        config.validate("")?;
        let mut rng = StdRng::seed_from_u64(seed);
        Ok(Self {
            registry: Registry::new(config.clone(), rng.random()),
            resources,
            holders: HashMap::new(),
            shared: Shared {
                config: Arc::new(config.clone()),
                ids: inbound::Ids::default(),
            },
            rng,
            expiry: None,
            events: VecDeque::new(),
        })
    }

    /// Returns the number of registrations, peers, namespaces and bytes held.
    #[must_use]
    pub fn held(&self) -> Held {
        self.registry.held()
    }

    /// Returns the number of requests that are being received or answered.
    #[must_use]
    pub fn requests(&self) -> usize {
        let used = self.resources.used(Resource::RendezvousRequests);
        usize::try_from(used).unwrap_or(usize::MAX)
    }

    /// Registers a peer unless the origin of its connection has as many registrations as it may have.
    fn register(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        namespace: &Namespace,
        record: &[u8],
        ttl_s: Option<u64>,
    ) -> Result<Registered, Refusal> {
        let now = now();
        self.registry.expire(now);
        let before = self.registry.take_permit(&peer, namespace);
        let holder = self.holders.get(&connection);
        let new = holder.and_then(|holder| holder.take(Resource::Registrations, 1).ok());
        // A renewal from an origin that is full keeps the permit of where it came from.
        let (permit, spare) = match (new, before) {
            (Some(new), before) => (new, before),
            (None, Some(before)) => (before, None),
            (None, None) => return Err(Refusal::Unavailable),
        };
        let (registry, rng) = (&mut self.registry, &mut self.rng);
        let result = registry.register(peer, namespace, record, ttl_s, now, rng);
        let kept = match &result {
            Ok(_) => permit,
            // A registration that was not renewed keeps its permit.
            Err(_) => spare.unwrap_or(permit),
        };
        registry.set_permit(&peer, namespace, Some(kept));
        result
    }

    /// Returns the answer to a request, and the event to emit.
    fn serve(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        request: Request,
    ) -> (Option<Bytes>, Event) {
        let now = now();
        let kind = request.answer();
        let refused = |refusal| {
            let event = Event::Refused {
                peer,
                request: kind,
                refusal,
            };
            (wire::encode_refusal(kind, refusal), event)
        };
        match request {
            Request::Register {
                namespace,
                record,
                ttl_s,
            } => match self.register(peer, connection, &namespace, &record, ttl_s) {
                Ok(registered) => (
                    Some(wire::encode_registered(Ok(registered.ttl_s))),
                    Event::Registered {
                        peer,
                        namespace,
                        registered,
                    },
                ),
                Err(refusal) => refused(refusal),
            },
            Request::Unregister { namespace } => {
                self.registry.unregister(&peer, &namespace, now);
                (None, Event::Unregistered { peer, namespace })
            }
            Request::Discover {
                namespace: None, ..
            } => refused(Refusal::NotAuthorized),
            Request::Discover {
                namespace: Some(namespace),
                cookie,
                limit,
            } => match self.registry.discover(
                &namespace,
                cookie.as_deref(),
                limit,
                now,
                &mut self.rng,
            ) {
                Ok((found, cookie)) => (
                    Some(wire::encode_discovered(&namespace, &found, &cookie)),
                    Event::Discovered {
                        peer,
                        namespace,
                        members: found.len(),
                    },
                ),
                Err(refusal) => refused(refusal),
            },
        }
    }

    /// The handler of a new connection.
    fn connected(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        origin: Option<Origin>,
    ) -> Handler {
        let registrations = self.resources.holder(None, origin);
        self.holders.insert(connection, registrations);
        let requests = self.resources.holder(Some(peer), origin);
        self.shared.handler(peer, requests)
    }

    /// Removes expired registrations, and sets the time of the next search.
    fn poll_expiry(&mut self, cx: &mut Context<'_>) {
        loop {
            let Some(due) = self.registry.next_expiry() else {
                self.expiry = None;
                return;
            };
            let now = now();
            let earlier = (self.expiry.as_ref()).is_none_or(|(at, _)| due < *at && *at > now);
            if earlier {
                let wait = due.saturating_duration_since(now).max(EXPIRY_PAUSE);
                self.expiry = Some((now + wait, Delay::new(wait)));
            }
            let Some((_, delay)) = &mut self.expiry else {
                return;
            };
            if delay.poll_unpin(cx).is_pending() {
                return;
            }
            self.expiry = None;
            let registrations = self.registry.expire(now);
            if registrations > 0 {
                self.events.push_back(Event::Expired { registrations });
            }
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let origin = Origin::of_inbound(local, remote);
        Ok(self.connected(connection, peer, origin))
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.connected(connection, peer, Origin::of_addr(address)))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        let ended = match event {
            FromSwarm::ConnectionClosed(closed) => closed.connection_id,
            // Another behaviour refused the connection.
            FromSwarm::DialFailure(failure) => failure.connection_id,
            FromSwarm::ListenFailure(failure) => failure.connection_id,
            _ => return,
        };
        self.holders.remove(&ended);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        let event = match event {
            inbound::Event::Request {
                request, answer, ..
            } => {
                let (bytes, event) = self.serve(peer, connection, request);
                // A stream that was reset in between takes no answer.
                let _ = answer.send(bytes.unwrap_or_default());
                event
            }
            inbound::Event::Ended { result: Ok(()), .. } => return,
            inbound::Event::Ended {
                result: Err(NotServed::Refused(request, refusal)),
                ..
            } => Event::Refused {
                peer,
                request,
                refusal,
            },
            inbound::Event::Ended {
                result: Err(NotServed::Failed(failure)),
                ..
            } => Event::Failed { peer, failure },
        };
        self.events.push_back(event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        self.poll_expiry(cx);
        match self.events.pop_front() {
            Some(event) => Poll::Ready(ToSwarm::GenerateEvent(event)),
            None => Poll::Pending,
        }
    }
}
