//! Bounds the data of connections that their streams have received and not read.
//!
//! Yamux grants each stream a window of 256 KiB before anything is known of it, and more while it is
//! read. A peer can fill the windows of all streams that it may open, and no layer above sees these
//! bytes before it reads them: a stream may wait for its protocol to be negotiated, or for its reader.
//! They are therefore counted here, as [`Resource::UnreadBytes`] of the peer, its origin and the node.
//!
//! At a limit, the connection is not read for a second, which stops the peer by flow control. If there
//! is no room by then, the stream that holds most is reset, of the connection that holds most in the
//! scope of the limit.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use calimero_network_primitives::{
    limits::KIB,
    resources::{Holder, Permit, Refused, Resource, Scope},
};

use super::frames::Header;

/// Largest body of a frame that is passed to the `yamux` crate, in bytes.
///
/// The crate allocates and zeroes each body when its header claims a length.
/// Short bodies bound the memory by the received bytes and stay in a
/// second-level cache until the reader copies them. Sizes from 32 to 256 KiB
/// had the same throughput in measurements.
pub(super) const SHOWN_FRAME_BYTES: usize = 64 * KIB;

/// Unread bytes of a connection that are not counted, 128 KiB, so that a reader that keeps up costs no
/// accounting. The connections of one origin, 256 by default, then hold 32 MiB that are not counted.
const UNCOUNTED_BYTES: usize = 128 * KIB;

// A connection that holds nothing can receive a frame whatever others hold.
const _: () = assert!(UNCOUNTED_BYTES >= SHOWN_FRAME_BYTES + FRAME_BYTES);

/// The step in which more bytes are counted, 64 KiB.
const STEP_BYTES: usize = 64 * KIB;

/// Memory of a received data frame besides its bytes, at most: its entry in the queue of the `yamux`
/// crate, 32 bytes in a buffer that is at most half empty, the overhead of one allocation, 16 bytes,
/// and its entry in the queue of this module, 4 bytes in a buffer of the same kind.
const FRAME_BYTES: usize = 88;

/// Number of connections from which on those that have ended are removed from the list of all.
const SWEEP_FROM: usize = 64;

/// The stream of the `yamux` crate, until this module resets it.
pub(super) type Inner = Arc<Mutex<Option<yamux::Stream>>>;

/// The unread data of all connections.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    all: Mutex<(Vec<Weak<Unread>>, usize)>,
}

impl Connections {
    fn add(&self, unread: &Arc<Unread>) {
        let mut all = lock(&self.all);
        let (connections, sweep_at) = &mut *all;
        if connections.len() >= SWEEP_FROM.max(*sweep_at) {
            connections.retain(|one| one.strong_count() > 0);
            *sweep_at = 2 * connections.len();
        }
        connections.push(Arc::downgrade(unread));
    }

    /// The connection that holds most in a scope, of those whose peers are not protected unless
    /// `protected` is set: strangers take nothing from protected peers.
    pub(super) fn largest(&self, scope: Scope, protected: bool) -> Option<Arc<Unread>> {
        let connections: Vec<_> = lock(&self.all).0.iter().filter_map(Weak::upgrade).collect();
        connections
            .into_iter()
            .filter(|one| protected || !one.holder.is_protected())
            .filter(|one| match scope {
                Scope::Peer(peer) => one.holder.peer() == Some(peer),
                Scope::Origin(origin) => one.holder.origin() == Some(origin),
                _ => true,
            })
            .max_by_key(|one| one.can_free())
    }
}

/// The unread data of one connection.
#[derive(Debug)]
pub(super) struct Unread {
    holder: Holder,
    connections: Arc<Connections>,
    state: Mutex<State>,
    /// `true` while there are streams whose handles were dropped.
    has_dropped: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    streams: HashMap<u32, Received>,
    /// Memory that all of them hold, in bytes.
    held: usize,
    /// What is counted of it.
    permit: Option<Permit>,
}

/// What one stream has received and not read.
#[derive(Debug, Default)]
struct Received {
    /// Unread bytes of each frame, oldest first.
    frames: VecDeque<u32>,
    /// Memory of them in bytes.
    held: usize,
    inner: Option<Inner>,
    /// The handle of the stream was dropped. The `yamux` crate frees its data later, and adds to it
    /// until then.
    is_dropped: bool,
}

impl Received {
    fn is_of(&self, inner: &Inner) -> bool {
        self.inner
            .as_ref()
            .is_some_and(|own| Arc::ptr_eq(own, inner))
    }

    const fn can_be_reset(&self) -> bool {
        self.held > 0 && self.inner.is_some() && !self.is_dropped
    }
}

impl Unread {
    pub(super) fn new(holder: Holder, connections: &Arc<Connections>) -> Arc<Self> {
        let unread = Arc::new(Self {
            holder,
            connections: Arc::clone(connections),
            state: Mutex::default(),
            has_dropped: AtomicBool::new(false),
        });
        connections.add(&unread);
        unread
    }

    /// A stream was accepted or opened.
    pub(super) fn opened(&self, id: u32, inner: &Inner) {
        let mut state = self.lock();
        state.streams.entry(id).or_default().inner = Some(Arc::clone(inner));
    }

    /// A frame with this header is about to be received.
    ///
    /// # Errors
    ///
    /// [`Refused`] if its bytes exceed a limit. Nothing has changed.
    pub(super) fn receive(&self, header: &Header) -> Result<(), Refused> {
        let mut state = self.lock();
        if header.opens_stream() {
            state.streams.entry(header.stream()).or_default();
        }
        if !state.counts(header) {
            return Ok(());
        }
        let held = held_by(header);
        state.grow(&self.holder, held)?;
        if let Some(received) = state.streams.get_mut(&header.stream()) {
            received.frames.push_back(header.data_bytes());
            received.held += held;
        }
        Ok(())
    }

