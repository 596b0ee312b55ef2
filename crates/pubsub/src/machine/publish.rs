//! Own messages: signed, sent, kept for a first subscriber, or waiting for room.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use calimero_network_primitives::{PeerId, Topic};

use super::{Machine, mesh::FANOUT, outbox::Outbox};
use crate::{
    error::PublishError,
    event::{Event, Published},
    keep::KeepId,
    rpc::{Frame, Message},
    score::PUBLISH_SCORE,
    validate::{Key, Now},
    wire::{MessageId, TopicHash, sequence_number, topic_hash},
};

impl Machine {
    /// Sends `data` to the subscribers of `topic`, to which this node need not subscribe.
    ///
    /// # Errors
    ///
    /// [`PublishError`]. [`QueueFull`](PublishError::QueueFull) passes with time, and
    /// [`Event::Room`] says when.
    pub fn publish(
        &mut self,
        topic: &Topic,
        data: Bytes,
        now: Now,
    ) -> Result<MessageId, PublishError> {
        let hash = topic_hash(topic);
        // Messages of one topic keep their order.
        if self.is_overdue(&hash, now) {
            self.send_kept(&hash, now);
        }
        if self.is_overdue(&hash, now) {
            let peers = self.announcements.subscriber_count(&hash);
            self.refused.insert(hash);
            return Err(PublishError::QueueFull { peers });
        }
        self.publish_now(&hash, data, now)
    }

    /// Returns `true` if messages of a topic wait although there are recipients.
    fn is_overdue(&mut self, hash: &TopicHash, now: Now) -> bool {
        self.waiting.first(hash).is_some()
            || self.kept.first(hash).is_some()
                && self.announcements.subscriber_count(hash) > 0
                && !self.recipients(hash, now).is_empty()
    }

    /// As [`publish`](Self::publish), but where no peer subscribes to `topic`, keeps `data` for at
    /// most `time` and sends it to the first one that does.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish), with [`KeepFull`](PublishError::KeepFull) in the place of
    /// [`NoPeers`](PublishError::NoPeers).
    pub fn publish_or_keep(
        &mut self,
        topic: &Topic,
        data: Bytes,
        time: Duration,
        now: Now,
    ) -> Result<Published, PublishError> {
        match self.publish(topic, data.clone(), now) {
            Ok(id) => Ok(Published::Sent(id)),
            Err(PublishError::NoPeers) => {
                let id = self.next_keep();
                if self.kept.keep(id, topic_hash(topic), data, time, now.at) {
                    return Ok(Published::Kept(id));
                }
                Err(PublishError::KeepFull {
                    messages: self.kept.len(),
                    bytes: self.kept.bytes(),
                })
            }
            Err(error) => Err(error),
        }
    }

