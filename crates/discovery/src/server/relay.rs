//! The relay server: that of libp2p-relay 0.22 with the limits of the configuration and without
//! four of its faults.
//!
//! Reservations and circuits are counted in the [`Resources`] of the node, which gives the peers of
//! one IP address a part of them.
//!
//! Its memory is bounded by the configuration: one entry for each reservation and connection, some
//! 17 KiB for each open circuit (two read buffers of 8 KiB), ten requests under way on a
//! connection, each at most 4 KiB, and the token buckets of those that asked within the time in
//! which a bucket fills.
//!
//! The faults:
//!
//! - It panics when a reservation is granted on the only connection of a peer after an older one on
//!   it expired, which a peer that reads its answer slowly can cause: the relay looks the peer up
//!   in a table from which the expiry has removed it. Here every connected peer has one more entry
//!   in that table, for a connection that does not exist.
//! - At `max_reservations` it refuses to renew a reservation. Here the limit is applied by its last
//!   rate limiter, which renews the reservations that a peer has.
//! - It grants one reservation and one circuit more than a peer may have.
//! - It reports a closed reservation for every closed connection. Here reservations are counted.

use std::{
    collections::{HashMap, VecDeque},
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use calimero_network_primitives::{
    Multiaddr, PeerId,
    config::{ConfigError, RateTuning, RelayServerConfig},
    resources::{Holder, Limits, Origin, Permit, Resource, Resources},
};
use libp2p_core::connection::ConnectedPoint;
use libp2p_relay as stock;
use libp2p_swarm::{
    ConnectionClosed, ConnectionId, FromSwarm, NetworkBehaviour, THandlerInEvent, ToSwarm,
    behaviour::ConnectionEstablished,
};

use crate::pass::pass_to_inner;

/// An event of the relay server.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// The relay granted or renewed a reservation.
    Reserved {
        /// Id of the remote peer.
        peer: PeerId,
        /// Whether the peer had a reservation before.
        renewed: bool,
    },
    /// The relay refused a reservation.
    ReservationRefused {
        /// Id of the remote peer.
        peer: PeerId,
    },
    /// A reservation expired because it was not renewed.
    ReservationExpired {
        /// Id of the remote peer.
        peer: PeerId,
    },
    /// A circuit was opened.
    CircuitOpened {
        /// Peer that opened the circuit.
        from: PeerId,
        /// Peer that the circuit leads to.
        to: PeerId,
    },
    /// A circuit was refused: a limit is reached, or the target has no reservation.
    CircuitRefused {
        /// Peer that opened the circuit.
        from: PeerId,
        /// Peer that the circuit leads to.
        to: PeerId,
    },
    /// A circuit was closed.
    CircuitClosed {
        /// Peer that opened the circuit.
        from: PeerId,
        /// Peer that the circuit leads to.
        to: PeerId,
        /// Cause, if the peers did not close the circuit: a limit, or a lost connection.
        error: Option<std::io::Error>,
    },
    /// Another event of libp2p's relay. It reports a closed reservation for every closed
    /// connection.
    Other(stock::Event),
}

/// Time after which an admitted circuit request no longer counts, 90 s: libp2p-relay gives up after
/// 60 s, and does not report it if the connection closed.
const MAX_OPENING_TIME: Duration = Duration::from_secs(90);

/// The connected peers with their reservations and circuits.
#[derive(Debug, Default)]
struct Peers(HashMap<PeerId, Presence>);

/// The connections, reservations and circuits of a peer.
#[derive(Debug)]
struct Presence {
    connections: usize,
    /// Counts for the peer and for the origin of its first connection.
    holder: Holder,
    /// One for each reservation. Without a permit where the peer had others already and the limits
    /// were reached.
    reservations: Vec<Option<Permit>>,
    /// Requests for a reservation that were admitted and are being answered.
    reserving: Vec<Permit>,
    /// Requests for a circuit that were admitted and are being answered.
    opening: VecDeque<(Instant, Permit)>,
    /// Id of the connection that does not exist.
    placeholder: ConnectionId,
}

impl Peers {
    /// Admits a request for a reservation: a renewal, or another reservation within the limits.
    fn admit(&mut self, peer: &PeerId) -> bool {
        let Some(peer) = self.0.get_mut(peer) else {
            return false;
        };
        // A connection has one reservation and one request at a time, so this is a renewal, or a
        // request that replaces one that is not answered yet.
        if peer.reservations.len() + peer.reserving.len() >= peer.connections {
            return true;
        }
        match peer.holder.take(Resource::Reservations, 1) {
            Ok(permit) => {
                peer.reserving.push(permit);
                true
            }
            // This may be a renewal. The limiter does not learn for which connection.
            Err(_) => !peer.reservations.is_empty(),
        }
    }

