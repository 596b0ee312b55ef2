//! Fetching a blob from one or many providers, verified chunk by chunk.
//!
//! A [`Fetcher`] opens streams through an [`Opener`] and offers both versions of the protocol. From
//! providers of 1.0.0 it gets the chunk hashes first, which prove themselves against the id, then
//! chunks from all of them at once, as many from each as it can send, each verified before it is
//! kept. Where only older providers are left it gets the whole blob from one of them.
//!
//! Providers of 1.1.0 may have a part of the blob: peers that fetch it at the same time, which give
//! each other what they have. A transfer into the store of a [`Server`](crate::serve::Server) that
//! knows the fetcher ([`with_fetcher`](crate::serve::Server::with_fetcher)) serves it as well.
//!
//! Memory is bounded by [`VERIFY_CHUNKS`] and three chunks of each
//! provider that sends; what has not arrived stays with the network. Hashing and writing run on tokio's
//! blocking threads, as many at a time as chunks may be verified at a time.
//!
//! A [`Transfer`] does nothing until it is polled, and dropping it cancels it. What was verified
//! by then is kept by the store, or in a second file, for the next attempt.

mod batch;
mod driver;
mod error;
#[cfg(unix)]
mod file;
mod memory;
mod progress;
mod request;
mod session;
mod shared;
mod target;
mod v0;
mod writer;

#[cfg(unix)]
use std::path::PathBuf;
use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
pub use calimero_network_primitives::config::{BlobFetchConfig, BlobFetchTuning};
use calimero_network_primitives::{ContextId, PeerId};
use futures::{AsyncWrite, FutureExt, future::Shared};
use tokio::sync::{Semaphore, mpsc, watch};

pub use self::{
    batch::FetchedBatch,
    error::{FetchError, ProviderError, ProviderFailure},
    progress::{Progress, ProgressStream, ProviderProgress},
    request::{FetchRequest, Providers},
};
use self::{
    driver::{Driver, EVENT_QUEUE, Sources},
    memory::MemoryTarget,
    session::Context as SessionContext,
    shared::{Joined, Run, Transfers},
};
use crate::{
    BlobId,
    guard::{GuardedStore, STORE_TIMEOUT},
    store::{BlobStore, Hold},
    swarm::{Swarms, store_number},
    transfer::{DynOpener, Identity, Opener},
};

/// The place that a blob is fetched to.
pub enum Destination {
    /// A store. A blob that is there already is verified; one that is intact is not fetched, and of
    /// a damaged one only the chunks that do not verify. Transfers of one blob into one store are
    /// one transfer.
    Store(Arc<dyn BlobStore>),
    /// Memory, up to a size in bytes. The content is in [`Fetched::content`].
    Memory {
        /// Largest blob that is accepted, in bytes.
        max_bytes: u64,
    },
    /// A file, which appears when all of it is verified and durable. Until then its chunks are in a
    /// second file with `.part` behind its name, and a later fetch to the same file resumes with
    /// them. A file that is the blob already stays as it is and is made durable. Any other file is
    /// replaced.
    #[cfg(unix)]
    File(PathBuf),
    /// To a writer, in order, each chunk when it is verified. It is flushed and not closed.
    ///
    /// An older provider's content is written as it comes and verified at its end, so what was
    /// written counts only once the transfer has succeeded.
    Writer(Box<dyn AsyncWrite + Send + Unpin>),
}

impl std::fmt::Debug for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Store(_) => "Store",
            Self::Memory { .. } => "Memory",
            #[cfg(unix)]
            Self::File(_) => "File",
            Self::Writer(_) => "Writer",
        })
    }
}

