//! `calnet blob get`: a blob from the network.

use std::{path::PathBuf, sync::Arc, time::Duration};

use calimero_network::{
    BlobId, ContextId, Keypair, Multiaddr, NetworkClient, NetworkConfig, NetworkManager, PeerId,
    blob::{fetch::Destination, store::FsBlobStore},
};
use futures::StreamExt as _;
use tokio::time::{Instant, sleep};

use super::{Lines, lines::Line, local};
use crate::{cli::GetArgs, error::CommandError, progress};

/// Time for a search to find somebody who has the blob, over and over: a node that has just
/// started meets those who know one by one.
const SEARCH_TIME: Duration = Duration::from_secs(10);

/// Pause between two searches.
const SEARCH_PAUSE: Duration = Duration::from_millis(500);

/// What is fetched.
pub(super) struct Wanted {
    pub(super) id: BlobId,
    pub(super) context: ContextId,
    /// Who is asked beside those whom the DHT names.
    pub(super) dial: Vec<Multiaddr>,
}

/// Fetches with a node that lives for this alone.
pub(super) async fn execute(
    args: GetArgs,
    store: Option<FsBlobStore>,
    lines: Lines,
) -> Result<(), CommandError> {
    if args.output.is_none() && store.is_none() {
        return Err(CommandError::NoDestination);
    }
    let mut config = NetworkConfig {
        listen: Vec::new(),
        ..NetworkConfig::default()
    };
    config.discovery.boot = args.boot;
    config.discovery.local_network = args.local;
    let (client, mut events) = NetworkManager::start(Keypair::generate_ed25519(), config).await?;
    // What happens is told by the transfer itself.
    let unread = tokio::spawn(async move { while events.next().await.is_some() {} });
    if !client.config().discovery.boot.is_empty() {
        let _ = client.bootstrap().await;
    }
    let wanted = Wanted {
        id: args.id,
        context: args.context,
        dial: args.dial,
    };
    fetch(&client, wanted, args.output, store.as_ref(), &lines).await?;
    client.shutdown().await?;
    let _ = unread.await;
    Ok(())
}

/// Fetches a blob to the file `output`, or else into `store`.
pub(super) async fn fetch(
    client: &NetworkClient,
    wanted: Wanted,
    output: Option<PathBuf>,
    store: Option<&FsBlobStore>,
    lines: &Lines,
) -> Result<(), CommandError> {
    let Wanted { id, context, dial } = wanted;
    let into = store.filter(|_| output.is_none());
    let to = match (output, into) {
        (Some(path), _) => Destination::File(path),
        (None, Some(store)) => Destination::Store(Arc::new(store.clone())),
        (None, None) => return Err(CommandError::NoDestination),
    };
    let mut providers = meet(client, dial).await?;
    let is_here = into.is_some_and(|store| store.has(&id));
    if providers.is_empty() && !is_here {
        providers = search(client, context, id).await;
    }
    let mut transfer = client.request_blob(context, id, providers, to);
    let mut progress = std::mem::replace(transfer.progress(), futures::stream::empty().boxed());
    let showing = async {
        while let Some(progress) = progress.next().await {
            let line = Line::Progress(progress::Line::of(&progress));
            if lines.tell(line).await.is_err() {
                // Whoever wanted it has gone away.
                return Err(CommandError::Interrupted);
            }
        }
        Ok(())
    };
    let fetching = async { transfer.await.map_err(CommandError::Fetch) };
    let (fetched, ()) = futures::future::try_join(fetching, showing).await?;
    if let Some(store) = into {
        store.tag(&local::tag(context, &id), id)?;
    }
    let from = fetched.providers.iter();
    lines
        .tell(Line::Fetched {
            id: id.to_string(),
            size_bytes: fetched.size_bytes,
            resumed_bytes: fetched.resumed_bytes,
            received_bytes: fetched.received_bytes,
            providers: from.map(|(peer, _)| peer.to_string()).collect(),
        })
        .await
}

/// Dials those who are said to have it. One who answers is enough.
async fn meet(client: &NetworkClient, dial: Vec<Multiaddr>) -> Result<Vec<PeerId>, CommandError> {
    let mut met = Vec::new();
    let mut refused = None;
    for address in dial {
        match client.dial(address).await {
            Ok(connection) => met.push(connection.peer),
            Err(error) => refused = Some(error),
        }
    }
    match refused {
        Some(error) if met.is_empty() => Err(error.into()),
        _ => Ok(met),
    }
}

/// Looks for those who have a blob until somebody is found, or in vain for a while.
async fn search(client: &NetworkClient, context: ContextId, id: BlobId) -> Vec<PeerId> {
    let deadline = Instant::now() + SEARCH_TIME;
    while Instant::now() < deadline && !client.config().discovery.boot.is_empty() {
        if let Ok(mut found) = client.query_blob(context, id).await
            && let Some(provider) = found.next().await
        {
            return vec![provider.peer];
        }
        sleep(SEARCH_PAUSE).await;
    }
    Vec::new()
}
