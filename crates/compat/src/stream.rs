//! A stream of the manager as the byte stream below a stream of the published crate.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    AsyncRead, AsyncWrite, AsyncWriteExt as _, Stream as _,
    io::{ReadHalf, WriteHalf},
    ready,
};
use futures_timer::Delay;
use network::{FrameError, FrameReceiver, FrameStream, Substream, bytes::Bytes};
use tokio::runtime::Handle;

/// Time for a dropped stream to deliver what was written to it: 10 s.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// The bytes of a stream of frames.
///
/// Frames are received by the manager, with memory from the budget of the peer, and read here only
/// once they are complete. The node would allocate by the claim of a length. What the node writes is
/// not parsed.
///
/// The end of the stream is an end here. A reset, a frame that was cut off and a lost connection are
/// errors. Dropping the value delivers what was written and then ends the stream, as the published
/// crate does: its `Stream` cannot be reset on purpose.
pub(crate) struct FrameBytes {
    receiver: FrameReceiver<ReadHalf<Substream>>,
    writer: Option<WriteHalf<Substream>>,
    /// The rest of the frame that is being read: its length, then its payload.
    prefix: Bytes,
    payload: Bytes,
    runtime: Handle,
}

impl FrameBytes {
    /// Takes a stream that has sent nothing yet. `runtime` closes it when it is dropped.
    pub(crate) fn new(stream: FrameStream<Substream>, runtime: Handle) -> Self {
        let (sender, receiver) = stream.split();
        let (writer, _nothing_queued) = sender.into_parts();
        Self {
            receiver,
            writer: Some(writer),
            prefix: Bytes::new(),
            payload: Bytes::new(),
            runtime,
        }
    }

    /// Receives the first frame, which is read first from then on.
    pub(crate) async fn peek(&mut self) -> Option<&Bytes> {
        let frame = self.receiver.next().await?.ok()?;
        self.set_frame(frame);
        Some(&self.payload)
    }

    fn set_frame(&mut self, frame: Bytes) {
        // A frame has at most 8 MiB.
        let len = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        self.prefix = Bytes::copy_from_slice(&len.to_be_bytes());
        self.payload = frame;
    }

    fn writer(&mut self) -> io::Result<Pin<&mut WriteHalf<Substream>>> {
        let writer = self.writer.as_mut();
        writer
            .map(Pin::new)
            .ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }
}

impl AsyncRead for FrameBytes {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.prefix.is_empty() && self.payload.is_empty() {
            match ready!(Pin::new(&mut self.receiver).poll_next(cx)) {
                None => return Poll::Ready(Ok(0)),
                Some(Ok(frame)) => self.set_frame(frame),
                Some(Err(error)) => return Poll::Ready(Err(into_io(error))),
            }
        }
        let this = &mut *self;
        let mut written = 0;
        for part in [&mut this.prefix, &mut this.payload] {
            let len = part.len().min(buf.len() - written);
            buf[written..written + len].copy_from_slice(&part.split_to(len));
            written += len;
        }
        Poll::Ready(Ok(written))
    }
}

/// The error of the byte stream below where there is one, so that its kind says what happened.
fn into_io(error: FrameError) -> io::Error {
    let kind = match error {
        FrameError::Io(error) => return error,
        FrameError::Cut { .. } => io::ErrorKind::UnexpectedEof,
        FrameError::TooLarge { .. } => io::ErrorKind::InvalidData,
        FrameError::Revoked { .. } | FrameError::NoMemory { .. } => io::ErrorKind::OutOfMemory,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

impl AsyncWrite for FrameBytes {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.writer()?.poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer()?.poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.writer.is_none() {
            return Poll::Ready(Ok(()));
        }
        let closed = ready!(self.writer()?.poll_close(cx));
        self.writer = None;
        Poll::Ready(closed)
    }
}

impl Drop for FrameBytes {
    fn drop(&mut self) {
        let Some(mut writer) = self.writer.take() else {
            return;
        };
        self.runtime.spawn(async move {
            tokio::select! {
                closed = writer.close() => if let Err(error) = closed {
                    tracing::debug!(%error, "a dropped stream was not closed");
                },
                () = Delay::new(CLOSE_TIMEOUT) => {}
            }
        });
    }
}
