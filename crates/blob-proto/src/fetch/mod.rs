//! Fetching a blob from one or many providers, verified chunk by chunk.
//!
//! A [`Fetcher`] opens streams through an [`Opener`] and offers both versions of the protocol. From
//! providers of 1.0.0 it gets the chunk hashes first, which prove themselves against the id, then
//! chunks from all of them at once, as many from each as it can send, each verified before it is
//! kept. Where only older providers are left it gets the whole blob from one of them.
//!
//! Memory is bounded by [`VERIFY_CHUNKS`] and three chunks of each
//! provider that sends; what has not arrived stays with the network. Hashing and writing run on tokio's
//! blocking threads, as many at a time as chunks may be verified at a time.
//!
//! A [`Transfer`] does nothing until it is polled, and dropping it cancels it. What was verified
//! by then is kept by the store, or beside the file, for the next try.

mod batch;
mod driver;
mod error;
#[cfg(unix)]
mod file;
mod older;
mod progress;
mod session;
mod writer;

#[cfg(unix)]
use std::path::PathBuf;
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

pub use calimero_network_primitives::config::{BlobFetchConfig, BlobFetchTuning};
use calimero_network_primitives::{ContextId, PeerId};
use futures::{AsyncWrite, FutureExt, Stream, StreamExt, future::BoxFuture};
use tokio::sync::{Semaphore, mpsc, watch};

pub use self::{
    batch::FetchedBatch,
    error::{FetchError, ProviderError, ProviderFailure},
    progress::{Progress, ProgressStream, ProviderProgress},
};
use self::{
    driver::{Driver, EVENT_QUEUE},
    session::Context as Shared,
};
use crate::{
    BlobId,
    store::{BlobStore, Hold},
    transfer::{DynOpener, Identity, Opener},
};

/// Which blob, and on whose behalf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchRequest {
    /// The blob.
    pub blob_id: BlobId,
    /// The context on whose behalf it is asked for.
    pub context_id: ContextId,
}

/// Where a blob goes.
pub enum Destination {
    /// Into a store. A blob that is there already is not fetched.
    Store(Arc<dyn BlobStore>),
    /// To a file, which appears when all of it is verified and durable. Until then it is beside
    /// it, with `.part` behind its name, and a later fetch to the same file goes on with it. A
    /// file that is the blob already stays as it is, and is made durable; another one is replaced.
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
            #[cfg(unix)]
            Self::File(_) => "File",
            Self::Writer(_) => "Writer",
        })
    }
}

/// A blob that is where it should be, verified and durable.
#[derive(Debug)]
#[non_exhaustive]
pub struct Fetched {
    /// The blob.
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
    /// Keeps it from garbage collection until it is tagged. `None` where it was there already.
    pub hold: Option<Hold>,
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
        }
    }

    /// Fetches a blob from the providers that `providers` yields, the sooner the better. A
    /// transfer that nobody can help any more fails when `providers` ends, or after
    /// [`search_timeout`](BlobFetchTuning::search_timeout).
    ///
    /// Runs on tokio, with its timers.
    pub fn fetch(
        &self,
        request: FetchRequest,
        providers: impl Stream<Item = PeerId> + Send + 'static,
        to: Destination,
    ) -> Transfer {
        let (events, receiver) = mpsc::channel(EVENT_QUEUE);
        let (progress, watched) = watch::channel(Progress::default());
        let shared = Arc::new(self.shared(request, events));
        let (store, ordered): (Arc<dyn BlobStore>, _) = match to {
            Destination::Store(store) => (store, false),
            #[cfg(unix)]
            Destination::File(path) => (Arc::new(file::FileTarget::new(path)), false),
            Destination::Writer(to) => (Arc::new(writer::WriterTarget::new(to)), true),
        };
        let providers = providers.boxed();
        let run = async move {
            // Made when it is first polled: the clock begins then.
            Driver::new(shared, receiver, store, ordered, providers, progress)
                .run()
                .await
        };
        Transfer {
            run: run.boxed(),
            watched,
        }
    }
}

impl Fetcher {
    /// Fetches many blobs into a store, those up to 64 KiB in requests that do not wait for each
    /// other, and made durable together in batches of 8 MiB: a thousand small blobs cost little
    /// more than their bytes. The others are fetched one by one afterwards.
    ///
    /// Dropping the future cancels; what was stored by then stays.
    ///
    /// # Errors
    ///
    /// What the store refuses. A blob that nobody gives is no error of the batch: it is in
    /// [`FetchedBatch::failed`], with the reason.
    pub fn fetch_batch(
        &self,
        context_id: ContextId,
        blobs: Vec<BlobId>,
        providers: Vec<PeerId>,
        store: Arc<dyn BlobStore>,
    ) -> impl Future<Output = Result<FetchedBatch, FetchError>> + Send + use<> {
        batch::run(self.clone(), context_id, blobs, providers, store)
    }

    fn shared(&self, request: FetchRequest, events: mpsc::Sender<session::Event>) -> Shared {
        Shared {
            opener: Arc::clone(&self.opener),
            identity: self.identity.clone(),
            config: Arc::clone(&self.config),
            request,
            verifying: Arc::new(Semaphore::new(VERIFY_CHUNKS)),
            events,
        }
    }
}

/// A fetch. A future; dropping it cancels it.
#[must_use = "nothing is fetched until it is polled"]
pub struct Transfer {
    run: BoxFuture<'static, Result<Fetched, FetchError>>,
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
