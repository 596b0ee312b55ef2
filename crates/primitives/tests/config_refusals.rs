//! Configuration that cannot hold is refused by its key, and text that is none by its line.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use calimero_network_primitives::{ConfigError, Keypair, NetworkConfig, PeerId};

fn peer(seed: u8) -> PeerId {
    let keypair = Keypair::ed25519_from_bytes([seed; 32]).unwrap();
    PeerId::from_public_key(&keypair.public())
}

fn refused(toml: &str) -> ConfigError {
    match NetworkConfig::from_toml(toml) {
        Ok(_) => panic!("accepted: {toml}"),
        Err(error) => error,
    }
}

/// Asserts that the text is TOML of the right types, and that exactly this key is blamed.
fn contradicts(toml: &str, blamed: &str) {
    match refused(toml) {
        ConfigError::Invalid { key, reason } => {
            assert_eq!(key, blamed, "{toml}: {reason}");
        }
        other => panic!("{toml}: {other:?}"),
    }
}

#[test]
fn unknown_keys_are_refused_with_their_path() {
    for (toml, path) in [
        ("foo = 1", "foo"),
        ("[foo]\nbar = 1", "foo"),
        ("transport.foo = 1", "transport.foo"),
        ("transport.quic.foo = 1", "transport.quic.foo"),
        ("[transport.quic]\nfoo = 1", "transport.quic.foo"),
        ("[transport]\nquic = { foo = 1 }", "transport.quic.foo"),
        ("[transport.tcp]\nport = 1", "transport.tcp.port"),
        ("[transport.yamux]\nwindow = 1", "transport.yamux.window"),
        ("[connections]\nmax = 1", "connections.max"),
        (
            "[connections.ping]\ninterval = 1",
            "connections.ping.interval",
        ),
        ("[streams]\nmax = 1", "streams.max"),
        ("[discovery]\nboots = []", "discovery.boots"),
        ("[discovery.relay]\nslots = 1", "discovery.relay.slots"),
        ("[server]\nboot = true", "server.boot"),
        ("[server.relay]\nslots = 1", "server.relay.slots"),
        (
            "[server.relay]\ncircuit_rate_per_ip = { burst = 1, interval_ms = 1, x = 1 }",
            "server.relay.circuit_rate_per_ip.x",
        ),
        ("[pubsub]\nmesh_n = 1", "pubsub.mesh_n"),
        ("[pubsub.mesh]\nsize = 1", "pubsub.mesh.size"),
        ("[specialized]\nmax = 1", "specialized.max"),
        ("[blob]\nunsigned = true", "blob.unsigned"),
        ("[blob.fetch]\nwindow = 1", "blob.fetch.window"),
        ("[handle]\n\"\" = 1", "handle.\"\""),
    ] {
        match refused(toml) {
            ConfigError::Parse { key, reason } => {
                assert_eq!(key, path, "{toml}: {reason}");
                assert!(reason.starts_with("unknown field"), "{toml}: {reason}");
            }
            other => panic!("{toml}: {other:?}"),
        }
    }
}

#[test]
fn wrong_types_are_refused_with_their_path() {
    for (toml, path) in [
        ("listen = 1", "listen"),
        ("listen = ['/ip4/127.0.0.1/tcp/1', 5]", "listen[1]"),
        ("listen = ['127.0.0.1:1']", "listen[0]"),
        ("agent_version = 1", "agent_version"),
        ("transport = 1", "transport"),
        ("transport.tcp.enabled = 'yes'", "transport.tcp.enabled"),
        ("transport.tcp.prefer = 'plaintext'", "transport.tcp.prefer"),
        (
            "transport.yamux.max_streams = -1",
            "transport.yamux.max_streams",
        ),
        (
            "transport.quic.max_streams = 4294967296",
            "transport.quic.max_streams",
        ),
        (
            "connections.dial_timeout_ms = 1.5",
            "connections.dial_timeout_ms",
        ),
        (
            "connections.dial_timeout_ms = inf",
            "connections.dial_timeout_ms",
        ),
        (
            "connections.dial_timeout_ms = '30s'",
            "connections.dial_timeout_ms",
        ),
        ("connections.allow = ['peer']", "connections.allow[0]"),
        ("connections.block = [7]", "connections.block[0]"),
        ("connections.ping = []", "connections.ping"),
        ("connections.ping = [15000, 20000, 3]", "connections.ping"),
        ("[[transport.tcp]]\nenabled = true", "transport.tcp"),
        ("streams = [1, 2, 3]", "streams"),
        ("discovery = []", "discovery"),
        ("discovery.boot = ['boot.example']", "discovery.boot[0]"),
        ("discovery.book = [4, 4096]", "discovery.book"),
        (
            "discovery.redial.steps_ms = [0, 1]",
            "discovery.redial.steps_ms",
        ),
        ("server.rendezvous = [true]", "server.rendezvous"),
        ("server.relay.enabled = 1", "server.relay.enabled"),
        (
            "server.relay.circuit_rate_per_peer = [1, 2]",
            "server.relay.circuit_rate_per_peer",
        ),
        ("pubsub.newest_version = '1.2'", "pubsub.newest_version"),
        ("blob.versions = ['2.0.0']", "blob.versions[0]"),
        ("pubsub = [1, 2, 3]", "pubsub"),
        ("pubsub.mesh = [1, 2, 3]", "pubsub.mesh"),
        ("specialized = [1, 2, 3]", "specialized"),
        ("handle = [1, 2, 3]", "handle"),
    ] {
        match refused(toml) {
            ConfigError::Parse { key, reason } => assert_eq!(key, path, "{toml}: {reason}"),
            other => panic!("{toml}: {other:?}"),
        }
    }
}

