//! One stream of a connection.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use futures::{AsyncRead, AsyncWrite};
use quinn::{ReadError, RecvStream, SendStream, VarInt, WriteError};
use tokio::io::ReadBuf;

use super::Error;

/// Error code of a stream that is dropped before its end. libp2p gives these codes no meaning.
const ABANDONED: VarInt = VarInt::from_u32(0);

/// A stream in both directions.
///
/// [`AsyncWrite::poll_close`] ends the sending direction: the other side reads to the end, and
/// may go on sending. Dropped without it, the stream is reset: the other side sees
/// [`io::ErrorKind::ConnectionReset`], so it cannot take a part for the whole. A stream whose other
/// side has ended and was read to its end is closed by its drop, as Yamux does it: libp2p-kad gives
/// up its answers so, and a reset would take back what of them is not read yet.
#[derive(Debug)]
pub struct Stream {
    send: SendStream,
    receive: RecvStream,
    /// The other side was read to its end.
    ended: bool,
    closed: bool,
    /// Set once the connection is being closed: nothing more is taken then.
    closing: Arc<AtomicBool>,
    /// Counts the stream, if the peer opened it.
    _open: Option<Arc<()>>,
}

impl Stream {
    /// `open` is given for a stream that the peer opened, which its clones count.
    pub(super) fn new(
        (send, receive): (SendStream, RecvStream),
        closing: Arc<AtomicBool>,
        open: Option<Arc<()>>,
    ) -> Self {
        Self {
            send,
            receive,
            ended: false,
            closed: false,
            closing,
            _open: open,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        match ready!(self.receive.poll_read_buf(cx, &mut buffer)) {
            Ok(()) => {
                let read = buffer.filled().len();
                if read == 0 && buffer.capacity() > 0 {
                    self.ended = true;
                }
                Poll::Ready(Ok(read))
            }
            Err(error) => Poll::Ready(Err(read_error(error))),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.closing.load(Ordering::Acquire) {
            return Poll::Ready(Err(Error::ClosedHere.into()));
        }
        Pin::new(&mut self.send)
            .poll_write(cx, bytes)
            .map_err(write_error)
    }

    /// Ready at once: what is written is on its way already.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.closed {
            self.closed = true;
            // Fails only on a stream that is finished or reset, which nothing else does.
            let _ = self.send.finish();
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.closed {
            return;
        }
        // An error means that the connection has ended or the peer stopped reading the stream. Both
        // need no further action.
        if self.ended {
            let _ = self.send.finish();
        } else {
            let _ = self.send.reset(ABANDONED);
        }
    }
}

fn read_error(error: ReadError) -> io::Error {
    match error {
        ReadError::ConnectionLost(error) => Error::from(error).into(),
        ReadError::Reset(_) => io::Error::new(io::ErrorKind::ConnectionReset, error),
        other => io::Error::new(io::ErrorKind::NotConnected, other),
    }
}

fn write_error(error: WriteError) -> io::Error {
    match error {
        WriteError::ConnectionLost(error) => Error::from(error).into(),
        WriteError::Stopped(_) => io::Error::new(io::ErrorKind::ConnectionReset, error),
        other => io::Error::new(io::ErrorKind::BrokenPipe, other),
    }
}
