//! The queue of one peer: what is to be sent, in which order, and how long a publisher waits.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    rpc::{Control, Frame, Rpc, Subscription},
    validate::Key,
    wire::{MessageId, TopicHash},
};

/// Ids that a peer has and does not want, at most: what arrives in a heartbeat at full speed.
const MAX_UNWANTED: usize = 16_384;

/// Ids for which memory is retained between heartbeats, 256: 8 KiB for each peer.
const RETAINED_UNWANTED: usize = 256;

/// Ids in one control RPC, at most: the limit of go-libp2p and rust-libp2p on offers.
pub(super) const MAX_IDS: usize = 5_000;

/// Bytes of topics in one RPC of announcements or control: published 0.11 nodes take RPCs of
/// 64 KiB.
pub(super) const MAX_TOPIC_BYTES: usize = 32 * 1024;

/// Bytes that an id, and the topic of ids, take in an RPC besides their text, at most.
const ID_OVERHEAD_BYTES: usize = 4;
const TOPIC_OVERHEAD_BYTES: usize = 8;

/// Topics in one RPC of announcements, at most: libp2p-gossipsub 0.50.1 ignores all of an RPC with
/// more by default.
const MAX_ANNOUNCED: usize = 100;

/// Bytes a second at which a frame that is being written counts as moving: 4 KiB, as for RPCs that
/// arrive. A link of 56 kbit/s reaches it.
const MIN_RATE: u64 = 4 * 1024;

/// Limits of a queue, from the configuration.
#[derive(Clone, Copy, Debug)]
pub(super) struct OutboxLimits {
    pub(super) messages: usize,
    pub(super) bytes: usize,
    pub(super) window: usize,
    pub(super) window_bytes: usize,
    pub(super) own_wait: Duration,
    pub(super) forward_wait: Duration,
    pub(super) hold: Duration,
}

#[derive(Debug)]
struct Queued {
    frame: Frame,
    key: Key,
    until: Instant,
}

/// A change of the mesh that the peer must learn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MeshChange {
    Graft,
    Prune { backoff: u64 },
}

/// What is to be sent to one peer.
#[derive(Debug)]
pub(super) struct Outbox {
    limits: OutboxLimits,
    /// Announcements, one for each topic: an RPC that contradicts itself is ignored by others.
    subscriptions: BTreeMap<TopicHash, bool>,
    mesh: BTreeMap<TopicHash, MeshChange>,
    /// Offers of the last heartbeat, by topic.
    ihave: BTreeMap<TopicHash, Vec<Bytes>>,
    /// Offers of what the peer may have missed, by topic.
    missed: BTreeMap<TopicHash, Vec<Bytes>>,
    iwant: Vec<Bytes>,
    idontwant: Vec<Bytes>,
    /// Frames that were sent on a stream that failed, and go first.
    again: VecDeque<Frame>,
    messages: VecDeque<Queued>,
    bytes: usize,
    unwanted: HashSet<Key>,
    /// Frames and bytes that are being written.
    in_flight: (usize, usize),
    /// When something was written, or the queue was last empty.
    progress: Instant,
    /// Bytes of parts of frames that were written since.
    partial: usize,
    /// Messages dropped since they were last reported.
    pub(super) lost: usize,
    hold: Hold,
}

/// How much longer a peer that lags behind the others may hold back publishers: a time that is
/// used while it does, and comes back as fast while it does not.
#[derive(Clone, Copy, Debug)]
struct Hold {
    left: Duration,
    since: Instant,
    is_held: bool,
}

impl Hold {
    fn left(&self, most: Duration, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.since);
        if self.is_held {
            self.left.saturating_sub(passed)
        } else {
            self.left.saturating_add(passed).min(most)
        }
    }

    fn set(&mut self, is_held: bool, most: Duration, now: Instant) {
        if self.is_held != is_held {
            (self.left, self.since) = (self.left(most, now), now);
            self.is_held = is_held;
        }
    }
}

