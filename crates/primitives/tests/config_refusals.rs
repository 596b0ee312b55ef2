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
        ("[connections]\nmax = 1", "connections.max"),
        (
            "[connections.ping]\ninterval = 1",
            "connections.ping.interval",
        ),
        ("[streams]\nmax = 1", "streams.max"),
        ("[discovery]\nboots = []", "discovery.boots"),
        ("[server]\nboot = true", "server.boot"),
        ("[server.relay]\nslots = 1", "server.relay.slots"),
        ("[pubsub]\nmesh_n = 1", "pubsub.mesh_n"),
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
        ("streams.max_inbound = -1", "streams.max_inbound"),
        ("discovery.max_peers = 4294967296", "discovery.max_peers"),
        (
            "connections.idle_timeout_ms = 1.5",
            "connections.idle_timeout_ms",
        ),
        (
            "connections.idle_timeout_ms = inf",
            "connections.idle_timeout_ms",
        ),
        (
            "connections.idle_timeout_ms = '30s'",
            "connections.idle_timeout_ms",
        ),
        ("connections.allow = ['peer']", "connections.allow[0]"),
        ("connections.block = [7]", "connections.block[0]"),
        ("connections.ping = []", "connections.ping"),
        ("connections.ping = [15000, 20000, 3]", "connections.ping"),
        ("[[transport.tcp]]\nenabled = true", "transport.tcp"),
        ("streams = [1, 2, 3]", "streams"),
        ("discovery = []", "discovery"),
        ("discovery.boot = ['boot.example']", "discovery.boot[0]"),
        ("server.rendezvous = [true]", "server.rendezvous"),
        ("server.relay.enabled = 1", "server.relay.enabled"),
        ("pubsub.newest_version = '1.2'", "pubsub.newest_version"),
        ("blob.versions = ['2.0.0']", "blob.versions[0]"),
        ("pubsub = [1, 2, 3]", "pubsub"),
        ("pubsub.mesh = [1, 2, 3]", "pubsub.mesh"),
        ("pubsub.mesh = 'huge'", "pubsub.mesh"),
        ("preset = 'huge'", "preset"),
        ("preset = 1", "preset"),
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
    for key in [
        "connections.max_established",
        "connections.idle_timeout_ms",
        "connections.ping.interval_ms",
        "connections.ping.timeout_ms",
        "connections.ping.max_failures",
        "streams.max_inbound_per_peer",
        "streams.max_inbound",
        "discovery.max_peers",
        "discovery.members_target",
        "server.rendezvous.max_registrations",
        "server.rendezvous.max_bytes",
        "server.relay.max_reservations",
        "server.relay.max_circuits",
        "server.relay.max_circuits_per_peer",
        "server.relay.max_circuit_duration_ms",
        "server.relay.max_circuit_bytes",
        "pubsub.max_message_bytes",
        "pubsub.max_topics",
        "specialized.request_timeout_ms",
        "specialized.answer_timeout_ms",
        "blob.serve.max_transfers",
        "blob.serve.max_chunks",
        "blob.store.max_bytes",
        "handle.event_queue",
        "handle.event_queue_bytes",
        "handle.shutdown_timeout_ms",
    ] {
        contradicts(&format!("{key} = 0"), key);
    }
}

#[test]
fn nothing_may_be_so_large_that_a_clock_or_an_allocator_fails() {
    let most = i64::MAX;
    for key in [
        "connections.idle_timeout_ms",
        "connections.ping.interval_ms",
        "connections.ping.timeout_ms",
        "streams.max_inbound",
        "server.rendezvous.max_registrations",
        "server.relay.max_reservations",
        "server.relay.max_circuits",
        "server.relay.max_circuits_per_peer",
        "server.relay.max_circuit_duration_ms",
        "blob.serve.max_transfers",
        "blob.serve.max_chunks",
        "handle.event_queue",
        "handle.shutdown_timeout_ms",
        "pubsub.max_message_bytes",
        "pubsub.max_topics",
        "specialized.request_timeout_ms",
        "specialized.answer_timeout_ms",
    ] {
        contradicts(&format!("{key} = {most}"), key);
    }
}

