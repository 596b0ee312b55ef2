//! Reservations at relays. A reservation that ends in any way is followed by the next one.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use calimero_network_primitives::{
    Multiaddr, PeerId,
    addr::{DialAddr, circuit_addr},
    config::RelayTuning,
};
use rand::{RngExt, rngs::StdRng};

use super::{
    circuit_limit::CircuitLimit,
    effect::{Effect, RelayListener},
    schedule::{Schedule, backoff},
    since::Since,
    status::ReservationStatus,
};

/// Time for a relay to answer, the dial of the relay included.
const RELAY_TIMEOUT: Duration = Duration::from_secs(45);

/// Lifetime of a reservation that is not renewed: 65 min. Relays grant one hour (circuit v2
/// specification) and clients renew before its end.
const RESERVATION_LIFETIME: Duration = Duration::from_secs(65 * 60);

/// The state of the reservation at a relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reservation {
    /// No reservation is requested.
    Idle,
    /// A reservation is requested.
    Requested {
        /// Listener of the reservation.
        listener: RelayListener,
    },
    /// The relay granted a reservation.
    Held {
        /// Listener of the reservation.
        listener: RelayListener,
        /// Time at which the reservation expires unless it is renewed.
        expires: Instant,
    },
    /// The reservation was lost, refused or not answered. It is requested again after a wait.
    Resting {
        /// Time after which it may be requested again.
        until: Instant,
    },
}

#[derive(Clone, Debug)]
struct Relay {
    /// Circuit addresses to listen on, one for each address of the relay. Never empty.
    circuits: Vec<Multiaddr>,
    state: Since<Reservation>,
    /// Circuit address of this attempt, or of the reservation that is held.
    circuit: Multiaddr,
    /// Attempts in a row that failed.
    failures: u32,
    /// Limit of circuits, as the relay named it with its latest grant.
    limit: Option<CircuitLimit>,
}

/// The change of the circuit addresses of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Gained(PeerId, Multiaddr),
    Lost(PeerId, Multiaddr),
}

/// The addresses to listen on at the relay `peer`, one for each address at which it is reached
/// directly.
fn circuits(peer: PeerId, addresses: &[DialAddr]) -> Vec<Multiaddr> {
    let circuits = addresses.iter();
    circuits
        .filter_map(|address| circuit_addr(address, peer, None).ok())
        .collect()
}

/// The known relays and the reservations of this node at them.
#[derive(Clone, Debug)]
pub(super) struct Relays {
    /// Reservations that are held at the same time.
    max_reservations: u32,
    config: RelayTuning,
    relays: BTreeMap<PeerId, Relay>,
    listeners: BTreeMap<RelayListener, PeerId>,
    /// Deadline, expiry or end of rest, depending on the state.
    due: Schedule<PeerId>,
    last_listener: u64,
    wanted: bool,
}

impl Relays {
    pub(super) fn new(
        max_reservations: u32,
        config: RelayTuning,
        relays: impl IntoIterator<Item = (PeerId, Vec<DialAddr>)>,
        now: Instant,
    ) -> Self {
        let mut all = Self {
            max_reservations,
            config,
            relays: BTreeMap::new(),
            listeners: BTreeMap::new(),
            due: Schedule::default(),
            last_listener: 0,
            wanted: false,
        };
        for (peer, addresses) in relays {
            all.insert(peer, circuits(peer, &addresses), now);
        }
        all
    }

    /// Sets the addresses of the relay `peer`, which is added if it is not known. A reservation at an
    /// address that is not one of them is ended, and the relay is asked again. A relay behind another
    /// relay cannot be listened on and is removed.
    pub(super) fn set_addresses(
        &mut self,
        peer: PeerId,
        addresses: &[DialAddr],
        now: Instant,
        rng: &mut StdRng,
        out: &mut VecDeque<Effect>,
    ) -> Option<Change> {
        let circuits = circuits(peer, addresses);
        let in_use = self.relays.get(&peer).map(|relay| &relay.circuit);
        let lost = if in_use.is_none_or(|circuit| circuits.contains(circuit)) {
            None
        } else {
            let lost = self.give_up(peer, now, out);
            self.relays.remove(&peer);
            lost
        };
        match self.relays.get_mut(&peer) {
            Some(relay) => relay.circuits = circuits,
            None => self.insert(peer, circuits, now),
        }
        self.fill(now, rng, out);
        lost
    }

