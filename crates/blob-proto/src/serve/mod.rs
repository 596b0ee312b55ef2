//! Serving blobs from a store, to many requesters at a time.
//!
//! A [`Server`] answers the streams it is handed, of both versions of the protocol. What it holds
//! is counted in the accounting of the node
//! ([`resources`](calimero_network_primitives::resources)): a permit for each transfer, and permits
//! for the bytes of answers that are not sent. Waiting requesters take turns by IP prefix, then by
//! peer, and wait no longer than a deadline. A requester that takes less than a chunk in
//! [`chunk_timeout`](BlobServeTuning::chunk_timeout) loses its stream, and with it its permits.
//!
//! Under an upload limit requesters take turns of one chunk in the same order, as many at one time
//! as the limit serves at a useful rate. A requester whose turn is not near is answered
//! [busy](crate::v1::Refusal::Busy) with the time until then, and keeps its position. One of
//! protocol 0.0.2, which has no such answer, waits for 8 s and then loses its stream.
//!
//! Each chunk is verified before it is sent. A blob that does not verify or whose file is missing
//! is withdrawn from the store and [reported](ServeEvent::Damaged).

mod authorize;
mod error;
mod totals;
mod v0;
mod v1;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
pub use calimero_network_primitives::config::{BlobServeConfig, BlobServeTuning};
use calimero_network_primitives::{
    ContextId, PeerId,
    resources::{Holder, Limit, Limits, Origin, Permit, Resource, Resources},
};
use futures::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

pub use self::{
    authorize::{Access, Authorized, Authorizer, Public},
    error::ServeError,
    totals::Totals,
};
use crate::{
    BlobId, ChunkList,
    bandwidth::{Asking, Bandwidth, Turn, Turns},
    error::CallbackError,
    fetch::Fetcher,
    guard::{CALLBACK_TIMEOUT, GuardedStore, STORE_TIMEOUT, guarded},
    id::CHUNK_BYTES,
    store::{BlobReader, BlobStore, StoreError, StoreFuture, blocking::blocking},
    swarm::{Part, Swarms, store_number},
    transfer::{BoxDuplex, Version},
    v0::ReplayGuard,
};

/// What was done for one stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Requests that were answered, refusals among them.
    pub requests: u64,
    /// Requests among them that were refused.
    pub refused: u64,
    /// Bytes of content that were sent.
    pub sent_bytes: u64,
}

/// A peer asked for a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requested {
    /// The peer that asked.
    pub peer: PeerId,
    /// The context on whose behalf it asked.
    pub context_id: ContextId,
    /// The blob that it asked for.
    pub blob_id: BlobId,
    /// Whether the peer may have it and it is here.
    pub given: bool,
}

/// What a server reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServeEvent {
    /// A peer asked for a blob.
    Requested(Requested),
    /// A blob of the store does not verify, or it cannot be read. It was withdrawn from the store,
    /// where the store can do that; nothing damaged was sent.
    Damaged {
        /// The id of the blob.
        blob_id: BlobId,
    },
}

/// Serves blobs from a store. Cheap to clone; all clones share their bounds.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

#[derive(Clone)]
struct Shared {
    local: PeerId,
    config: BlobServeConfig,
    /// The store behind the deadline of its calls.
    store: Arc<dyn BlobStore>,
    /// The store itself.
    unguarded: Arc<dyn BlobStore>,
    /// Number of the store.
    store_number: usize,
    swarms: Swarms,
    authorizer: Arc<dyn Authorizer>,
    events: Option<mpsc::Sender<ServeEvent>>,
    resources: Resources,
    bandwidth: Bandwidth,
    replays: Arc<Mutex<ReplayGuard>>,
    totals: Totals,
    /// Blobs that the store checks because a chunk of them was damaged.
    checked: Arc<Mutex<HashSet<BlobId>>>,
}

