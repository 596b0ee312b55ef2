//! Topics that this node has unsubscribed from a short time ago.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use calimero_network_primitives::limits::{MAX_GOSSIP_CONTROL_BYTES, MAX_OWN_TOPICS};

use super::announced_bytes;
use crate::wire::TopicHash;

/// Time for which a new stream repeats an unsubscription, 5 min: longer than either side takes to
/// find out that a connection is dead, plus two of the longest waits for a new stream, 60 s each.
const REPEATED: Duration = Duration::from_secs(300);

/// Unsubscriptions that are repeated on new streams, the oldest first.
///
/// They are bounded as the topics of a node are: [`MAX_OWN_TOPICS`], and
/// [`MAX_GOSSIP_CONTROL_BYTES`] in one announcement. The oldest ones make room for new ones.
#[derive(Debug, Default)]
pub(super) struct Unsubscribed {
    entries: VecDeque<(Instant, TopicHash)>,
    /// Bytes of all entries in an announcement.
    bytes: usize,
}

impl Unsubscribed {
    /// Adds a topic that is not an entry.
    pub(super) fn add(&mut self, topic: TopicHash, now: Instant) {
        self.bytes += announced_bytes(&topic);
        self.entries.push_back((now, topic));
        while self.entries.len() > MAX_OWN_TOPICS || self.bytes > MAX_GOSSIP_CONTROL_BYTES {
            self.pop();
        }
    }

    /// Removes a topic that this node subscribes to again.
    pub(super) fn remove(&mut self, topic: &TopicHash) {
        if let Some(index) = self.entries.iter().position(|(_, entry)| entry == topic) {
            self.entries.remove(index);
            self.bytes -= announced_bytes(topic);
        }
    }

    /// Removes what is not repeated any more, and returns the other topics.
    pub(super) fn recent(&mut self, now: Instant) -> impl Iterator<Item = &TopicHash> {
        while (self.entries.front()).is_some_and(|(at, _)| *at + REPEATED <= now) {
            self.pop();
        }
        self.entries.iter().map(|(_, topic)| topic)
    }

    fn pop(&mut self) {
        if let Some((_, topic)) = self.entries.pop_front() {
            self.bytes -= announced_bytes(&topic);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(number: usize, len: usize) -> TopicHash {
        TopicHash::from_raw(format!("{number:0>len$}"))
    }

    #[test]
    fn entries_are_bounded_in_number_bytes_and_time() {
        let start = Instant::now();
        let mut unsubscribed = Unsubscribed::default();
        for number in 0..=MAX_OWN_TOPICS {
            unsubscribed.add(topic(number, 8), start);
        }
        assert_eq!(unsubscribed.recent(start).count(), MAX_OWN_TOPICS);
        assert_eq!(unsubscribed.recent(start).next(), Some(&topic(1, 8)));

        for number in 0..1_000 {
            unsubscribed.add(topic(number, 1_024), start + REPEATED / 2);
            assert!(unsubscribed.bytes <= MAX_GOSSIP_CONTROL_BYTES);
        }
        let last = unsubscribed.recent(start).last();
        assert_eq!(last, Some(&topic(999, 1_024)));
        assert!(unsubscribed.recent(start + REPEATED).count() > 400);
        assert_eq!(unsubscribed.recent(start + REPEATED * 3 / 2).count(), 0);
        assert_eq!(unsubscribed.bytes, 0);
    }

    #[test]
    fn a_topic_that_is_subscribed_again_is_not_repeated() {
        let now = Instant::now();
        let mut unsubscribed = Unsubscribed::default();
        for number in 0..3 {
            unsubscribed.add(topic(number, 1), now);
        }
        unsubscribed.remove(&topic(1, 1));
        unsubscribed.remove(&topic(7, 1));
        let recent: Vec<_> = unsubscribed.recent(now).cloned().collect();
        assert_eq!(recent, [topic(0, 1), topic(2, 1)]);
        let bytes: usize = recent.iter().map(announced_bytes).sum();
        assert_eq!(unsubscribed.bytes, bytes);
    }
}