impl Outbox {
    pub(super) fn new(limits: OutboxLimits, now: Instant) -> Self {
        Self {
            limits,
            subscriptions: BTreeMap::new(),
            mesh: BTreeMap::new(),
            ihave: BTreeMap::new(),
            missed: BTreeMap::new(),
            iwant: Vec::new(),
            idontwant: Vec::new(),
            again: VecDeque::new(),
            messages: VecDeque::new(),
            bytes: 0,
            unwanted: HashSet::new(),
            in_flight: (0, 0),
            progress: now,
            partial: 0,
            lost: 0,
            hold: Hold {
                left: limits.hold,
                since: now,
                is_held: false,
            },
        }
    }

    /// Queues a message. What does not fit pushes out the oldest ones.
    pub(super) fn push(&mut self, frame: Frame, key: Key, own: bool, now: Instant) {
        if self.unwanted.contains(&key) {
            return;
        }
        if self.is_idle() {
            self.has_moved(now);
        }
        self.bytes += frame.len();
        let wait = if own {
            self.limits.own_wait
        } else {
            self.limits.forward_wait
        };
        let until = now + wait;
        self.messages.push_back(Queued { frame, key, until });
        while self.messages.len() > self.limits.messages || self.bytes > self.limits.bytes {
            let Some(oldest) = self.messages.pop_front() else {
                break;
            };
            self.bytes -= oldest.frame.len();
            self.lost += 1;
        }
    }

    pub(super) fn announce(&mut self, topic: TopicHash, subscribes: bool) {
        self.subscriptions.insert(topic, subscribes);
    }

    pub(super) fn change_mesh(&mut self, topic: TopicHash, change: MeshChange) {
        self.mesh.insert(topic, change);
    }

    /// Offers messages of `topic`. An offer that still waits is replaced: each one names the
    /// messages of several heartbeats.
    pub(super) fn offer(&mut self, topic: TopicHash, ids: Vec<Bytes>) {
        self.ihave.insert(topic, ids);
    }

    /// Offers a message of `topic` that the peer may have missed. Unlike [`offer`](Self::offer),
    /// later heartbeats do not repeat it. Returns the bytes that it takes in an RPC.
    pub(super) fn offer_missed(&mut self, topic: &TopicHash, id: Bytes) -> usize {
        let len = id.len() + ID_OVERHEAD_BYTES;
        if let Some(ids) = self.missed.get_mut(topic) {
            ids.push(id);
            return len;
        }
        self.missed.insert(topic.clone(), vec![id]);
        len + topic.as_str().len() + TOPIC_OVERHEAD_BYTES
    }

    /// Where the bodies of the messages are that wait to be sent: the copies of a message share
    /// one.
    pub(super) fn waiting_bodies(&self) -> HashSet<*const u8> {
        let queued = self.messages.iter().map(|queued| &queued.frame);
        let waiting = self.again.iter().chain(queued);
        waiting.map(|frame| frame.body().as_ptr()).collect()
    }

    /// Number of requests that wait.
    pub(super) fn requests(&self) -> usize {
        self.iwant.len()
    }

    pub(super) fn request(&mut self, ids: impl IntoIterator<Item = Bytes>) {
        self.iwant.extend(ids);
    }

    /// Announces a message to the peer. The announcement saves a copy, so it is left out if too
    /// many wait already.
    pub(super) fn refuse(&mut self, id: &MessageId) {
        if self.idontwant.len() < MAX_IDS {
            self.idontwant.push(id.to_bytes());
        }
    }

    /// The peer has the message or does not want it.
    pub(super) fn unwant(&mut self, key: Key) {
        if self.unwanted.len() < MAX_UNWANTED {
            self.unwanted.insert(key);
        }
    }

    /// The same, where a copy may still wait in the queue.
    pub(super) fn has(&mut self, key: Key) {
        if !self.messages.is_empty() {
            self.unwant(key);
        }
    }

    /// Forgets what the peer does not want: a heartbeat later it has arrived everywhere. Memory for
    /// as much as a flood is given back.
    pub(super) fn forget_unwanted(&mut self) {
        self.unwanted.clear();
        self.unwanted.shrink_to(RETAINED_UNWANTED);
    }

