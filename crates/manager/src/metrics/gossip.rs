//! Metrics of topics.

use calimero_network_pubsub::MeshStats;
use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Unit,
};

use super::{Counters, Registries, counter, counters, gauge, level, set};

#[derive(Debug)]
pub(super) struct Gossip {
    topics: Gauge,
    topics_without_mesh: Gauge,
    peers: Gauge,
    mesh_peers: Gauge,
    published: Counter,
    delivered: Counter,
    duplicates: Counter,
    received_bytes: Counter,
    rejected: Counters<1>,
    announcements_refused: Counter,
    dropped: Counters<1>,
    banned: Counter,
    queued: Gauge,
    queued_bytes: Gauge,
    kept: Gauge,
    kept_bytes: Gauge,
}

impl Gossip {
    pub(super) fn new(registry: &mut Registries<'_>) -> Self {
        let (received_bytes, queued_bytes) = (Counter::default(), Gauge::default());
        let kept_bytes = Gauge::default();
        registry.register_with_unit(
            "gossip_payload_received",
            "Payload of messages with a valid signature that peers sent, duplicates included",
            Unit::Bytes,
            received_bytes.clone(),
        );
        registry.register_with_unit(
            "gossip_send_queue",
            "Size of the messages in the send queues of all peers",
            Unit::Bytes,
            queued_bytes.clone(),
        );
        registry.register_with_unit(
            "gossip_kept",
            "Payload of the messages that wait for a first subscriber",
            Unit::Bytes,
            kept_bytes.clone(),
        );
        Self {
            topics: gauge(
                registry,
                "gossip_topics",
                "Topics that this node subscribes to",
            ),
            topics_without_mesh: gauge(
                registry,
                "gossip_topics_without_mesh",
                "Topics with connected subscribers of which none is in the mesh",
            ),
            peers: gauge(
                registry,
                "gossip_peers",
                "Connected peers that speak gossipsub",
            ),
            mesh_peers: gauge(
                registry,
                "gossip_mesh_peers",
                "Peers in the meshes, summed over all topics",
            ),
            published: counter(
                registry,
                "gossip_messages_published",
                "Own messages that were sent",
            ),
            delivered: counter(
                registry,
                "gossip_messages_delivered",
                "Messages of others that were delivered to the application",
            ),
            duplicates: counter(
                registry,
                "gossip_messages_duplicate",
                "Messages of others that had arrived before",
            ),
            received_bytes,
            rejected: counters(
                registry,
                "gossip_messages_rejected",
                "Messages of others that were rejected, by reason",
                ["invalid", "replay", "too_large", "unsubscribed"].map(|why| [("reason", why)]),
            ),
            announcements_refused: counter(
                registry,
                "gossip_announcements_refused",
                "Subscriptions of peers that were refused because of a limit",
            ),
            dropped: counters(
                registry,
                "gossip_messages_dropped",
                "Messages dropped before they were sent to a peer, by reason",
                ["slow_peer", "limit_of_peer"].map(|why| [("reason", why)]),
            ),
            banned: counter(
                registry,
                "gossip_peers_banned",
                "Bans of peers that broke rules",
            ),
            queued: gauge(
                registry,
                "gossip_send_queue_messages",
                "Messages in the send queues of all peers",
            ),
            queued_bytes,
            kept: gauge(
                registry,
                "gossip_kept_messages",
                "Messages that wait for a first subscriber",
            ),
            kept_bytes,
        }
    }

    pub(super) fn refresh(&self, stats: &MeshStats) {
        let (topics, counts) = (&stats.topics, &stats.counters);
        let without_mesh = topics
            .iter()
            .filter(|topic| topic.mesh_peers == 0 && topic.subscribed_peers > 0);
        self.topics.set(level(topics.len()));
        self.topics_without_mesh.set(level(without_mesh.count()));
        self.peers.set(level(stats.peers));
        let mesh_peers = topics.iter().map(|topic| topic.mesh_peers).sum();
        self.mesh_peers.set(level(mesh_peers));
        set(&self.published, counts.published);
        set(&self.delivered, counts.delivered);
        set(&self.duplicates, counts.duplicates);
        set(&self.received_bytes, counts.copied_bytes);
        for (reason, count) in [
            ("invalid", counts.invalid_dropped),
            ("replay", counts.replays_dropped),
            ("too_large", counts.too_large_dropped),
            ("unsubscribed", counts.unsubscribed_dropped),
        ] {
            set(&self.rejected.get_or_create(&[("reason", reason)]), count);
        }
        set(&self.announcements_refused, counts.announcements_refused);
        for (reason, count) in [
            ("slow_peer", counts.lost_to_slow),
            ("limit_of_peer", counts.lost_to_limits),
        ] {
            set(&self.dropped.get_or_create(&[("reason", reason)]), count);
        }
        set(&self.banned, counts.banned);
        self.queued.set(level(stats.queued_messages));
        self.queued_bytes.set(level(stats.queued_bytes));
        self.kept.set(level(stats.kept_messages));
        self.kept_bytes.set(level(stats.kept_bytes));
    }
}
