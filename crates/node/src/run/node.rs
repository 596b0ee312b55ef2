//! A node that runs until a signal and prints its events.

use std::sync::Arc;

use calimero_network::{
    Builder, ConnectionEvent, Events, GossipEvent, NetworkClient, NetworkEvent, Topic,
    blob::store::FsBlobStore,
};
use tokio::{sync::Notify, task::JoinSet};

use super::lines::{Line, is_printed};
use crate::{
    blob::{Announcer, Running},
    control::{self, ControlSocket, Feed, Served},
    data::DataFolder,
    error::CommandError,
    http::{self, Page},
    lock::Lock,
    output::Output,
    process::ProcessMetrics,
    service,
    signals::Signals,
};

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
    /// What clients of the control interface read.
    feed: Feed,
    /// Held until the node has ended.
    _locks: Vec<Lock>,
}

impl Node {
    /// Starts a node and serves its page.
    pub(crate) async fn start(
        manager: Builder,
        page: Option<Page>,
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
        if let Some(page) = page {
            output.print(&Line::Metrics {
                url: format!("http://{}/metrics", page.address),
            });
            tasks.spawn(http::serve(page, client.clone()));
        }
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

    /// Announces the blobs of the data folder, and serves other commands on its control socket.
    pub(crate) fn open_control(&mut self, data: &DataFolder, store: Option<FsBlobStore>) {
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
        let path = data.control();
        let socket = match ControlSocket::open(&path) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "other commands cannot use this node: its control socket is not open");
                return;
            }
        };
        let feed = self.feed.clone();
        self.tasks.spawn(control::serve(
            socket,
            Served {
                client,
                blobs,
                feed,
            },
        ));
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
                        if is_printed(&event) {
                            self.feed.on_record(&event);
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
