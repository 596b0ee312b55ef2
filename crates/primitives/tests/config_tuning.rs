//! Values that no file sets are validated as keys are.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::time::Duration;

use calimero_network_primitives::{ConfigError, NetworkConfig, config::MeshConfig};

const ZERO: Duration = Duration::ZERO;
const SHORT: Duration = Duration::from_millis(999);
const LONG: Duration = Duration::MAX;

/// Returns the key that is blamed.
fn blamed(config: &NetworkConfig) -> String {
    match config.validate() {
        Err(ConfigError::Invalid { key, .. }) => key,
        other => panic!("{other:?}"),
    }
}

/// Sets one field of the default and asserts that it is blamed, or the key after the arrow.
macro_rules! refused {
    ($($($field:ident).+ = $value:expr $(=> $blamed:literal)?;)+) => {$({
        let mut config = NetworkConfig::default();
        config.$($field).+ = $value;
        let expected = stringify!($($field).+).replace(' ', "");
        $(let expected = { let _ = expected; $blamed.to_owned() };)?
        assert_eq!(blamed(&config), expected);
    })+};
}

#[test]
fn no_limit_or_timer_may_be_zero() {
    refused! {
        transport.tuning.handshake_timeout = ZERO;
        transport.yamux.max_streams = 0;
        transport.yamux.connection_window_bytes = 0;
        transport.quic.tuning.keep_alive = ZERO;
        transport.quic.tuning.idle_timeout = ZERO => "transport.quic.tuning.keep_alive";
        transport.quic.tuning.max_streams = 0;
        transport.quic.tuning.stream_window_bytes = 0;
        transport.quic.tuning.connection_window_bytes = 0;
        transport.quic.tuning.send_window_bytes = 0;
        connections.tuning.max_pending_inbound = 0;
        connections.tuning.max_pending_outbound = 0;
        connections.tuning.max_per_peer = 0;
        connections.tuning.dial_timeout = ZERO;
        streams.tuning.accept_queue = 0;
        streams.tuning.max_negotiating_per_connection = 0;
        streams.tuning.max_outbound_per_connection = 0;
        streams.tuning.max_waiting_per_peer = 0;
        discovery.tick = ZERO;
        discovery.book.max_addresses_per_peer = 0;
        discovery.dials.max_in_flight = 0;
        discovery.dials.max_queued = 0;
        discovery.rendezvous.ttl = ZERO;
        discovery.rendezvous.interval = ZERO;
        discovery.rendezvous.max_overlays = 0;
        discovery.cache.max_peers = 0;
        blob.fetch.tuning.stall_timeout = ZERO;
        blob.fetch.tuning.floor_span = ZERO;
        blob.fetch.tuning.rest_initial = ZERO;
        blob.fetch.tuning.rest_max = ZERO;
        blob.fetch.tuning.max_failures = 0;
        blob.fetch.tuning.direct_timeout = ZERO;
        blob.fetch.tuning.search_timeout = ZERO;
        blob.serve.tuning.max_transfers_per_peer = 0;
        blob.serve.tuning.max_chunks_per_peer = 0;
        blob.serve.tuning.request_timeout = ZERO;
        blob.serve.tuning.idle_timeout = ZERO;
        blob.serve.tuning.stall_timeout = ZERO;
        blob.serve.tuning.chunk_timeout = ZERO;
        handle.tuning.linger = ZERO;
        pubsub.mesh.heartbeat = ZERO;
        pubsub.mesh.prune_backoff = ZERO;
        pubsub.mesh.low = 0;
        pubsub.memory.replay_after = ZERO;
        pubsub.memory.replayed_ids = 0;
        pubsub.memory.gossip_heartbeats = 0;
        pubsub.peers.queue = 0;
        pubsub.peers.publish_wait = ZERO;
        pubsub.peers.forward_wait = ZERO;
        pubsub.peers.ban = ZERO;
        pubsub.keep.max_time = ZERO;
        pubsub.keep.max_messages = 0;
        pubsub.keep.max_bytes = 0;
        specialized.tuning.max_inbound_per_peer = 0;
        specialized.tuning.max_inbound = 0;
        specialized.tuning.max_outbound_per_connection = 0;
        specialized.tuning.max_outbound = 0;
        specialized.tuning.max_message_bytes = 0;
        specialized.tuning.receive_timeout = ZERO;
    }
}

#[test]
fn kademlia_gets_no_interval_at_which_it_panics() {
    refused! {
        discovery.records.ttl = SHORT;
        discovery.records.publication_interval = ZERO;
        discovery.records.publication_interval = SHORT;
        discovery.records.replication_interval = ZERO;
        discovery.records.replication_interval = SHORT;
        discovery.records.ttl = Duration::from_secs(6 * 3600)
            => "discovery.records.publication_interval";
        discovery.records.replication_interval = Duration::from_secs(24 * 3600);
    }
}

