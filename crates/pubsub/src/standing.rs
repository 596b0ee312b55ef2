//! What is thought of peers: the application's preference and the faults they made.
//!
//! Gossipsub puts a peer out of the mesh when its score is below zero and hears it less and less
//! further down. So a score of zero for a stranger and negative scores for those an application
//! likes less would shut out peers that did nothing wrong. Here every peer starts at
//! [`BASE_SCORE`], and the preference moves it by at most as much: preferences order the peers,
//! and never bring one below zero. Only faults do.
//!
//! | score | what gossipsub does |
//! |---|---|
//! | highest in a mesh that is too full | stays ([`RETAINED`] of them) |
//! | above the median of a mesh of strangers | is taken in now and then |
//! | below 0 | is not in the mesh |
//! | below -100 | is not offered messages nor asked for any |
//! | below -200 | is not sent own messages |
//! | below -300 | is not heard |
//!
//! Faults fade with a half-life of a minute. A peer with many at once is banned.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use calimero_network_primitives::PeerId;

/// Score of a peer that nobody has an opinion of.
pub const BASE_SCORE: f64 = 100.0;

/// Score below which a peer is not heard.
pub const GRAYLIST_SCORE: f64 = -300.0;

/// Largest preference in either direction; larger ones count as this.
pub const MAX_PREFERENCE: f64 = BASE_SCORE;

/// Members with the highest scores that stay in a mesh that is too full, in number: half of the
/// smallest target.
pub const RETAINED: usize = 2;

/// Peers remembered, in number. More than connections that a node has; where there are more, the
/// ones without faults are forgotten first.
const MAX_PEERS: usize = 4096;

/// Time in which faults fade to a half.
const HALF_LIFE: Duration = Duration::from_secs(60);

/// Faults at which a peer is banned: 20 invalid messages at once.
const BAN_FAULTS: f64 = 1000.0;

/// Control entries that one peer may send at once, in number. A peer with 2,000 topics sends one
/// for each when it joins, and one for each at a heartbeat.
const CONTROL_BURST: f64 = 16_384.0;

/// Control entries that one peer may send in the long run, a second.
const CONTROL_RATE: f64 = 8_192.0;

/// What a peer did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Messages that are unsigned, wrongly signed or malformed: 50 points each. An honest peer
    /// checks before it passes on.
    Invalid(usize),
    /// Topics announced beyond the limits: a point for 64. An honest peer may follow some more
    /// than expected.
    Excess(usize),
    /// Messages repeated long after: 1 point each. An honest peer may have been offline.
    Replayed(usize),
    /// Entries of control messages. Beyond 16,384 at once and 8,192 a second a point for 64.
    Control(usize),
}

/// What follows from a fault.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// The score that gossipsub must be given.
    Score(f64),
    /// The peer is banned. Said once for each ban.
    Ban,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    preference: f64,
    faults: f64,
    control: f64,
    at: Instant,
    banned_until: Option<Instant>,
}

impl Entry {
    fn new(now: Instant) -> Self {
        Self {
            preference: 0.0,
            faults: 0.0,
            control: CONTROL_BURST,
            at: now,
            banned_until: None,
        }
    }

    fn advance(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.faults *= (-passed / HALF_LIFE.as_secs_f64()).exp2();
        self.control = (self.control + passed * CONTROL_RATE).min(CONTROL_BURST);
        self.at = now;
    }

    fn points(&mut self, fault: Fault) -> f64 {
        match fault {
            Fault::Invalid(count) => 50.0 * as_f64(count),
            Fault::Excess(count) => as_f64(count) / 64.0,
            Fault::Replayed(count) => as_f64(count),
            Fault::Control(count) => {
                self.control -= as_f64(count);
                let excess = (-self.control).max(0.0);
                self.control = self.control.max(0.0);
                excess / 64.0
            }
        }
    }

    fn score(&self) -> f64 {
        BASE_SCORE + self.preference - self.faults
    }
}

