//! Streams as they are handed to users, with the permits that they hold.

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

/// A slot among the streams opened on a connection, given back when dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    shared: Arc<Shared>,
    peer: PeerId,
    connection: ConnectionId,
}

impl Slot {
    pub(crate) fn new(shared: Arc<Shared>, peer: PeerId, connection: ConnectionId) -> Self {
        Self {
            shared,
            peer,
            connection,
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.shared.released(self.peer, self.connection);
    }
}

/// An open stream of a connection: [`AsyncRead`] and [`AsyncWrite`].
///
/// [`into_frames`](Self::into_frames) reads and writes it in frames, with memory from the budget of
/// its peer.
///
/// Dropping it without closing it resets it. It counts against the limits until it is dropped.
///
/// Yamux shows a reset to its reader as an end of the stream: a protocol that must tell the two
/// apart marks its end itself.
#[derive(Debug)]
pub struct Substream {
    // Dropped first: the permit is released when the stream is closed.
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
    Outbound(Slot),
    Inbound(Permit),
}

impl Substream {
    pub(crate) fn outbound(
        stream: Stream,
        protocol: StreamProtocol,
        relayed: bool,
        budget: FrameBudget,
        slot: Slot,
    ) -> Self {
        Self {
            stream,
            protocol,
            relayed,
            budget,
            _held: Held::Outbound(slot),
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

    /// Reads and writes the stream in frames, with memory from the budget of its peer.
    #[must_use]
    pub fn into_frames(self, config: FrameConfig) -> FrameStream<Self> {
        let budget = self.budget.reader();
        FrameStream::with_budget(self, config, budget)
    }

    /// The memory that frames of this stream may use until they have arrived in full.
    #[must_use]
    pub fn frame_budget(&self) -> &FrameBudget {
        &self.budget
    }

    /// Lets the connection close although this stream is open, as
    /// [`Stream::ignore_for_keep_alive`] does.
    pub fn ignore_for_keep_alive(&mut self) {
        self.stream.ignore_for_keep_alive();
    }

    /// What was negotiated on it.
    #[must_use]
    pub fn protocol(&self) -> &StreamProtocol {
        &self.protocol
    }

    /// Whether its connection goes through a relay, which usually carries little.
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

/// A stream that a peer has opened.
#[derive(Debug)]
#[non_exhaustive]
pub struct Inbound {
    /// Who opened it.
    pub peer: PeerId,
    /// On which connection.
    pub connection: ConnectionId,
    /// For which protocol.
    pub protocol: StreamProtocol,
    /// The stream.
    pub stream: Substream,
}
