//! The muxer and its streams.

use std::{
    collections::VecDeque,
    io,
    io::IoSlice,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use calimero_network_primitives::{config::YamuxTuning, limits::YAMUX_INITIAL_WINDOW_BYTES};
use futures::{AsyncRead, AsyncWrite, FutureExt as _, ready, task::AtomicWaker};
use futures_timer::Delay;
use libp2p_core::muxing::{StreamMuxer, StreamMuxerEvent};

use super::{
    end::{End, Listener},
    io::Io,
};
use crate::link::Link;

/// Largest data frame that is written, in bytes: 16 KiB, as in the `yamux` crate. All frames of a
/// round are sent in one write. Measured at 0.9 CPU seconds per GiB for both sides over TLS, against
/// 1.2 at 256 KiB, where each frame is allocated from fresh pages.
const SPLIT_SEND_BYTES: usize = 16 * 1024;

/// Streams that the `yamux` crate may know of beyond the limit, because it has not yet been
/// polled since they were refused or dropped.
///
/// The crate ends the connection at its own limit, inbound or outbound. At most 256 opened
/// streams wait for the peer's acknowledgement, so twice that is never reached by opening; a
/// peer that goes beyond it opens streams without reading the refusals, and has its end.
const SLACK_STREAMS: usize = 512;

/// Inbound streams taken in one poll. More wait for the next, so that others have their turn.
const MAX_STREAMS_A_POLL: usize = 128;

/// Slices shorter than this are written as one frame, in bytes. The copy costs less than
/// another header, and is made on the stack.
const JOIN_BYTES: usize = 4 * 1024;

/// Time for a connection to be closed in good order: what was written and not sent goes out
/// first. A peer that has vanished takes nothing, and the kernel would go on asking it for a
/// quarter of an hour; a second is a round trip of any path, with two packets lost.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a Yamux connection ended.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct MuxerError(yamux::ConnectionError);

impl MuxerError {
    /// The error of the `yamux` crate.
    pub(crate) fn cause(&self) -> &yamux::ConnectionError {
        &self.0
    }
}

impl From<yamux::ConnectionError> for MuxerError {
    fn from(error: yamux::ConnectionError) -> Self {
        Self(error)
    }
}

/// The streams of one connection.
///
/// Of more inbound streams than allowed each is reset on its own, and counted; the connection
/// and the other streams live on. Outbound ones wait for room.
#[derive(Debug)]
pub(crate) struct Muxer<S> {
    connection: yamux::Connection<Io<S>>,
    /// Inbound streams that came while nobody asked for them: the crate makes progress only by
    /// handing them out. Bounded by the slots.
    inbound: VecDeque<Stream>,
    inbound_waker: Option<Waker>,
    slots: Arc<Slots>,
    end: End,
    /// Runs from the moment a close begins.
    close_deadline: Option<Delay>,
    link: Arc<Link>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Muxer<S> {
    pub(crate) fn new(io: S, config: &YamuxTuning, mode: yamux::Mode, link: Arc<Link>) -> Self {
        let mut inner = yamux::Config::default();
        let streams = config.max_streams.saturating_add(SLACK_STREAMS);
        let window = SLACK_STREAMS
            .saturating_mul(YAMUX_INITIAL_WINDOW_BYTES)
            .saturating_add(config.connection_window_bytes);
        // Each setter checks both values against each other, so the window is opened first.
        inner
            .set_max_connection_receive_window(None)
            .set_max_num_streams(streams)
            .set_max_connection_receive_window(Some(window))
            .set_split_send_size(SPLIT_SEND_BYTES)
            .set_read_after_close(true);
        Self {
            connection: yamux::Connection::new(Io::new(io), inner, mode),
            inbound: VecDeque::new(),
            inbound_waker: None,
            slots: Arc::new(Slots::new(config.max_streams)),
            end: End::default(),
            close_deadline: None,
            link,
        }
    }

    fn stream(&mut self, inner: yamux::Stream, slot: Slot) -> Stream {
        Stream {
            inner,
            end: self.end.listen(),
            closing: false,
            _slot: slot,
        }
    }

    /// The next inbound stream there is room for.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Stream, MuxerError>> {
        for _ in 0..MAX_STREAMS_A_POLL {
            let inner = match ready!(self.connection.poll_next_inbound(cx)) {
                Some(stream) => stream?,
                None => return Poll::Ready(Err(yamux::ConnectionError::Closed.into())),
            };
            match self.slots.take() {
                Some(slot) => return Poll::Ready(Ok(self.stream(inner, slot))),
                None => {
                    self.link.refuse_stream();
                    tracing::debug!(stream = %inner, "inbound stream refused: too many are open");
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> StreamMuxer for Muxer<S> {
    type Substream = Stream;
    type Error = MuxerError;

    fn poll_inbound(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        let this = self.get_mut();
        if let Some(stream) = this.inbound.pop_front() {
            return Poll::Ready(Ok(stream));
        }
        let next = this.poll_next(cx);
        if next.is_pending() {
            this.inbound_waker = Some(cx.waker().clone());
        }
        next
    }

    fn poll_outbound(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        let this = self.get_mut();
        let slot = ready!(this.slots.poll_take(cx));
        let inner = ready!(this.connection.poll_new_outbound(cx))?;
        Poll::Ready(Ok(this.stream(inner, slot)))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let this = self.get_mut();
        let deadline = this
            .close_deadline
            .get_or_insert_with(|| Delay::new(CLOSE_TIMEOUT));
        let closed = match this.connection.poll_close(cx) {
            Poll::Ready(closed) => closed,
            Poll::Pending => {
                ready!(deadline.poll_unpin(cx));
                Err(io::Error::from(io::ErrorKind::TimedOut).into())
            }
        };
        this.end.come();
        Poll::Ready(closed.map_err(MuxerError))
    }

    fn poll(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<StreamMuxerEvent, Self::Error>> {
        let this = self.get_mut();
        for _ in 0..MAX_STREAMS_A_POLL {
            let stream = ready!(this.poll_next(cx))?;
            this.inbound.push_back(stream);
            if let Some(waker) = this.inbound_waker.take() {
                waker.wake();
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Room for streams.
#[derive(Debug)]
struct Slots {
    free: AtomicUsize,
    /// Whoever waits to open a stream. One connection has one task, so one is enough.
    waiting: AtomicWaker,
}

impl Slots {
    fn new(streams: usize) -> Self {
        Self {
            free: AtomicUsize::new(streams),
            waiting: AtomicWaker::new(),
        }
    }

    fn take(self: &Arc<Self>) -> Option<Slot> {
        self.free
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |free| {
                free.checked_sub(1)
            })
            .ok()
            .map(|_| Slot(Arc::clone(self)))
    }

    fn poll_take(self: &Arc<Self>, cx: &Context<'_>) -> Poll<Slot> {
        if let Some(slot) = self.take() {
            return Poll::Ready(slot);
        }
        self.waiting.register(cx.waker());
        // One may have become free before the waker was there.
        self.take().map_or(Poll::Pending, Poll::Ready)
    }
}

/// The room of one stream, given back when it is dropped.
#[derive(Debug)]
struct Slot(Arc<Slots>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.free.fetch_add(1, Ordering::AcqRel);
        self.0.waiting.wake();
    }
}

/// A stream of a Yamux connection.
#[derive(Debug)]
pub(crate) struct Stream {
    inner: yamux::Stream,
    end: Listener,
    /// Whether this side has begun to close.
    closing: bool,
    _slot: Slot,
}

impl Stream {
    /// Whether an end of the stream is a reset by the peer, or the end of the connection, and
    /// not the peer's close.
    ///
    /// The crate tells all of them as an end. But a close of the peer alone leaves this side
    /// open; a stream that is closed both ways while this side has not begun to was cut. Once it
    /// has, the two look alike.
    fn is_reset(&self) -> bool {
        !self.closing && self.inner.is_closed()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = Pin::new(&mut self.inner).poll_read(cx, out);
        if !out.is_empty() && matches!(read, Poll::Ready(Ok(0))) && self.is_reset() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        self.end.read(read, cx)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.inner).poll_write(cx, data);
        self.end.write(write, cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut slices = data.iter().filter(|slice| !slice.is_empty());
        let Some(first) = slices.next() else {
            return Poll::Ready(Ok(0));
        };
        if first.len() >= JOIN_BYTES {
            return self.poll_write(cx, first);
        }
        let mut joined = [0; JOIN_BYTES];
        let mut length = 0;
        for slice in std::iter::once(first).chain(slices) {
            let count = slice.len().min(JOIN_BYTES - length);
            joined[length..length + count].copy_from_slice(&slice[..count]);
            length += count;
            if length == JOIN_BYTES {
                break;
            }
        }
        self.poll_write(cx, &joined[..length])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flush = Pin::new(&mut self.inner).poll_flush(cx);
        self.end.write(flush, cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.closing = true;
        let close = Pin::new(&mut self.inner).poll_close(cx);
        self.end.write(close, cx)
    }
}
