use std::{io::BufReader, os::unix::net::UnixStream};

use super::*;

const LIMIT: Duration = Duration::from_secs(20);

fn notice(dropped: u64) -> Vec<u8> {
    format!("dropped {dropped}\n").into_bytes()
}

fn with_limit(sink: impl Write + Send + 'static, limit: usize) -> LineWriter {
    LineWriter::with_limits(sink, notice, OnFailure::End, limit, Duration::ZERO).unwrap()
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
    let writer = with_limit(sink, LONG + 10);
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
    let writer = with_limit(sink, LONG);
    let waiting = writer.clone();
    let waiter = thread::spawn(move || (0..3).try_for_each(|_| waiting.push_or_wait(long(b'a'))));
    let mut reader = BufReader::new(reader);
    for _ in 0..3 {
        assert_eq!(read(&mut reader), long(b'a'));
    }
    waiter.join().unwrap().unwrap();
    writer.push_or_wait(long(b'b')).unwrap();
    let waiting = writer.clone();
    let waiter = thread::spawn(move || waiting.push_or_wait(long(b'c')));
    writer.release();
    let dropped = waiter.join().unwrap().unwrap_err();
    assert_eq!(dropped.kind(), io::ErrorKind::Interrupted);
    // What was dropped is missing also once its reader goes on.
    assert_eq!(read(&mut reader), long(b'b'));
    let flushed = writer.flush(LIMIT).unwrap_err();
    assert_eq!(flushed.kind(), io::ErrorKind::Interrupted);
}

#[tokio::test]
async fn a_reader_that_closes_its_end_is_noticed() {
    let (sink, reader) = UnixStream::pair().unwrap();
    let writer = LineWriter::start(sink, notice, OnFailure::End).unwrap();
    drop(reader);
    writer.push_or_wait(b"line\n".to_vec()).unwrap();
    tokio::time::timeout(LIMIT, writer.closed()).await.unwrap();
    writer.flush(LIMIT).unwrap();
    // Nothing waits for a reader that does not exist.
    for _ in 0..20 {
        let dropped = writer.push_or_wait(long(b'a')).unwrap_err();
        assert_eq!(dropped.kind(), io::ErrorKind::BrokenPipe);
    }
}

#[test]
fn a_full_disk_is_an_error() {
    let sink = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let writer = LineWriter::start(sink, notice, OnFailure::End).unwrap();
    writer.push_or_wait(b"line\n".to_vec()).unwrap();
    let error = writer.flush(LIMIT).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
}

#[tokio::test]
async fn a_task_waits_for_room_without_blocking_its_thread() {
    let (sink, reader) = UnixStream::pair().unwrap();
    let writer = with_limit(sink, LONG + 10);
    writer.push_or_wait(long(b'a')).unwrap();
    let push = std::future::poll_fn(|cx| writer.poll_push(cx, b"nine long\nnine more\n"));
    let mut push = std::pin::pin!(push);
    assert!(futures::poll!(&mut push).is_pending());
    let reading = tokio::task::spawn_blocking(move || {
        let mut reader = BufReader::new(reader);
        [read(&mut reader), read(&mut reader), read(&mut reader)]
    });
    tokio::time::timeout(LIMIT, push).await.unwrap().unwrap();
    let lines = reading.await.unwrap();
    assert_eq!(lines[1..], [&b"nine long\n"[..], b"nine more\n"]);
}

#[tokio::test]
async fn a_task_that_waits_for_room_is_not_ended_by_a_release() {
    let (sink, reader) = UnixStream::pair().unwrap();
    let writer = with_limit(sink, LONG);
    writer.push_or_wait(long(b'a')).unwrap();
    let push = std::future::poll_fn(|cx| writer.poll_push(cx, b"line\n"));
    let mut push = std::pin::pin!(push);
    assert!(futures::poll!(&mut push).is_pending());
    writer.release();
    assert!(futures::poll!(&mut push).is_pending());
    // Its reader may go on before the command ends.
    let reading = tokio::task::spawn_blocking(move || {
        let mut reader = BufReader::new(reader);
        [read(&mut reader), read(&mut reader)]
    });
    tokio::time::timeout(LIMIT, push).await.unwrap().unwrap();
    assert_eq!(reading.await.unwrap()[1], b"line\n");
    writer.flush(LIMIT).unwrap();
}

/// A disk: each write takes what the next entry says, `None` if it is full. Then it takes everything.
struct Disk {
    writes: VecDeque<Option<usize>>,
    content: UnixStream,
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.writes.pop_front() {
            Some(None) => Err(io::ErrorKind::StorageFull.into()),
            Some(Some(count)) => self.content.write(&bytes[..count]),
            None => self.content.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is on a disk after two lines were written to it, the second one once the notice was there.
fn written_after_failures(writes: &[Option<usize>]) -> String {
    let (content, reader) = UnixStream::pair().unwrap();
    reader.set_read_timeout(Some(LIMIT)).unwrap();
    let writes = writes.iter().copied().collect();
    let disk = Disk { writes, content };
    let (limit, pause) = (LONG, Duration::from_millis(1));
    let writer = LineWriter::with_limits(disk, notice, OnFailure::Retry, limit, pause).unwrap();
    writer.push_or_drop(b"first\n".to_vec());
    writer.flush(LIMIT).unwrap();
    let mut reader = BufReader::new(reader);
    let mut content = Vec::new();
    while !content.ends_with(b"dropped 1\n") {
        content.extend(read(&mut reader));
    }
    writer.push_or_drop(b"second\n".to_vec());
    content.extend(read(&mut reader));
    String::from_utf8(content).unwrap()
}

#[test]
fn a_node_writes_again_once_its_disk_has_space_and_reports_lost_lines() {
    let written = written_after_failures(&[None, None]);
    assert_eq!(written, "dropped 1\nsecond\n");
    // A line of which a part was written is lost, and the notice has a line of its own.
    let written = written_after_failures(&[Some(3), None]);
    assert_eq!(written, "fir\ndropped 1\nsecond\n");
    let written = written_after_failures(&[None, Some(4), None]);
    assert_eq!(written, "drop\ndropped 1\nsecond\n");
}

#[test]
fn a_closed_pipe_is_final_for_a_node_too() {
    let (sink, reader) = UnixStream::pair().unwrap();
    let writer = LineWriter::start(sink, notice, OnFailure::Retry).unwrap();
    drop(reader);
    writer.push_or_drop(b"line\n".to_vec());
    writer.flush(LIMIT).unwrap();
    let failed = writer.push_or_wait(b"line\n".to_vec()).unwrap_err();
    assert_eq!(failed.kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn bytes_without_line_feeds_are_written_as_they_are() {
    let (sink, reader) = UnixStream::pair().unwrap();
    let writer = LineWriter::start(sink, notice, OnFailure::End).unwrap();
    for bytes in [&b"one "[..], b"two\n"] {
        writer.push_or_wait(bytes.to_vec()).unwrap();
        writer.flush(LIMIT).unwrap();
    }
    assert_eq!(read(&mut BufReader::new(reader)), b"one two\n");
}