/// A blob that the store checks, until this is dropped.
struct Checked {
    all: Arc<Mutex<HashSet<BlobId>>>,
    blob_id: BlobId,
}

impl Checked {
    /// `None` if the blob is being checked already.
    fn begin(all: &Arc<Mutex<HashSet<BlobId>>>, blob_id: BlobId) -> Option<Self> {
        let mut checked = all.lock().unwrap_or_else(PoisonError::into_inner);
        if !checked.insert(blob_id) {
            // No value is made for it: dropping one takes the lock and removes the blob.
            return None;
        }
        drop(checked);
        let all = Arc::clone(all);
        Some(Self { all, blob_id })
    }
}

impl Drop for Checked {
    fn drop(&mut self) {
        let mut checked = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        checked.remove(&self.blob_id);
    }
}

impl Server {
    /// A server that gives what the store calls public, as the peer `local`. The configuration is
    /// taken as it is: [`BlobServeConfig::validate`] says whether it can hold.
    #[must_use]
    pub fn new(local: PeerId, store: Arc<dyn BlobStore>, config: &BlobServeConfig) -> Self {
        let store_number = store_number(&store);
        let unguarded = Arc::clone(&store);
        let store = GuardedStore::wrap(store, STORE_TIMEOUT);
        let shared = Shared {
            local,
            config: config.clone(),
            store_number,
            swarms: Swarms::default(),
            authorizer: Arc::new(Public::new(Arc::clone(&store))),
            store,
            unguarded,
            events: None,
            resources: Resources::new(limits(config)),
            bandwidth: Bandwidth::default(),
            replays: Arc::new(Mutex::new(ReplayGuard::new(
                config.tuning.max_remembered_auths,
            ))),
            totals: Totals::default(),
            checked: Arc::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// The same server with another word on who may have what.
    #[must_use]
    pub fn with_authorizer(self, authorizer: impl Authorizer) -> Self {
        self.with_shared_authorizer(Arc::new(authorizer))
    }

    /// As [`with_authorizer`](Self::with_authorizer), with one that is shared.
    #[must_use]
    pub fn with_shared_authorizer(mut self, authorizer: Arc<dyn Authorizer>) -> Self {
        Arc::make_mut(&mut self.shared).authorizer = authorizer;
        self
    }

    /// Counts what requesters hold in the accounting of the node, and by its limits, in place of
    /// one of its own with the limits of the configuration.
    #[must_use]
    pub fn with_resources(mut self, resources: Resources) -> Self {
        Arc::make_mut(&mut self.shared).resources = resources;
        self
    }

    /// Limits what the server sends and receives, together with all other users of `bandwidth`. The
    /// caller does not limit the streams itself.
    #[must_use]
    pub fn with_bandwidth(mut self, bandwidth: &Bandwidth) -> Self {
        Arc::make_mut(&mut self.shared).bandwidth = bandwidth.clone();
        self
    }

    /// Returns what all streams together have been served, for metrics.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.shared.totals.clone()
    }

    /// Serves what `fetcher` has verified of blobs that it is still fetching into the same store,
    /// to requesters of 1.1.0. Whether a requester may have it is decided as for a complete blob.
    #[must_use]
    pub fn with_fetcher(mut self, fetcher: &Fetcher) -> Self {
        let shared = Arc::make_mut(&mut self.shared);
        shared.swarms = fetcher.swarms().clone();
        shared.swarms.serve(shared.store_number);
        self
    }

    /// Reports events to a queue. An event that finds the queue full is dropped.
    #[must_use]
    pub fn with_events(mut self, events: mpsc::Sender<ServeEvent>) -> Self {
        Arc::make_mut(&mut self.shared).events = Some(events);
        self
    }

    /// Sets the time that the store has to answer, in place of 60 s.
    #[must_use]
    pub fn with_store_timeout(mut self, after: Duration) -> Self {
        let shared = Arc::make_mut(&mut self.shared);
        shared.store = GuardedStore::wrap(Arc::clone(&shared.unguarded), after);
        self
    }

    /// Answers one stream of `peer` until it ends. Dropping the future resets the stream.
    ///
    /// Runs on tokio, with its timers.
    ///
    /// # Errors
    ///
    /// [`ServeError`] with the reason why it ended early. Answers that were sent before are valid.
    pub fn serve<S>(
        &self,
        peer: PeerId,
        version: Version,
        stream: S,
    ) -> impl Future<Output = Result<Served, ServeError>> + Send + use<S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.serve_from(peer, None, version, stream)
    }

