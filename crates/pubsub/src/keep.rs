//! Messages that wait to be sent: for the first subscriber of their topic, or for room.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    fmt,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::wire::TopicHash;

/// Identifier of a message that is kept. A behaviour never uses one twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeepId(u64);

impl KeepId {
    pub(crate) fn new(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for KeepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Limits on the messages that are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepLimits {
    /// Longest time for which one message is kept.
    pub time: Duration,
    /// Messages kept, in number.
    pub messages: usize,
    /// Messages kept, in bytes of payload.
    pub bytes: usize,
}

#[derive(Debug)]
struct Kept {
    topic: TopicHash,
    data: Bytes,
    until: Instant,
}

/// The messages that wait to be sent, in the order in which they were published.
#[derive(Debug)]
pub struct KeepBook {
    limits: KeepLimits,
    bytes: usize,
    kept: BTreeMap<KeepId, Kept>,
    by_topic: HashMap<TopicHash, VecDeque<KeepId>>,
    by_end: BTreeSet<(Instant, KeepId)>,
}

impl KeepBook {
    /// A book without messages.
    #[must_use]
    pub fn new(limits: KeepLimits) -> Self {
        Self {
            limits,
            bytes: 0,
            kept: BTreeMap::new(),
            by_topic: HashMap::new(),
            by_end: BTreeSet::new(),
        }
    }

    /// Keeps `data` as `id` for `time`, or the longest time allowed if that is shorter. Returns
    /// `false` if the book is full.
    pub(crate) fn keep(
        &mut self,
        id: KeepId,
        topic: TopicHash,
        data: Bytes,
        time: Duration,
        now: Instant,
    ) -> bool {
        if self.kept.len() >= self.limits.messages
            || data.len() > self.limits.bytes.saturating_sub(self.bytes)
        {
            return false;
        }
        self.bytes += data.len();
        let until = now + time.min(self.limits.time);
        self.by_end.insert((until, id));
        self.by_topic
            .entry(topic.clone())
            .or_default()
            .push_back(id);
        self.kept.insert(id, Kept { topic, data, until });
        true
    }

    /// Returns the message of `topic` that has waited longest.
    #[must_use]
    pub fn first(&self, topic: &TopicHash) -> Option<(KeepId, &Bytes)> {
        let id = *self.by_topic.get(topic)?.front()?;
        Some((id, &self.kept.get(&id)?.data))
    }

    /// Returns the topics for which messages are kept.
    #[must_use]
    pub fn topics(&self) -> Vec<TopicHash> {
        self.by_topic.keys().cloned().collect()
    }

    /// The topics for which messages are kept, in no order.
    pub(crate) fn each_topic(&self) -> impl Iterator<Item = &TopicHash> {
        self.by_topic.keys()
    }

    /// Removes a message, and returns it with its topic.
    pub(crate) fn remove(&mut self, id: KeepId) -> Option<(TopicHash, Bytes)> {
        let Kept { topic, data, until } = self.kept.remove(&id)?;
        self.by_end.remove(&(until, id));
        self.bytes -= data.len();
        if let Some(ids) = self.by_topic.get_mut(&topic) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_topic.remove(&topic);
            }
        }
        Some((topic, data))
    }

    /// Removes a message that has expired, if there is one.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<(KeepId, TopicHash)> {
        let &(until, id) = self.by_end.first()?;
        if until > now {
            return None;
        }
        let (topic, _) = self.remove(id)?;
        Some((id, topic))
    }

    /// Returns when the next message expires.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        self.by_end.first().map(|(until, _)| *until)
    }

    /// Returns how many messages are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Returns `true` if no message is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Returns how many bytes of payload are kept.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the limits of this book.
    #[must_use]
    pub fn limits(&self) -> KeepLimits {
        self.limits
    }
}

