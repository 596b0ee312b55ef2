//! The direct path: what turns a connection through a relay into a direct one.
//!
//! Three ways are tried, each for what the others cannot do:
//!
//! - **Hole punch rounds.** libp2p-dcutr 0.15 begins a round of three attempts when a relayed
//!   connection is made, and never again on that connection. A round may fail for a reason that
//!   passes: an address not known yet, a lost packet, a router that was replaced since. So the side
//!   that made the relayed connection makes another one after a wait that doubles, which begins a
//!   round in every implementation. The new connection is closed after its round, because the old
//!   one may carry streams.
//! - **Dial-back.** A peer that reached this node through a relay is dialled at the addresses that
//!   it reports: the first half of [DCUtR], which libp2p-dcutr 0.15 leaves out. A reachable peer
//!   needs no hole, and peers behind one router meet at their private addresses. The dial leaves
//!   from a new port: the listening port belongs to the hole punch that begins at the same time,
//!   and two TCP sockets that both dial between the same two ports meet in the middle with two
//!   diallers.
//! - **The listener's part.** DCUtR lets the side that was dialled through the relay open its NAT
//!   and wait for the other side. Behind a symmetric NAT the other side does not arrive, since the
//!   next mapping is not the one that the other side knows. But the other side has opened its own
//!   NAT, and where that NAT filters by address or not at all, a dial from here passes.
//!
//! [DCUtR]: https://github.com/libp2p/specs/blob/master/relay/DCUtR.md

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use calimero_network_primitives::{
    PeerId,
    addr::{DialAddr, is_relayed},
    config::RelayTuning,
};
use rand::rngs::StdRng;

use super::{
    book::AddressBook,
    connections::{Connections, Path},
    dials::DIAL_TIMEOUT,
    effect::{AttemptId, AttemptKind, Effect, HolePunch},
    schedule::{Schedule, backoff},
    why_relayed::WhyRelayed,
};

/// Wait after a round that is known to have failed, 5 s: it was refused, or one side did not know
/// its own external address yet, which the first identify message of a boot node reports.
const REFUSED_BACKOFF: Duration = Duration::from_secs(5);
/// Longest duration of a round, 35 s: three attempts with a handshake of 10 s each, and the
/// messages before them.
const ROUND: Duration = Duration::from_secs(35);
/// Time for which the rounds with a peer are remembered after its last connection, 10 min: a relay
/// that ends each circuit after 2 min does not reset the wait.
const MEMORY: Duration = Duration::from_secs(10 * 60);
/// Relayed peers that are remembered, about 200 bytes each. A peer above this number gets a round
/// with its next relayed connection.
const MAX_PEERS: usize = 1024;
/// Time that the other side has to come in before this node dials it, 3 s: one SYN lost at a NAT
/// that was not open yet is sent again after 1 s (RFC 6298), and a handshake takes a few round
/// trips. NATs keep an unused hole open for 30 s and more.
const HEAD_START: Duration = Duration::from_secs(3);
/// Hole punches at which this node waits at one time. Above it the oldest is dropped; its peer
/// stays relayed until the next round.
const MAX_AWAITED: usize = 64;
/// Time between two dial-backs of a peer without a new relayed connection from it, 60 s. A peer
/// reports its addresses as often as it likes, and each report would have this node dial them.
const DIAL_BACK_REST: Duration = Duration::from_secs(60);
/// Dial-backs in [`DIAL_BACK_REST`] for all peers: new identities cost nothing, so a limit for each
/// peer alone would let one attacker direct any number of dials.
const MAX_DIAL_BACKS_A_MINUTE: usize = 128;
/// Dial-backs under way at one time. A peer above this number is left to hole punching.
const MAX_DIAL_BACKS: usize = 32;

/// A peer that this node reached through a relay.
#[derive(Clone, Debug)]
struct Relayed {
    /// Circuit of the latest connection.
    via: DialAddr,
    /// Rounds that have begun.
    rounds: u32,
    /// Start of the latest round.
    begun: Instant,
    /// Whether the latest round is known to have failed.
    failed: bool,
    connected: bool,
}