    /// As [`serve`](Self::serve), for a peer whose connection comes from `origin`: all peers of an
    /// origin share its limits.
    ///
    /// # Errors
    ///
    /// As [`serve`](Self::serve).
    pub fn serve_from<S>(
        &self,
        peer: PeerId,
        origin: Option<Origin>,
        version: Version,
        stream: S,
    ) -> impl Future<Output = Result<Served, ServeError>> + Send + use<S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        let stream: BoxDuplex = Box::new(shared.bandwidth.limit(stream));
        async move {
            let requester = Arc::new(Requester {
                holder: shared.resources.holder(Some(peer), origin),
                shared,
                peer,
            });
            match version {
                Version::V1_1 => v1::serve(requester, stream, true).await,
                Version::V1 => v1::serve(requester, stream, false).await,
                Version::V0 => v0::serve(&requester, stream).await,
            }
        }
    }
}

/// The limits of a server with an accounting of its own.
fn limits(config: &BlobServeConfig) -> Limits {
    let bytes = |chunks: usize| chunks as u64 * CHUNK_BYTES;
    let mut limits = Limits::default();
    limits.update(Resource::BlobTransfers, |_| Limit {
        node: config.max_transfers as u64,
        peer: config.tuning.max_transfers_per_peer as u64,
        ..Limit::UNLIMITED
    });
    limits.update(Resource::BlobBytes, |_| Limit {
        node: bytes(config.max_chunks),
        peer: bytes(config.tuning.max_chunks_per_peer),
        ..Limit::UNLIMITED
    });
    limits
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("local", &self.shared.local)
            .field("config", &self.shared.config)
            .finish_non_exhaustive()
    }
}

/// What is here of a blob.
enum Source {
    Whole(Arc<dyn BlobReader>),
    Part(Part),
}

impl Source {
    /// Size of the blob in bytes. Of a part, as a provider claims it.
    fn size_bytes(&self) -> u64 {
        match self {
            Self::Whole(reader) => reader.size_bytes(),
            Self::Part(part) => part.size_bytes,
        }
    }
}

/// One requester of a server, on one stream.
struct Requester {
    shared: Arc<Shared>,
    peer: PeerId,
    holder: Holder,
}

impl Requester {
    fn config(&self) -> &BlobServeConfig {
        &self.shared.config
    }

    fn replays(&self) -> MutexGuard<'_, ReplayGuard> {
        let replays = &self.shared.replays;
        replays.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a chunk within the time there is for one.
    async fn in_time<E: Into<ServeError>>(
        &self,
        sending: impl Future<Output = Result<(), E>>,
    ) -> Result<(), ServeError> {
        let after = self.config().tuning.chunk_timeout;
        let sent = tokio::time::timeout(after, sending).await;
        sent.map_err(|_| ServeError::Slow { after })?
            .map_err(Into::into)
    }

    /// Opens a blob, if the requester may have it and it is here.
    async fn open(
        &self,
        context_id: ContextId,
        blob_id: BlobId,
        public_key: Option<[u8; 32]>,
    ) -> Result<Option<Arc<dyn BlobReader>>, StoreError> {
        let may = self.authorize(context_id, blob_id, public_key).await?;
        let reader = match may {
            true => self.shared.store.reader(blob_id).await?,
            false => None,
        };
        self.on_requested(context_id, blob_id, reader.is_some());
        Ok(reader)
    }

