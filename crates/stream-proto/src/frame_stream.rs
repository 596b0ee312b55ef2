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

/// The sending and the receiving direction of a [`FrameStream`], as separate
/// values.
pub type FrameHalves<S> = (FrameSender<WriteHalf<S>>, FrameReceiver<ReadHalf<S>>);

/// Sends and receives frames over any [`AsyncRead`] + [`AsyncWrite`].
///
/// It implements [`futures::Stream`] for received frames and [`futures::Sink`]
/// for frames to send.
///
/// # Dropping
///
/// A frame stream over a [`Substream`](crate::Substream) that was created by
/// [`into_frames`](crate::Substream::into_frames) may be dropped without
/// [`close`](Self::close): every frame for which [`send`](Self::send) returned
/// is delivered, followed by a clean end. If a frame was written in part, the
/// peer receives [`FrameError::Cut`] after the frames before it. Frames that
/// were [fed](Self::feed) and not flushed are lost, and the peer receives an
/// error. After [`split`], the stream is dropped with the second of its halves.
/// A stream on which nothing was sent is reset.
///
/// A drop also stops what the peer sends. Over QUIC the peer's next `send`
/// fails. Yamux has no message for it after an end: the peer's `send` waits once
/// its window is full, so that a peer that sends much needs a deadline
/// ([`send_within`](Self::send_within)).
///
/// # Sending in both directions at once
///
/// The byte stream applies back-pressure: [`send`](Self::send) waits while the
/// peer does not read. If both sides send and neither receives, both wait
/// forever. If both sides may send at once, [`split`] the stream and receive
/// while sending; the two directions never wait for each other.
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
    // The receiver owns the byte stream.
    receiver: FrameReceiver<S>,
    queue: SendQueue,
}

impl<S: AsyncRead + AsyncWrite + Unpin> FrameStream<S> {
    /// Creates a stream of frames over `io` with the default sizes.
    #[must_use]
    pub fn new(io: S) -> Self {
        Self::with_config(io, FrameConfig::default())
    }

    /// Creates a stream of frames over `io` with the sizes of `config`.
    #[must_use]
    pub fn with_config(io: S, config: FrameConfig) -> Self {
        Self {
            receiver: FrameReceiver::with_config(io, config),
            queue: SendQueue::new(config),
        }
    }

    /// Creates a stream of frames over `io` that receives with memory from
    /// `budget`; see [`FrameReceiver::with_budget`].
    #[must_use]
    pub fn with_budget(io: S, config: FrameConfig, budget: Box<dyn ReadBudget>) -> Self {
        Self {
            receiver: FrameReceiver::with_budget(io, config, budget),
            queue: SendQueue::new(config),
        }
    }

    /// Ends the byte stream according to `drop_end` when it is dropped.
    #[cfg(feature = "libp2p")]
    pub(crate) fn with_drop_end(mut self, drop_end: crate::halves::DropEnd) -> Self {
        self.queue = self.queue.with_drop_end(drop_end);
        self
    }

    /// Receives the next frame; see [`FrameReceiver::next`]. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`FrameError::TooLarge`], [`FrameError::Cut`] or [`FrameError::Io`],
    /// each at most once.
    pub async fn next(&mut self) -> Option<Result<Bytes, FrameError>> {
        self.receiver.next().await
    }

    /// Receives the next frame within `after`; see
    /// [`FrameReceiver::next_within`]. Cancel safe.
    ///
    /// # Errors
    ///
    /// Those of [`next`](Self::next), and [`FrameError::Deadline`], after which
    /// the stream stays usable.
    pub async fn next_within(&mut self, after: Duration) -> Option<Result<Bytes, FrameError>> {
        self.receiver.next_within(after).await
    }

    /// Sends one frame and flushes; see [`FrameSender::send`]. A cancelled call
    /// never truncates a frame.
    ///
    /// # Errors
    ///
    /// [`FrameError::PayloadTooLarge`], [`FrameError::Closed`], [`FrameError::Io`].
    pub async fn send(&mut self, payload: Bytes) -> Result<(), FrameError> {
        self.feed(payload).await?;
        self.flush().await
    }

    /// Same as [`send`](Self::send) with a deadline of `after`.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send), and [`FrameError::Deadline`]. A frame
    /// that was accepted before the deadline stays queued.
    pub async fn send_within(&mut self, payload: Bytes, after: Duration) -> Result<(), FrameError> {
        within(after, self.send(payload)).await?
    }

    /// Queues one frame for sending; see [`FrameSender::feed`]. A cancelled
    /// call never truncates a frame.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send).
    pub async fn feed(&mut self, payload: Bytes) -> Result<(), FrameError> {
        let (io, queue) = (self.receiver.get_mut(), &mut self.queue);
        poll_fn(|cx| queue.poll_ready(io, cx)).await?;
        self.queue.push(payload)
    }

    /// Waits until the byte stream has accepted every queued frame. Cancel
    /// safe.
    ///
    /// # Errors
    ///
    /// [`FrameError::Closed`], [`FrameError::Io`].
    pub async fn flush(&mut self) -> Result<(), FrameError> {
        let (io, queue) = (self.receiver.get_mut(), &mut self.queue);
        poll_fn(|cx| queue.poll_flush(io, cx)).await
    }

    /// Flushes and then closes the sending direction. The peer receives a clean
    /// end, and this side can still receive frames. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`FrameError::Io`], or [`FrameError::Closed`] if sending failed earlier.
    pub async fn close(&mut self) -> Result<(), FrameError> {
        let (io, queue) = (self.receiver.get_mut(), &mut self.queue);
        poll_fn(|cx| queue.poll_close(io, cx)).await
    }

    /// Splits the stream into its two directions, for example for two tasks.
    /// They share the byte stream through a lock that is held during one poll.
    #[must_use]
    pub fn split(self) -> FrameHalves<S> {
        let (io, receiver) = self.receiver.detach();
        let (reader, writer) = io.split();
        (
            FrameSender::attach(writer, self.queue),
            receiver.attach(reader),
        )
    }

    /// Reunites the two halves that [`split`](Self::split) returned.
    ///
    /// # Errors
    ///
    /// Returns both halves if they do not belong to the same stream.
    #[expect(clippy::result_large_err, reason = "the error returns the halves")]
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
    /// Returns the byte stream. Frames that were received but not returned, and
    /// frames that were queued but not written, are lost.
    #[must_use]
    pub fn into_inner(self) -> S {
        self.into_parts().io
    }

    /// Returns the byte stream and the content of the buffers.
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

/// The parts of a [`FrameStream`], returned by [`FrameStream::into_parts`].
#[derive(Debug)]
#[non_exhaustive]
pub struct FrameParts<S> {
    /// The underlying byte stream.
    pub io: S,
    /// Bytes that were read but belong to no returned frame.
    pub received: Bytes,
    /// Bytes of queued frames that were not written.
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
