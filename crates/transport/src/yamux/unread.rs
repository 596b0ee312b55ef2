//! Bounds the data of a connection that its streams have received and not read.
//!
//! Yamux grants each stream a window of 256 KiB before anything is known of it, and more while it is
//! read. A peer can fill the windows of all streams that it may open, and no layer above sees these
//! bytes before it reads them: a stream may wait for its protocol to be negotiated, or for its reader.
//! They are therefore counted here, as [`Resource::UnreadBytes`] of the peer, its origin and the node.
//!
//! At a limit, the connection is not read for a second, which stops the peer by flow control. If its
//! streams are not read in this time, the stream that holds most is reset.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use calimero_network_primitives::{
    limits::KIB,
    resources::{Holder, Permit, Refused, Resource},
};

use super::frames::Header;

/// Unread bytes of a connection that are not counted, so that short messages cost no accounting: 64
/// KiB. The connections of one origin, 256 by default, then hold 16 MiB that are not counted.
const UNCOUNTED_BYTES: usize = 64 * KIB;

/// The step in which more bytes are counted, 64 KiB, the largest body of a frame here.
const STEP_BYTES: usize = 64 * KIB;

/// Memory of a received data frame besides its bytes, at most: its entry in the queue of the `yamux`
/// crate, 32 bytes in a buffer that is at most half empty, the overhead of one allocation, 16 bytes,
/// and its entry in the queue of this module, 4 bytes in a buffer of the same kind.
const FRAME_BYTES: usize = 88;

/// The stream of the `yamux` crate, until this module resets it.
pub(super) type Inner = Arc<Mutex<Option<yamux::Stream>>>;

/// The unread data of one connection.
#[derive(Debug)]
pub(super) struct Unread {
    holder: Holder,
    state: Mutex<State>,
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
}

impl Unread {
    pub(super) fn new(holder: Holder) -> Self {
        Self {
            holder,
            state: Mutex::default(),
        }
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
        let body_bytes = header.body_bytes();
        // The `yamux` crate drops the data of streams that do not exist.
        if body_bytes == 0 || !state.streams.contains_key(&header.stream()) {
            return Ok(());
        }
        let held = body_bytes as usize + FRAME_BYTES;
        state.grow(&self.holder, held)?;
        if let Some(received) = state.streams.get_mut(&header.stream()) {
            received.frames.push_back(body_bytes);
            received.held += held;
        }
        Ok(())
    }

    /// The reader of a stream has taken this number of bytes.
    pub(super) fn read(&self, id: u32, mut bytes: usize) {
        let mut state = self.lock();
        let Some(received) = state.streams.get_mut(&id) else {
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

    /// A stream was dropped, with what it has not read.
    pub(super) fn closed(&self, id: u32) {
        let mut state = self.lock();
        if let Some(received) = state.streams.remove(&id) {
            state.shrink(received.held);
        }
    }

    /// Resets the stream that holds most. Returns `false` if no stream holds anything.
    pub(super) fn reset_largest(&self) -> bool {
        let inner = {
            let mut state = self.lock();
            let largest = state
                .streams
                .iter()
                .filter(|(_, received)| received.held > 0 && received.inner.is_some())
                .max_by_key(|(_, received)| received.held)
                .map(|(id, _)| *id);
            let Some(received) = largest.and_then(|id| state.streams.remove(&id)) else {
                return false;
            };
            state.shrink(received.held);
            received.inner
        };
        // Outside of the lock of this module: readers lock the stream first.
        let stream = inner.and_then(|inner| lock(&inner).take());
        if let Some(stream) = &stream {
            tracing::debug!(%stream, peer = ?self.holder.peer(), "stream reset: too much unread data");
        }
        // The `yamux` crate sends a reset and frees the data after this, and wakes the reader.
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
}

impl State {
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

/// The part of `held` bytes that is counted, in whole steps.
fn counted(held: usize) -> u64 {
    held.saturating_sub(UNCOUNTED_BYTES)
        .next_multiple_of(STEP_BYTES) as u64
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while it holds one of these locks, so a poisoned lock has consistent data.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
