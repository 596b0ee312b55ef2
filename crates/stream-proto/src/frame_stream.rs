//! Frames in both directions over one byte stream.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::{
    AsyncRead, AsyncReadExt, AsyncWrite, Sink, Stream,
    io::{ReadHalf, WriteHalf},
    stream::FusedStream,
};

use crate::{
    config::FrameConfig,
    error::FrameError,
    halves::{FrameReceiver, FrameSender, SendQueue, within},
    read_budget::ReadBudget,
};

/// The two directions of a [`FrameStream`], apart.
pub type FrameHalves<S> = (FrameSender<WriteHalf<S>>, FrameReceiver<ReadHalf<S>>);

/// Sends and receives frames over any [`AsyncRead`] + [`AsyncWrite`].
///
/// Also a [`futures::Stream`] of received frames and a [`futures::Sink`] of frames to send.
///
/// # Both sides at once
///
/// The carrier pushes back: a peer that does not read stops [`send`](Self::send), and it stops
/// for ever where both sides send and neither receives. Where both may send at once, [`split`]
/// the stream and receive while sending; the two directions never wait for each other.
///
/// [`split`]: Self::split
///
/// ```
/// use bytes::Bytes;
/// use calimero_network_stream::FrameStream;
/// use futures::{executor::block_on, io::Cursor};
///
/// block_on(async {
///     let mut stream = FrameStream::new(Cursor::new(Vec::new()));
///     stream.send(Bytes::from_static(b"hello")).await?;
///     let mut stream = FrameStream::new(Cursor::new(stream.into_inner().into_inner()));
///     assert_eq!(stream.next().await.transpose()?.as_deref(), Some(&b"hello"[..]));
///     assert!(stream.next().await.is_none(), "a clean end");
///     Ok::<_, calimero_network_stream::FrameError>(())
/// })?;
/// # Ok::<_, calimero_network_stream::FrameError>(())
/// ```
#[derive(Debug)]
pub struct FrameStream<S> {
    // The carrier lies with the receiving direction.
    receiver: FrameReceiver<S>,
    queue: SendQueue,
}

impl<S: AsyncRead + AsyncWrite + Unpin> FrameStream<S> {
    /// Frames over `io` with the default sizes.
    #[must_use]
    pub fn new(io: S) -> Self {
        Self::with_config(io, FrameConfig::default())
    }

    /// Frames over `io`.
    #[must_use]
    pub fn with_config(io: S, config: FrameConfig) -> Self {
        Self {
            receiver: FrameReceiver::with_config(io, config),
            queue: SendQueue::new(config),
        }
    }

    /// Frames over `io`, received with memory from `budget`; see
    /// [`FrameReceiver::with_budget`].
    #[must_use]
    pub fn with_budget(io: S, config: FrameConfig, budget: Box<dyn ReadBudget>) -> Self {
        Self {
            receiver: FrameReceiver::with_budget(io, config, budget),
            queue: SendQueue::new(config),
        }
    }

    /// The next frame; see [`FrameReceiver::next`]. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`FrameError::TooLarge`], [`FrameError::Cut`] or [`FrameError::Io`], each of them once.
    pub async fn next(&mut self) -> Option<Result<Bytes, FrameError>> {
        self.receiver.next().await
    }

    /// The next frame within `after`; see [`FrameReceiver::next_within`]. Cancel safe.
    ///
    /// # Errors
    ///
    /// Those of [`next`](Self::next), and [`FrameError::Deadline`], after which the stream goes on.
    pub async fn next_within(&mut self, after: Duration) -> Option<Result<Bytes, FrameError>> {
        self.receiver.next_within(after).await
    }

    /// Sends one frame and flushes; see [`FrameSender::send`]. A dropped call never tears a frame.
    ///
    /// # Errors
    ///
    /// [`FrameError::PayloadTooLarge`], [`FrameError::Closed`], [`FrameError::Io`].
    pub async fn send(&mut self, payload: Bytes) -> Result<(), FrameError> {
        self.feed(payload).await?;
        self.flush().await
    }

