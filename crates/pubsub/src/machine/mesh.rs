//! The mesh of each topic, and the heartbeat that maintains it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use calimero_network_primitives::PeerId;
use rand::{rngs::StdRng, seq::SliceRandom};

use super::{
    Machine, count,
    outbox::{MAX_IDS, MeshChange},
    promises::Settled,
};
use crate::{
    event::Event,
    score::{Fault, GOSSIP_SCORE, MESH_SCORE, PUBLISH_SCORE},
    validate::Now,
    wire::TopicHash,
};

/// How long recipients of a topic without subscription are remembered after the last message, the
/// value of the specification.
pub(super) const FANOUT: Duration = Duration::from_secs(60);

/// Members with the highest scores that stay in a mesh that is too full, in number: half of the
/// smallest target.
const RETAINED: usize = 2;

/// Heartbeats between two attempts to take a better peer into a mesh, the value of
/// libp2p-gossipsub.
const OPPORTUNISTIC_HEARTBEATS: u64 = 60;

/// Peers taken in at one attempt, the value of libp2p-gossipsub.
const OPPORTUNISTIC_PEERS: usize = 2;

/// Peers outside the mesh that get offers, at least, the value of the specification.
const MIN_GOSSIP_PEERS: usize = 6;

/// Part of the peers outside the mesh that get offers: a quarter, the value of the specification.
const GOSSIP_PART: usize = 4;

/// Longest back-off that is accepted from a peer: an hour.
const MAX_BACKOFF: Duration = Duration::from_secs(3600);

/// Time by which the back-off of a peer may end later than ours: several round trips.
const BACKOFF_SLACK: Duration = Duration::from_millis(500);

/// Back-offs remembered, at most: for a thousand topics of a hundred peers.
const MAX_BACKOFFS: usize = 100_000;

/// Back-offs that are forgotten at a time when there are too many.
const FORGOTTEN_BACKOFFS: usize = MAX_BACKOFFS / 64;

/// Time after which own topics are announced again to a peer that has announced none, and how
/// often: it may believe that this node knows its topics from an earlier connection.
const NUDGE: Duration = Duration::from_secs(2);
const MAX_NUDGES: u32 = 2;

/// Chooses `number` of `peers` at random.
pub(super) fn choose(rng: &mut StdRng, mut peers: Vec<PeerId>, number: usize) -> Vec<PeerId> {
    peers.sort_unstable();
    peers.shuffle(rng);
    peers.truncate(number);
    peers
}

impl Machine {
    /// Takes peers into the mesh of a new topic.
    pub(super) fn join(&mut self, hash: &TopicHash, now: Now) {
        let fanout = self.fanout.remove(hash).map(|(peers, _)| peers);
        let target = self.config.mesh.target;
        let eligible = self.eligible(hash, now);
        let (mut chosen, others): (Vec<_>, Vec<_>) = eligible
            .into_iter()
            .partition(|peer| fanout.as_ref().is_some_and(|fanout| fanout.contains(peer)));
        chosen.truncate(target);
        let missing = target - chosen.len();
        chosen.extend(choose(&mut self.rng, others, missing));
        for peer in chosen {
            self.graft(peer, hash, now);
        }
    }

    /// Removes all peers from the mesh of a topic that this node leaves.
    pub(super) fn leave(&mut self, hash: &TopicHash, now: Now) {
        let mesh = self.topics.get(hash).map(|own| own.mesh.clone());
        for peer in mesh.unwrap_or_default() {
            let backoff = self.config.mesh.unsubscribe_backoff;
            self.prune(peer, hash, backoff, now);
        }
    }

    /// Subscribers that may be grafted.
    fn eligible(&self, hash: &TopicHash, now: Now) -> Vec<PeerId> {
        let mesh = self.topics.get(hash).map(|own| &own.mesh);
        let mut eligible = self.announcements.subscribers(hash);
        eligible.retain(|peer| {
            mesh.is_none_or(|mesh| !mesh.contains(peer))
                && !self.may_be_early(peer, hash, now.at)
                && self.scores.score(peer, now.at) >= MESH_SCORE
        });
        eligible.sort_unstable();
        eligible
    }

    fn is_backed_off(&self, peer: &PeerId, hash: &TopicHash, now: Instant) -> bool {
        let until = self.backoffs.get(&(hash.clone(), *peer));
        until.is_some_and(|until| *until > now)
    }

    /// The back-off has just ended here, and may not have at the peer, which learned of it later.
    fn may_be_early(&self, peer: &PeerId, hash: &TopicHash, now: Instant) -> bool {
        let until = self.backoffs.get(&(hash.clone(), *peer));
        until.is_some_and(|until| *until + BACKOFF_SLACK > now)
    }

