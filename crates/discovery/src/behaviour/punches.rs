//! Peers that stay relayed, and when the next hole punch is tried.
//!
//! libp2p-dcutr 0.15 tries three times when a relayed connection is made, and never again on it.
//! A round may come to nothing for a reason that passes: an address not yet known, a lost packet,
//! sides that were not there at the same moment, a router since exchanged. So whoever made the
//! relayed connection makes another one beside it, after a wait that doubles: that begins a round
//! anew, in every implementation. The new one is closed when the round is over, since the old one
//! may carry something.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use calimero_network_primitives::{Multiaddr, PeerId, config::RelayTuning};
use libp2p_swarm::ConnectionId;
use rand::{SeedableRng, rngs::StdRng};

use crate::machine::schedule::{Schedule, backoff};

/// Wait after a round of which it is known that it came to nothing, 5 s: it was refused, or one
/// side did not know yet where it is seen, which the first word of a boot node tells it.
const REFUSED_BACKOFF: Duration = Duration::from_secs(5);
/// What a round takes at most, 35 s: three attempts with the 10 s of a handshake each, and what
/// the sides tell each other before.
const ROUND: Duration = Duration::from_secs(35);
/// How long the rounds with a peer are remembered that is connected no more, 10 min: a relay that
/// ends its circuits after 2 min does not make the wait begin anew.
const MEMORY: Duration = Duration::from_secs(10 * 60);
/// Peers in mind, about 200 bytes each. Whoever is beyond has another round with its next relayed
/// connection.
const MAX_PEERS: usize = 1024;

/// What is known of a peer that we have reached through a relay.
#[derive(Clone, Debug)]
struct Relayed {
    /// The circuit.
    via: Multiaddr,
    /// Rounds that have begun.
    rounds: u32,
    /// Whether the last one is known to have failed.
    failed: bool,
    connected: bool,
}

/// Another round that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Round {
    pub(super) peer: PeerId,
    /// The circuit of the last one.
    pub(super) via: Multiaddr,
    /// Whether nobody has said yet how the last one ended.
    pub(super) ended_unheard: bool,
}

/// Peers that we have reached through a relay and not otherwise, or lately.
#[derive(Debug)]
pub(super) struct Punches {
    min: Duration,
    max: Duration,
    rng: StdRng,
    peers: HashMap<PeerId, Relayed>,
    /// For whoever is connected the next round, for others the end of memory.
    due: Schedule<PeerId>,
    /// Connections that are there for a round only.
    spare: Schedule<(PeerId, ConnectionId)>,
}

impl Punches {
    pub(super) fn new(config: &RelayTuning, seed: u64) -> Self {
        Self {
            min: config.punch_min_backoff,
            max: config.punch_max_backoff,
            rng: StdRng::seed_from_u64(seed),
            peers: HashMap::new(),
            due: Schedule::default(),
            spare: Schedule::default(),
        }
    }

    /// We have reached `peer` through a relay, which begins a round.
    pub(super) fn began(&mut self, peer: PeerId, via: Multiaddr, now: Instant) {
        if self.peers.len() >= MAX_PEERS && !self.peers.contains_key(&peer) {
            return;
        }
        let known = self.peers.entry(peer).or_insert_with(|| Relayed {
            via: Multiaddr::empty(),
            rounds: 0,
            failed: false,
            connected: true,
        });
        known.via = via;
        known.rounds = known.rounds.saturating_add(1);
        known.failed = false;
        known.connected = true;
        let wait = backoff(&mut self.rng, self.min, self.max, known.rounds);
        self.due.set(peer, now + wait);
    }

    /// A round has come to nothing.
    pub(super) fn failed(&mut self, peer: PeerId, now: Instant) {
        let Some(known) = self.peers.get_mut(&peer).filter(|known| known.connected) else {
            return;
        };
        known.failed = true;
        let min = self.min.min(REFUSED_BACKOFF);
        let at = now + backoff(&mut self.rng, min, self.max, known.rounds);
        if self.due.at(&peer).is_none_or(|due| at < due) {
            self.due.set(peer, at);
        }
    }

    /// There is a direct connection.
    pub(super) fn succeeded(&mut self, peer: &PeerId) {
        self.peers.remove(peer);
        self.due.cancel(peer);
    }

    /// There is no connection.
    pub(super) fn disconnected(&mut self, peer: PeerId, now: Instant) {
        if let Some(known) = self.peers.get_mut(&peer) {
            known.connected = false;
            self.due.set(peer, now + MEMORY);
        }
    }

    /// A connection is there for the sake of a round.
    pub(super) fn spare(&mut self, peer: PeerId, connection: ConnectionId, now: Instant) {
        self.spare.set((peer, connection), now + ROUND);
    }

    /// The network is another one: what could not be punched may be now.
    pub(super) fn hasten(&mut self, now: Instant) {
        let min = self.min.min(REFUSED_BACKOFF);
        let connected = self.peers.iter().filter(|(_, known)| known.connected);
        for (peer, _) in connected {
            let at = now + backoff(&mut self.rng, min, min, 1);
            if self.due.at(peer).is_none_or(|due| at < due) {
                self.due.set(*peer, at);
            }
        }
    }