    /// Returns `true` if [`receive`](Self::receive) would be granted now. Counts no refusal.
    pub(super) fn has_room(&self, header: &Header) -> bool {
        let state = self.lock();
        if !state.counts(header) {
            return true;
        }
        let counted = counted(state.held + held_by(header));
        let more = counted.saturating_sub(state.permit.as_ref().map_or(0, Permit::amount));
        more == 0 || self.holder.has_left(Resource::UnreadBytes, more)
    }

    /// The reader of a stream has taken this number of bytes.
    pub(super) fn read(&self, id: u32, inner: &Inner, mut bytes: usize) {
        let mut state = self.lock();
        let received = state.streams.get_mut(&id);
        let Some(received) = received.filter(|received| received.is_of(inner)) else {
            return;
        };
        let before = received.held;
        while bytes > 0
            && let Some(first) = received.frames.front_mut()
        {
            let taken = bytes.min(*first as usize);
            bytes -= taken;
            *first -= taken as u32;
            received.held -= taken;
            if *first == 0 {
                received.frames.pop_front();
                received.held -= FRAME_BYTES;
            }
        }
        let freed = before - received.held;
        state.shrink(freed);
    }

    /// The handle of a stream is being dropped, with what it has not read.
    pub(super) fn dropped(&self, id: u32, inner: &Inner) {
        let mut state = self.lock();
        let received = state.streams.get_mut(&id);
        if let Some(received) = received.filter(|received| received.is_of(inner)) {
            received.is_dropped = true;
            // The handle has the stream alone, so that it ends with it.
            received.inner = None;
            self.has_dropped.store(true, Ordering::Release);
        }
    }

    /// A stream that was not accepted was dropped.
    pub(super) fn refused(&self, id: u32) {
        let mut state = self.lock();
        if let Some(received) = state.streams.get_mut(&id) {
            received.is_dropped = true;
            self.has_dropped.store(true, Ordering::Release);
        }
    }

    /// The `yamux` crate has freed the data of all streams whose handles were dropped.
    pub(super) fn freed(&self) {
        if !self.has_dropped.swap(false, Ordering::Acquire) {
            return;
        }
        let mut state = self.lock();
        let dropped = state.streams.extract_if(|_, received| received.is_dropped);
        let freed = dropped.map(|(_, received)| received.held).sum();
        state.shrink(freed);
    }

    /// Makes room at a limit: resets the stream that holds most, of the connection that holds most in
    /// the scope of the limit. Returns `false` if this connection is in the way itself, and none of its
    /// streams can be reset.
    pub(super) fn relieve(&self, scope: Scope) -> bool {
        let largest = self.connections.largest(scope, self.holder.is_protected());
        largest.is_some_and(|largest| largest.reset_largest()) || self.reset_largest()
    }

    /// Memory that resets of streams would free, in bytes.
    fn can_free(&self) -> usize {
        let state = self.lock();
        let streams = state.streams.values();
        streams
            .filter(|received| received.can_be_reset())
            .map(|received| received.held)
            .sum()
    }

    fn reset_largest(&self) -> bool {
        let inner = {
            let mut state = self.lock();
            let streams = state.streams.values_mut();
            let streams = streams.filter(|received| received.can_be_reset());
            let Some(largest) = streams.max_by_key(|received| received.held) else {
                return false;
            };
            largest.is_dropped = true;
            self.has_dropped.store(true, Ordering::Release);
            largest.inner.take()
        };
        // Outside of the lock of this module: readers lock the stream first.
        let stream = inner.and_then(|inner| lock(&inner).take());
        if let Some(stream) = &stream {
            tracing::debug!(%stream, peer = ?self.holder.peer(), "stream reset: too much unread data");
        }
        // Wakes the task of the connection. The `yamux` crate then sends a reset, frees the data, and
        // wakes the reader.
        drop(stream);
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.lock().held
    }

    #[cfg(test)]
    pub(super) fn streams(&self) -> usize {
        self.lock().streams.len()
    }
}

impl State {
    /// Returns `true` if the frame adds to the data of a stream. The `yamux` crate drops the data of
    /// streams that it does not know.
    fn counts(&self, header: &Header) -> bool {
        header.data_bytes() > 0 && self.streams.contains_key(&header.stream())
    }

    fn grow(&mut self, holder: &Holder, more: usize) -> Result<(), Refused> {
        let counted = counted(self.held + more);
        match &mut self.permit {
            Some(permit) if permit.amount() >= counted => {}
            Some(permit) => permit.resize(counted)?,
            None if counted == 0 => {}
            None => self.permit = Some(holder.take(Resource::UnreadBytes, counted)?),
        }
        self.held += more;
        Ok(())
    }

    fn shrink(&mut self, freed: usize) {
        self.held -= freed;
        let counted = counted(self.held);
        if counted == 0 {
            self.permit = None;
        } else if let Some(permit) = &mut self.permit
            && counted + (STEP_BYTES as u64) < permit.amount()
        {
            // A smaller amount is always granted.
            let _ = permit.resize(counted);
        }
    }
}

/// Memory of a data frame in bytes.
fn held_by(header: &Header) -> usize {
    header.data_bytes() as usize + FRAME_BYTES
}

/// The part of `held` bytes that is counted, in whole steps.
fn counted(held: usize) -> u64 {
    held.saturating_sub(UNCOUNTED_BYTES)
        .next_multiple_of(STEP_BYTES) as u64
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while it holds one of these locks, so a poisoned lock has consistent data.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
