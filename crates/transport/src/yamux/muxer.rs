//! The Yamux muxer and its streams.

use std::{
    collections::VecDeque,
    io,
    io::IoSlice,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use calimero_network_primitives::{
    config::YamuxTuning,
    limits::YAMUX_INITIAL_WINDOW_BYTES,
    resources::{Holder, Origin},
};
use futures::{AsyncRead, AsyncWrite, FutureExt as _, ready, task::AtomicWaker};
use futures_timer::Delay;
use libp2p_core::muxing::{StreamMuxer, StreamMuxerEvent};

use super::{
    end::{End, Listener},
    io::Io,
    unread::{Connections, Inner, Unread, lock},
};
use crate::{executor::charge_to, link::Link};

/// Largest data frame that is written, in bytes: 16 KiB, the default of the
/// `yamux` crate. All frames of a poll are sent in one write. Over TLS on
/// loopback, both sides together need 0.9 CPU seconds per GiB. With 256 KiB
/// they need 1.2, because each frame is allocated from new pages.
const SPLIT_SEND_BYTES: usize = 16 * 1024;

/// Number of streams above the limit that the `yamux` crate accepts, because
/// refused and dropped streams count until the next poll.
///
/// The crate closes the connection at its own limit, inbound or outbound. At
/// most 256 opened streams wait for the acknowledgement of the peer, so twice
/// that number is not reached by opening streams. A peer above it opens streams
/// without reading the resets, and is disconnected.
const SLACK_STREAMS: usize = 512;

/// Largest number of inbound streams accepted in one poll. The rest wait for
/// the next poll, so that other tasks can run.
const MAX_STREAMS_PER_POLL: usize = 128;

/// Largest number of inbound streams that wait for the swarm, 256, as in libp2p-yamux 0.48. Others are
/// reset. The swarm takes streams as long as few are being negotiated.
const MAX_WAITING_STREAMS: usize = 256;

/// Slices shorter than this number of bytes are combined into one frame. The
/// copy, which is made on the stack, costs less than another header.
const JOIN_BYTES: usize = 4 * 1024;

/// Time limit for closing a connection regularly, which first sends queued
/// data. An unreachable peer accepts none, and the kernel would retransmit for
/// 15 minutes. One second is enough for a round trip with two lost packets on
/// usual paths.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The error with which a Yamux connection ended.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct MuxerError(yamux::ConnectionError);

impl MuxerError {
    /// Returns the error of the `yamux` crate.
    pub(crate) fn cause(&self) -> &yamux::ConnectionError {
        &self.0
    }
}

impl From<yamux::ConnectionError> for MuxerError {
    fn from(error: yamux::ConnectionError) -> Self {
        Self(error)
    }
}

/// The muxer of one connection.
///
/// Each inbound stream above the limit is reset and counted; the connection and
/// the other streams are not affected. Outbound streams wait for capacity.
#[derive(Debug)]
pub(crate) struct Muxer<S> {
    connection: yamux::Connection<Io<S>>,
    /// Inbound streams that arrived while no task polled for them. The crate
    /// makes progress only if it can return them.
    inbound: VecDeque<Stream>,
    inbound_waker: Option<Waker>,
    permits: Arc<Permits>,
    /// The data that the streams have received and not read.
    unread: Arc<Unread>,
    end: End,
    /// Time limit of a close, started with it.
    close_deadline: Option<Delay>,
    link: Arc<Link>,
    /// The origin to which the task of the connection is not charged yet.
    uncharged: Option<Origin>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Muxer<S> {
    /// Unread data is counted in the scopes of `holder`, together with that of `connections`.
    pub(crate) fn new(
        io: S,
        config: &YamuxTuning,
        mode: yamux::Mode,
        link: Arc<Link>,
        holder: Holder,
        connections: &Arc<Connections>,
    ) -> Self {
        let mut inner = yamux::Config::default();
        let streams = config.max_streams.saturating_add(SLACK_STREAMS);
        let window = SLACK_STREAMS
            .saturating_mul(YAMUX_INITIAL_WINDOW_BYTES)
            .saturating_add(config.connection_window_bytes);
        // Each setter validates both values together, so the window limit is
        // removed first.
        inner
            .set_max_connection_receive_window(None)
            .set_max_num_streams(streams)
            .set_max_connection_receive_window(Some(window))
            .set_split_send_size(SPLIT_SEND_BYTES)
            .set_read_after_close(true);
        let unread = Unread::new(holder, connections);
        let io = Io::new(io, Arc::clone(&unread));
        Self {
            connection: yamux::Connection::new(io, inner, mode),
            inbound: VecDeque::new(),
            inbound_waker: None,
            permits: Arc::new(Permits::new(config.max_streams)),
            unread,
            end: End::default(),
            close_deadline: None,
            uncharged: link.origin(),
            link,
        }
    }

    fn stream(&mut self, inner: yamux::Stream, permit: Permit) -> Stream {
        let id = inner.id().val();
        let inner = Arc::new(Mutex::new(Some(inner)));
        self.unread.opened(id, &inner);
        Stream {
            inner,
            id,
            unread: Arc::clone(&self.unread),
            end: self.end.register(),
            closing: false,
            _permit: permit,
        }
    }

    /// Returns the next inbound stream below the limit and resets those above
    /// it.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Stream, MuxerError>> {
        for _ in 0..MAX_STREAMS_PER_POLL {
            let inner = match ready!(self.connection.poll_next_inbound(cx)) {
                Some(stream) => stream?,
                None => return Poll::Ready(Err(yamux::ConnectionError::Closed.into())),
            };
            match self.permits.take() {
                Some(permit) => return Poll::Ready(Ok(self.stream(inner, permit))),
                None => {
                    self.link.refuse_stream();
                    self.unread.refused(inner.id().val());
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
        // The permit is taken first: the `yamux` crate would close the
        // connection at its own limit.
        let permit = ready!(this.permits.poll_take(cx));
        let inner = ready!(this.connection.poll_new_outbound(cx))?;
        Poll::Ready(Ok(this.stream(inner, permit)))
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
        this.end.notify();
        Poll::Ready(closed.map_err(MuxerError))
    }

    fn poll(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<StreamMuxerEvent, Self::Error>> {
        let this = self.get_mut();
        if let Some(origin) = this.uncharged.take() {
            charge_to(origin);
        }
        for _ in 0..MAX_STREAMS_PER_POLL {
            let stream = ready!(this.poll_next(cx))?;
            if this.inbound.len() >= MAX_WAITING_STREAMS {
                this.link.refuse_stream();
                tracing::debug!(stream = stream.id, "inbound stream refused: too many wait");
                continue;
            }
            this.inbound.push_back(stream);
            if let Some(waker) = this.inbound_waker.take() {
                waker.wake();
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// The permits for streams of one connection.
#[derive(Debug)]
struct Permits {
    free: AtomicUsize,
    /// Waker of the task that waits to open a stream. One task polls a
    /// connection, so one waker is enough.
    waiting: AtomicWaker,
}

impl Permits {
    fn new(streams: usize) -> Self {
        Self {
            free: AtomicUsize::new(streams),
            waiting: AtomicWaker::new(),
        }
    }

    fn take(self: &Arc<Self>) -> Option<Permit> {
        self.free
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |free| {
                free.checked_sub(1)
            })
            .ok()
            .map(|_| Permit(Arc::clone(self)))
    }

    fn poll_take(self: &Arc<Self>, cx: &Context<'_>) -> Poll<Permit> {
        if let Some(permit) = self.take() {
            return Poll::Ready(permit);
        }
        self.waiting.register(cx.waker());
        // A permit may have been released before the waker was registered.
        self.take().map_or(Poll::Pending, Poll::Ready)
    }
}

/// A permit for one stream, released on drop.
#[derive(Debug)]
struct Permit(Arc<Permits>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.free.fetch_add(1, Ordering::AcqRel);
        self.0.waiting.wake();
    }
}

/// A stream of a Yamux connection.
#[derive(Debug)]
pub(crate) struct Stream {
    inner: Inner,
    id: u32,
    unread: Arc<Unread>,
    end: Listener,
    /// `true` if this side has started to close the stream.
    closing: bool,
    _permit: Permit,
}

impl Stream {
    /// Executes an operation of the `yamux` crate. It fails if the stream was reset because of its
    /// unread data.
    fn with<T>(
        &self,
        operation: impl FnOnce(Pin<&mut yamux::Stream>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match &mut *lock(&self.inner) {
            Some(inner) => operation(Pin::new(inner)),
            None => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }
}

#[cfg(test)]
impl Stream {
    pub(super) fn is_reset_for_unread_data(&self) -> bool {
        lock(&self.inner).is_none()
    }
}

#[cfg(test)]
impl<S> Muxer<S> {
    pub(super) fn unread(&self) -> &Unread {
        &self.unread
    }
}

/// Returns `true` if the end of a stream is a reset by the peer or the end of the connection, not a
/// close by the peer.
///
/// The crate reports all of them as an end of stream. After a close by the peer alone, this side is
/// still open. A stream that is closed in both directions although this side has not started to close
/// it was reset. After this side has started, the two cannot be distinguished.
fn is_reset(inner: &yamux::Stream, closing: bool) -> bool {
    !closing && inner.is_closed()
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = self.with(|mut inner| {
            let read = inner.as_mut().poll_read(cx, out);
            if !out.is_empty()
                && matches!(read, Poll::Ready(Ok(0)))
                && is_reset(&inner, self.closing)
            {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            read
        });
        if let Poll::Ready(Ok(bytes)) = read {
            self.unread.read(self.id, &self.inner, bytes);
        }
        self.end.read(read, cx)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let write = self.with(|inner| inner.poll_write(cx, data));
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

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flush = self.with(|inner| inner.poll_flush(cx));
        self.end.write(flush, cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.closing = true;
        let close = self.with(|inner| inner.poll_close(cx));
        self.end.write(close, cx)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.unread.dropped(self.id, &self.inner);
    }
}
