//! Standard output for the content of a blob.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use futures::AsyncWrite;

use super::Output;

/// Standard output as a writer. Waits for room in its queue.
pub(crate) struct StdoutWriter(pub(crate) Output);

impl AsyncWrite for StdoutWriter {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.write_bytes(bytes.to_vec());
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
