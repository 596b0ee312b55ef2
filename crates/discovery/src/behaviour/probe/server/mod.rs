//! The server's side of AutoNAT v2 and v1: dials a peer back at an address that the peer names.
//!
//! A dial-back is a dial on behalf of an unknown peer, so three rules bound it. The address must be
//! one that [`rules`] accepts, which excludes every address of this host and of its private
//! network. An address at another IP than the peer's own costs the peer 30 to 100 kB, as the
//! [specification] of v2 demands; v1 has no such exchange, so its requests have nothing dialled but
//! the peer's own IP. Each peer, each IP prefix and all peers together have a [rate](limits), which
//! requests of both versions share.
//!
//! A request that is refused by these rules is answered with a refusal, never with "not reachable":
//! the peer asks another server.
//!
//! In v2 the peer confirms a nonce on the new connection. In v1 the connection itself is the proof,
//! and this node closes it at once.
//!
//! The v1 server of libp2p-autonat 0.16 is not used: it has no limit for an IP prefix, its rates
//! cannot be shared with v2, it puts the observed IP into addresses that name another one, and it
//! comes with a client that probes on its own.
//!
//! [specification]: https://github.com/libp2p/specs/blob/master/autonat/autonat-v2.md

mod handler;
mod limits;
mod rules;
mod v1;

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    task::{Context, Poll},
};

use calimero_network_exchange::inbound;
use calimero_network_primitives::{
    Multiaddr, PeerId,
    addr::{DialAddr, DialScopes, without_peer},
};
use futures::channel::oneshot;
use libp2p_core::{
    ConnectedPoint, Endpoint,
    transport::{PortUse, TransportError},
};
use libp2p_swarm::{
    CloseConnection, ConnectionClosed, ConnectionDenied, ConnectionHandler,
    ConnectionHandlerSelect, ConnectionId, DialError, DialFailure, FromSwarm, NetworkBehaviour,
    THandlerInEvent, THandlerOutEvent, ToSwarm,
    behaviour::ConnectionEstablished,
    derive_prelude::Either,
    dial_opts::{DialOpts, PeerCondition},
    dummy,
};
use rand::{RngExt, rngs::StdRng};

use self::{
    handler::{Back, Question, Requests},
    limits::{Limits, Prefix},
};
use super::super::now;
use crate::wire::{
    autonat::DATA_BYTES,
    autonat_v1::{Answer, Request},
};

/// Requests whose dial-backs are under way at one time, at most, 32: a quarter of the pending dials
/// that a node allows by default. One of v1 dials up to four addresses at the same time.
const MAX_DIALS: usize = 32;

/// What is decided about a request.
#[derive(Debug)]
pub enum Decision {
    /// No address of the request is dialled.
    Refused,
    /// Too many requests; a later one may succeed.
    Rejected,
    /// An address is dialled after the peer has sent some data.
    Dial {
        /// Position of the address in the request.
        index: u32,
        address: DialAddr,
        /// Bytes to send first; 0 where the address is at the peer's own IP.
        bytes: u64,
    },
}

/// How a dial-back ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The peer confirmed the nonce.
    Reached,
    /// The address was dialled without a connection.
    NotReached,
    /// There was a connection, and the nonce was not confirmed on it.
    NotConfirmed,
    /// This node did not dial.
    NotDialled,
}

/// A dial-back of v2 under way.
#[derive(Debug)]
struct Dialling {
    nonce: u64,
    outcome: oneshot::Sender<Outcome>,
}

/// Dials peers back. See the [module](self) for what bounds it.
pub struct Server {
    scopes: DialScopes,
    limits: Limits,
    rng: StdRng,
    /// IP prefixes of inbound connections.
    prefixes: HashMap<ConnectionId, (Multiaddr, Prefix)>,
    ids: inbound::Ids,
    dials: HashMap<ConnectionId, Dialling>,
    /// Dial-backs of v1 under way. With `dials` at most [`MAX_DIALS`].
    dials_v1: HashMap<ConnectionId, oneshot::Sender<Answer>>,
    waiting: VecDeque<ToSwarm<Infallible, THandlerInEvent<Self>>>,
}

impl Server {
    /// A server that dials addresses within `scopes`.
    pub(in crate::behaviour) fn new(scopes: DialScopes) -> Self {
        Self {
            scopes,
            limits: Limits::new(now()),
            rng: rand::make_rng::<StdRng>(),
            prefixes: HashMap::new(),
            ids: inbound::Ids::default(),
            dials: HashMap::new(),
            dials_v1: HashMap::new(),
            waiting: VecDeque::new(),
        }
    }

    fn decide(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        addresses: &[Multiaddr],
    ) -> Decision {
        let Some((observed, prefix)) = self.prefixes.get(&connection) else {
            return Decision::Rejected;
        };
        let Some(choice) = rules::choose(peer, addresses, observed, self.scopes) else {
            return Decision::Refused;
        };
        if !self.limits.admit(peer, *prefix, now()) {
            return Decision::Rejected;
        }
        let bytes = match choice.is_own_ip {
            true => 0,
            false => self.rng.random_range(DATA_BYTES),
        };
        Decision::Dial {
            index: choice.index,
            address: choice.address,
            bytes,
        }
    }

