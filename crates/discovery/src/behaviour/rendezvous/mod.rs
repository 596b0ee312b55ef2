//! A rendezvous client without memory: it sends the requests of the machine and reports the
//! answers.
//!
//! The client of libp2p-rendezvous 0.18 keeps every registration that a server returned for the
//! time that the server names, refreshes registrations and dials on its own, drops a whole answer
//! for one bad record, and panics on an answer of the wrong kind. Here the machine keeps the state.

#![expect(
    clippy::manual_async_fn,
    reason = "the trait of an exchange asks for a future that is Send"
)]

use std::{
    collections::{HashMap, VecDeque},
    io,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use calimero_network_exchange::outbound::{self, Command, RequestId, Requester};
use calimero_network_primitives::{Keypair, Multiaddr, PeerId};
use futures::AsyncWriteExt as _;
use libp2p_core::{Endpoint, PeerRecord, SignedEnvelope, transport::PortUse};
use libp2p_swarm::{
    ConnectionClosed, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler,
    Stream, StreamProtocol, THandlerInEvent, ToSwarm, behaviour::ConnectionEstablished,
};

use crate::{
    machine::{Cookie, Namespace, RendezvousFailure},
    wire::{
        frame,
        rendezvous::{self as wire, AnswerError, Page, Refusal},
    },
};

/// Longest signed record that is verified, in bytes: a hundred addresses.
const MAX_RECORD_BYTES: usize = 8 * 1024;

/// An event of the client. Every request but an unregistration ends with one of these.
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

/// What a server answered, decoded.
#[derive(Debug)]
pub enum Answer {
    Registered(Result<u64, AnswerError>),
    Unregistered,
    Discovered(Result<Page, AnswerError>),
}

/// How the answer to a request is read.
#[derive(Debug)]
enum Expected {
    Registered,
    Nothing,
    Discovered { namespace: Namespace, limit: u32 },
}

/// A request as bytes, and the answer that is expected.
#[derive(Debug)]
pub struct Request {
    framed: Bytes,
    expected: Expected,
}

/// The asking side of `/rendezvous/1.0.0`.
#[derive(Debug, Default)]
pub struct Rendezvous;

impl Requester for Rendezvous {
    type Request = Request;
    type Answer = Answer;
    type Error = io::Error;

    fn protocol(&self) -> StreamProtocol {
        StreamProtocol::new(wire::PROTOCOL)
    }

    fn limits(&self) -> outbound::Limits {
        outbound::Limits {
            max_running: 8,
            // A round of discoveries, the registrations of a full server, and as many again.
            max_waiting: 256,
            timeout: Duration::from_secs(10),
        }
    }

    fn run(
        &self,
        mut stream: Stream,
        request: Request,
    ) -> impl Future<Output = io::Result<Answer>> + Send + 'static {
        async move {
            frame::write(&mut stream, &request.framed).await?;
            stream.close().await?;
            if let Expected::Nothing = request.expected {
                return Ok(Answer::Unregistered);
            }
            let answer = frame::read(&mut stream, wire::MAX_ANSWER_BYTES).await?;
            Ok(match request.expected {
                Expected::Discovered { namespace, limit } => {
                    Answer::Discovered(wire::decode_discovered(&answer, &namespace, limit))
                }
                _ => Answer::Registered(wire::decode_registered(&answer)),
            })
        }
    }
}

impl From<AnswerError> for RendezvousFailure {
    fn from(error: AnswerError) -> Self {
        match error {
            AnswerError::Refused(Refusal::Cookie) => Self::InvalidCookie,
            AnswerError::Refused(Refusal::Unavailable) => Self::Unavailable,
            _ => Self::Refused,
        }
    }
}

/// Verifies a record that a server returned: signed by the peer that it is about, in the layout of
/// rust-libp2p or in that of the other implementations.
fn verify(record: &[u8]) -> Option<(PeerId, Vec<Multiaddr>)> {
    if record.len() > MAX_RECORD_BYTES {
        return None;
    }
    let envelope = SignedEnvelope::from_protobuf_encoding(record).ok()?;
    let record = PeerRecord::from_signed_envelope(envelope.clone())
        .or_else(|_| PeerRecord::from_signed_envelope_interop(envelope))
        .ok()?;
    Some((record.peer_id(), record.addresses().to_vec()))
}

/// A request under way.
#[derive(Debug)]
struct Asked {
    server: PeerId,
    connection: ConnectionId,
    namespace: Namespace,
    registers: bool,
}