    fn insert(&mut self, peer: PeerId, circuits: Vec<Multiaddr>, now: Instant) {
        let Some(first) = circuits.first() else {
            return;
        };
        let relay = Relay {
            circuit: first.clone(),
            circuits,
            state: Since::new(Reservation::Idle, now),
            failures: 0,
            limit: None,
        };
        self.relays.insert(peer, relay);
    }

    /// Sets whether reservations are wanted. If not, those that exist are ended.
    pub(super) fn set_wanted(
        &mut self,
        wanted: bool,
        now: Instant,
        rng: &mut StdRng,
        out: &mut VecDeque<Effect>,
    ) -> Vec<Change> {
        let mut lost = Vec::new();
        if self.wanted && !wanted {
            let relays: Vec<_> = self.relays.keys().copied().collect();
            for relay in relays {
                lost.extend(self.give_up(relay, now, out));
            }
        }
        self.wanted = wanted;
        self.fill(now, rng, out);
        lost
    }

    /// A relay granted or renewed a reservation.
    pub(super) fn accepted(
        &mut self,
        listener: RelayListener,
        limit: CircuitLimit,
        now: Instant,
    ) -> Option<Change> {
        let peer = *self.listeners.get(&listener)?;
        let relay = self.relays.get_mut(&peer)?;
        let expires = now + RESERVATION_LIFETIME;
        let held = Reservation::Held { listener, expires };
        let renewed = matches!(relay.state.set(held, now), Reservation::Held { .. });
        relay.failures = 0;
        relay.limit = Some(limit);
        self.due.set(peer, expires);
        (!renewed).then(|| Change::Gained(peer, relay.circuit.clone()))
    }

    /// A listener was closed. Its relay rests, and the next relay is asked.
    pub(super) fn closed(
        &mut self,
        listener: RelayListener,
        now: Instant,
        rng: &mut StdRng,
        out: &mut VecDeque<Effect>,
    ) -> Option<Change> {
        let peer = self.listeners.remove(&listener)?;
        let lost = self.rest(peer, now, rng);
        self.fill(now, rng, out);
        lost
    }

    /// A relay is connected, so it may be asked again although it rests.
    pub(super) fn relay_up(
        &mut self,
        peer: PeerId,
        now: Instant,
        rng: &mut StdRng,
        out: &mut VecDeque<Effect>,
    ) {
        if let Some(relay) = self.relays.get_mut(&peer)
            && let Reservation::Resting { .. } = relay.state.get()
        {
            relay.state.set(Reservation::Idle, now);
            self.due.cancel(&peer);
            self.fill(now, rng, out);
        }
    }

    /// The network changed. No relay rests any longer.
    pub(super) fn retry_now(&mut self, now: Instant, rng: &mut StdRng, out: &mut VecDeque<Effect>) {
        let relays: Vec<_> = self.relays.keys().copied().collect();
        for relay in relays {
            self.relay_up(relay, now, rng, out);
        }
        self.fill(now, rng, out);
    }

    /// Removes a relay, for example because it is blocked.
    pub(super) fn forget(
        &mut self,
        peer: PeerId,
        now: Instant,
        rng: &mut StdRng,
        out: &mut VecDeque<Effect>,
    ) -> Option<Change> {
        let lost = self.give_up(peer, now, out);
        self.relays.remove(&peer);
        self.fill(now, rng, out);
        lost
    }

