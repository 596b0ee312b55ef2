//! What the actor answered a moment ago, for whoever asks the same again.
//!
//! A read that goes through the actor wakes its thread and waits for its turn: tens of
//! microseconds on an idle host, milliseconds on a busy one. An answer may be given again while
//! nobody can tell the difference: until the actor tells of a change (an event, or the answer to
//! a command that changes something), and for [`MAX_AGE`] at most, because meshes change without
//! a word.

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

/// How long an answer is given again: 10 ms. Meshes change once a heartbeat (1 s) and peers ping
/// every 15 s, so that it is no older than what it is about; one read in a thousand then reaches
/// the actor where 100,000 come a second.
pub(crate) const MAX_AGE: Duration = Duration::from_millis(10);

/// Answers kept of one kind, one for each thing asked about: 256, as many topics as anybody reads
/// in turn; some hundreds of KiB.
const MAX_KEPT: usize = 256;

/// Counts the changes that were told. One writer, the actor; any number of readers.
#[derive(Debug, Default)]
pub(crate) struct Changes(AtomicU64);

impl Changes {
    /// A change is about to be told. Comes before whatever tells it.
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

/// When something was asked, and with how many changes told: the answer shows all of these.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    changes: u64,
    at: Instant,
}

impl Asked {
    /// The answer is here. Its age counts from now on: where the host is so busy that answers take
    /// longer than they may be kept, none would ever be kept else.
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

/// Answers of one kind.
#[derive(Debug)]
pub(crate) struct Memo<K, V>(RwLock<HashMap<K, (Asked, V)>>);

impl<K, V> Default for Memo<K, V> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<K: Eq + Hash, V: Clone> Memo<K, V> {
    /// The answer about `key`, if it still holds at `now`.
    pub(crate) fn get<Q>(&self, key: &Q, now: Asked) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let kept = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let (asked, answer) = kept.get(key)?;
        asked.holds(now).then(|| answer.clone())
    }

    /// Keeps what was answered, in place of older answers.
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
        let (memo, asked) = (Memo::default(), Changes::default().now());
        memo.keep("key", asked, 7);
        assert_eq!(memo.get("key", asked), Some(7));
        assert_eq!(memo.get("other", asked), None);
        let just = later(asked, MAX_AGE - Duration::from_nanos(1));
        assert_eq!(memo.get("key", just), Some(7));
        assert_eq!(memo.get("key", later(asked, MAX_AGE)), None);
    }

    #[test]
    fn an_answer_asked_for_before_a_change_does_not_hold_after_it() {
        let (memo, changes) = (Memo::default(), Changes::default());
        let before = changes.now();
        changes.count();
        // The answer came after the change, but may be older.
        memo.keep((), before, 1);
        assert_eq!(memo.get(&(), changes.now()), None);
        memo.keep((), before.answered(), 1);
        assert_eq!(memo.get(&(), changes.now()), None);
        let after = changes.now();
        memo.keep((), after, 2);
        assert_eq!(memo.get(&(), later(after, MAX_AGE / 2)), Some(2));
    }

    proptest! {
        #[test]
        fn no_more_is_kept_than_allowed(keys in prop::collection::vec(0..1000u32, 0..2000)) {
            let (memo, asked) = (Memo::default(), Changes::default().now());
            for (nth, key) in keys.into_iter().enumerate() {
                // Old ones give way, new ones are not kept where there is no room.
                let asked = later(asked, Duration::from_micros(20) * u32::try_from(nth).unwrap());
                memo.keep(key, asked, nth);
                prop_assert!(memo.0.read().unwrap().len() <= MAX_KEPT);
                prop_assert!(memo.get(&key, asked).is_none_or(|answer| answer == nth));
            }
        }
    }
}
