//! Which peer follows which topic, as far as it has said so.

use std::collections::{HashMap, HashSet, hash_map::Entry};

use calimero_network_primitives::PeerId;
use libp2p_gossipsub::TopicHash;

/// How many topics that this node does not follow are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForeignLimits {
    /// Of one peer.
    pub per_peer: usize,
    /// Of all peers.
    pub total: usize,
}

/// What an announcement changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The peer follows the topic, which was not known.
    New,
    /// The peer says again what is known.
    Repeated,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Let through, but whether it joins or leaves is not known yet.
    Admitted,
    /// The peer follows the topic.
    Follows,
}

#[derive(Debug, Default)]
struct Peer {
    topics: HashMap<TopicHash, State>,
    foreign: usize,
}

/// The topics that peers say they follow.
///
/// Entries pass in two steps, because gossipsub does not show whether an entry joins or leaves
/// before it has acted on it: [`sift`](Self::sift) decides which entries of a message gossipsub
/// gets to see, [`joined`](Self::joined) and [`left`](Self::left) take in what it made of them.
///
/// # Bounds
///
/// Topics that this node follows are remembered of every peer, so what a peer claims can never
/// push out what matters. Of all others, [`ForeignLimits`] hold; what is over them is refused
/// entry by entry, and the rest of the announcement stands.
#[derive(Debug)]
pub struct Announcements {
    limits: ForeignLimits,
    peers: HashMap<PeerId, Peer>,
    followed: HashMap<TopicHash, HashSet<PeerId>>,
    foreign: usize,
}

impl Announcements {
    /// A table without peers and topics.
    #[must_use]
    pub fn new(limits: ForeignLimits) -> Self {
        Self {
            limits,
            peers: HashMap::new(),
            followed: HashMap::new(),
            foreign: 0,
        }
    }

    /// This node follows `topic` from now on.
    pub fn follow(&mut self, topic: &TopicHash) {
        if self.followed.contains_key(topic) {
            return;
        }
        let mut subscribers = HashSet::new();
        for (id, peer) in &mut self.peers {
            if let Some(state) = peer.topics.get(topic) {
                peer.foreign -= 1;
                self.foreign -= 1;
                if *state == State::Follows {
                    subscribers.insert(*id);
                }
            }
        }
        self.followed.insert(topic.clone(), subscribers);
    }

    /// This node no longer follows `topic`. What peers said of it is kept.
    pub fn unfollow(&mut self, topic: &TopicHash) {
        if self.followed.remove(topic).is_none() {
            return;
        }
        for peer in self.peers.values_mut() {
            if peer.topics.contains_key(topic) {
                peer.foreign += 1;
                self.foreign += 1;
            }
        }
    }

    /// Takes out of the `entries` that `peer` sent in one message those that must not be acted
    /// upon, and says how many were over the limits.
    ///
    /// Entries of one topic that contradict each other fall away, as repetitions do; `topic` and
    /// `alike` say what an entry is about and whether two do the same. `valid` refuses topics
    /// that cannot exist.
    pub fn sift<E>(
        &mut self,
        peer: PeerId,
        entries: &mut Vec<E>,
        topic: impl Fn(&E) -> &TopicHash,
        alike: impl Fn(&E, &E) -> bool,
        valid: impl Fn(&TopicHash) -> bool,
    ) -> usize {
        let mut keep = distinct(entries, &topic, alike);
        let mut refused = 0;
        for (entry, keep) in entries.iter().zip(&mut keep) {
            if *keep && !(valid(topic(entry)) && self.admit(peer, topic(entry))) {
                *keep = false;
                refused += 1;
            }
        }
        let mut keep = keep.into_iter();
        entries.retain(|_| keep.next().unwrap_or(false));
        refused
    }

    fn admit(&mut self, id: PeerId, topic: &TopicHash) -> bool {
        let peer = self.peers.entry(id).or_default();
        if peer.topics.contains_key(topic) {
            return true;
        }
        if !self.followed.contains_key(topic) {
            if peer.foreign >= self.limits.per_peer || self.foreign >= self.limits.total {
                return false;
            }
            peer.foreign += 1;
            self.foreign += 1;
        }
        peer.topics.insert(topic.clone(), State::Admitted);
        true
    }

    /// `peer` follows `topic`. `None` where the topic was not let through.
    pub fn joined(&mut self, peer: PeerId, topic: &TopicHash) -> Option<Change> {
        let state = self.peers.get_mut(&peer)?.topics.get_mut(topic)?;
        if *state == State::Follows {
            return Some(Change::Repeated);
        }
        *state = State::Follows;
        if let Some(subscribers) = self.followed.get_mut(topic) {
            subscribers.insert(peer);
        }
        Some(Change::New)
    }

