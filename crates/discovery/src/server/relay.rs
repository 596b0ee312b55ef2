//! The relay server: libp2p's own (libp2p-relay 0.22), within the bounds of the configuration and
//! kept from what it does at their edges.
//!
//! Its memory is bounded by the configuration: one entry for each reservation and connection, some
//! 17 KiB for each open circuit (two read buffers of 8 KiB), ten requests under way on a
//! connection, each at most 4 KiB, and the token buckets of those that asked within the time in
//! which a bucket fills.
//!
//! What is kept from it:
//!
//! - It panics when a slot is granted on the only connection of a peer after an older one on it
//!   has expired in between, which a peer that is slow to take the answer can bring about. It
//!   looks the peer up in a table from which the expiry has removed it. Here every connected peer
//!   has one more entry there, of a connection that does not exist.
//! - At `max_reservations` it refuses to renew. Here the bound is its last rate limiter, which
//!   knows who holds a slot.
//! - It grants one slot, and one circuit, more than a peer may have.
//! - It says that a reservation is closed whenever a connection is. Here slots are counted.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Instant,
};

use calimero_network_primitives::{
    Multiaddr, PeerId,
    config::{ConfigError, RateTuning, RelayServerConfig},
};
use libp2p_core::{Endpoint, connection::ConnectedPoint, transport::PortUse};
use libp2p_relay as stock;
use libp2p_swarm::{
    ConnectionClosed, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm, behaviour::ConnectionEstablished,
};

/// What was asked of the relay, and what came of it.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A peer holds a slot.
    Reserved {
        /// Who.
        peer: PeerId,
        /// Whether it did before.
        renewed: bool,
    },
    /// A peer was refused a slot.
    ReservationRefused {
        /// Who.
        peer: PeerId,
    },
    /// A slot was not renewed in time.
    ReservationExpired {
        /// Whose.
        peer: PeerId,
    },
    /// A circuit is open.
    CircuitOpened {
        /// From whom.
        from: PeerId,
        /// To whom.
        to: PeerId,
    },
    /// A circuit was refused: a limit, or no slot of the other peer.
    CircuitRefused {
        /// From whom.
        from: PeerId,
        /// To whom.
        to: PeerId,
    },
    /// A circuit has ended.
    CircuitClosed {
        /// From whom.
        from: PeerId,
        /// To whom.
        to: PeerId,
        /// Why, where it was not the peers that ended it: a limit, or a lost connection.
        error: Option<std::io::Error>,
    },
    /// What else libp2p's relay says. A closed reservation here is no more than a closed
    /// connection.
    Other(stock::Event),
}

/// Slots held and connections open, of each connected peer.
#[derive(Debug, Default)]
struct Peers {
    peers: HashMap<PeerId, Presence>,
    slots: usize,
}

#[derive(Debug)]
struct Presence {
    connections: usize,
    slots: usize,
    /// The connection that does not exist.
    placeholder: ConnectionId,
}

impl Peers {
    /// Whether `peer` may have a slot where there are `max` of them.
    fn admits(&self, peer: &PeerId, max: usize) -> bool {
        self.slots < max || self.peers.get(peer).is_some_and(|peer| peer.slots > 0)
    }

    /// Changes what is known of `peer`. Its slots are on connections of their own.
    fn change(&mut self, peer: &PeerId, change: impl FnOnce(&mut Presence)) {
        if let Some(presence) = self.peers.get_mut(peer) {
            self.slots -= presence.slots;
            change(presence);
            presence.slots = presence.slots.min(presence.connections);
            self.slots += presence.slots;
        }
    }
}

/// A relay server in any `Swarm`.
///
/// It says that it is one (`/libp2p/circuit/relay/0.2.0/hop`) from the start. A slot is granted
/// with the external addresses of the Swarm, so without one nobody can use it.
pub struct Behaviour {
    inner: stock::Behaviour,
    peers: Arc<Mutex<Peers>>,
    circuits: usize,
    /// Connections that do not exist are numbered down from the last number.
    next_placeholder: usize,
}

impl Behaviour {
    /// A relay within the bounds of `config`, whether it is `enabled` there or not.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] with the key that cannot hold.
    pub fn new(local: PeerId, config: &RelayServerConfig) -> Result<Self, ConfigError> {
        config.validate("")?;
        let peers = Arc::<Mutex<Peers>>::default();
        let mut inner = stock::Behaviour::new(local, translate(config, peers.clone()));
        // By itself it would wait until an external address is confirmed, and nobody who could
        // confirm one asks before it does.
        inner.set_status(Some(stock::Status::Enable));
        Ok(Self {
            inner,
            peers,
            circuits: 0,
            next_placeholder: usize::MAX,
        })
    }

    /// Slots held. Of a peer with several connections that lost one of them, as many as it can
    /// have on those that are left.
    #[must_use]
    pub fn reservations(&self) -> usize {
        lock(&self.peers).slots
    }

    /// Circuits open.
    #[must_use]
    pub fn circuits(&self) -> usize {
        self.circuits
    }