/// Sends requests to connected rendezvous servers.
pub struct Client {
    keypair: Keypair,
    connections: HashMap<PeerId, Vec<ConnectionId>>,
    /// As many as the machine has asked at one time: one of each kind for a server and overlay.
    asked: HashMap<RequestId, Asked>,
    last_id: RequestId,
    waiting: VecDeque<ToSwarm<Event, Command<Request>>>,
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
        let request = PeerRecord::new(&self.keypair, addresses).map(|record| {
            let record = record.into_signed_envelope().into_protobuf_encoding();
            let request = wire::Request::Register {
                namespace: namespace.clone(),
                record: record.into(),
                ttl_s: Some(ttl.as_secs()),
            };
            Request {
                framed: request.encode(),
                expected: Expected::Registered,
            }
        });
        let sent = request.is_ok_and(|request| self.send(server, namespace.clone(), request));
        if !sent {
            self.register_failed(server, namespace, RendezvousFailure::Refused);
        }
    }

    /// Removes a registration. Whether the request arrives is unknown: the registration expires in
    /// any case.
    pub(super) fn unregister(&mut self, server: PeerId, namespace: Namespace) {
        let request = wire::Request::Unregister {
            namespace: namespace.clone(),
        };
        let request = Request {
            framed: request.encode(),
            expected: Expected::Nothing,
        };
        self.send(server, namespace, request);
    }

    pub(super) fn discover(
        &mut self,
        server: PeerId,
        namespace: Namespace,
        cookie: Option<&Cookie>,
        limit: u32,
    ) {
        let request = wire::Request::Discover {
            namespace: Some(namespace.clone()),
            cookie: cookie.map(|cookie| Bytes::copy_from_slice(cookie.as_bytes())),
            limit: Some(limit.into()),
        };
        let request = Request {
            framed: request.encode(),
            expected: Expected::Discovered {
                namespace: namespace.clone(),
                limit,
            },
        };
        if !self.send(server, namespace.clone(), request) {
            self.discover_failed(server, namespace, RendezvousFailure::Refused);
        }
    }

    /// Returns whether `server` is connected, so that it can be asked.
    fn send(&mut self, server: PeerId, namespace: Namespace, request: Request) -> bool {
        let connections = self.connections.get(&server);
        let Some(connection) = connections.and_then(|c| c.first().copied()) else {
            return false;
        };
        self.last_id += 1;
        if !matches!(request.expected, Expected::Nothing) {
            let asked = Asked {
                server,
                connection,
                namespace,
                registers: matches!(request.expected, Expected::Registered),
            };
            self.asked.insert(self.last_id, asked);
        }
        self.waiting.push_back(ToSwarm::NotifyHandler {
            peer_id: server,
            handler: NotifyHandler::One(connection),
            event: Command::Send(self.last_id, request),
        });
        true
    }

    fn emit(&mut self, event: Event) {
        self.waiting.push_back(ToSwarm::GenerateEvent(event));
    }

    fn register_failed(&mut self, server: PeerId, namespace: Namespace, why: RendezvousFailure) {
        self.emit(Event::RegisterFailed {
            server,
            namespace,
            why,
        });
    }

    fn discover_failed(&mut self, server: PeerId, namespace: Namespace, why: RendezvousFailure) {
        self.emit(Event::DiscoverFailed {
            server,
            namespace,
            why,
        });
    }

    fn on_answer(&mut self, id: RequestId, answer: Option<Answer>) {
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
            Some(Answer::Registered(Ok(ttl_s))) => self.emit(Event::Registered {
                server,
                namespace,
                ttl: Duration::from_secs(ttl_s),
            }),
            Some(Answer::Registered(Err(why))) => {
                self.register_failed(server, namespace, why.into());
            }
            Some(Answer::Discovered(Ok(Page { records, cookie }))) => {
                let members = records.iter().filter_map(|record| verify(record)).collect();
                self.emit(Event::Discovered {
                    server,
                    namespace,
                    members,
                    cookie,
                });
            }
            Some(Answer::Discovered(Err(why))) => {
                self.discover_failed(server, namespace, why.into());
            }
            // No answer is not a full server, so the failure is not `Unavailable`.
            Some(Answer::Unregistered) | None if registers => {
                self.register_failed(server, namespace, RendezvousFailure::Refused);
            }
            Some(Answer::Unregistered) | None => {
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
            self.on_answer(id, None);
        }
    }
}

impl NetworkBehaviour for Client {
    type ConnectionHandler = outbound::Handler<Rendezvous>;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Self::ConnectionHandler, ConnectionDenied> {
        Ok(outbound::Handler::default())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Self::ConnectionHandler, ConnectionDenied> {
        Ok(outbound::Handler::default())
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

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: outbound::Event<Answer>,
    ) {
        if let outbound::Event::Ended(id, result) = event {
            self.on_answer(id, result.ok());
        }
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        self.waiting.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(keypair: &Keypair, addresses: usize) -> Vec<u8> {
        let address: Multiaddr = "/ip4/192.0.2.1/tcp/2428".parse().unwrap();
        let record = PeerRecord::new(keypair, vec![address; addresses]).unwrap();
        record.into_signed_envelope().into_protobuf_encoding()
    }

    #[test]
    fn forged_long_and_foreign_records_hide_nobody() {
        let (good, other) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let mut forged = signed(&other, 1);
        *forged.last_mut().unwrap() ^= 1;
        let interop = PeerRecord::new_interop(&other, Vec::new()).unwrap();
        let overlay = Namespace::new("/calimero/ctx/example").unwrap();
        let found = [
            forged,
            b"nonsense".to_vec(),
            signed(&other, 1_000),
            signed(&good, 1),
            interop.into_signed_envelope().into_protobuf_encoding(),
        ]
        .map(|record| wire::Found {
            record: record.into(),
            ttl_s: u64::MAX,
        });
        let answer = wire::encode_discovered(&overlay, &found, &[7; 16]);
        let length = answer.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
        let page = wire::decode_discovered(&answer.slice(length..), &overlay, 64).unwrap();
        let members = page.records.iter().filter_map(|record| verify(record));
        let peers: Vec<_> = members.map(|(peer, _)| peer).collect();
        let expected = [good, other].map(|keypair| keypair.public().to_peer_id());
        assert_eq!(peers, expected);
        assert_eq!(page.cookie.unwrap().as_bytes(), [7; 16]);
    }

    #[test]
    fn refusals_say_what_can_be_done() {
        for (error, why) in [
            (
                AnswerError::Refused(Refusal::Cookie),
                RendezvousFailure::InvalidCookie,
            ),
            (
                AnswerError::Refused(Refusal::Unavailable),
                RendezvousFailure::Unavailable,
            ),
            (
                AnswerError::Refused(Refusal::NotAuthorized),
                RendezvousFailure::Refused,
            ),
            (AnswerError::UnknownStatus(7), RendezvousFailure::Refused),
        ] {
            assert_eq!(RendezvousFailure::from(error), why);
        }
    }
}