#[test]
fn broken_text_is_refused_with_its_line() {
    for (toml, expected) in [
        ("listen = ", 1),
        ("\n\nlisten = [\n", 3),
        ("agent_version = 'a'\nagent_version = 'b'", 2),
        ("[streams]\n[streams]", 2),
        ("\u{0}", 1),
    ] {
        match refused(toml) {
            ConfigError::Syntax { line, reason } => {
                assert_eq!(line, expected, "{toml:?}: {reason}");
                assert!(!reason.is_empty());
            }
            other => panic!("{toml:?}: {other:?}"),
        }
    }
}

#[test]
fn nothing_may_be_zero_that_bounds_or_times() {
    for (table, keys) in [
        ("transport", &["handshake_timeout_ms"][..]),
        ("transport.tcp", &["backlog"]),
        (
            "transport.yamux",
            &["max_streams", "split_send_bytes", "connection_window_bytes"],
        ),
        (
            "transport.quic",
            &[
                "keep_alive_ms",
                "max_streams",
                "stream_window_bytes",
                "connection_window_bytes",
                "send_window_bytes",
            ],
        ),
        (
            "connections",
            &[
                "max_pending_inbound",
                "max_pending_outbound",
                "max_per_peer",
                "max_established",
                "dial_timeout_ms",
                "listen_timeout_ms",
                "idle_timeout_ms",
            ],
        ),
        (
            "connections.ping",
            &["interval_ms", "timeout_ms", "max_failures"],
        ),
        (
            "streams",
            &[
                "max_inbound_per_peer",
                "max_inbound",
                "accept_queue",
                "max_negotiating_per_connection",
                "max_outbound_per_connection",
                "max_waiting_per_peer",
                "open_timeout_ms",
                "max_frame_bytes",
                "write_buffer_bytes",
                "read_buffer_bytes",
            ],
        ),
        ("discovery", &["tick_ms"]),
        (
            "discovery.book",
            &[
                "max_addresses_per_peer",
                "max_peers",
                "max_age_ms",
                "max_dial_failures",
            ],
        ),
        (
            "discovery.dials",
            &[
                "max_in_flight",
                "max_queued",
                "timeout_ms",
                "members_target",
            ],
        ),
        (
            "discovery.rendezvous",
            &["ttl_ms", "interval_ms", "max_overlays"],
        ),
        ("blob", &["max_announced"]),
        (
            "blob.fetch",
            &[
                "window_chunks",
                "provider_window_chunks",
                "verify_chunks",
                "max_providers",
                "open_timeout_ms",
                "stall_timeout_ms",
                "floor_span_ms",
                "rest_initial_ms",
                "rest_max_ms",
                "max_failures",
                "direct_timeout_ms",
                "search_timeout_ms",
            ],
        ),
        (
            "blob.serve",
            &[
                "max_transfers_per_peer",
                "max_transfers",
                "max_chunks_per_peer",
                "max_chunks",
                "request_timeout_ms",
                "idle_timeout_ms",
                "stall_timeout_ms",
                "chunk_timeout_ms",
                "max_remembered_auths",
            ],
        ),
        ("blob.store", &["max_bytes"]),
        (
            "handle",
            &[
                "command_queue",
                "event_queue",
                "event_queue_bytes",
                "shutdown_timeout_ms",
                "linger_ms",
            ],
        ),
        ("pubsub", &["max_message_bytes", "max_topics"]),
        ("pubsub.mesh", &["heartbeat_ms", "prune_backoff_ms", "low"]),
        (
            "pubsub.memory",
            &["ids_ms", "replayed_ids", "gossip_heartbeats"],
        ),
        (
            "pubsub.peers",
            &["queue", "publish_wait_ms", "forward_wait_ms", "ban_ms"],
        ),
        ("pubsub.keep", &["max_time_ms", "max_messages", "max_bytes"]),
        ("pubsub.repair", &["cooldown_ms", "grace_ms"]),
        (
            "specialized",
            &[
                "max_inbound_per_connection",
                "max_inbound",
                "max_outbound_per_connection",
                "max_outbound",
                "max_message_bytes",
                "request_timeout_ms",
                "receive_timeout_ms",
                "answer_timeout_ms",
            ],
        ),
    ] {
        for key in keys {
            contradicts(&format!("[{table}]\n{key} = 0"), &format!("{table}.{key}"));
        }
    }
    // An idle timeout of zero is blamed on the keep-alive that cannot be shorter.
    contradicts(
        "transport.quic.idle_timeout_ms = 0",
        "transport.quic.keep_alive_ms",
    );
}