/// Counts in one message fit 32 bits by far.
fn as_f64(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// The standing of every peer that has one. Time is an argument.
#[derive(Debug)]
pub struct Standing {
    ban: Duration,
    peers: HashMap<PeerId, Entry>,
}

impl Standing {
    /// Nobody is known; bans last for `ban`.
    #[must_use]
    pub fn new(ban: Duration) -> Self {
        Self {
            ban,
            peers: HashMap::new(),
        }
    }

    /// Sets the application's preference, and returns the score. A preference that is not a
    /// number counts as 0.
    pub fn prefer(&mut self, peer: PeerId, preference: f64, now: Instant) -> f64 {
        let entry = self.entry(peer, now);
        entry.preference = if preference.is_nan() {
            0.0
        } else {
            preference.clamp(-MAX_PREFERENCE, MAX_PREFERENCE)
        };
        entry.score()
    }

    /// Takes in a fault.
    pub fn fault(&mut self, peer: PeerId, fault: Fault, now: Instant) -> Verdict {
        let ban = self.ban;
        let entry = self.entry(peer, now);
        let points = entry.points(fault);
        entry.faults += points;
        if entry.faults < BAN_FAULTS {
            return Verdict::Score(entry.score());
        }
        entry.faults = 0.0;
        entry.banned_until = Some(now + ban);
        Verdict::Ban
    }

    /// The score of a peer.
    pub fn score(&mut self, peer: &PeerId, now: Instant) -> f64 {
        match self.peers.get_mut(peer) {
            Some(entry) => {
                entry.advance(now);
                entry.score()
            }
            None => BASE_SCORE,
        }
    }

    /// Whether a peer is banned.
    #[must_use]
    pub fn is_banned(&self, peer: &PeerId, now: Instant) -> bool {
        self.peers
            .get(peer)
            .and_then(|entry| entry.banned_until)
            .is_some_and(|until| until > now)
    }

    /// The peers whose score is not what it was because faults faded.
    pub fn faded(&mut self, now: Instant) -> Vec<(PeerId, f64)> {
        let faulty = self.peers.iter_mut().filter(|(_, e)| e.faults > 0.0);
        let faded = faulty.map(|(peer, entry)| {
            entry.advance(now);
            if entry.faults < 0.5 {
                entry.faults = 0.0;
            }
            (*peer, entry.score())
        });
        faded.collect()
    }

    fn entry(&mut self, peer: PeerId, now: Instant) -> &mut Entry {
        if self.peers.len() >= MAX_PEERS && !self.peers.contains_key(&peer) {
            self.forget_one(now);
        }
        let entry = self.peers.entry(peer).or_insert_with(|| Entry::new(now));
        entry.advance(now);
        entry
    }

    /// Forgets whoever matters least: not banned, the fewest faults, the longest silence.
    fn forget_one(&mut self, now: Instant) {
        let least = self.peers.iter().min_by(|(_, one), (_, other)| {
            let banned = |entry: &Entry| entry.banned_until.is_some_and(|until| until > now);
            (banned(one).cmp(&banned(other)))
                .then(one.faults.total_cmp(&other.faults))
                .then(one.preference.abs().total_cmp(&other.preference.abs()))
                .then(one.at.cmp(&other.at))
        });
        if let Some(peer) = least.map(|(peer, _)| *peer) {
            self.peers.remove(&peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BAN: Duration = Duration::from_secs(60);

    #[test]
    fn preferences_order_peers_and_never_shut_one_out() {
        let (mut standing, now) = (Standing::new(BAN), Instant::now());
        let mut score = |preference| standing.prefer(PeerId::random(), preference, now);
        let wanted = [f64::NEG_INFINITY, -50.0, 0.0, 50.0, f64::INFINITY].map(&mut score);
        assert!(wanted.is_sorted());
        assert_eq!(wanted, [0.0, 50.0, 100.0, 150.0, 200.0]);
        assert_eq!(score(f64::NAN), BASE_SCORE);
        assert_eq!(standing.score(&PeerId::random(), now), BASE_SCORE);
    }

    #[test]
    fn faults_fade() {
        let (mut standing, now) = (Standing::new(BAN), Instant::now());
        let peer = PeerId::random();
        let verdict = standing.fault(peer, Fault::Invalid(4), now);
        assert_eq!(verdict, Verdict::Score(-100.0));
        let score = standing.score(&peer, now + HALF_LIFE);
        assert!((score - 0.0).abs() < 0.001, "{score}");
        let later = now + HALF_LIFE * 12;
        assert_eq!(standing.faded(later), [(peer, BASE_SCORE)]);
        assert_eq!(standing.faded(later), []);
    }

    #[test]
    fn many_faults_ban_once_and_a_ban_ends() {
        let (mut standing, now) = (Standing::new(BAN), Instant::now());
        let peer = PeerId::random();
        let verdicts: Vec<_> = (0..25)
            .map(|_| standing.fault(peer, Fault::Invalid(1), now))
            .collect();
        let bans = verdicts.iter().filter(|v| **v == Verdict::Ban).count();
        assert_eq!((bans, verdicts[19]), (1, Verdict::Ban));
        assert!(standing.is_banned(&peer, now + BAN / 2));
        assert!(!standing.is_banned(&peer, now + BAN));
    }

    #[test]
    fn two_thousand_topics_at_a_heartbeat_are_no_fault_and_a_flood_is() {
        let (mut standing, mut now) = (Standing::new(BAN), Instant::now());
        let (honest, flooder) = (PeerId::random(), PeerId::random());
        for _ in 0..100 {
            let verdict = standing.fault(honest, Fault::Control(6_000), now);
            assert_eq!(verdict, Verdict::Score(BASE_SCORE));
            now += Duration::from_secs(1);
        }
        let mut banned = false;
        for _ in 0..20 {
            banned |= standing.fault(flooder, Fault::Control(10_000), now) == Verdict::Ban;
            now += Duration::from_millis(50);
        }
        assert!(banned);
    }

    #[test]
    fn as_many_as_fit_are_remembered_the_worst_first() {
        let (mut standing, now) = (Standing::new(BAN), Instant::now());
        let worst = PeerId::random();
        standing.fault(worst, Fault::Invalid(20), now);
        for _ in 0..MAX_PEERS + 100 {
            standing.fault(PeerId::random(), Fault::Invalid(1), now);
        }
        assert_eq!(standing.peers.len(), MAX_PEERS);
        assert!(standing.is_banned(&worst, now));
    }

    proptest! {
        /// Without faults no preference leads below zero, whatever else happens.
        #[test]
        fn a_peer_without_faults_is_never_below_zero(
            preferences in prop::collection::vec(any::<f64>(), 1..20),
            control in 0..16_384usize,
        ) {
            let (mut standing, now) = (Standing::new(BAN), Instant::now());
            let peer = PeerId::random();
            for preference in preferences {
                prop_assert!(standing.prefer(peer, preference, now) >= 0.0);
            }
            let verdict = standing.fault(peer, Fault::Control(control), now);
            prop_assert!(matches!(verdict, Verdict::Score(score) if score >= 0.0));
        }
    }
}
