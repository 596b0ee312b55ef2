//! Every configuration that is accepted starts a node, which stops again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::time::Duration;

use calimero_network::{
    Keypair, NetworkConfig, NetworkManager,
    config::{MeshConfig, Preset},
};
use proptest::{collection::vec, prelude::*};
use tokio::runtime::Runtime;

#[path = "../../../fuzz/shared/config.rs"]
mod shared;

/// Time for a node to start and to stop on a loaded machine.
const LIMIT: Duration = Duration::from_secs(30);

async fn start_and_stop(config: NetworkConfig) {
    let node = NetworkManager::builder(Keypair::generate_ed25519(), config).in_memory();
    let started = tokio::time::timeout(LIMIT, node.start()).await;
    let (client, _events) = started
        .expect("no start")
        .expect("an accepted configuration");
    let stopped = tokio::time::timeout(LIMIT, client.shutdown()).await;
    stopped.expect("no stop").unwrap();
}

fn in_memory(mut config: NetworkConfig) -> NetworkConfig {
    config.listen = vec!["/memory/0".parse().unwrap()];
    config
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_accepted_configuration_runs(bytes in vec(any::<u8>(), 0..80)) {
        if let Some(config) = shared::derive(&bytes) {
            Runtime::new().unwrap().block_on(start_and_stop(config));
        }
    }
}

/// One key at an edge at a time, which random choices rarely leave alone.
#[tokio::test(flavor = "multi_thread")]
async fn every_key_runs_at_its_edges() {
    let text = NetworkConfig::default().to_toml().unwrap();
    let keys = text.lines().filter(|line| line.contains(" = ")).count();
    let mut accepted = 0;
    for key in 0..keys {
        for choice in 0..14 {
            let mut bytes = vec![0; key];
            bytes.push(128 + choice);
            if let Some(config) = shared::derive(&bytes) {
                accepted += 1;
                start_and_stop(config).await;
            }
        }
    }
    assert!(accepted > 2 * keys, "{accepted} of {keys} keys");
}

#[tokio::test(flavor = "multi_thread")]
async fn presets_and_smallest_tuning_run() {
    for preset in Preset::ALL {
        start_and_stop(in_memory(NetworkConfig::preset(preset))).await;
    }
    // The smallest values that Kademlia, gossipsub and the channels of tokio accept.
    let mut config = in_memory(NetworkConfig::default());
    config.discovery.records.publication_interval = Duration::from_secs(1);
    config.discovery.records.replication_interval = Duration::from_secs(1);
    config.discovery.records.ttl = Duration::from_secs(2);
    config.pubsub.mesh = MeshConfig {
        target: 2,
        low: 1,
        high: 2,
        ..MeshConfig::small()
    };
    config.streams.tuning.accept_queue = 1;
    config.handle.event_queue = 1;
    start_and_stop(config).await;
}