#[test]
fn nothing_may_be_so_large_that_a_clock_or_an_allocator_fails() {
    let most = i64::MAX;
    for key in [
        "transport.handshake_timeout_ms",
        "transport.yamux.max_streams",
        "connections.dial_timeout_ms",
        "connections.listen_timeout_ms",
        "connections.idle_timeout_ms",
        "connections.ping.interval_ms",
        "connections.ping.timeout_ms",
        "streams.accept_queue",
        "streams.max_inbound",
        "streams.max_negotiating_per_connection",
        "streams.max_outbound_per_connection",
        "streams.max_waiting_per_peer",
        "streams.open_timeout_ms",
        "streams.max_frame_bytes",
        "streams.read_buffer_bytes",
        "streams.write_buffer_bytes",
        "discovery.tick_ms",
        "discovery.relay.timeout_ms",
        "blob.max_announced",
        "blob.fetch.window_chunks",
        "blob.fetch.max_providers",
        "blob.fetch.floor_bytes_per_s",
        "blob.fetch.search_timeout_ms",
        "blob.serve.max_transfers",
        "blob.serve.max_chunks",
        "blob.serve.idle_timeout_ms",
        "handle.command_queue",
        "handle.event_queue",
        "handle.shutdown_timeout_ms",
        "handle.linger_ms",
        "pubsub.max_message_bytes",
        "pubsub.max_topics",
        "pubsub.memory.ids_ms",
        "pubsub.memory.replayed_ids",
        "pubsub.peers.queue",
        "pubsub.peers.publish_wait_ms",
        "pubsub.keep.max_messages",
        "specialized.max_inbound",
        "specialized.max_outbound",
        "specialized.max_message_bytes",
        "specialized.request_timeout_ms",
    ] {
        let blamed = match key {
            "transport.yamux.max_streams" => "transport.yamux.connection_window_bytes",
            other => other,
        };
        contradicts(&format!("{key} = {most}"), blamed);
    }
    contradicts(
        &format!("transport.quic.idle_timeout_ms = {most}"),
        "transport.quic.idle_timeout_ms",
    );
    contradicts("transport.tcp.backlog = 65536", "transport.tcp.backlog");
}

