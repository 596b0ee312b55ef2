//! The layer between the `yamux` crate and the secured byte stream.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use futures::{AsyncRead, AsyncWrite, ready};

use super::frames::{Frames, Next};
use crate::executor::is_turn_over;

/// Largest body that is passed to the `yamux` crate, in bytes.
///
/// The crate allocates and zeroes each body when its header claims a length.
/// Short bodies bound the memory by the received bytes and stay in a
/// second-level cache until the reader copies them. Sizes from 32 to 256 KiB
/// had the same throughput in measurements.
const SHOWN_FRAME_BYTES: u32 = 64 * 1024;

/// Splits long frames and flushes once per poll instead of once per frame.
///
/// The `yamux` crate flushes after each frame and reads when it has no more
/// frames to write. Flushing only before a read combines all frames of a poll
/// into few TLS records and one socket write.
///
/// A poll that has taken 250 µs reads no more, so that a peer whose data does not end leaves time to
/// the other connections of the thread.
#[derive(Debug)]
pub(super) struct Io<S> {
    io: S,
    frames: Frames,
    unflushed: bool,
    /// `true` after a poll that ended without a read. The next one reads, also if writing takes all
    /// of its time, so that the peer can always go on.
    is_read_due: bool,
}

impl<S> Io<S> {
    pub(super) fn new(io: S) -> Self {
        Self {
            io,
            frames: Frames::new(SHOWN_FRAME_BYTES),
            unflushed: false,
            is_read_due: false,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Io<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.unflushed && Pin::new(&mut this.io).poll_flush(cx)?.is_ready() {
            this.unflushed = false;
        }
        if is_turn_over() && !this.is_read_due {
            this.is_read_due = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        this.is_read_due = false;
        loop {
            let io = Pin::new(&mut this.io);
            let (count, shown) = match this.frames.next() {
                Next::Read(space) => (ready!(io.poll_read(cx, space))?, false),
                Next::Show(bytes) => {
                    let count = bytes.len().min(out.len());
                    out[..count].copy_from_slice(&bytes[..count]);
                    (count, true)
                }
                Next::Pass(left) => {
                    let count = left.min(out.len());
                    (ready!(io.poll_read(cx, &mut out[..count]))?, true)
                }
            };
            if count == 0 && !shown && !this.frames.at_boundary() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            this.frames.done(count);
            if shown || count == 0 {
                return Poll::Ready(Ok(count));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Io<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.unflushed = true;
        Pin::new(&mut this.io).poll_write(cx, data)
    }

    /// Returns immediately. The next read flushes.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_close(cx)
    }
}
