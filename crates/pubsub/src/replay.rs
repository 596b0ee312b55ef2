//! Messages that were seen: copies on their way through the mesh, and those that come back after
//! gossipsub has forgotten them.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    time::{Duration, Instant},
};

use calimero_network_primitives::PeerId;

/// Remembers authors and sequence numbers for longer than gossipsub does.
///
/// A signed message stays valid for ever, so whoever recorded it can send it again once the
/// duplicate cache has dropped its id. This memory is bounded by number instead of time: at least
/// the last `capacity` messages, at most twice as many, 16 bytes and a time each.
///
/// Two independent keyed hashes stand for a message: two messages meet with probability 2^-128,
/// and nobody who does not know the keys can make them meet.
#[derive(Debug)]
pub struct Replays<S = RandomState> {
    keys: [S; 2],
    settled: Duration,
    capacity: usize,
    young: HashMap<[u64; 2], Instant>,
    old: HashMap<[u64; 2], Instant>,
}

impl<S: BuildHasher> Replays<S> {
    /// Remembers at least `capacity` messages.
    ///
    /// `settled` is the age from which a repetition is a replay; a younger one is a duplicate on
    /// its way through the mesh, which gossipsub counts and drops. It must be less than the time
    /// for which gossipsub remembers. `keys` are two random hash keys.
    #[must_use]
    pub fn new(capacity: usize, settled: Duration, keys: [S; 2]) -> Self {
        Self {
            keys,
            settled,
            capacity,
            young: HashMap::new(),
            old: HashMap::new(),
        }
    }

    /// Whether a message of `author` was noted, and if so, whether its repetition is a replay.
    pub fn repetition(&self, author: &PeerId, sequence_number: u64, now: Instant) -> Option<bool> {
        let id = self.id(author, sequence_number);
        let since = self.young.get(&id).or_else(|| self.old.get(&id))?;
        Some(now.saturating_duration_since(*since) >= self.settled)
    }

    /// Takes note of a message of `author`. `false` if it was noted before.
    ///
    /// Only of one that was verified: whoever forges could hide a message otherwise.
    pub fn note(&mut self, author: &PeerId, sequence_number: u64, now: Instant) -> bool {
        let id = self.id(author, sequence_number);
        if self.young.contains_key(&id) || self.old.contains_key(&id) {
            return false;
        }
        if self.young.len() >= self.capacity {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(id, now);
        true
    }

    fn id(&self, author: &PeerId, sequence_number: u64) -> [u64; 2] {
        let message = (author, sequence_number);
        [
            self.keys[0].hash_one(message),
            self.keys[1].hash_one(message),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLED: Duration = Duration::from_secs(30);

    fn replays(capacity: usize) -> Replays<RandomState> {
        Replays::new(capacity, SETTLED, [RandomState::new(), RandomState::new()])
    }

    #[test]
    fn a_repetition_is_a_duplicate_at_first_and_a_replay_later() {
        let mut replays = replays(10);
        let (author, start) = (PeerId::random(), Instant::now());
        assert_eq!(replays.repetition(&author, 1, start), None);
        assert!(replays.note(&author, 1, start));
        assert!(!replays.note(&author, 1, start));
        for (age, is_replay) in [
            (SETTLED / 2, false),
            (SETTLED, true),
            (SETTLED * 10_000, true),
        ] {
            let repetition = replays.repetition(&author, 1, start + age);
            assert_eq!(repetition, Some(is_replay));
        }
    }

    #[test]
    fn others_are_not_taken_for_it() {
        let mut replays = replays(10);
        let (author, start) = (PeerId::random(), Instant::now());
        replays.note(&author, 1, start);
        assert_eq!(replays.repetition(&author, 2, start + SETTLED), None);
        let other = PeerId::random();
        assert_eq!(replays.repetition(&other, 1, start + SETTLED), None);
    }

    #[test]
    fn the_last_messages_are_remembered_and_memory_is_bounded() {
        let mut replays = replays(100);
        let (author, start) = (PeerId::random(), Instant::now());
        for number in 0..10_000 {
            assert!(replays.note(&author, number, start));
            assert!(replays.young.len() + replays.old.len() <= 200);
        }
        for number in 9_900..10_000 {
            let repetition = replays.repetition(&author, number, start + SETTLED);
            assert_eq!(repetition, Some(true));
        }
    }
}