    /// Admits a request for a circuit within the limits.
    fn admit_circuit(&mut self, peer: &PeerId, now: Instant) -> bool {
        let Some(peer) = self.0.get_mut(peer) else {
            return false;
        };
        while let Some((since, _)) = peer.opening.front()
            && now.saturating_duration_since(*since) >= MAX_OPENING_TIME
        {
            peer.opening.pop_front();
        }
        let permit = peer.holder.take(Resource::Circuits, 1);
        permit
            .map(|permit| peer.opening.push_back((now, permit)))
            .is_ok()
    }

    /// Takes the permit of a circuit request that was admitted and is answered.
    fn take_opening(&mut self, peer: &PeerId) -> Option<Permit> {
        let (_, permit) = self.0.get_mut(peer)?.opening.pop_front()?;
        Some(permit)
    }

    /// Changes the entry of `peer`. Each of its reservations is on a connection of its own.
    fn change(&mut self, peer: &PeerId, change: impl FnOnce(&mut Presence)) {
        if let Some(presence) = self.0.get_mut(peer) {
            change(presence);
            presence.reservations.truncate(presence.connections);
            let left = presence.connections - presence.reservations.len();
            presence.reserving.truncate(left);
        }
    }
}

/// A relay server in any `Swarm`.
///
/// It announces the protocol `/libp2p/circuit/relay/0.2.0/hop` from the start. A reservation is
/// granted with the external addresses of the Swarm, so without one no peer can use it.
pub struct Behaviour {
    inner: stock::Behaviour,
    peers: Arc<Mutex<Peers>>,
    resources: Resources,
    /// The permits of the open circuits, by both ends.
    circuits: HashMap<(PeerId, PeerId), Vec<Option<Permit>>>,
    /// Ids of connections that do not exist count down from the largest number.
    next_placeholder: usize,
}

impl Behaviour {
    /// Creates a relay with the limits of `config`, whether it is `enabled` there or not, and with
    /// an accounting of its own.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] with the key of a value that is out of range.
    pub fn new(local: PeerId, config: &RelayServerConfig) -> Result<Self, ConfigError> {
        let mut limits = Limits::default();
        limits.set_relay(config);
        Self::with_resources(local, config, Resources::new(limits))
    }

    /// [`new`](Self::new) with the accounting of a node, whose limits apply as well.
    ///
    /// # Errors
    ///
    /// Those of [`new`](Self::new).
    pub fn with_resources(
        local: PeerId,
        config: &RelayServerConfig,
        resources: Resources,
    ) -> Result<Self, ConfigError> {
        config.validate("")?;
        let peers = Arc::<Mutex<Peers>>::default();
        let mut inner = stock::Behaviour::new(local, translate(config, peers.clone()));
        // Without this it would wait until an external address is confirmed. No peer that could
        // confirm one sends a request before it serves.
        inner.set_status(Some(stock::Status::Enable));
        Ok(Self {
            inner,
            peers,
            resources,
            circuits: HashMap::new(),
            next_placeholder: usize::MAX,
        })
    }

    /// Returns the number of reservations. For a peer that lost one of several connections, it is
    /// the largest number that its remaining connections can have.
    #[must_use]
    pub fn reservations(&self) -> usize {
        let peers = lock(&self.peers);
        peers.0.values().map(|peer| peer.reservations.len()).sum()
    }

    /// Returns the number of open circuits.
    #[must_use]
    pub fn circuits(&self) -> usize {
        self.circuits.values().map(Vec::len).sum()
    }

