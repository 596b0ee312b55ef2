//! Configuration that is valid survives TOML.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::{net::Ipv4Addr, time::Duration};

use calimero_network_primitives::{
    ConfigError, Keypair, Multiaddr, NetworkConfig, PeerId,
    config::{
        BlobConfig, BlobVersion, ConnectionsConfig, DiscoveryConfig, HandleConfig, MeshConfig,
        PingConfig, PubsubConfig, QuicConfig, RateConfig, RelayServerConfig,
        RendezvousServerConfig, RuntimeKind, Security, ServerConfig, SpecializedConfig,
        StreamsConfig, TcpConfig, TransportConfig, YamuxConfig,
    },
    limits::{KIB, MAX_CONFIGURED_DURATION, MAX_CONFIGURED_QUEUE, MAX_FRAME_PAYLOAD_BYTES, MIB},
    multiaddr::Protocol,
};
use proptest::prelude::*;

fn peer(seed: u8) -> PeerId {
    let keypair = Keypair::ed25519_from_bytes([seed; 32]).unwrap();
    PeerId::from_public_key(&keypair.public())
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
        "heartbeat_ms",
        "replayed_ids",
        "answer_timeout_ms",
        "event_queue_bytes",
        "shutdown_timeout_ms",
        "linger_ms",
        "boot",
        "steps_ms",
        "reservations",
        "max_registrations_per_namespace",
        "max_circuit_bytes",
        "burst",
        "unsigned_records",
        "window_chunks",
        "max_transfers_per_peer",
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
fn what_a_file_does_not_name_is_as_in_the_base() {
    let mut base = NetworkConfig::default();
    base.connections.max_established = 2000;
    base.connections.ping.max_failures = 7;
    base.discovery.boot = vec!["/ip4/192.0.2.1/tcp/1/p2p-circuit".parse().unwrap()];
    let toml = "listen = []\n[connections]\nping = { timeout_ms = 5 }\n[discovery]\nboot = []";
    let config = NetworkConfig::from_toml_over(toml, &base).unwrap();
    let mut expected = base.clone();
    expected.listen = Vec::new();
    expected.connections.ping.timeout = Duration::from_millis(5);
    expected.discovery.boot = Vec::new();
    assert_eq!(config, expected);

    let refused = |toml| NetworkConfig::from_toml_over(toml, &base).unwrap_err();
    assert!(matches!(
        refused("\nlisten ="),
        ConfigError::Syntax { line: 2, .. }
    ));
    assert!(
        matches!(refused("[discovery]\nboots = 1"), ConfigError::Parse { key, .. }
        if key == "discovery.boots")
    );
    // What holds alone may not hold beside the base.
    let few = "discovery.boot = []\ndiscovery.book.max_peers = 1500";
    assert!(NetworkConfig::from_toml(few).is_ok());
    assert!(matches!(refused(few), ConfigError::Invalid { key, .. }
        if key == "discovery.book.max_peers"));
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

/// The default, changed: fields that a strategy does not name keep their default.
fn changed<T: Default>(change: impl FnOnce(&mut T)) -> T {
    let mut value = T::default();
    change(&mut value);
    value
}

fn duration() -> impl Strategy<Value = Duration> {
    let year = u64::try_from(MAX_CONFIGURED_DURATION.as_millis()).unwrap();
    (1..=year).prop_map(Duration::from_millis)
}

fn queue() -> impl Strategy<Value = usize> {
    1..=MAX_CONFIGURED_QUEUE
}

fn tcp() -> impl Strategy<Value = TcpConfig> {
    let security = prop_oneof![Just(Security::Tls), Just(Security::Noise)];
    (any::<bool>(), security, 1_u32..=65_535).prop_map(|(tls, prefer, backlog)| {
        changed(|config: &mut TcpConfig| {
            config.tls = tls;
            config.prefer = prefer;
            config.backlog = backlog;
        })
    })
}

fn yamux() -> impl Strategy<Value = YamuxConfig> {
    (2_usize..5000, KIB..=MIB, 0_usize..1 << 30).prop_map(|(max_streams, split, more)| {
        changed(|config: &mut YamuxConfig| {
            config.max_streams = max_streams;
            config.split_send_bytes = split;
            config.connection_window_bytes = max_streams * 256 * KIB + more;
        })
    })
}

fn quic() -> impl Strategy<Value = QuicConfig> {
    let timers = [1_u64..1 << 31, 1_u64..1 << 31];
    let windows = ((1_u32 << 16)..(1 << 30), 0_u32..1 << 30, (1_u32 << 16)..);
    (any::<bool>(), timers, 1_u32.., windows).prop_map(
        |(enabled, [keep_alive, more], max_streams, (stream, wider, send))| {
            changed(|config: &mut QuicConfig| {
                config.enabled = enabled;
                config.keep_alive = Duration::from_millis(keep_alive);
                config.idle_timeout = Duration::from_millis(keep_alive + more);
                config.max_streams = max_streams;
                config.stream_window_bytes = stream;
                config.connection_window_bytes = stream + wider;
                config.send_window_bytes = send;
            })
        },
    )
}

fn transport() -> impl Strategy<Value = TransportConfig> {
    (tcp(), yamux(), quic(), any::<[bool; 2]>(), duration()).prop_map(
        |(tcp, yamux, quic, [dns, relay_client], handshake_timeout)| {
            changed(|config: &mut TransportConfig| {
                config.tcp = tcp;
                config.yamux = yamux;
                config.quic = quic;
                config.dns = dns;
                config.relay_client = relay_client;
                config.handshake_timeout = handshake_timeout;
            })
        },
    )
}

fn ping() -> impl Strategy<Value = PingConfig> {
    (duration(), duration(), 1_u32..).prop_map(|(interval, timeout, max_failures)| {
        changed(|config: &mut PingConfig| {
            config.interval = interval;
            config.timeout = timeout;
            config.max_failures = max_failures;
        })
    })
}

fn connections() -> impl Strategy<Value = ConnectionsConfig> {
    // Whoever keeps more connections remembers more peers, and there are only so many numbers.
    let counts = [1_u32..u32::MAX, 1_u32..u32::MAX, 1_u32..u32::MAX];
    let times = [duration(), duration(), duration()];
    (counts, any::<u32>(), times, ping(), 0_u8..4).prop_map(
        |([inbound, outbound, per_peer], more, [dial, listen, idle], ping, peers)| {
            changed(|config: &mut ConnectionsConfig| {
                config.max_pending_inbound = inbound;
                config.max_pending_outbound = outbound;
                config.max_per_peer = per_peer;
                config.max_established = per_peer.saturating_add(more).min(u32::MAX - 1);
                config.dial_timeout = dial;
                config.listen_timeout = listen;
                config.idle_timeout = idle;
                config.ping = ping;
                config.allow = (0..peers).map(|seed| peer(seed + 1)).collect();
                config.block = (0..peers).map(|seed| peer(seed + 101)).collect();
            })
        },
    )
}

fn streams() -> impl Strategy<Value = StreamsConfig> {
    let queues = [queue(), queue(), queue(), queue(), queue(), queue()];
    let bytes = || 1..=MAX_FRAME_PAYLOAD_BYTES;
    (queues, duration(), [bytes(), bytes(), bytes()]).prop_map(
        |([one, other, accept, opening, more, waiting], open_timeout, [frame, write, read])| {
            changed(|config: &mut StreamsConfig| {
                config.max_inbound_per_peer = one.min(other);
                config.max_inbound = one.max(other);
                config.accept_queue = accept;
                config.max_negotiating_per_connection = opening.min(more);
                config.max_outbound_per_connection = opening.max(more);
                config.max_waiting_per_peer = waiting;
                config.open_timeout = open_timeout;
                config.max_frame_bytes = frame;
                config.write_buffer_bytes = write;
                config.read_buffer_bytes = read;
            })
        },
    )
}

fn discovery() -> impl Strategy<Value = DiscoveryConfig> {
    let boot = prop::collection::vec((any::<u32>(), any::<u16>(), any::<u8>()), 0..4);
    let steps = prop::array::uniform5(0_u64..1 << 31).prop_map(|mut steps| {
        steps.sort_unstable();
        steps.map(Duration::from_millis)
    });
    let switches = any::<[bool; 2]>();
    let waits = [1_u64..1 << 31, 1_u64..1 << 31];
    let counts = [0_u32..1 << 20, 1_u32..1 << 20];
    (boot, switches, "[a-z/]{0,255}", waits, steps, counts).prop_map(
        |(boot, [local, mdns], namespace, [tick, ttl], steps, [reservations, per_peer])| {
            let boot = boot.into_iter().map(|(ip, port, seed)| {
                Multiaddr::from(Ipv4Addr::from(ip))
                    .with(Protocol::Tcp(port))
                    .with(Protocol::P2p(peer(seed)))
            });
            changed(|config: &mut DiscoveryConfig| {
                config.boot = boot.collect();
                config.local_network = local;
                config.mdns = mdns;
                config.global_namespace = namespace;
                config.tick = Duration::from_millis(tick);
                config.rendezvous.ttl = Duration::from_millis(ttl);
                config.redial.steps = steps;
                config.relay.reservations = reservations;
                config.book.max_addresses_per_peer = per_peer;
            })
        },
    )
}

fn rendezvous_server() -> impl Strategy<Value = RendezvousServerConfig> {
    let counts = [queue(), queue(), queue(), queue(), queue(), queue()];
    let bytes = (256_usize..=64 * KIB, 0_usize..KIB, 0_usize..1 << 30);
    let rates = [1_u32..1_000_000, 1_u32..1_000_000];
    // Whole seconds, the shorter life first.
    let lives = [1_u64..1 << 20, 0_u64..1 << 20];
    (any::<bool>(), counts, bytes, rates, lives, duration()).prop_map(
        |(enabled, [one, other, per_namespace, answer, three, four], bytes, rates, lives, wait)| {
            let (record, more, all) = bytes;
            changed(|config: &mut RendezvousServerConfig| {
                config.enabled = enabled;
                config.max_registrations = one.max(other);
                config.max_registrations_per_peer = one.min(other);
                config.max_registrations_per_namespace = per_namespace;
                config.max_bytes = record + 2 * KIB + all;
                config.max_record_bytes = record;
                config.max_answer = answer;
                config.max_answer_bytes = record + KIB + more;
                config.min_ttl = Duration::from_secs(lives[0]);
                config.max_ttl = Duration::from_secs(lives[0] + lives[1]);
                config.max_requests_per_connection = three.min(four);
                config.max_requests = three.max(four);
                config.request_burst = rates[0];
                config.requests_per_second = rates[1];
                config.request_timeout = wait;
            })
        },
    )
}

fn rate() -> impl Strategy<Value = RateConfig> {
    (1_u32.., duration()).prop_map(|(burst, interval)| RateConfig { burst, interval })
}

fn relay_server() -> impl Strategy<Value = RelayServerConfig> {
    let counts = [queue(), queue(), queue(), queue()];
    let lives = [1_u64..1 << 24, 1_u64..1 << 24];
    let rates = [rate(), rate(), rate(), rate()];
    (any::<bool>(), counts, lives, 1_u64..1 << 62, rates).prop_map(
        |(enabled, counts, lives, bytes, rates)| {
            changed(|config: &mut RelayServerConfig| {
                config.enabled = enabled;
                config.max_reservations = counts[0];
                config.max_reservations_per_peer = counts[1];
                config.reservation_duration = Duration::from_secs(lives[0]);
                config.max_circuits = counts[2];
                config.max_circuits_per_peer = counts[3];
                config.max_circuit_duration = Duration::from_secs(lives[1]);
                config.max_circuit_bytes = bytes;
                config.reservation_rate_per_peer = rates[0];
                config.reservation_rate_per_ip = rates[1];
                config.circuit_rate_per_peer = rates[2];
                config.circuit_rate_per_ip = rates[3];
            })
        },
    )
}

fn server() -> impl Strategy<Value = ServerConfig> {
    (rendezvous_server(), relay_server())
        .prop_map(|(rendezvous, relay)| ServerConfig { rendezvous, relay })
}

fn blob() -> impl Strategy<Value = BlobConfig> {
    let switches = any::<[bool; 4]>();
    let chunks = prop::array::uniform5(2_usize..=1024).prop_map(|mut chunks| {
        chunks.sort_unstable();
        chunks
    });
    let waits = prop::array::uniform3(duration()).prop_map(|mut waits| {
        waits.sort_unstable();
        waits
    });
    (switches, chunks, waits, 1_usize..=4096, 1..=i64::MAX as u64).prop_map(
        |(switches, [least, less, some, more, most], waits, announced, bytes)| {
            let [unsigned, relays, public, older] = switches;
            changed(|config: &mut BlobConfig| {
                config.unsigned_records = unsigned;
                if older {
                    config.versions = vec![BlobVersion::V0];
                    config.dht_providers = false;
                }
                config.max_announced = announced;
                config.fetch.verify_chunks = least;
                config.fetch.provider_window_chunks = less;
                config.fetch.window_chunks = some;
                config.fetch.rest_initial = waits[0];
                config.fetch.rest_max = waits[1];
                config.fetch.through_relays = relays;
                config.serve.max_chunks_per_peer = more;
                config.serve.max_chunks = most;
                config.store.max_bytes = bytes;
                config.store.public = public;
            })
        },
    )
}

fn handle() -> impl Strategy<Value = HandleConfig> {
    let runtime = prop_oneof![Just(RuntimeKind::Dedicated), Just(RuntimeKind::Shared)];
    let waits = [duration(), duration()];
    (queue(), queue(), runtime, waits).prop_map(|(commands, events, runtime, waits)| {
        changed(|config: &mut HandleConfig| {
            config.command_queue = commands;
            config.event_queue = events;
            config.runtime = runtime;
            config.shutdown_timeout = waits[0];
            config.linger = waits[1];
        })
    })
}

fn pubsub() -> impl Strategy<Value = PubsubConfig> {
    let mesh = prop_oneof![Just(MeshConfig::small()), Just(MeshConfig::large())];
    let heartbeat = (1..=5_000_u64).prop_map(Duration::from_millis);
    (mesh, heartbeat, 1..=MIB, 1..=2048_usize, duration()).prop_map(
        |(mesh, heartbeat, message, topics, ids)| {
            changed(|config: &mut PubsubConfig| {
                config.mesh = MeshConfig { heartbeat, ..mesh };
                config.max_message_bytes = message;
                config.max_topics = topics;
                config.memory.ids = ids;
            })
        },
    )
}

fn specialized() -> impl Strategy<Value = SpecializedConfig> {
    let queues = [queue(), queue(), queue(), queue()];
    (queues, 128..=MIB, [duration(), duration(), duration()]).prop_map(
        |([one, other, connection, all], message, [request, receive, answer])| {
            changed(|config: &mut SpecializedConfig| {
                config.max_inbound_per_connection = one.min(other);
                config.max_inbound = one.max(other);
                config.max_outbound_per_connection = connection;
                config.max_outbound = all;
                config.max_message_bytes = message;
                config.request_timeout = request;
                config.receive_timeout = receive;
                config.answer_timeout = answer;
            })
        },
    )
}

fn listen() -> impl Strategy<Value = Vec<Multiaddr>> {
    let addr = (any::<u32>(), any::<u16>())
        .prop_map(|(ip, port)| Multiaddr::from(Ipv4Addr::from(ip)).with(Protocol::Tcp(port)));
    prop::collection::vec(addr, 0..4)
}

fn config() -> impl Strategy<Value = NetworkConfig> {
    let agent = "[^\\x00]{0,60}";
    let node = (listen(), agent, transport(), connections());
    let protocols = (
        streams(),
        discovery(),
        server(),
        pubsub(),
        specialized(),
        blob(),
    );
    (node, protocols, handle()).prop_map(|(node, protocols, handle)| {
        changed(|config: &mut NetworkConfig| {
            (
                config.listen,
                config.agent_version,
                config.transport,
                config.connections,
            ) = node;
            (
                config.streams,
                config.discovery,
                config.server,
                config.pubsub,
                config.specialized,
                config.blob,
            ) = protocols;
            config.handle = handle;
            // Both ways together fit into what Yamux allows.
            let most = (config.transport.yamux.max_streams / 2).max(1);
            let streams = &mut config.streams;
            streams.max_inbound_per_peer = streams.max_inbound_per_peer.min(most);
            streams.max_outbound_per_connection = streams.max_outbound_per_connection.min(most);
            config.discovery.book.max_peers = config.connections.max_established + 1;
        })
    })
}

proptest! {
    #[test]
    fn every_valid_configuration_survives(config in config()) {
        prop_assert_eq!(config.validate(), Ok(()));
        let toml = config.to_toml().unwrap();
        prop_assert_eq!(NetworkConfig::from_toml(&toml), Ok(config.clone()));
        let over = NetworkConfig::from_toml_over(&toml, &NetworkConfig::default());
        prop_assert_eq!(over, Ok(config.clone()));
        prop_assert_eq!(NetworkConfig::from_toml_over("", &config), Ok(config));
    }

    #[test]
    fn no_text_panics(toml in any::<String>()) {
        let _ = NetworkConfig::from_toml(&toml);
    }

    /// Texts that look like configurations: what is accepted is valid and survives.
    #[test]
    fn what_is_accepted_is_valid(toml in "((listen|transport|streams|pubsub|specialized|connections|handle|\\[transport\\.quic\\]|\\[streams\\]|max_streams|keep_alive_ms|dial_timeout_ms|x|\\.|=|=|\n|\n|0|7|true|\"|\\[|\\]){1,2} ?){0,9}") {
        if let Ok(config) = NetworkConfig::from_toml(&toml) {
            prop_assert_eq!(config.validate(), Ok(()));
            let again = config.to_toml().unwrap();
            prop_assert_eq!(NetworkConfig::from_toml(&again), Ok(config));
        }
    }
}