#[test]
fn contradictions_are_refused_by_key() {
    for (toml, key) in [
        (
            "transport.tcp.enabled = false\ntransport.quic.enabled = false",
            "transport.tcp.enabled",
        ),
        (
            "transport.tcp.congestion = 'sixteen_or_above'",
            "transport.tcp.congestion",
        ),
        (
            "transport.tcp.congestion = 'bbr cubic'",
            "transport.tcp.congestion",
        ),
        (
            "transport.tcp.congestion = \"bbr\\u0000\"",
            "transport.tcp.congestion",
        ),
        (
            "transport.tcp.congestion = 'bbŕ'",
            "transport.tcp.congestion",
        ),
        ("blob.versions = []", "blob.versions"),
        (
            "blob.max_upload_bytes_per_s = 65535",
            "blob.max_upload_bytes_per_s",
        ),
        (
            "blob.max_download_bytes_per_s = 1",
            "blob.max_download_bytes_per_s",
        ),
        ("blob.versions = ['0.0.2', '0.0.2']", "blob.versions"),
        ("blob.serve.max_transfers = 15", "blob.serve.max_transfers"),
        ("blob.serve.max_chunks = 3", "blob.serve.max_chunks"),
        (
            "connections.max_established = 7",
            "connections.max_established",
        ),
        (
            "streams.max_inbound_per_peer = 8193",
            "streams.max_inbound_per_peer",
        ),
        (
            "streams.max_inbound_per_peer = 1665",
            "streams.max_inbound_per_peer",
        ),
        (
            "discovery.boot = ['/ip4/192.0.2.1/tcp/2428']",
            "discovery.boot",
        ),
        ("connections.max_established = 4096", "discovery.max_peers"),
        (
            "handle.event_queue_bytes = 1048575",
            "handle.event_queue_bytes",
        ),
        ("transport.quic.enabled = false", "listen[1]"),
        ("transport.tcp.enabled = false", "listen[0]"),
        ("listen = ['/dns4/example.com/tcp/1']", "listen[0]"),
        ("listen = ['/memory/1', '/ip4/0.0.0.0']", "listen[1]"),
        ("listen = ['/ip4/0.0.0.0/tcp/1/wss']", "listen[0]"),
        ("listen = ['/ip4/0.0.0.0/tcp/1/tls/ws']", "listen[0]"),
        ("listen = ['/ip4/8.8.8.8/tcp/1/tls/sni/a/ws']", "listen[0]"),
        ("listen = ['/dns4/example.com/tcp/1/ws']", "listen[0]"),
        (
            "listen = ['/ip4/8.8.8.8/tcp/1/ws']\ntransport.tcp.enabled = false",
            "listen[0]",
        ),
        (
            "transport.websocket.certificate = 'cert.pem'",
            "transport.websocket.key",
        ),
        (
            "transport.websocket.key = 'key.pem'",
            "transport.websocket.certificate",
        ),
        ("listen = ['/ip4/0.0.0.0/udp/1/quic']", "listen[0]"),
        ("listen = ['/ip4/8.8.8.8/tcp/1/p2p-circuit']", "listen[0]"),
    ] {
        contradicts(toml, key);
    }
    for toml in [
        "listen = ['/ip4/0.0.0.0/tcp/1/ws']",
        "listen = ['/ip4/0.0.0.0/tcp/1/wss']\n\
         transport.websocket = { certificate = 'cert.pem', key = 'key.pem' }",
        "discovery.external = ['/dns4/example.com/tcp/443/wss']",
    ] {
        NetworkConfig::from_toml(toml).expect(toml);
    }
    let congestion = "transport.tcp.congestion = 'fifteen_letters'";
    match cfg!(target_os = "linux") {
        true => drop(NetworkConfig::from_toml(congestion).unwrap()),
        false => contradicts(congestion, "transport.tcp.congestion"),
    }
    let relayed = format!("/dns4/relay.example/tcp/1/p2p/{}/p2p-circuit", peer(1));
    NetworkConfig::from_toml(&format!("listen = ['{relayed}']")).unwrap();
    for switch in ["transport.relay_client", "transport.dns"] {
        contradicts(
            &format!("listen = ['{relayed}']\n{switch} = false"),
            "listen[0]",
        );
    }
    contradicts(
        "discovery.boot = ['/dnsaddr/boot.example']\ntransport.dns = false",
        "discovery.boot",
    );
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
            "rendezvous.max_registrations = 1048577",
            "rendezvous.max_registrations",
        ),
        (
            "rendezvous.max_registrations = 63",
            "rendezvous.max_registrations",
        ),
        ("rendezvous.max_bytes = 6143", "rendezvous.max_bytes"),
        (
            "relay.max_circuit_duration_ms = 999",
            "relay.max_circuit_duration_ms",
        ),
        (
            "relay.max_circuit_duration_ms = 31536000001",
            "relay.max_circuit_duration_ms",
        ),
    ] {
        contradicts(&format!("[server]\n{toml}"), &format!("server.{key}"));
    }
}

#[test]
fn removed_keys_are_refused_with_what_became_of_them() {
    for (toml, message) in [
        (
            "discovery.book.max_peers = 1",
            "discovery.book.max_peers: is now `discovery.max_peers`",
        ),
        (
            "[discovery.relay]\nreservations = 1",
            "discovery.relay.reservations: is now `discovery.relays`",
        ),
        (
            "blob.fetch = { window_chunks = 1 }",
            "blob.fetch.window_chunks: is now fixed: 16",
        ),
        (
            "discovery.records.publication_interval_ms = 0",
            "discovery.records.publication_interval_ms: is now fixed: 21600000",
        ),
        (
            "pubsub.memory.ids_ms = 1",
            "pubsub.memory.ids_ms: is now fixed: a copy is a replay after 30 s",
        ),
        (
            "pubsub.mesh.target = 1",
            "pubsub.mesh.target: is now set by `pubsub.mesh`, `small` or `large`",
        ),
    ] {
        let error = refused(toml);
        assert!(matches!(error, ConfigError::Removed { .. }), "{error:?}");
        assert_eq!(error.to_string(), message);
    }
}