    /// Ends what is overdue, and asks relays again whose rest is over.
    pub(super) fn advance(
        &mut self,
        now: Instant,
        rng: &mut StdRng,
        out: &mut VecDeque<Effect>,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        while let Some(peer) = self.due.pop_due(now) {
            let Some(relay) = self.relays.get_mut(&peer) else {
                continue;
            };
            match *relay.state.get() {
                Reservation::Resting { .. } => {
                    relay.state.set(Reservation::Idle, now);
                }
                Reservation::Requested { listener } | Reservation::Held { listener, .. } => {
                    self.listeners.remove(&listener);
                    out.push_back(Effect::StopListening { listener });
                    changes.extend(self.rest(peer, now, rng));
                }
                Reservation::Idle => {}
            }
            self.fill(now, rng, out);
        }
        changes
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.due.next()
    }

    pub(super) fn status(&self) -> impl Iterator<Item = ReservationStatus> {
        self.relays.iter().map(|(relay, entry)| ReservationStatus {
            relay: *relay,
            state: entry.state.get().clone(),
            changed_at: entry.state.changed_at(),
            circuit_limit: entry.limit,
        })
    }

    /// Returns whether something is due at some time for `relay`.
    #[cfg(test)]
    pub(super) fn has_time(&self, relay: &PeerId) -> bool {
        self.due.contains(relay)
    }

    /// Requests reservations until there are enough. The relay that failed least comes first, and
    /// among several such relays a random one, so that nodes spread over them.
    fn fill(&mut self, now: Instant, rng: &mut StdRng, out: &mut VecDeque<Effect>) {
        while self.wanted && self.active() < self.max_reservations as usize {
            let idle = self
                .relays
                .iter()
                .filter(|(_, relay)| *relay.state.get() == Reservation::Idle);
            let best = idle
                .map(|(peer, relay)| (relay.failures, rng.random::<u32>(), *peer))
                .min();
            let Some((.., peer)) = best else {
                return;
            };
            self.request(peer, now, out);
        }
    }

    fn request(&mut self, peer: PeerId, now: Instant, out: &mut VecDeque<Effect>) {
        let Some(relay) = self.relays.get_mut(&peer) else {
            return;
        };
        self.last_listener += 1;
        let listener = RelayListener(self.last_listener);
        self.listeners.insert(listener, peer);
        // Each attempt uses the next address, since some may not be reachable from here.
        let turn = relay.failures as usize % relay.circuits.len().max(1);
        if let Some(circuit) = relay.circuits.get(turn) {
            relay.circuit.clone_from(circuit);
        }
        relay.state.set(Reservation::Requested { listener }, now);
        self.due.set(peer, now + RELAY_TIMEOUT);
        out.push_back(Effect::Reserve {
            listener,
            relay: peer,
            address: relay.circuit.clone(),
        });
    }

    fn active(&self) -> usize {
        self.listeners.len()
    }

    /// The reservation at `peer` ended or was not granted.
    fn rest(&mut self, peer: PeerId, now: Instant, rng: &mut StdRng) -> Option<Change> {
        let relay = self.relays.get_mut(&peer)?;
        relay.failures = relay.failures.saturating_add(1);
        let (min, max) = (self.config.min_backoff, self.config.max_backoff);
        let until = now + backoff(rng, min, max, relay.failures);
        let before = relay.state.set(Reservation::Resting { until }, now);
        self.due.set(peer, until);
        matches!(before, Reservation::Held { .. })
            .then(|| Change::Lost(peer, relay.circuit.clone()))
    }

    fn give_up(
        &mut self,
        peer: PeerId,
        now: Instant,
        out: &mut VecDeque<Effect>,
    ) -> Option<Change> {
        let relay = self.relays.get_mut(&peer)?;
        self.due.cancel(&peer);
        match relay.state.set(Reservation::Idle, now) {
            Reservation::Idle | Reservation::Resting { .. } => None,
            Reservation::Requested { listener } => {
                self.listeners.remove(&listener);
                out.push_back(Effect::StopListening { listener });
                None
            }
            Reservation::Held { listener, .. } => {
                self.listeners.remove(&listener);
                out.push_back(Effect::StopListening { listener });
                Some(Change::Lost(peer, relay.circuit.clone()))
            }
        }
    }
}
