//! Calls for blobs: announce, look up, fetch.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use calimero_network_blob::{
    fetch::{Destination, FetchRequest, Fetched, FetchedBatch, ProgressStream, Providers},
    record::RecordKey,
    store::BlobStore,
};
use calimero_network_discovery::behaviour::{MAX_PROVIDERS_PER_QUERY, MAX_RECORDS_PER_QUERY};
use calimero_network_primitives::{BlobId, ContextId, PeerId};
use futures::{
    FutureExt, Stream, StreamExt,
    stream::{self, BoxStream},
};
use tokio::{sync::mpsc, task::JoinHandle};

use super::NetworkClient;
use crate::{
    command::{BlobCommand, Command},
    error::{AnnounceBlobError, FetchBlobError, QueryBlobError, Stopped},
    event::BlobEvent,
    status::BlobProvider,
};

/// Providers that wait to be read: as many as both lookups of one blob can name.
const FOUND_QUEUE: usize = MAX_RECORDS_PER_QUERY + MAX_PROVIDERS_PER_QUERY;

/// Blobs.
///
/// ```
/// # use std::sync::Arc;
/// # use calimero_network::{
/// #     AnnounceBlobError, ContextId, Keypair, NetworkConfig, NetworkManager,
/// #     blob::{fetch::Destination, store::{FsBlobStore, FsConfig}},
/// # };
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// # let quiet = NetworkConfig { listen: Vec::new(), ..NetworkConfig::default() };
/// # let key = Keypair::generate_ed25519;
/// # let (there, here) = (tempfile::tempdir()?, tempfile::tempdir()?);
/// # let context_id = ContextId::from([7; 32]);
/// let theirs = FsBlobStore::open(there.path(), &FsConfig::default())?;
/// let blob_id = theirs.put(b"some content")?.id;
/// let (provider, _) = NetworkManager::builder(key(), quiet.clone())
///     .blobs(Arc::new(theirs))
///     .in_memory()
///     .start()
///     .await?;
///
/// let ours = FsBlobStore::open(here.path(), &FsConfig::default())?;
/// let (node, _) = NetworkManager::start_in_memory(key(), quiet).await?;
/// # let (_, address) = provider.listen_on("/memory/0".parse()?).await?;
/// # node.dial(address).await?;
/// let to = Destination::Store(Arc::new(ours.clone()));
/// let fetched = node.request_blob(context_id, blob_id, vec![provider.peer_id()], to).await?;
/// assert_eq!(fetched.size_bytes, 12);
/// assert!(ours.has(&blob_id));
///
/// // Where providers are not known, the DHT is asked: here, and by every fetch.
/// match provider.announce_blob(context_id, blob_id).await {
///     Ok(()) | Err(AnnounceBlobError::NotStored) => {} // tried again automatically
///     Err(error) => return Err(error.into()),
/// }
/// let mut providers = node.query_blob(context_id, blob_id).await?;
/// while let Some(found) = providers.next().await {
///     assert_eq!(found.peer, provider.peer_id());
/// }
/// assert!(provider.withdraw_blob(context_id, blob_id).await?);
/// # Ok(())
/// # }
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run()).unwrap();
/// ```
impl NetworkClient {
    /// The store that blobs are served from, if the manager was started with one.
    #[must_use]
    pub fn blob_store(&self) -> Option<&Arc<dyn BlobStore>> {
        self.inner.blobs.store.as_ref()
    }

    /// Announces a blob of the store in a context: publishes a signed record in the DHT and registers
    /// this node as a provider. The announcement is renewed until it is
    /// [withdrawn](Self::withdraw_blob) or the manager stops; peers find it for up to 12 hours after.
    ///
    /// Returns when a peer stores the announcement, or after 60 s, the deadline of one try.
    ///
    /// # Errors
    ///
    /// [`AnnounceBlobError`]. After [`NotStored`](AnnounceBlobError::NotStored), which a node without
    /// peers returns, the manager tries again automatically.
    pub async fn announce_blob(
        &self,
        context_id: ContextId,
        blob_id: BlobId,
    ) -> Result<(), AnnounceBlobError> {
        let store = self.inner.blobs.store.clone();
        let store = store.ok_or(AnnounceBlobError::NoStore)?;
        // Where the store's threads are.
        let size = self.inner.runtime.spawn(store.size(blob_id));
        let size = size.await.map_err(|_| Stopped)?;
        let size_bytes = size
            .map_err(|error| AnnounceBlobError::Store(Arc::new(error)))?
            .ok_or(AnnounceBlobError::NotHere { blob_id })?;
        self.announce_blob_of_size(context_id, blob_id, size_bytes)
            .await
    }

