//! What a node does with the configuration of parts that are not compiled in. In a build with every
//! feature, each key is accepted.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use calimero_network::{
    ConfigError, Keypair, NetworkConfig, NetworkManager, StartError,
    config::{Preset, Security},
};

use self::common::{BOTH, start, within};

/// A key that needs a feature, its path in errors, and whether the feature is compiled in.
const KEYS: [(&str, &str, &str, bool); 8] = [
    (
        "blob.unsigned_records = true",
        "blob",
        "blobs",
        cfg!(feature = "blobs"),
    ),
    (
        "discovery.port_mapping = true",
        "discovery.port_mapping",
        "upnp",
        cfg!(feature = "upnp"),
    ),
    (
        "discovery.mdns = true",
        "discovery.mdns",
        "mdns",
        cfg!(feature = "mdns"),
    ),
    (
        "specialized.request_timeout_ms = 9000",
        "specialized",
        "invites",
        cfg!(feature = "invites"),
    ),
    (
        "transport.dns = true",
        "transport.dns",
        "dns",
        cfg!(feature = "dns"),
    ),
    (
        "transport.quic.enabled = true",
        "transport.quic.enabled",
        "quic",
        cfg!(feature = "quic"),
    ),
    (
        "transport.tcp.prefer = 'tls'",
        "transport.tcp.prefer",
        "tls",
        cfg!(feature = "tls"),
    ),
    (
        "transport.websocket = { certificate = 'cert.pem', key = 'key.pem' }",
        "transport.websocket",
        "websocket",
        cfg!(feature = "websocket"),
    ),
];

#[test]
fn a_key_of_a_missing_part_is_refused_with_the_name_of_the_feature() {
    for (line, key, feature, is_compiled) in KEYS {
        let read = NetworkConfig::from_toml(line);
        if is_compiled {
            read.expect(line);
            continue;
        }
        let expected = ConfigError::MissingFeature {
            key: key.to_owned(),
            feature,
        };
        assert_eq!(read, Err(expected), "{line}");
    }
}

#[tokio::test]
async fn a_node_with_the_default_configuration_uses_what_is_compiled_in() {
    let mut config = NetworkConfig::default();
    assert_eq!(config.listen.len(), 2 * BOTH.len(), "{:?}", config.listen);
    assert_eq!(config.transport.quic.enabled, cfg!(feature = "quic"));
    assert_eq!(
        config.transport.tcp.prefer == Security::Tls,
        cfg!(feature = "tls")
    );
    for preset in Preset::ALL {
        NetworkConfig::preset(preset).validate().unwrap();
    }
    config.listen = BOTH.map(common::loopback).to_vec();
    let node = start(config).await;
    let status = within(node.client.status()).await.unwrap();
    assert_eq!(status.listening.len(), BOTH.len(), "{:?}", status.listening);
}

#[tokio::test]
async fn a_node_does_not_start_with_a_missing_part() {
    let mut config = common::config();
    config.discovery.mdns = true;
    config.transport.quic.enabled = true;
    let node = NetworkManager::builder(Keypair::generate_ed25519(), config).in_memory();
    let refused = match within(node.start()).await {
        Ok(_) => false,
        Err(StartError::Config(ConfigError::MissingFeature { .. })) => true,
        Err(other) => panic!("{other}"),
    };
    assert_eq!(refused, !cfg!(all(feature = "mdns", feature = "quic")));
}