    fn opened(&mut self, up: ConnectionEstablished<'_>) {
        let mut peers = lock(&self.peers);
        if let Some(presence) = peers.peers.get_mut(&up.peer_id) {
            presence.connections += 1;
            return;
        }
        let placeholder = ConnectionId::new_unchecked(self.next_placeholder);
        self.next_placeholder = self.next_placeholder.wrapping_sub(1);
        let presence = Presence {
            connections: 1,
            slots: 0,
            placeholder,
        };
        peers.peers.insert(up.peer_id, presence);
        drop(peers);
        let established = ConnectionEstablished {
            connection_id: placeholder,
            ..up
        };
        self.inner
            .on_swarm_event(FromSwarm::ConnectionEstablished(established));
    }

    fn closed(&mut self, peer: PeerId, endpoint: &ConnectedPoint) {
        let mut peers = lock(&self.peers);
        peers.change(&peer, |presence| presence.connections -= 1);
        let last = peers
            .peers
            .get(&peer)
            .is_some_and(|presence| presence.connections == 0);
        let gone = last.then(|| peers.peers.remove(&peer)).flatten();
        drop(peers);
        if let Some(gone) = gone {
            let closed = ConnectionClosed {
                peer_id: peer,
                connection_id: gone.placeholder,
                endpoint,
                cause: None,
                remaining_established: 0,
            };
            self.inner
                .on_swarm_event(FromSwarm::ConnectionClosed(closed));
        }
    }

    /// What the relay says, counted.
    fn hear(&mut self, event: stock::Event) -> Event {
        match event {
            stock::Event::ReservationReqAccepted {
                src_peer_id: peer,
                renewed,
            } => {
                if !renewed {
                    lock(&self.peers).change(&peer, |presence| presence.slots += 1);
                }
                Event::Reserved { peer, renewed }
            }
            stock::Event::ReservationReqDenied {
                src_peer_id: peer, ..
            } => Event::ReservationRefused { peer },
            stock::Event::ReservationTimedOut { src_peer_id: peer } => {
                let mut peers = lock(&self.peers);
                peers.change(&peer, |held| held.slots = held.slots.saturating_sub(1));
                Event::ReservationExpired { peer }
            }
            stock::Event::CircuitReqAccepted {
                src_peer_id: from,
                dst_peer_id: to,
            } => {
                self.circuits += 1;
                Event::CircuitOpened { from, to }
            }
            stock::Event::CircuitReqDenied {
                src_peer_id: from,
                dst_peer_id: to,
                ..
            } => Event::CircuitRefused { from, to },
            stock::Event::CircuitClosed {
                src_peer_id: from,
                dst_peer_id: to,
                error,
            } => {
                self.circuits = self.circuits.saturating_sub(1);
                Event::CircuitClosed { from, to, error }
            }
            other => Event::Other(other),
        }
    }
}

fn lock(peers: &Mutex<Peers>) -> std::sync::MutexGuard<'_, Peers> {
    peers.lock().unwrap_or_else(PoisonError::into_inner)
}

fn translate(config: &RelayServerConfig, peers: Arc<Mutex<Peers>>) -> stock::Config {
    let limits = stock::Config {
        // By the last rate limiter.
        max_reservations: usize::MAX,
        // It refuses above its bounds, not at them.
        max_reservations_per_peer: config.tuning.max_reservations_per_peer.saturating_sub(1),
        reservation_duration: config.tuning.reservation_duration,
        reservation_rate_limiters: Vec::new(),
        max_circuits: config.max_circuits,
        max_circuits_per_peer: config.max_circuits_per_peer.saturating_sub(1),
        max_circuit_duration: config.max_circuit_duration,
        max_circuit_bytes: config.max_circuit_bytes,
        circuit_src_rate_limiters: Vec::new(),
    };
    // By address first: what it refuses leaves no bucket for the peer, and peers can be made up.
    let per_ip = config.tuning.reservation_rate_per_ip;
    let per_peer = config.tuning.reservation_rate_per_peer;
    let circuits_per_ip = config.tuning.circuit_rate_per_ip;
    let circuits_per_peer = config.tuning.circuit_rate_per_peer;
    let mut limits = limits
        .reservation_rate_per_ip(burst(per_ip), per_ip.interval)
        .reservation_rate_per_peer(burst(per_peer), per_peer.interval)
        .circuit_src_per_ip(burst(circuits_per_ip), circuits_per_ip.interval)
        .circuit_src_per_peer(burst(circuits_per_peer), circuits_per_peer.interval);
    let max = config.max_reservations;
    let room = move |peer: PeerId, _: &Multiaddr, _: Instant| lock(&peers).admits(&peer, max);
    limits.reservation_rate_limiters.push(Box::new(room));
    limits
}

/// A valid configuration has none of 0.
fn burst(rate: RateTuning) -> NonZeroU32 {
    NonZeroU32::new(rate.burst).unwrap_or(NonZeroU32::MIN)
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = <stock::Behaviour as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = Event;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.inner
            .handle_pending_inbound_connection(id, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner
            .handle_established_inbound_connection(id, peer, local, remote)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.inner
            .handle_pending_outbound_connection(id, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner
            .handle_established_outbound_connection(id, peer, address, role, port_use)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.inner.on_swarm_event(event);
        match event {
            FromSwarm::ConnectionEstablished(up) => self.opened(up),
            FromSwarm::ConnectionClosed(gone) => self.closed(gone.peer_id, gone.endpoint),
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.inner
            .on_connection_handler_event(peer, connection, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        let polled = self.inner.poll(cx);
        polled.map(|action| action.map_out(|event| self.hear(event)))
    }
}
