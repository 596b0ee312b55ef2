//! The schedule of announcements: when the provider record of which blob is published.
//!
//! [`Announcements`] is a state machine without IO. The caller passes the time, publishes what
//! [`next`](Announcements::next) returns, reports the end with
//! [`on_published`](Announcements::on_published), and calls again at
//! [`next_timeout`](Announcements::next_timeout). An announcement that no peer stored is tried again,
//! with a pause that doubles up to [`RETRY_MAX`]. The renewal of stored records is not part of it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::{Duration, Instant},
};

use crate::{BlobId, record::RecordKey};

/// Pause before the first retry of an announcement that no peer stored: 1 s. A node that has just
/// started usually has peers soon after.
pub const RETRY_FIRST: Duration = Duration::from_secs(1);

/// Longest pause between two tries: 300 s. A node without peers for minutes finds them by discovery,
/// and a record is of use for hours.
pub const RETRY_MAX: Duration = Duration::from_secs(300);

/// As many blobs are announced as the configuration permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{limit} blobs are announced already")]
pub struct TooManyAnnounced {
    /// Blobs that may be announced at the same time.
    pub limit: usize,
}

/// The schedule. `W` identifies a caller that waits for the end of a try; it is opaque here.
#[derive(Debug)]
pub struct Announcements<W> {
    max_announced: usize,
    max_in_flight: usize,
    announced: HashMap<RecordKey, Announced<W>>,
    /// Announcements that wait for their turn, by time. The number orders those of one instant.
    due: BTreeMap<(Instant, u64), RecordKey>,
    turns: u64,
    /// Records being published, those of withdrawn announcements among them.
    in_flight: HashSet<RecordKey>,
}

/// One blob that this node announces.
#[derive(Debug)]
struct Announced<W> {
    size_bytes: u64,
    /// The key in `due`, if the announcement waits for its turn.
    turn: Option<(Instant, u64)>,
    /// Pause before the retry, should the next try fail.
    pause: Duration,
    /// Waiters for the end of the try that is in flight.
    current: Vec<W>,
    /// Waiters for the end of the next try.
    next: Vec<W>,
}

impl<W> Announcements<W> {
    /// A schedule of at most `max_announced` blobs, of which at most `max_in_flight` are published
    /// at one time.
    #[must_use]
    pub fn new(max_announced: usize, max_in_flight: usize) -> Self {
        Self {
            max_announced,
            max_in_flight,
            announced: HashMap::new(),
            due: BTreeMap::new(),
            turns: 0,
            in_flight: HashSet::new(),
        }
    }

    /// Announces a blob of this size now, or again if it is announced already. `waiter` is returned
    /// at the end of the first try that begins after this call.
    ///
    /// # Errors
    ///
    /// [`TooManyAnnounced`] and the waiter, if the blob is new and the limit is reached.
    pub fn announce(
        &mut self,
        key: RecordKey,
        size_bytes: u64,
        waiter: W,
        now: Instant,
    ) -> Result<(), (TooManyAnnounced, W)> {
        let limit = self.max_announced;
        if !self.announced.contains_key(&key) && self.announced.len() >= limit {
            return Err((TooManyAnnounced { limit }, waiter));
        }
        let announced = self.announced.entry(key).or_insert_with(|| Announced {
            size_bytes,
            turn: None,
            pause: RETRY_FIRST,
            current: Vec::new(),
            next: Vec::new(),
        });
        announced.size_bytes = size_bytes;
        announced.next.push(waiter);
        // A record is published once at a time, so that the end of a try belongs to its waiters.
        if !self.in_flight.contains(&key) {
            self.schedule(&key, Some(now));
        }
        Ok(())
    }

    /// Ends an announcement and returns its waiters; `None` if the blob is not announced.
    pub fn withdraw(&mut self, key: &RecordKey) -> Option<Vec<W>> {
        self.schedule(key, None);
        let announced = self.announced.remove(key)?;
        Some(announced.into_waiters())
    }

    /// Returns the announcements of a blob, one for each of its contexts.
    #[must_use]
    pub fn keys_of(&self, blob_id: &BlobId) -> Vec<RecordKey> {
        let keys = self.announced.keys();
        keys.filter(|key| key.blob_id == *blob_id)
            .copied()
            .collect()
    }

