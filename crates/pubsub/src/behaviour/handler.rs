//! The streams of one connection: bytes to RPCs, frames to bytes.
//!
//! Decisions are made by the [machine](crate::machine). Here messages are only checked, so that
//! signatures are verified where the executor runs connections, not on the task of the swarm.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use calimero_network_primitives::{PeerId, resources::Holder};
use futures::{AsyncRead, AsyncWrite};
use libp2p_core::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p_swarm::{
    ConnectionHandler, ConnectionHandlerEvent, Stream, StreamProtocol, StreamUpgradeError,
    SubstreamProtocol,
    handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound},
};

use super::inbound::{CHUNK_BYTES, Inbound, Reader};
use crate::{
    machine::{Received, Version},
    rpc::Frame,
    validate::Validator,
};

/// Bodies above this are written from where they are, smaller ones are gathered.
const GATHER_BYTES: usize = 16 * 1024;

/// Bytes of a frame that are reported while the rest cannot be written yet: few enough that a peer
/// that reads 4 KiB a second is seen to read, and enough that reports are rare.
const PROGRESS_BYTES: usize = 16 * 1024;

/// Streams in a row on which a peer sends no RPC with content, at most. Each new stream replaces
/// the one before.
const MAX_EMPTY_STREAMS: usize = 5;

/// An order to a connection.
#[derive(Debug)]
pub enum ToHandler {
    /// Open an outbound stream in place of the one before. If `watch`, the end of its read half
    /// means that it was closed.
    Open {
        /// Whether the read half is watched.
        watch: bool,
    },
    /// Write frames to the outbound stream.
    Send(Vec<Frame>),
    /// Keep the connection alive, or not.
    KeepAlive(bool),
}

/// A report of a connection.
#[derive(Debug)]
pub enum FromHandler {
    /// The outbound stream is open.
    Opened(Version),
    /// The peer does not speak gossipsub.
    Unsupported,
    /// The outbound stream was closed, failed, or could not be opened.
    Lost,
    /// The peer has opened a stream.
    Accepted,
    /// A part of what was to be written is written.
    Written {
        /// Number of frames that were written to their end.
        frames: usize,
        /// Bytes that were written since the last report.
        bytes: usize,
    },
    /// RPCs that have arrived, in order.
    Received(Vec<Received>),
}

/// A name of the protocol.
#[derive(Clone, Debug)]
pub struct Name(pub(super) StreamProtocol, pub(super) Version);

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        self.0.as_ref()
    }
}

/// The names of the protocol that are offered, the preferred one first.
#[derive(Clone, Debug)]
pub struct Names(pub(super) Vec<Name>);

impl UpgradeInfo for Names {
    type Info = Name;
    type InfoIter = Vec<Name>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone()
    }
}

impl InboundUpgrade<Stream> for Names {
    type Output = Stream;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Stream, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, _: Name) -> Self::Future {
        std::future::ready(Ok(stream))
    }
}

impl OutboundUpgrade<Stream> for Names {
    type Output = (Stream, Version);
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, name: Name) -> Self::Future {
        std::future::ready(Ok((stream, name.1)))
    }
}

/// The outbound stream and what is to be written to it.
struct Outbound<S> {
    stream: S,
    watch: bool,
    frames: VecDeque<Frame>,
    gathered: BytesMut,
    /// A body that is written from where it is.
    body: Bytes,
    /// Frames in `gathered` and `body`.
    writing: usize,
    /// Frames and bytes written that have not been reported.
    written: (usize, usize),
    is_flushed: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Outbound<S> {
    fn new(stream: S, watch: bool) -> Self {
        Self {
            stream,
            watch,
            frames: VecDeque::new(),
            gathered: BytesMut::new(),
            body: Bytes::new(),
            writing: 0,
            written: (0, 0),
            is_flushed: true,
        }
    }

    /// Writes. Returns how many frames and bytes were written, once that is to be reported.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(usize, usize)>> {
        self.poll_closed(cx)?;
        loop {
            while self.gathered.has_remaining() || self.body.has_remaining() {
                let chunk = if self.gathered.has_remaining() {
                    &self.gathered[..]
                } else {
                    &self.body[..]
                };
                let stream = Pin::new(&mut self.stream);
                let written = match stream.poll_write(cx, chunk)? {
                    Poll::Ready(written) => written,
                    Poll::Pending if self.written.1 >= PROGRESS_BYTES => {
                        return Poll::Ready(Ok(self.report()));
                    }
                    Poll::Pending => return Poll::Pending,
                };
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                if self.gathered.has_remaining() {
                    self.gathered.advance(written);
                } else {
                    self.body.advance(written);
                }
                self.written.1 += written;
                self.is_flushed = false;
            }
            self.written.0 += std::mem::take(&mut self.writing);
            if self.frames.is_empty() {
                break;
            }
            if self.written.1 >= CHUNK_BYTES && self.written.0 > 0 {
                return Poll::Ready(Ok(self.report()));
            }
            self.gather();
        }
        if !self.is_flushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.is_flushed = true;
        }
        if self.written.0 == 0 {
            return Poll::Pending;
        }
        Poll::Ready(Ok(self.report()))
    }

    fn report(&mut self) -> (usize, usize) {
        std::mem::take(&mut self.written)
    }

    fn gather(&mut self) {
        while self.gathered.len() < CHUNK_BYTES
            && let Some(frame) = self.frames.pop_front()
        {
            self.writing += 1;
            self.gathered.extend_from_slice(frame.head());
            if frame.body().len() > GATHER_BYTES {
                self.body = frame.body().clone();
                return;
            }
            self.gathered.extend_from_slice(frame.body());
        }
    }

    /// Returns an error once the reader has closed the stream. Readers send nothing on it.
    fn poll_closed(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let mut ignored = [0; 64];
        while self.watch {
            match Pin::new(&mut self.stream).poll_read(cx, &mut ignored) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => break,
            }
        }
        Ok(())
    }
}