    /// As [`announce_blob`](Self::announce_blob), for a blob of this size that the program serves
    /// itself. The manager needs no store and does not check the size.
    ///
    /// A manager without a store does not accept the streams of the blob protocol. The program
    /// [accepts](Self::accept) those of each version that it serves (`Version::name`), and answers
    /// them, for example with a [`Server`](calimero_network_blob::serve::Server) of its own.
    ///
    /// # Errors
    ///
    /// [`AnnounceBlobError`], of which `NoStore`, `NotHere` and `Store` do not occur.
    pub async fn announce_blob_of_size(
        &self,
        context_id: ContextId,
        blob_id: BlobId,
        size_bytes: u64,
    ) -> Result<(), AnnounceBlobError> {
        let key = RecordKey {
            context_id,
            blob_id,
        };
        self.ask(|reply| {
            Command::Blob(BlobCommand::Announce {
                key,
                size_bytes,
                reply,
            })
        })
        .await?
    }

    /// Ends the announcement of a blob. Returns `false` if it was not announced. Records that other
    /// peers store expire within 12 hours.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn withdraw_blob(
        &self,
        context_id: ContextId,
        blob_id: BlobId,
    ) -> Result<bool, Stopped> {
        let key = RecordKey {
            context_id,
            blob_id,
        };
        self.ask(|reply| Command::Blob(BlobCommand::Withdraw { key, reply }))
            .await
    }

    /// Looks up the providers of a blob in the DHT and yields each as soon as it is found. Ends when
    /// all close peers were asked, after 60 s at the latest; dropping the result ends the search.
    ///
    /// A provider with a size has signed its record. One without a size is only registered, and only a
    /// request to it shows whether it has the blob. If its signed record is found later, the provider
    /// is yielded again, with the size.
    ///
    /// # Errors
    ///
    /// [`QueryBlobError`].
    pub async fn query_blob(
        &self,
        context_id: ContextId,
        blob_id: BlobId,
    ) -> Result<BlobProviders, QueryBlobError> {
        let key = RecordKey {
            context_id,
            blob_id,
        };
        let (found, receiver) = mpsc::channel(FOUND_QUEUE);
        self.ask(|reply| Command::Blob(BlobCommand::Query { key, found, reply }))
            .await??;
        Ok(BlobProviders {
            receiver,
            yielded: HashMap::new(),
        })
    }

    /// Fetches a blob from `providers` and from further providers that the DHT names, and verifies each
    /// chunk. The transfer runs on the runtime of the network. Its progress and its end are events too.
    ///
    /// Dropping the result cancels the transfer. The destination keeps verified chunks for the next
    /// attempt.
    pub fn request_blob(
        &self,
        context_id: ContextId,
        blob_id: BlobId,
        providers: Vec<PeerId>,
        to: Destination,
    ) -> BlobTransfer {
        self.request_blob_with(FetchRequest::new(context_id, blob_id), providers, to)
    }

    /// As [`request_blob`](Self::request_blob), with the options of a [`FetchRequest`].
    pub fn request_blob_with(
        &self,
        request: FetchRequest,
        providers: Vec<PeerId>,
        to: Destination,
    ) -> BlobTransfer {
        let (context_id, blob_id) = (request.context_id, request.blob_id);
        let providers = Providers::listed(stream::iter(providers))
            .with_search(self.search(context_id, blob_id));
        // The tasks and timers of a transfer belong to the runtime of the network.
        let _entered = self.inner.runtime.enter();
        let transfer = self.inner.blobs.fetcher.fetch(request, providers, to);
        let (progress, mut watched) = (transfer.progress(), transfer.progress());
        let reports = self.inner.blobs.reports.clone();
        let mut fetching = self.inner.blobs.transfers.begin();
        let task = self.inner.runtime.spawn(async move {
            let mut transfer = transfer;
            let outcome = loop {
                tokio::select! {
                    outcome = &mut transfer => break outcome.map_err(|error| Arc::new(error.into())),
                    Some(progress) = watched.next() => {
                        fetching.received(progress.received_bytes);
                        // Superseded by the next one where there is no room.
                        let _ = reports.try_send(BlobEvent::Progress { context_id, blob_id, progress });
                    }
                }
            };
            fetching.ended(outcome.as_ref().map_err(|error: &Arc<FetchBlobError>| &**error));
            let ended = match &outcome {
                Ok(fetched) => BlobEvent::Downloaded {
                    context_id,
                    blob_id,
                    size_bytes: fetched.size_bytes,
                },
                Err(error) => BlobEvent::DownloadFailed {
                    context_id,
                    blob_id,
                    error: Arc::clone(error),
                },
            };
            let _ = reports.send(ended).await;
            outcome
        });
        BlobTransfer { task, progress }
    }

    /// Fetches many blobs into a store from `providers`, small ones together: see
    /// [`Fetcher::fetch_batch`](calimero_network_blob::fetch::Fetcher::fetch_batch).
    ///
    /// # Errors
    ///
    /// [`FetchBlobError`] if the store fails. Blobs that no provider delivered are in the result.
    pub async fn request_blobs(
        &self,
        context_id: ContextId,
        blobs: Vec<BlobId>,
        providers: Vec<PeerId>,
        store: Arc<dyn BlobStore>,
    ) -> Result<FetchedBatch, FetchBlobError> {
        let fetcher = &self.inner.blobs.fetcher;
        let batch = fetcher.fetch_batch(context_id, blobs, providers, store);
        let mut task = OnDrop(self.inner.runtime.spawn(batch));
        let batch = (&mut task.0).await.map_err(|_| Stopped)??;
        self.inner.blobs.transfers.batch_ended(&batch);
        Ok(batch)
    }

    /// A search for providers in the DHT that can be repeated. New providers are emitted as events.
    fn search(
        &self,
        context_id: ContextId,
        blob_id: BlobId,
    ) -> impl FnMut() -> BoxStream<'static, PeerId> + Send + use<> {
        // A strong handle would keep the manager from stopping.
        let commands = self.inner.commands.downgrade();
        let reports = self.inner.blobs.reports.clone();
        let all = Arc::new(Mutex::new(Vec::new()));
        move || {
            let commands = commands.clone();
            let found = find(commands, context_id, blob_id);
            let (all, reports) = (Arc::clone(&all), reports.clone());
            let found = stream::once(found).flatten().map(move |provider| {
                // The size is of no use to a fetch, which learns it with the hashes.
                let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                if !all.contains(&provider.peer) {
                    all.push(provider.peer);
                    let _ = reports.try_send(BlobEvent::ProvidersFound {
                        context_id,
                        blob_id,
                        providers: all.clone(),
                    });
                }
                provider.peer
            });
            found.boxed()
        }
    }
}

