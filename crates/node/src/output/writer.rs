//! A bounded queue of lines and the thread that writes them.
//!
//! A pipe whose reader is slow or stopped blocks the process that writes to it. Only the thread of
//! a [`LineWriter`] writes, so only that thread can block: the callers append to a queue.

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::watch;

/// Bytes that wait to be written. One message of a topic is at most 1 MiB, or 2 MiB in
/// hexadecimal, so several of them fit. A guess: what a node prints in about a minute.
const QUEUE_BYTES: usize = 8 << 20;

/// Bytes that are joined into one system call.
const WRITE_BYTES: usize = 64 << 10;

/// The line that reports how many lines were dropped.
type Notice = fn(dropped: u64) -> Vec<u8>;

/// A handle to the queue and its thread. Clones share both.
#[derive(Clone, Debug)]
pub(crate) struct LineWriter {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    /// Notified after each change of the queue.
    changed: Condvar,
    /// `true` once the reader of the output has closed its end.
    closed: watch::Sender<bool>,
    notice: Notice,
    limit: usize,
}

#[derive(Debug, Default)]
struct Queue {
    lines: VecDeque<Vec<u8>>,
    /// Length of `lines` and of what the thread is writing, in bytes.
    bytes: usize,
    /// Lines dropped since the last notice.
    dropped: u64,
    /// Tasks that wait for room.
    waiting: Vec<Waker>,
    /// Callers no longer wait for room.
    released: bool,
    /// A line whose caller would have waited was dropped, because the queue was released.
    incomplete: bool,
    /// Nothing is written any more, for this reason.
    failure: Option<io::ErrorKind>,
}

impl Queue {
    /// A line that is longer than the queue is accepted by an empty queue.
    fn has_room(&self, len: usize, limit: usize) -> bool {
        self.bytes == 0 || self.bytes + len <= limit
    }

    fn append(&mut self, line: Vec<u8>) {
        self.bytes += line.len();
        self.lines.push_back(line);
    }
}

impl LineWriter {
    /// Starts the thread that writes to `sink`. `notice` makes the line that says how many lines
    /// were dropped.
    pub(crate) fn start(sink: impl Write + Send + 'static, notice: Notice) -> io::Result<Self> {
        Self::with_limit(sink, notice, QUEUE_BYTES)
    }