#[cfg(test)]
mod bounds;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: KeepLimits = KeepLimits {
        time: Duration::from_secs(10),
        messages: 4,
        bytes: 100,
    };

    fn topic(name: &str) -> TopicHash {
        TopicHash::from_raw(name)
    }

    /// Keeps a message under the next id.
    fn keep(
        book: &mut KeepBook,
        topic: TopicHash,
        bytes: usize,
        time: Duration,
        now: Instant,
    ) -> Option<KeepId> {
        let id = book
            .kept
            .last_key_value()
            .map_or(KeepId(0), |(last, _)| KeepId(last.0 + 1));
        book.keep(id, topic, vec![0; bytes].into(), time, now)
            .then_some(id)
    }

    #[test]
    fn what_is_kept_comes_out_in_order_and_once() {
        let (mut book, now) = (KeepBook::new(LIMITS), Instant::now());
        let time = Duration::from_secs(5);
        let ids = [1, 2, 3].map(|bytes| keep(&mut book, topic("a"), bytes, time, now).unwrap());
        for (id, bytes) in ids.iter().zip([1, 2, 3]) {
            let (first, data) = book.first(&topic("a")).unwrap();
            assert_eq!((first, data.len()), (*id, bytes));
            assert!(book.remove(*id).is_some());
            assert!(book.remove(*id).is_none());
        }
        assert_eq!(book.first(&topic("a")), None);
        assert_eq!((book.len(), book.bytes()), (0, 0));
    }

    #[test]
    fn a_full_book_refuses_and_takes_again_when_emptied() {
        let (mut book, now) = (KeepBook::new(LIMITS), Instant::now());
        let time = Duration::from_secs(5);
        let id = keep(&mut book, topic("a"), 100, time, now).unwrap();
        assert!(keep(&mut book, topic("b"), 1, time, now).is_none());
        book.remove(id);
        for _ in 0..4 {
            assert!(keep(&mut book, topic("b"), 0, time, now).is_some());
        }
        assert!(keep(&mut book, topic("b"), 0, time, now).is_none());
    }

    #[test]
    fn no_message_is_kept_longer_than_allowed() {
        let (mut book, now) = (KeepBook::new(LIMITS), Instant::now());
        let id = keep(&mut book, topic("a"), 0, Duration::MAX, now);
        assert_eq!(book.next_timeout(), Some(now + LIMITS.time));
        assert_eq!(book.expire(now + LIMITS.time / 2), None);
        let expired = book.expire(now + LIMITS.time);
        assert_eq!(expired, id.map(|id| (id, topic("a"))));
        assert_eq!(book.next_timeout(), None);
        assert_eq!(book.first(&topic("a")), None);
    }

    proptest! {
        #[test]
        fn bounds_hold_and_no_message_is_lost(
            steps in prop::collection::vec((0..4u8, 0..3u8, 0..60usize, 0..15u64), 0..80)
        ) {
            let (mut book, mut now) = (KeepBook::new(LIMITS), Instant::now());
            let (mut kept, mut out) = (0, 0);
            for (what, name, len, seconds) in steps {
                let topic = topic(&name.to_string());
                match what {
                    0 | 1 => {
                        let time = Duration::from_secs(seconds);
                        kept += usize::from(keep(&mut book, topic, len, time, now).is_some());
                    }
                    2 => {
                        if let Some((id, _)) = book.first(&topic) {
                            book.remove(id);
                            out += 1;
                        }
                    }
                    _ => {
                        now += Duration::from_secs(seconds);
                        while book.expire(now).is_some() {
                            out += 1;
                        }
                        prop_assert!(book.next_timeout().is_none_or(|next| next > now));
                    }
                }
                prop_assert!(book.len() <= LIMITS.messages && book.bytes() <= LIMITS.bytes);
                prop_assert_eq!(book.len(), kept - out);
                prop_assert_eq!(book.bytes(), book.kept.values().map(|kept| kept.data.len()).sum::<usize>());
                prop_assert_eq!(book.by_topic.values().map(VecDeque::len).sum::<usize>(), book.len());
            }
        }
    }
}