#[test]
fn contradictions_are_refused_by_key() {
    for (toml, key) in [
        (
            "transport.tcp.enabled = false\ntransport.quic.enabled = false",
            "transport.tcp.enabled",
        ),
        (
            "transport.tcp.tls = false\ntransport.tcp.noise = false",
            "transport.tcp.tls",
        ),
        (
            "transport.yamux.split_send_bytes = 1023",
            "transport.yamux.split_send_bytes",
        ),
        (
            "transport.yamux.split_send_bytes = 1048577",
            "transport.yamux.split_send_bytes",
        ),
        (
            "transport.yamux.connection_window_bytes = 536870911",
            "transport.yamux.connection_window_bytes",
        ),
        (
            "transport.yamux.max_streams = 4096",
            "transport.yamux.connection_window_bytes",
        ),
        ("blob.max_announced = 4097", "blob.max_announced"),
        ("blob.versions = []", "blob.versions"),
        ("blob.versions = ['0.0.2', '0.0.2']", "blob.versions"),
        (
            "blob.fetch.window_chunks = 7",
            "blob.fetch.provider_window_chunks",
        ),
        ("blob.fetch.verify_chunks = 17", "blob.fetch.verify_chunks"),
        ("blob.fetch.rest_max_ms = 999", "blob.fetch.rest_initial_ms"),
        (
            "blob.serve.max_transfers = 15",
            "blob.serve.max_transfers_per_peer",
        ),
        (
            "blob.serve.max_chunks_per_peer = 1",
            "blob.serve.max_chunks_per_peer",
        ),
        (
            "blob.serve.max_chunks = 3",
            "blob.serve.max_chunks_per_peer",
        ),
        (
            "transport.quic.keep_alive_ms = 30000",
            "transport.quic.keep_alive_ms",
        ),
        (
            "transport.quic.stream_window_bytes = 16777217",
            "transport.quic.connection_window_bytes",
        ),
        (
            "transport.quic.stream_window_bytes = 65535",
            "transport.quic.stream_window_bytes",
        ),
        (
            "transport.quic.send_window_bytes = 65535",
            "transport.quic.send_window_bytes",
        ),
        (
            "connections.max_per_peer = 1025",
            "connections.max_per_peer",
        ),
        (
            "streams.max_inbound_per_peer = 8193",
            "streams.max_inbound_per_peer",
        ),
        (
            "streams.max_frame_bytes = 8388609",
            "streams.max_frame_bytes",
        ),
        (
            "discovery.boot = ['/ip4/192.0.2.1/tcp/2428']",
            "discovery.boot",
        ),
        (
            "discovery.redial.steps_ms = [0, 5, 4, 6, 7]",
            "discovery.redial.steps_ms",
        ),
        ("discovery.records.ttl_ms = 999", "discovery.records.ttl_ms"),
        (
            "discovery.records.ttl_ms = 21600000",
            "discovery.records.publication_interval_ms",
        ),
        (
            "discovery.records.replication_interval_ms = 86400000",
            "discovery.records.replication_interval_ms",
        ),
        (
            "connections.max_established = 4096",
            "discovery.book.max_peers",
        ),
        ("pubsub.mesh.target = 9", "pubsub.mesh.target"),
        (
            "pubsub.mesh.prune_backoff_ms = 1500",
            "pubsub.mesh.prune_backoff_ms",
        ),
        ("pubsub.keep.max_bytes = 1048575", "pubsub.keep.max_bytes"),
        (
            "handle.event_queue_bytes = 1048575",
            "handle.event_queue_bytes",
        ),
        (
            "specialized.max_inbound_per_connection = 129",
            "specialized.max_inbound_per_connection",
        ),
        (
            "specialized.max_message_bytes = 127",
            "specialized.max_message_bytes",
        ),
        ("transport.quic.enabled = false", "listen[1]"),
        ("transport.tcp.enabled = false", "listen[0]"),
        ("listen = ['/dns4/example.com/tcp/1']", "listen[0]"),
        ("listen = ['/memory/1', '/ip4/0.0.0.0']", "listen[1]"),
        ("listen = ['/ip4/0.0.0.0/tcp/1/ws']", "listen[0]"),
        ("listen = ['/ip4/0.0.0.0/udp/1/quic']", "listen[0]"),
        ("listen = ['/ip4/8.8.8.8/tcp/1/p2p-circuit']", "listen[0]"),
    ] {
        contradicts(toml, key);
    }
    let relayed = format!("/dns4/relay.example/tcp/1/p2p/{}/p2p-circuit", peer(1));
    NetworkConfig::from_toml(&format!("listen = ['{relayed}']")).unwrap();
    for switch in ["transport.relay_client", "transport.dns"] {
        contradicts(
            &format!("listen = ['{relayed}']\n{switch} = false"),
            "listen[0]",
        );
    }
    let peer = peer(1);
    contradicts(
        &format!("[connections]\nallow = ['{peer}']\nblock = ['{peer}']"),
        "connections.block",
    );
    contradicts(
        &format!("agent_version = '{}'", "a".repeat(256)),
        "agent_version",
    );
}