    /// The record to publish now, and the size of its blob. The caller calls again until it returns
    /// `None`, and reports the end of each with [`on_published`](Self::on_published).
    pub fn next(&mut self, now: Instant) -> Option<(RecordKey, u64)> {
        let (&(at, _), &key) = self.due.first_key_value()?;
        if at > now || self.in_flight.len() >= self.max_in_flight {
            return None;
        }
        self.schedule(&key, None);
        let announced = self.announced.get_mut(&key)?;
        announced.current = std::mem::take(&mut announced.next);
        self.in_flight.insert(key);
        Some((key, announced.size_bytes))
    }

    /// When [`next`](Self::next) returns a record without a further input.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        // The end of a publication in flight is the input that frees a permit.
        let (&(at, _), _) = self.due.first_key_value()?;
        (self.in_flight.len() < self.max_in_flight).then_some(at)
    }

    /// Publishes a record again at `at`, unless a try is scheduled or in flight.
    pub fn renew_at(&mut self, key: &RecordKey, at: Instant) {
        let is_idle = (self.announced.get(key)).is_some_and(|blob| blob.turn.is_none());
        if is_idle && !self.in_flight.contains(key) {
            self.schedule(key, Some(at));
        }
    }

    /// The publication of a record ended. Returns the waiters of this try.
    ///
    /// An announcement that no peer `stored` is scheduled again after its pause.
    pub fn on_published(&mut self, key: &RecordKey, stored: bool, now: Instant) -> Vec<W> {
        self.in_flight.remove(key);
        let Some(announced) = self.announced.get_mut(key) else {
            return Vec::new();
        };
        let waiters = std::mem::take(&mut announced.current);
        let pause = announced.pause;
        announced.pause = match stored {
            true => RETRY_FIRST,
            false => pause.saturating_mul(2).min(RETRY_MAX),
        };
        if !announced.next.is_empty() {
            self.schedule(key, Some(now));
        } else if !stored {
            self.schedule(key, Some(now + pause));
        }
        waiters
    }

    /// Whether a blob is announced.
    #[must_use]
    pub fn contains(&self, key: &RecordKey) -> bool {
        self.announced.contains_key(key)
    }

    /// Ends all announcements and returns all waiters.
    pub fn drain(&mut self) -> Vec<W> {
        self.due.clear();
        let announced = self.announced.drain();
        announced
            .flat_map(|(_, announced)| announced.into_waiters())
            .collect()
    }

    /// Gives an announcement a turn, or none, in place of the one it has.
    fn schedule(&mut self, key: &RecordKey, at: Option<Instant>) {
        let Some(announced) = self.announced.get_mut(key) else {
            return;
        };
        self.turns += 1;
        let turn = at.map(|at| (at, self.turns));
        if let Some(before) = std::mem::replace(&mut announced.turn, turn) {
            self.due.remove(&before);
        }
        if let Some(turn) = turn {
            self.due.insert(turn, *key);
        }
    }
}

