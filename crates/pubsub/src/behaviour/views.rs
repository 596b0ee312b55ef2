//! Views of meshes and subscribers.

use calimero_network_primitives::{PeerId, Topic};

use super::Behaviour;
use crate::{keep::KeepBook, wire::topic_hash};

/// Counts since the behaviour was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Own messages sent.
    pub published: u64,
    /// Messages of others told to the application.
    pub delivered: u64,
    /// Messages of others that arrived with a valid signature, duplicates included.
    pub copies: u64,
    /// Bytes of their payloads.
    pub copied_bytes: u64,
    /// Messages dropped because they were unsigned, wrongly signed or malformed.
    pub invalid_dropped: u64,
    /// Messages dropped because they were repeated long after.
    pub replays_dropped: u64,
    /// Entries of announcements dropped because they were over the limits.
    pub announcements_refused: u64,
    /// Messages lost because a peer did not read in time.
    pub lost_to_slow: u64,
    /// Peers closed and dialled again because they had missed the announcements.
    pub repairs: u64,
    /// Bans.
    pub banned: u64,
}

/// The mesh of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicStats {
    /// The topic.
    pub topic: Topic,
    /// Peers with which its messages are exchanged in full.
    pub mesh_peers: usize,
    /// Connected peers that follow it.
    pub subscribed_peers: usize,
}

/// The state of all meshes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshStats {
    /// One entry for each topic that this node follows, in no order.
    pub topics: Vec<TopicStats>,
    /// Connected peers that speak gossipsub, or have not said yet what they speak.
    pub peers: usize,
    /// Messages kept for a first subscriber.
    pub kept_messages: usize,
    /// Bytes of their payloads.
    pub kept_bytes: usize,
    /// Counts since the behaviour was made.
    pub counters: Counters,
}

impl Behaviour {
    /// The topics that this node follows, in no order.
    pub fn topics(&self) -> impl ExactSizeIterator<Item = &Topic> {
        self.topics.values()
    }

    /// Whether this node follows `topic`.
    #[must_use]
    pub fn is_subscribed(&self, topic: &Topic) -> bool {
        self.topics.contains_key(&topic_hash(topic))
    }

    /// The peers with which messages of `topic` are exchanged in full.
    #[must_use]
    pub fn mesh_peers(&self, topic: &Topic) -> Vec<PeerId> {
        let hash = topic_hash(topic);
        self.gossipsub.mesh_peers(&hash).copied().collect()
    }

    /// How many peers there are in the mesh of `topic`.
    #[must_use]
    pub fn mesh_peer_count(&self, topic: &Topic) -> usize {
        self.gossipsub.mesh_peers(&topic_hash(topic)).count()
    }

    /// The connected peers that follow `topic`, as far as they have said so, in no order.
    #[must_use]
    pub fn subscribed_peers(&self, topic: &Topic) -> Vec<PeerId> {
        self.announcements.subscribers(&topic_hash(topic))
    }

    /// The state of all meshes.
    #[must_use]
    pub fn mesh_stats(&self) -> MeshStats {
        let topics = self.topics.iter().map(|(hash, topic)| TopicStats {
            topic: topic.clone(),
            mesh_peers: self.gossipsub.mesh_peers(hash).count(),
            subscribed_peers: self.announcements.subscriber_count(hash),
        });
        MeshStats {
            topics: topics.collect(),
            peers: self.gossipsub.peer_protocol().count(),
            kept_messages: self.keep.len(),
            kept_bytes: self.keep.bytes(),
            counters: self.counters,
        }
    }

    /// Messages that wait for a first subscriber.
    #[must_use]
    pub fn kept(&self) -> &KeepBook {
        &self.keep
    }
}
