//! What changes when one of several connections is better, fails, or is a spare, and what is
//! offered to a peer that may have missed messages.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    ops::Bound,
    time::{Duration, Instant},
};

use calimero_network_primitives::PeerId;
use libp2p_swarm::ConnectionId;

use super::{Machine, Peer, State};
use crate::{
    machine::{Received, cache::Cache, outbox::MAX_TOPIC_BYTES},
    rpc::Subscription,
    validate::Key,
    wire::TopicHash,
};

/// Time without messages and control from the peer after which a spare is not used, 60 s: a peer
/// that uses it sends offers each heartbeat while there are messages, and keeps its mesh there.
const QUIET: Duration = Duration::from_secs(60);

/// Time for which a peer is remembered that has lost its last connection, 60 s. Messages are cached
/// for less.
const MEMORY: Duration = Duration::from_secs(60);

/// Peers that are remembered so, at most, about 100 bytes each. Of more, those that were connected
/// first are remembered, and the others are offered nothing when they return.
const MAX_LOST: usize = 1_024;

/// RPCs with announcements of a peer that returned for which the cache is searched, 32: more than
/// all topics of a node need.
const MAX_SEARCHES: u32 = 32;

/// Bytes of the offers of missed messages in one heartbeat: four RPCs, and part of a fifth. A peer
/// considers ten RPCs with offers in one of its heartbeats, which may include parts of two of
/// this node's.
const MISSED_BYTES: usize = 4 * MAX_TOPIC_BYTES;

/// What a peer may have missed.
#[derive(Debug, Default)]
pub(in super::super) struct Missed {
    /// Messages that are still to be offered, by topic, the newest first. The cache bounds their
    /// number.
    waiting: BTreeMap<TopicHash, VecDeque<Key>>,
    /// The topic that was offered last: each one has its turn.
    last: Option<TopicHash>,
    /// When messages were last offered.
    offered_at: Option<Instant>,
    /// Topics for which the cache was searched because the peer returned, and how often it was.
    searched: BTreeSet<TopicHash>,
    searches: u32,
}

impl Missed {
    pub(in super::super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Removes the newest message of the topic after the last one.
    fn take_next(&mut self) -> Option<(TopicHash, Key)> {
        let start = self.last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let range = self
            .waiting
            .range::<TopicHash, _>((start, Bound::Unbounded));
        let next = range.map(|(topic, _)| topic).next();
        let topic = next.or_else(|| self.waiting.keys().next())?.clone();
        let keys = self.waiting.get_mut(&topic)?;
        let key = keys.pop_front();
        if keys.is_empty() {
            self.waiting.remove(&topic);
        }
        self.last = Some(topic.clone());
        Some((topic, key?))
    }
}

/// How a connection is used, and whether it should be.
#[derive(Debug, Default)]
pub(super) struct Use {
    /// Whether it is kept alive.
    pub(super) keep: bool,
    /// The peer did not answer a ping, and has said nothing since.
    pub(super) unanswered: bool,
    /// When messages, or offers of missed ones, were last given to it.
    pub(super) sent_at: Option<Instant>,
    spare: bool,
    /// When messages or control last arrived.
    heard_at: Option<Instant>,
    /// Whether that was within [`QUIET`].
    heard: bool,
}

impl Use {
    pub(super) const fn is_idle_spare(&self) -> bool {
        self.spare && !self.heard
    }

    /// Returns `true` if messages were sent on it that are remembered still, and may be lost with
    /// it.
    pub(super) fn has_carried(&self, now: Instant) -> bool {
        let recent = |at| now.saturating_duration_since(at) < MEMORY;
        self.sent_at.is_some_and(recent)
    }
}

/// Peers whose last connection has failed, and since when they were connected.
#[derive(Debug, Default)]
pub(in super::super) struct LostPeers(HashMap<PeerId, Lost>);

#[derive(Clone, Copy, Debug)]
struct Lost {
    since: Instant,
    until: Instant,
}

impl LostPeers {
    fn add(&mut self, peer: PeerId, since: Instant, now: Instant) {
        if self.0.len() >= MAX_LOST {
            self.expire(now);
        }
        if self.0.len() >= MAX_LOST && !self.0.contains_key(&peer) {
            // Identities that were connected just before must not keep out older peers.
            let latest = self.0.iter().max_by_key(|(_, lost)| lost.since);
            match latest.map(|(latest, lost)| (*latest, lost.since)) {
                Some((latest, latest_since)) if since < latest_since => self.0.remove(&latest),
                _ => return,
            };
        }
        let until = now + MEMORY;
        self.0.insert(peer, Lost { since, until });
    }

