//! `calnet run`: a node until ctrl-c.

mod lines;
mod topics;

use std::{fs, path::Path, sync::Arc, time::Duration};

use calimero_network::{
    Keypair, Multiaddr, NetworkClient, NetworkConfig, NetworkEvent, NetworkManager, PeerId,
};
use tokio::{sync::Notify, task::JoinSet};

use self::lines::Line;
use crate::{cli::RunArgs, error::CommandError, identity, output::Output, perf, signals::Signals};

/// Pauses before a lost address is dialled again; the last one repeats.
const REDIAL_PAUSES: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(30),
    Duration::from_secs(60),
];

pub(crate) async fn execute(args: RunArgs) -> Result<(), CommandError> {
    let output = Output::new(args.json);
    let identity = match &args.identity {
        Some(path) => identity::load_or_create(path)?,
        None => Keypair::generate_ed25519(),
    };
    let mut config = read_config(args.config.as_deref())?;
    if !args.listen.is_empty() {
        config.listen = args.listen;
    }
    // Asked for before anything runs, so that no signal falls between.
    let mut signals = Signals::listen().map_err(CommandError::Runtime)?;
    let (client, mut events) = NetworkManager::start(identity, config).await?;
    output.print(&Line::Started {
        peer: client.peer_id().to_base58(),
    });
    let mut tasks = JoinSet::new();
    let lost = Arc::new(Notify::new());
    if !args.no_perf {
        let requests = client.accept(perf::PROTOCOL)?;
        tasks.spawn_on(perf::serve(requests), client.runtime());
    }
    topics::follow(&client, &args.subscribe).await?;
    if let Some(topic) = args.publish {
        let publishing = topics::publish_lines(client.clone(), topic, output.clone());
        tasks.spawn(publishing);
    }
    for address in args.dial {
        let keeping = keep_connected(client.clone(), address, lost.clone(), output.clone());
        tasks.spawn(keeping);
    }
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(event) => {
                    if tells_of_a_loss(&event) {
                        lost.notify_waiters();
                    }
                    if let Some(line) = Line::of(event) {
                        output.print(&line);
                    }
                }
                None => break,
            },
            () = signals.next() => break,
        }
    }
    tasks.shutdown().await;
    // Whoever asks twice does not want to wait for the peers.
    tokio::select! {
        stopped = client.shutdown() => stopped?,
        () = signals.next() => return Err(CommandError::Interrupted),
    }
    output.print(&Line::Stopped {});
    Ok(())
}

fn read_config(path: Option<&Path>) -> Result<NetworkConfig, CommandError> {
    let Some(path) = path else {
        return Ok(NetworkConfig::default());
    };
    let text = fs::read_to_string(path).map_err(|source| CommandError::ReadConfig {
        path: path.to_owned(),
        source,
    })?;
    NetworkConfig::from_toml(&text).map_err(|source| CommandError::Config {
        path: path.to_owned(),
        source,
    })
}

/// Whether a connection may be gone. What was dropped may have told of it.
fn tells_of_a_loss(event: &NetworkEvent) -> bool {
    matches!(
        event,
        NetworkEvent::Disconnected { .. } | NetworkEvent::Lagged { .. }
    )
}

/// Dials an address, and again whenever its peer is lost.
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
        // Listens from here on, so that a loss between the look and the wait is not missed.
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
        fs::write(&path, "[transport.quic]\nidle_timeout_ms = 1\n").unwrap();
        let error = read_config(Some(&path)).unwrap_err().to_string();
        assert!(error.contains("node.toml"), "{error}");
        assert!(error.contains("transport.quic.keep_alive_ms"), "{error}");
    }
}
