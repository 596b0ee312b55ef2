//! Views of meshes and subscribers.

use calimero_network_primitives::Topic;

/// Counts since the behaviour was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Own messages that were sent.
    pub published: u64,
    /// Messages of others that were given to the application.
    pub delivered: u64,
    /// Messages of others that arrived with a valid signature, duplicates included.
    pub copies: u64,
    /// Bytes of their payloads.
    pub copied_bytes: u64,
    /// Messages of others that had arrived before. They are among `copies`.
    pub duplicates: u64,
    /// Messages dropped because they were unsigned, wrongly signed or malformed.
    pub invalid_dropped: u64,
    /// Messages dropped because they are old: repeated long after, or older than what their author
    /// has published since.
    pub replays_dropped: u64,
    /// Messages dropped because their payload is above the limit of this node.
    pub too_large_dropped: u64,
    /// Messages dropped because this node does not subscribe to their topic.
    pub unsubscribed_dropped: u64,
    /// Entries of announcements dropped because they were above the limits.
    pub announcements_refused: u64,
    /// Messages dropped because a peer did not read in time.
    pub lost_to_slow: u64,
    /// Messages that a peer could not get because it takes only smaller RPCs.
    pub lost_to_limits: u64,
    /// Bans that were imposed on peers.
    pub banned: u64,
}

/// The mesh of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicStats {
    /// The topic of the mesh.
    pub topic: Topic,
    /// Peers with which its messages are exchanged in full.
    pub mesh_peers: usize,
    /// Connected peers that subscribe to it.
    pub subscribed_peers: usize,
}

/// The state of all meshes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshStats {
    /// One entry for each topic to which this node subscribes, in no order.
    pub topics: Vec<TopicStats>,
    /// Connected peers that speak gossipsub, or have not negotiated yet.
    pub peers: usize,
    /// Messages kept for a first subscriber.
    pub kept_messages: usize,
    /// Bytes of their payloads.
    pub kept_bytes: usize,
    /// Messages that wait in the send queues of all peers, those in flight included.
    pub queued_messages: usize,
    /// Bytes of these messages.
    pub queued_bytes: usize,
    /// Counts since the behaviour was made.
    pub counters: Counters,
}
