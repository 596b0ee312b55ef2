//! Keys that earlier versions had, and what became of them.

/// The keys of 0.1.0 that no longer exist, each with its replacement or its fixed value, in the order of
/// that version's reference.
const REMOVED: &[(&str, &str)] = &[
    ("transport.handshake_timeout_ms", "is now fixed: 10000"),
    ("transport.tcp.tls", "is now fixed: true"),
    ("transport.tcp.noise", "is now fixed: true"),
    ("transport.tcp.backlog", "is now fixed: 1024"),
    ("transport.yamux.max_streams", "is now fixed: 2048"),
    ("transport.yamux.split_send_bytes", "is now fixed: 16384"),
    (
        "transport.yamux.connection_window_bytes",
        "is now fixed: 553648128",
    ),
    ("transport.quic.idle_timeout_ms", "is now fixed: 10000"),
    ("transport.quic.keep_alive_ms", "is now fixed: 5000"),
    ("transport.quic.max_streams", "is now fixed: 2048"),
    (
        "transport.quic.stream_window_bytes",
        "is now fixed: 16777216",
    ),
    (
        "transport.quic.connection_window_bytes",
        "is now fixed: 20971520",
    ),
    ("transport.quic.send_window_bytes", "is now fixed: 16777216"),
    ("connections.max_pending_inbound", "is now fixed: 128"),
    ("connections.max_pending_outbound", "is now fixed: 128"),
    ("connections.max_per_peer", "is now fixed: 8"),
    ("connections.dial_timeout_ms", "is now fixed: 30000"),
    ("connections.listen_timeout_ms", "is now fixed: 5000"),
    ("streams.accept_queue", "is now fixed: 1024"),
    (
        "streams.max_negotiating_per_connection",
        "is now fixed: 256",
    ),
    ("streams.max_outbound_per_connection", "is now fixed: 384"),
    ("streams.max_waiting_per_peer", "is now fixed: 4096"),
    ("streams.open_timeout_ms", "is now fixed: 30000"),
    ("streams.max_frame_bytes", "is now fixed: 8388608"),
    ("streams.write_buffer_bytes", "is now fixed: 65536"),
    ("streams.read_buffer_bytes", "is now fixed: 65536"),
    ("discovery.tick_ms", "is now fixed: 5000"),
    ("discovery.book.max_addresses_per_peer", "is now fixed: 4"),
    ("discovery.book.max_peers", "is now `discovery.max_peers`"),
    ("discovery.book.max_age_ms", "is now fixed: 86400000"),
    ("discovery.book.max_dial_failures", "is now fixed: 3"),
    ("discovery.dials.max_in_flight", "is now fixed: 64"),
    ("discovery.dials.max_queued", "is now fixed: 256"),
    ("discovery.dials.timeout_ms", "is now fixed: 35000"),
    ("discovery.dials.rest_ms", "is now fixed: 30000"),
    ("discovery.dials.max_per_answer", "is now fixed: 16"),
    (
        "discovery.dials.members_target",
        "is now `discovery.members_target`",
    ),
    (
        "discovery.redial.steps_ms",
        "is now fixed: [0, 5000, 15000, 30000, 60000]",
    ),
    ("discovery.redial.interval_ms", "is now fixed: 15000"),
    ("discovery.redial.max_peers", "is now fixed: 1024"),
    ("discovery.rendezvous.ttl_ms", "is now fixed: 7200000"),
    (
        "discovery.rendezvous.max_registrations_per_server",
        "is now fixed: 31",
    ),
    ("discovery.rendezvous.rotation_ms", "is now fixed: 600000"),
    ("discovery.rendezvous.timeout_ms", "is now fixed: 20000"),
    ("discovery.rendezvous.min_backoff_ms", "is now fixed: 2000"),
    (
        "discovery.rendezvous.max_backoff_ms",
        "is now fixed: 120000",
    ),
    ("discovery.rendezvous.interval_ms", "is now fixed: 60000"),
    (
        "discovery.rendezvous.alone_interval_ms",
        "is now fixed: 5000",
    ),
    ("discovery.rendezvous.max_answer", "is now fixed: 64"),
    (
        "discovery.rendezvous.discoveries_per_tick",
        "is now fixed: 32",
    ),
    ("discovery.rendezvous.max_overlays", "is now fixed: 1024"),
    ("discovery.rendezvous.max_members", "is now fixed: 128"),
    ("discovery.relay.reservations", "is now `discovery.relays`"),
    ("discovery.relay.timeout_ms", "is now fixed: 45000"),
    ("discovery.relay.lifetime_ms", "is now fixed: 3900000"),
    ("discovery.relay.min_backoff_ms", "is now fixed: 2000"),
    ("discovery.relay.max_backoff_ms", "is now fixed: 60000"),
    ("discovery.relay.patience_ms", "is now fixed: 2000"),
    (
        "discovery.relay.punch_min_backoff_ms",
        "is now fixed: 45000",
    ),
    (
        "discovery.relay.punch_max_backoff_ms",
        "is now fixed: 300000",
    ),
    ("discovery.reachability.max_candidates", "is now fixed: 8"),
    (
        "discovery.reachability.probe_timeout_ms",
        "is now fixed: 60000",
    ),
    ("discovery.reachability.retest_ms", "is now fixed: 900000"),
    (
        "discovery.reachability.min_backoff_ms",
        "is now fixed: 30000",
    ),
    (
        "discovery.reachability.max_backoff_ms",
        "is now fixed: 900000",
    ),
    ("discovery.reachability.failures_to_lose", "is now fixed: 2"),
    ("discovery.cache.max_peers", "is now fixed: 256"),
    ("discovery.cache.dialled_at_start", "is now fixed: 32"),
    (
        "discovery.cache.save_interval_ms",
        "is now `discovery.cache_save_interval_ms`",
    ),
    ("discovery.records.ttl_ms", "is now fixed: 43200000"),
    (
        "discovery.records.publication_interval_ms",
        "is now fixed: 21600000",
    ),
    (
        "discovery.records.replication_interval_ms",
        "is now fixed: 3600000",
    ),
    (
        "server.rendezvous.max_registrations_per_peer",
        "is now fixed: 64",
    ),
    (
        "server.rendezvous.max_registrations_per_namespace",
        "is now fixed: 20000",
    ),
    ("server.rendezvous.max_record_bytes", "is now fixed: 4096"),
    ("server.rendezvous.max_answer", "is now fixed: 128"),
    ("server.rendezvous.max_answer_bytes", "is now fixed: 262144"),
    ("server.rendezvous.min_ttl_ms", "is now fixed: 7200000"),
    ("server.rendezvous.max_ttl_ms", "is now fixed: 259200000"),
    (
        "server.rendezvous.max_requests_per_connection",
        "is now fixed: 100",
    ),
    ("server.rendezvous.max_requests", "is now fixed: 4096"),
    ("server.rendezvous.request_burst", "is now fixed: 256"),
    ("server.rendezvous.requests_per_second", "is now fixed: 8"),
    (
        "server.rendezvous.request_timeout_ms",
        "is now fixed: 10000",
    ),
    ("server.relay.max_reservations_per_peer", "is now fixed: 4"),
    (
        "server.relay.reservation_duration_ms",
        "is now fixed: 3600000",
    ),
    (
        "server.relay.reservation_rate_per_peer.burst",
        "is now fixed: 30",
    ),
    (
        "server.relay.reservation_rate_per_peer.interval_ms",
        "is now fixed: 120000",
    ),
    (
        "server.relay.reservation_rate_per_ip.burst",
        "is now fixed: 512",
    ),
    (
        "server.relay.reservation_rate_per_ip.interval_ms",
        "is now fixed: 1000",
    ),
    (
        "server.relay.circuit_rate_per_peer.burst",
        "is now fixed: 30",
    ),
    (
        "server.relay.circuit_rate_per_peer.interval_ms",
        "is now fixed: 10000",
    ),
    (
        "server.relay.circuit_rate_per_ip.burst",
        "is now fixed: 512",
    ),
    (
        "server.relay.circuit_rate_per_ip.interval_ms",
        "is now fixed: 1000",
    ),
    (
        "pubsub.mesh.target",
        "is now set by `pubsub.mesh`, `small` or `large`",
    ),
    (
        "pubsub.mesh.low",
        "is now set by `pubsub.mesh`, `small` or `large`",
    ),
    (
        "pubsub.mesh.high",
        "is now set by `pubsub.mesh`, `small` or `large`",
    ),
    (
        "pubsub.mesh.outbound_min",
        "is now set by `pubsub.mesh`, `small` or `large`",
    ),
    (
        "pubsub.mesh.flood_publish",
        "is now set by `pubsub.mesh`, `small` or `large`",
    ),
    (
        "pubsub.mesh.heartbeat_ms",
        "is now set by `pubsub.mesh`, `small` or `large`",
    ),
    (
        "pubsub.mesh.prune_backoff_ms",
        "is now set by `pubsub.mesh`, `small` or `large`",
    ),
    (
        "pubsub.mesh.unsubscribe_backoff_ms",
        "is now set by `pubsub.mesh`, `small` or `large`",
    ),
    (
        "pubsub.mesh.announce_arrival_bytes",
        "is now set by `pubsub.mesh`, `small` or `large`",
    ),
    (
        "pubsub.memory.ids_ms",
        "is now fixed: a copy is a replay after 30 s",
    ),
    ("pubsub.memory.replayed_ids", "is now fixed: 262144"),
    ("pubsub.memory.history_heartbeats", "is now fixed: 30"),
    ("pubsub.memory.gossip_heartbeats", "is now fixed: 3"),
    (
        "pubsub.peers.max_foreign_topics_per_peer",
        "is now fixed: 4096",
    ),
    ("pubsub.peers.max_foreign_topics", "is now fixed: 65536"),
    ("pubsub.peers.queue", "is now fixed: 4096"),
    ("pubsub.peers.queue_bytes", "is now fixed: 67108864"),
    ("pubsub.peers.window", "is now fixed: 256"),
    ("pubsub.peers.window_bytes", "is now fixed: 4194304"),
    ("pubsub.peers.hold_ms", "is now fixed: 2000"),
    ("pubsub.peers.publish_wait_ms", "is now fixed: 5000"),
    ("pubsub.peers.forward_wait_ms", "is now fixed: 5000"),
    ("pubsub.peers.slow_timeout_ms", "is now fixed: 10000"),
    ("pubsub.peers.ban_ms", "is now fixed: 60000"),
    ("pubsub.keep.max_time_ms", "is now fixed: 60000"),
    ("pubsub.keep.max_messages", "is now fixed: 1024"),
    ("pubsub.keep.max_bytes", "is now fixed: 16777216"),
    (
        "pubsub.repair.enabled",
        "is no longer needed: no connection is closed to repair a mesh",
    ),
    (
        "pubsub.repair.grace_ms",
        "is no longer needed: no connection is closed to repair a mesh",
    ),
    (
        "pubsub.repair.cooldown_ms",
        "is no longer needed: no connection is closed to repair a mesh",
    ),
    ("specialized.max_inbound_per_connection", "is now fixed: 8"),
    ("specialized.max_inbound", "is now fixed: 128"),
    ("specialized.max_outbound_per_connection", "is now fixed: 8"),
    ("specialized.max_outbound", "is now fixed: 256"),
    ("specialized.max_message_bytes", "is now fixed: 1048576"),
    ("specialized.receive_timeout_ms", "is now fixed: 10000"),
    ("blob.dht_providers", "is now fixed: true"),
    ("blob.max_announced", "is now fixed: 4096"),
    ("blob.fetch.window_chunks", "is now fixed: 16"),
    ("blob.fetch.provider_window_chunks", "is now fixed: 8"),
    ("blob.fetch.verify_chunks", "is now fixed: 4"),
    ("blob.fetch.max_providers", "is now fixed: 64"),
    ("blob.fetch.open_timeout_ms", "is now fixed: 30000"),
    ("blob.fetch.stall_timeout_ms", "is now fixed: 10000"),
    ("blob.fetch.floor_bytes_per_s", "is now fixed: 16384"),
    ("blob.fetch.floor_span_ms", "is now fixed: 20000"),
    ("blob.fetch.rest_initial_ms", "is now fixed: 1000"),
    ("blob.fetch.rest_max_ms", "is now fixed: 60000"),
    ("blob.fetch.max_failures", "is now fixed: 5"),
    ("blob.fetch.direct_timeout_ms", "is now fixed: 30000"),
    ("blob.fetch.search_timeout_ms", "is now fixed: 60000"),
    ("blob.serve.max_transfers_per_peer", "is now fixed: 16"),
    ("blob.serve.max_chunks_per_peer", "is now fixed: 4"),
    ("blob.serve.request_timeout_ms", "is now fixed: 10000"),
    ("blob.serve.idle_timeout_ms", "is now fixed: 60000"),
    ("blob.serve.stall_timeout_ms", "is now fixed: 20000"),
    ("blob.serve.chunk_timeout_ms", "is now fixed: 64000"),
    ("blob.serve.max_remembered_auths", "is now fixed: 65536"),
    ("handle.command_queue", "is now fixed: 256"),
    ("handle.linger_ms", "is now fixed: 200"),
];

/// Returns the first removed key in `table`, and what became of it.
pub(super) fn find(table: &toml::Table) -> Option<(&'static str, &'static str)> {
    let holds = |path: &str| {
        let (tables, name) = path.rsplit_once('.').unwrap_or(("", path));
        let mut at = table;
        for part in tables.split('.').filter(|part| !part.is_empty()) {
            at = match at.get(part) {
                Some(toml::Value::Table(inner)) => inner,
                _ => return false,
            };
        }
        at.contains_key(name)
    };
    REMOVED.iter().copied().find(|(path, _)| holds(path))
}
