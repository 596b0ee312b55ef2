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
mod tests;
