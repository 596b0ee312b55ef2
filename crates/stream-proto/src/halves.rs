//! The two directions of a frame stream: [`FrameSender`] and [`FrameReceiver`].

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures::{AsyncRead, AsyncWrite, Sink, Stream, future::Either, stream::FusedStream};
use futures_timer::Delay;

use crate::{
    config::FrameConfig, decoder::FrameDecoder, encoder::FrameEncoder, error::FrameError,
    read_budget::ReadBudget,
};

/// Receives frames from any [`AsyncRead`].
///
/// It is created by [`FrameStream::split`](crate::FrameStream::split) or from a
/// byte source, and implements [`futures::Stream`].
#[derive(Debug)]
pub struct FrameReceiver<R> {
    io: R,
    decoder: FrameDecoder,
    budget: Option<Box<dyn ReadBudget>>,
    config: FrameConfig,
    ended: bool,
}

impl<R: AsyncRead + Unpin> FrameReceiver<R> {
    /// Creates a receiver of frames from `io` with the default sizes.
    #[must_use]
    pub fn new(io: R) -> Self {
        Self::with_config(io, FrameConfig::default())
    }

    /// Creates a receiver of frames from `io` with the sizes of `config`.
    #[must_use]
    pub fn with_config(io: R, config: FrameConfig) -> Self {
        Self {
            io,
            decoder: FrameDecoder::new(config),
            budget: None,
            config,
            ended: false,
        }
    }

    /// Creates a receiver of frames from `io` that uses memory from `budget`.
    ///
    /// The receiver does not read while the budget has no memory for the
    /// current frame, which causes back-pressure on the peer.
    #[must_use]
    pub fn with_budget(io: R, config: FrameConfig, budget: Box<dyn ReadBudget>) -> Self {
        Self {
            budget: Some(budget),
            ..Self::with_config(io, config)
        }
    }

    /// Receives the next frame. Returns `None` after a clean end and after an
    /// error was returned.
    ///
    /// Cancel safe: a cancelled call loses no data, and the next call continues
    /// where it stopped.
    ///
    /// # Errors
    ///
    /// [`FrameError::TooLarge`], [`FrameError::Cut`] or [`FrameError::Io`],
    /// each at most once.
    pub async fn next(&mut self) -> Option<Result<Bytes, FrameError>> {
        poll_fn(|cx| self.poll_frame(cx)).await
    }

    /// Receives the next frame within `after`. Cancel safe.
    ///
    /// # Errors
    ///
    /// Those of [`next`](Self::next), and [`FrameError::Deadline`], after which
    /// received bytes stay buffered and the stream stays usable.
    pub async fn next_within(&mut self, after: Duration) -> Option<Result<Bytes, FrameError>> {
        match within(after, self.next()).await {
            Ok(frame) => frame,
            Err(error) => Some(Err(error)),
        }
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, FrameError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = ready!(self.poll_decode(cx)).transpose();
        if !matches!(frame, Some(Ok(_))) {
            self.ended = true;
            // The caller may retain a receiver that has ended, so the memory of
            // the budget is released here.
            if self.budget.take().is_some() {
                self.decoder = FrameDecoder::new(self.config);
            }
        }
        Poll::Ready(frame)
    }

