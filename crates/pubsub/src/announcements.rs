//! Which peer subscribes to which topic, as far as it has announced.

use std::collections::{HashMap, HashSet, hash_map::Entry};

use calimero_network_primitives::PeerId;

use crate::{rpc::Subscription, wire::TopicHash};

/// Limits on topics to which this node does not subscribe itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ForeignLimits {
    /// Topics of one peer.
    pub(crate) per_peer: usize,
    /// Topics of all peers.
    pub(crate) total: usize,
}

#[derive(Debug, Default)]
struct Peer {
    topics: HashSet<TopicHash>,
    foreign: usize,
}

/// The topics to which peers have announced to subscribe.
///
/// Topics of this node are remembered of every peer, so no claim of a peer pushes out what
/// matters. [`ForeignLimits`] bound all others; an entry above them is refused, and the rest of
/// the announcement is accepted.
#[derive(Debug)]
pub(crate) struct Announcements {
    limits: ForeignLimits,
    peers: HashMap<PeerId, Peer>,
    own: HashMap<TopicHash, HashSet<PeerId>>,
    foreign: usize,
}

impl Announcements {
    pub(crate) fn new(limits: ForeignLimits) -> Self {
        Self {
            limits,
            peers: HashMap::new(),
            own: HashMap::new(),
            foreign: 0,
        }
    }

    /// This node subscribes to `topic` from now on.
    pub(crate) fn subscribe(&mut self, topic: &TopicHash) {
        if self.own.contains_key(topic) {
            return;
        }
        let mut subscribers = HashSet::new();
        for (id, peer) in &mut self.peers {
            if peer.topics.contains(topic) {
                peer.foreign -= 1;
                self.foreign -= 1;
                subscribers.insert(*id);
            }
        }
        self.own.insert(topic.clone(), subscribers);
    }

    /// This node unsubscribes from `topic`. Announcements of peers are kept.
    pub(crate) fn unsubscribe(&mut self, topic: &TopicHash) {
        for id in self.own.remove(topic).unwrap_or_default() {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.foreign += 1;
                self.foreign += 1;
            }
        }
    }

    /// `peer` subscribes to `topic`. Returns `None` if the topic is above the limits, else whether
    /// this is new.
    pub(crate) fn add(&mut self, id: PeerId, topic: &TopicHash) -> Option<bool> {
        let peer = self.peers.entry(id).or_default();
        if peer.topics.contains(topic) {
            return Some(false);
        }
        if let Some(subscribers) = self.own.get_mut(topic) {
            subscribers.insert(id);
        } else {
            if peer.foreign >= self.limits.per_peer || self.foreign >= self.limits.total {
                return None;
            }
            peer.foreign += 1;
            self.foreign += 1;
        }
        peer.topics.insert(topic.clone());
        Some(true)
    }

    /// `peer` unsubscribes from `topic`. Returns `false` if it did not subscribe to it.
    pub(crate) fn remove(&mut self, peer: PeerId, topic: &TopicHash) -> bool {
        let Entry::Occupied(mut entry) = self.peers.entry(peer) else {
            return false;
        };
        if !entry.get_mut().topics.remove(topic) {
            return false;
        }
        match self.own.get_mut(topic) {
            Some(subscribers) => {
                subscribers.remove(&peer);
            }
            None => {
                entry.get_mut().foreign -= 1;
                self.foreign -= 1;
            }
        }
        if entry.get().topics.is_empty() {
            entry.remove();
        }
        true
    }

    /// Forgets a peer that is no longer connected.
    pub(crate) fn forget(&mut self, peer: &PeerId) {
        let Some(known) = self.peers.remove(peer) else {
            return;
        };
        self.foreign -= known.foreign;
        for topic in &known.topics {
            if let Some(subscribers) = self.own.get_mut(topic) {
                subscribers.remove(peer);
            }
        }
    }

    /// The topics of `peer`, in no order.
    pub(crate) fn topics(&self, peer: &PeerId) -> impl Iterator<Item = &TopicHash> {
        self.peers
            .get(peer)
            .into_iter()
            .flat_map(|peer| &peer.topics)
    }

    pub(crate) fn is_subscribed(&self, peer: &PeerId, topic: &TopicHash) -> bool {
        (self.peers.get(peer)).is_some_and(|peer| peer.topics.contains(topic))
    }

    /// Returns `true` if `peer` and this node subscribe to the same topic.
    pub(crate) fn is_in_common(&self, peer: &PeerId) -> bool {
        let known = self.peers.get(peer);
        known.is_some_and(|peer| peer.topics.len() > peer.foreign)
    }

    /// The peers that subscribe to `topic`, in no order.
    pub(crate) fn subscribers(&self, topic: &TopicHash) -> Vec<PeerId> {
        match self.own.get(topic) {
            Some(subscribers) => subscribers.iter().copied().collect(),
            None => {
                let peers = self.peers.iter();
                let has = peers.filter(|(_, peer)| peer.topics.contains(topic));
                has.map(|(id, _)| *id).collect()
            }
        }
    }

    pub(crate) fn subscriber_count(&self, topic: &TopicHash) -> usize {
        match self.own.get(topic) {
            Some(subscribers) => subscribers.len(),
            None => self.subscribers(topic).len(),
        }
    }
}