    /// [`send`](Self::send), if it is done within `after`.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send), and [`FrameError::Deadline`], after which a frame that was
    /// taken stays queued.
    pub async fn send_within(&mut self, payload: Bytes, after: Duration) -> Result<(), FrameError> {
        within(after, self.send(payload)).await?
    }

    /// Takes one frame for sending; see [`FrameSender::feed`]. A dropped call never tears a frame.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send).
    pub async fn feed(&mut self, payload: Bytes) -> Result<(), FrameError> {
        let (io, queue) = (self.receiver.get_mut(), &mut self.queue);
        poll_fn(|cx| queue.poll_ready(io, cx)).await?;
        self.queue.push(payload)
    }

    /// Waits until the carrier has taken every frame fed so far. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`FrameError::Closed`], [`FrameError::Io`].
    pub async fn flush(&mut self) -> Result<(), FrameError> {
        let (io, queue) = (self.receiver.get_mut(), &mut self.queue);
        poll_fn(|cx| queue.poll_flush(io, cx)).await
    }

    /// Flushes, then closes the sending direction: the peer receives a clean end, and frames of
    /// the peer can still be received. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`FrameError::Io`]; [`FrameError::Closed`] if sending failed before.
    pub async fn close(&mut self) -> Result<(), FrameError> {
        let (io, queue) = (self.receiver.get_mut(), &mut self.queue);
        poll_fn(|cx| queue.poll_close(io, cx)).await
    }

    /// The two directions apart, each for a task of its own. They share the carrier by a lock
    /// that is held for one poll.
    #[must_use]
    pub fn split(self) -> FrameHalves<S> {
        let (io, receiver) = self.receiver.detach();
        let (reader, writer) = io.split();
        (
            FrameSender::attach(writer, self.queue),
            receiver.attach(reader),
        )
    }

    /// Joins what [`split`](Self::split) took apart.
    ///
    /// # Errors
    ///
    /// Gives both halves back if they are not of the same stream.
    #[expect(
        clippy::result_large_err,
        reason = "the halves are given back, not an error"
    )]
    pub fn reunite(
        sender: FrameSender<WriteHalf<S>>,
        receiver: FrameReceiver<ReadHalf<S>>,
    ) -> Result<Self, FrameHalves<S>> {
        let (writer, queue) = sender.detach();
        let (reader, receiver) = receiver.detach();
        match reader.reunite(writer) {
            Ok(io) => Ok(Self {
                receiver: receiver.attach(io),
                queue,
            }),
            Err(error) => Err((
                FrameSender::attach(error.1, queue),
                receiver.attach(error.0),
            )),
        }
    }
}

impl<S> FrameStream<S> {
    /// The carrier. What was received but not yielded is lost, and what was fed but not flushed.
    #[must_use]
    pub fn into_inner(self) -> S {
        self.receiver.detach().0
    }

    /// The carrier and what lies in the buffers.
    #[must_use]
    pub fn into_parts(self) -> FrameParts<S> {
        let (io, received) = self.receiver.into_parts();
        FrameParts {
            io,
            received,
            unsent: self.queue.into_rest(),
        }
    }
}

/// What a [`FrameStream`] was made of.
#[derive(Debug)]
#[non_exhaustive]
pub struct FrameParts<S> {
    /// The carrier.
    pub io: S,
    /// Bytes read from it that belong to no frame yielded.
    pub received: Bytes,
    /// Bytes of frames taken for sending that were not written to it.
    pub unsent: Bytes,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for FrameStream<S> {
    type Item = Result<Bytes, FrameError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.receiver.poll_frame(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> FusedStream for FrameStream<S> {
    fn is_terminated(&self) -> bool {
        self.receiver.is_terminated()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Sink<Bytes> for FrameStream<S> {
    type Error = FrameError;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), FrameError>> {
        let this = self.get_mut();
        this.queue.poll_ready(this.receiver.get_mut(), cx)
    }

    fn start_send(self: Pin<&mut Self>, payload: Bytes) -> Result<(), FrameError> {
        self.get_mut().queue.push(payload)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), FrameError>> {
        let this = self.get_mut();
        this.queue.poll_flush(this.receiver.get_mut(), cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), FrameError>> {
        let this = self.get_mut();
        this.queue.poll_close(this.receiver.get_mut(), cx)
    }
}