    /// When another round with `peer` is due.
    pub(super) fn next_with(&self, peer: &PeerId) -> Option<Instant> {
        let connected = self.peers.get(peer)?.connected;
        self.due.at(peer).filter(|_| connected)
    }

    /// When [`due`](Self::due) or [`pop_spare`](Self::pop_spare) has something to say.
    pub(super) fn next(&self) -> Option<Instant> {
        let next = [self.due.next(), self.spare.next()];
        next.into_iter().flatten().min()
    }

    /// A peer with which another round is due. If none begins, it is due again later.
    pub(super) fn due(&mut self, now: Instant) -> Option<Round> {
        while let Some(peer) = self.due.pop_due(now) {
            let Some(known) = self.peers.get_mut(&peer).filter(|known| known.connected) else {
                self.peers.remove(&peer);
                continue;
            };
            let wait = backoff(&mut self.rng, self.min, self.max, known.rounds);
            self.due.set(peer, now + wait);
            let ended_unheard = !std::mem::replace(&mut known.failed, true);
            return Some(Round {
                peer,
                via: known.via.clone(),
                ended_unheard,
            });
        }
        None
    }

    /// A connection that has served its round.
    pub(super) fn pop_spare(&mut self, now: Instant) -> Option<(PeerId, ConnectionId)> {
        self.spare.pop_due(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::behaviour::now;

    fn punches() -> Punches {
        Punches::new(&RelayTuning::default(), 1)
    }

    fn via() -> Multiaddr {
        format!(
            "/ip4/203.0.113.1/tcp/1/p2p/{}/p2p-circuit",
            PeerId::random()
        )
        .parse()
        .unwrap()
    }

    /// The waits between `count` rounds, each of which begins when it is due.
    fn waits(punches: &mut Punches, peer: PeerId, start: Instant, count: usize) -> Vec<Duration> {
        let mut at = start;
        let wait = |_| {
            punches.began(peer, via(), at);
            let due = punches.next_with(&peer).unwrap();
            assert_eq!(punches.due(due - Duration::from_millis(1)), None);
            assert_eq!(punches.due(due).map(|round| round.peer), Some(peer));
            let wait = due - at;
            at = due;
            wait
        };
        (0..count).map(wait).collect()
    }

    #[test]
    fn waits_grow_to_some_minutes_and_stay_there() {
        let waits = waits(&mut punches(), PeerId::random(), now(), 12);
        for (wait, seconds) in waits.iter().zip([45, 90, 180, 300, 300, 300]) {
            let middle = Duration::from_secs(seconds);
            assert!(*wait >= middle.mul_f64(0.75), "{waits:?}");
            assert!(*wait <= middle.mul_f64(1.25), "{waits:?}");
        }
        assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(375)));
    }

    #[test]
    fn a_lost_connection_does_not_make_waits_begin_anew_but_time_does() {
        let (start, peer, mut punches) = (now(), PeerId::random(), punches());
        waits(&mut punches, peer, start, 4);
        punches.disconnected(peer, start);
        assert_eq!(punches.next_with(&peer), None);
        punches.began(peer, via(), start);
        let wait = punches.next_with(&peer).unwrap() - start;
        assert!(wait > Duration::from_secs(200), "{wait:?}");
        punches.disconnected(peer, start);
        assert_eq!(punches.due(start + MEMORY), None);
        assert!(punches.peers.is_empty());
        assert_eq!(punches.next(), None);
    }

    #[test]
    fn a_round_that_is_known_to_have_failed_is_followed_sooner() {
        let (start, peer, mut punches) = (now(), PeerId::random(), punches());
        punches.failed(peer, start);
        assert_eq!(punches.next(), None);
        punches.began(peer, via(), start);
        punches.failed(peer, start);
        let due = punches.next_with(&peer).unwrap();
        assert!(due <= start + Duration::from_secs(7));
        assert!(!punches.due(due).unwrap().ended_unheard);
        // Nobody has made a connection meanwhile: it is due again.
        assert!(punches.next_with(&peer).unwrap() > due);
    }

    #[test]
    fn whoever_is_direct_is_left_in_peace() {
        let (start, peer, mut punches) = (now(), PeerId::random(), punches());
        punches.began(peer, via(), start);
        punches.succeeded(&peer);
        punches.disconnected(peer, start);
        assert_eq!((punches.next(), punches.next_with(&peer)), (None, None));
    }

    #[test]
    fn another_network_is_tried_at_once() {
        let (start, peer, mut punches) = (now(), PeerId::random(), punches());
        waits(&mut punches, peer, start, 6);
        punches.began(peer, via(), start);
        punches.hasten(start);
        assert!(punches.next_with(&peer).unwrap() <= start + Duration::from_secs(7));
    }

    #[test]
    fn a_spare_connection_has_its_round() {
        let (start, peer, mut punches) = (now(), PeerId::random(), punches());
        let connection = ConnectionId::new_unchecked(1);
        punches.spare(peer, connection, start);
        assert_eq!(punches.pop_spare(start), None);
        let end = punches.next().unwrap();
        assert_eq!(punches.pop_spare(end), Some((peer, connection)));
    }

    #[test]
    fn no_more_are_kept_than_may_be() {
        let mut punches = punches();
        for _ in 0..=MAX_PEERS {
            punches.began(PeerId::random(), via(), now());
        }
        assert_eq!(punches.peers.len(), MAX_PEERS);
    }
}