/// What is due for a peer that stays relayed. Bounded by [`MAX_PEERS`], [`MAX_AWAITED`] and the
/// dials under way.
#[derive(Clone, Debug)]
pub(super) struct DirectPath {
    min: Duration,
    max: Duration,
    peers: HashMap<PeerId, Relayed>,
    /// For a connected peer the next round, for others the end of [`MEMORY`].
    due: Schedule<PeerId>,
    /// Attempts that are under way.
    attempts: HashMap<AttemptId, (PeerId, AttemptKind)>,
    overdue: Schedule<AttemptId>,
    /// Connections that were made for a round, until its end.
    spare: Schedule<(PeerId, AttemptId)>,
    /// Peers that were dialled back, until they may be again.
    resting: Schedule<PeerId>,
    /// The dial-backs of the last minute.
    recent: Schedule<u64>,
    /// In the order in which they are due: all have the same head start.
    awaited: VecDeque<(Instant, PeerId, Vec<DialAddr>)>,
    /// Circuits by which connected peers were reached.
    circuits: HashMap<PeerId, DialAddr>,
    last_attempt: u64,
}

impl DirectPath {
    pub(super) fn new(config: &RelayTuning) -> Self {
        Self {
            min: config.punch_min_backoff,
            max: config.punch_max_backoff,
            peers: HashMap::new(),
            due: Schedule::default(),
            attempts: HashMap::new(),
            overdue: Schedule::default(),
            spare: Schedule::default(),
            resting: Schedule::default(),
            recent: Schedule::default(),
            awaited: VecDeque::new(),
            circuits: HashMap::new(),
            last_attempt: 0,
        }
    }

    /// A connection with `peer` was established by `path`, after which `best` is the best path to
    /// it. `dialled` is the address where this node dialled.
    pub(super) fn on_opened(
        &mut self,
        peer: PeerId,
        path: Path,
        best: Option<Path>,
        dialled: Option<&DialAddr>,
        now: Instant,
        rng: &mut StdRng,
    ) {
        if path == Path::Relayed && dialled.is_none() {
            // The peer begins a round, for which it may be dialled back once more.
            self.resting.cancel(&peer);
        }
        let circuit = dialled.filter(|address| is_relayed(address));
        if let Some(circuit) = circuit {
            self.circuits.insert(peer, circuit.clone());
        }
        if best == Some(Path::Direct) {
            self.peers.remove(&peer);
            self.due.cancel(&peer);
        } else if let Some(via) = circuit.cloned() {
            self.begin_round(peer, via, now, rng);
        }
    }

    /// A connection with `peer` was closed, after which `best` is the best path to it.
    pub(super) fn on_closed(
        &mut self,
        peer: PeerId,
        closed: Path,
        best: Option<Path>,
        now: Instant,
        rng: &mut StdRng,
    ) {
        match best {
            None => {
                self.circuits.remove(&peer);
                self.resting.cancel(&peer);
                if let Some(known) = self.peers.get_mut(&peer) {
                    known.connected = false;
                    self.due.set(peer, now + MEMORY);
                }
            }
            // Direct before, relayed again.
            Some(Path::Relayed) if closed == Path::Direct => {
                if let Some(via) = self.circuits.get(&peer).cloned() {
                    self.begin_round(peer, via, now, rng);
                }
            }
            Some(_) => {}
        }
    }

    fn begin_round(&mut self, peer: PeerId, via: DialAddr, now: Instant, rng: &mut StdRng) {
        if self.peers.len() >= MAX_PEERS && !self.peers.contains_key(&peer) {
            return;
        }
        let rounds = self.peers.get(&peer).map_or(0, |known| known.rounds);
        let known = Relayed {
            via,
            rounds: rounds.saturating_add(1),
            begun: now,
            failed: false,
            connected: true,
        };
        let wait = backoff(rng, self.min, self.max, known.rounds);
        self.peers.insert(peer, known);
        self.due.set(peer, now + wait);
    }

    /// Attempts to reach `peer` directly ended, as DCUtR or a dial-back reports. Those that failed
    /// next to one that did not change nothing.
    pub(super) fn on_ended(
        &mut self,
        peer: PeerId,
        outcome: HolePunch,
        best: Option<Path>,
        now: Instant,
        rng: &mut StdRng,
        out: &mut VecDeque<Effect>,
    ) {
        if outcome == HolePunch::Failed {
            if best != Some(Path::Relayed) {
                return;
            }
            self.on_failed(peer, now, rng);
        }
        out.push_back(Effect::HolePunchEnded { peer, outcome });
    }

