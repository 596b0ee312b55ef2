//! Announcements of a running node: the blobs of its folder, in each context that they were added or
//! fetched for.

use calimero_network::{
    AnnounceBlobError, BlobId, ContextId, NetworkClient, blob::store::FsBlobStore,
    limits::MAX_ANNOUNCED_BLOBS,
};
use futures::{StreamExt as _, stream};
use tokio::{sync::mpsc, task::JoinHandle};

use super::local::contexts;
use crate::{output::Output, run::lines::Line};

/// Announcements under way at one time. Each asks some twenty peers, so a folder of thousands of
/// blobs is announced over minutes without a peak of traffic.
const AT_ONE_TIME: usize = 8;

/// Blobs that wait to be announced. An `add` that is faster waits.
const QUEUE: usize = 64;

/// Announces blobs that are added and withdraws blobs that are removed.
#[derive(Clone, Debug)]
pub(crate) struct Announcer {
    client: NetworkClient,
    added: mpsc::Sender<(ContextId, BlobId)>,
    output: Output,
}

impl Announcer {
    /// Returns an announcer and its work: the blobs in the folder now, then those that are added.
    pub(crate) fn new(
        client: NetworkClient,
        store: &FsBlobStore,
        output: Output,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (added, queue) = mpsc::channel(QUEUE);
        let held = held(store);
        let work = run(client.clone(), held, queue, output.clone());
        let announcer = Self {
            client,
            added,
            output,
        };
        (announcer, work)
    }

    /// Queues a blob to be announced, once the queue has room. Returns the task that waits for room.
    /// Dropping the handle does not cancel it, so that a blob is announced also if its client left.
    pub(crate) fn announce(&self, context: ContextId, id: BlobId) -> JoinHandle<()> {
        let added = self.added.clone();
        tokio::spawn(async move {
            // A node that ends announces nothing.
            let _ = added.send((context, id)).await;
        })
    }

    /// Withdraws the announcement of a blob.
    pub(super) async fn withdraw(&self, context: ContextId, id: BlobId) {
        if let Ok(true) = self.client.withdraw_blob(context, id).await {
            self.output.print(&Line::BlobWithdrawn {
                id: id.to_string(),
                context: context.to_string(),
            });
        }
    }
}

/// The blobs of the folder that are announced: those that a command has brought here for a context, by
/// their tags. A blob without such a tag belongs to a ticket with a secret, or to work that was
/// interrupted before it was known who may learn of it.
pub(super) fn held(store: &FsBlobStore) -> Vec<(ContextId, BlobId)> {
    let tagged = contexts(store).into_iter();
    tagged.filter(|(_, id)| store.has(id)).collect()
}

async fn run(
    client: NetworkClient,
    held: Vec<(ContextId, BlobId)>,
    queue: mpsc::Receiver<(ContextId, BlobId)>,
    output: Output,
) {
    let limit = MAX_ANNOUNCED_BLOBS;
    if held.len() > limit {
        output.print(&Line::BlobsNotAnnounced {
            count: held.len() - limit,
            error: AnnounceBlobError::TooMany { limit }.to_string(),
        });
    }
    let held = stream::iter(held.into_iter().take(limit));
    let added = stream::unfold(queue, |mut queue| async move {
        let one = queue.recv().await?;
        Some((one, queue))
    });
    let announcing =
        stream::select(held, added).for_each_concurrent(AT_ONE_TIME, |(context, id)| {
            let (client, output) = (&client, &output);
            async move {
                match client.announce_blob(context, id).await {
                    // The manager emits an event once a peer holds the record, and retries until
                    // then.
                    Ok(()) | Err(AnnounceBlobError::NotStored | AnnounceBlobError::Stopped(_)) => {}
                    // It was removed in between.
                    Err(AnnounceBlobError::NotHere { .. }) => {}
                    Err(error) => output.print(&Line::BlobsNotAnnounced {
                        count: 1,
                        error: error.to_string(),
                    }),
                }
            }
        });
    announcing.await;
}

#[cfg(test)]
mod tests;
