//! A bounded queue of lines and the thread that writes them.
//!
//! A pipe whose reader is slow or stopped blocks the process that writes to it. Only the thread of
//! a [`LineWriter`] writes, so only that thread can block: the callers append to a queue.

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
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
    /// Callers no longer wait for room.
    released: bool,
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
    pub(crate) fn push_or_wait(&self, line: Vec<u8>) {
        let mut queue = self.shared.lock();
        while queue.failure.is_none()
            && !queue.released
            && !queue.has_room(line.len(), self.shared.limit)
        {
            queue = self.shared.wait(queue);
        }
        if queue.failure.is_none() && queue.has_room(line.len(), self.shared.limit) {
            queue.append(line);
            self.shared.changed.notify_all();
        }
    }

    /// Ends all waits for room, now and later.
    pub(crate) fn release(&self) {
        self.shared.lock().released = true;
        self.shared.changed.notify_all();
    }

    /// Waits until everything is written, at most for `limit`.
    ///
    /// # Errors
    ///
    /// The failure of the output, or [`io::ErrorKind::TimedOut`]. A reader that has closed its end
    /// is not a failure.
    pub(crate) fn flush(&self, limit: Duration) -> io::Result<()> {
        let deadline = Instant::now() + limit;
        let mut queue = self.shared.lock();
        loop {
            match queue.failure {
                Some(io::ErrorKind::BrokenPipe) => return Ok(()),
                Some(kind) => return Err(kind.into()),
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
            self.lock().bytes -= batch.len();
            self.changed.notify_all();
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
        let mut queue = self.lock();
        queue.failure.get_or_insert(kind);
        queue.lines.clear();
        drop(queue);
        self.changed.notify_all();
        if kind == io::ErrorKind::BrokenPipe {
            self.closed.send_replace(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::BufReader, os::unix::net::UnixStream};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    fn notice(dropped: u64) -> Vec<u8> {
        format!("dropped {dropped}\n").into_bytes()
    }

    /// More bytes than a socket pair buffers.
    const LONG: usize = 4 << 20;

    fn long(byte: u8) -> Vec<u8> {
        let mut line = vec![byte; LONG];
        line.push(b'\n');
        line
    }

    fn read(from: &mut impl io::BufRead) -> Vec<u8> {
        let mut line = Vec::new();
        from.read_until(b'\n', &mut line).unwrap();
        line
    }

    #[test]
    fn a_reader_that_stops_costs_lines_that_are_counted() {
        let (sink, reader) = UnixStream::pair().unwrap();
        let writer = LineWriter::with_limit(sink, notice, LONG + 10).unwrap();
        writer.push_or_drop(long(b'a'));
        for _ in 0..3 {
            writer.push_or_drop(b"nine long\n".to_vec());
        }
        let stuck = writer.flush(Duration::from_millis(10)).unwrap_err();
        assert_eq!(stuck.kind(), io::ErrorKind::TimedOut);
        let mut reader = BufReader::new(reader);
        assert_eq!(read(&mut reader), long(b'a'));
        writer.flush(LIMIT).unwrap();
        writer.push_or_drop(b"last\n".to_vec());
        let rest: Vec<_> = (0..2).map(|_| read(&mut reader)).collect();
        assert_eq!(rest, [&b"dropped 3\n"[..], b"last\n"]);
    }

    #[test]
    fn who_waits_for_room_gets_it_or_is_released() {
        let (sink, reader) = UnixStream::pair().unwrap();
        let writer = LineWriter::with_limit(sink, notice, LONG).unwrap();
        let waiting = writer.clone();
        let waiter = thread::spawn(move || (0..3).for_each(|_| waiting.push_or_wait(long(b'a'))));
        let mut reader = BufReader::new(reader);
        for _ in 0..3 {
            assert_eq!(read(&mut reader), long(b'a'));
        }
        waiter.join().unwrap();
        writer.push_or_wait(long(b'b'));
        let waiting = writer.clone();
        let waiter = thread::spawn(move || waiting.push_or_wait(long(b'c')));
        writer.release();
        waiter.join().unwrap();
    }

    #[tokio::test]
    async fn a_reader_that_closes_its_end_is_noticed() {
        let (sink, reader) = UnixStream::pair().unwrap();
        let writer = LineWriter::start(sink, notice).unwrap();
        drop(reader);
        writer.push_or_wait(b"line\n".to_vec());
        tokio::time::timeout(LIMIT, writer.closed()).await.unwrap();
        writer.flush(LIMIT).unwrap();
        // Nothing waits for a reader that does not exist.
        (0..20).for_each(|_| writer.push_or_wait(long(b'a')));
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let sink = std::fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let writer = LineWriter::start(sink, notice).unwrap();
        writer.push_or_wait(b"line\n".to_vec());
        let error = writer.flush(LIMIT).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
