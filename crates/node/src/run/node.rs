//! A node that runs until a signal and prints its events.

use std::sync::Arc;

use calimero_network::{
    Builder, ConnectionEvent, Events, GossipEvent, NetworkClient, NetworkEvent, Topic,
    blob::store::FsBlobStore,
};
use tokio::{sync::Notify, task::JoinSet};

use super::lines::{Line, is_printed};
use crate::{
    api::{self, Feed, Listener, Served, Token, UnixSocket},
    blob::{Announcer, Running},
    cli::HttpArgs,
    data::DataFolder,
    error::CommandError,
    lock::Lock,
    origins::Origins,
    output::Output,
    process::ProcessMetrics,
    service,
    signals::Signals,
};

/// TCP sockets of the API. They are open before the node starts, so that an address in use is an
/// error of the command.
#[derive(Default)]
pub(crate) struct Listeners {
    watch: Option<Listener>,
    api: Option<Listener>,
}

impl Listeners {
    /// Listens at the addresses of the command line.
    pub(crate) async fn open(
        args: HttpArgs,
        data: Option<&DataFolder>,
    ) -> Result<Self, CommandError> {
        let mut listeners = Self::default();
        if let Some(address) = args.metrics {
            listeners.watch = Some(Listener::watch(address, args.metrics_host).await?);
        }
        if let Some(address) = args.api {
            let data = data.ok_or(CommandError::NoTokenFolder)?;
            let token = Token::load_or_create(&data.token())?;
            if !address.ip().is_loopback() {
                tracing::warn!(%address, "the token of the API crosses the network unencrypted: put a proxy with TLS in front of it");
            }
            listeners.api = Some(Listener::tcp(address, args.api_host, token).await?);
        }
        Ok(listeners)
    }
}

/// A node that runs until a signal.
pub(crate) struct Node {
    pub(crate) client: NetworkClient,
    pub(crate) output: Output,
    /// Ended before the node is.
    pub(crate) tasks: JoinSet<()>,
    /// Notified when a connection may have closed.
    pub(crate) lost: Arc<Notify>,
    events: Events,
    signals: Signals,
    /// What clients of the API read.
    feed: Feed,
    /// Held until the node has ended.
    _locks: Vec<Lock>,
}

impl Node {
    /// Starts a node.
    pub(crate) async fn start(
        manager: Builder,
        locks: Vec<Lock>,
        signals: Signals,
        output: Output,
        subscribed: &[Topic],
    ) -> Result<Self, CommandError> {
        let (client, events) = manager.collector(ProcessMetrics).start().await?;
        output.print(&Line::Started {
            peer: client.peer_id().to_base58(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(service::watchdog(client.clone()));
        Ok(Self {
            client,
            output,
            tasks,
            lost: Arc::default(),
            events,
            signals,
            feed: Feed::new(subscribed),
            _locks: locks,
        })
    }

    /// Announces the blobs of the data folder, and serves the API: on the Unix socket in the folder
    /// and at the addresses of the command line.
    pub(crate) fn serve(
        &mut self,
        listeners: Listeners,
        data: Option<&DataFolder>,
        store: Option<FsBlobStore>,
        origins: Origins,
    ) {
        let client = self.client.clone();
        let blobs = store.map(|store| {
            let (announcer, announcing) =
                Announcer::new(client.clone(), &store, self.output.clone());
            self.tasks.spawn(announcing);
            Running {
                client: client.clone(),
                store,
                announcer,
            }
        });
        let Listeners { watch, api } = listeners;
        if let Some(watch) = &watch {
            let url = format!("{}/metrics", watch.url());
            self.output.print(&Line::Metrics { url });
        }
        if let Some(api) = &api {
            let url = format!("{}/v1", api.url());
            self.output.print(&Line::Api { url });
        }
        let unix = data.and_then(|data| {
            let path = data.socket();
            match UnixSocket::open(&path) {
                Ok(socket) => Some(Listener::unix(socket)),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "other commands cannot use this node: the socket of its API is not open");
                    None
                }
            }
        });
        let served = Arc::new(Served::new(client, blobs, self.feed.clone(), origins));
        for listener in [watch, api, unix].into_iter().flatten() {
            self.tasks.spawn(api::serve(listener, served.clone()));
        }
    }

    /// Prints events until a signal, then ends the node in order.
    pub(crate) async fn until_ended(mut self) -> Result<(), CommandError> {
        service::ready();
        loop {
            tokio::select! {
                event = self.events.next() => match event {
                    Some(event) => {
                        if may_be_a_loss(&event) {
                            self.lost.notify_waiters();
                        }
                        if let NetworkEvent::Gossip(GossipEvent::Message(message)) = &event {
                            self.feed.on_message(message);
                        }
                        self.feed.on_record(&event);
                        if is_printed(&event) {
                            self.output.print(&event);
                        }
                    }
                    None => break,
                },
                () = self.signals.stop() => break,
            }
        }
        service::stopping();
        self.tasks.shutdown().await;
        // Takes `handle.shutdown_timeout_ms` at most. A second signal ends the process at once.
        self.client.shutdown().await?;
        self.output.print(&Line::Stopped {});
        Ok(())
    }
}

/// Returns `true` if a connection may have closed: a dropped event can have been its end.
fn may_be_a_loss(event: &NetworkEvent) -> bool {
    matches!(
        event,
        NetworkEvent::Connection(ConnectionEvent::Disconnected { .. })
            | NetworkEvent::Gossip(GossipEvent::Lagged { .. })
    )
}
