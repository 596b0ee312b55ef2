//! What lies between the `yamux` crate and the secured byte stream.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use futures::{AsyncRead, AsyncWrite, ready};

use super::frames::{Frames, Next};

/// Longest body shown to the `yamux` crate, in bytes.
///
/// It allocates and zeroes each body, so short ones keep memory near what has arrived and in a
/// second-level cache until the reader copies them out; 64 KiB measured fastest.
const SHOWN_FRAME_BYTES: u32 = 64 * 1024;

/// Cuts long frames, and flushes once a round instead of once a frame.
///
/// The `yamux` crate flushes behind each frame and reads when it has no more frames to write.
/// Flushing only then puts all frames of a round into few records and one write of the socket.
#[derive(Debug)]
pub(super) struct Io<S> {
    io: S,
    frames: Frames,
    unflushed: bool,
}

impl<S> Io<S> {
    pub(super) fn new(io: S) -> Self {
        Self {
            io,
            frames: Frames::new(SHOWN_FRAME_BYTES),
            unflushed: false,
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

    /// Says yes, and flushes at the next read.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_close(cx)
    }
}
