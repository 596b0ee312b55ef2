//! One direction each: [`FrameSender`] and [`FrameReceiver`].

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
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

/// Receives frames from any byte source.
///
/// Made by [`FrameStream::split`](crate::FrameStream::split), or from a source of its own. Also a
/// [`futures::Stream`].
#[derive(Debug)]
pub struct FrameReceiver<R> {
    io: R,
    decoder: FrameDecoder,
    budget: Option<Box<dyn ReadBudget>>,
    config: FrameConfig,
    ended: bool,
}

impl<R: AsyncRead + Unpin> FrameReceiver<R> {
    /// Receives from `io` with the default sizes.
    #[must_use]
    pub fn new(io: R) -> Self {
        Self::with_config(io, FrameConfig::default())
    }

    /// Receives from `io`.
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

    /// Receives from `io` with memory from `budget`.
    ///
    /// The receiver does not read while the budget has no memory for the frame at hand, so that the
    /// peer meets back-pressure.
    #[must_use]
    pub fn with_budget(io: R, config: FrameConfig, budget: Box<dyn ReadBudget>) -> Self {
        Self {
            budget: Some(budget),
            ..Self::with_config(io, config)
        }
    }

    /// The next frame; `None` after a clean end, and after an error has been said.
    ///
    /// Cancel safe: a dropped call loses nothing, the next one goes on where it stopped.
    ///
    /// # Errors
    ///
    /// [`FrameError::TooLarge`], [`FrameError::Cut`] or [`FrameError::Io`], each of them once.
    pub async fn next(&mut self) -> Option<Result<Bytes, FrameError>> {
        poll_fn(|cx| self.poll_frame(cx)).await
    }

    /// The next frame, if it is whole within `after`. Cancel safe.
    ///
    /// # Errors
    ///
    /// Those of [`next`](Self::next), and [`FrameError::Deadline`], after which what has arrived
    /// stays buffered and the stream goes on.
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
            // The caller may keep a receiver that has ended. Memory of a budget is released now.
            if self.budget.take().is_some() {
                self.decoder = FrameDecoder::new(self.config);
            }
        }
        Poll::Ready(frame)
    }

    fn poll_decode(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, FrameError>> {
        loop {
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

    /// Gives memory back that the frame at hand does not need.
    fn settle(&mut self) {
        if let Some(budget) = &mut self.budget {
            let keep = budget.settle(self.decoder.begun(), self.decoder.reusable());
            self.decoder.shed(keep);
        }
    }
}

impl<R> FrameReceiver<R> {
    /// The source and what was read from it but not received as a frame.
    #[must_use]
    pub fn into_parts(self) -> (R, Bytes) {
        (self.io, self.decoder.into_rest())
    }

    /// Bytes the receive buffer takes.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.decoder.capacity()
    }

    pub(crate) fn get_mut(&mut self) -> &mut R {
        &mut self.io
    }

    /// The source, and the direction without it.
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
    /// The same direction on the carrier `io`.
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

/// Sends frames into any byte sink.
///
/// Made by [`FrameStream::split`](crate::FrameStream::split), or from a sink of its own. Also a
/// [`futures::Sink`].
#[derive(Debug)]
pub struct FrameSender<W> {
    io: W,
    queue: SendQueue,
}

impl<W: AsyncWrite + Unpin> FrameSender<W> {
    /// Sends to `io` with the default sizes.
    #[must_use]
    pub fn new(io: W) -> Self {
        Self::with_config(io, FrameConfig::default())
    }

    /// Sends to `io`.
    #[must_use]
    pub fn with_config(io: W, config: FrameConfig) -> Self {
        Self {
            io,
            queue: SendQueue::new(config),
        }
    }

    /// Sends one frame and waits until the byte sink has taken all of it.
    ///
    /// Cancel safe as to the framing: a call dropped before the frame is taken sends nothing of
    /// it; once it is taken, the rest goes out with the next call. A frame is never torn.
    ///
    /// # Errors
    ///
    /// [`FrameError::PayloadTooLarge`] (nothing is sent and the stream goes on),
    /// [`FrameError::Closed`], [`FrameError::Io`].
    pub async fn send(&mut self, payload: Bytes) -> Result<(), FrameError> {
        self.feed(payload).await?;
        self.flush().await
    }

    /// Takes one frame for sending, waiting for room first. Small frames are gathered and leave
    /// when the buffer is full or with the next [`flush`](Self::flush). Cancel safe like
    /// [`send`](Self::send).
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send).
    pub async fn feed(&mut self, payload: Bytes) -> Result<(), FrameError> {
        poll_fn(|cx| self.queue.poll_ready(&mut self.io, cx)).await?;
        self.queue.push(payload)
    }

    /// Waits until the byte sink has taken every frame fed so far. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`FrameError::Closed`], [`FrameError::Io`].
    pub async fn flush(&mut self) -> Result<(), FrameError> {
        poll_fn(|cx| self.queue.poll_flush(&mut self.io, cx)).await
    }

    /// Flushes, then closes this direction: the peer receives a clean end. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`FrameError::Io`]; [`FrameError::Closed`] if it failed before.
    pub async fn close(&mut self) -> Result<(), FrameError> {
        poll_fn(|cx| self.queue.poll_close(&mut self.io, cx)).await
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
}

impl<W> FrameSender<W> {
    /// The sink and what was taken for sending but not written to it.
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

/// The sending direction without its carrier, which a [`FrameStream`](crate::FrameStream) shares
/// with the receiving one.
#[derive(Debug)]
pub(crate) struct SendQueue {
    encoder: FrameEncoder,
    status: Status,
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
        }
    }

    pub(crate) fn into_rest(self) -> Bytes {
        self.encoder.into_rest()
    }

    pub(crate) fn push(&mut self, payload: Bytes) -> Result<(), FrameError> {
        self.open()?;
        self.encoder.push(payload)
    }

    pub(crate) fn poll_ready(
        &mut self,
        io: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), FrameError>> {
        self.open()?;
        if self.encoder.has_room() {
            return Poll::Ready(Ok(()));
        }
        match self.poll_write_all(io, cx) {
            // Room for a frame is enough.
            Poll::Pending if self.encoder.has_room() => Poll::Ready(Ok(())),
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
                Ok(n) => self.encoder.written(n),
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

    /// Remembers a failure: how much of the frame at hand the peer has is unknown from then on.
    fn settle(&mut self, result: io::Result<()>) -> Result<(), FrameError> {
        if result.is_err() {
            self.status = Status::Failed;
        }
        Ok(result?)
    }
}

/// Longest time that is waited, whatever is asked for: one year. A timer far beyond it overflows
/// the clock.
const LONGEST_WAIT: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// `after`, as far as a timer can take it.
pub(crate) fn waitable(after: Duration) -> Duration {
    after.min(LONGEST_WAIT)
}

/// `work`'s result, or the deadline. A result that is there when the deadline passes wins.
pub(crate) async fn within<T>(
    after: Duration,
    work: impl Future<Output = T>,
) -> Result<T, FrameError> {
    match futures::future::select(pin!(work), Delay::new(waitable(after))).await {
        Either::Left((output, _)) => Ok(output),
        Either::Right(((), _)) => Err(FrameError::Deadline { after }),
    }
}
