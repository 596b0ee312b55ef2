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
            max_transfers_per_peer: config.tuning.max_transfers_per_peer,
            max_chunks_per_peer: config.tuning.max_chunks_per_peer,
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

#[cfg(test)]
mod tests {
    use calimero_network_primitives::{
        Keypair, PeerId,
        config::{BlobServeConfig, BlobServeTuning},
    };
    use futures::{FutureExt, future::join_all};

    use super::Slots;

    fn peer(seed: u8) -> PeerId {
        let key = Keypair::ed25519_from_bytes([seed; 32]).unwrap();
        key.public().to_peer_id()
    }

    fn slots(max_chunks: usize, max_chunks_per_peer: usize) -> Slots {
        Slots::new(&BlobServeConfig {
            max_transfers: 2,
            max_chunks,
            tuning: BlobServeTuning {
                max_transfers_per_peer: 2,
                max_chunks_per_peer,
                ..BlobServeTuning::default()
            },
            ..BlobServeConfig::default()
        })
    }

    /// Two dozen streams of one peer hold all places and wait for more: the first place that is
    /// given back goes to the one stream of another.
    #[tokio::test]
    async fn who_asks_for_much_does_not_come_before_who_asks_for_little() {
        let slots = slots(4, 4);
        let (much, little) = (slots.of(peer(1)), slots.of(peer(2)));
        let mut held = join_all((0..4).map(|_| much.chunk())).await;
        let mut waiting = join_all((0..20).map(|_| much.chunk()));
        let mut other = Box::pin(little.chunk());
        assert!((&mut waiting).now_or_never().is_none());
        assert!((&mut other).now_or_never().is_none());
        drop(held.pop());
        assert!((&mut waiting).now_or_never().is_none());
        assert!((&mut other).now_or_never().flatten().is_some());
    }

    /// In the long run both get the same.
    #[tokio::test]
    async fn places_go_round() {
        let slots = slots(2, 1);
        let peers = [slots.of(peer(1)), slots.of(peer(2)), slots.of(peer(3))];
        let mut got = [0_u32; 3];
        // The first has ten streams, the others one each.
        let streams = [0; 10].into_iter().chain([1, 2]);
        let mut waiting: Vec<_> = streams.map(|of| (of, peers[of].chunk().boxed())).collect();
        let mut held = std::collections::VecDeque::new();
        for _ in 0..300 {
            for (of, place) in &mut waiting {
                if let Some(granted) = place.now_or_never() {
                    got[*of] += 1;
                    held.push_back(granted);
                    *place = peers[*of].chunk().boxed();
                }
            }
            drop(held.pop_front());
        }
        let (least, most) = (got.iter().min().unwrap(), got.iter().max().unwrap());
        assert!(most - least <= 2, "{got:?}");
    }

    #[tokio::test]
    async fn transfers_are_bounded_by_peer_and_in_all() {
        let slots = slots(4, 4);
        let (one, two) = (slots.of(peer(1)), slots.of(peer(2)));
        let first = [one.try_transfer(), one.try_transfer()];
        assert!(first.iter().all(Option::is_some));
        assert!(two.try_transfer().is_none(), "none are left in all");
        drop(first);
        assert!(two.try_transfer().is_some());
        drop((one, two));
        assert!(slots.peers().is_empty(), "a peer without streams is kept");
    }
}