    /// Returns since when a peer that returns may have missed messages, and forgets it.
    pub(super) fn take(&mut self, peer: &PeerId, now: Instant) -> Option<Instant> {
        let lost = self.0.remove(peer)?;
        (lost.until > now).then_some(lost.since)
    }

    pub(in super::super) fn remove(&mut self, peer: &PeerId) {
        self.0.remove(peer);
    }

    pub(in super::super) fn expire(&mut self, now: Instant) {
        self.0.retain(|_, lost| lost.until > now);
    }
}

impl Machine {
    /// A connection is better than the one in use. What is being written there is written to its
    /// end.
    pub(in super::super) fn on_preferred(&mut self, id: PeerId, connection: ConnectionId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let Some(stream) = peer.stream(connection) else {
            return;
        };
        // It is preferred because of a ping that was answered.
        stream.used.unanswered = false;
        peer.preferred = Some(connection);
        peer.use_preferred();
        self.review_keep_alive_of(id);
        self.dirty.insert(id);
    }

    /// The peer does not answer on a connection. If it is in use, or was shortly before, what was
    /// not written goes to another one, and what may be lost is offered there.
    pub(in super::super) fn on_unanswered(
        &mut self,
        id: PeerId,
        connection: ConnectionId,
        now: Instant,
    ) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let active = peer.active;
        let Some(stream) = peer.stream(connection) else {
            return;
        };
        let is_known = std::mem::replace(&mut stream.used.unanswered, true);
        let is_used = active == Some(connection) || stream.used.has_carried(now) && !is_known;
        if !is_used || !peer.streams.iter().any(|s| s.is_usable()) {
            return;
        }
        let unwritten = match peer.stream(connection) {
            Some(stream) => std::mem::take(&mut stream.unwritten),
            None => return,
        };
        peer.take_probe(connection);
        let messages = peer.give_up(unwritten, now);
        peer.outbox.send_again(messages.into_iter());
        // A new stream takes the place of the old one, which may deliver late what it was given.
        peer.open(id, connection, now, &mut self.effects);
        peer.choose_active();
        self.promises.ask_again(id, now);
        self.offer_missed(id);
        self.graft_again(id);
        self.review_keep_alive_of(id);
        self.dirty.insert(id);
    }