    /// As [`open`](Self::open), for a requester that is given what is here of a blob as well.
    async fn open_part(
        &self,
        context_id: ContextId,
        blob_id: BlobId,
        public_key: Option<[u8; 32]>,
    ) -> Result<Option<Source>, StoreError> {
        let may = self.authorize(context_id, blob_id, public_key).await?;
        let source = match may {
            true => self.source(blob_id).await?,
            false => None,
        };
        self.on_requested(context_id, blob_id, source.is_some());
        Ok(source)
    }

    /// What is here of a blob.
    async fn source(&self, blob_id: BlobId) -> Result<Option<Source>, StoreError> {
        let shared = &self.shared;
        // Looked for before the complete blob, which a transfer shows before it ends.
        let swarm = shared.swarms.find(shared.store_number, blob_id);
        let part = swarm.and_then(|swarm| swarm.part());
        match shared.store.reader(blob_id).await? {
            Some(reader) => Ok(Some(Source::Whole(reader))),
            None => Ok(part.map(Source::Part)),
        }
    }

    fn on_requested(&self, context_id: ContextId, blob_id: BlobId, given: bool) {
        self.shared.report(ServeEvent::Requested(Requested {
            peer: self.peer,
            context_id,
            blob_id,
            given,
        }));
    }

    /// Asks the authorizer. Its panic or silence is an error.
    async fn authorize(
        &self,
        context_id: ContextId,
        blob_id: BlobId,
        public_key: Option<[u8; 32]>,
    ) -> Result<bool, CallbackError> {
        let access = Access {
            requester: self.peer,
            context_id,
            blob_id,
            public_key,
        };
        let authorizer = &self.shared.authorizer;
        let authorize = || authorizer.authorize(access);
        guarded("Authorizer::authorize", CALLBACK_TIMEOUT, authorize).await
    }

    /// Waits for a permit, no longer than the deadline of a first request.
    async fn acquire(&self, resource: Resource, amount: u64) -> Result<Permit, ServeError> {
        let tuning = &self.config().tuning;
        let after = match resource {
            // Another requester holds its permit for the time that it may take for a chunk.
            Resource::BlobBytes => tuning.request_timeout.saturating_add(tuning.chunk_timeout),
            _ => tuning.request_timeout,
        };
        match tokio::time::timeout(after, self.holder.acquire(resource, amount)).await {
            Ok(permit) => Ok(permit?),
            Err(_) => Err(ServeError::Busy { after }),
        }
    }

    /// Waits for a turn at the upload limit, at most for `patience`.
    ///
    /// # Errors
    ///
    /// The time after which the requester is to ask for the blob again.
    async fn turn(
        &self,
        turns: &Turns,
        blob_id: BlobId,
        patience: Duration,
    ) -> Result<Turn, Duration> {
        let asking = Asking {
            peer: self.peer,
            origin: self.holder.origin(),
            protected: self.holder.is_protected(),
        };
        turns.acquire(asking, blob_id, patience).await
    }

    /// Reads a chunk once there is a permit for it, and verifies it. `None` beyond the end.
    async fn read(
        &self,
        reader: &dyn BlobReader,
        list: &ChunkList,
        index: u64,
    ) -> Result<Option<(Bytes, Permit)>, ServeError> {
        let size_bytes = reader.size_bytes();
        let start = index.saturating_mul(CHUNK_BYTES);
        if start >= size_bytes {
            return Ok(None);
        }
        let permit = self.acquire(Resource::BlobBytes, CHUNK_BYTES).await?;
        let end = start.saturating_add(CHUNK_BYTES).min(size_bytes);
        let read = verified(list.clone(), index, reader.read(start..end));
        let (chunk, permit) = to_end(async move { (read.await, permit) }).await?;
        Ok(Some((chunk?, permit)))
    }