    /// Decides about a request of v1: the addresses to dial, or the answer.
    fn decide_v1(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        request: &Request,
    ) -> Result<Vec<DialAddr>, Answer> {
        if request.peer != peer {
            return Err(Answer::OtherPeer);
        }
        let (observed, prefix) = (self.prefixes.get(&connection)).ok_or(Answer::NotDialled)?;
        let mut addresses =
            rules::choose_at_own_ip(peer, &request.addresses, observed, self.scopes);
        if addresses.is_empty() {
            return Err(Answer::NoAddress);
        }
        if self.is_busy() {
            return Err(Answer::TooMany);
        }
        // Each address counts as one dial-back.
        let (limits, now) = (&mut self.limits, now());
        addresses.retain(|_| limits.admit(peer, *prefix, now));
        match addresses.is_empty() {
            true => Err(Answer::TooMany),
            false => Ok(addresses),
        }
    }

    fn on_request_v1(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        request: &Request,
        answer: oneshot::Sender<Answer>,
    ) {
        match self.decide_v1(peer, connection, request) {
            Ok(addresses) => {
                let id = self.dial_new(peer, addresses);
                self.dials_v1.insert(id, answer);
            }
            // A send fails only if the connection closed in between.
            Err(refusal) => drop(answer.send(refusal)),
        }
    }

    fn is_busy(&self) -> bool {
        self.dials.len() + self.dials_v1.len() >= MAX_DIALS
    }

    fn dial(&mut self, peer: PeerId, address: DialAddr, dialling: Dialling) {
        if self.is_busy() {
            // The send fails if the request ended by its deadline.
            let _ = dialling.outcome.send(Outcome::NotDialled);
            return;
        }
        let id = self.dial_new(peer, vec![address]);
        self.dials.insert(id, dialling);
    }

    /// Dials `peer` for a connection of its own, whatever others there are.
    fn dial_new(&mut self, peer: PeerId, addresses: Vec<DialAddr>) -> ConnectionId {
        let opts = DialOpts::peer_id(peer)
            .addresses(addresses.into_iter().map(Into::into).collect())
            .condition(PeerCondition::Always)
            // A connection from the listening port would pass a NAT that other peers do not pass.
            .allocate_new_port()
            .build();
        let id = opts.connection_id();
        self.waiting.push_back(ToSwarm::Dial { opts });
        id
    }

    /// A connection was dialled and is established. One of v1 has shown what it was made for.
    fn on_dialled(&mut self, peer: PeerId, connection: ConnectionId, address: &Multiaddr) {
        if let Some(answer) = self.dials_v1.remove(&connection) {
            // The request may have ended by its deadline.
            let _ = answer.send(Answer::Reached(without_peer(address)));
            self.waiting.push_back(ToSwarm::CloseConnection {
                peer_id: peer,
                connection: CloseConnection::One(connection),
            });
        }
    }

    fn on_dial_failed(&mut self, connection: ConnectionId, error: &DialError) {
        let is_tried = match error {
            // An address without a transport here says nothing about the peer.
            DialError::Transport(errors) => errors
                .iter()
                .any(|(_, error)| !matches!(error, TransportError::MultiaddrNotSupported(_))),
            DialError::WrongPeerId { .. } | DialError::LocalPeerId { .. } => true,
            _ => false,
        };
        // The requests may have ended by their deadlines.
        if let Some(Dialling { outcome, .. }) = self.dials.remove(&connection) {
            let _ = outcome.send(match is_tried {
                true => Outcome::NotReached,
                false => Outcome::NotDialled,
            });
        }
        if let Some(answer) = self.dials_v1.remove(&connection) {
            let _ = answer.send(match is_tried {
                true => Answer::NotReached,
                false => Answer::NotDialled,
            });
        }
    }
}

impl NetworkBehaviour for Server {
    type ConnectionHandler = Either<
        ConnectionHandlerSelect<Requests, inbound::Handler<v1::Requests>>,
        Either<Back, dummy::ConnectionHandler>,
    >;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Self::ConnectionHandler, ConnectionDenied> {
        let v1 = inbound::Handler::new(v1::Requests::default(), self.ids.clone());
        Ok(Either::Left(Requests::default().select(v1)))
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Self::ConnectionHandler, ConnectionDenied> {
        Ok(Either::Right(match self.dials.remove(&connection) {
            Some(Dialling { nonce, outcome }) => Either::Left(Back::new(nonce, outcome)),
            None => Either::Right(dummy::ConnectionHandler),
        }))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            // Not when its handler is made: another behaviour may refuse the connection after that.
            FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            }) => match endpoint {
                ConnectedPoint::Listener { send_back_addr, .. } => {
                    let prefix = Prefix::of(send_back_addr);
                    self.prefixes
                        .insert(connection_id, (send_back_addr.clone(), prefix));
                }
                ConnectedPoint::Dialer { address, .. } => {
                    self.on_dialled(peer_id, connection_id, address);
                }
            },
            FromSwarm::DialFailure(DialFailure {
                connection_id,
                error,
                ..
            }) => self.on_dial_failed(connection_id, error),
            FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. }) => {
                self.prefixes.remove(&connection_id);
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
        match event {
            Either::Left(Either::Left(Question::Decide { addresses, reply })) => {
                // A send fails only if the connection closed in between.
                let _ = reply.send(self.decide(peer, connection, &addresses));
            }
            Either::Left(Either::Left(Question::Dial {
                address,
                nonce,
                outcome,
            })) => self.dial(peer, address, Dialling { nonce, outcome }),
            Either::Left(Either::Right(inbound::Event::Request {
                request, answer, ..
            })) => self.on_request_v1(peer, connection, &request, answer),
            // A request without an answer is not logged: a peer could fill the log.
            Either::Left(Either::Right(inbound::Event::Ended { .. })) => {}
            Either::Right(Either::Left(never) | Either::Right(never)) => match never {},
        }
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        self.waiting.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

#[cfg(test)]
mod tests;
