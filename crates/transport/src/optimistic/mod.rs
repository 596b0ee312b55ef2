//! Opens streams without waiting for the answer to their protocol.
//!
//! libp2p-swarm negotiates the protocol of each outbound stream with multistream-select 1.0.0 and
//! waits for the answer, which takes a round trip. A protocol that the peer does not support is
//! then an error of opening the stream, on which callers depend. This layer is below the swarm. It
//! notes the protocols that the peer has confirmed on a connection. If another stream proposes such
//! a protocol, the layer answers the proposal with the bytes with which the peer would answer. The
//! proposal is sent when the dialer flushes it, so that the peer sees the stream as soon as
//! otherwise, and the first data follow without a wait. The layer reads and checks the answer of
//! the peer when the stream is read or dropped.
//!
//! A peer that confirms the protocol receives the bytes that it would receive otherwise, only
//! earlier. One that has withdrawn it may read the first data as another proposal. A negotiation in
//! which the first proposal was not confirmed before passes unchanged, and inbound streams always
//! do.
//!
//! - A peer that withdraws a protocol answers with a refusal. Reads of the stream then fail with
//!   [`UnconfirmedProtocol`], as do all operations after it. The next stream of the protocol waits
//!   for the answer, also if a stream fails or is given up before its answer was read.
//! - While an answer is missing for more than [`OVERDUE`](shared::OVERDUE), further streams wait for
//!   theirs, so that none is opened on a path that is dead.
//! - A user that only writes, closes and drops a stream does not learn of a refusal.
//! - A stream that is dropped before its answer was read is dropped by [`Optimistic`] after its
//!   answer, at the latest after two periods of [`ANSWER_PERIOD`]. If it were dropped at once, the
//!   peer would see a reset while it negotiates, and would lose the data.
//! - State grows with the connections and with what this node does: at most
//!   [`MAX_PROTOCOLS`](shared::MAX_PROTOCOLS) names and [`MAX_UNANSWERED`](shared::MAX_UNANSWERED)
//!   streams of a connection.

mod shared;
mod stream;
mod unanswered;
mod wire;

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{AsyncRead, AsyncWrite, FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use futures_timer::Delay;
use libp2p_core::muxing::{StreamMuxer, StreamMuxerEvent};

use self::{shared::Shared, stream::Stream, unanswered::Dropped};

/// Time between two checks of the streams that were dropped before their answer, 10 s: the time
/// limit of libp2p-swarm for opening a stream. A stream that has waited for a whole period is
/// dropped, so after 10 to 20 s.
const ANSWER_PERIOD: Duration = Duration::from_secs(10);

/// Time that a close of the connection waits for answers to streams that were dropped, 1 s, as long
/// as Yamux and QUIC have for sending queued data.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The peer did not confirm the protocol of a stream that was used before the answer.
///
/// It is the inner error of an [`io::Error`] of a stream. The peer had confirmed the protocol on an
/// earlier stream of the connection. It may have handled none of the bytes that were written. The
/// next stream of the protocol waits for the answer of the peer, so that a protocol that is still
/// missing is an error of opening it. Each variant contains the name of the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnconfirmedProtocol {
    /// The peer does not support the protocol any more. The kind of the error is
    /// [`Unsupported`](io::ErrorKind::Unsupported).
    #[error("the peer does not support the protocol {0} any more")]
    Withdrawn(String),
    /// The peer answered with bytes that multistream-select does not allow. The kind of the error
    /// is [`InvalidData`](io::ErrorKind::InvalidData).
    #[error("the peer sent an invalid answer to the proposal of the protocol {0}")]
    Invalid(String),
    /// The peer ended the stream before its answer was complete. The kind of the error is
    /// [`UnexpectedEof`](io::ErrorKind::UnexpectedEof).
    #[error("the peer ended the stream before it confirmed the protocol {0}")]
    Ended(String),
}

impl From<UnconfirmedProtocol> for io::Error {
    fn from(error: UnconfirmedProtocol) -> Self {
        let kind = match error {
            UnconfirmedProtocol::Withdrawn(_) => io::ErrorKind::Unsupported,
            UnconfirmedProtocol::Invalid(_) => io::ErrorKind::InvalidData,
            UnconfirmedProtocol::Ended(_) => io::ErrorKind::UnexpectedEof,
        };
        Self::new(kind, error)
    }
}