    fn on_failed(&mut self, peer: PeerId, now: Instant, rng: &mut StdRng) {
        let Some(known) = self.peers.get_mut(&peer).filter(|known| known.connected) else {
            return;
        };
        known.failed = true;
        let min = self.min.min(REFUSED_BACKOFF);
        let at = now + backoff(rng, min, self.max, known.rounds);
        self.bring_forward(peer, at);
    }

    fn bring_forward(&mut self, peer: PeerId, at: Instant) {
        if self.due.at(&peer).is_none_or(|due| at < due) {
            self.due.set(peer, at);
        }
    }

    /// The network changed: what could not be punched before may be now.
    pub(super) fn retry_now(&mut self, now: Instant, rng: &mut StdRng) {
        let min = self.min.min(REFUSED_BACKOFF);
        let mut connected: Vec<_> = (self.peers.iter())
            .filter(|(_, known)| known.connected)
            .map(|(peer, _)| *peer)
            .collect();
        // Hash maps have no order, and the same seed has to give the same waits.
        connected.sort_unstable();
        for peer in connected {
            let at = now + backoff(rng, min, min, 1);
            self.bring_forward(peer, at);
        }
    }

    /// DCUtR gave this node the listener's part in a hole punch with `peer`, which dials from one
    /// of `addresses`.
    pub(super) fn on_awaited(&mut self, peer: PeerId, addresses: Vec<DialAddr>, now: Instant) {
        self.awaited.retain(|(_, other, _)| *other != peer);
        if self.awaited.len() >= MAX_AWAITED {
            self.awaited.pop_front();
        }
        self.awaited.push_back((now + HEAD_START, peer, addresses));
    }

    /// A peer that connected through a relay reported its addresses, of which `book` holds those
    /// that may be dialled.
    pub(super) fn dial_back(
        &mut self,
        peer: PeerId,
        best: Option<Path>,
        book: &AddressBook,
        now: Instant,
        out: &mut VecDeque<Effect>,
    ) {
        let kind = AttemptKind::DialBack;
        let under_way = self.attempts.values().filter(|(_, of)| *of == kind);
        if best != Some(Path::Relayed) || under_way.count() >= MAX_DIAL_BACKS {
            return;
        }
        while self.resting.pop_due(now).is_some() {}
        while self.recent.pop_due(now).is_some() {}
        if self.resting.contains(&peer) || self.recent.len() >= MAX_DIAL_BACKS_A_MINUTE {
            return;
        }
        let mut addresses = book.addresses(&peer, now);
        addresses.retain(|address| !is_relayed(address));
        if !addresses.is_empty() {
            self.resting.set(peer, now + DIAL_BACK_REST);
            self.recent.set(self.last_attempt, now + DIAL_BACK_REST);
            self.begin(peer, kind, addresses, now, out);
        }
    }

    /// The dial of an attempt made a connection by `path`.
    pub(super) fn on_connected(
        &mut self,
        id: AttemptId,
        path: Path,
        now: Instant,
        out: &mut VecDeque<Effect>,
    ) {
        let Some((peer, kind)) = self.end(id) else {
            return;
        };
        match (kind, path) {
            (AttemptKind::Round, Path::Relayed) => self.spare.set((peer, id), now + ROUND),
            (AttemptKind::DialBack, Path::Direct) => {
                let outcome = HolePunch::Direct;
                out.push_back(Effect::HolePunchEnded { peer, outcome });
            }
            _ => {}
        }
    }

    /// The dial of an attempt made no connection.
    pub(super) fn end(&mut self, id: AttemptId) -> Option<(PeerId, AttemptKind)> {
        self.overdue.cancel(&id);
        self.attempts.remove(&id)
    }

    fn begin(
        &mut self,
        peer: PeerId,
        kind: AttemptKind,
        addresses: Vec<DialAddr>,
        now: Instant,
        out: &mut VecDeque<Effect>,
    ) {
        self.last_attempt += 1;
        let id = AttemptId(self.last_attempt);
        self.attempts.insert(id, (peer, kind));
        self.overdue.set(id, now + DIAL_TIMEOUT);
        out.push_back(Effect::Attempt {
            id,
            kind,
            peer,
            addresses,
        });
    }

