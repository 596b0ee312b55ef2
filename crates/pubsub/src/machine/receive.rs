//! What peers send: announcements, messages, control.

use bytes::Bytes;
use calimero_network_primitives::{PeerId, Topic};
use rand::seq::SliceRandom;

use super::{Machine, Received, Version, count, outbox::MAX_IDS};
use crate::{
    announcements::distinct,
    event::{Event, Message},
    rpc::{Control, Subscription},
    score::{Fault, GOSSIP_SCORE, GRAYLIST_SCORE},
    validate::{Checked, Now, Verdict},
    wire::TopicHash,
};

/// RPCs with offers of one peer in one heartbeat that are considered, the value of the
/// specification.
const MAX_OFFERS: usize = 10;

/// Longest id that is requested, in bytes. An id is the text of its author, at most 60 bytes, and
/// of a number, at most 20. A longer one belongs to no message that this node accepts.
const MAX_ID_BYTES: usize = 128;

impl Machine {
    pub(super) fn on_rpc(&mut self, id: PeerId, rpc: Received, now: Now) {
        if !self.peers.contains_key(&id) {
            return;
        }
        // Decided before the announcements, whose excess lowers the score.
        let is_ignored = self.scores.score(&id, now.at) < GRAYLIST_SCORE;
        // Announcements of an ignored peer are read: its excess counts towards a ban, and its
        // topics are known when its score has recovered.
        if let Some(topics) = rpc.control.announces {
            self.begin_listing(id, topics);
        }
        if !rpc.subscriptions.is_empty() || rpc.control.announces.is_some() {
            self.on_announcement(id, rpc.subscriptions.clone(), now);
        }
        // Its messages are not remembered as seen, so that other peers can deliver them.
        if is_ignored {
            self.on_faults(id, &rpc, now);
            return;
        }
        if !rpc.messages.is_empty() {
            self.exchanged(id);
        }
        self.on_faults(id, &rpc, now);
        for message in rpc.messages {
            self.on_message(id, message, now);
        }
        self.on_control(id, rpc.control, now);
    }

    fn on_faults(&mut self, id: PeerId, rpc: &Received, now: Now) {
        let invalid = rpc
            .messages
            .iter()
            .filter(|m| m.verdict == Verdict::Invalid);
        let invalid = rpc.unsigned + invalid.count();
        self.counters.invalid_dropped += count(invalid);
        self.fault(id, Fault::Invalid(invalid), invalid, now);
        let control = rpc.control_entries;
        self.fault(id, Fault::Control(control), control, now);
    }

    fn on_announcement(&mut self, id: PeerId, entries: Vec<Subscription>, now: Now) {
        let stale = self.listed(id, &entries);
        // Before what is kept for a subscriber is sent, which is no message that was missed.
        self.offer_to_returned(id, &entries, now.at);
        let mut refused = 0;
        for entry in distinct(entries) {
            let topic = entry.topic;
            if !entry.subscribes {
                self.on_unsubscribed(id, &topic, now);
            } else if topic.as_str().parse::<Topic>().is_err() {
                refused += 1;
            } else {
                refused += usize::from(!self.on_subscribed(id, &topic, now));
            }
        }
        for topic in stale {
            self.on_unsubscribed(id, &topic, now);
        }
        self.counters.announcements_refused += count(refused);
        self.fault(id, Fault::Excess(refused), refused, now);
    }

