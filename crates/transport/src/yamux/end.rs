//! Notifies the streams of a connection that it has ended.
//!
//! When this side closes the connection, the `yamux` crate does not wake
//! streams that wait for window space. Without a notification, such a write
//! would wait forever.

use std::{
    io,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use futures::task::AtomicWaker;

/// Smallest number of registered streams at which dropped ones are removed.
const SWEEP_FROM: usize = 64;

/// The connection's side of the notification. Dropping it ends the connection
/// for its streams.
#[derive(Debug, Default)]
pub(super) struct End {
    ended: Arc<AtomicBool>,
    streams: Vec<Weak<Waiting>>,
    /// Number of registered streams at which dropped ones are removed: twice
    /// the number that remained last time, so that the cost per stream is
    /// constant.
    sweep_at: usize,
}

impl End {
    /// Registers a new stream.
    pub(super) fn register(&mut self) -> Listener {
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

    /// Marks the connection as ended and wakes all streams.
    pub(super) fn notify(&mut self) {
        self.ended.store(true, Ordering::Release);
        for stream in self.streams.drain(..).filter_map(|stream| stream.upgrade()) {
            stream.reader.wake();
            stream.writer.wake();
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.notify();
    }
}

/// Wakers of the tasks that wait on one stream.
#[derive(Debug, Default)]
struct Waiting {
    reader: AtomicWaker,
    writer: AtomicWaker,
}

/// The stream's side of the notification.
#[derive(Debug)]
pub(super) struct Listener {
    ended: Arc<AtomicBool>,
    waiting: Arc<Waiting>,
}

impl Listener {
    /// Converts the result of a read. A pending read fails when the connection
    /// has ended; received data is returned first.
    pub(super) fn read<T>(
        &self,
        read: Poll<io::Result<T>>,
        cx: &Context<'_>,
    ) -> Poll<io::Result<T>> {
        self.unless_ended(read, &self.waiting.reader, cx)
    }

    /// Converts the result of a write. A pending write fails when the
    /// connection has ended.
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
        // Registered before the check, so that an end between the two is not
        // missed.
        waker.register(cx.waker());
        if self.ended.load(Ordering::Acquire) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests;