    fn back_off(&mut self, peer: PeerId, hash: &TopicHash, backoff: Duration, now: Instant) {
        let key = (hash.clone(), peer);
        if self.backoffs.len() >= MAX_BACKOFFS
            && !self.backoffs_are_full
            && !self.backoffs.contains_key(&key)
        {
            self.forget_backoffs();
        }
        if self.backoffs.len() < MAX_BACKOFFS || self.backoffs.contains_key(&key) {
            let until = self.backoffs.entry(key).or_insert(now);
            *until = (*until).max(now + backoff);
        }
    }

    /// Forgets back-offs of peers that are not connected, those that end last first: peers choose
    /// the duration, so a long back-off has no priority. Removes several entries in one call,
    /// because each call examines all entries.
    fn forget_backoffs(&mut self) {
        let absent = self.backoffs.iter();
        let absent = absent.filter(|((_, peer), _)| !self.peers.contains_key(peer));
        let mut absent: Vec<_> = absent.map(|(key, until)| (*until, key.clone())).collect();
        let number = FORGOTTEN_BACKOFFS.min(absent.len());
        if number < absent.len() {
            absent.select_nth_unstable_by(number, |(one, _), (other, _)| other.cmp(one));
        }
        for (_, key) in &absent[..number] {
            self.backoffs.remove(key);
        }
        // Another examination of all of them would find none either.
        self.backoffs_are_full = number == 0;
    }

    fn insert(&mut self, peer: PeerId, hash: &TopicHash, now: Now) -> bool {
        let own = self.topics.get_mut(hash);
        let is_new = own.is_some_and(|own| own.mesh.insert(peer));
        if is_new {
            self.scores.grafted(peer, hash.clone(), now.at);
            self.exchanged(peer);
        }
        is_new
    }

    fn graft(&mut self, peer: PeerId, hash: &TopicHash, now: Now) {
        if self.insert(peer, hash, now) {
            self.tell_mesh(peer, hash, MeshChange::Graft);
        }
    }

    fn prune(&mut self, peer: PeerId, hash: &TopicHash, backoff: Duration, now: Now) {
        self.drop_from_mesh(peer, hash, now);
        self.back_off(peer, hash, backoff, now.at);
        let backoff = backoff.as_secs();
        self.tell_mesh(peer, hash, MeshChange::Prune { backoff });
    }