/// A blob that arrived: verified, and durable where the destination is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Fetched {
    /// The id of the blob.
    pub id: BlobId,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Bytes of it that earlier tries had left.
    pub resumed_bytes: u64,
    /// Bytes that came over the network this time.
    pub received_bytes: u64,
    /// Who gave how many bytes of it, in order of their ids.
    pub providers: Vec<(PeerId, u64)>,
    /// Who failed and gave nothing after that.
    pub failures: Vec<ProviderFailure>,
    /// Keeps it from garbage collection until it is tagged.
    pub hold: Option<Hold>,
    /// The content, where the destination is [`Destination::Memory`].
    pub content: Option<Bytes>,
}

/// Chunks that have arrived and are being hashed and written, or wait for it: 4, on a host of two
/// cores two in progress and two queued. Further chunks stay with the network.
pub const VERIFY_CHUNKS: usize = 4;

/// Fetches blobs. Cheap to clone.
#[derive(Clone)]
pub struct Fetcher {
    opener: Arc<dyn DynOpener>,
    identity: Identity,
    config: Arc<BlobFetchConfig>,
    store_timeout: Duration,
    transfers: Transfers,
    swarms: Swarms,
}

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetcher")
            .field("peer", &self.identity.peer)
            .finish_non_exhaustive()
    }
}

impl Fetcher {
    /// A fetcher that opens streams through `opener`. The configuration is taken as it is:
    /// [`BlobFetchConfig::validate`] says whether it can hold.
    #[must_use]
    pub fn new(opener: impl Opener, identity: Identity, config: &BlobFetchConfig) -> Self {
        Self {
            opener: Arc::new(opener),
            identity,
            config: Arc::new(config.clone()),
            store_timeout: STORE_TIMEOUT,
            transfers: Transfers::default(),
            swarms: Swarms::default(),
        }
    }

    pub(crate) fn swarms(&self) -> &Swarms {
        &self.swarms
    }

    /// Sets the time that a store has to answer, in place of 60 s. Work that depends on the size of
    /// a blob has a second more for each 8 MiB.
    #[must_use]
    pub fn with_store_timeout(mut self, after: Duration) -> Self {
        self.store_timeout = after;
        self
    }

    /// Fetches a blob from providers: a stream of peers, or [`Providers`] with a search that is
    /// repeated while bytes are missing.
    ///
    /// A fetch into a store that another call fetches the same blob into joins that transfer, with
    /// its providers. It ends with the last of its waiters. Where the context, the signer or
    /// the size limit differs, it waits for that transfer and takes the blob that it has stored.
    ///
    /// Runs on tokio, with its timers.
    pub fn fetch(
        &self,
        request: FetchRequest,
        providers: impl Into<Providers>,
        to: Destination,
    ) -> Transfer {
        let mut providers = providers.into();
        if !request.search {
            providers.search = None;
        }
        let (run, watched) = match to {
            Destination::Store(store) => {
                let in_store = InStore {
                    swarms: self.swarms.clone(),
                    transfers: self.transfers.clone(),
                    number: store_number(&store),
                };
                let target = Target {
                    in_store: Some(in_store),
                    ..Target::new(GuardedStore::wrap(Arc::clone(&store), self.store_timeout))
                };
                let begin =
                    |providers, joined| self.begin(request.clone(), providers, joined, target);
                self.transfers.join(&request, &store, providers, begin)
            }
            Destination::Memory { max_bytes } => {
                let memory = MemoryTarget::new(max_bytes);
                let request = FetchRequest {
                    max_bytes: request.max_bytes.min(max_bytes),
                    ..request
                };
                let target = Target {
                    memory: Some(memory.clone()),
                    ..Target::new(Arc::new(memory))
                };
                self.begin_alone(request, providers, target)
            }
            #[cfg(unix)]
            Destination::File(path) => {
                let target = Target::new(Arc::new(file::FileTarget::new(path)));
                self.begin_alone(request, providers, target)
            }
            Destination::Writer(to) => {
                let target = Target {
                    ordered: true,
                    ..Target::new(Arc::new(writer::WriterTarget::new(to)))
                };
                self.begin_alone(request, providers, target)
            }
        };
        Transfer { run, watched }
    }

