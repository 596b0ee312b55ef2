//! Many small blobs at once.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use calimero_network_primitives::{ContextId, PeerId};
use futures::{AsyncReadExt, future, stream};
use tokio::{sync::mpsc, time::timeout};

use super::{
    Destination, FetchError, FetchRequest, Fetcher, ProviderError,
    session::{Context, Meter},
};
use crate::{
    BlobId, blob_id,
    store::{BlobStore, Hold, StoreError, blocking::blocking},
    transfer::{MessageReader, MessageWriter, Version},
    v1::{MAX_INLINE_BYTES, Request, Response},
};

/// Requests on one stream that wait for an answer: 64, as many as our provider queues.
const PIPELINE: usize = 64;

/// Content that is verified together, in bytes: 1 MiB.
const GROUP_BYTES: usize = 1024 * 1024;

/// Groups that wait to be verified.
const GROUP_QUEUE: usize = 2;

/// Content that is made durable together, in bytes: 8 MiB.
const STORE_BYTES: usize = 8 * 1024 * 1024;

/// What came of a batch.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct FetchedBatch {
    /// The blobs that are in the store now, verified and durable.
    pub fetched: Vec<BlobId>,
    /// The blobs that nobody gave, each with the reason.
    pub failed: Vec<(BlobId, FetchError)>,
    /// Bytes of content that came over the network.
    pub received_bytes: u64,
    /// Keeps what was fetched from garbage collection until it is tagged.
    pub holds: Vec<Hold>,
}

type Group = Vec<(BlobId, Bytes)>;

/// The blobs that nobody was asked for yet, and those that need more than one request.
#[derive(Default)]
struct Queue {
    wanted: VecDeque<BlobId>,
    singly: Vec<BlobId>,
}

struct Batch {
    context: Context,
    queue: Mutex<Queue>,
}

pub(super) async fn run(
    fetcher: Fetcher,
    context_id: ContextId,
    blobs: Vec<BlobId>,
    providers: Vec<PeerId>,
    store: Arc<dyn BlobStore>,
) -> Result<FetchedBatch, FetchError> {
    let mut queue = Queue::default();
    let mut batch = FetchedBatch::default();
    for id in blobs {
        match store.size(id).await? {
            Some(_) => batch.fetched.push(id),
            None => queue.wanted.push_back(id),
        }
    }
    let left = small(&fetcher, context_id, queue, &providers, &store, &mut batch).await?;
    for blob_id in left {
        let request = FetchRequest {
            blob_id,
            context_id,
        };
        let to = Destination::Store(Arc::clone(&store));
        let fetch = fetcher.fetch(request, stream::iter(providers.clone()), to);
        match fetch.await {
            Ok(fetched) => {
                batch.received_bytes += fetched.size_bytes;
                batch.fetched.push(blob_id);
                batch.holds.extend(fetched.hold);
            }
            Err(error @ FetchError::NoProviders { .. }) => batch.failed.push((blob_id, error)),
            Err(error) => return Err(error),
        }
    }
    Ok(batch)
}

/// Fetches what can be had in one request each. Yields the rest.
async fn small(
    fetcher: &Fetcher,
    context_id: ContextId,
    queue: Queue,
    providers: &[PeerId],
    store: &Arc<dyn BlobStore>,
    into: &mut FetchedBatch,
) -> Result<Vec<BlobId>, FetchError> {
    // The sessions here are not those of a single blob, and tell nobody.
    let (events, _) = mpsc::channel(1);
    let request = FetchRequest {
        blob_id: blob_id(&[]),
        context_id,
    };
    let batch = Batch {
        context: fetcher.shared(request, events),
        queue: Mutex::new(queue),
    };
    let (groups, received) = mpsc::channel(GROUP_QUEUE);
    let asking = providers
        .iter()
        .map(|peer| batch.ask(*peer, groups.clone()));
    let asking = future::join_all(asking);
    drop(groups);
    let (_, kept) = future::join(asking, batch.keep(received, store, into)).await;
    kept?;
    let mut queue = batch.queue();
    let mut left = std::mem::take(&mut queue.singly);
    left.extend(queue.wanted.drain(..));
    Ok(left)
}

impl Batch {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks one provider for as much as it gives. What it did not answer goes back.
    async fn ask(&self, peer: PeerId, groups: mpsc::Sender<Group>) {
        let mut asked = VecDeque::with_capacity(PIPELINE);
        if let Err(error) = self.talk(peer, &groups, &mut asked).await {
            tracing::debug!(%peer, %error, "a provider of a batch is left");
        }
        self.queue().wanted.extend(asked);
    }