    fn poll_decode(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, FrameError>> {
        loop {
            // A reservation may be pending for a long time, so complete frames are
            // returned before it.
            if let Some(frame) = self.decoder.next_frame()? {
                if self.decoder.is_drained() {
                    self.settle();
                }
                return Poll::Ready(Ok(Some(frame)));
            }
            let limit = match &mut self.budget {
                Some(budget) => {
                    let (needed, wanted) = (self.decoder.needed(), self.decoder.wanted());
                    ready!(budget.poll_reserve(cx, needed, wanted))?
                }
                None => usize::MAX,
            };
            match Pin::new(&mut self.io).poll_read(cx, self.decoder.space_within(limit)) {
                Poll::Ready(Ok(0)) => return Poll::Ready(self.decoder.end().map(|()| None)),
                Poll::Ready(Ok(n)) => {
                    self.decoder.arrived(n);
                    if let Some(budget) = &mut self.budget {
                        budget.on_arrived(n);
                    }
                }
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                Poll::Pending => {
                    self.decoder.idle();
                    if self.decoder.is_empty() {
                        self.settle();
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Releases memory that the current frame does not need.
    fn settle(&mut self) {
        if let Some(budget) = &mut self.budget {
            let keep = budget.settle(self.decoder.begun(), self.decoder.reusable());
            self.decoder.shed(keep);
        }
    }
}

impl<R> FrameReceiver<R> {
    /// Returns the byte source and the bytes that were read but not returned as
    /// a frame.
    #[must_use]
    pub fn into_parts(self) -> (R, Bytes) {
        (self.io, self.decoder.into_rest())
    }

    /// Returns the size of the receive buffer, in bytes.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.decoder.capacity()
    }

    pub(crate) fn get_mut(&mut self) -> &mut R {
        &mut self.io
    }

    /// Separates the byte source from the state of the receiver.
    pub(crate) fn detach(self) -> (R, FrameReceiver<()>) {
        let io_less = FrameReceiver {
            io: (),
            decoder: self.decoder,
            budget: self.budget,
            config: self.config,
            ended: self.ended,
        };
        (self.io, io_less)
    }
}

impl FrameReceiver<()> {
    /// Continues with the same state on the byte source `io`.
    pub(crate) fn attach<R>(self, io: R) -> FrameReceiver<R> {
        FrameReceiver {
            io,
            decoder: self.decoder,
            budget: self.budget,
            config: self.config,
            ended: self.ended,
        }
    }
}

impl<R: AsyncRead + Unpin> Stream for FrameReceiver<R> {
    type Item = Result<Bytes, FrameError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_frame(cx)
    }
}

impl<R: AsyncRead + Unpin> FusedStream for FrameReceiver<R> {
    fn is_terminated(&self) -> bool {
        self.ended
    }
}

/// Sends frames to any [`AsyncWrite`].
///
/// It is created by [`FrameStream::split`](crate::FrameStream::split) or from a
/// byte sink, and implements [`futures::Sink`].
#[derive(Debug)]
pub struct FrameSender<W> {
    io: W,
    queue: SendQueue,
}

impl<W: AsyncWrite + Unpin> FrameSender<W> {
    /// Creates a sender of frames to `io` with the default sizes.
    #[must_use]
    pub fn new(io: W) -> Self {
        Self::with_config(io, FrameConfig::default())
    }

    /// Creates a sender of frames to `io` with the sizes of `config`.
    #[must_use]
    pub fn with_config(io: W, config: FrameConfig) -> Self {
        Self {
            io,
            queue: SendQueue::new(config),
        }
    }

    /// Sends one frame and waits until the byte sink has accepted all of it.
    ///
    /// A call that is cancelled before the frame was accepted sends nothing of
    /// it. After that, the next call sends the rest. A frame is never
    /// truncated.
    ///
    /// # Errors
    ///
    /// [`FrameError::PayloadTooLarge`] (nothing is sent and the stream stays
    /// usable), [`FrameError::Closed`], [`FrameError::Io`].
    pub async fn send(&mut self, payload: Bytes) -> Result<(), FrameError> {
        self.feed(payload).await?;
        self.flush().await
    }

    /// Queues one frame for sending and waits for space in the send buffer if
    /// necessary. Small frames are written when the buffer is full or on the
    /// next [`flush`](Self::flush). Cancel safe in the same way as
    /// [`send`](Self::send).
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send).
    pub async fn feed(&mut self, payload: Bytes) -> Result<(), FrameError> {
        poll_fn(|cx| self.queue.poll_ready(&mut self.io, cx)).await?;
        self.queue.push(payload)
    }

    /// Waits until the byte sink has accepted every queued frame. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`FrameError::Closed`], [`FrameError::Io`].
    pub async fn flush(&mut self) -> Result<(), FrameError> {
        poll_fn(|cx| self.queue.poll_flush(&mut self.io, cx)).await
    }

    /// Flushes and then closes this direction. The peer receives a clean end.
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// [`FrameError::Io`], or [`FrameError::Closed`] if sending failed earlier.
    pub async fn close(&mut self) -> Result<(), FrameError> {
        poll_fn(|cx| self.queue.poll_close(&mut self.io, cx)).await
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
}

impl<W> FrameSender<W> {
    /// Returns the byte sink and the bytes of queued frames that were not
    /// written.
    #[must_use]
    pub fn into_parts(self) -> (W, Bytes) {
        (self.io, self.queue.into_rest())
    }

    pub(crate) fn attach(io: W, queue: SendQueue) -> Self {
        Self { io, queue }
    }

    pub(crate) fn detach(self) -> (W, SendQueue) {
        (self.io, self.queue)
    }
}

impl<W: AsyncWrite + Unpin> Sink<Bytes> for FrameSender<W> {
    type Error = FrameError;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), FrameError>> {
        let this = self.get_mut();
        this.queue.poll_ready(&mut this.io, cx)
    }

    fn start_send(self: Pin<&mut Self>, payload: Bytes) -> Result<(), FrameError> {
        self.get_mut().queue.push(payload)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), FrameError>> {
        let this = self.get_mut();
        this.queue.poll_flush(&mut this.io, cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), FrameError>> {
        let this = self.get_mut();
        this.queue.poll_close(&mut this.io, cx)
    }
}

/// State of the sending direction without the byte sink, which a
/// [`FrameStream`](crate::FrameStream) shares with its receiver.
#[derive(Debug)]
pub(crate) struct SendQueue {
    encoder: FrameEncoder,
    status: Status,
    /// How a substream ends that is dropped. `None` for other byte sinks.
    drop_end: Option<DropEnd>,
}

/// How a substream ends that is dropped while frames are sent on it, shared by
/// the substream and the queue of its frames.
#[derive(Clone, Debug, Default)]
pub(crate) struct DropEnd(Arc<AtomicBool>);

impl DropEnd {
    /// Returns `true` if the sending direction is finished, so that the peer
    /// receives all that was written. Otherwise the stream is reset.
    #[cfg(feature = "libp2p")]
    pub(crate) fn finishes(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn set(&self, finishes: bool) {
        self.0.store(finishes, Ordering::Release);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Open,
    Closed,
    Failed,
}

impl SendQueue {
    pub(crate) fn new(config: FrameConfig) -> Self {
        Self {
            encoder: FrameEncoder::new(config),
            status: Status::Open,
            drop_end: None,
        }
    }

    /// Finishes the byte sink when it is dropped, according to `drop_end`.
    #[cfg(feature = "libp2p")]
    pub(crate) fn with_drop_end(mut self, drop_end: DropEnd) -> Self {
        self.drop_end = Some(drop_end);
        self.note_drop_end();
        self
    }

    /// Returns the bytes that were not written. The caller has the byte sink
    /// for itself from then on, and a drop resets it.
    pub(crate) fn into_rest(self) -> Bytes {
        if let Some(drop_end) = &self.drop_end {
            drop_end.set(false);
        }
        self.encoder.into_rest()
    }

    pub(crate) fn push(&mut self, payload: Bytes) -> Result<(), FrameError> {
        self.open()?;
        self.encoder.push(payload)?;
        self.note_drop_end();
        Ok(())
    }

    /// Notes how a drop ends the byte sink at present.
    ///
    /// It is finished if every queued frame was written, and within a frame,
    /// where the reader reports [`FrameError::Cut`]. Between two frames, of
    /// which the second is queued, an end would look clean. A stream on which
    /// nothing was sent is reset.
    fn note_drop_end(&self) {
        if let Some(drop_end) = &self.drop_end {
            let distinct = self.encoder.is_empty() || self.encoder.is_within_frame();
            drop_end.set(self.status == Status::Open && self.encoder.has_written() && distinct);
        }
    }

    pub(crate) fn poll_ready(
        &mut self,
        io: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), FrameError>> {
        self.open()?;
        if self.encoder.has_capacity() {
            return Poll::Ready(Ok(()));
        }
        match self.poll_write_all(io, cx) {
            // One frame fits, although not everything was written.
            Poll::Pending if self.encoder.has_capacity() => Poll::Ready(Ok(())),
            other => other,
        }
    }

    pub(crate) fn poll_flush(
        &mut self,
        io: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), FrameError>> {
        self.open()?;
        ready!(self.poll_write_all(io, cx))?;
        let flushed = ready!(Pin::new(io).poll_flush(cx));
        Poll::Ready(self.settle(flushed))
    }

    pub(crate) fn poll_close(
        &mut self,
        io: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), FrameError>> {
        if self.status == Status::Closed {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_flush(io, cx))?;
        let closed = ready!(Pin::new(io).poll_close(cx));
        self.settle(closed)?;
        self.status = Status::Closed;
        Poll::Ready(Ok(()))
    }

    fn poll_write_all(
        &mut self,
        io: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), FrameError>> {
        while !self.encoder.is_empty() {
            let slices = self.encoder.slices();
            let write = match &slices {
                [only, rest] | [rest, only] if rest.is_empty() => {
                    Pin::new(&mut *io).poll_write(cx, only)
                }
                both => Pin::new(&mut *io).poll_write_vectored(cx, both),
            };
            match ready!(write) {
                Ok(0) => return Poll::Ready(self.settle(Err(io::ErrorKind::WriteZero.into()))),
                Ok(n) => {
                    self.encoder.written(n);
                    self.note_drop_end();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(self.settle(Err(error))),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn open(&self) -> Result<(), FrameError> {
        match self.status {
            Status::Open => Ok(()),
            Status::Closed | Status::Failed => Err(FrameError::Closed),
        }
    }

    /// Marks the direction as failed on an error. From then on it is unknown
    /// how much of the current frame the peer has received.
    fn settle(&mut self, result: io::Result<()>) -> Result<(), FrameError> {
        if result.is_err() {
            self.status = Status::Failed;
            self.note_drop_end();
        }
        Ok(result?)
    }
}

/// Longest duration of a timer: one year. A much longer timer would overflow
/// the clock.
const LONGEST_WAIT: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Limits `after` to [`LONGEST_WAIT`].
pub(crate) fn clamp_timeout(after: Duration) -> Duration {
    after.min(LONGEST_WAIT)
}

/// Runs `work` with a deadline. If the result and the deadline are ready at the
/// same time, the result is returned.
pub(crate) async fn within<T>(
    after: Duration,
    work: impl Future<Output = T>,
) -> Result<T, FrameError> {
    match futures::future::select(pin!(work), Delay::new(clamp_timeout(after))).await {
        Either::Left((output, _)) => Ok(output),
        Either::Right(((), _)) => Err(FrameError::Deadline { after }),
    }
}
