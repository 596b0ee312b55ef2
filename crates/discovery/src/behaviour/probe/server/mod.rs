//! The server's side of AutoNAT v2: dials a peer back at an address that the peer names.
//!
//! A dial-back is a dial on behalf of an unknown peer, so three rules bound it. The address must be
//! one that [`rules::choose`] accepts, which excludes every address of this host and of its private
//! network. An address at another IP than the peer's own costs the peer 30 to 100 kB, as the
//! [specification] demands. Each peer, each IP prefix and all peers together have a [rate](limits).
//!
//! A request that is refused by these rules is answered with a refusal, never with "not reachable":
//! the peer asks another server.
//!
//! [specification]: https://github.com/libp2p/specs/blob/master/autonat/autonat-v2.md

mod handler;
mod limits;
mod rules;

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    task::{Context, Poll},
};

use calimero_network_primitives::{
    Multiaddr, PeerId,
    addr::{DialAddr, DialScopes},
};
use futures::channel::oneshot;
use libp2p_core::{ConnectedPoint, Endpoint, transport::PortUse};
use libp2p_swarm::{
    ConnectionClosed, ConnectionDenied, ConnectionId, DialError, DialFailure, FromSwarm,
    NetworkBehaviour, THandlerInEvent, THandlerOutEvent, ToSwarm,
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
use crate::wire::autonat::DATA_BYTES;

/// Most dial-backs under way at one time, 32: an eighth of the pending dials that a node allows.
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

/// A dial-back under way.
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
    dials: HashMap<ConnectionId, Dialling>,
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
            dials: HashMap::new(),
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
        let Some(choice) = rules::choose(addresses, observed, self.scopes) else {
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

    fn dial(&mut self, peer: PeerId, address: DialAddr, dialling: Dialling) {
        if self.dials.len() >= MAX_DIALS {
            // The send fails if the request ended by its deadline.
            let _ = dialling.outcome.send(Outcome::NotDialled);
            return;
        }
        let opts = DialOpts::peer_id(peer)
            .addresses(vec![address.into_multiaddr()])
            .condition(PeerCondition::Always)
            // A connection from the listening port would pass a NAT that other peers do not pass.
            .allocate_new_port()
            .build();
        self.dials.insert(opts.connection_id(), dialling);
        self.waiting.push_back(ToSwarm::Dial { opts });
    }
}

impl NetworkBehaviour for Server {
    type ConnectionHandler = Either<Requests, Either<Back, dummy::ConnectionHandler>>;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Self::ConnectionHandler, ConnectionDenied> {
        Ok(Either::Left(Requests::default()))
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
                connection_id,
                endpoint: ConnectedPoint::Listener { send_back_addr, .. },
                ..
            }) => {
                let prefix = Prefix::of(send_back_addr);
                self.prefixes
                    .insert(connection_id, (send_back_addr.clone(), prefix));
            }
            FromSwarm::DialFailure(DialFailure {
                connection_id,
                error,
                ..
            }) => {
                if let Some(Dialling { outcome, .. }) = self.dials.remove(&connection_id) {
                    let _ = outcome.send(match error {
                        DialError::Transport(_)
                        | DialError::WrongPeerId { .. }
                        | DialError::LocalPeerId { .. } => Outcome::NotReached,
                        _ => Outcome::NotDialled,
                    });
                }
            }
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
            Either::Left(Question::Decide { addresses, reply }) => {
                // A send fails only if the connection closed in between.
                let _ = reply.send(self.decide(peer, connection, &addresses));
            }
            Either::Left(Question::Dial {
                address,
                nonce,
                outcome,
            }) => self.dial(peer, address, Dialling { nonce, outcome }),
            Either::Right(Either::Left(never) | Either::Right(never)) => match never {},
        }
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        self.waiting.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

#[cfg(test)]
mod tests;
