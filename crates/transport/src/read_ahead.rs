//! Large reads for a library that requests small ones.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use futures::{AsyncRead, AsyncWrite, ready};

use crate::buffer::{Buffer, MIN_BYTES, SMALL_BYTES};

/// Largest number of bytes that are read ahead.
const LIMIT_BYTES: usize = 128 * 1024;

/// Reads as many bytes as are available and returns them in smaller pieces.
/// Writes are not buffered.
#[derive(Debug)]
pub(crate) struct ReadAhead<S> {
    io: S,
    buffer: Buffer,
}

impl<S> ReadAhead<S> {
    pub(crate) fn new(io: S) -> Self {
        Self {
            io,
            buffer: Buffer::new(LIMIT_BYTES),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.buffer.is_released() {
            let mut small = [0; SMALL_BYTES];
            let count = ready!(Pin::new(&mut this.io).poll_read(cx, &mut small))?;
            this.buffer.append(&small[..count]);
            if count == SMALL_BYTES {
                // More has probably arrived, and the next read is a large one.
                this.buffer.grow();
            }
        } else if this.buffer.is_empty() {
            let space = this.buffer.spare(MIN_BYTES);
            let offered = space.len();
            let count = ready!(Pin::new(&mut this.io).poll_read(cx, space))?;
            this.buffer.fill(count);
            this.buffer.used(count);
            if count == offered {
                this.buffer.grow();
            }
        }
        let count = this.buffer.len().min(out.len());
        out[..count].copy_from_slice(&this.buffer.filled()[..count]);
        this.buffer.consume(count);
        Poll::Ready(Ok(count))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadAhead<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_close(cx)
    }
}

#[cfg(test)]
mod tests;
