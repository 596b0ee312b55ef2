//! Open streams with the permits that they hold.

use std::{
    fmt,
    io::{self, IoSlice, IoSliceMut},
    pin::Pin,
    task::{Context, Poll, Waker},
};

use futures::{AsyncRead, AsyncWrite};
use libp2p_identity::PeerId;
use libp2p_swarm::{ConnectionId, Stream, StreamProtocol};

use crate::{
    budget::FrameBudget, config::FrameConfig, frame_stream::FrameStream, halves::DropEnd,
    traffic::Counted,
};

/// An open stream of a connection. It implements [`AsyncRead`] and
/// [`AsyncWrite`].
///
/// [`into_frames`](Self::into_frames) reads and writes frames on it, with
/// memory from the budget of its peer.
///
/// Dropping a substream without closing it resets it, except where it carries
/// frames; see [`FrameStream`]. It counts against the limits until it is
/// dropped.
///
/// Yamux reports a reset to the reader as an end of stream. A protocol that
/// must distinguish the two has to mark its end in its own messages.
#[derive(Debug)]
pub struct Substream {
    // Dropped first, so that the permit is released after the stream was
    // closed.
    stream: Stream,
    protocol: StreamProtocol,
    relayed: bool,
    budget: FrameBudget,
    counted: Counted,
    /// Set while frames are sent.
    drop_end: Option<DropEnd>,
    _held: Box<dyn Held>,
}

impl Drop for Substream {
    fn drop(&mut self) {
        // A stream that is dropped by a panic is reset: what it carried is not
        // complete.
        let finishes = self.drop_end.as_ref().is_some_and(DropEnd::finishes);
        if finishes && !std::thread::panicking() {
            // QUIC finishes at once. Yamux queues the end behind the data; if
            // its queue is full, a reset follows the data instead.
            let mut cx = Context::from_waker(Waker::noop());
            let _ = Pin::new(&mut self.stream).poll_close(&mut cx);
        }
    }
}

/// What an open stream holds until it is dropped.
pub(crate) trait Held: fmt::Debug + Send + Sync {}

impl<T: fmt::Debug + Send + Sync> Held for T {}

impl Substream {
    /// Returns a stream that holds `permit` until it is dropped.
    pub(crate) fn new(
        stream: Stream,
        protocol: StreamProtocol,
        relayed: bool,
        budget: FrameBudget,
        counted: Counted,
        permit: impl Held + 'static,
    ) -> Self {
        Self {
            stream,
            protocol,
            relayed,
            budget,
            counted,
            drop_end: None,
            _held: Box::new(permit),
        }
    }

    /// Converts the stream to a stream of frames, with memory from the budget
    /// of its peer.
    #[must_use]
    pub fn into_frames(mut self, config: FrameConfig) -> FrameStream<Self> {
        let budget = self.budget.reader();
        let drop_end = DropEnd::default();
        self.drop_end = Some(drop_end.clone());
        FrameStream::with_budget(self, config, budget).with_drop_end(drop_end)
    }

    /// Returns the budget for incomplete frames of this stream.
    #[must_use]
    pub fn frame_budget(&self) -> &FrameBudget {
        &self.budget
    }

    /// Excludes this stream from the keep-alive of its connection, as
    /// [`Stream::ignore_for_keep_alive`] does.
    pub fn ignore_for_keep_alive(&mut self) {
        self.stream.ignore_for_keep_alive();
    }

    /// Returns the protocol that was negotiated.
    #[must_use]
    pub fn protocol(&self) -> &StreamProtocol {
        &self.protocol
    }

    /// Returns `true` if the connection is relayed. Relayed connections usually
    /// have limits on bytes and time.
    #[must_use]
    pub fn is_relayed(&self) -> bool {
        self.relayed
    }

    fn stream(self: Pin<&mut Self>) -> Pin<&mut Stream> {
        Pin::new(&mut self.get_mut().stream)
    }

    /// Counts the bytes of a read.
    fn received(&self, read: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = read {
            self.counted.received(bytes);
        }
        read
    }

    /// Counts the bytes of a write.
    fn sent(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = written {
            self.counted.sent(bytes);
        }
        written
    }
}

impl AsyncRead for Substream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let done = self.as_mut().stream().poll_read(cx, buf);
        self.received(done)
    }

    fn poll_read_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = self.as_mut().stream().poll_read_vectored(cx, bufs);
        self.received(done)
    }
}

impl AsyncWrite for Substream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let done = self.as_mut().stream().poll_write(cx, buf);
        self.sent(done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = self.as_mut().stream().poll_write_vectored(cx, bufs);
        self.sent(done)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_close(cx)
    }
}

/// A stream that a remote peer opened.
#[derive(Debug)]
#[non_exhaustive]
pub struct Inbound {
    /// The remote peer that opened the stream.
    pub peer: PeerId,
    /// The connection of the stream.
    pub connection: ConnectionId,
    /// The protocol that was negotiated.
    pub protocol: StreamProtocol,
    /// The stream that the peer opened.
    pub stream: Substream,
}