#[test]
fn nothing_may_be_so_large_that_a_clock_or_an_allocator_fails() {
    refused! {
        transport.tuning.handshake_timeout = LONG;
        transport.yamux.max_streams = usize::MAX => "transport.yamux.connection_window_bytes";
        transport.yamux.max_streams = 4096 => "transport.yamux.connection_window_bytes";
        transport.yamux.connection_window_bytes = 536_870_911;
        transport.quic.tuning.idle_timeout = LONG;
        connections.tuning.dial_timeout = LONG;
        streams.tuning.accept_queue = usize::MAX;
        streams.tuning.max_negotiating_per_connection = usize::MAX;
        streams.tuning.max_outbound_per_connection = usize::MAX;
        streams.tuning.max_waiting_per_peer = usize::MAX;
        discovery.tick = LONG;
        discovery.dials.max_in_flight = 129;
        discovery.records.ttl = LONG;
        blob.fetch.tuning.search_timeout = LONG;
        blob.serve.tuning.idle_timeout = LONG;
        handle.tuning.linger = LONG;
        pubsub.memory.replay_after = LONG;
        pubsub.memory.replayed_ids = usize::MAX;
        pubsub.peers.queue = usize::MAX;
        pubsub.peers.publish_wait = LONG;
        pubsub.keep.max_messages = usize::MAX;
        specialized.tuning.max_inbound = usize::MAX;
        specialized.tuning.max_outbound = usize::MAX;
        specialized.tuning.max_message_bytes = usize::MAX;
        server.rendezvous.tuning.max_answer = usize::MAX;
        server.relay.tuning.reservation_duration = LONG;
    }
}

#[test]
fn contradictions_are_blamed_on_a_key() {
    refused! {
        transport.quic.tuning.keep_alive = Duration::from_secs(30);
        transport.quic.tuning.stream_window_bytes = (20 << 20) + 1
            => "transport.quic.tuning.connection_window_bytes";
        transport.quic.tuning.stream_window_bytes = 65_535;
        transport.quic.tuning.send_window_bytes = 65_535;
        connections.tuning.max_per_peer = 1025 => "connections.max_established";
        streams.tuning.max_outbound_per_connection = 2000 => "streams.max_inbound_per_peer";
        discovery.redial.steps = [0, 5, 4, 6, 7].map(Duration::from_secs);
        discovery.relay.min_backoff = Duration::from_secs(61);
        discovery.relay.punch_min_backoff = Duration::from_secs(301);
        blob.fetch.tuning.rest_max = SHORT => "blob.fetch.tuning.rest_initial";
        blob.serve.tuning.max_transfers_per_peer = 257 => "blob.serve.max_transfers";
        blob.serve.tuning.max_chunks_per_peer = 25 => "blob.serve.max_chunks";
        blob.serve.tuning.max_chunks_per_peer = 1;
        server.rendezvous.tuning.max_registrations_per_namespace = 0;
        server.rendezvous.tuning.max_record_bytes = 255;
        server.rendezvous.tuning.max_record_bytes = 65_537;
        server.rendezvous.tuning.max_answer = 0;
        server.rendezvous.tuning.max_answer_bytes = 5119;
        server.rendezvous.tuning.max_answer_bytes = 1 << 20;
        server.rendezvous.tuning.min_ttl = SHORT;
        server.rendezvous.tuning.max_ttl = Duration::from_secs(7199)
            => "server.rendezvous.tuning.min_ttl";
        server.rendezvous.tuning.max_requests_per_peer = 0;
        server.rendezvous.tuning.max_requests = 99
            => "server.rendezvous.tuning.max_requests_per_peer";
        server.rendezvous.tuning.request_burst = 0;
        server.rendezvous.tuning.requests_per_second = 1_000_001;
        server.rendezvous.tuning.request_timeout = ZERO;
        server.relay.tuning.max_reservations_per_peer = 0;
        server.relay.tuning.reservation_duration = SHORT;
        server.relay.tuning.reservation_rate_per_peer.burst = 0;
        server.relay.tuning.circuit_rate_per_ip.interval = ZERO;
        pubsub.mesh.target = 9;
        pubsub.mesh.prune_backoff = Duration::from_millis(1500);
        pubsub.keep.max_bytes = 1_048_575;
        specialized.tuning.max_inbound_per_peer = 129;
        specialized.tuning.max_message_bytes = 127;
    }
    let mut config = NetworkConfig::default();
    config.transport.tcp.tuning.tls = false;
    assert_eq!(config.validate(), Ok(()));
    config.transport.tcp.tuning.noise = false;
    assert_eq!(blamed(&config), "transport.tcp.tuning.tls");
    config.transport.tcp.enabled = false;
    config.listen = Vec::new();
    assert_eq!(config.validate(), Ok(()));
}

#[test]
fn a_file_leaves_the_tuning_of_its_base() {
    let mut base = NetworkConfig::default();
    base.transport.quic.tuning.keep_alive = Duration::from_secs(1);
    base.connections.tuning.dial_timeout = Duration::from_secs(2);
    base.streams.tuning.accept_queue = 3;
    base.discovery.book.max_addresses_per_peer = 5;
    base.server.relay.tuning.max_reservations_per_peer = 6;
    base.pubsub.mesh.heartbeat = Duration::from_millis(100);
    base.pubsub.memory.replayed_ids = 7_000;
    base.specialized.tuning.max_inbound = 9;
    base.blob.tuning.dht_providers = false;
    base.blob.fetch.tuning.max_failures = 10;
    base.handle.tuning.linger = Duration::from_secs(11);
    let over = NetworkConfig::from_toml_over("handle.event_queue = 12", &base).unwrap();
    base.handle.event_queue = 12;
    assert_eq!(over, base);
    let over = NetworkConfig::from_toml_over("pubsub.mesh = 'large'", &base).unwrap();
    assert_eq!(over.pubsub.mesh, MeshConfig::large());
}