    /// `peer` follows `topic` no longer. `false` where it did not.
    pub fn left(&mut self, peer: PeerId, topic: &TopicHash) -> bool {
        let Entry::Occupied(mut entry) = self.peers.entry(peer) else {
            return false;
        };
        let Some(state) = entry.get_mut().topics.remove(topic) else {
            return false;
        };
        match self.followed.get_mut(topic) {
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
        state == State::Follows
    }

    /// `peer` is no longer connected, and all that it said is void.
    pub fn gone(&mut self, peer: PeerId) {
        let Some(known) = self.peers.remove(&peer) else {
            return;
        };
        self.foreign -= known.foreign;
        for topic in known.topics.keys() {
            if let Some(subscribers) = self.followed.get_mut(topic) {
                subscribers.remove(&peer);
            }
        }
    }

    /// Whether this node follows `topic`.
    #[must_use]
    pub fn follows(&self, topic: &TopicHash) -> bool {
        self.followed.contains_key(topic)
    }

    /// Whether `peer` has said that it follows `topic`.
    #[must_use]
    pub fn is_subscribed(&self, peer: &PeerId, topic: &TopicHash) -> bool {
        self.peers
            .get(peer)
            .is_some_and(|peer| peer.topics.get(topic) == Some(&State::Follows))
    }

    /// Whether `peer` has named a topic that this node follows too.
    #[must_use]
    pub fn is_in_common(&self, peer: &PeerId) -> bool {
        let known = self.peers.get(peer);
        known.is_some_and(|peer| peer.topics.len() > peer.foreign)
    }

    /// The peers that have said they follow `topic`, in no order.
    pub fn subscribers<'a>(&'a self, topic: &'a TopicHash) -> Vec<PeerId> {
        match self.followed.get(topic) {
            Some(subscribers) => subscribers.iter().copied().collect(),
            None => {
                let peers = self.peers.keys().copied();
                peers.filter(|id| self.is_subscribed(id, topic)).collect()
            }
        }
    }

    /// How many peers have said they follow `topic`.
    #[must_use]
    pub fn subscriber_count(&self, topic: &TopicHash) -> usize {
        match self.followed.get(topic) {
            Some(subscribers) => subscribers.len(),
            None => self.subscribers(topic).len(),
        }
    }

    /// Topics remembered that this node does not follow, of all peers.
    #[must_use]
    pub fn foreign(&self) -> usize {
        self.foreign
    }
}

