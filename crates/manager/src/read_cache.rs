//! The read cache: answers of the actor that clients reuse.
//!
//! A read through the actor wakes its thread and waits for its turn: tens of microseconds on an idle
//! host, milliseconds on a busy one. An answer is reused until the actor emits a change (an event, or
//! the answer to a command that changes state), and for at most [`MAX_AGE`], because meshes change
//! without an event.

use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::Hash,
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Time for which an answer is reused: 10 ms. Meshes change once a heartbeat (1 s) and round-trip
/// times every 15 s, so an answer is hardly older than its subject. Of 100,000 reads a second, one in
/// a thousand reaches the actor.
pub(crate) const MAX_AGE: Duration = Duration::from_millis(10);

/// Cached answers of one kind: 256, more than the topics that one program reads in turn; some hundreds
/// of KiB.
const MAX_KEPT: usize = 256;

/// Counts the changes that the actor emitted. The actor is the only writer.
#[derive(Debug, Default)]
pub(crate) struct Changes(AtomicU64);

impl Changes {
    /// Counts a change. Called before the event or the answer that shows it.
    pub(crate) fn count(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn now(&self) -> Asked {
        Asked {
            changes: self.0.load(Ordering::Acquire),
            at: Instant::now(),
        }
    }
}

/// The time of a read and the number of changes before it, all of which the answer shows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    changes: u64,
    at: Instant,
}

impl Asked {
    /// The answer has arrived, and its age counts from now. If it counted from the read, a busy host on
    /// which answers take longer than [`MAX_AGE`] would cache none.
    pub(crate) fn answered(self) -> Self {
        Self {
            at: Instant::now(),
            ..self
        }
    }

    fn holds(self, now: Self) -> bool {
        self.changes == now.changes && now.at.saturating_duration_since(self.at) < MAX_AGE
    }
}

/// Cached answers of one kind, by their subject.
#[derive(Debug)]
pub(crate) struct ReadCache<K, V>(RwLock<HashMap<K, (Asked, V)>>);

impl<K, V> Default for ReadCache<K, V> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<K: Eq + Hash, V: Clone> ReadCache<K, V> {
    /// The cached answer about `key`, if it is still valid at `now`.
    pub(crate) fn get<Q>(&self, key: &Q, now: Asked) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let kept = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let (asked, answer) = kept.get(key)?;
        asked.holds(now).then(|| answer.clone())
    }

    /// Caches an answer in place of an older one.
    pub(crate) fn keep(&self, key: K, asked: Asked, answer: V) {
        let mut kept = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MAX_KEPT && !kept.contains_key(&key) {
            kept.retain(|_, (old, _)| old.holds(asked));
            if kept.len() >= MAX_KEPT {
                return;
            }
        }
        kept.insert(key, (asked, answer));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn later(asked: Asked, by: Duration) -> Asked {
        Asked {
            at: asked.at + by,
            ..asked
        }
    }

    #[test]
    fn an_answer_holds_for_a_while() {
        let (cache, asked) = (ReadCache::default(), Changes::default().now());
        cache.keep("key", asked, 7);
        assert_eq!(cache.get("key", asked), Some(7));
        assert_eq!(cache.get("other", asked), None);
        let just = later(asked, MAX_AGE - Duration::from_nanos(1));
        assert_eq!(cache.get("key", just), Some(7));
        assert_eq!(cache.get("key", later(asked, MAX_AGE)), None);
    }

    #[test]
    fn an_answer_asked_for_before_a_change_does_not_hold_after_it() {
        let (cache, changes) = (ReadCache::default(), Changes::default());
        let before = changes.now();
        changes.count();
        // The answer came after the change, but may be older.
        cache.keep((), before, 1);
        assert_eq!(cache.get(&(), changes.now()), None);
        cache.keep((), before.answered(), 1);
        assert_eq!(cache.get(&(), changes.now()), None);
        let after = changes.now();
        cache.keep((), after, 2);
        assert_eq!(cache.get(&(), later(after, MAX_AGE / 2)), Some(2));
    }

    proptest! {
        #[test]
        fn no_more_is_kept_than_allowed(keys in prop::collection::vec(0..1000u32, 0..2000)) {
            let (cache, asked) = (ReadCache::default(), Changes::default().now());
            for (nth, key) in keys.into_iter().enumerate() {
                // Old ones give way, new ones are not kept where there is no room.
                let asked = later(asked, Duration::from_micros(20) * u32::try_from(nth).unwrap());
                cache.keep(key, asked, nth);
                prop_assert!(cache.0.read().unwrap().len() <= MAX_KEPT);
                prop_assert!(cache.get(&key, asked).is_none_or(|answer| answer == nth));
            }
        }
    }
}
