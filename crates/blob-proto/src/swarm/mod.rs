//! Blobs that peers fetch from this node, or that it fetches itself: which chunks are here, which
//! peers fetch them, and what changes. A [`Fetcher`](crate::fetch::Fetcher) reports what it has
//! verified, and a [`Server`](crate::serve::Server) gives it away and names the requesters to each
//! other.

mod spread;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use calimero_network_primitives::{ContextId, PeerId};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use self::spread::{PutOff, Spread};
use crate::{
    BlobId, ChunkList,
    store::{BlobStore, PartialBlob},
    v1::{MAX_HAVE_RANGES, MAX_NAMED_PEERS, Response},
};

/// Peers that are reported to one requester: 32. A transfer uses 64 providers at most.
const MAX_REPORTED: usize = 32;

/// Requesters that wait to be taken up by the transfer of this node.
const FOUND_QUEUE: usize = 32;

/// Number of a store, the same for all its handles.
pub(crate) fn store_number(store: &Arc<dyn BlobStore>) -> usize {
    let address = Arc::as_ptr(store).cast::<()>() as usize;
    store.address().unwrap_or(address)
}

/// Blobs by the number of their store and their id.
type Blobs = HashMap<(usize, BlobId), Weak<Swarm>>;

/// The blobs of a node that are being given or fetched. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Swarms {
    blobs: Arc<Mutex<Blobs>>,
    /// Number of the store that is served, or 0.
    served: Arc<AtomicUsize>,
}

impl Swarms {
    /// Records the store that is served.
    pub(crate) fn serve(&self, store: usize) {
        self.served.store(store, Ordering::Release);
    }

    /// Whether what is fetched into a store is served to others.
    pub(crate) fn serves(&self, store: usize) -> bool {
        store != 0 && self.served.load(Ordering::Acquire) == store
    }

    /// The state of a blob, if it is being given or fetched.
    pub(crate) fn find(&self, store: usize, id: BlobId) -> Option<Arc<Swarm>> {
        lock(&self.blobs).get(&(store, id)).and_then(Weak::upgrade)
    }

    /// Returns the state of a blob, which is dropped with the last of its users.
    pub(crate) fn enter(&self, store: usize, id: BlobId) -> Arc<Swarm> {
        let mut blobs = lock(&self.blobs);
        if let Some(swarm) = blobs.get(&(store, id)).and_then(Weak::upgrade) {
            return swarm;
        }
        blobs.retain(|_, swarm| swarm.strong_count() > 0);
        let swarm = Arc::new(Swarm::default());
        blobs.insert((store, id), Arc::downgrade(&swarm));
        swarm
    }
}

/// The state of one blob: its transfer, and the requesters that watch it.
pub(crate) struct Swarm {
    state: Mutex<State>,
    /// Changed whenever there is a report to send.
    changes: watch::Sender<()>,
    begun: Instant,
}

impl Default for Swarm {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            changes: watch::Sender::default(),
            begun: Instant::now(),
        }
    }
}

#[derive(Default)]
struct State {
    /// The transfer of this node.
    fetching: Option<Part>,
    /// Chunks in the order in which they were verified.
    verified: Vec<u32>,
    /// Number of the transfer that `verified` belongs to.
    transfer: u64,
    /// Requesters that watch, by the number of their stream.
    watching: BTreeMap<u64, Watcher>,
    streams: u64,
    spread: Spread,
    /// Where requesters that serve are reported to the transfer of this node.
    found: Option<mpsc::Sender<PeerId>>,
}

/// A blob that is being fetched.
#[derive(Clone)]
pub(crate) struct Part {
    /// Dropped with the transfer, so that another one can continue it.
    pub(crate) blob: Weak<dyn PartialBlob>,
    pub(crate) list: ChunkList,
    /// Size of the blob in bytes, as a provider claims it.
    pub(crate) size_bytes: u64,
}

