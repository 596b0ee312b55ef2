//! Serving blobs from a store, to many requesters at a time.
//!
//! A [`Server`] answers the streams it is handed, of both versions of the protocol. What it holds
//! in memory is bounded by [`max_chunks`](BlobServeConfig::max_chunks): each chunk takes a place
//! first of its requester and then of all, and who waits is served in turn, so a peer with many
//! streams gets no more than a peer with few that are enough for it. A chunk is read from the
//! store, on tokio's blocking threads, while the one before it is sent.

mod authorize;
mod error;
mod newer;
mod older;
mod slots;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use calimero_network_primitives::config::{BlobServeConfig, BlobServeTuning};
use calimero_network_primitives::{ContextId, PeerId};
use futures::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use self::slots::{PeerSlots, Slots};
pub use self::{
    authorize::{Access, Authorized, Authorizer, Public},
    error::ServeError,
};
use crate::{
    BlobId,
    store::{BlobReader, BlobStore, StoreError},
    transfer::{BoxDuplex, Version},
    wire::ReplayGuard,
};

/// Authentications of protocol 0.0.2 that are remembered against replays: 65,536. This allows 1,600
/// new ones a second and takes 10 MiB.
const MAX_REMEMBERED_AUTHS: usize = 65_536;

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

/// A blob was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requested {
    /// Who asks.
    pub peer: PeerId,
    /// On whose behalf.
    pub context_id: ContextId,
    /// Which blob.
    pub blob_id: BlobId,
    /// Whether the peer may have it and it is here.
    pub given: bool,
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
    store: Arc<dyn BlobStore>,
    authorizer: Arc<dyn Authorizer>,
    requests: Option<mpsc::Sender<Requested>>,
    slots: Slots,
    replays: Arc<Mutex<ReplayGuard>>,
}

impl Server {
    /// A server that gives what the store calls public, as the peer `local`. The configuration is
    /// taken as it is: [`BlobServeConfig::validate`] says whether it can hold.
    #[must_use]
    pub fn new(local: PeerId, store: Arc<dyn BlobStore>, config: &BlobServeConfig) -> Self {
        let shared = Shared {
            local,
            config: config.clone(),
            authorizer: Arc::new(Public::new(Arc::clone(&store))),
            store,
            requests: None,
            slots: Slots::new(config),
            replays: Arc::new(Mutex::new(ReplayGuard::new(MAX_REMEMBERED_AUTHS))),
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

    /// The same server, which tells of each blob that is asked for, as long as the queue has
    /// room.
    #[must_use]
    pub fn with_requests(mut self, requests: mpsc::Sender<Requested>) -> Self {
        Arc::make_mut(&mut self.shared).requests = Some(requests);
        self
    }

    /// Answers one stream of `peer` until it ends. Dropping the future resets the stream.
    ///
    /// Runs on tokio, with its timers.
    ///
    /// # Errors
    ///
    /// [`ServeError`] with why it ended early. What was answered before stands.
    pub fn serve<S>(
        &self,
        peer: PeerId,
        version: Version,
        stream: S,
    ) -> impl Future<Output = Result<Served, ServeError>> + Send + use<S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        let stream: BoxDuplex = Box::new(stream);
        async move {
            let requester = Requester {
                slots: shared.slots.of(peer),
                shared,
                peer,
            };
            match version {
                Version::V1 => newer::serve(requester, stream).await,
                Version::V0 => older::serve(requester, stream).await,
            }
        }
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("local", &self.shared.local)
            .field("config", &self.shared.config)
            .finish_non_exhaustive()
    }
}

/// Who is served, and by what.
struct Requester {
    shared: Arc<Shared>,
    peer: PeerId,
    slots: PeerSlots,
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
        let access = Access {
            requester: self.peer,
            context_id,
            blob_id,
            public_key,
        };
        let may = self.shared.authorizer.authorize(access).await;
        let reader = match may {
            true => self.shared.store.reader(blob_id).await?,
            false => None,
        };
        if let Some(requests) = &self.shared.requests {
            // Who does not listen misses it; the count of what was served does not depend on it.
            let _ = requests.try_send(Requested {
                peer: self.peer,
                context_id,
                blob_id,
                given: reader.is_some(),
            });
        }
        Ok(reader)
    }
}
