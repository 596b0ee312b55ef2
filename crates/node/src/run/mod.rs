//! `calnet run`: a node until ctrl-c.

pub(crate) mod lines;
pub(crate) mod node;
pub(crate) mod topics;

use std::{fs, path::Path, sync::Arc, time::Duration};

use calimero_network::{Keypair, Multiaddr, NetworkClient, NetworkConfig, NetworkManager, PeerId};
use tokio::sync::Notify;

use self::{lines::Line, node::Node};
use crate::{
    cli::{AddressArgs, RunArgs},
    data::DataFolder,
    error::CommandError,
    http, identity,
    lock::Lock,
    output::Output,
    perf,
    signals::Signals,
};

/// Pauses before a lost address is dialled again; the last one repeats.
const REDIAL_PAUSES: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(30),
    Duration::from_secs(60),
];

pub(crate) async fn execute(
    args: RunArgs,
    output: Output,
    signals: Signals,
) -> Result<(), CommandError> {
    let node = args.node;
    let data = args.data.as_deref().map(DataFolder::open).transpose()?;
    let mut locks = Vec::new();
    if let Some(data) = &data {
        locks.push(data.lock()?);
    }
    let own = data.as_ref().map(DataFolder::identity);
    let identity = match node.identity.or(own) {
        Some(path) => {
            let identity = identity::load_or_create(&path)?;
            locks.push(Lock::file(&path)?);
            identity
        }
        None => Keypair::generate_ed25519(),
    };
    let base = NetworkConfig::default();
    let own = || data.as_ref().and_then(DataFolder::existing_config);
    let mut config = read_config(node.config.or_else(own).as_deref(), base)?;
    add_addresses(node.addresses, &mut config);
    let store = match &data {
        Some(data) => Some(data.blobs(&config.blob.store)?),
        None => None,
    };
    let mut manager = NetworkManager::builder(identity, config);
    if let (Some(data), Some(store)) = (&data, &store) {
        manager = manager.peer_cache(data.peers());
        manager = manager.blobs(Arc::new(store.clone()));
    }
    let page = http::listen(node.metrics, node.metrics_host).await?;
    let mut node = Node::start(manager, page, locks, signals, output, &args.subscribe).await?;
    if let Some(data) = &data {
        node.open_control(data, store);
    }
    if args.perf {
        let requests = node.client.accept(perf::PROTOCOL)?;
        let runtime = node.client.runtime();
        node.tasks.spawn_on(perf::serve(requests), runtime);
    }
    topics::subscribe(&node.client, &args.subscribe).await?;
    if let Some(topic) = args.publish {
        let (client, output) = (node.client.clone(), node.output.clone());
        let publishing = topics::publish_lines(client, topic, output);
        node.tasks.spawn(publishing);
    }
    for address in args.dial {
        let (client, output) = (node.client.clone(), node.output.clone());
        let keeping = keep_connected(client, address, node.lost.clone(), output);
        node.tasks.spawn(keeping);
    }
    node.until_ended().await
}

/// Puts the addresses of the command line into the configuration. Addresses to listen on replace
/// those of the configuration, all others are added to them.
pub(crate) fn add_addresses(addresses: AddressArgs, config: &mut NetworkConfig) {
    if !addresses.listen.is_empty() {
        config.listen = addresses.listen;
    }
    let discovery = &mut config.discovery;
    discovery.boot.extend(addresses.boot);
    discovery.external.extend(addresses.external);
    discovery.local_network |= addresses.local;
}

/// The configuration in the file at `path`; what it does not name is as in `base`.
pub(crate) fn read_config(
    path: Option<&Path>,
    base: NetworkConfig,
) -> Result<NetworkConfig, CommandError> {
    let Some(path) = path else {
        return Ok(base);
    };
    let text = fs::read_to_string(path).map_err(|source| CommandError::ReadConfig {
        path: path.to_owned(),
        source,
    })?;
    parse_config(path, &text, &base)
}

/// The configuration in `text`, the content of the file at `path`.
pub(crate) fn parse_config(
    path: &Path,
    text: &str,
    base: &NetworkConfig,
) -> Result<NetworkConfig, CommandError> {
    NetworkConfig::from_toml_over(text, base).map_err(|source| CommandError::Config {
        path: path.to_owned(),
        source,
    })
}

/// Dials an address, and again each time the connection is lost.
async fn keep_connected(
    client: NetworkClient,
    address: Multiaddr,
    lost: Arc<Notify>,
    output: Output,
) {
    let mut failures = 0usize;
    loop {
        match client.dial(address.clone()).await {
            Ok(connection) => {
                failures = 0;
                until_lost(&client, connection.peer, &lost).await;
                tokio::time::sleep(REDIAL_PAUSES[0]).await;
            }
            Err(error) => {
                output.print(&Line::DialFailed {
                    address: address.to_string(),
                    error: error.to_string(),
                });
                let pause = REDIAL_PAUSES[failures.min(REDIAL_PAUSES.len() - 1)];
                failures += 1;
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// Waits until no connection with `peer` is left.
async fn until_lost(client: &NetworkClient, peer: PeerId, lost: &Notify) {
    loop {
        let next = lost.notified();
        tokio::pin!(next);
        // Registered before the status is read, so that a loss in between is not missed.
        next.as_mut().enable();
        let status = client.status().await;
        if !status.is_ok_and(|status| status.connections.iter().any(|c| c.peer == peer)) {
            return;
        }
        next.await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_that_is_refused_names_its_file_and_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.toml");
        fs::write(&path, "[discovery]\nmax_peers = 1\n").unwrap();
        let error = read_config(Some(&path), NetworkConfig::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains("node.toml"), "{error}");
        assert!(error.contains("discovery.max_peers"), "{error}");
    }
}