/// Asks the DHT for the providers of a blob once.
async fn find(
    commands: mpsc::WeakSender<Command>,
    context_id: ContextId,
    blob_id: BlobId,
) -> BlobProviders {
    let key = RecordKey {
        context_id,
        blob_id,
    };
    let (found, receiver) = mpsc::channel(FOUND_QUEUE);
    let (reply, answer) = tokio::sync::oneshot::channel();
    if let Some(commands) = commands.upgrade() {
        let query = BlobCommand::Query { key, found, reply };
        let _ = commands.send(Command::Blob(query)).await;
    }
    let _ = answer.await;
    BlobProviders {
        receiver,
        yielded: HashMap::new(),
    }
}

/// The providers of a blob, each as soon as it is found.
#[derive(Debug)]
pub struct BlobProviders {
    receiver: mpsc::Receiver<BlobProvider>,
    /// The providers yielded so far, and whether with the size.
    yielded: HashMap<PeerId, bool>,
}

impl BlobProviders {
    /// The next provider; `None` at the end of the search. Cancel safe.
    pub async fn next(&mut self) -> Option<BlobProvider> {
        StreamExt::next(self).await
    }
}

impl Stream for BlobProviders {
    type Item = BlobProvider;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<BlobProvider>> {
        loop {
            let Some(provider) = ready!(self.receiver.poll_recv(cx)) else {
                return Poll::Ready(None);
            };
            let signed = provider.size_bytes.is_some();
            let before = self.yielded.get(&provider.peer);
            if before.is_none_or(|before| signed && !before) {
                self.yielded.insert(provider.peer, signed);
                return Poll::Ready(Some(provider));
            }
        }
    }
}

/// A running transfer: a future of its end. Dropping it cancels the transfer.
#[must_use = "dropping it cancels the fetch"]
pub struct BlobTransfer {
    task: JoinHandle<Result<Fetched, Arc<FetchBlobError>>>,
    progress: ProgressStream,
}

impl BlobTransfer {
    /// The progress of the transfer, as a stream that ends with it.
    pub fn progress(&mut self) -> &mut ProgressStream {
        &mut self.progress
    }
}

impl Future for BlobTransfer {
    type Output = Result<Fetched, Arc<FetchBlobError>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let ended = ready!(self.task.poll_unpin(cx));
        Poll::Ready(ended.unwrap_or_else(|_| Err(Arc::new(Stopped.into()))))
    }
}

impl Drop for BlobTransfer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl std::fmt::Debug for BlobTransfer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobTransfer").finish_non_exhaustive()
    }
}

/// Aborts a task when dropped.
struct OnDrop<T>(JoinHandle<T>);

impl<T> Drop for OnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_provider_is_yielded_once_and_again_with_its_size() {
        let (one, other) = (PeerId::random(), PeerId::random());
        let (found, receiver) = mpsc::channel(8);
        let told = [
            (one, None),
            (other, Some(5)),
            (one, None),
            (one, Some(5)),
            (other, None),
            (one, Some(5)),
        ];
        for (peer, size_bytes) in told {
            let provider = BlobProvider { peer, size_bytes };
            found.try_send(provider).unwrap();
        }
        drop(found);
        let yielded = HashMap::new();
        let providers = BlobProviders { receiver, yielded };
        let told: Vec<_> = providers
            .map(|provider| (provider.peer, provider.size_bytes))
            .collect()
            .await;
        assert_eq!(told, [(one, None), (other, Some(5)), (one, Some(5))]);
    }
}
