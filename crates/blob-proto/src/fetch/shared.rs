//! One transfer for one blob into one store, however many ask for it.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
};

use calimero_network_primitives::ContextId;
use futures::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};
use tokio::sync::{mpsc, watch};

use super::{FetchError, FetchRequest, Fetched, Progress, Providers, target::lock};
use crate::{BlobId, store::BlobStore, swarm::store_number};

pub(super) type Run = BoxFuture<'static, Result<Fetched, FetchError>>;

/// Calls that join a transfer and that its driver has not yet taken up: 256.
const MAX_JOINING: usize = 256;

/// What makes two transfers the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    store: usize,
    blob_id: BlobId,
    context_id: ContextId,
    max_bytes: u64,
    signer: Option<usize>,
}

/// A transfer that runs for as long as one of its waiters polls it.
struct Running {
    run: WeakShared<Run>,
    progress: watch::Receiver<Progress>,
    joining: mpsc::Sender<Providers>,
}

/// A transfer and its progress.
pub(super) type Joined = (Shared<Run>, watch::Receiver<Progress>);

/// The transfers of a fetcher that others can join.
#[derive(Clone, Default)]
pub(super) struct Transfers {
    running: Arc<Mutex<HashMap<Key, Running>>>,
    downloading: Arc<Mutex<HashSet<(usize, BlobId)>>>,
}

/// A blob whose partial download a transfer has open, until this is dropped.
pub(super) struct Downloading {
    all: Arc<Mutex<HashSet<(usize, BlobId)>>>,
    key: (usize, BlobId),
}

impl Drop for Downloading {
    fn drop(&mut self) {
        lock(&self.all).remove(&self.key);
    }
}

impl Transfers {
    /// Records that a transfer has opened the partial download of a blob. A store opens it once at a
    /// time.
    pub(super) fn downloading(&self, store: usize, blob_id: BlobId) -> Downloading {
        let key = (store, blob_id);
        lock(&self.downloading).insert(key);
        Downloading {
            all: Arc::clone(&self.downloading),
            key,
        }
    }

    /// Returns whether a transfer has the partial download of a blob open.
    pub(super) fn is_downloading(&self, store: usize, blob_id: BlobId) -> bool {
        lock(&self.downloading).contains(&(store, blob_id))
    }

    /// Joins a transfer of the same blob into the same store, or begins one. The providers of a
    /// waiter are added to those of the transfer.
    pub(super) fn join(
        &self,
        request: &FetchRequest,
        store: &Arc<dyn BlobStore>,
        providers: Providers,
        begin: impl FnOnce(Providers, mpsc::Receiver<Providers>) -> (Run, watch::Receiver<Progress>),
    ) -> Joined {
        let signer = request.signer.as_ref();
        let key = Key {
            store: store_number(store),
            blob_id: request.blob_id,
            context_id: request.context_id,
            max_bytes: request.max_bytes,
            signer: signer.map(|signer| Arc::as_ptr(signer).cast::<()>() as usize),
        };
        let mut running = lock(&self.running);
        // A transfer that has ended is not joined: its blob may have been removed since.
        running.retain(|_, one| one.run.upgrade().is_some_and(|run| run.peek().is_none()));
        let one = running.get(&key);
        let joined = one.and_then(|one| Some((one.run.upgrade()?, one)));
        let providers = match joined {
            Some((run, one)) => match one.joining.try_send(providers) {
                Ok(()) => return (run, one.progress.clone()),
                // Ended, or joined by too many at once: this call is a transfer of its own.
                Err(error) => error.into_inner(),
            },
            None => providers,
        };
        let (joining, joined) = mpsc::channel(MAX_JOINING);
        let (run, progress) = begin(providers, joined);
        let run = run.shared();
        if let Some(weak) = run.downgrade() {
            let progress = progress.clone();
            let one = Running {
                run: weak,
                progress,
                joining,
            };
            running.insert(key, one);
        }
        (run, progress)
    }
}
