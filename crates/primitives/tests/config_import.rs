//! Files of the published 0.11 node are recognised and converted.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use calimero_network_primitives::{
    ConfigError, NetworkConfig,
    config::{Preset, import_0_11},
};

/// A file as the published `merod init` writes it, with the tables of other parts shortened.
const PUBLISHED: &str = r#"
[identity]
peer_id = "12D3KooWR5V4zmisVtVdGE6i8jfFwtgRNq5t8eDGxfckKuhXu7Eh"
keypair = "not read"

[swarm]
listen = ["/ip4/0.0.0.0/tcp/2528", "/ip4/0.0.0.0/udp/2528/quic-v1"]

[server]
listen = ["/ip4/127.0.0.1/tcp/2428"]

[server.admin]
enabled = true

[bootstrap]
nodes = ["/ip4/63.181.86.34/tcp/4001/p2p/12D3KooWR5V4zmisVtVdGE6i8jfFwtgRNq5t8eDGxfckKuhXu7Eh"]

[discovery]
mdns = false
advertise_address = true
external_address = ["/ip4/192.0.2.7/tcp/2528"]

[discovery.rendezvous]
namespace = "/calimero/testnet/global"
discovery_rpm = 0.5
registrations_limit = 3

[discovery.rendezvous.discovery_interval]
secs = 15
nanos = 0

[discovery.relay]
registrations_limit = 3

[discovery.autonat]
max_candidates = 5

[discovery.autonat.probe_interval]
secs = 10
nanos = 0

[sync]
timeout_ms = 30000

[datastore]
path = "data"
"#;

#[test]
fn a_published_file_is_recognised() {
    for text in [PUBLISHED, "[bootstrap]", "[swarm]\nlisten = []"] {
        let error = NetworkConfig::from_toml(text).unwrap_err();
        assert_eq!(error, ConfigError::Published);
        assert!(error.to_string().contains("calnet config import"));
    }
}

#[test]
fn what_concerns_the_network_is_converted() {
    let config = import_0_11(PUBLISHED).unwrap();
    let mut expected = NetworkConfig::preset(Preset::Published0_11);
    let parse = |address: &str| address.parse().unwrap();
    expected.listen = vec![
        parse("/ip4/0.0.0.0/tcp/2528"),
        parse("/ip4/0.0.0.0/udp/2528/quic-v1"),
    ];
    let boot =
        "/ip4/63.181.86.34/tcp/4001/p2p/12D3KooWR5V4zmisVtVdGE6i8jfFwtgRNq5t8eDGxfckKuhXu7Eh";
    expected.discovery.boot = vec![parse(boot)];
    expected.discovery.external = vec![parse("/ip4/192.0.2.7/tcp/2528")];
    expected.discovery.global_namespace = "/calimero/testnet/global".to_owned();
    expected.discovery.relays = 3;
    assert_eq!(config, expected);
    let toml = config.to_toml().unwrap();
    assert_eq!(NetworkConfig::from_toml(&toml).as_ref(), Ok(&config));
    let changes = config.to_toml_over_preset(Preset::Published0_11).unwrap();
    assert!(
        changes.starts_with("preset = \"published-0.11\""),
        "{changes}"
    );
    assert!(!changes.contains("[pubsub]"), "{changes}");
    assert_eq!(NetworkConfig::from_toml(&changes), Ok(config));
}

#[test]
fn the_defaults_of_0_11_are_kept() {
    let hidden = PUBLISHED.replace("advertise_address = true", "advertise_address = false");
    assert!(import_0_11(&hidden).unwrap().discovery.external.is_empty());
    // mDNS was on where the file did not name it.
    assert!(import_0_11("[swarm]\nlisten = []").unwrap().discovery.mdns);
}

#[test]
fn other_files_are_refused_with_the_reason() {
    let ours = NetworkConfig::default().to_toml().unwrap();
    assert_eq!(import_0_11(&ours), Err(ConfigError::NotPublished));
    assert!(matches!(
        import_0_11("swarm ="),
        Err(ConfigError::Syntax { line: 1, .. })
    ));
    let wrong = "[bootstrap]\nnodes = ['boot.example']";
    assert!(
        matches!(import_0_11(wrong), Err(ConfigError::Parse { key, .. }) if key == "bootstrap.nodes[0]")
    );
    let no_peer = "[bootstrap]\nnodes = ['/ip4/192.0.2.1/tcp/1']";
    assert!(
        matches!(import_0_11(no_peer), Err(ConfigError::Invalid { key, .. }) if key == "discovery.boot")
    );
}