    async fn talk(
        &self,
        peer: PeerId,
        groups: &mpsc::Sender<Group>,
        asked: &mut VecDeque<BlobId>,
    ) -> Result<(), ProviderError> {
        let opened = self.context.open(peer, false, &Meter::default()).await?;
        // Older providers give one blob a stream, which is not worth doing here; and relays carry
        // a blob or two.
        if opened.version == Version::V0 || self.context.must_wait(&opened, true) {
            return Ok(());
        }
        let after = self.context.config.tuning.stall_timeout;
        let (reader, writer) = opened.stream.split();
        let mut reader = MessageReader::<_, Response>::new(reader, Arc::default());
        let mut writer = MessageWriter::new(writer, after);
        let hello = Request::Hello(self.context.hello(&peer));
        writer
            .feed_request(&hello)
            .map_err(ProviderError::Message)?;
        let mut group = Group::new();
        let mut group_bytes = 0;
        loop {
            // Asked in halves of the pipeline, so that requests travel together.
            if asked.len() <= PIPELINE / 2 {
                self.take(asked, &mut writer)?;
                writer.flush().await?;
            }
            if asked.is_empty() {
                break;
            }
            let response = match timeout(after, reader.next()).await {
                Ok(response) => response?.ok_or(ProviderError::Closed { received_bytes: 0 })?,
                Err(_) => return Err(ProviderError::Stalled { after }),
            };
            let Some(id) = asked.pop_front() else {
                return Err(ProviderError::Unexpected);
            };
            match response {
                Response::Inline { content } => {
                    group_bytes += content.len();
                    group.push((id, content));
                }
                // Too large, or not here: it is asked of everybody.
                Response::List(_) | Response::Refused(_) => self.queue().singly.push(id),
                Response::Chunk { .. } => return Err(ProviderError::Unexpected),
            }
            if group_bytes >= GROUP_BYTES {
                group_bytes = 0;
                if groups.send(std::mem::take(&mut group)).await.is_err() {
                    return Ok(());
                }
            }
        }
        let _ = groups.send(group).await;
        // The provider waits for it; whether it arrives is its concern.
        let _ = writer.close().await;
        Ok(())
    }

    fn take<W: futures::AsyncWrite + Unpin>(
        &self,
        asked: &mut VecDeque<BlobId>,
        writer: &mut MessageWriter<W>,
    ) -> Result<(), ProviderError> {
        let mut queue = self.queue();
        while asked.len() < PIPELINE
            && let Some(blob_id) = queue.wanted.pop_front()
        {
            asked.push_back(blob_id);
            let get = Request::Get {
                blob_id,
                inline_max_bytes: MAX_INLINE_BYTES as u64,
                from: 0,
            };
            writer.feed_request(&get).map_err(ProviderError::Message)?;
        }
        Ok(())
    }

    /// Verifies and stores what arrives.
    async fn keep(
        &self,
        mut groups: mpsc::Receiver<Group>,
        store: &Arc<dyn BlobStore>,
        into: &mut FetchedBatch,
    ) -> Result<(), StoreError> {
        let mut pending = Group::new();
        let mut pending_bytes = 0;
        while let Some(group) = groups.recv().await {
            let (good, bad) = blocking(move || {
                let parts: (Group, Group) = group
                    .into_iter()
                    .partition(|(id, content)| blob_id(content) == *id);
                Ok(parts)
            })
            .await?;
            self.queue()
                .singly
                .extend(bad.into_iter().map(|(id, _)| id));
            pending_bytes += good.iter().map(|(_, content)| content.len()).sum::<usize>();
            pending.extend(good);
            if pending_bytes >= STORE_BYTES {
                pending_bytes = 0;
                put(store, std::mem::take(&mut pending), into).await?;
            }
        }
        put(store, pending, into).await
    }
}

async fn put(
    store: &Arc<dyn BlobStore>,
    group: Group,
    into: &mut FetchedBatch,
) -> Result<(), StoreError> {
    if group.is_empty() {
        return Ok(());
    }
    into.received_bytes += group.iter().map(|(_, c)| c.len() as u64).sum::<u64>();
    let blobs = group.into_iter().map(|(id, content)| (Some(id), content));
    let stored = store.put_batch(blobs.collect()).await?;
    into.fetched.extend(stored.ids);
    into.holds.push(stored.hold);
    Ok(())
}
