//! `calnet blob get`: a blob from the network.

use std::{sync::Arc, time::Duration};

use calimero_network::{
    Keypair, NetworkConfig, NetworkManager,
    blob::{
        fetch::{Destination, Progress},
        store::FsBlobStore,
    },
};
use futures::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};

use super::{lines::Line, local};
use crate::{cli::GetArgs, error::CommandError, output::Output};

/// Time between two lines of progress where no bar is shown.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

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

/// A bar for people, a line a second for programs.
pub(crate) struct Shown<'a> {
    output: &'a Output,
    bar: Option<ProgressBar>,
    last: Option<tokio::time::Instant>,
}

impl<'a> Shown<'a> {
    pub(crate) fn new(output: &'a Output) -> Self {
        let bar = (!output.is_json()).then(|| {
            let bar = ProgressBar::new(0);
            let style = ProgressStyle::with_template(
                "{bar:32} {bytes} of {total_bytes}, {binary_bytes_per_sec}, {eta} left, {msg}",
            );
            if let Ok(style) = style {
                bar.set_style(style);
            }
            bar
        });
        Self {
            output,
            bar,
            last: None,
        }
    }

    pub(crate) fn show(&mut self, progress: &Progress) {
        let connected = progress.providers.iter().filter(|one| one.connected);
        let providers = connected.count();
        if let Some(bar) = &self.bar {
            if let Some(size_bytes) = progress.size_bytes {
                bar.set_length(size_bytes);
            }
            bar.set_position(progress.verified_bytes);
            bar.set_message(format!("{providers} peers"));
            return;
        }
        let now = tokio::time::Instant::now();
        if self.last.is_some_and(|last| now - last < LINE_INTERVAL) {
            return;
        }
        self.last = Some(now);
        self.output.print(&Line::Progress {
            verified_bytes: progress.verified_bytes,
            size_bytes: progress.size_bytes,
            rate_bytes_per_s: progress.rate_bytes_per_s,
            providers,
        });
    }

    pub(crate) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