    fn opened(&mut self, up: ConnectionEstablished<'_>) {
        let mut peers = lock(&self.peers);
        if let Some(presence) = peers.0.get_mut(&up.peer_id) {
            presence.connections += 1;
            return;
        }
        let placeholder = ConnectionId::new_unchecked(self.next_placeholder);
        self.next_placeholder = self.next_placeholder.wrapping_sub(1);
        let origin = origin(up.endpoint);
        let presence = Presence {
            connections: 1,
            holder: self.resources.holder(Some(up.peer_id), origin),
            reservations: Vec::new(),
            reserving: Vec::new(),
            opening: VecDeque::new(),
            placeholder,
        };
        peers.0.insert(up.peer_id, presence);
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
            .0
            .get(&peer)
            .is_some_and(|presence| presence.connections == 0);
        let gone = last.then(|| peers.0.remove(&peer)).flatten();
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

    /// Releases the permit of a request that failed after it was admitted.
    #[expect(deprecated, reason = "nothing else reports these requests")]
    fn failed(&mut self, event: &stock::Event) {
        match event {
            stock::Event::ReservationReqAcceptFailed { src_peer_id, .. } => {
                lock(&self.peers).change(src_peer_id, |presence| drop(presence.reserving.pop()));
            }
            stock::Event::CircuitReqOutboundConnectFailed { src_peer_id, .. }
            | stock::Event::CircuitReqAcceptFailed { src_peer_id, .. } => {
                drop(lock(&self.peers).take_opening(src_peer_id));
            }
            _ => {}
        }
    }

    /// Counts an event of libp2p's relay and translates it.
    fn hear(&mut self, event: stock::Event) -> Event {
        match event {
            stock::Event::ReservationReqAccepted {
                src_peer_id: peer,
                renewed,
            } => {
                lock(&self.peers).change(&peer, |presence| {
                    let permit = presence.reserving.pop();
                    if !renewed {
                        presence.reservations.push(permit);
                    }
                });
                Event::Reserved { peer, renewed }
            }
            stock::Event::ReservationReqDenied {
                src_peer_id: peer, ..
            } => Event::ReservationRefused { peer },
            stock::Event::ReservationTimedOut { src_peer_id: peer } => {
                lock(&self.peers).change(&peer, |held| drop(held.reservations.pop()));
                Event::ReservationExpired { peer }
            }
            stock::Event::CircuitReqAccepted {
                src_peer_id: from,
                dst_peer_id: to,
            } => {
                let permit = lock(&self.peers).take_opening(&from);
                self.circuits.entry((from, to)).or_default().push(permit);
                Event::CircuitOpened { from, to }
            }
            stock::Event::CircuitReqDenied {
                src_peer_id: from,
                dst_peer_id: to,
                status,
            } => {
                // Found after the limits; what they refuse has another status.
                if matches!(status, stock::StatusCode::NoReservation) {
                    drop(lock(&self.peers).take_opening(&from));
                }
                Event::CircuitRefused { from, to }
            }
            stock::Event::CircuitClosed {
                src_peer_id: from,
                dst_peer_id: to,
                error,
            } => {
                if let Some(open) = self.circuits.get_mut(&(from, to)) {
                    open.pop();
                    if open.is_empty() {
                        self.circuits.remove(&(from, to));
                    }
                }
                Event::CircuitClosed { from, to, error }
            }
            other => {
                self.failed(&other);
                Event::Other(other)
            }
        }
    }
}

fn lock(peers: &Mutex<Peers>) -> std::sync::MutexGuard<'_, Peers> {
    peers.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The origin of a connection.
fn origin(endpoint: &ConnectedPoint) -> Option<Origin> {
    match endpoint {
        ConnectedPoint::Dialer { address, .. } => Origin::of_addr(address),
        ConnectedPoint::Listener {
            local_addr,
            send_back_addr,
        } => Origin::of_inbound(local_addr, send_back_addr),
    }
}

fn translate(config: &RelayServerConfig, peers: Arc<Mutex<Peers>>) -> stock::Config {
    let limits = stock::Config {
        // The last rate limiter applies this limit.
        max_reservations: usize::MAX,
        // libp2p's relay refuses above its limits, not at them.
        max_reservations_per_peer: config.tuning.max_reservations_per_peer.saturating_sub(1),
        reservation_duration: config.tuning.reservation_duration,
        reservation_rate_limiters: Vec::new(),
        max_circuits: config.max_circuits,
        max_circuits_per_peer: config.max_circuits_per_peer.saturating_sub(1),
        max_circuit_duration: config.max_circuit_duration,
        max_circuit_bytes: config.max_circuit_bytes,
        circuit_src_rate_limiters: Vec::new(),
    };
    // The limit by address comes first: a request that it refuses uses no bucket of the peer, and
    // peer ids can be invented.
    let per_ip = config.tuning.reservation_rate_per_ip;
    let per_peer = config.tuning.reservation_rate_per_peer;
    let circuits_per_ip = config.tuning.circuit_rate_per_ip;
    let circuits_per_peer = config.tuning.circuit_rate_per_peer;
    let mut limits = limits
        .reservation_rate_per_ip(burst(per_ip), per_ip.interval)
        .reservation_rate_per_peer(burst(per_peer), per_peer.interval)
        .circuit_src_per_ip(burst(circuits_per_ip), circuits_per_ip.interval)
        .circuit_src_per_peer(burst(circuits_per_peer), circuits_per_peer.interval);
    let of_circuits = peers.clone();
    // Each is the last one: what it admits is accepted.
    let reserve = move |peer: PeerId, _: &Multiaddr, _: Instant| lock(&peers).admit(&peer);
    limits.reservation_rate_limiters.push(Box::new(reserve));
    let circuit = move |peer: PeerId, _: &Multiaddr, now: Instant| {
        lock(&of_circuits).admit_circuit(&peer, now)
    };
    limits.circuit_src_rate_limiters.push(Box::new(circuit));
    limits
}

/// A valid configuration has none of 0.
fn burst(rate: RateTuning) -> NonZeroU32 {
    NonZeroU32::new(rate.burst).unwrap_or(NonZeroU32::MIN)
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = <stock::Behaviour as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = Event;

    pass_to_inner!(
        handle_pending_inbound_connection,
        handle_established_inbound_connection,
        handle_pending_outbound_connection,
        handle_established_outbound_connection,
        on_connection_handler_event,
    );

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.inner.on_swarm_event(event);
        match event {
            FromSwarm::ConnectionEstablished(up) => self.opened(up),
            FromSwarm::ConnectionClosed(gone) => self.closed(gone.peer_id, gone.endpoint),
            _ => {}
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        let polled = self.inner.poll(cx);
        polled.map(|action| action.map_out(|event| self.hear(event)))
    }
}