impl<W> Announced<W> {
    fn into_waiters(self) -> Vec<W> {
        let mut waiters = self.current;
        waiters.extend(self.next);
        waiters
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test may start at any time")]
mod tests {
    use calimero_network_primitives::{BlobId, ContextId};
    use proptest::prelude::*;

    use super::*;

    fn key(nth: u8) -> RecordKey {
        RecordKey {
            context_id: ContextId::from([1; 32]),
            blob_id: BlobId::from([nth; 32]),
        }
    }

    #[test]
    fn an_announcement_that_nobody_stores_is_tried_again_ever_more_rarely() {
        let mut now = Instant::now();
        let mut schedule = Announcements::new(1, 1);
        schedule.announce(key(1), 7, "waiter", now).unwrap();
        let mut pauses = Vec::new();
        for nth in 0..12 {
            assert_eq!(schedule.next_timeout(), Some(now));
            assert_eq!(schedule.next(now), Some((key(1), 7)));
            let waiters = schedule.on_published(&key(1), false, now);
            assert_eq!(waiters.len(), usize::from(nth == 0));
            let at = schedule.next_timeout().unwrap();
            assert_eq!(schedule.next(at - Duration::from_nanos(1)), None);
            pauses.push(at - now);
            now = at;
        }
        assert_eq!(pauses[..3], [1, 2, 4].map(Duration::from_secs));
        assert_eq!(pauses.last(), Some(&RETRY_MAX));
        // Once stored, the next failure begins with the short pause.
        schedule.next(now);
        schedule.on_published(&key(1), true, now);
        assert_eq!(schedule.next_timeout(), None);
        schedule.announce(key(1), 7, "again", now).unwrap();
        schedule.next(now);
        schedule.on_published(&key(1), false, now);
        assert_eq!(schedule.next_timeout(), Some(now + RETRY_FIRST));
    }

    #[test]
    fn a_blob_that_is_announced_again_in_flight_is_published_again() {
        let now = Instant::now();
        let mut schedule = Announcements::new(1, 2);
        schedule.announce(key(1), 7, "first", now).unwrap();
        assert_eq!(schedule.next(now), Some((key(1), 7)));
        schedule.announce(key(1), 8, "second", now).unwrap();
        assert_eq!(schedule.next(now), None);
        assert_eq!(schedule.on_published(&key(1), false, now), ["first"]);
        assert_eq!(schedule.next(now), Some((key(1), 8)));
        assert_eq!(schedule.on_published(&key(1), true, now), ["second"]);
        assert_eq!(schedule.next_timeout(), None);
    }

    #[test]
    fn a_withdrawn_announcement_frees_its_permit_when_its_publication_ends() {
        let now = Instant::now();
        let mut schedule = Announcements::new(2, 1);
        schedule.announce(key(1), 7, "one", now).unwrap();
        schedule.announce(key(2), 7, "two", now).unwrap();
        let refused = schedule.announce(key(3), 7, "three", now);
        assert_eq!(refused, Err((TooManyAnnounced { limit: 2 }, "three")));
        assert_eq!(schedule.next(now), Some((key(1), 7)));
        assert_eq!(schedule.withdraw(&key(1)), Some(vec!["one"]));
        assert_eq!(schedule.withdraw(&key(1)), None);
        assert_eq!((schedule.next(now), schedule.next_timeout()), (None, None));
        assert!(schedule.on_published(&key(1), true, now).is_empty());
        assert_eq!(schedule.next(now), Some((key(2), 7)));
        assert_eq!(schedule.drain(), ["two"]);
    }

    #[derive(Clone, Debug)]
    enum Input {
        Announce(u8),
        Withdraw(u8),
        Next,
        Published { nth: usize, stored: bool },
        Later(u64),
    }

    fn input() -> impl Strategy<Value = Input> {
        prop_oneof![
            (0..8u8).prop_map(Input::Announce),
            (0..8u8).prop_map(Input::Withdraw),
            Just(Input::Next),
            (0..8usize, any::<bool>()).prop_map(|(nth, stored)| Input::Published { nth, stored }),
            (0..400u64).prop_map(Input::Later),
        ]
    }

    proptest! {
        #[test]
        fn every_waiter_is_returned_once_and_the_bounds_hold(
            inputs in prop::collection::vec(input(), 0..200),
        ) {
            let mut now = Instant::now();
            let mut schedule = Announcements::new(4, 2);
            let (mut waiting, mut flying) = (std::collections::HashSet::new(), Vec::new());
            for (waiter, input) in inputs.into_iter().enumerate() {
                let ended = match input {
                    Input::Announce(nth) => match schedule.announce(key(nth), 1, waiter, now) {
                        Ok(()) => {
                            waiting.insert(waiter);
                            Vec::new()
                        }
                        Err(_) => Vec::new(),
                    },
                    Input::Withdraw(nth) => schedule.withdraw(&key(nth)).unwrap_or_default(),
                    Input::Next => {
                        let due = schedule.next_timeout().is_some_and(|at| at <= now);
                        let next = schedule.next(now);
                        prop_assert_eq!(next.is_some(), due);
                        flying.extend(next.map(|(key, _)| key));
                        Vec::new()
                    }
                    Input::Published { nth, stored } if nth < flying.len() => {
                        schedule.on_published(&flying.swap_remove(nth), stored, now)
                    }
                    Input::Published { .. } => Vec::new(),
                    Input::Later(seconds) => {
                        now += Duration::from_secs(seconds);
                        Vec::new()
                    }
                };
                for waiter in ended {
                    prop_assert!(waiting.remove(&waiter));
                }
                prop_assert!(flying.len() <= 2 && schedule.announced.len() <= 4);
            }
            for waiter in schedule.drain() {
                prop_assert!(waiting.remove(&waiter));
            }
            prop_assert!(waiting.is_empty());
        }
    }
}
