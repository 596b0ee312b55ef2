//! Standard output for the content of a blob.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use futures::AsyncWrite;

use super::Output;

/// Standard output as a writer. It is pending while the queue has no room: the network runs on the
/// thread that polls it. It stays pending once the reader has closed its end, or a signal has arrived
/// and the queue is full: both end the command.
pub(crate) struct StdoutWriter(pub(crate) Output);

impl AsyncWrite for StdoutWriter {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let pushed = self.0.writer.poll_push(cx, bytes);
        pushed.map_ok(|()| bytes.len())
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