/// A muxer whose outbound streams do not wait for answers that are known.
pub(crate) struct Optimistic<M: StreamMuxer> {
    inner: M,
    shared: Arc<Shared<M::Substream>>,
    /// Streams that were dropped before their answer. `None` if there are none.
    dropped: Option<Box<Answers<M::Substream>>>,
    close: Close,
}

/// Streams that wait for their answer, and the time of the next check of their age.
struct Answers<S> {
    streams: FuturesUnordered<Dropped<S>>,
    check: Delay,
}

/// Progress of a close of the connection.
enum Close {
    /// Not started.
    No,
    /// Dropped streams wait for their answers, until the deadline.
    Waiting(Delay),
    /// The connection below is being closed.
    Started,
}

impl<M> Optimistic<M>
where
    M: StreamMuxer + Unpin,
    M::Substream: AsyncRead + AsyncWrite + Unpin,
{
    pub(crate) fn new(inner: M) -> Self {
        Self {
            inner,
            shared: Arc::default(),
            dropped: None,
            close: Close::No,
        }
    }

    /// Continues with the streams that were dropped before their answer.
    fn poll_dropped(&mut self, cx: &mut Context<'_>) {
        let new = self.shared.take_dropped(cx.waker());
        if !new.is_empty() {
            let answers = self.dropped.get_or_insert_with(|| {
                Box::new(Answers {
                    streams: FuturesUnordered::new(),
                    check: Delay::new(ANSWER_PERIOD),
                })
            });
            answers.streams.extend(new);
        }
        let Some(answers) = &mut self.dropped else {
            return;
        };
        loop {
            while let Poll::Ready(Some(())) = answers.streams.poll_next_unpin(cx) {}
            if answers.streams.is_empty() {
                self.dropped = None;
                return;
            }
            if answers.check.poll_unpin(cx).is_pending() {
                return;
            }
            answers.age();
            answers.check.reset(ANSWER_PERIOD);
        }
    }

    /// Waits for the answers to dropped streams before a close.
    fn poll_answers(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // The connection below receives the answers. It reports its end at the close.
        while let Poll::Ready(event) = Pin::new(&mut self.inner).poll(cx) {
            if event.is_err() {
                return Poll::Ready(());
            }
        }
        self.poll_dropped(cx);
        if self.dropped.is_none() {
            return Poll::Ready(());
        }
        if let Close::No = self.close {
            self.close = Close::Waiting(Delay::new(CLOSE_TIMEOUT));
        }
        match &mut self.close {
            Close::Waiting(deadline) => deadline.poll_unpin(cx),
            Close::No | Close::Started => Poll::Ready(()),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Answers<S> {
    /// Drops the streams that have waited for a whole period.
    fn age(&mut self) {
        for mut stream in std::mem::take(&mut self.streams) {
            if stream.age() == 0 {
                self.streams.push(stream);
            } else {
                stream.expire();
            }
        }
    }
}

impl<M> StreamMuxer for Optimistic<M>
where
    M: StreamMuxer + Unpin,
    M::Substream: AsyncRead + AsyncWrite + Unpin,
{
    type Substream = Stream<M::Substream>;
    type Error = M::Error;

    fn poll_inbound(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        let this = self.get_mut();
        let stream = ready!(Pin::new(&mut this.inner).poll_inbound(cx))?;
        Poll::Ready(Ok(Stream::inbound(stream)))
    }

    fn poll_outbound(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        let this = self.get_mut();
        let stream = ready!(Pin::new(&mut this.inner).poll_outbound(cx))?;
        Poll::Ready(Ok(Stream::outbound(stream, Arc::clone(&this.shared))))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let this = self.get_mut();
        if !matches!(this.close, Close::Started) {
            ready!(this.poll_answers(cx));
            this.close = Close::Started;
        }
        Pin::new(&mut this.inner).poll_close(cx)
    }

    fn poll(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<StreamMuxerEvent, Self::Error>> {
        let this = self.get_mut();
        let event = Pin::new(&mut this.inner).poll(cx);
        this.poll_dropped(cx);
        event
    }
}

impl<M: StreamMuxer> Drop for Optimistic<M> {
    fn drop(&mut self) {
        self.shared.end();
    }
}

#[cfg(test)]
mod tests;
