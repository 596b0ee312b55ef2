//! `calnet blob get`: a blob from the network.

use std::sync::Arc;

use calimero_network::{
    Keypair, NetworkConfig, NetworkManager,
    blob::{fetch::Destination, store::FsBlobStore},
};
use futures::StreamExt;

use super::{lines::Line, local};
use crate::{cli::GetArgs, error::CommandError, output::Output, progress::Shown};

pub(super) async fn execute(
    args: GetArgs,
    store: Option<FsBlobStore>,
    output: &Output,
) -> Result<(), CommandError> {
    let to = match (&args.output, &store) {
        (Some(path), _) => Destination::File(path.clone()),
        (None, Some(store)) => Destination::Store(Arc::new(store.clone())),
        (None, None) => return Err(CommandError::NoDestination),
    };
    let mut config = NetworkConfig {
        listen: Vec::new(),
        ..NetworkConfig::default()
    };
    config.discovery.boot = args.boot;
    config.discovery.local_network = args.local;
    let (client, mut events) = NetworkManager::start(Keypair::generate_ed25519(), config).await?;
    // What happens is told by the transfer itself.
    let unread = tokio::spawn(async move { while events.next().await.is_some() {} });
    let mut providers = Vec::new();
    let mut refused = None;
    for address in args.dial {
        match client.dial(address).await {
            Ok(connection) => providers.push(connection.peer),
            Err(error) => refused = Some(error),
        }
    }
    if let (Some(error), true) = (refused, providers.is_empty()) {
        return Err(error.into());
    }
    if !client.config().discovery.boot.is_empty() {
        let _ = client.bootstrap().await;
    }
    let mut transfer = client.request_blob(args.context, args.id, providers, to);
    let mut shown = Shown::new(output);
    let progress = std::mem::replace(transfer.progress(), Box::pin(futures::stream::empty()));
    let showing = progress.for_each(|progress| {
        shown.show(&progress);
        std::future::ready(())
    });
    let interrupted = tokio::signal::ctrl_c();
    let fetched = tokio::select! {
        (fetched, ()) = futures::future::join(transfer, showing) => fetched,
        _ = interrupted => return Err(CommandError::Interrupted),
    };
    shown.end();
    let fetched = fetched.map_err(CommandError::Fetch)?;
    if let (None, Some(store)) = (&args.output, &store) {
        store.tag(&local::tag(&fetched.id), fetched.id)?;
    }
    output.print(&Line::Fetched {
        id: fetched.id.to_string(),
        size_bytes: fetched.size_bytes,
        resumed_bytes: fetched.resumed_bytes,
        received_bytes: fetched.received_bytes,
        providers: fetched
            .providers
            .iter()
            .map(|(peer, _)| peer.to_string())
            .collect(),
    });
    client.shutdown().await?;
    let _ = unread.await;
    Ok(())
}