impl Part {
    /// Returns whether this node has a chunk.
    pub(crate) fn has(&self, index: u64) -> bool {
        let blob = self.blob.upgrade();
        usize::try_from(index).is_ok_and(|index| blob.is_some_and(|blob| blob.has(index)))
    }
}

struct Watcher {
    peer: PeerId,
    context_id: ContextId,
    serves: bool,
}

impl Swarm {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn changed(&self) {
        self.changes.send_replace(());
    }

    /// The blob while it is being fetched.
    pub(crate) fn part(&self) -> Option<Part> {
        self.state().fetching.clone()
    }

    /// Begins to offer what a transfer of this node verifies.
    pub(crate) fn fetch(
        self: &Arc<Self>,
        blob: &Arc<dyn PartialBlob>,
        size_bytes: u64,
    ) -> Fetching {
        let (found, receiver) = mpsc::channel(FOUND_QUEUE);
        let mut state = self.state();
        // At most MAX_BLOB_CHUNKS.
        let list = blob.list().clone();
        let here = (0..list.len()).filter(|index| blob.has(*index));
        state.verified = here.map(|index| index as u32).collect();
        state.transfer += 1;
        state.fetching = Some(Part {
            blob: Arc::downgrade(blob),
            list,
            size_bytes,
        });
        for watcher in state.watching.values().filter(|watcher| watcher.serves) {
            let _ = found.try_send(watcher.peer);
        }
        state.found = Some(found);
        let transfer = state.transfer;
        drop(state);
        self.changed();
        Fetching {
            swarm: Arc::clone(self),
            transfer,
            found: receiver,
        }
    }

    /// Starts to report to a requester which chunks this node has. `whole` is the number of chunks
    /// of a blob that is complete.
    pub(crate) fn watch(
        self: &Arc<Self>,
        peer: PeerId,
        context_id: ContextId,
        serves: bool,
        whole: Option<u64>,
    ) -> Watching {
        let mut state = self.state();
        state.streams += 1;
        let stream = state.streams;
        let watcher = Watcher {
            peer,
            context_id,
            serves,
        };
        state.watching.insert(stream, watcher);
        if serves && let Some(found) = &state.found {
            // A transfer that has enough of them does without.
            let _ = found.try_send(peer);
        }
        drop(state);
        let changes = self.changes.subscribe();
        self.changed();
        Watching {
            swarm: Arc::clone(self),
            stream,
            peer,
            context_id,
            serves,
            changes,
            whole,
            transfer: 0,
            reported_chunks: 0,
            reported_peers: BTreeSet::new(),
            first: true,
            put_off: PutOff::default(),
        }
    }
}

/// A transfer of this node that offers what it has verified, for as long as this is held.
pub(crate) struct Fetching {
    swarm: Arc<Swarm>,
    transfer: u64,
    found: mpsc::Receiver<PeerId>,
}

impl Fetching {
    /// Records that a chunk was verified.
    pub(crate) fn on_verified(&self, index: u64) {
        if let Ok(index) = u32::try_from(index) {
            self.swarm.state().verified.push(index);
            self.swarm.changed();
        }
    }

