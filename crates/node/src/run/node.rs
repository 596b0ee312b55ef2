//! A node that runs until a signal, and prints what happens.

use std::{net::SocketAddr, sync::Arc};

use calimero_network::{
    Builder, ConnectionEvent, Events, GossipEvent, NetworkClient, NetworkEvent, Topic,
    blob::store::FsBlobStore,
};
use tokio::{sync::Notify, task::JoinSet};

use super::lines::{Line, is_printed};
use crate::{
    blob::{Announcer, Running},
    data::DataFolder,
    door::{self, Door, Readers, Served},
    error::CommandError,
    http,
    output::Output,
    signals::Signals,
};

/// A node that runs.
pub(crate) struct Node {
    pub(crate) client: NetworkClient,
    pub(crate) output: Output,
    /// Ended before the node is.
    pub(crate) tasks: JoinSet<()>,
    /// Woken whenever a connection may be gone.
    pub(crate) lost: Arc<Notify>,
    events: Events,
    signals: Signals,
    /// Who reads messages through the door.
    readers: Option<Readers>,
}

impl Node {
    /// Starts a node, and its page for whoever watches it.
    pub(crate) async fn start(
        manager: Builder,
        metrics: Option<SocketAddr>,
        signals: Signals,
        output: Output,
    ) -> Result<Self, CommandError> {
        let page = match metrics {
            Some(address) => Some(http::listen(address).await?),
            None => None,
        };
        let (client, events) = manager.start().await?;
        output.print(&Line::Started {
            peer: client.peer_id().to_base58(),
        });
        let mut tasks = JoinSet::new();
        if let Some((listener, address)) = page {
            output.print(&Line::Metrics {
                url: format!("http://{address}/metrics"),
            });
            tasks.spawn(http::serve(listener, client.clone()));
        }
        Ok(Self {
            client,
            output,
            tasks,
            lost: Arc::default(),
            events,
            signals,
            readers: None,
        })
    }

    /// Announces the blobs of the data folder, and lets other commands ask for more.
    pub(crate) fn open_door(&mut self, data: &DataFolder, store: FsBlobStore, follows: &[Topic]) {
        let client = self.client.clone();
        let (announcer, announcing) = Announcer::new(client.clone(), &store, self.output.clone());
        self.tasks.spawn(announcing);
        let path = data.door();
        let door = match Door::open(&path) {
            Ok(door) => door,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "other commands cannot ask this node");
                return;
            }
        };
        let readers = Readers::new(follows);
        self.readers = Some(readers.clone());
        let blobs = Running {
            client: client.clone(),
            store,
            announcer,
        };
        self.tasks.spawn(door::serve(
            door,
            Served {
                client,
                blobs,
                readers,
            },
        ));
    }

    /// Prints what happens until a signal, then ends the node.
    pub(crate) async fn until_ended(mut self) -> Result<(), CommandError> {
        loop {
            tokio::select! {
                event = self.events.next() => match event {
                    Some(event) => {
                        if tells_of_a_loss(&event) {
                            self.lost.notify_waiters();
                        }
                        if let (NetworkEvent::Gossip(GossipEvent::Message(message)), Some(readers)) =
                            (&event, &self.readers)
                        {
                            readers.hear(message);
                        }
                        if is_printed(&event) {
                            self.output.print(&event);
                        }
                    }
                    None => break,
                },
                () = self.signals.next() => break,
            }
        }
        self.tasks.shutdown().await;
        // Whoever asks twice does not want to wait for the peers.
        tokio::select! {
            stopped = self.client.shutdown() => stopped?,
            () = self.signals.next() => return Err(CommandError::Interrupted),
        }
        self.output.print(&Line::Stopped {});
        Ok(())
    }
}

/// Whether a connection may be gone. What was dropped may have told of it.
fn tells_of_a_loss(event: &NetworkEvent) -> bool {
    matches!(
        event,
        NetworkEvent::Connection(ConnectionEvent::Disconnected { .. })
            | NetworkEvent::Gossip(GossipEvent::Lagged { .. })
    )
}
