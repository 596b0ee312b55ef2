//! A rendezvous client that does what it is told and remembers nothing.
//!
//! That of libp2p-rendezvous 0.18 keeps every registration it is told of until the end of a life
//! that the server names, refreshes registrations and dials on its own, throws a whole answer
//! away for one bad record, and panics on an answer of the wrong kind. Here the machine is the
//! one that remembers.

mod wire;

use std::{
    collections::{HashMap, VecDeque},
    io,
    task::{Context, Poll},
    time::Duration,
};

use calimero_network_primitives::{Keypair, Multiaddr, PeerId};
use futures::{AsyncWriteExt, FutureExt, future::BoxFuture};
use libp2p_core::{Endpoint, PeerRecord, transport::PortUse};
use libp2p_swarm::{
    ConnectionClosed, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler,
    Stream, StreamProtocol, THandlerInEvent, ToSwarm, behaviour::ConnectionEstablished,
};

use self::wire::{Members, Message};
use super::{
    ask::{self, Exchange, Told},
    frame,
};
use crate::machine::{Cookie, Namespace, RendezvousFailure};

/// What the client tells. Every question ends with one of these.
#[derive(Debug)]
pub enum Event {
    Registered {
        server: PeerId,
        namespace: Namespace,
        ttl: Duration,
    },
    RegisterFailed {
        server: PeerId,
        namespace: Namespace,
        why: RendezvousFailure,
    },
    Discovered {
        server: PeerId,
        namespace: Namespace,
        members: Vec<(PeerId, Vec<Multiaddr>)>,
        cookie: Option<Cookie>,
    },
    DiscoverFailed {
        server: PeerId,
        namespace: Namespace,
        why: RendezvousFailure,
    },
}

#[derive(Debug)]
pub enum Answer {
    Registered(Result<u64, RendezvousFailure>),
    Unregistered,
    Discovered(Result<Members, RendezvousFailure>),
}

#[derive(Debug)]
enum Kind {
    Register,
    Unregister,
    Discover { namespace: Namespace, limit: u32 },
}

/// A question and how its answer is read.
#[derive(Debug)]
pub struct Request {
    message: Box<Message>,
    kind: Kind,
}

/// One question on one stream.
pub struct Rendezvous;

impl Exchange for Rendezvous {
    type Request = Request;
    type Answer = Answer;

    const PROTOCOL: StreamProtocol = StreamProtocol::new("/rendezvous/1.0.0");
    const TIMEOUT: Duration = Duration::from_secs(10);

    fn run(mut stream: Stream, request: Request) -> BoxFuture<'static, io::Result<Answer>> {
        async move {
            frame::write(&mut stream, &*request.message).await?;
            stream.close().await?;
            if let Kind::Unregister = request.kind {
                return Ok(Answer::Unregistered);
            }
            let answer = frame::read(&mut stream, wire::MAX_MESSAGE_BYTES).await?;
            Ok(match request.kind {
                Kind::Discover { namespace, limit } => {
                    Answer::Discovered(wire::discovered(answer, &namespace, limit))
                }
                _ => Answer::Registered(wire::registered(answer)),
            })
        }
        .boxed()
    }
}

/// A question that was asked.
#[derive(Debug)]
struct Asked {
    server: PeerId,
    connection: ConnectionId,
    namespace: Namespace,
    registers: bool,
}

/// Asks rendezvous servers that are connected.
pub struct Client {
    keypair: Keypair,
    connections: HashMap<PeerId, Vec<ConnectionId>>,
    /// As many as the machine has asked at one time: one of each kind for a server and overlay.
    asked: HashMap<ask::Id, Asked>,
    last_id: ask::Id,
    waiting: VecDeque<ToSwarm<Event, (ask::Id, Request)>>,
}

impl Client {
    pub(super) fn new(keypair: Keypair) -> Self {
        Self {
            keypair,
            connections: HashMap::new(),
            asked: HashMap::new(),
            last_id: 0,
            waiting: VecDeque::new(),
        }
    }

    /// Registers `addresses`, which are ours.
    pub(super) fn register(
        &mut self,
        server: PeerId,
        namespace: Namespace,
        addresses: Vec<Multiaddr>,
        ttl: Duration,
    ) {
        let record = PeerRecord::new(&self.keypair, addresses);
        let request = record.map(|record| Request {
            message: Box::new(wire::register(&namespace, record, ttl.as_secs())),
            kind: Kind::Register,
        });
        let asked = request.is_ok_and(|request| self.ask(server, namespace.clone(), request));
        if !asked {
            self.register_failed(server, namespace, RendezvousFailure::Refused);
        }
    }

