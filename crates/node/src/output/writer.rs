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

use rustix::io::Errno;
use tokio::sync::watch;

/// Bytes that wait to be written. One message of a topic is at most 1 MiB, or 2 MiB in
/// hexadecimal, so several of them fit. A guess: what a node prints in about a minute.
const QUEUE_BYTES: usize = 8 << 20;

/// Bytes that are joined into one system call.
const WRITE_BYTES: usize = 64 << 10;

/// Pause before the next write after one that failed. A full disk stays full for seconds at least.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// What a failed write does, unless no later one can succeed: a closed pipe and a closed descriptor
/// are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnFailure {
    /// It ends the output, and [`flush`](LineWriter::flush) returns the failure.
    End,
    /// Its lines are lost. They are counted, and reported once a write succeeds.
    Retry,
}

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
    on_failure: OnFailure,
    pause: Duration,
}

#[derive(Debug, Default)]
struct Queue {
    lines: VecDeque<Vec<u8>>,
    /// Length of `lines` and of what the thread is writing, in bytes.
    bytes: usize,
    /// Lines dropped since the last notice.
    dropped: u64,
    /// Lines lost in failed writes since the last notice.
    lost: u64,
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
    pub(super) fn start(
        sink: impl Write + Send + 'static,
        notice: Notice,
        on_failure: OnFailure,
    ) -> io::Result<Self> {
        Self::with_limits(sink, notice, on_failure, QUEUE_BYTES, RETRY_PAUSE)
    }

    fn with_limits(
        sink: impl Write + Send + 'static,
        notice: Notice,
        on_failure: OnFailure,
        limit: usize,
        pause: Duration,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            changed: Condvar::new(),
            closed: watch::Sender::new(false),
            notice,
            limit,
            on_failure,
            pause,
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
        let mut batch = Batch::default();
        // No failed write has left a part of a line.
        let mut at_start = true;
        loop {
            self.take(&mut batch, at_start);
            let (written, result) = write(&mut sink, &batch.bytes);
            let failed = match result {
                Err(error) if self.is_final(&error) => return self.fail(error.kind()),
                result => result.is_err(),
            };
            at_start = match written.checked_sub(1) {
                // Content of a blob that is complete need not end a line.
                Some(last) => !failed || batch.bytes[last] == b'\n',
                None => at_start,
            };
            let lost = batch.ends.iter().filter(|end| **end > written).count() as u64;
            // The room is given back only now: bytes that block in the system call still count.
            self.change(|queue| {
                queue.bytes -= batch.queued;
                queue.lost += lost;
                if batch.notice_end > written {
                    queue.lost += batch.reported;
                }
            });
            if failed {
                thread::sleep(self.pause);
            }
        }
    }

    fn is_final(&self, error: &io::Error) -> bool {
        self.on_failure == OnFailure::End
            || error.kind() == io::ErrorKind::BrokenPipe
            || error.raw_os_error() == Some(Errno::BADF.raw_os_error())
    }

    /// Waits for lines and moves as many of them as one write takes into `batch`, after the notice of
    /// lines that were lost. Without `at_start` the batch begins with a line feed.
    fn take(&self, batch: &mut Batch, at_start: bool) {
        *batch = Batch {
            bytes: std::mem::take(&mut batch.bytes),
            ends: std::mem::take(&mut batch.ends),
            ..Batch::default()
        };
        batch.bytes.clear();
        batch.ends.clear();
        let mut queue = self.lock();
        while queue.lines.is_empty() && queue.lost == 0 {
            queue = self.wait(queue);
        }
        if !at_start {
            batch.bytes.push(b'\n');
        }
        if queue.lost > 0 {
            batch.reported = std::mem::take(&mut queue.lost);
            batch.bytes.extend((self.notice)(batch.reported));
            batch.notice_end = batch.bytes.len();
        }
        while let Some(line) = queue.lines.front() {
            if batch.queued > 0 && batch.bytes.len() + line.len() > WRITE_BYTES {
                break;
            }
            batch.bytes.extend_from_slice(line);
            batch.ends.push(batch.bytes.len());
            batch.queued += line.len();
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

/// The bytes of one write.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    /// Where each line ends in `bytes`.
    ends: Vec<usize>,
    /// Length of the lines, without what was put before them.
    queued: usize,
    /// Lost lines that the notice reports, and where it ends. Zero without a notice.
    reported: u64,
    notice_end: usize,
}

/// Writes all bytes. Returns how many were written, and the failure that ended the write.
fn write(sink: &mut impl Write, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < bytes.len() {
        match sink.write(&bytes[written..]) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, sink.flush())
}

#[cfg(test)]
mod tests;