    /// Returns `false` if the topic is above the limits.
    fn on_subscribed(&mut self, id: PeerId, topic: &TopicHash, now: Now) -> bool {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.left.remove(topic);
        }
        match self.announcements.add(id, topic) {
            None => false,
            Some(false) => true,
            Some(true) => {
                self.review_keep_alive_of(id);
                self.graft_if_low(id, topic, now);
                if let Some(topic) = self.topic(topic) {
                    self.emit(Event::Subscribed { peer: id, topic });
                }
                self.send_kept(topic, now);
                true
            }
        }
    }

    fn on_unsubscribed(&mut self, id: PeerId, topic: &TopicHash, now: Now) {
        if !self.announcements.remove(id, topic) {
            return;
        }
        if self.topics.contains_key(topic)
            && let Some(peer) = self.peers.get_mut(&id)
        {
            peer.left.insert(topic.clone());
        }
        self.drop_from_mesh(id, topic, now);
        self.review_keep_alive_of(id);
        if let Some(topic) = self.topic(topic) {
            self.emit(Event::Unsubscribed { peer: id, topic });
        }
    }

    /// The peer did something that only a subscriber does: it grafted this node, or forwarded a
    /// message, which may still be under way after it has unsubscribed.
    fn infer_subscribed(&mut self, id: PeerId, topic: &TopicHash, grafted: bool, now: Now) {
        if !self.topics.contains_key(topic) || self.announcements.is_subscribed(&id, topic) {
            return;
        }
        let has_left = self
            .peers
            .get(&id)
            .is_some_and(|peer| peer.left.contains(topic));
        if grafted || !has_left {
            self.on_subscribed(id, topic, now);
        }
    }

    fn on_message(&mut self, id: PeerId, checked: Checked, now: Now) {
        let (author, topic) = (checked.message.author, checked.message.topic.clone());
        let verdict = match checked.verdict {
            Verdict::New if author == self.me => {
                // This node published it before it was restarted. The peer has kept its promise,
                // and no other one is asked for the message.
                self.validator.remember(checked.key, now.at);
                self.promises.fulfilled(checked.key, &id);
                return;
            }
            Verdict::New if !self.validator.remember(checked.key, now.at) => {
                Verdict::Copy { late: false }
            }
            verdict => verdict,
        };
        match verdict {
            Verdict::Invalid => return,
            Verdict::Unsubscribed => {
                self.counters.unsubscribed_dropped += 1;
                return self.on_refused(id, &checked, now);
            }
            Verdict::TooLarge => {
                self.counters.too_large_dropped += 1;
                return self.on_refused(id, &checked, now);
            }
            Verdict::Stale => {
                self.counters.replays_dropped += 1;
                return self.on_refused(id, &checked, now);
            }
            Verdict::Copy { .. } | Verdict::New => {}
        }
        self.counters.copies += 1;
        self.counters.copied_bytes += count(checked.message.payload_len());
        if author != id {
            self.infer_subscribed(id, &topic, false, now);
        }
        if let Verdict::Copy { late } = verdict {
            if late {
                self.counters.replays_dropped += 1;
                self.fault(id, Fault::Replayed(1), usize::from(author == id), now);
            } else {
                self.counters.duplicates += 1;
                self.scores.delivered(id, &topic, false, now.at);
            }
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.outbox.has(checked.key);
            }
            return;
        }
        self.scores.delivered(id, &topic, true, now.at);
        self.promises.fulfilled(checked.key, &id);
        self.forward(id, checked, now);
    }

    /// This node refuses a message before its signature is checked. If the message was requested,
    /// the peer has kept its promise with one that is signed: a forged message must not prevent the
    /// request of the real one.
    fn on_refused(&mut self, id: PeerId, checked: &Checked, now: Now) {
        if !self.promises.is_asked(checked.key, &id) {
            return;
        }
        let message = &checked.message;
        if message.public_key().is_some_and(|key| message.verify(&key)) {
            let heartbeats = u32::try_from(self.config.memory.history_heartbeats);
            let time = self.config.mesh.heartbeat * heartbeats.unwrap_or(u32::MAX);
            self.promises.refused(checked.key, &id, now.at + time);
        }
    }

    /// Delivers a new message and sends it on.
    fn forward(&mut self, sender: PeerId, checked: Checked, now: Now) {
        let Checked {
            message, id, key, ..
        } = checked;
        let Some(own) = self.topics.get(&message.topic) else {
            return;
        };
        let (topic, author) = (own.topic.clone(), message.author);
        let mesh: Vec<_> = own.mesh.iter().copied().collect();
        let frame = message.frame();
        let (hash, copy) = (message.topic.clone(), frame.clone());
        self.cache.put(key, copy, hash, id.clone(), now.at);
        if frame.body().len() > self.config.mesh.announce_arrival_bytes {
            for peer in mesh.iter().filter(|peer| **peer != sender) {
                if let Some(peer) = self.peers.get_mut(peer)
                    && peer.version() >= Some(Version::V1_2)
                {
                    peer.outbox.refuse(&id);
                }
            }
        }
        for peer in mesh {
            if peer != sender && peer != author {
                self.enqueue(peer, &frame, key, false, now);
            }
            self.dirty.insert(peer);
        }
        self.counters.delivered += 1;
        self.emit(Event::Message(Message {
            topic,
            source: author,
            propagated_by: sender,
            sequence_number: message.sequence_number,
            id,
            data: message.data.unwrap_or_default(),
        }));
    }

    fn on_control(&mut self, id: PeerId, control: Control, now: Now) {
        for topic in control.graft {
            self.infer_subscribed(id, &topic, true, now);
            self.on_graft(id, topic, now);
        }
        for (topic, backoff) in control.prune {
            self.on_prune(id, topic, backoff, now);
        }
        if !control.idontwant.is_empty() {
            let keys: Vec<_> = control
                .idontwant
                .iter()
                .map(|id| self.validator.key(id))
                .collect();
            if let Some(peer) = self.peers.get_mut(&id) {
                keys.into_iter().for_each(|key| peer.outbox.unwant(key));
            }
        }
        if self.scores.score(&id, now.at) < GOSSIP_SCORE {
            return;
        }
        if !control.ihave.is_empty() {
            self.on_offers(id, control.ihave, now);
        }
        for wanted in control.iwant {
            let key = self.validator.key(&wanted);
            if let Some(frame) = self.cache.serve(key, id) {
                self.enqueue(id, &frame, key, false, now);
            }
        }
    }

    fn on_offers(&mut self, id: PeerId, offers: Vec<(TopicHash, Vec<Bytes>)>, now: Now) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.offers += 1;
        let left = MAX_IDS.saturating_sub(peer.requested.max(peer.outbox.requests()));
        if peer.offers > MAX_OFFERS || left == 0 {
            return;
        }
        let own = offers
            .into_iter()
            .filter(|(topic, _)| self.topics.contains_key(topic));
        let ids = own.flat_map(|(_, ids)| ids);
        let mut wanted: Vec<_> = ids.filter(|id| id.len() <= MAX_ID_BYTES).collect();
        // Each id is hashed and looked up, so no more than a node offers in one RPC for one topic.
        if wanted.len() > MAX_IDS {
            wanted.shuffle(&mut self.rng);
            wanted.truncate(MAX_IDS);
        }
        wanted.retain(|id| !self.validator.has_seen(self.validator.key(id)));
        // Chosen at random, so that a peer cannot choose what is requested.
        wanted.shuffle(&mut self.rng);
        wanted.truncate(left);
        wanted.retain(|wanted| {
            let key = self.validator.key(wanted);
            self.promises.add(key, wanted, id, now.at)
        });
        peer.requested += wanted.len();
        // Copied, because each one keeps the RPC in memory that it arrived in.
        let wanted = wanted.iter().map(|id| Bytes::copy_from_slice(id));
        peer.outbox.request(wanted);
        self.dirty.insert(id);
    }

    /// Requests messages that have not arrived from the next peers that offered them.
    pub(super) fn request_again(&mut self, now: Now) {
        let (peers, scores) = (&self.peers, &self.scores);
        let requests = self.promises.next_requests(now.at, |id| {
            let peer = peers.get(id);
            let requests = peer.map(|peer| peer.requested.max(peer.outbox.requests()));
            requests.is_some_and(|count| count < MAX_IDS)
                && scores.score(id, now.at) >= GOSSIP_SCORE
        });
        for (id, wanted) in requests {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.requested += 1;
                peer.outbox.request([wanted]);
                self.dirty.insert(id);
            }
        }
    }
}
