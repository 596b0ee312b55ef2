//! An AutoNAT v2 client that probes one address at the machine's request.
//!
//! The client of libp2p-autonat 0.16 chooses addresses and times on its own, never probes an
//! address again, and remembers every address that a peer reported for this node. Here the machine
//! chooses.

mod handler;
pub(super) mod server;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    task::{Context, Poll},
};

use calimero_network_exchange::{
    inbound,
    outbound::{self, Command, RequestId},
};
use calimero_network_primitives::{Multiaddr, PeerId};
use libp2p_core::{ConnectedPoint, Endpoint, transport::PortUse};
use libp2p_swarm::{
    ConnectionClosed, ConnectionDenied, ConnectionHandler, ConnectionHandlerSelect, ConnectionId,
    FromSwarm, NetworkBehaviour, NotifyHandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
    behaviour::ConnectionEstablished, derive_prelude::Either,
};
use rand::{RngExt, rngs::StdRng, seq::IteratorRandom};

use self::handler::{DialBack, Probe, Request};
use crate::machine::ProbeOutcome;

/// Addresses that wait for a server: more than the machine probes at one time.
const MAX_WAITING: usize = 64;

/// Probes under way at one time.
const MAX_ASKED: usize = 64;

/// Servers that made no probe of an address that are remembered, for all addresses.
const MAX_IDLE: usize = 64;

/// A probe has ended.
#[derive(Debug)]
pub struct Event {
    pub(super) address: Multiaddr,
    pub(super) server: PeerId,
    pub(super) outcome: ProbeOutcome,
}

#[derive(Debug)]
struct Asked {
    address: Multiaddr,
    server: PeerId,
    connection: ConnectionId,
    /// Connections that were accepted before the server was asked, in number.
    accepted: u64,
    /// Whether the server has dialled back: its word alone counts for nothing.
    dialled_back: bool,
}

/// Has addresses probed by connected servers.
pub struct Client {
    rng: StdRng,
    /// Connections whose peer serves probes.
    servers: HashMap<ConnectionId, PeerId>,
    /// Connections that were accepted, not through a relay, and the number of each.
    accepted: HashMap<ConnectionId, u64>,
    last_accepted: u64,
    /// Boot nodes. They are asked before other servers, whose answers prove nothing.
    preferred: HashSet<PeerId>,
    /// Servers that were asked to probe an address and did not try. Others are asked first, boot
    /// nodes or not: many boot nodes serve no probes, or have none left for a while.
    idle: VecDeque<(Multiaddr, PeerId)>,
    unasked: VecDeque<Multiaddr>,
    /// By the nonce that the server has to bring back.
    asked: HashMap<RequestId, Asked>,
    waiting: VecDeque<ToSwarm<Event, THandlerInEvent<Self>>>,
}

impl Client {
    pub(super) fn new(preferred: HashSet<PeerId>) -> Self {
        Self {
            // Not the machine's seed: a nonce that can be guessed proves nothing.
            rng: rand::make_rng::<StdRng>(),
            servers: HashMap::new(),
            accepted: HashMap::new(),
            last_accepted: 0,
            preferred,
            idle: VecDeque::new(),
            unasked: VecDeque::new(),
            asked: HashMap::new(),
            waiting: VecDeque::new(),
        }
    }

    /// Asks `preferred` before other servers from now on.
    pub(super) fn prefer(&mut self, preferred: HashSet<PeerId>) {
        self.preferred = preferred;
    }

    /// Requests a probe of `address` from the next server that is connected.
    pub(super) fn probe(&mut self, address: Multiaddr) {
        if self.unasked.contains(&address) {
            return;
        }
        if self.unasked.len() >= MAX_WAITING {
            self.unasked.pop_front();
        }
        self.unasked.push_back(address);
        self.ask();
    }

    fn ask(&mut self) {
        while self.asked.len() < MAX_ASKED
            && !self.servers.is_empty()
            && let Some(address) = self.unasked.pop_front()
            && let Some((connection, server)) = self.choose(&address)
        {
            let nonce = self.rng.random();
            let request = Request {
                address: address.clone(),
                nonce,
            };
            let asked = Asked {
                address,
                server,
                connection,
                accepted: self.last_accepted,
                dialled_back: false,
            };
            self.asked.insert(nonce, asked);
            self.waiting.push_back(ToSwarm::NotifyHandler {
                peer_id: server,
                handler: NotifyHandler::One(connection),
                event: Either::Left(Command::Send(nonce, request)),
            });
        }
    }