    fn begin_alone(&self, request: FetchRequest, providers: Providers, target: Target) -> Joined {
        let (_, joined) = mpsc::channel(1);
        let (run, watched) = self.begin(request, providers, joined, target);
        (run.shared(), watched)
    }

    fn begin(
        &self,
        request: FetchRequest,
        providers: Providers,
        joined: mpsc::Receiver<Providers>,
        target: Target,
    ) -> (Run, watch::Receiver<Progress>) {
        let (events, receiver) = mpsc::channel(EVENT_QUEUE);
        let (progress, watched) = watch::channel(Progress::default());
        let shared = Arc::new(self.shared(request, events));
        let run = async move {
            // Made when it is first polled: the clock begins then.
            let sources = Sources::new(providers, joined);
            let memory = target.memory.clone();
            let driver = Driver::new(shared, receiver, target, sources, progress);
            let mut fetched = driver.run().await?;
            fetched.content = memory.and_then(|memory| memory.take());
            Ok(fetched)
        };
        (run.boxed(), watched)
    }
}

/// Where a transfer keeps what arrives.
struct Target {
    store: Arc<dyn BlobStore>,
    /// Whether chunks have to be kept in order.
    ordered: bool,
    memory: Option<MemoryTarget>,
    /// Present where the destination is a store that transfers share.
    in_store: Option<InStore>,
}

/// What the transfers into one store have in common.
#[derive(Clone)]
struct InStore {
    /// Where what is verified is offered to other peers.
    swarms: Swarms,
    /// The transfers of the fetcher.
    transfers: Transfers,
    /// Number of the store.
    number: usize,
}

impl Target {
    fn new(store: Arc<dyn BlobStore>) -> Self {
        Self {
            store,
            ordered: false,
            memory: None,
            in_store: None,
        }
    }
}

impl Fetcher {
    /// Fetches many blobs into a store, those up to 64 KiB in requests that do not wait for each
    /// other, and made durable together in batches of 8 MiB: a thousand small blobs cost little
    /// more than their bytes. The others are fetched on their own afterwards, eight at the same
    /// time.
    ///
    /// Dropping the future cancels; what was stored by then stays.
    ///
    /// # Errors
    ///
    /// What the store refuses. A blob that no provider gives, or that another download has open, is no
    /// error of the batch: it is in [`FetchedBatch::failed`], with the reason.
    pub fn fetch_batch(
        &self,
        context_id: ContextId,
        blobs: Vec<BlobId>,
        providers: Vec<PeerId>,
        store: Arc<dyn BlobStore>,
    ) -> impl Future<Output = Result<FetchedBatch, FetchError>> + Send + use<> {
        let store = GuardedStore::wrap(store, self.store_timeout);
        batch::run(self.clone(), context_id, blobs, providers, store)
    }

    fn shared(
        &self,
        request: FetchRequest,
        events: mpsc::Sender<session::Event>,
    ) -> SessionContext {
        SessionContext {
            opener: Arc::clone(&self.opener),
            identity: self.identity.clone(),
            config: Arc::clone(&self.config),
            request,
            verifying: Arc::new(Semaphore::new(VERIFY_CHUNKS)),
            events,
            serves: OnceLock::new(),
        }
    }
}

/// A fetch. A future; dropping it cancels it.
#[must_use = "nothing is fetched until it is polled"]
pub struct Transfer {
    run: Shared<Run>,
    watched: watch::Receiver<Progress>,
}

impl Transfer {
    /// How far it is, again and again until it ends.
    #[must_use]
    pub fn progress(&self) -> ProgressStream {
        progress::stream_of(self.watched.clone())
    }
}

impl Future for Transfer {
    type Output = Result<Fetched, FetchError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.run.poll_unpin(cx)
    }
}

impl std::fmt::Debug for Transfer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transfer")
            .field("progress", &*self.watched.borrow())
            .finish_non_exhaustive()
    }
}
