//! An in-memory byte stream that splits reads and writes into given steps.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
};

use futures::{AsyncRead, AsyncWrite};

/// State of one direction.
#[derive(Debug, Default)]
struct Direction {
    bytes: VecDeque<u8>,
    closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// One end of the byte stream.
#[derive(Debug)]
pub(crate) struct Pipe {
    incoming: Arc<Mutex<Direction>>,
    outgoing: Arc<Mutex<Direction>>,
    capacity: usize,
    steps: Vec<usize>,
    step: usize,
}

/// Creates the two ends of a byte stream. Each read and write moves at most the
/// next number of `steps`, which repeat. Each direction buffers up to
/// `capacity` bytes.
pub(crate) fn pipe(capacity: usize, steps: &[usize]) -> (Pipe, Pipe) {
    let (a, b) = (Arc::default(), Arc::default());
    let end = |incoming: &Arc<_>, outgoing: &Arc<_>| Pipe {
        incoming: Arc::clone(incoming),
        outgoing: Arc::clone(outgoing),
        capacity,
        steps: steps.to_vec(),
        step: 0,
    };
    (end(&a, &b), end(&b, &a))
}

fn lock(direction: &Mutex<Direction>) -> MutexGuard<'_, Direction> {
    direction.lock().unwrap()
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

impl Pipe {
    fn next_step(&mut self) -> usize {
        self.step = (self.step + 1) % self.steps.len();
        self.steps[self.step]
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let step = self.next_step();
        let mut direction = lock(&self.incoming);
        if direction.bytes.is_empty() && !direction.closed {
            direction.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = step.min(out.len()).min(direction.bytes.len());
        for (to, from) in out.iter_mut().zip(direction.bytes.drain(..count)) {
            *to = from;
        }
        wake(&mut direction.writer);
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let (step, capacity) = (self.next_step(), self.capacity);
        let mut direction = lock(&self.outgoing);
        if direction.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let count = step.min(data.len()).min(capacity - direction.bytes.len());
        if count == 0 {
            direction.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        direction.bytes.extend(&data[..count]);
        wake(&mut direction.reader);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut direction = lock(&self.outgoing);
        direction.closed = true;
        wake(&mut direction.reader);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        for direction in [&self.incoming, &self.outgoing] {
            let mut direction = lock(direction);
            direction.closed = true;
            wake(&mut direction.reader);
            wake(&mut direction.writer);
        }
    }
}