/// Which entries stand: the first of those that say the same of one topic, none of those that
/// contradict each other.
fn distinct<E>(
    entries: &[E],
    topic: impl Fn(&E) -> &TopicHash,
    alike: impl Fn(&E, &E) -> bool,
) -> Vec<bool> {
    let mut keep = vec![true; entries.len()];
    let mut first: HashMap<&TopicHash, usize> = HashMap::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        match first.entry(topic(entry)) {
            Entry::Vacant(vacant) => {
                vacant.insert(index);
            }
            Entry::Occupied(occupied) => {
                keep[index] = false;
                if !alike(&entries[*occupied.get()], entry) {
                    keep[*occupied.get()] = false;
                }
            }
        }
    }
    keep
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Said = (TopicHash, bool);

    fn topic(number: usize) -> TopicHash {
        TopicHash::from_raw(format!("topic {number}"))
    }

    fn sift(table: &mut Announcements, peer: PeerId, said: &mut Vec<Said>) -> usize {
        table.sift(
            peer,
            said,
            |(topic, _)| topic,
            |(_, one), (_, other)| one == other,
            |_| true,
        )
    }

    /// What gossipsub does with a message: sifted, then applied.
    fn say(table: &mut Announcements, peer: PeerId, mut said: Vec<Said>) -> usize {
        let refused = sift(table, peer, &mut said);
        for (topic, joins) in said {
            if joins {
                table.joined(peer, &topic);
            } else {
                table.left(peer, &topic);
            }
        }
        refused
    }

    fn table(per_peer: usize, total: usize) -> Announcements {
        Announcements::new(ForeignLimits { per_peer, total })
    }

    #[test]
    fn a_subscriber_of_100_000_topics_is_bounded_and_what_matters_is_kept() {
        let mut table = table(4_096, 262_144);
        let ours = topic(99_999);
        table.follow(&ours);
        let peer = PeerId::random();
        let mut refused = 0;
        for part in 0..10 {
            let from = part * 10_000;
            let said = (from..from + 10_000).map(|n| (topic(n), true)).collect();
            refused += say(&mut table, peer, said);
        }
        assert_eq!(refused, 100_000 - 4_096 - 1);
        assert_eq!(table.foreign(), 4_096);
        assert_eq!(table.subscribers(&ours), [peer]);

        table.gone(peer);
        assert_eq!(table.foreign(), 0);
        assert_eq!(table.subscriber_count(&ours), 0);
    }

    #[test]
    fn one_peer_too_many_topics_leaves_others_their_share() {
        let mut table = table(10, 15);
        let (greedy, modest) = (PeerId::random(), PeerId::random());
        say(
            &mut table,
            greedy,
            (0..100).map(|n| (topic(n), true)).collect(),
        );
        let refused = say(
            &mut table,
            modest,
            (0..5).map(|n| (topic(n), true)).collect(),
        );
        assert_eq!(refused, 0);
        assert_eq!(table.foreign(), 15);
    }

    #[test]
    fn a_topic_followed_later_knows_its_subscribers() {
        let mut table = table(10, 10);
        let peer = PeerId::random();
        say(&mut table, peer, vec![(topic(1), true)]);
        assert_eq!(table.subscribers(&topic(1)), [peer]);
        table.follow(&topic(1));
        assert_eq!(table.foreign(), 0);
        assert_eq!(table.subscribers(&topic(1)), [peer]);
        table.unfollow(&topic(1));
        assert_eq!(table.subscribers(&topic(1)), [peer]);
        assert_eq!(table.foreign(), 1);
    }

    #[test]
    fn leaving_what_was_never_joined_is_nothing() {
        let mut table = table(10, 10);
        let peer = PeerId::random();
        let mut said = vec![(topic(1), false)];
        assert_eq!(sift(&mut table, peer, &mut said), 0);
        assert!(!table.left(peer, &topic(1)));
        assert_eq!(table.foreign(), 0);
        assert!(table.peers.is_empty());
    }

    #[test]
    fn contradictions_and_repetitions_in_one_message_fall_away() {
        let mut table = table(10, 10);
        let peer = PeerId::random();
        let mut said = vec![
            (topic(1), true),
            (topic(2), true),
            (topic(1), false),
            (topic(2), true),
            (topic(3), true),
        ];
        assert_eq!(sift(&mut table, peer, &mut said), 0);
        assert_eq!(said, [(topic(2), true), (topic(3), true)]);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Say(usize, Vec<(usize, bool)>),
        Gone(usize),
        Follow(usize),
        Unfollow(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let said = prop::collection::vec((0..12usize, any::<bool>()), 1..8);
        prop::collection::vec(
            prop_oneof![
                6 => (0..3usize, said).prop_map(|(peer, said)| Step::Say(peer, said)),
                1 => (0..3usize).prop_map(Step::Gone),
                1 => (0..12usize).prop_map(Step::Follow),
                1 => (0..12usize).prop_map(Step::Unfollow),
            ],
            0..60,
        )
    }

    proptest! {
        /// The counters are what the entries say, the index is what the peers say, and only own
        /// topics that were left afterwards stand above the limits.
        #[test]
        fn counters_and_index_agree_with_the_entries(steps in steps()) {
            let peers: Vec<_> = (0..3).map(|_| PeerId::random()).collect();
            let mut table = table(4, 9);
            let mut unfollowed = 0;
            for step in steps {
                match step {
                    Step::Say(peer, said) => {
                        let said = said.into_iter().map(|(n, joins)| (topic(n), joins));
                        say(&mut table, peers[peer], said.collect());
                    }
                    Step::Gone(peer) => table.gone(peers[peer]),
                    Step::Follow(n) => table.follow(&topic(n)),
                    Step::Unfollow(n) => {
                        unfollowed += table.subscriber_count(&topic(n));
                        table.unfollow(&topic(n));
                    }
                }
                let mut total = 0;
                for (id, peer) in &table.peers {
                    let foreign = peer.topics.keys().filter(|t| !table.follows(t)).count();
                    prop_assert_eq!(foreign, peer.foreign);
                    prop_assert!(foreign <= 4 + unfollowed);
                    total += foreign;
                    for (topic, state) in &peer.topics {
                        prop_assert_eq!(*state, State::Follows);
                        if let Some(index) = table.followed.get(topic) {
                            prop_assert!(index.contains(id));
                        }
                    }
                }
                prop_assert_eq!(total, table.foreign());
                for (topic, index) in &table.followed {
                    for peer in index {
                        prop_assert!(table.is_subscribed(peer, topic));
                    }
                }
            }
        }
    }
}
