//! Times at which keys are due, and the jitter of waits.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    time::{Duration, Instant},
};

use rand::{RngExt, rngs::StdRng};

/// The time at which a key is due. The number makes times at one instant distinct and is cheaper to
/// compare than the key.
type Place = (Instant, u64);

/// One time per key, the earliest first. At one instant, the key that was set first comes first.
#[derive(Clone, Debug)]
pub(crate) struct Schedule<K> {
    places: HashMap<K, Place>,
    order: BTreeMap<Place, K>,
    last: u64,
}

impl<K> Default for Schedule<K> {
    fn default() -> Self {
        Self {
            places: HashMap::new(),
            order: BTreeMap::new(),
            last: 0,
        }
    }
}

impl<K: Clone + Eq + Hash> Schedule<K> {
    /// Sets the time of `key` to `at` and replaces an earlier setting.
    pub(crate) fn set(&mut self, key: K, at: Instant) {
        self.last += 1;
        let place = (at, self.last);
        if let Some(before) = self.places.insert(key.clone(), place) {
            self.order.remove(&before);
        }
        self.order.insert(place, key);
    }

    pub(crate) fn cancel(&mut self, key: &K) -> Option<Instant> {
        if self.places.is_empty() {
            return None;
        }
        let place = self.places.remove(key)?;
        self.order.remove(&place);
        Some(place.0)
    }

    /// Returns the earliest time of all keys.
    pub(crate) fn next(&self) -> Option<Instant> {
        let ((at, _), _) = self.order.first_key_value()?;
        Some(*at)
    }

    /// Returns the time of `key`.
    pub(crate) fn at(&self, key: &K) -> Option<Instant> {
        self.places.get(key).map(|(at, _)| *at)
    }

    /// Removes and returns the key with the earliest time if it is due.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<K> {
        if self.next()? > now {
            return None;
        }
        self.pop_first()
    }

    /// Removes and returns the key with the earliest time.
    pub(crate) fn pop_first(&mut self) -> Option<K> {
        let (_, key) = self.order.pop_first()?;
        self.places.remove(&key);
        Some(key)
    }

    /// Returns all keys in no particular order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &K> {
        self.places.keys()
    }

    pub(crate) fn contains(&self, key: &K) -> bool {
        self.places.contains_key(key)
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }
}

/// Returns `wait`, up to a quarter longer or shorter, so that nodes that wait at the same time do
/// not act at the same time.
pub(crate) fn jittered(rng: &mut StdRng, wait: Duration) -> Duration {
    wait.mul_f64(rng.random_range(0.75..1.25))
}

/// Returns the wait after `attempts` failed attempts: `min`, doubled for each attempt after the
/// first, at most `max`, and jittered.
pub(crate) fn backoff(rng: &mut StdRng, min: Duration, max: Duration, attempts: u32) -> Duration {
    let factor = 1_u32
        .checked_shl(attempts.saturating_sub(1))
        .unwrap_or(u32::MAX);
    jittered(rng, min.saturating_mul(factor).min(max))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test has to start somewhere")]
    fn one_time_per_key_and_the_earliest_first() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut schedule = Schedule::default();
        schedule.set('a', at(1));
        schedule.set('b', at(2));
        schedule.set('a', at(3));
        assert_eq!((schedule.len(), schedule.next()), (2, Some(at(2))));
        assert_eq!(schedule.pop_due(at(1)), None);
        assert_eq!(schedule.pop_due(at(3)), Some('b'));
        assert_eq!(schedule.pop_due(at(3)), Some('a'));
        assert_eq!(schedule.pop_due(at(3)), None);
    }

    #[test]
    fn backoff_doubles_up_to_its_bound() {
        let rng = &mut StdRng::seed_from_u64(1);
        let (min, max) = (Duration::from_secs(2), Duration::from_secs(60));
        for (attempts, seconds) in [(0, 2), (1, 2), (2, 4), (3, 8), (6, 60), (u32::MAX, 60)] {
            let wait = backoff(rng, min, max, attempts);
            let middle = Duration::from_secs(seconds);
            assert!(wait >= middle.mul_f64(0.75) && wait <= middle.mul_f64(1.25));
        }
    }
}
