//! Announcements of a running node: every blob of its folder, in each context that it was added or
//! fetched for.

use calimero_network::{
    AnnounceBlobError, BlobId, ContextId, NetworkClient, blob::store::FsBlobStore,
    limits::MAX_ANNOUNCED_BLOBS,
};
use futures::{StreamExt as _, stream};
use tokio::sync::mpsc;

use super::{
    DEFAULT_CONTEXT,
    local::{contexts, private},
};
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

    /// Queues a blob to be announced. Waits for room in the queue.
    pub(crate) async fn announce(&self, context: ContextId, id: BlobId) {
        // A node that ends announces nothing.
        let _ = self.added.send((context, id)).await;
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

/// The blobs of the folder, each in the contexts that its tags name. Those that were fetched by a
/// ticket with a secret are left out.
pub(super) fn held(store: &FsBlobStore) -> Vec<(ContextId, BlobId)> {
    let mut held: Vec<_> = contexts(store)
        .into_iter()
        .filter(|(_, id)| store.has(id))
        .collect();
    let tagged: std::collections::HashSet<_> = held.iter().map(|(_, id)| *id).collect();
    let private = private(store);
    let others = store.list().into_iter().map(|(id, _)| id);
    held.extend(
        others
            .filter(|id| !tagged.contains(id) && !private.contains(id))
            .map(|id| (DEFAULT_CONTEXT, id)),
    );
    held
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
mod tests {
    use calimero_network::config::BlobStoreConfig;

    use super::*;
    use crate::blob::local::{finish, private_tag, remove};

    #[test]
    fn a_blob_of_a_secret_ticket_is_not_announced() {
        let folder = tempfile::tempdir().unwrap();
        let store = FsBlobStore::open(folder.path(), &BlobStoreConfig::default()).unwrap();
        let write = |content: &[u8]| {
            let mut writer = store.writer().unwrap();
            writer.write(content).unwrap();
            writer
        };
        let open = finish(&store, write(b"open"), DEFAULT_CONTEXT).unwrap().id;
        let private = write(b"private").finish(None).unwrap().id;
        store.tag(&private_tag(&private), private).unwrap();
        assert_eq!(held(&store), [(DEFAULT_CONTEXT, open)]);
        // The user adds the same file, which announces it.
        finish(&store, write(b"private"), DEFAULT_CONTEXT).unwrap();
        assert_eq!(held(&store).len(), 2);
        remove(&store, &private).unwrap();
        assert_eq!(store.tags().len(), 1);
    }
}