    /// Returns the chunk hashes of a blob. Where they have to be computed from all of it, waits for
    /// a permit.
    async fn list(&self, reader: &dyn BlobReader) -> Result<ChunkList, ServeError> {
        if let Some(list) = reader.stored_list().await? {
            return Ok(list);
        }
        let permit = self.acquire(Resource::BlobBytes, CHUNK_BYTES).await?;
        let list = reader.list();
        let (list, _permit) = to_end(async move { (list.await, permit) }).await?;
        Ok(list?)
    }

    /// As [`read`](Self::read), of a blob that was not complete. `None` where the chunk is missing.
    async fn read_part(
        &self,
        part: &Part,
        index: u64,
    ) -> Result<Option<(Bytes, Permit)>, ServeError> {
        if part.blob.strong_count() > 0 && !part.has(index) {
            return Ok(None);
        }
        // The download stays open for as long as `blob` exists, and no other one can continue it:
        // it must not wait for a permit.
        let permit = self.acquire(Resource::BlobBytes, CHUNK_BYTES).await?;
        let Some(blob) = part.blob.upgrade() else {
            drop(permit);
            // Its transfer has ended.
            return match self.shared.store.reader(part.list.id()).await? {
                Some(reader) => self.read(&*reader, &part.list, index).await,
                None => Ok(None),
            };
        };
        if !usize::try_from(index).is_ok_and(|index| blob.has(index)) {
            return Ok(None);
        }
        // Below MAX_BLOB_CHUNKS.
        let read = blob.read(index as usize);
        drop(blob);
        let id = part.list.id();
        // A chunk that is missing is as one that does not verify.
        let read = async move { read.await?.ok_or(StoreError::Damaged { id }) };
        let read = verified(part.list.clone(), index, Box::pin(read));
        let (chunk, permit) = to_end(async move { (read.await, permit) }).await?;
        match chunk {
            Ok(chunk) => Ok(Some((chunk, permit))),
            // The transfer that wrote it fetches it again when it is resumed.
            Err(StoreError::Damaged { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Withdraws a blob whose content does not verify, and reports it.
    async fn on_store_error(&self, blob_id: BlobId, error: &StoreError) {
        tracing::warn!(%blob_id, %error, "the blob store failed");
        if !error.is_damage() {
            return;
        }
        // The store reads the blob as a whole. One request of many is enough for that.
        let Some(checked) = Checked::begin(&self.shared.checked, blob_id) else {
            return;
        };
        let shared = Arc::clone(&self.shared);
        let withdraw = async move {
            shared.withdraw(blob_id).await;
            drop(checked);
        };
        // Fails where the runtime stops.
        let _ = to_end(withdraw).await;
    }
}

impl Shared {
    async fn withdraw(&self, blob_id: BlobId) {
        match self.store.withdraw(blob_id).await {
            Ok(true) => self.report(ServeEvent::Damaged { blob_id }),
            // What was damaged is not shown any more.
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(%blob_id, %error, "a damaged blob was not withdrawn");
                self.report(ServeEvent::Damaged { blob_id });
            }
        }
    }

    fn report(&self, event: ServeEvent) {
        if let Some(events) = &self.events {
            // A full queue drops it. The counts of what was served do not depend on it.
            let _ = events.try_send(event);
        }
    }
}

/// Runs work to its end, also where the answer is not awaited any more. What a store has begun on
/// another thread does not stop with its future, so the work owns the permit that counts it.
async fn to_end<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::spawn(work).await.map_err(|_| StoreError::Stopped)
}

/// Verifies a chunk once it is read.
async fn verified(
    list: ChunkList,
    index: u64,
    read: StoreFuture<Bytes>,
) -> Result<Bytes, StoreError> {
    let chunk = read.await?;
    blocking(move || {
        let id = list.id();
        // Below MAX_BLOB_CHUNKS.
        let verified = list.verify(index as usize, &chunk);
        verified.map_err(|_| StoreError::Damaged { id })?;
        Ok(chunk)
    })
    .await
}
