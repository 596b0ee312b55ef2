//! Places: for transfers, and for the chunks that they hold in memory.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use calimero_network_primitives::{PeerId, config::BlobServeConfig};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// The places of all peers. Who waits for one gets it in turn.
#[derive(Clone)]
pub(super) struct Slots {
    all: Places,
    peers: Arc<Mutex<HashMap<PeerId, Entry>>>,
    max_transfers_per_peer: usize,
    max_chunks_per_peer: usize,
}

#[derive(Clone)]
struct Places {
    transfers: Arc<Semaphore>,
    chunks: Arc<Semaphore>,
}

impl Places {
    fn new(transfers: usize, chunks: usize) -> Self {
        Self {
            transfers: Arc::new(Semaphore::new(transfers)),
            chunks: Arc::new(Semaphore::new(chunks)),
        }
    }
}

struct Entry {
    places: Places,
    /// Streams of the peer. The entry goes with the last one.
    streams: usize,
}

/// A place for a transfer, given back when dropped.
pub(super) struct Transfer {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

/// A place for a chunk in memory, given back when dropped.
pub(super) struct Chunk {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Slots {
    pub(super) fn new(config: &BlobServeConfig) -> Self {
        Self {
            all: Places::new(config.max_transfers, config.max_chunks),
            peers: Arc::default(),
            max_transfers_per_peer: config.max_transfers_per_peer,
            max_chunks_per_peer: config.max_chunks_per_peer,
        }
    }

    /// The places of one peer, for one of its streams.
    pub(super) fn of(&self, peer: PeerId) -> PeerSlots {
        let mut peers = self.peers();
        let entry = peers.entry(peer).or_insert_with(|| Entry {
            places: Places::new(self.max_transfers_per_peer, self.max_chunks_per_peer),
            streams: 0,
        });
        entry.streams += 1;
        let own = entry.places.clone();
        drop(peers);
        PeerSlots {
            all: self.clone(),
            own,
            peer,
        }
    }

    fn peers(&self) -> MutexGuard<'_, HashMap<PeerId, Entry>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The places of one peer, held by one of its streams.
pub(super) struct PeerSlots {
    all: Slots,
    own: Places,
    peer: PeerId,
}

impl PeerSlots {
    /// A place for a transfer, if there is one now.
    pub(super) fn try_transfer(&self) -> Option<Transfer> {
        let own = Arc::clone(&self.own.transfers).try_acquire_owned().ok()?;
        let all = Arc::clone(&self.all.all.transfers);
        let all = all.try_acquire_owned().ok()?;
        Some(Transfer {
            _own: own,
            _all: all,
        })
    }

    /// A place for a transfer, if there is one in time.
    pub(super) async fn transfer(&self, within: Duration) -> Option<Transfer> {
        timeout(within, async {
            let own = Arc::clone(&self.own.transfers).acquire_owned().await.ok()?;
            let all = Arc::clone(&self.all.all.transfers);
            let all = all.acquire_owned().await.ok()?;
            Some(Transfer {
                _own: own,
                _all: all,
            })
        })
        .await
        .ok()
        .flatten()
    }

    /// A place for a chunk. Of the peer first, so that a peer with many streams waits among its
    /// own. `None` never happens: nobody closes the places.
    pub(super) async fn chunk(&self) -> Option<Chunk> {
        let own = Arc::clone(&self.own.chunks).acquire_owned().await.ok()?;
        let all = Arc::clone(&self.all.all.chunks)
            .acquire_owned()
            .await
            .ok()?;
        Some(Chunk {
            _own: own,
            _all: all,
        })
    }
}

impl Drop for PeerSlots {
    fn drop(&mut self) {
        let mut peers = self.all.peers();
        if let Some(entry) = peers.get_mut(&self.peer) {
            entry.streams -= 1;
            if entry.streams == 0 {
                peers.remove(&self.peer);
            }
        }
    }
}