/// The streams of one connection.
pub struct Handler {
    names: Names,
    reader: Reader,
    keep_alive: bool,
    /// The outbound stream is to be opened.
    open: Option<bool>,
    /// The outbound stream that is being opened is watched.
    opening: Option<bool>,
    outbound: Option<Outbound<Stream>>,
    inbound: Option<Inbound<Stream>>,
    holder: Holder,
    empty_streams: usize,
    reports: VecDeque<FromHandler>,
}

impl Handler {
    pub(super) fn new(
        peer: PeerId,
        names: Names,
        validator: Validator,
        max_rpc_bytes: usize,
        holder: Holder,
    ) -> Self {
        Self {
            names,
            holder,
            reader: Reader {
                peer,
                validator,
                max_rpc_bytes,
            },
            keep_alive: false,
            open: None,
            opening: None,
            outbound: None,
            inbound: None,
            empty_streams: 0,
            reports: VecDeque::new(),
        }
    }

    fn lost(&mut self) {
        self.outbound = None;
        self.opening = None;
        self.reports.push_back(FromHandler::Lost);
    }

    fn poll_outbound(&mut self, cx: &mut Context<'_>) -> Poll<FromHandler> {
        let Some(outbound) = &mut self.outbound else {
            return Poll::Pending;
        };
        match ready!(outbound.poll(cx)) {
            Ok((frames, bytes)) => Poll::Ready(FromHandler::Written { frames, bytes }),
            Err(error) => {
                tracing::debug!(peer = %self.reader.peer, %error, "outbound gossip stream lost");
                self.outbound = None;
                Poll::Ready(FromHandler::Lost)
            }
        }
    }

    fn poll_inbound(&mut self, cx: &mut Context<'_>) -> Poll<FromHandler> {
        let Some(inbound) = &mut self.inbound else {
            return Poll::Pending;
        };
        let (rpcs, end) = ready!(inbound.poll(&self.reader, cx));
        if !rpcs.iter().all(Received::is_empty) {
            self.empty_streams = 0;
        }
        if let Err(error) = end {
            // Dropping the stream resets it, so the peer opens another.
            tracing::debug!(peer = %self.reader.peer, %error, "inbound gossip stream ended");
            self.inbound = None;
            if rpcs.is_empty() {
                return Poll::Pending;
            }
        }
        Poll::Ready(FromHandler::Received(rpcs))
    }

    fn accept(&mut self, mut stream: Stream) {
        if self.empty_streams >= MAX_EMPTY_STREAMS {
            return;
        }
        self.empty_streams += 1;
        stream.ignore_for_keep_alive();
        self.inbound = Some(Inbound::new(stream, self.holder.clone()));
        self.reports.push_back(FromHandler::Accepted);
    }

    fn opened(&mut self, mut stream: Stream, version: Version) {
        stream.ignore_for_keep_alive();
        let watch = self.opening.take().unwrap_or(true);
        self.outbound = Some(Outbound::new(stream, watch));
        self.reports.push_back(FromHandler::Opened(version));
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = ToHandler;
    type ToBehaviour = FromHandler;
    type InboundProtocol = Names;
    type OutboundProtocol = Names;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Names> {
        SubstreamProtocol::new(self.names.clone(), ())
    }

    fn on_behaviour_event(&mut self, event: ToHandler) {
        match event {
            ToHandler::Open { watch } => {
                // One that is still open does not move, and must not deliver what is sent again.
                self.outbound = None;
                // One that is being opened is as new.
                if self.opening.is_none() {
                    self.open = Some(watch);
                }
            }
            ToHandler::Send(frames) => {
                // Frames for a stream that was lost: the machine knows, and sends them again.
                if let Some(outbound) = &mut self.outbound {
                    outbound.frames.extend(frames);
                }
            }
            ToHandler::KeepAlive(keep) => self.keep_alive = keep,
        }
    }

    fn connection_keep_alive(&self) -> bool {
        self.keep_alive
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Names, (), FromHandler>> {
        if let Some(report) = self.reports.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(report));
        }
        if let Some(watch) = self.open.take() {
            self.opening = Some(watch);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                protocol: SubstreamProtocol::new(self.names.clone(), ()),
            });
        }
        if let Poll::Ready(report) = self.poll_outbound(cx) {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(report));
        }
        self.poll_inbound(cx)
            .map(ConnectionHandlerEvent::NotifyBehaviour)
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Names, Names>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: stream,
                ..
            }) => self.accept(stream),
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: (stream, version),
                ..
            }) => self.opened(stream, version),
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, .. }) => match error {
                StreamUpgradeError::NegotiationFailed => {
                    self.opening = None;
                    self.reports.push_back(FromHandler::Unsupported);
                }
                _ => self.lost(),
            },
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
