//! Open streams with the permits that they hold.

use std::{
    io::{self, IoSlice, IoSliceMut},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use calimero_network_primitives::resources::Permit;
use futures::{AsyncRead, AsyncWrite};
use libp2p_identity::PeerId;
use libp2p_swarm::{ConnectionId, Stream, StreamProtocol};

use crate::{budget::FrameBudget, config::FrameConfig, frame_stream::FrameStream, shared::Shared};

/// A permit for one outbound stream of a connection, released on drop.
#[derive(Debug)]
pub(crate) struct OutboundPermit {
    shared: Arc<Shared>,
    peer: PeerId,
    connection: ConnectionId,
}

impl OutboundPermit {
    pub(crate) fn new(shared: Arc<Shared>, peer: PeerId, connection: ConnectionId) -> Self {
        Self {
            shared,
            peer,
            connection,
        }
    }
}

impl Drop for OutboundPermit {
    fn drop(&mut self) {
        self.shared.released(self.peer, self.connection);
    }
}

/// An open stream of a connection. It implements [`AsyncRead`] and
/// [`AsyncWrite`].
///
/// [`into_frames`](Self::into_frames) reads and writes frames on it, with
/// memory from the budget of its peer.
///
/// Dropping a substream without closing it resets it. It counts against the
/// limits until it is dropped.
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
    _held: Held,
}

/// The permit that an open stream holds.
#[derive(Debug)]
#[expect(dead_code, reason = "held for its drop")]
enum Held {
    Outbound(OutboundPermit),
    Inbound(Permit),
}

impl Substream {
    pub(crate) fn outbound(
        stream: Stream,
        protocol: StreamProtocol,
        relayed: bool,
        budget: FrameBudget,
        permit: OutboundPermit,
    ) -> Self {
        Self {
            stream,
            protocol,
            relayed,
            budget,
            _held: Held::Outbound(permit),
        }
    }

    pub(crate) fn inbound(
        stream: Stream,
        protocol: StreamProtocol,
        relayed: bool,
        budget: FrameBudget,
        permit: Permit,
    ) -> Self {
        Self {
            stream,
            protocol,
            relayed,
            budget,
            _held: Held::Inbound(permit),
        }
    }

    /// Converts the stream to a stream of frames, with memory from the budget
    /// of its peer.
    #[must_use]
    pub fn into_frames(self, config: FrameConfig) -> FrameStream<Self> {
        let budget = self.budget.reader();
        FrameStream::with_budget(self, config, budget)
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
}

impl AsyncRead for Substream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_read(cx, buf)
    }

    fn poll_read_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_read_vectored(cx, bufs)
    }
}

impl AsyncWrite for Substream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write_vectored(cx, bufs)
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
