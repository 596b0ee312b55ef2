//! `calnet boot`: a node by which others find each other, until a signal.

mod descriptors;

use calimero_network::{NetworkConfig, NetworkManager, addr::with_peer};

use crate::{
    cli::BootArgs,
    data::DataFolder,
    error::CommandError,
    identity,
    lock::Lock,
    origins::Origins,
    output::Output,
    run::{
        lines::Line,
        node::{Listeners, Node},
    },
    signals::Signals,
};

/// Connections of a boot node: 10,000 nodes, half of them with two connections.
const MAX_ESTABLISHED: u32 = 16_384;

/// Handshakes under way, inbound: after an outage all nodes are back within a minute, some
/// hundred a second, and each takes a few round trips. At 50 KiB each, 50 MiB.
const MAX_PENDING_INBOUND: u32 = 1024;

/// Peers in the address book: more than connections, some 16 MiB.
const MAX_KNOWN_PEERS: u32 = 20_480;

pub(crate) async fn execute(
    args: BootArgs,
    output: Output,
    signals: Signals,
) -> Result<(), CommandError> {
    let node = args.node;
    let data = DataFolder::open(&args.data)?;
    let lock = data.lock()?;
    data.remember_role(true)?;
    let own = node.identity.unwrap_or_else(|| data.identity());
    let identity = identity::load_or_create(&own)?;
    let locks = vec![lock, Lock::file(&own)?];
    let file = node.config.or_else(|| data.existing_config());
    let (mut config, mut origins) = Origins::read(file.as_deref(), &defaults())?;
    origins.add_addresses(node.addresses, &mut config);
    if config.discovery.external.is_empty() {
        tracing::warn!(
            "without --external the relay grants no reservations until peers have confirmed an address of this node"
        );
    }
    descriptors::raise(&config);
    let manager = NetworkManager::builder(identity, config).peer_cache(data.peers());
    let listeners = Listeners::open(node.http, Some(&data)).await?;
    let mut node = Node::start(manager, locks, signals, output, &[]).await?;
    for address in &node.client.config().discovery.external {
        // An address that names another peer is refused with the configuration.
        if let Ok(address) = with_peer(address, node.client.peer_id()) {
            let address = address.to_string();
            node.output.print(&Line::BootAddress { address });
        }
    }
    node.serve(listeners, Some(&data), None, origins);
    node.until_ended().await
}

/// The configuration of a boot node whose file names no keys: both servers are on, 10,000 nodes fit,
/// and it makes no reservations on other relays.
pub(crate) fn defaults() -> NetworkConfig {
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
        let (config, _) = Origins::read(Some(&path), &defaults()).unwrap();
        assert!(config.server.rendezvous.enabled && !config.server.relay.enabled);
        assert_eq!(config.connections.max_established, MAX_ESTABLISHED);
    }
}
