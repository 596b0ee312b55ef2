//! The libp2p behaviour: hands requests to the registry and its answers back.

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use calimero_network_exchange::inbound;
use calimero_network_primitives::{
    Multiaddr, PeerId, Places,
    config::{ConfigError, RendezvousServerConfig},
};
use futures::FutureExt as _;
use futures_timer::Delay;
use libp2p_core::{Endpoint, transport::PortUse};
use libp2p_swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::{
    handler::{Failure, Handler, NotServed, Shared},
    registry::{Held, Registered, Registry},
};
use crate::{
    machine::Namespace,
    server::now,
    wire::rendezvous::{self as wire, AnswerKind, Refusal, Request},
};

/// Shortest time between two looks for registrations whose life is over. They are never told
/// after it, whenever they are forgotten.
const EXPIRY_PAUSE: Duration = Duration::from_secs(1);

/// What was asked of the server, and what came of it.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A peer is registered.
    Registered {
        /// Who.
        peer: PeerId,
        /// As a member of which overlay.
        namespace: Namespace,
        /// For how long, and whether it was before.
        registered: Registered,
    },
    /// A peer has taken its registration back, if it had one.
    Unregistered {
        /// Who.
        peer: PeerId,
        /// As a member of which overlay.
        namespace: Namespace,
    },
    /// A peer was told of members.
    Discovered {
        /// Who.
        peer: PeerId,
        /// Of which overlay.
        namespace: Namespace,
        /// How many.
        members: usize,
    },
    /// A peer was refused.
    Refused {
        /// Who.
        peer: PeerId,
        /// What it asked for.
        request: AnswerKind,
        /// Why.
        refusal: Refusal,
    },
    /// A stream of a peer carried no request, or took no answer.
    Failed {
        /// Whose.
        peer: PeerId,
        /// Why.
        failure: Failure,
    },
    /// Registrations were not renewed in time, and are forgotten.
    Expired {
        /// How many.
        registrations: usize,
    },
}

/// A rendezvous server in any `Swarm`.
///
/// Events wait here until the swarm takes them: one for each that a connection tells, which come
/// one at a time.
#[derive(Debug)]
pub struct Behaviour {
    registry: Registry,
    shared: Shared,
    rng: StdRng,
    expiry: Option<(Instant, Delay)>,
    events: VecDeque<Event>,
}

impl Behaviour {
    /// A server within the bounds of `config`, whether it is `enabled` there or not. `seed`
    /// decides which members are told first, so it is random where strangers ask.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] with the key that cannot hold.
    pub fn new(config: &RendezvousServerConfig, seed: u64) -> Result<Self, ConfigError> {
        config.validate("")?;
        let mut rng = StdRng::seed_from_u64(seed);
        Ok(Self {
            registry: Registry::new(config.clone(), rng.random()),
            shared: Shared {
                config: Arc::new(config.clone()),
                serving: Places::default(),
                ids: inbound::Ids::default(),
            },
            rng,
            expiry: None,
            events: VecDeque::new(),
        })
    }

    /// What is held.
    #[must_use]
    pub fn held(&self) -> Held {
        self.registry.held()
    }

    /// Requests of all peers that are being received or answered.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.shared.serving.taken()
    }

    /// The answer to a request, and what to tell of it.
    fn serve(&mut self, peer: PeerId, request: Request) -> (Option<Bytes>, Event) {
        let (registry, rng, now) = (&mut self.registry, &mut self.rng, now());
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
            } => match registry.register(peer, &namespace, &record, ttl_s, now, rng) {
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
                registry.unregister(&peer, &namespace, now);
                (None, Event::Unregistered { peer, namespace })
            }
            Request::Discover {
                namespace: None, ..
            } => refused(Refusal::NotAuthorized),
            Request::Discover {
                namespace: Some(namespace),
                cookie,
                limit,
            } => match registry.discover(&namespace, cookie.as_deref(), limit, now, rng) {
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

    /// Forgets what is over, and wakes again when the next may be.
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
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.shared.handler(peer))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.shared.handler(peer))
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        let event = match event {
            inbound::Event::Request {
                request, answer, ..
            } => {
                let (bytes, event) = self.serve(peer, request);
                // A stream that was reset by now takes no answer.
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
