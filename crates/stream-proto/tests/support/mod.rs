//! A bounded byte pipe that splits reads and writes according to a script.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "helpers of tests, of which not every test file uses all"
)]

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use futures::{AsyncRead, AsyncWrite};

/// State of one direction of the pipe.
#[derive(Debug, Default)]
struct Channel {
    bytes: VecDeque<u8>,
    capacity: usize,
    closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// One end of a pipe. Each read and write moves at most as many bytes as the
/// next number of its script, cyclically, and returns `Pending` once after each
/// operation.
#[derive(Debug)]
pub(crate) struct PipeEnd {
    read: Arc<Mutex<Channel>>,
    write: Arc<Mutex<Channel>>,
    script: Vec<usize>,
    step: usize,
    rested: bool,
}

/// Creates a pipe that buffers `capacity` bytes in each direction.
pub(crate) fn pipe(capacity: usize, script: &[usize]) -> (PipeEnd, PipeEnd) {
    let channel = || {
        Arc::new(Mutex::new(Channel {
            capacity,
            ..Channel::default()
        }))
    };
    let (a, b) = (channel(), channel());
    let end = |read: &Arc<Mutex<Channel>>, write: &Arc<Mutex<Channel>>| PipeEnd {
        read: read.clone(),
        write: write.clone(),
        script: script.to_vec(),
        step: 0,
        rested: false,
    };
    (end(&a, &b), end(&b, &a))
}

impl PipeEnd {
    /// Returns the limit of this operation, or `None` if it must be pending.
    fn allowance(&mut self, cx: &mut Context<'_>) -> Option<usize> {
        if self.script.is_empty() {
            return Some(usize::MAX);
        }
        self.rested = !self.rested;
        if !self.rested {
            cx.waker().wake_by_ref();
            return None;
        }
        self.step += 1;
        Some(self.script[self.step % self.script.len()].max(1))
    }
}

impl AsyncRead for PipeEnd {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let Some(most) = self.allowance(cx) else {
            return Poll::Pending;
        };
        let mut channel = self.read.lock().unwrap();
        if channel.bytes.is_empty() {
            if channel.closed {
                return Poll::Ready(Ok(0));
            }
            channel.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let n = most.min(buf.len()).min(channel.bytes.len());
        for (to, from) in buf.iter_mut().zip(channel.bytes.drain(..n)) {
            *to = from;
        }
        wake(&mut channel.writer);
        Poll::Ready(Ok(n))
    }
}

impl AsyncWrite for PipeEnd {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Some(most) = self.allowance(cx) else {
            return Poll::Pending;
        };
        let mut channel = self.write.lock().unwrap();
        if channel.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let free = channel.capacity - channel.bytes.len();
        if free == 0 {
            channel.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let n = most.min(free).min(buf.len());
        channel.bytes.extend(&buf[..n]);
        wake(&mut channel.reader);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.close_write();
        Poll::Ready(Ok(()))
    }
}

impl PipeEnd {
    fn close_write(&self) {
        let mut channel = self.write.lock().unwrap();
        channel.closed = true;
        wake(&mut channel.reader);
    }
}

impl Drop for PipeEnd {
    fn drop(&mut self) {
        self.close_write();
        let mut channel = self.read.lock().unwrap();
        channel.closed = true;
        wake(&mut channel.writer);
    }
}

/// Decodes frames with the simplest possible decoder.
pub(crate) fn naive(mut wire: &[u8], max: usize) -> (Vec<Vec<u8>>, NaiveEnd) {
    let mut frames = Vec::new();
    loop {
        if wire.is_empty() {
            return (frames, NaiveEnd::Clean);
        }
        if wire.len() < 4 {
            return (frames, NaiveEnd::CutPrefix(wire.len(), 4 - wire.len()));
        }
        let len = u32::from_be_bytes(wire[..4].try_into().unwrap()) as usize;
        if len > max {
            return (frames, NaiveEnd::TooLarge(len));
        }
        let have = wire.len() - 4;
        if have < len {
            return (frames, NaiveEnd::CutPayload(have, len - have));
        }
        frames.push(wire[4..4 + len].to_vec());
        wire = &wire[4 + len..];
    }
}

/// How the input of the naive decoder ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NaiveEnd {
    /// The input ended between two frames.
    Clean,
    /// The input ended in a prefix: bytes arrived, bytes missing.
    CutPrefix(usize, usize),
    /// The input ended in a payload: bytes arrived, bytes missing.
    CutPayload(usize, usize),
    /// The decoder refused a claimed length.
    TooLarge(usize),
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}