    fn tell_mesh(&mut self, id: PeerId, hash: &TopicHash, change: MeshChange) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.outbox.change_mesh(hash.clone(), change);
            self.dirty.insert(id);
        }
    }

    pub(super) fn drop_from_mesh(&mut self, peer: PeerId, hash: &TopicHash, now: Now) {
        if let Some(own) = self.topics.get_mut(hash)
            && own.mesh.remove(&peer)
        {
            self.scores.pruned(&peer, hash, now.at);
        }
    }

    /// A new subscriber is taken in at once where the mesh is too small.
    pub(super) fn graft_if_low(&mut self, peer: PeerId, hash: &TopicHash, now: Now) {
        let low = self.config.mesh.low;
        let is_low = self
            .topics
            .get(hash)
            .is_some_and(|own| own.mesh.len() < low);
        if is_low
            && !self.may_be_early(&peer, hash, now.at)
            && self.scores.score(&peer, now.at) >= MESH_SCORE
        {
            self.graft(peer, hash, now);
        }
    }

    /// A peer has taken this node into its mesh.
    pub(super) fn on_graft(&mut self, id: PeerId, hash: TopicHash, now: Now) {
        let Some(own) = self.topics.get(&hash) else {
            // Not answered: topics of this node are its own affair.
            return;
        };
        if own.mesh.contains(&id) {
            return;
        }
        let is_full = own.mesh.len() >= self.config.mesh.high;
        let inbound = self.peers.get(&id).is_some_and(|peer| !peer.dialled);
        if self.is_backed_off(&id, &hash, now.at) {
            self.fault(id, Fault::Backoff(1), 1, now);
        } else if self.scores.score(&id, now.at) >= MESH_SCORE && !(is_full && inbound) {
            self.insert(id, &hash, now);
            return;
        }
        let backoff = self.config.mesh.prune_backoff;
        self.prune(id, &hash, backoff, now);
    }

    /// A peer has removed this node from its mesh. One that neither subscribes nor has unsubscribed
    /// just before was in no mesh, and its back-off would only use an entry.
    pub(super) fn on_prune(&mut self, id: PeerId, hash: TopicHash, backoff: Option<u64>, now: Now) {
        let Some(own) = self.topics.get(&hash) else {
            return;
        };
        let has_left = |peer: &super::Peer| peer.left.contains(&hash);
        let is_known = own.mesh.contains(&id)
            || self.announcements.is_subscribed(&id, &hash)
            || self.peers.get(&id).is_some_and(has_left);
        if !is_known {
            return;
        }
        self.drop_from_mesh(id, &hash, now);
        let default = self.config.mesh.prune_backoff;
        let backoff = backoff.map_or(default, Duration::from_secs);
        self.back_off(id, &hash, backoff.min(MAX_BACKOFF), now.at);
    }

    pub(super) fn heartbeat(&mut self, now: Now) {
        let interval = self.config.mesh.heartbeat;
        // The rhythm is kept, unless the host was asleep.
        self.heartbeat_at = (self.heartbeat_at + interval).max(now.at + interval / 2);
        self.heartbeats += 1;
        for (peer, Settled { broken, kept }) in self.promises.settle(now.at) {
            self.fault(peer, Fault::Promise { broken, kept }, broken, now);
        }
        self.backoffs_are_full = false;
        self.backoffs
            .retain(|_, until| *until + BACKOFF_SLACK > now.at);
        self.fanout.retain(|_, (_, until)| *until > now.at);
        self.reopen(now.at);
        self.lost.expire(now.at);
        self.review_spares(now.at);
        self.review_peers(now);
        for hash in self.topics.keys().cloned().collect::<Vec<_>>() {
            self.maintain(&hash, now);
        }
        self.gossip(now);
        self.cache.shift();
        self.on_room(now);
    }

    /// Reports and closes peers that do not read, and announces to those that are silent.
    fn review_peers(&mut self, now: Now) {
        let timeout = self.config.peers.slow_timeout;
        let ids: Vec<_> = self.peers.keys().copied().collect();
        for id in ids {
            let Some(peer) = self.peers.get_mut(&id) else {
                continue;
            };
            (peer.offers, peer.requested) = (0, 0);
            peer.outbox.forget_unwanted();
            let lost = std::mem::take(&mut peer.outbox.lost);
            let is_over = peer.outbox.stalled_for(now.at) >= timeout && !peer.closing;
            let is_silent = !peer.lists && !peer.unsupported && peer.nudges < MAX_NUDGES;
            let nudge_at = peer.since + NUDGE * 4_u32.pow(peer.nudges);
            let nudge = is_silent
                && nudge_at <= now.at
                && peer.version().is_some()
                && self.announcements.topics(&id).next().is_none();
            if nudge {
                peer.nudges += 1;
            }
            if !peer.missed.is_empty() {
                self.dirty.insert(id);
            }
            if lost > 0 {
                self.counters.lost_to_slow += count(lost);
                self.emit(Event::Slow { peer: id, lost });
            }
            if is_over {
                self.emit(Event::ClosedSlow { peer: id });
                self.close(id);
            }
            if nudge {
                self.nudge(id, now);
            }
        }
    }

    /// Unsubscribes and subscribes, for one peer: it takes this node for a new member and grafts
    /// it, which shows that it subscribes.
    fn nudge(&mut self, id: PeerId, now: Now) {
        let hashes: Vec<_> = self.topics.keys().cloned().collect();
        for subscribes in [false, true] {
            if let Some(peer) = self.peers.get_mut(&id) {
                for hash in &hashes {
                    peer.outbox.announce(hash.clone(), subscribes);
                }
            }
            // Two RPCs: one that contradicts itself is ignored.
            self.flush_peer(id, now);
        }
    }

    /// Corrects the mesh of one topic.
    fn maintain(&mut self, hash: &TopicHash, now: Now) {
        let backoff = self.config.mesh.prune_backoff;
        let (low, target, high, outbound_min) = {
            let mesh = &self.config.mesh;
            (mesh.low, mesh.target, mesh.high, mesh.outbound_min)
        };
        let members = |machine: &Self| {
            let own = machine.topics.get(hash);
            own.map_or(Vec::new(), |own| own.mesh.iter().copied().collect())
        };
        for peer in members(self) {
            if self.scores.score(&peer, now.at) < MESH_SCORE {
                self.prune(peer, hash, backoff, now);
            }
        }
        let mesh = members(self);
        if mesh.len() < low {
            let eligible = self.eligible(hash, now);
            for peer in choose(&mut self.rng, eligible, target - mesh.len()) {
                self.graft(peer, hash, now);
            }
        } else if mesh.len() > high {
            for peer in self.surplus(mesh, target, outbound_min, now) {
                self.prune(peer, hash, backoff, now);
            }
        }
        let mesh = members(self);
        let outbound = mesh.iter().filter(|peer| self.is_outbound(peer)).count();
        if mesh.len() >= low && outbound < outbound_min {
            let mut eligible = self.eligible(hash, now);
            eligible.retain(|peer| self.is_outbound(peer));
            for peer in choose(&mut self.rng, eligible, outbound_min - outbound) {
                self.graft(peer, hash, now);
            }
        }
        if self.heartbeats.is_multiple_of(OPPORTUNISTIC_HEARTBEATS) && mesh.len() > 1 {
            self.graft_better(hash, &mesh, now);
        }
    }

    fn is_outbound(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_some_and(|peer| peer.dialled)
    }

    /// Members of a mesh that is too full which leave it: not the best ones, others at random, and
    /// never so many outbound ones that too few stay.
    fn surplus(
        &mut self,
        mut mesh: Vec<PeerId>,
        target: usize,
        outbound_min: usize,
        now: Now,
    ) -> Vec<PeerId> {
        mesh.shuffle(&mut self.rng);
        let score = |peer: &PeerId| self.scores.score(peer, now.at);
        mesh.sort_by(|one, other| score(other).total_cmp(&score(one)));
        let retained = RETAINED.min(target);
        mesh[retained..].shuffle(&mut self.rng);
        let outbound = |peer: &PeerId| self.is_outbound(peer);
        let (mut stay, mut leave): (Vec<_>, Vec<_>) =
            (mesh[..target].to_vec(), mesh[target..].to_vec());
        let mut missing = outbound_min.saturating_sub(stay.iter().filter(|p| outbound(p)).count());
        for place in stay.iter_mut().skip(retained).rev() {
            if missing == 0 {
                break;
            }
            if !outbound(place)
                && let Some(better) = leave.iter_mut().find(|peer| outbound(peer))
            {
                std::mem::swap(place, better);
                missing -= 1;
            }
        }
        leave
    }

    /// Takes peers in whose score is above the median of the mesh, where that is not better than
    /// peers of which nothing is known.
    fn graft_better(&mut self, hash: &TopicHash, mesh: &[PeerId], now: Now) {
        let mut scores: Vec<_> = mesh
            .iter()
            .map(|peer| self.scores.score(peer, now.at))
            .collect();
        scores.sort_by(f64::total_cmp);
        let median = scores[scores.len() / 2];
        if median > crate::score::BASE_SCORE + 1.0 {
            return;
        }
        let mut better = self.eligible(hash, now);
        // By a point at least: less is chance.
        better.retain(|peer| self.scores.score(peer, now.at) > median + 1.0);
        for peer in choose(&mut self.rng, better, OPPORTUNISTIC_PEERS) {
            self.graft(peer, hash, now);
        }
    }

    /// Offers the messages of the last heartbeats to some peers outside the mesh.
    fn gossip(&mut self, now: Now) {
        let offers = self.cache.offers();
        let mut by_peer: BTreeMap<PeerId, Vec<_>> = BTreeMap::new();
        for (hash, ids) in offers {
            let fanout = self.fanout.get(&hash).map(|(peers, _)| peers);
            let own = self.topics.get(&hash).map(|own| &own.mesh);
            // A topic that this node has left is not offered.
            let Some(mesh) = own.or(fanout) else {
                continue;
            };
            let mut others = self.announcements.subscribers(&hash);
            others.retain(|peer| {
                !mesh.contains(peer) && self.scores.score(peer, now.at) >= GOSSIP_SCORE
            });
            let number = MIN_GOSSIP_PEERS.max(others.len() / GOSSIP_PART);
            for peer in choose(&mut self.rng, others, number) {
                let mut some = ids.clone();
                if some.len() > MAX_IDS {
                    some.shuffle(&mut self.rng);
                    some.truncate(MAX_IDS);
                }
                by_peer.entry(peer).or_default().push((hash.clone(), some));
            }
        }
        for (id, offers) in by_peer {
            if let Some(peer) = self.peers.get_mut(&id) {
                offers
                    .into_iter()
                    .for_each(|(hash, ids)| peer.outbox.offer(hash, ids));
                self.dirty.insert(id);
            }
        }
        // Fan-out recipients that may not get own messages any more.
        for (peers, _) in self.fanout.values_mut() {
            peers.retain(|peer| self.scores.score(peer, now.at) >= PUBLISH_SCORE);
        }
    }
}

#[cfg(test)]
mod tests;