    pub(in super::super) fn on_spare(&mut self, id: PeerId, connection: ConnectionId, spare: bool) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if let Some(stream) = peer.stream(connection) {
            stream.used.spare = spare;
            self.review_keep_alive_of(id);
        }
    }

    /// RPCs have arrived on a connection.
    pub(in super::super) fn on_heard(
        &mut self,
        id: PeerId,
        connection: ConnectionId,
        rpcs: &[Received],
        now: Instant,
    ) {
        // Announcements go to all streams, and say nothing about their use.
        let is_use = |rpc: &Received| !rpc.messages.is_empty() || rpc.control_entries > 0;
        if !rpcs.iter().any(is_use) {
            return;
        }
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if let Some(stream) = peer.stream(connection) {
            stream.used.heard_at = Some(now);
            if !std::mem::replace(&mut stream.used.heard, true) && stream.used.spare {
                self.review_keep_alive_of(id);
            }
        }
    }

    /// Finds the connections on which peers have said nothing for some time.
    pub(in super::super) fn review_spares(&mut self, now: Instant) {
        let mut quiet = Vec::new();
        for (id, peer) in &mut self.peers {
            for stream in &mut peer.streams {
                let used = &mut stream.used;
                let heard = |at: Instant| now.saturating_duration_since(at) < QUIET;
                used.heard = used.heard_at.is_some_and(heard);
                if used.keep && used.is_idle_spare() {
                    quiet.push(*id);
                }
            }
        }
        for id in quiet {
            self.review_keep_alive_of(id);
        }
    }

    /// The last connection of a peer ended. What it was sent may be lost.
    pub(super) fn lose(&mut self, id: PeerId, peer: &Peer, now: Instant) {
        // One that returned and is lost again before anything was exchanged misses the same.
        if peer.exchanged || peer.missed_since.is_some() {
            let since = peer.missed_since.unwrap_or(peer.since);
            self.lost.add(id, since, now);
        }
    }

    /// Offers to a peer what it may have missed on a connection that failed, by its topics.
    pub(super) fn offer_missed(&mut self, id: PeerId) {
        let Some(since) = self.peers.get(&id).map(|peer| peer.since) else {
            return;
        };
        let topics: BTreeSet<_> = self.announcements.topics(&id).cloned().collect();
        self.offer_since(id, &topics, since);
    }

    /// Offers to a peer that returns what it may have missed of the topics that it announces.
    pub(in super::super) fn offer_to_returned(
        &mut self,
        id: PeerId,
        entries: &[Subscription],
        now: Instant,
    ) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let Some(since) = peer
            .missed_since
            .filter(|_| peer.missed.searches < MAX_SEARCHES)
        else {
            return;
        };
        if now.saturating_duration_since(peer.since) >= MEMORY {
            peer.missed_since = None;
            return;
        }
        // Only of these are messages cached. A peer that announces a topic in turns has it once.
        let (own, fanout) = (&self.topics, &self.fanout);
        let topics = entries.iter().filter(|entry| entry.subscribes);
        let topics = topics.map(|entry| &entry.topic);
        let topics = topics.filter(|&topic| own.contains_key(topic) || fanout.contains_key(topic));
        let topics: BTreeSet<_> = topics
            .filter(|topic| peer.missed.searched.insert((*topic).clone()))
            .cloned()
            .collect();
        if !topics.is_empty() {
            peer.missed.searches += 1;
            self.offer_since(id, &topics, since);
        }
    }

    fn offer_since(&mut self, id: PeerId, topics: &BTreeSet<TopicHash>, since: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        // What waits to be sent is not missed.
        let (waiting, limit) = (peer.outbox.waiting_bodies(), peer.rpc_limit);
        let missed = self.cache.missed(since, |topic, frame| {
            topics.contains(topic)
                && limit.is_none_or(|limit| frame.len() <= limit)
                && !waiting.contains(&frame.body().as_ptr())
        });
        peer.missed.waiting.extend(missed);
        self.dirty.insert(id);
    }
}

impl Peer {
    /// Offers what the peer may have missed, as much as it considers in one heartbeat, of each
    /// topic the same number. The rest follows in the next heartbeats.
    pub(super) fn offer_next(
        &mut self,
        connection: ConnectionId,
        cache: &Cache,
        heartbeat: Duration,
        now: Instant,
    ) {
        // Heartbeats may be somewhat early.
        let is_early = |at| now.saturating_duration_since(at) < heartbeat * 3 / 4;
        if self.missed.is_empty() || self.missed.offered_at.is_some_and(is_early) {
            return;
        }
        let mut bytes = 0;
        while bytes < MISSED_BYTES
            && let Some((topic, key)) = self.missed.take_next()
        {
            // What has left the cache cannot be requested.
            if let Some(id) = cache.id(key) {
                bytes += self.outbox.offer_missed(&topic, id);
            }
        }
        if bytes == 0 {
            return;
        }
        self.missed.offered_at = Some(now);
        // Offers may be lost as messages may.
        if let Some(stream) = self.stream(connection) {
            stream.used.sent_at = Some(now);
        }
    }

    /// Sends messages on the connection that is better, if its stream is open.
    pub(super) fn use_preferred(&mut self) {
        let preferred = self.preferred;
        let mut streams = self.streams.iter();
        if streams.any(|s| Some(s.connection) == preferred && s.is_usable()) {
            self.active = preferred;
        }
    }
}

impl super::Stream {
    /// Returns `true` if the stream is open and the peer answers on its connection.
    fn is_usable(&self) -> bool {
        matches!(self.state, State::Open { .. }) && !self.used.unanswered
    }
}

#[cfg(test)]
mod tests;