    /// Chooses a server to probe `address`. Servers that did not try are asked again when all
    /// others have been asked.
    fn choose(&mut self, address: &Multiaddr) -> Option<(ConnectionId, PeerId)> {
        let is_idle = |idle: &VecDeque<(Multiaddr, PeerId)>, server: &PeerId| {
            idle.iter()
                .any(|(of, idle)| of == address && idle == server)
        };
        if self.servers.values().all(|one| is_idle(&self.idle, one)) {
            self.idle.retain(|(of, _)| of != address);
        }
        let servers = self.servers.iter();
        let servers = servers.filter(|(_, server)| !is_idle(&self.idle, server));
        let preferred = servers.clone();
        let preferred = preferred
            .filter(|(_, server)| self.preferred.contains(server))
            .choose(&mut self.rng);
        let (connection, server) = preferred.or_else(|| servers.choose(&mut self.rng))?;
        Some((*connection, *server))
    }

    fn ended(&mut self, nonce: RequestId, result: Option<ProbeOutcome>) {
        let Some(asked) = self.asked.remove(&nonce) else {
            return;
        };
        let outcome = match result {
            Some(ProbeOutcome::Reached) if !asked.dialled_back => ProbeOutcome::NotTried,
            Some(outcome) => outcome,
            None => ProbeOutcome::NotTried,
        };
        if outcome == ProbeOutcome::NotTried {
            if self.idle.len() >= MAX_IDLE {
                self.idle.pop_front();
            }
            self.idle.push_back((asked.address.clone(), asked.server));
        } else {
            self.idle.retain(|(of, _)| *of != asked.address);
        }
        self.waiting.push_back(ToSwarm::GenerateEvent(Event {
            address: asked.address,
            server: asked.server,
            outcome,
        }));
        self.ask();
    }

    /// Returns the probe to which a nonce belongs, if `connection` was accepted after the request and
    /// is direct. This is necessary to show that a peer can dial this node: on any other connection, a
    /// nonce passes every NAT. It is not sufficient, because a NAT lets in connections from addresses
    /// to which this node has sent packets.
    fn proved(&mut self, nonce: RequestId, connection: ConnectionId) -> Option<&mut Asked> {
        let accepted = *self.accepted.get(&connection)?;
        let asked = self.asked.get_mut(&nonce);
        asked.filter(|asked| accepted > asked.accepted)
    }

    fn closed(&mut self, connection: ConnectionId) {
        self.servers.remove(&connection);
        self.accepted.remove(&connection);
        let lost: Vec<_> = self
            .asked
            .iter()
            .filter(|(_, asked)| asked.connection == connection)
            .map(|(nonce, _)| *nonce)
            .collect();
        for nonce in lost {
            self.ended(nonce, None);
        }
    }
}

fn new_handler() -> ConnectionHandlerSelect<outbound::Handler<Probe>, inbound::Handler<DialBack>> {
    outbound::Handler::new(Probe).select(inbound::Handler::new(
        DialBack::default(),
        inbound::Ids::default(),
    ))
}

impl NetworkBehaviour for Client {
    type ConnectionHandler =
        ConnectionHandlerSelect<outbound::Handler<Probe>, inbound::Handler<DialBack>>;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Self::ConnectionHandler, ConnectionDenied> {
        Ok(new_handler())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Self::ConnectionHandler, ConnectionDenied> {
        Ok(new_handler())
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished {
                connection_id,
                endpoint: endpoint @ ConnectedPoint::Listener { .. },
                ..
            }) if !endpoint.is_relayed() => {
                self.last_accepted += 1;
                self.accepted.insert(connection_id, self.last_accepted);
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. }) => {
                self.closed(connection_id);
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
            Either::Left(outbound::Event::Supported(true)) => {
                self.servers.insert(connection, peer);
                self.ask();
            }
            Either::Left(outbound::Event::Supported(false)) => {
                self.servers.remove(&connection);
            }
            Either::Left(outbound::Event::Ended(nonce, result)) => self.ended(nonce, result.ok()),
            // The peer that sends it is not looked at: only the server knows the nonce, and some
            // servers dial back under another identity.
            Either::Right(inbound::Event::Request {
                request: nonce,
                answer,
                ..
            }) => {
                if let Some(asked) = self.proved(nonce, connection) {
                    asked.dialled_back = true;
                    // The connection may be closed by now.
                    let _ = answer.send(());
                }
            }
            Either::Right(inbound::Event::Ended { .. }) => {}
        }
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        self.waiting.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

#[cfg(test)]
mod tests;
