//! `calnet run`: a node until ctrl-c.

pub(crate) mod lines;
pub(crate) mod node;
pub(crate) mod topics;

use std::{fs, path::Path, sync::Arc, time::Duration};

use calimero_network::{Keypair, Multiaddr, NetworkClient, NetworkConfig, NetworkManager, PeerId};
use tokio::sync::Notify;

use self::{
    lines::Line,
    node::{Listeners, Node},
};
use crate::{
    cli::RunArgs, data::DataFolder, error::CommandError, identity, lock::Lock, origins::Origins,
    output::Output, perf, signals::Signals,
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
        data.remember_role(false)?;
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
    let own = || data.as_ref().and_then(DataFolder::existing_config);
    let file = node.config.or_else(own);
    let (mut config, mut origins) = Origins::read(file.as_deref(), &NetworkConfig::default())?;
    origins.add_addresses(node.addresses, &mut config);
    let store = match &data {
        Some(data) => Some(data.blobs(&config.blob.store)?),
        None => None,
    };
    let mut manager = NetworkManager::builder(identity, config);
    if let (Some(data), Some(store)) = (&data, &store) {
        manager = manager.peer_cache(data.peers());
        manager = manager.blobs(Arc::new(store.clone()));
    }
    let listeners = Listeners::open(node.http, data.as_ref()).await?;
    let mut node = Node::start(manager, locks, signals, output, &args.subscribe).await?;
    node.serve(listeners, data.as_ref(), store, origins);
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

/// The text of a configuration file.
pub(crate) fn read_text(path: &Path) -> Result<String, CommandError> {
    fs::read_to_string(path).map_err(|source| CommandError::ReadConfig {
        path: path.to_owned(),
        source,
    })
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
        let error = Origins::read(Some(&path), &NetworkConfig::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains("node.toml"), "{error}");
        assert!(error.contains("discovery.max_peers"), "{error}");
    }
}
