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
        BlobConfig, BlobVersion, ConnectionsConfig, DiscoveryConfig, GossipVersion, HandleConfig,
        MeshConfig, PingConfig, Preset, PubsubConfig, RuntimeKind, Security, ServerConfig,
        SpecializedConfig, StreamsConfig, TransportConfig,
    },
    limits::{KIB, MAX_CONFIGURED_DURATION, MAX_CONFIGURED_QUEUE, MIB},
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

/// Returns the paths of all keys of a table.
fn keys(table: &toml::Table, prefix: &str) -> Vec<String> {
    let below = |(name, value): (&String, &toml::Value)| match value {
        toml::Value::Table(table) => keys(table, &format!("{prefix}{name}.")),
        _ => vec![format!("{prefix}{name}")],
    };
    table.iter().flat_map(below).collect()
}

#[test]
fn there_are_at_most_60_keys() {
    let text = NetworkConfig::default().to_toml().unwrap();
    let keys = keys(&text.parse().unwrap(), "");
    assert!(keys.len() <= 60, "{}: {keys:#?}", keys.len());
}

#[test]
fn one_key_changes_one_field() {
    let toml = "[connections.ping]\ninterval_ms = 7000";
    let mut expected = NetworkConfig::default();
    expected.connections.ping.interval = Duration::from_secs(7);
    assert_eq!(NetworkConfig::from_toml(toml).unwrap(), expected);
}

#[test]
fn a_preset_sets_its_values_and_a_key_overrides_them() {
    for preset in Preset::ALL {
        let config = NetworkConfig::preset(preset);
        config.validate().unwrap();
        let toml = config.to_toml().unwrap();
        assert_eq!(NetworkConfig::from_toml(&toml).unwrap(), config);
    }
    assert_eq!(
        NetworkConfig::preset(Preset::Small),
        NetworkConfig::default()
    );
    let large = NetworkConfig::from_toml("preset = 'large'").unwrap();
    assert_eq!(large, NetworkConfig::preset(Preset::Large));
    assert_eq!(large.pubsub.mesh, MeshConfig::large());
    let published = "preset = 'published-0.11'\npubsub.mesh = 'large'";
    let published = NetworkConfig::from_toml(published).unwrap();
    let mut expected = NetworkConfig::preset(Preset::Published0_11);
    expected.pubsub.mesh = MeshConfig::large();
    assert_eq!(published, expected);
    assert!(published.pubsub.max_message_bytes + 2 * KIB <= 64 * KIB);
    assert!(published.blob.unsigned_records && published.blob.tuning.dht_providers);
    assert_eq!(
        published.blob.versions,
        [BlobVersion::V1_1, BlobVersion::V1, BlobVersion::V0]
    );
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
    // A file that is valid alone may contradict the base.
    let few = "discovery.boot = []\ndiscovery.max_peers = 1500";
    assert!(NetworkConfig::from_toml(few).is_ok());
    assert!(matches!(refused(few), ConfigError::Invalid { key, .. }
        if key == "discovery.max_peers"));
}

#[test]
fn the_largest_numbers_survive_and_larger_ones_are_an_error() {
    let mut config = NetworkConfig::default();
    config.handle.event_queue_bytes = i64::MAX as usize;
    let toml = config.to_toml().unwrap();
    assert_eq!(NetworkConfig::from_toml(&toml), Ok(config.clone()));

    config.connections.idle_timeout = Duration::MAX;
    assert!(config.validate().is_err());
    assert!(matches!(
        config.to_toml(),
        Err(ConfigError::Unwritable { .. })
    ));
}

/// Returns the default after a change.
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

fn transport() -> impl Strategy<Value = TransportConfig> {
    let security = prop_oneof![Just(Security::Tls), Just(Security::Noise)];
    let files = prop_oneof![Just(""), Just("/etc/calnet/a b.pem")];
    let congestion = match cfg!(target_os = "linux") {
        true => "[!-~]{0,15}",
        false => "",
    };
    let all = (security, congestion, any::<[bool; 3]>(), files);
    all.prop_map(|(prefer, congestion, [quic, dns, relay_client], file)| {
        changed(|config: &mut TransportConfig| {
            config.websocket.certificate = file.into();
            config.websocket.key = file.into();
            config.tcp.prefer = prefer;
            config.tcp.congestion = congestion.clone();
            config.quic.enabled = quic;
            config.dns = dns;
            config.relay_client = relay_client;
        })
    })
}