#[test]
fn one_transport_alone_is_enough() {
    for toml in [
        "listen = ['/ip4/0.0.0.0/tcp/0']\ntransport.quic.enabled = false",
        "listen = ['/ip4/0.0.0.0/udp/0/quic-v1']\ntransport.tcp.enabled = false",
        "listen = []\ntransport.tcp.enabled = false\ntransport.tcp.tls = false\ntransport.tcp.noise = false",
        "transport.tcp.tls = false",
        "transport.tcp.noise = false\ntransport.tcp.prefer = 'noise'",
    ] {
        NetworkConfig::from_toml(toml).unwrap();
    }
}

#[test]
fn the_message_begins_with_the_key() {
    let message = refused("handle.event_queue = 0").to_string();
    assert_eq!(message, "handle.event_queue: must be above 0");
    let message = refused("a").to_string();
    assert!(message.starts_with("line 1: "), "{message}");
}

#[test]
fn keys_that_are_not_bare_are_quoted() {
    for (toml, key) in [
        ("'' = 9", "\"\""),
        ("'a.b' = 1", "\"a.b\""),
        ("[transport]\n'no such' = 1", "transport.\"no such\""),
    ] {
        match NetworkConfig::from_toml(toml) {
            Err(ConfigError::Parse { key: said, .. }) => assert_eq!(said, key, "{toml}"),
            other => panic!("{toml}: {other:?}"),
        }
    }
}

#[test]
fn a_server_that_cannot_hold_is_refused() {
    for (toml, key) in [
        (
            "rendezvous.max_registrations = 0",
            "rendezvous.max_registrations",
        ),
        (
            "rendezvous.max_registrations = 1048577",
            "rendezvous.max_registrations",
        ),
        (
            "rendezvous.max_registrations = 63",
            "rendezvous.max_registrations_per_peer",
        ),
        (
            "rendezvous.max_registrations_per_namespace = 0",
            "rendezvous.max_registrations_per_namespace",
        ),
        ("rendezvous.max_bytes = 6143", "rendezvous.max_bytes"),
        (
            "rendezvous.max_record_bytes = 255",
            "rendezvous.max_record_bytes",
        ),
        (
            "rendezvous.max_record_bytes = 65537",
            "rendezvous.max_record_bytes",
        ),
        ("rendezvous.max_answer = 0", "rendezvous.max_answer"),
        (
            "rendezvous.max_answer_bytes = 5119",
            "rendezvous.max_answer_bytes",
        ),
        (
            "rendezvous.max_answer_bytes = 1048576",
            "rendezvous.max_answer_bytes",
        ),
        ("rendezvous.min_ttl_ms = 999", "rendezvous.min_ttl_ms"),
        ("rendezvous.max_ttl_ms = 7199999", "rendezvous.min_ttl_ms"),
        (
            "rendezvous.max_requests_per_connection = 0",
            "rendezvous.max_requests_per_connection",
        ),
        (
            "rendezvous.max_requests = 99",
            "rendezvous.max_requests_per_connection",
        ),
        ("rendezvous.request_burst = 0", "rendezvous.request_burst"),
        (
            "rendezvous.requests_per_second = 1000001",
            "rendezvous.requests_per_second",
        ),
        (
            "rendezvous.request_timeout_ms = 0",
            "rendezvous.request_timeout_ms",
        ),
        ("relay.max_reservations = 0", "relay.max_reservations"),
        (
            "relay.max_reservations_per_peer = 0",
            "relay.max_reservations_per_peer",
        ),
        (
            "relay.reservation_duration_ms = 999",
            "relay.reservation_duration_ms",
        ),
        ("relay.max_circuits = 0", "relay.max_circuits"),
        (
            "relay.max_circuits_per_peer = 0",
            "relay.max_circuits_per_peer",
        ),
        (
            "relay.max_circuit_duration_ms = 31536000001",
            "relay.max_circuit_duration_ms",
        ),
        ("relay.max_circuit_bytes = 0", "relay.max_circuit_bytes"),
        (
            "relay.reservation_rate_per_peer = { burst = 0, interval_ms = 1 }",
            "relay.reservation_rate_per_peer.burst",
        ),
        (
            "relay.circuit_rate_per_ip = { burst = 1, interval_ms = 0 }",
            "relay.circuit_rate_per_ip.interval_ms",
        ),
    ] {
        contradicts(&format!("[server]\n{toml}"), &format!("server.{key}"));
    }
}
