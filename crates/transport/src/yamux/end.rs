//! The end of a connection, as its streams hear of it.
//!
//! The `yamux` crate wakes no stream that waits for room when the connection is closed from this
//! side; a write that the peer's window holds up would wait for ever.

use std::{
    io,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use futures::task::AtomicWaker;

/// Streams known before those that are gone are looked for, at least.
const SWEEP_FROM: usize = 64;

/// The connection's end of it. Dropping it ends the connection for its streams.
#[derive(Debug, Default)]
pub(super) struct End {
    ended: Arc<AtomicBool>,
    streams: Vec<Weak<Waiting>>,
    /// How many streams are known before those that are gone are forgotten: twice as many as
    /// there were then, so that the work stays in proportion.
    sweep_at: usize,
}

impl End {
    /// The part of a new stream.
    pub(super) fn listen(&mut self) -> Listener {
        if self.streams.len() >= self.sweep_at.max(SWEEP_FROM) {
            self.streams.retain(|stream| stream.strong_count() > 0);
            self.sweep_at = 2 * self.streams.len();
        }
        let waiting = Arc::new(Waiting::default());
        self.streams.push(Arc::downgrade(&waiting));
        Listener {
            ended: Arc::clone(&self.ended),
            waiting,
        }
    }

    /// Tells every stream.
    pub(super) fn come(&mut self) {
        self.ended.store(true, Ordering::Release);
        for stream in self.streams.drain(..).filter_map(|stream| stream.upgrade()) {
            stream.reader.wake();
            stream.writer.wake();
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.come();
    }
}

/// Who waits on one stream.
#[derive(Debug, Default)]
struct Waiting {
    reader: AtomicWaker,
    writer: AtomicWaker,
}

/// One stream's end of it.
#[derive(Debug)]
pub(super) struct Listener {
    ended: Arc<AtomicBool>,
    waiting: Arc<Waiting>,
}

impl Listener {
    /// What a read came to, which waits no longer than the connection lasts. After its end
    /// nothing follows what has arrived.
    pub(super) fn read<T>(
        &self,
        read: Poll<io::Result<T>>,
        cx: &Context<'_>,
    ) -> Poll<io::Result<T>> {
        self.unless_ended(read, &self.waiting.reader, cx)
    }

    /// What a write came to, which waits no longer than the connection lasts.
    pub(super) fn write<T>(
        &self,
        write: Poll<io::Result<T>>,
        cx: &Context<'_>,
    ) -> Poll<io::Result<T>> {
        self.unless_ended(write, &self.waiting.writer, cx)
    }

    fn unless_ended<T>(
        &self,
        poll: Poll<io::Result<T>>,
        waker: &AtomicWaker,
        cx: &Context<'_>,
    ) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            return poll;
        }
        // Registered before the look, so that an end between the two is not missed.
        waker.register(cx.waker());
        if self.ended.load(Ordering::Acquire) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Poll::Pending
    }
}
