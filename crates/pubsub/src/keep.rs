//! Messages that wait for the first subscriber of their topic.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    fmt,
    time::{Duration, Instant},
};

use bytes::Bytes;
use libp2p_gossipsub::TopicHash;

/// Names a message that is kept. Never used twice by one behaviour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeepId(u64);

impl fmt::Display for KeepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How much is kept, and for how long at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepLimits {
    /// Longest time of one message.
    pub time: Duration,
    /// Messages in all.
    pub messages: usize,
    /// Bytes of payload in all.
    pub bytes: usize,
}

#[derive(Debug)]
struct Kept {
    topic: TopicHash,
    data: Bytes,
    until: Instant,
}

/// The messages that wait for the first subscriber of their topic, in the order they came.
#[derive(Debug)]
pub struct KeepBook {
    limits: KeepLimits,
    next: u64,
    bytes: usize,
    kept: BTreeMap<KeepId, Kept>,
    by_topic: HashMap<TopicHash, VecDeque<KeepId>>,
    by_end: BTreeSet<(Instant, KeepId)>,
}

impl KeepBook {
    /// An empty book.
    #[must_use]
    pub fn new(limits: KeepLimits) -> Self {
        Self {
            limits,
            next: 0,
            bytes: 0,
            kept: BTreeMap::new(),
            by_topic: HashMap::new(),
            by_end: BTreeSet::new(),
        }
    }

    /// Keeps `data` for `time`, or the longest time allowed if that is shorter. `None` where the
    /// book is full.
    pub fn keep(
        &mut self,
        topic: TopicHash,
        data: Bytes,
        time: Duration,
        now: Instant,
    ) -> Option<KeepId> {
        if self.kept.len() >= self.limits.messages
            || data.len() > self.limits.bytes.saturating_sub(self.bytes)
        {
            return None;
        }
        let id = KeepId(self.next);
        self.next += 1;
        self.bytes += data.len();
        let until = now + time.min(self.limits.time);
        self.by_end.insert((until, id));
        self.by_topic
            .entry(topic.clone())
            .or_default()
            .push_back(id);
        self.kept.insert(id, Kept { topic, data, until });
        Some(id)
    }

    /// The message of `topic` that has waited longest.
    #[must_use]
    pub fn first(&self, topic: &TopicHash) -> Option<(KeepId, &Bytes)> {
        let id = *self.by_topic.get(topic)?.front()?;
        Some((id, &self.kept.get(&id)?.data))
    }

    /// The topics for which messages are kept.
    #[must_use]
    pub fn topics(&self) -> Vec<TopicHash> {
        self.by_topic.keys().cloned().collect()
    }

    /// Takes the message out, with its topic.
    pub fn remove(&mut self, id: KeepId) -> Option<(TopicHash, Bytes)> {
        let Kept { topic, data, until } = self.kept.remove(&id)?;
        self.by_end.remove(&(until, id));
        self.bytes -= data.len();
        if let Some(line) = self.by_topic.get_mut(&topic) {
            line.retain(|other| *other != id);
            if line.is_empty() {
                self.by_topic.remove(&topic);
            }
        }
        Some((topic, data))
    }

    /// Takes out a message whose time is over, if there is one.
    pub fn expire(&mut self, now: Instant) -> Option<(KeepId, TopicHash)> {
        let &(until, id) = self.by_end.first()?;
        if until > now {
            return None;
        }
        let (topic, _) = self.remove(id)?;
        Some((id, topic))
    }

    /// When [`expire`](Self::expire) has something to say next.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        self.by_end.first().map(|(until, _)| *until)
    }

    /// Messages kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether nothing is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Bytes of payload kept.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How much may be kept.
    #[must_use]
    pub fn limits(&self) -> KeepLimits {
        self.limits
    }
}

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

    #[test]
    fn what_is_kept_comes_out_in_order_and_once() {
        let (mut book, now) = (KeepBook::new(LIMITS), Instant::now());
        let time = Duration::from_secs(5);
        let ids: Vec<_> = [1, 2, 3]
            .map(|n| {
                book.keep(topic("a"), vec![n; 10].into(), time, now)
                    .unwrap()
            })
            .into();
        for (id, n) in ids.iter().zip([1, 2, 3]) {
            let (first, data) = book.first(&topic("a")).unwrap();
            assert_eq!((first, data), (*id, &Bytes::from(vec![n; 10])));
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
        let id = book.keep(topic("a"), vec![0; 100].into(), time, now);
        assert!(
            book.keep(topic("b"), vec![0; 1].into(), time, now)
                .is_none()
        );
        book.remove(id.unwrap());
        for _ in 0..4 {
            assert!(book.keep(topic("b"), Bytes::new(), time, now).is_some());
        }
        assert!(book.keep(topic("b"), Bytes::new(), time, now).is_none());
    }

    #[test]
    fn nothing_is_kept_longer_than_allowed() {
        let (mut book, now) = (KeepBook::new(LIMITS), Instant::now());
        let id = book.keep(topic("a"), Bytes::new(), Duration::MAX, now);
        assert_eq!(book.next_timeout(), Some(now + LIMITS.time));
        assert_eq!(book.expire(now + LIMITS.time / 2), None);
        let expired = book.expire(now + LIMITS.time);
        assert_eq!(expired, id.map(|id| (id, topic("a"))));
        assert_eq!(book.next_timeout(), None);
        assert_eq!(book.first(&topic("a")), None);
    }

    proptest! {
        #[test]
        fn bounds_hold_and_nothing_is_lost(
            steps in prop::collection::vec((0..4u8, 0..3u8, 0..60usize, 0..15u64), 0..80)
        ) {
            let (mut book, mut now) = (KeepBook::new(LIMITS), Instant::now());
            let (mut kept, mut out) = (0, 0);
            for (what, name, len, seconds) in steps {
                let topic = topic(&name.to_string());
                match what {
                    0 | 1 => {
                        let time = Duration::from_secs(seconds);
                        kept += usize::from(book.keep(topic, vec![0; len].into(), time, now).is_some());
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
