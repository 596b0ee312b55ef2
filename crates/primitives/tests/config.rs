//! Configuration: what is valid survives TOML, and what is not is refused by its key.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::time::Duration;

use calimero_network_primitives::{
    ConfigError, Keypair, NetworkConfig, PeerId,
    config::{
        ConnectionsConfig, HandleConfig, PingConfig, QuicConfig, Security, StreamsConfig,
        TcpConfig, TransportConfig, YamuxConfig,
    },
    limits::MAX_CONFIGURED_DURATION,
};
use proptest::prelude::*;

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
fn the_default_is_valid_and_survives() {
    let config = NetworkConfig::default();
    config.validate().unwrap();
    let toml = config.to_toml().unwrap();
    assert_eq!(NetworkConfig::from_toml(&toml).unwrap(), config);
    assert_eq!(NetworkConfig::from_toml("").unwrap(), config);
}

#[test]
fn every_key_is_written() {
    let toml = NetworkConfig::default().to_toml().unwrap();
    for key in [
        "listen",
        "agent_version",
        "handshake_timeout_ms",
        "prefer",
        "split_send_bytes",
        "keep_alive_ms",
        "allow",
        "block",
        "max_failures",
        "open_timeout_ms",
        "shutdown_timeout_ms",
    ] {
        assert!(
            toml.contains(&format!("\n{key} = ")) || toml.starts_with(key),
            "{key}"
        );
    }
}