    /// Takes a registration back. Whether that arrives is not known: it expires in any case.
    pub(super) fn unregister(&mut self, server: PeerId, namespace: Namespace) {
        let message = Box::new(wire::unregister(&namespace));
        let kind = Kind::Unregister;
        self.ask(server, namespace, Request { message, kind });
    }

    pub(super) fn discover(
        &mut self,
        server: PeerId,
        namespace: Namespace,
        cookie: Option<&Cookie>,
        limit: u32,
    ) {
        let request = Request {
            message: Box::new(wire::discover(&namespace, cookie, limit)),
            kind: Kind::Discover {
                namespace: namespace.clone(),
                limit,
            },
        };
        if !self.ask(server, namespace.clone(), request) {
            self.discover_failed(server, namespace, RendezvousFailure::Refused);
        }
    }

    /// Returns whether `server` is connected, so that it can be asked.
    fn ask(&mut self, server: PeerId, namespace: Namespace, request: Request) -> bool {
        let connections = self.connections.get(&server);
        let Some(connection) = connections.and_then(|c| c.first().copied()) else {
            return false;
        };
        self.last_id += 1;
        if !matches!(request.kind, Kind::Unregister) {
            let asked = Asked {
                server,
                connection,
                namespace,
                registers: matches!(request.kind, Kind::Register),
            };
            self.asked.insert(self.last_id, asked);
        }
        self.waiting.push_back(ToSwarm::NotifyHandler {
            peer_id: server,
            handler: NotifyHandler::One(connection),
            event: (self.last_id, request),
        });
        true
    }

    fn tell(&mut self, event: Event) {
        self.waiting.push_back(ToSwarm::GenerateEvent(event));
    }

    fn register_failed(&mut self, server: PeerId, namespace: Namespace, why: RendezvousFailure) {
        self.tell(Event::RegisterFailed {
            server,
            namespace,
            why,
        });
    }

    fn discover_failed(&mut self, server: PeerId, namespace: Namespace, why: RendezvousFailure) {
        self.tell(Event::DiscoverFailed {
            server,
            namespace,
            why,
        });
    }

    fn answered(&mut self, id: ask::Id, answer: io::Result<Answer>) {
        let Some(Asked {
            server,
            namespace,
            registers,
            ..
        }) = self.asked.remove(&id)
        else {
            return;
        };
        match answer {
            Ok(Answer::Registered(Ok(ttl_secs))) => self.tell(Event::Registered {
                server,
                namespace,
                ttl: Duration::from_secs(ttl_secs),
            }),
            Ok(Answer::Registered(Err(why))) => self.register_failed(server, namespace, why),
            Ok(Answer::Discovered(Ok(Members { members, cookie }))) => {
                self.tell(Event::Discovered {
                    server,
                    namespace,
                    members,
                    cookie,
                });
            }
            Ok(Answer::Discovered(Err(why))) => self.discover_failed(server, namespace, why),
            // A server that says nothing is not one that is full.
            Ok(Answer::Unregistered) | Err(_) if registers => {
                self.register_failed(server, namespace, RendezvousFailure::Refused);
            }
            Ok(Answer::Unregistered) | Err(_) => {
                self.discover_failed(server, namespace, RendezvousFailure::Refused);
            }
        }
    }

    fn closed(&mut self, event: &ConnectionClosed<'_>) {
        if let Some(connections) = self.connections.get_mut(&event.peer_id) {
            connections.retain(|id| *id != event.connection_id);
            if connections.is_empty() {
                self.connections.remove(&event.peer_id);
            }
        }
        let lost: Vec<_> = self
            .asked
            .iter()
            .filter(|(_, asked)| asked.connection == event.connection_id)
            .map(|(id, _)| *id)
            .collect();
        for id in lost {
            self.answered(id, Err(io::ErrorKind::ConnectionReset.into()));
        }
    }
}

impl NetworkBehaviour for Client {
    type ConnectionHandler = ask::Handler<Rendezvous>;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Self::ConnectionHandler, ConnectionDenied> {
        Ok(ask::Handler::default())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Self::ConnectionHandler, ConnectionDenied> {
        Ok(ask::Handler::default())
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id,
                ..
            }) => self
                .connections
                .entry(peer_id)
                .or_default()
                .push(connection_id),
            FromSwarm::ConnectionClosed(event) => self.closed(&event),
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, told: Told<Answer>) {
        if let Told::Answer(id, answer) = told {
            self.answered(id, answer);
        }
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        self.waiting.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}