fn connections() -> impl Strategy<Value = ConnectionsConfig> {
    let ping = (duration(), duration(), 1_u32..);
    (8..u32::MAX, duration(), ping, 0_u8..4).prop_map(
        |(established, idle, (interval, timeout, max_failures), peers)| {
            changed(|config: &mut ConnectionsConfig| {
                config.max_established = established;
                config.idle_timeout = idle;
                config.ping = PingConfig {
                    interval,
                    timeout,
                    max_failures,
                };
                config.allow = (0..peers).map(|seed| peer(seed + 1)).collect();
                config.block = (0..peers).map(|seed| peer(seed + 101)).collect();
            })
        },
    )
}

fn streams() -> impl Strategy<Value = StreamsConfig> {
    (1_usize..=1664, queue()).prop_map(|(per_peer, all)| {
        changed(|config: &mut StreamsConfig| {
            config.max_inbound_per_peer = per_peer;
            config.max_inbound = all.max(per_peer);
        })
    })
}

fn discovery() -> impl Strategy<Value = DiscoveryConfig> {
    let boot = prop::collection::vec((any::<u32>(), any::<u16>(), any::<u8>()), 0..4);
    let counts = (1_u32.., any::<u32>());
    (boot, any::<[bool; 2]>(), "[a-z/]{0,255}", counts).prop_map(
        |(boot, [local, mdns], namespace, (members_target, relays))| {
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
                config.members_target = members_target;
                config.relays = relays;
            })
        },
    )
}

fn server() -> impl Strategy<Value = ServerConfig> {
    let counts = [queue(), queue(), queue(), queue()];
    let circuits = (1_u64..1 << 24, 1_u64..1 << 62);
    (any::<[bool; 2]>(), counts, 6144_usize..1 << 40, circuits).prop_map(
        |([rendezvous, relay], counts, bytes, (life, circuit_bytes))| {
            changed(|config: &mut ServerConfig| {
                config.rendezvous.enabled = rendezvous;
                config.rendezvous.max_registrations = counts[0].max(64);
                config.rendezvous.max_bytes = bytes;
                config.relay.enabled = relay;
                config.relay.max_reservations = counts[1];
                config.relay.max_circuits = counts[2];
                config.relay.max_circuits_per_peer = counts[3];
                config.relay.max_circuit_duration = Duration::from_secs(life);
                config.relay.max_circuit_bytes = circuit_bytes;
            })
        },
    )
}

fn blob() -> impl Strategy<Value = BlobConfig> {
    let serve = (16..=MAX_CONFIGURED_QUEUE, 4_usize..=1024);
    let rate = || prop_oneof![Just(0), 65_536..=i64::MAX as u64];
    let rates = (rate(), rate());
    (any::<[bool; 4]>(), serve, 1..=i64::MAX as u64, rates).prop_map(
        |([unsigned, relays, public, older], (transfers, chunks), bytes, (up, down))| {
            changed(|config: &mut BlobConfig| {
                config.max_upload_bytes_per_s = up;
                config.max_download_bytes_per_s = down;
                config.unsigned_records = unsigned;
                if older {
                    config.versions = vec![BlobVersion::V0];
                }
                config.fetch.through_relays = relays;
                config.serve.max_transfers = transfers;
                config.serve.max_chunks = chunks;
                config.store.max_bytes = bytes;
                config.store.public = public;
            })
        },
    )
}

fn handle() -> impl Strategy<Value = HandleConfig> {
    let runtime = prop_oneof![Just(RuntimeKind::Dedicated), Just(RuntimeKind::Shared)];
    (queue(), 0..1_usize << 40, runtime, duration()).prop_map(|(events, more, runtime, wait)| {
        changed(|config: &mut HandleConfig| {
            config.event_queue = events;
            config.event_queue_bytes = MIB + more;
            config.runtime = runtime;
            config.shutdown_timeout = wait;
        })
    })
}

fn pubsub() -> impl Strategy<Value = PubsubConfig> {
    let mesh = prop_oneof![Just(MeshConfig::small()), Just(MeshConfig::large())];
    let version = prop_oneof![Just(GossipVersion::V1_1), Just(GossipVersion::V1_3)];
    (mesh, version, 1..=MIB, 1..=2048_usize).prop_map(|(mesh, version, message, topics)| {
        changed(|config: &mut PubsubConfig| {
            config.mesh = mesh;
            config.newest_version = version;
            config.max_message_bytes = message;
            config.max_topics = topics;
        })
    })
}

fn specialized() -> impl Strategy<Value = SpecializedConfig> {
    [duration(), duration()].prop_map(|[request, answer]| {
        changed(|config: &mut SpecializedConfig| {
            config.request_timeout = request;
            config.answer_timeout = answer;
        })
    })
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
            config.discovery.max_peers = config.connections.max_established + 1;
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