    /// As [`publish`](Self::publish), but where queues are full, sends `data` once there is room,
    /// after what waits for the same topic.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish), with [`QueueFull`](PublishError::QueueFull) only if too many
    /// messages wait.
    pub fn publish_or_wait(
        &mut self,
        topic: &Topic,
        data: Bytes,
        now: Now,
    ) -> Result<Published, PublishError> {
        match self.publish(topic, data.clone(), now) {
            Ok(id) => Ok(Published::Sent(id)),
            Err(PublishError::QueueFull { peers }) => {
                let id = self.next_keep();
                let waits = (self.waiting).keep(id, topic_hash(topic), data, Duration::MAX, now.at);
                if waits {
                    Ok(Published::Kept(id))
                } else {
                    Err(PublishError::QueueFull { peers })
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Takes back a message that is kept or waits. Returns `false` if it does not any more.
    pub fn take_back(&mut self, keep: KeepId) -> bool {
        self.kept.remove(keep).is_some() || self.waiting.remove(keep).is_some()
    }

    fn next_keep(&mut self) -> KeepId {
        self.next_keep += 1;
        KeepId::new(self.next_keep)
    }

    fn publish_now(
        &mut self,
        hash: &TopicHash,
        data: Bytes,
        now: Now,
    ) -> Result<MessageId, PublishError> {
        let (limit, size) = (self.config.max_message_bytes, data.len());
        if size > limit {
            return Err(PublishError::TooLarge { limit, size });
        }
        if self.announcements.subscriber_count(hash) == 0 {
            return Err(PublishError::NoPeers);
        }
        let recipients = self.recipients(hash, now);
        if recipients.is_empty() {
            return Err(PublishError::NoPeers);
        }
        let peers = self.holding_back(&recipients, now);
        if peers > 0 {
            self.refused.insert(hash.clone());
            return Err(PublishError::QueueFull { peers });
        }
        let number = sequence_number(now.unix, self.last_number);
        let mut message = Message::unsigned(self.me, number, hash.clone(), data);
        let signature = self.keypair.sign(&message.signed());
        message.signature = signature.map_err(|_| PublishError::Signing)?.into();
        let (id, frame) = (MessageId::new(&self.me, number), message.frame());
        // Checked before the message is cached: peers are not offered a message that failed.
        if (recipients.iter()).all(|peer| self.exceeded_limit(peer, &frame).is_some()) {
            for peer in &recipients {
                self.refuse_too_large(*peer, &frame);
            }
            return Err(PublishError::TooLargeForPeers {
                peers: recipients.len(),
                size: frame.len(),
            });
        }
        self.last_number = number;
        let key = self.validator.key(id.as_bytes());
        self.validator.remember(key, now.at);
        self.cache
            .put(key, frame.clone(), hash.clone(), id.clone(), now.at);
        for peer in &recipients {
            self.enqueue(*peer, &frame, key, true, now);
            self.exchanged(*peer);
        }
        self.counters.published += 1;
        Ok(id)
    }

    /// The peers to which an own message goes.
    fn recipients(&mut self, hash: &TopicHash, now: Now) -> Vec<PeerId> {
        let scores = &self.scores;
        let heard = |peer: &PeerId| scores.score(peer, now.at) >= PUBLISH_SCORE;
        let mut all = self.announcements.subscribers(hash);
        all.retain(heard);
        all.sort_unstable();
        if self.config.mesh.flood_publish {
            return all;
        }
        let target = self.config.mesh.target;
        if let Some(own) = self.topics.get(hash) {
            let mut mesh: Vec<_> = own.mesh.iter().copied().filter(heard).collect();
            if mesh.is_empty() {
                // A message before the first heartbeat, or while all peers are in back-off.
                mesh = super::mesh::choose(&mut self.rng, all, target);
            }
            return mesh;
        }
        let (peers, until) = (self.fanout)
            .entry(hash.clone())
            .or_insert_with(|| (Default::default(), now.at + FANOUT));
        *until = now.at + FANOUT;
        peers.retain(|peer| all.contains(peer));
        if peers.len() < target {
            let others = all.into_iter().filter(|peer| !peers.contains(peer));
            let missing = target - peers.len();
            peers.extend(super::mesh::choose(
                &mut self.rng,
                others.collect(),
                missing,
            ));
        }
        peers.iter().copied().collect()
    }

    /// Queues a message for a peer, unless the peer is known not to take it.
    pub(super) fn enqueue(&mut self, id: PeerId, frame: &Frame, key: Key, own: bool, now: Now) {
        if self.refuse_too_large(id, frame) {
            return;
        }
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.outbox.push(frame.clone(), key, own, now.at);
            self.last_queued = Some(now.at);
            self.dirty.insert(id);
        }
    }

    /// The size of the largest RPC that a peer takes, if `frame` is larger.
    fn exceeded_limit(&self, id: &PeerId, frame: &Frame) -> Option<usize> {
        let limit = self.peers.get(id)?.rpc_limit?;
        (frame.len() > limit).then_some(limit)
    }

    /// Counts and reports a message that is above the known limit of a peer. Returns `true` if it
    /// is.
    fn refuse_too_large(&mut self, peer: PeerId, frame: &Frame) -> bool {
        let Some(limit) = self.exceeded_limit(&peer, frame) else {
            return false;
        };
        self.counters.lost_to_limits += 1;
        let size = frame.len();
        self.emit(Event::TooLargeForPeer { peer, size, limit });
        true
    }

    /// How many recipients have so much to read that an own message must wait for them.
    ///
    /// A peer that has stopped reading is not waited for. Where some recipients have room, a full
    /// one is waited for as long as its hold lasts. Where none has, the message waits for the
    /// first that has read some.
    fn holding_back(&mut self, recipients: &[PeerId], now: Now) -> usize {
        let at = now.at;
        let (mut full, mut room, mut held) = (0, 0, 0);
        let mut recheck: Option<std::time::Instant> = None;
        for id in recipients {
            let Some(peer) = self.peers.get_mut(id) else {
                continue;
            };
            if peer.outbox.is_stalled(at) {
                continue;
            }
            if !peer.outbox.is_full() {
                room += 1;
                continue;
            }
            full += 1;
            recheck = recheck.into_iter().chain([peer.outbox.stalls_at()]).min();
        }
        if full == 0 {
            return 0;
        }
        if room == 0 {
            held = full;
        } else {
            let is_full = |outbox: &Outbox| !outbox.is_stalled(at) && outbox.is_full();
            for id in recipients {
                let peer = self.peers.get_mut(id).filter(|peer| is_full(&peer.outbox));
                let left = peer.map_or(Duration::ZERO, |peer| peer.outbox.hold(at));
                if !left.is_zero() {
                    held += 1;
                    recheck = recheck.into_iter().chain([at + left]).min();
                }
            }
        }
        if held > 0 {
            self.recheck_at = self.recheck_at.into_iter().chain(recheck).min();
        }
        held
    }

    /// Queues have room, or peers are not waited for any more: sends what waits, and says so to
    /// publishers that were refused.
    pub(super) fn on_room(&mut self, now: Now) {
        let announcements = &self.announcements;
        let kept = self.kept.each_topic();
        let kept = kept.filter(|hash| announcements.subscriber_count(hash) > 0);
        let topics: BTreeSet<_> = self.waiting.each_topic().chain(kept).cloned().collect();
        for hash in topics {
            self.send_kept(&hash, now);
        }
        if self.refused.is_empty() {
            return;
        }
        let mut room = false;
        for hash in std::mem::take(&mut self.refused) {
            let recipients = self.recipients(&hash, now);
            if self.is_overdue(&hash, now) || self.holding_back(&recipients, now) > 0 {
                self.refused.insert(hash);
            } else {
                room = true;
            }
        }
        if room {
            self.emit(Event::Room);
        }
    }

    /// Sends what is kept for `hash` or waits for room there, in order.
    pub(super) fn send_kept(&mut self, hash: &TopicHash, now: Now) {
        for is_kept in [true, false] {
            loop {
                let book = if is_kept { &self.kept } else { &self.waiting };
                let Some((keep, data)) = book.first(hash) else {
                    break;
                };
                let data = data.clone();
                let result = self.publish_now(hash, data, now);
                match result {
                    Err(PublishError::QueueFull { .. }) => return,
                    Err(PublishError::NoPeers) if is_kept => return,
                    _ => {}
                }
                let book = if is_kept {
                    &mut self.kept
                } else {
                    &mut self.waiting
                };
                book.remove(keep);
                let Some(topic) = self.topic(hash) else {
                    continue;
                };
                self.emit(match result {
                    Ok(id) => Event::KeptSent { keep, topic, id },
                    Err(error) => Event::KeptLost { keep, topic, error },
                });
            }
        }
    }
}
