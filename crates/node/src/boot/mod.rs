//! `calnet boot`: a node that others find each other by, until ctrl-c.

mod descriptors;

use calimero_network::{NetworkConfig, NetworkManager};

use crate::{
    cli::BootArgs,
    data::DataFolder,
    error::CommandError,
    identity,
    output::Output,
    run::{node::Node, read_config, stand_at},
    signals::Signals,
};

/// Connections of a boot node: 10,000 nodes, and half of them by two ways.
const MAX_ESTABLISHED: u32 = 16_384;

/// Handshakes under way, inbound: after an outage all nodes are back within a minute, some
/// hundred a second, and each takes a few round trips. At 50 KiB each, 50 MiB.
const MAX_PENDING_INBOUND: u32 = 1024;

/// Peers in the address book: more than connections, some 16 MiB.
const MAX_KNOWN_PEERS: u32 = 20_480;

pub(crate) async fn execute(args: BootArgs) -> Result<(), CommandError> {
    let node = args.node;
    let output = Output::new(node.json);
    let data = DataFolder::open(&args.data)?;
    let own = node.identity.unwrap_or_else(|| data.identity());
    let identity = identity::load_or_create(&own)?;
    let file = node.config.or_else(|| data.config_if_there());
    let mut config = read_config(file.as_deref(), defaults())?;
    stand_at(node.addresses, &mut config);
    if config.discovery.external.is_empty() {
        tracing::warn!("without --external the relay is of no use until others find an address");
    }
    descriptors::raise(&config);
    // Asked for before anything runs, so that no signal falls between.
    let signals = Signals::listen().map_err(CommandError::Runtime)?;
    let manager = NetworkManager::builder(identity, config).peer_cache(data.peers());
    let node = Node::start(manager, node.metrics, signals, output).await?;
    node.until_ended().await
}

/// What a boot node has where its configuration says nothing: both servers on, room for 10,000
/// nodes, no slot on other relays.
fn defaults() -> NetworkConfig {
    let mut config = NetworkConfig::default();
    config.server.rendezvous.enabled = true;
    config.server.relay.enabled = true;
    config.connections.max_established = MAX_ESTABLISHED;
    config.connections.tuning.max_pending_inbound = MAX_PENDING_INBOUND;
    config.discovery.max_peers = MAX_KNOWN_PEERS;
    config.discovery.relays = 0;
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_hold() {
        defaults().validate().unwrap();
    }

    #[test]
    fn a_file_changes_what_it_names_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("boot.toml");
        std::fs::write(&path, "[server.relay]\nenabled = false\n").unwrap();
        let config = read_config(Some(&path), defaults()).unwrap();
        assert!(config.server.rendezvous.enabled && !config.server.relay.enabled);
        assert_eq!(config.connections.max_established, MAX_ESTABLISHED);
    }
}
