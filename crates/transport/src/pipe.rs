//! A byte stream in memory that cuts what passes as it is told.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
};

use futures::{AsyncRead, AsyncWrite};

/// One direction.
#[derive(Debug, Default)]
struct Lane {
    bytes: VecDeque<u8>,
    closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// One end of a byte stream.
#[derive(Debug)]
pub(crate) struct Pipe {
    incoming: Arc<Mutex<Lane>>,
    outgoing: Arc<Mutex<Lane>>,
    capacity: usize,
    steps: Vec<usize>,
    step: usize,
}

/// Two ends. Each read and write moves at most the next of `steps`, which repeat, and
/// `capacity` bytes lie between.
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

fn lock(lane: &Mutex<Lane>) -> MutexGuard<'_, Lane> {
    lane.lock().unwrap()
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
        let mut lane = lock(&self.incoming);
        if lane.bytes.is_empty() && !lane.closed {
            lane.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = step.min(out.len()).min(lane.bytes.len());
        for (to, from) in out.iter_mut().zip(lane.bytes.drain(..count)) {
            *to = from;
        }
        wake(&mut lane.writer);
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
        let mut lane = lock(&self.outgoing);
        if lane.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let count = step.min(data.len()).min(capacity - lane.bytes.len());
        if count == 0 {
            lane.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        lane.bytes.extend(&data[..count]);
        wake(&mut lane.reader);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut lane = lock(&self.outgoing);
        lane.closed = true;
        wake(&mut lane.reader);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        for lane in [&self.incoming, &self.outgoing] {
            let mut lane = lock(lane);
            lane.closed = true;
            wake(&mut lane.reader);
            wake(&mut lane.writer);
        }
    }
}