    fn with_limit(
        sink: impl Write + Send + 'static,
        notice: Notice,
        limit: usize,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            changed: Condvar::new(),
            closed: watch::Sender::new(false),
            notice,
            limit,
        });
        let writing = shared.clone();
        thread::Builder::new()
            .name("output".to_owned())
            .spawn(move || writing.write_to(sink))?;
        Ok(Self { shared })
    }

    /// Appends a line with its line feed, or drops and counts it if the queue is full.
    pub(crate) fn push_or_drop(&self, line: Vec<u8>) {
        let mut queue = self.shared.lock();
        if queue.failure.is_some() {
            return;
        }
        if !queue.has_room(line.len(), self.shared.limit) {
            queue.dropped += 1;
            return;
        }
        if queue.dropped > 0 {
            let dropped = std::mem::take(&mut queue.dropped);
            queue.append((self.shared.notice)(dropped));
        }
        queue.append(line);
        self.shared.changed.notify_all();
    }

    /// Appends a line with its line feed. Blocks while the queue is full, until
    /// [`release`](Self::release) or until the output fails, after which the line is dropped.
    ///
    /// # Errors
    ///
    /// If the line was dropped: the failure of the output, or [`io::ErrorKind::Interrupted`] after
    /// [`release`](Self::release), which [`flush`](Self::flush) then returns too.
    pub(crate) fn push_or_wait(&self, line: Vec<u8>) -> io::Result<()> {
        let mut queue = self.shared.lock();
        while queue.failure.is_none()
            && !queue.released
            && !queue.has_room(line.len(), self.shared.limit)
        {
            queue = self.shared.wait(queue);
        }
        match queue.failure {
            Some(kind) => Err(kind.into()),
            None if queue.has_room(line.len(), self.shared.limit) => {
                queue.append(line);
                self.shared.changed.notify_all();
                Ok(())
            }
            None => {
                queue.incomplete = true;
                Err(io::ErrorKind::Interrupted.into())
            }
        }
    }

    /// Appends bytes, as soon as the queue has room for them. Pending for ever if the reader has closed
    /// its end, and while it takes nothing, also after [`release`](Self::release): what ends the
    /// command then is the closed end or the signal, and not this write.
    ///
    /// # Errors
    ///
    /// Another failure of the output.
    pub(crate) fn poll_push(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<()>> {
        let mut queue = self.shared.lock();
        match queue.failure {
            Some(io::ErrorKind::BrokenPipe) => return Poll::Pending,
            Some(kind) => return Poll::Ready(Err(kind.into())),
            None if queue.has_room(bytes.len(), self.shared.limit) => {
                queue.append(bytes.to_vec());
                self.shared.changed.notify_all();
            }
            None => {
                let waker = cx.waker();
                if !queue.waiting.iter().any(|other| other.will_wake(waker)) {
                    queue.waiting.push(waker.clone());
                }
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Ends all waits for room, now and later.
    pub(crate) fn release(&self) {
        self.shared.change(|queue| queue.released = true);
    }

    /// Waits until everything is written, at most for `limit`.
    ///
    /// # Errors
    ///
    /// The failure of the output, [`io::ErrorKind::TimedOut`], or [`io::ErrorKind::Interrupted`] if
    /// [`push_or_wait`](Self::push_or_wait) has dropped a line because of a release. A reader that
    /// has closed its end is not a failure.
    pub(crate) fn flush(&self, limit: Duration) -> io::Result<()> {
        let deadline = Instant::now() + limit;
        let mut queue = self.shared.lock();
        loop {
            match queue.failure {
                Some(io::ErrorKind::BrokenPipe) => return Ok(()),
                Some(kind) => return Err(kind.into()),
                None if queue.bytes == 0 && queue.incomplete => {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                None if queue.bytes == 0 => return Ok(()),
                None => {}
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let waited = self.shared.changed.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Records that the reader has closed its end.
    pub(crate) fn close(&self) {
        self.shared.fail(io::ErrorKind::BrokenPipe);
    }

    /// Waits until the reader has closed its end. Cancel safe.
    pub(crate) async fn closed(&self) {
        let mut closed = self.shared.closed.subscribe();
        // The sender lives as long as `self`, so this cannot fail.
        let _ = closed.wait_for(|closed| *closed).await;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        let waited = self.changed.wait(queue);
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the queue so that waits may end, and wakes all who wait.
    fn change(&self, change: impl FnOnce(&mut Queue)) {
        let mut queue = self.lock();
        change(&mut queue);
        let waiting = std::mem::take(&mut queue.waiting);
        drop(queue);
        self.changed.notify_all();
        waiting.into_iter().for_each(Waker::wake);
    }

    fn write_to(&self, mut sink: impl Write) {
        let mut batch = Vec::new();
        loop {
            batch.clear();
            self.take(&mut batch);
            let written = sink.write_all(&batch).and_then(|()| sink.flush());
            if let Err(error) = written {
                return self.fail(error.kind());
            }
            // The room is given back only now: bytes that block in the system call still count.
            self.change(|queue| queue.bytes -= batch.len());
        }
    }

    /// Waits for lines and moves as many of them as one write takes into `batch`.
    fn take(&self, batch: &mut Vec<u8>) {
        let mut queue = self.lock();
        while queue.lines.is_empty() {
            queue = self.wait(queue);
        }
        while let Some(line) = queue.lines.front() {
            if !batch.is_empty() && batch.len() + line.len() > WRITE_BYTES {
                break;
            }
            batch.extend_from_slice(line);
            queue.lines.pop_front();
        }
    }

    fn fail(&self, kind: io::ErrorKind) {
        self.change(|queue| {
            queue.failure.get_or_insert(kind);
            queue.lines.clear();
        });
        if kind == io::ErrorKind::BrokenPipe {
            self.closed.send_replace(true);
        }
    }
}

#[cfg(test)]
mod tests;
