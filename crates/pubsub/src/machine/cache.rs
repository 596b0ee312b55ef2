//! Whole messages for peers that request them.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Instant,
};

use bytes::Bytes;
use calimero_network_primitives::PeerId;

use crate::{
    rpc::Frame,
    validate::Key,
    wire::{MessageId, TopicHash},
};

/// Bytes of whole messages, at most: 32 MiB with [`ENTRY_BYTES`] of each, some heartbeats of a busy
/// node with messages of 1 KiB. The oldest ones go first.
const MAX_BYTES: usize = 32 << 20;

/// Bytes that an entry takes besides its message.
const ENTRY_BYTES: usize = size_of::<Cached>() + 2 * size_of::<Key>();

/// How often one peer gets one message on request, the value of the specification.
const MAX_SERVED: u8 = 3;

/// Heartbeats at the end of the memory whose messages are not offered, 2: a message that is offered
/// must be there when it is requested.
const RESERVED: usize = 2;

#[derive(Debug)]
struct Cached {
    frame: Frame,
    topic: TopicHash,
    id: MessageId,
    /// When it was cached.
    at: Instant,
    served: Vec<(PeerId, u8)>,
}

impl Cached {
    fn bytes(&self) -> usize {
        self.frame.len() + ENTRY_BYTES
    }
}

/// The messages of the last heartbeats.
#[derive(Debug)]
pub(super) struct Cache {
    messages: HashMap<Key, Cached>,
    /// One window for each heartbeat, the newest first.
    windows: VecDeque<VecDeque<Key>>,
    length: usize,
    gossip: usize,
    bytes: usize,
}

impl Cache {
    /// Keeps messages for `length` heartbeats, and offers those of the newest `gossip`.
    pub(super) fn new(length: usize, gossip: usize) -> Self {
        Self {
            messages: HashMap::new(),
            windows: VecDeque::from([VecDeque::new()]),
            length,
            gossip,
            bytes: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(super) fn put(
        &mut self,
        key: Key,
        frame: Frame,
        topic: TopicHash,
        id: MessageId,
        now: Instant,
    ) {
        let cached = Cached {
            frame,
            topic,
            id,
            at: now,
            served: Vec::new(),
        };
        self.bytes += cached.bytes();
        if let Some(replaced) = self.messages.insert(key, cached) {
            self.bytes -= replaced.bytes();
        } else if let Some(newest) = self.windows.front_mut() {
            newest.push_back(key);
        }
        while self.bytes > MAX_BYTES && self.drop_oldest() {}
    }

    fn drop_oldest(&mut self) -> bool {
        let oldest = self.windows.iter_mut().rev().find_map(VecDeque::pop_front);
        let dropped = oldest.and_then(|key| self.messages.remove(&key));
        self.bytes -= dropped.as_ref().map_or(0, Cached::bytes);
        oldest.is_some()
    }

    /// The message for a peer that requests it, unless it was sent to that peer too often.
    pub(super) fn serve(&mut self, key: Key, peer: PeerId) -> Option<Frame> {
        let cached = self.messages.get_mut(&key)?;
        let index = match cached.served.iter().position(|(id, _)| *id == peer) {
            Some(index) => index,
            None => {
                cached.served.push((peer, 0));
                cached.served.len() - 1
            }
        };
        let times = &mut cached.served[index].1;
        *times += 1;
        let may = *times <= MAX_SERVED;
        *times = (*times).min(MAX_SERVED);
        may.then(|| cached.frame.clone())
    }

    /// Ids of the messages that are offered, by topic.
    pub(super) fn offers(&self) -> BTreeMap<TopicHash, Vec<Bytes>> {
        let mut offers: BTreeMap<TopicHash, Vec<Bytes>> = BTreeMap::new();
        for key in self.windows.iter().take(self.gossip).flatten() {
            if let Some(cached) = self.messages.get(key) {
                let ids = offers.entry(cached.topic.clone()).or_default();
                ids.push(cached.id.to_bytes());
            }
        }
        offers
    }

    /// The id of a message, as it is sent.
    pub(super) fn id(&self, key: Key) -> Option<Bytes> {
        self.messages.get(&key).map(|cached| cached.id.to_bytes())
    }

    /// Messages that a peer may have missed, by topic: those that `is_wanted` accepts, cached at
    /// `since` or later, the newest first.
    pub(super) fn missed(
        &self,
        since: Instant,
        is_wanted: impl Fn(&TopicHash, &Frame) -> bool,
    ) -> BTreeMap<TopicHash, VecDeque<Key>> {
        let mut missed: BTreeMap<TopicHash, VecDeque<Key>> = BTreeMap::new();
        let windows = self.length.saturating_sub(RESERVED).max(self.gossip);
        let keys = self.windows.iter().take(windows);
        for key in keys.flat_map(|window| window.iter().rev()) {
            let Some(cached) = self.messages.get(key) else {
                continue;
            };
            if cached.at < since {
                break;
            }
            if is_wanted(&cached.topic, &cached.frame) {
                let keys = missed.entry(cached.topic.clone()).or_default();
                keys.push_back(*key);
            }
        }
        missed
    }

    /// A heartbeat has passed.
    pub(super) fn shift(&mut self) {
        self.windows.push_front(VecDeque::new());
        while self.windows.len() > self.length {
            for key in self.windows.pop_back().unwrap_or_default() {
                if let Some(cached) = self.messages.remove(&key) {
                    self.bytes -= cached.bytes();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