/// Returns the entries of one announcement that count: the first of those that say the same of a
/// topic, none of those that contradict each other.
pub(crate) fn distinct(entries: Vec<Subscription>) -> Vec<Subscription> {
    let mut by_topic: HashMap<&TopicHash, (bool, bool)> = HashMap::with_capacity(entries.len());
    for entry in &entries {
        let said = by_topic.entry(&entry.topic).or_default();
        said.0 |= entry.subscribes;
        said.1 |= !entry.subscribes;
    }
    let contradicted: HashSet<TopicHash> = by_topic
        .iter()
        .filter(|(_, said)| said.0 && said.1)
        .map(|(topic, _)| (*topic).clone())
        .collect();
    let mut named = HashSet::with_capacity(entries.len());
    let counts = |entry: &Subscription| {
        !contradicted.contains(&entry.topic) && named.insert(entry.topic.clone())
    };
    let mut counts = counts;
    entries.into_iter().filter(|entry| counts(entry)).collect()
}

#[cfg(test)]
mod bounds;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn topic(number: usize) -> TopicHash {
        TopicHash::from_raw(format!("topic {number}"))
    }

    fn table(per_peer: usize, total: usize) -> Announcements {
        Announcements::new(ForeignLimits { per_peer, total })
    }

    /// Announces topics, and returns how many were refused.
    fn add(table: &mut Announcements, peer: PeerId, topics: std::ops::Range<usize>) -> usize {
        topics
            .filter(|n| table.add(peer, &topic(*n)).is_none())
            .count()
    }

    #[test]
    fn a_subscriber_of_100_000_topics_is_bounded_and_what_matters_is_kept() {
        let mut table = table(4_096, 262_144);
        let ours = topic(99_999);
        table.subscribe(&ours);
        let peer = PeerId::random();
        let refused = add(&mut table, peer, 0..100_000);
        assert_eq!(refused, 100_000 - 4_096 - 1);
        assert_eq!(table.foreign, 4_096);
        assert_eq!(table.subscribers(&ours), [peer]);

        table.forget(&peer);
        assert_eq!(table.foreign, 0);
        assert_eq!(table.subscriber_count(&ours), 0);
    }

    #[test]
    fn one_peer_too_many_topics_leaves_others_their_share() {
        let mut table = table(10, 15);
        let (greedy, modest) = (PeerId::random(), PeerId::random());
        add(&mut table, greedy, 0..100);
        assert_eq!(add(&mut table, modest, 0..5), 0);
        assert_eq!(table.foreign, 15);
    }

    #[test]
    fn a_topic_subscribed_later_knows_its_subscribers() {
        let mut table = table(10, 10);
        let peer = PeerId::random();
        add(&mut table, peer, 1..2);
        assert_eq!(table.subscribers(&topic(1)), [peer]);
        table.subscribe(&topic(1));
        assert_eq!(table.foreign, 0);
        assert!(table.is_in_common(&peer));
        assert_eq!(table.subscribers(&topic(1)), [peer]);
        table.unsubscribe(&topic(1));
        assert_eq!(table.subscribers(&topic(1)), [peer]);
        assert_eq!(table.foreign, 1);
    }

    #[test]
    fn an_unknown_topic_cannot_be_unsubscribed() {
        let mut table = table(10, 10);
        assert!(!table.remove(PeerId::random(), &topic(1)));
        assert_eq!(table.foreign, 0);
        assert!(table.peers.is_empty());
    }

    #[test]
    fn contradictions_and_repetitions_in_one_announcement_do_not_count() {
        let entry = |(n, subscribes)| Subscription {
            topic: topic(n),
            subscribes,
        };
        let said = [(1, true), (2, true), (1, false), (2, true), (3, true)];
        let counts = distinct(said.map(entry).to_vec());
        assert_eq!(counts, [(2, true), (3, true)].map(entry));
    }

    proptest! {
        /// The counters are what the entries are, and the index is what the peers announced.
        #[test]
        fn counters_and_index_agree_with_the_entries(
            steps in prop::collection::vec((0..5u8, 0..3usize, 0..12usize), 0..200),
        ) {
            let peers: Vec<_> = (0..3).map(|_| PeerId::random()).collect();
            let mut table = table(4, 9);
            for (step, peer, number) in steps {
                match step {
                    0 => drop(table.add(peers[peer], &topic(number))),
                    1 => drop(table.remove(peers[peer], &topic(number))),
                    2 => table.subscribe(&topic(number)),
                    3 => table.unsubscribe(&topic(number)),
                    _ if number == 0 => table.forget(&peers[peer]),
                    _ => drop(table.add(peers[peer], &topic(number))),
                }
                let mut total = 0;
                for (id, peer) in &table.peers {
                    let foreign = peer.topics.iter().filter(|t| !table.own.contains_key(*t));
                    prop_assert_eq!(foreign.count(), peer.foreign);
                    total += peer.foreign;
                    for topic in &peer.topics {
                        prop_assert!(table.own.get(topic).is_none_or(|own| own.contains(id)));
                    }
                }
                prop_assert_eq!(total, table.foreign);
                for (topic, own) in &table.own {
                    prop_assert!(own.iter().all(|id| table.is_subscribed(id, topic)));
                }
            }
        }
    }
}
