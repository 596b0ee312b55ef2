//! `calnet blob get`: a blob from the network.

use std::{sync::Arc, time::Duration};

use calimero_network::{
    BlobId, ContextId, Keypair, Multiaddr, NetworkClient, NetworkManager, PeerId,
    blob::{
        fetch::{Destination, FetchRequest},
        store::FsBlobStore,
    },
};
use futures::StreamExt as _;
use tokio::time::{Instant, sleep};

use super::{Lines, Target, lines::Line, local};
use crate::{
    cli::GetArgs,
    error::CommandError,
    one_shot,
    output::{Output, StdoutWriter},
    progress,
};

/// Time for the search of a first provider, which is repeated: a node that has just started meets
/// the peers that hold records one by one.
const SEARCH_TIME: Duration = Duration::from_secs(10);

/// Pause between two searches.
const SEARCH_PAUSE: Duration = Duration::from_millis(500);

/// A blob to fetch.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) id: BlobId,
    pub(crate) context: ContextId,
    /// Providers that are asked besides those that the DHT names.
    pub(crate) dial: Vec<Multiaddr>,
    /// Whether further providers are searched for. Without boot nodes and mDNS no peer could answer.
    pub(crate) search: bool,
}

/// Fetches with a node that runs for this command.
pub(super) async fn execute(
    args: GetArgs,
    target: Option<Target>,
    store: Option<FsBlobStore>,
    output: Output,
    lines: Lines,
) -> Result<(), CommandError> {
    if target.is_none() && store.is_none() {
        return Err(CommandError::NoDestination);
    }
    let config = one_shot::config(args.boot, args.local);
    let (client, mut events) = NetworkManager::start(Keypair::generate_ed25519(), config).await?;
    // The transfer reports its own progress.
    let unread = tokio::spawn(async move { while events.next().await.is_some() {} });
    if !client.config().discovery.boot.is_empty() {
        let _ = client.bootstrap().await;
    }
    let discovery = &client.config().discovery;
    let wanted = Wanted {
        id: args.id,
        context: args.context,
        dial: args.dial,
        search: !discovery.boot.is_empty() || discovery.mdns,
    };
    match (target, &store) {
        (Some(Target::Stdout), _) => {
            let writer = Box::new(StdoutWriter(output));
            let to = Destination::Writer(writer);
            let fetched = fetch(&client, wanted, to, false, &lines).await?;
            lines.send(fetched).await?;
        }
        (Some(Target::File(target)), _) => {
            let to = Destination::File(target.path().to_owned());
            let fetched = fetch(&client, wanted, to, false, &lines).await?;
            target.restore_permissions()?;
            lines.send(fetched).await?;
        }
        (None, Some(store)) => {
            let fetched = into_store(&client, wanted, store, &lines).await?;
            lines.send(fetched).await?;
        }
        (None, None) => return Err(CommandError::NoDestination),
    }
    client.shutdown().await?;
    let _ = unread.await;
    Ok(())
}

/// Fetches a blob into a store and protects it until it is removed. Returns the record of the end.
pub(super) async fn into_store(
    client: &NetworkClient,
    wanted: Wanted,
    store: &FsBlobStore,
    lines: &Lines,
) -> Result<Line, CommandError> {
    let (id, context) = (wanted.id, wanted.context);
    let is_here = store.has(&id);
    let to = Destination::Store(Arc::new(store.clone()));
    let fetched = fetch(client, wanted, to, is_here, lines).await?;
    store.tag(&local::tag(context, &id), id)?;
    Ok(fetched)
}

/// Fetches a blob to a destination. Returns the record of the end.
async fn fetch(
    client: &NetworkClient,
    wanted: Wanted,
    to: Destination,
    is_here: bool,
    lines: &Lines,
) -> Result<Line, CommandError> {
    let (id, context) = (wanted.id, wanted.context);
    let mut providers = connect(client, wanted.dial).await?;
    if providers.is_empty() && wanted.search && !is_here {
        providers = search(client, context, id).await;
    }
    let mut request = FetchRequest::new(context, id);
    request.search = wanted.search;
    transfer(client, request, providers, to, None, lines).await
}

/// Carries out a request and reports its progress. `name` is the name of the blob. Returns the record
/// of the end, which the caller sends once the blob is protected too.
pub(super) async fn transfer(
    client: &NetworkClient,
    request: FetchRequest,
    providers: Vec<PeerId>,
    to: Destination,
    name: Option<String>,
    lines: &Lines,
) -> Result<Line, CommandError> {
    let id = request.blob_id;
    let mut transfer = client.request_blob_with(request, providers, to);
    let mut progress = std::mem::replace(transfer.progress(), futures::stream::empty().boxed());
    let showing = async {
        while let Some(progress) = progress.next().await {
            // A closed receiver ends the transfer: its client has left.
            let line = Line::Progress(progress::Line::of(&progress));
            lines.send(line).await?;
        }
        Ok(())
    };
    let fetching = async { transfer.await.map_err(CommandError::Fetch) };
    let (fetched, ()) = futures::future::try_join(fetching, showing).await?;
    let from = fetched.providers.iter();
    Ok(Line::Fetched {
        id: id.to_string(),
        size_bytes: fetched.size_bytes,
        resumed_bytes: fetched.resumed_bytes,
        received_bytes: fetched.received_bytes,
        providers: from.map(|(peer, _)| peer.to_string()).collect(),
        name,
    })
}

/// Dials the addresses of providers. One connection is enough.
async fn connect(
    client: &NetworkClient,
    dial: Vec<Multiaddr>,
) -> Result<Vec<PeerId>, CommandError> {
    let mut connected = Vec::new();
    let mut failed = None;
    for address in dial {
        match client.dial(address).await {
            Ok(connection) => connected.push(connection.peer),
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) if connected.is_empty() => Err(error.into()),
        _ => Ok(connected),
    }
}

/// Searches for a provider until one is found or the time has passed.
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