    /// The next peer that fetches the same blob from here. Pending where there is none.
    pub(crate) async fn next_peer(&mut self) -> PeerId {
        match self.found.recv().await {
            Some(peer) => peer,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        let mut state = self.swarm.state();
        if state.transfer == self.transfer {
            (state.fetching, state.found) = (None, None);
        }
    }
}

/// A requester that receives reports on one stream.
pub(crate) struct Watching {
    swarm: Arc<Swarm>,
    stream: u64,
    peer: PeerId,
    context_id: ContextId,
    serves: bool,
    changes: watch::Receiver<()>,
    /// Chunks of a complete blob.
    whole: Option<u64>,
    /// The transfer that `reported_chunks` counts the verified chunks of.
    transfer: u64,
    reported_chunks: usize,
    reported_peers: BTreeSet<PeerId>,
    first: bool,
    put_off: PutOff,
}

impl Watching {
    /// Waits until something may have changed.
    pub(crate) async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            // Not before the blob that this holds is dropped.
            std::future::pending().await
        }
    }

    /// The next reports for the requester.
    pub(crate) fn next_news(&mut self) -> Option<Response> {
        self.changes.mark_unchanged();
        if let Some(ranges) = self.next_chunks() {
            return Some(Response::Have { ranges });
        }
        let state = self.swarm.state();
        let others = state
            .watching
            .values()
            .filter(|one| one.serves && one.context_id == self.context_id && one.peer != self.peer);
        let mut peers = Vec::new();
        for one in others {
            if peers.len() == MAX_NAMED_PEERS || self.reported_peers.len() == MAX_REPORTED {
                break;
            }
            if self.reported_peers.insert(one.peer) {
                peers.push(one.peer.to_bytes());
            }
        }
        (!peers.is_empty()).then_some(Response::Peers { peers })
    }

    fn next_chunks(&mut self) -> Option<Vec<Range<u64>>> {
        let first = std::mem::replace(&mut self.first, false);
        if let Some(chunks) = self.whole {
            let all = std::iter::once(0..chunks).filter(|all| !all.is_empty());
            return first.then(|| all.collect());
        }
        let state = self.swarm.state();
        if state.transfer != self.transfer {
            (self.transfer, self.reported_chunks) = (state.transfer, 0);
        }
        // As many as fit into one message, whatever their order.
        let new = state
            .verified
            .get(self.reported_chunks..)
            .unwrap_or_default();
        let mut new: Vec<u32> = match new.len() {
            0..=MAX_HAVE_RANGES => new.to_vec(),
            // Those of an earlier try are in order, and few ranges.
            _ => {
                let mut breaks = 0;
                let fit = new.windows(2).take_while(|pair| {
                    breaks += usize::from(pair[0].wrapping_add(1) != pair[1]);
                    breaks < MAX_HAVE_RANGES
                });
                new[..=fit.count()].to_vec()
            }
        };
        drop(state);
        self.reported_chunks += new.len();
        if new.is_empty() {
            return first.then(Vec::new);
        }
        new.sort_unstable();
        new.dedup();
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for index in new.into_iter().map(u64::from) {
            match ranges.last_mut() {
                Some(last) if last.end == index => last.end += 1,
                _ => ranges.push(index..index + 1),
            }
        }
        Some(ranges)
    }

    /// Decides which of some chunks are sent now. Yields for each how long it is put off.
    pub(crate) fn give(
        &mut self,
        indices: &[u64],
        chunks: u64,
    ) -> Vec<Option<std::time::Duration>> {
        let now = self.swarm.begun.elapsed();
        let (peer, context_id, serves) = (self.peer, self.context_id, self.serves);
        let mut state = self.swarm.state();
        let State {
            spread, watching, ..
        } = &mut *state;
        let serving: BTreeSet<PeerId> = (watching.values())
            .filter(|one| one.serves && one.context_id == context_id)
            .map(|one| one.peer)
            .collect();
        let mut decide = |index: u64| {
            // A requester that serves nothing learns of no other requesters.
            let put_off = match serves {
                true => spread.put_off(
                    index,
                    &peer,
                    &mut self.put_off,
                    chunks,
                    |other| serving.contains(other),
                    now,
                ),
                false => None,
            };
            if put_off.is_none() && serves {
                spread.on_given(index, peer, now);
            }
            put_off
        };
        indices.iter().map(|index| decide(*index)).collect()
    }

    /// Yields what notes the chunks that the requester reports as verified.
    pub(crate) fn reports(&self) -> Reports {
        Reports {
            swarm: Arc::clone(&self.swarm),
            peer: self.peer,
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.swarm.state().watching.remove(&self.stream);
    }
}

/// Takes the reports of one requester.
pub(crate) struct Reports {
    swarm: Arc<Swarm>,
    peer: PeerId,
}

impl Reports {
    pub(crate) fn on_verified(&self, index: u64) {
        let now = self.swarm.begun.elapsed();
        self.swarm
            .state()
            .spread
            .on_verified(index, &self.peer, now);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