    /// Does what is due at `now`.
    pub(super) fn advance(
        &mut self,
        connections: &Connections,
        book: &AddressBook,
        now: Instant,
        rng: &mut StdRng,
        out: &mut VecDeque<Effect>,
    ) {
        while let Some(id) = self.overdue.pop_due(now) {
            self.attempts.remove(&id);
        }
        while self.awaited.front().is_some_and(|(at, ..)| *at <= now)
            && let Some((_, peer, addresses)) = self.awaited.pop_front()
        {
            if connections.path(&peer) == Some(Path::Relayed) && !addresses.is_empty() {
                self.begin(peer, AttemptKind::ThroughHole, addresses, now, out);
            }
        }
        while let Some(peer) = self.due.pop_due(now) {
            self.advance_round(peer, book, now, rng, out);
        }
        while let Some((peer, id)) = self.spare.pop_due(now) {
            // The spare one is the only one where the relay ended the other.
            if connections.relayed(&peer) > 1 {
                out.push_back(Effect::CloseAttempt { id, peer });
            }
        }
    }

    /// Begins the round with `peer` that is due, by another connection through the relay.
    fn advance_round(
        &mut self,
        peer: PeerId,
        book: &AddressBook,
        now: Instant,
        rng: &mut StdRng,
        out: &mut VecDeque<Effect>,
    ) {
        let Some(known) = self.peers.get_mut(&peer).filter(|known| known.connected) else {
            self.peers.remove(&peer);
            return;
        };
        // Due again later even if this one makes no connection.
        let wait = backoff(rng, self.min, self.max, known.rounds);
        self.due.set(peer, now + wait);
        if !std::mem::replace(&mut known.failed, true) {
            let outcome = HolePunch::Failed;
            out.push_back(Effect::HolePunchEnded { peer, outcome });
        }
        let via = known.via.clone();
        let mut addresses = book.addresses(&peer, now);
        addresses.retain(|address| is_relayed(address) && *address != via);
        addresses.insert(0, via);
        self.begin(peer, AttemptKind::Round, addresses, now, out);
    }

    /// Forgets `peer`, which is blocked.
    pub(super) fn remove(&mut self, peer: &PeerId) {
        self.peers.remove(peer);
        self.due.cancel(peer);
        self.circuits.remove(peer);
        self.awaited.retain(|(_, other, _)| other != peer);
        let attempts = self.attempts.extract_if(|_, (other, _)| other == peer);
        for (id, _) in attempts {
            self.overdue.cancel(&id);
        }
        let spares: Vec<_> = self
            .spare
            .keys()
            .filter(|(other, _)| other == peer)
            .copied()
            .collect();
        for spare in spares {
            self.spare.cancel(&spare);
        }
    }

    /// When the next round with `peer` is due; `None` for a peer that is not relayed, and for one
    /// that connected to this node, since the rounds are the dialler's.
    pub(super) fn next_round(&self, peer: &PeerId) -> Option<Instant> {
        let connected = self.peers.get(peer)?.connected;
        self.due.at(peer).filter(|_| connected)
    }

    /// Why `peer`, which is relayed, has no direct connection. A peer without DCUtR reports no end
    /// of a round, so a round is over after its longest duration.
    pub(super) fn why_relayed(&self, peer: &PeerId, now: Instant) -> WhyRelayed {
        match self.peers.get(peer).filter(|known| known.connected) {
            Some(known) if known.failed || now >= known.begun + ROUND => WhyRelayed::Failed {
                rounds: known.rounds,
            },
            Some(known) => WhyRelayed::Punching {
                round: known.rounds,
            },
            None if self.circuits.contains_key(peer) => WhyRelayed::Untracked,
            None => WhyRelayed::DialledByPeer,
        }
    }

    /// When [`advance`](Self::advance) has something to do.
    pub(super) fn next(&self) -> Option<Instant> {
        let next = [
            self.due.next(),
            self.overdue.next(),
            self.spare.next(),
            self.awaited.front().map(|(at, ..)| *at),
        ];
        next.into_iter().flatten().min()
    }

    /// Peers that are remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }
}

#[cfg(test)]
mod tests;