    /// Announcements that wait, for all streams of the peer.
    pub(super) fn take_subscriptions(&mut self) -> Vec<Frame> {
        let entries = std::mem::take(&mut self.subscriptions);
        let entries = entries
            .into_iter()
            .map(|(topic, subscribes)| Subscription { topic, subscribes });
        announcement(entries.collect(), None)
    }

    /// The next messages, until they have `room` bytes.
    pub(super) fn take(&mut self, room: usize, now: Instant) -> Vec<Frame> {
        let (mut frames, mut taken) = (Vec::new(), 0);
        while taken < room {
            let Some(frame) = self.again.pop_front().or_else(|| self.next_message(now)) else {
                break;
            };
            taken += frame.len();
            frames.push(frame);
        }
        frames
    }

    fn next_message(&mut self, now: Instant) -> Option<Frame> {
        loop {
            let Queued { frame, key, until } = self.messages.pop_front()?;
            self.bytes -= frame.len();
            if until <= now {
                self.lost += 1;
            } else if self.unwanted.is_empty() || !self.unwanted.contains(&key) {
                return Some(frame);
            }
        }
    }

    /// All control that waits, in as few RPCs as receivers take.
    pub(super) fn take_control(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        let (mut control, mut bytes, mut ids) = (Control::default(), 0, 0);
        let mut flush = |control: &mut Control| {
            if !control.is_empty() {
                let control = std::mem::take(control);
                let rpc = Rpc {
                    control,
                    ..Rpc::default()
                };
                frames.push(rpc.encode());
            }
        };
        for (topic, change) in std::mem::take(&mut self.mesh) {
            bytes += topic.as_str().len() + 16;
            match change {
                MeshChange::Graft => control.graft.push(topic),
                MeshChange::Prune { backoff } => control.prune.push((topic, Some(backoff))),
            }
            if bytes > MAX_TOPIC_BYTES {
                flush(&mut control);
                bytes = 0;
            }
        }
        let mut add = |control: &mut Control, len: usize| {
            (bytes, ids) = (bytes + len + ID_OVERHEAD_BYTES, ids + 1);
            if bytes > MAX_TOPIC_BYTES || ids > MAX_IDS {
                flush(control);
                (bytes, ids) = (len, 1);
            }
        };
        for id in std::mem::take(&mut self.idontwant) {
            add(&mut control, id.len());
            control.idontwant.push(id);
        }
        for id in std::mem::take(&mut self.iwant) {
            add(&mut control, id.len());
            control.iwant.push(id);
        }
        let missed = std::mem::take(&mut self.missed);
        let offers = std::mem::take(&mut self.ihave);
        for (topic, offered) in missed.into_iter().chain(offers) {
            for id in offered {
                let is_new = control.ihave.last().is_none_or(|(last, _)| *last != topic);
                let len = if is_new {
                    topic.as_str().len() + TOPIC_OVERHEAD_BYTES
                } else {
                    0
                };
                add(&mut control, id.len() + len);
                match control.ihave.last_mut() {
                    Some((last, ids)) if *last == topic => ids.push(id),
                    _ => control.ihave.push((topic.clone(), vec![id])),
                }
            }
        }
        flush(&mut control);
        frames
    }

    /// Frames of a stream that failed. They go first on the next one.
    pub(super) fn send_again(&mut self, frames: impl DoubleEndedIterator<Item = Frame>) {
        frames.rev().for_each(|frame| self.again.push_front(frame));
    }

    /// Drops messages that the peer is known not to take. Returns their sizes.
    pub(super) fn drop_larger(&mut self, limit: usize) -> Vec<usize> {
        let again = self.again.iter().map(Frame::len);
        let queued = self.messages.iter().map(|queued| queued.frame.len());
        let dropped = again.chain(queued).filter(|len| *len > limit).collect();
        self.again.retain(|frame| frame.len() <= limit);
        self.messages.retain(|queued| queued.frame.len() <= limit);
        self.bytes = self.messages.iter().map(|queued| queued.frame.len()).sum();
        dropped
    }

    pub(super) fn sending(&mut self, frame: &Frame, now: Instant) {
        if self.in_flight.0 == 0 && self.messages.is_empty() {
            self.has_moved(now);
        }
        self.in_flight = (self.in_flight.0 + 1, self.in_flight.1 + frame.len());
    }