#[test]
fn one_key_changes_one_field() {
    let toml = "[transport.quic]\nkeep_alive_ms = 7000";
    let mut expected = NetworkConfig::default();
    expected.transport.quic.keep_alive = Duration::from_secs(7);
    assert_eq!(NetworkConfig::from_toml(toml).unwrap(), expected);
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
        ("[handle]\n\"\" = 1", "handle."),
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
                "max_negotiating_per_peer",
                "max_waiting_per_peer",
                "open_timeout_ms",
                "max_frame_bytes",
                "write_buffer_bytes",
                "read_buffer_bytes",
            ],
        ),
        (
            "handle",
            &["command_queue", "event_queue", "shutdown_timeout_ms"],
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
        "connections.idle_timeout_ms",
        "connections.ping.interval_ms",
        "connections.ping.timeout_ms",
        "streams.accept_queue",
        "streams.max_inbound",
        "streams.max_negotiating_per_peer",
        "streams.max_waiting_per_peer",
        "streams.open_timeout_ms",
        "streams.max_frame_bytes",
        "streams.read_buffer_bytes",
        "streams.write_buffer_bytes",
        "handle.command_queue",
        "handle.event_queue",
        "handle.shutdown_timeout_ms",
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
fn the_largest_numbers_survive_and_larger_ones_are_an_error() {
    let mut config = NetworkConfig::default();
    config.transport.yamux.connection_window_bytes = usize::MAX;
    let toml = config.to_toml().unwrap();
    assert_eq!(NetworkConfig::from_toml(&toml), Ok(config.clone()));

    config.connections.dial_timeout = Duration::MAX;
    assert!(config.validate().is_err());
    assert!(matches!(
        config.to_toml(),
        Err(ConfigError::Unwritable { .. })
    ));
}

fn duration() -> impl Strategy<Value = Duration> {
    let year = u64::try_from(MAX_CONFIGURED_DURATION.as_millis()).unwrap();
    (1..=year).prop_map(Duration::from_millis)
}

fn transport() -> impl Strategy<Value = TransportConfig> {
    let tcp =
        (any::<[bool; 2]>(), 1_u32..=65_535).prop_map(|([tls, prefer_noise], backlog)| TcpConfig {
            enabled: true,
            tls,
            noise: true,
            prefer: if prefer_noise {
                Security::Noise
            } else {
                Security::Tls
            },
            backlog,
        });
    let yamux = (1_usize..5000, 1024_usize..=1 << 20, 0_usize..1 << 30).prop_map(
        |(max_streams, split_send_bytes, more)| YamuxConfig {
            max_streams,
            split_send_bytes,
            connection_window_bytes: max_streams * (256 << 10) + more,
        },
    );
    let quic = (
        any::<bool>(),
        1_u64..1 << 31,
        1_u64..1 << 31,
        1_u32..,
        (1_u32 << 16)..(1 << 30),
        0_u32..1 << 30,
        (1_u32 << 16)..,
    )
        .prop_map(
            |(enabled, keep_alive, more, max_streams, window, wider, send)| QuicConfig {
                enabled,
                idle_timeout: Duration::from_millis(keep_alive + more),
                keep_alive: Duration::from_millis(keep_alive),
                max_streams,
                stream_window_bytes: window,
                connection_window_bytes: window + wider,
                send_window_bytes: send,
            },
        );
    (tcp, yamux, quic, any::<[bool; 2]>(), duration()).prop_map(
        |(tcp, yamux, quic, [dns, relay_client], handshake_timeout)| TransportConfig {
            tcp,
            yamux,
            quic,
            dns,
            relay_client,
            handshake_timeout,
        },
    )
}

fn connections() -> impl Strategy<Value = ConnectionsConfig> {
    let ping = (duration(), duration(), 1_u32..).prop_map(|(interval, timeout, max_failures)| {
        PingConfig {
            interval,
            timeout,
            max_failures,
        }
    });
    (
        [1_u32.., 1_u32.., 1_u32..],
        any::<u32>(),
        [duration(), duration()],
        ping,
        0_u8..4,
    )
        .prop_map(
            |([inbound, outbound, per_peer], more, [dial, idle], ping, peers)| ConnectionsConfig {
                max_pending_inbound: inbound,
                max_pending_outbound: outbound,
                max_per_peer: per_peer,
                max_established: per_peer.saturating_add(more),
                dial_timeout: dial,
                idle_timeout: idle,
                listen_timeout: dial,
                ping,
                allow: (0..peers).map(|seed| peer(seed + 1)).collect(),
                block: (0..peers).map(|seed| peer(seed + 101)).collect(),
            },
        )
}

fn streams() -> impl Strategy<Value = StreamsConfig> {
    let queue = || 1_usize..=1 << 20;
    let bytes = || 1_usize..=8 << 20;
    (
        [queue(), queue(), queue(), queue(), queue()],
        duration(),
        [bytes(), bytes(), bytes()],
    )
        .prop_map(
            |(
                [one, other, accept_queue, negotiating, waiting],
                open_timeout,
                [frame, write, read],
            )| {
                StreamsConfig {
                    max_inbound_per_peer: one.min(other),
                    max_inbound: one.max(other),
                    accept_queue,
                    max_negotiating_per_peer: negotiating,
                    max_waiting_per_peer: waiting,
                    open_timeout,
                    max_frame_bytes: frame,
                    write_buffer_bytes: write,
                    read_buffer_bytes: read,
                }
            },
        )
}

fn config() -> impl Strategy<Value = NetworkConfig> {
    let handle = (1_usize..=1 << 20, 1_usize..=1 << 20, duration()).prop_map(
        |(command_queue, event_queue, shutdown_timeout)| HandleConfig {
            command_queue,
            event_queue,
            shutdown_timeout,
            ..HandleConfig::default()
        },
    );
    (
        prop::collection::vec((any::<u32>(), any::<u16>()), 0..4),
        "[^\\x00]{0,60}",
        transport(),
        connections(),
        streams(),
        handle,
    )
        .prop_map(
            |(listen, agent_version, transport, connections, streams, handle)| {
                let listen = listen.into_iter().map(|(ip, port)| {
                    let ip = std::net::Ipv4Addr::from(ip);
                    format!("/ip4/{ip}/tcp/{port}").parse().unwrap()
                });
                NetworkConfig {
                    listen: listen.collect(),
                    agent_version,
                    transport,
                    connections,
                    streams,
                    handle,
                    ..NetworkConfig::default()
                }
            },
        )
}

proptest! {
    #[test]
    fn every_valid_configuration_survives(config in config()) {
        prop_assert_eq!(config.validate(), Ok(()));
        let toml = config.to_toml().unwrap();
        prop_assert_eq!(NetworkConfig::from_toml(&toml), Ok(config));
    }

    #[test]
    fn no_text_panics(toml in any::<String>()) {
        let _ = NetworkConfig::from_toml(&toml);
    }

    /// Texts that look like configurations: what is accepted is valid and survives.
    #[test]
    fn what_is_accepted_is_valid(toml in "((listen|transport|streams|connections|handle|\\[transport\\.quic\\]|\\[streams\\]|max_streams|keep_alive_ms|dial_timeout_ms|x|\\.|=|=|\n|\n|0|7|true|\"|\\[|\\]){1,2} ?){0,9}") {
        if let Ok(config) = NetworkConfig::from_toml(&toml) {
            prop_assert_eq!(config.validate(), Ok(()));
            let again = config.to_toml().unwrap();
            prop_assert_eq!(NetworkConfig::from_toml(&again), Ok(config));
        }
    }
}
