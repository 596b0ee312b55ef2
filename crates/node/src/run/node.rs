//! A node that runs until a signal, and prints what happens.

use std::{net::SocketAddr, sync::Arc};

use calimero_network::{Builder, Events, NetworkClient, NetworkEvent};
use tokio::{sync::Notify, task::JoinSet};

use super::lines::Line;
use crate::{error::CommandError, http, output::Output, signals::Signals};

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
        })
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
                        if let Some(line) = Line::of(event) {
                            self.output.print(&line);
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
        NetworkEvent::Disconnected { .. } | NetworkEvent::Lagged { .. }
    )
}