    /// A frame was written, or its stream has failed.
    pub(super) fn sent(&mut self, frame: &Frame, now: Instant) {
        self.has_moved(now);
        self.in_flight = (
            self.in_flight.0.saturating_sub(1),
            self.in_flight.1.saturating_sub(frame.len()),
        );
    }

    /// Bytes were written, of frames that may not be written to their end. A peer that reads a
    /// large frame at [`MIN_RATE`] is not one that has stopped reading.
    pub(super) fn wrote(&mut self, bytes: usize, now: Instant) {
        self.partial = self.partial.saturating_add(bytes);
        let passed = now.saturating_duration_since(self.progress).as_secs();
        let expected = passed.max(1).saturating_mul(MIN_RATE);
        if u64::try_from(self.partial).unwrap_or(u64::MAX) >= expected {
            self.has_moved(now);
        }
    }

    fn has_moved(&mut self, now: Instant) {
        (self.progress, self.partial) = (now, 0);
    }

    /// Returns `true` if nothing waits and nothing is being written.
    pub(super) fn is_idle(&self) -> bool {
        self.messages.is_empty() && self.again.is_empty() && self.in_flight.0 == 0
    }

    /// Messages and bytes that are queued or in flight.
    pub(super) fn load(&self) -> (usize, usize) {
        (
            self.messages.len() + self.again.len() + self.in_flight.0,
            self.bytes + self.in_flight.1,
        )
    }

    /// Returns `true` if own messages wait until the peer has read some.
    pub(super) fn is_full(&self) -> bool {
        let (messages, bytes) = self.load();
        messages >= self.limits.window || bytes >= self.limits.window_bytes
    }

    /// Returns `true` if there is room for more than a few messages.
    pub(super) fn is_low(&self) -> bool {
        let (messages, bytes) = self.load();
        messages <= self.limits.window / 2 && bytes <= self.limits.window_bytes / 2
    }

    /// How long nothing has moved although there is something to send.
    pub(super) fn stalled_for(&self, now: Instant) -> Duration {
        if self.is_idle() {
            return Duration::ZERO;
        }
        now.saturating_duration_since(self.progress)
    }

    /// Returns `true` if the peer has stopped reading, and nothing waits for it any more.
    pub(super) fn is_stalled(&self, now: Instant) -> bool {
        self.stalled_for(now) >= self.limits.hold
    }

    /// When the peer counts as stalled if nothing moves.
    pub(super) fn stalls_at(&self) -> Instant {
        self.progress + self.limits.hold
    }

    /// A publisher waits for this peer while others have room. Returns how much longer it may.
    pub(super) fn hold(&mut self, now: Instant) -> Duration {
        self.hold.set(true, self.limits.hold, now);
        self.hold.left(self.limits.hold, now)
    }

    /// No publisher waits for this peer any more.
    pub(super) fn release(&mut self, now: Instant) {
        self.hold.set(false, self.limits.hold, now);
    }
}

/// Announcements in RPCs that published 0.11 nodes and libp2p-gossipsub take. `announces` goes into
/// the first one, which is sent even if there are no topics.
pub(super) fn announcement(entries: Vec<Subscription>, announces: Option<u64>) -> Vec<Frame> {
    let (mut rpcs, mut bytes) = (Vec::new(), usize::MAX);
    if announces.is_some() {
        rpcs.push(Rpc {
            control: Control {
                announces,
                ..Control::default()
            },
            ..Rpc::default()
        });
        bytes = 0;
    }
    for entry in entries {
        let len = super::announced_bytes(&entry.topic);
        let is_full = |rpc: &Rpc| rpc.subscriptions.len() >= MAX_ANNOUNCED;
        if bytes.saturating_add(len) > MAX_TOPIC_BYTES || rpcs.last().is_some_and(is_full) {
            rpcs.push(Rpc::default());
            bytes = 0;
        }
        bytes += len;
        if let Some(rpc) = rpcs.last_mut() {
            rpc.subscriptions.push(entry);
        }
    }
    rpcs.iter().map(Rpc::encode).collect()
}

#[cfg(test)]
mod tests;
