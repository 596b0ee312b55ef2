//! A stream whose negotiation may be answered locally.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures::{AsyncRead, AsyncWrite};

use super::{
    UnconfirmedProtocol,
    shared::Shared,
    unanswered::{Dropped, Unanswered},
    wire::{Answer, Verdict, proposal},
};

/// A stream of a connection.
#[derive(Debug)]
pub(crate) struct Stream<S: AsyncRead + AsyncWrite + Unpin> {
    /// `None` in the phase [`Phase::Failed`].
    io: Option<S>,
    phase: Phase<S>,
}

#[derive(Debug)]
enum Phase<S> {
    /// Reads and writes pass unchanged.
    Plain,
    /// An outbound stream before its first write.
    New(Arc<Shared<S>>),
    /// The dialer waits for the answer of the peer, which is noted.
    Waiting(Box<Waiting<S>>),
    /// The proposal was answered locally.
    Unanswered(Box<Unanswered<S>>),
    /// The peer did not confirm the protocol.
    Failed(io::ErrorKind, Option<UnconfirmedProtocol>),
}

/// A proposal that the peer has to answer before the stream can be used.
#[derive(Debug)]
struct Waiting<S> {
    shared: Arc<Shared<S>>,
    line: Box<[u8]>,
    answer: Answer,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream<S> {
    /// Returns an inbound stream, which passes all bytes unchanged.
    pub(super) fn inbound(io: S) -> Self {
        Self {
            io: Some(io),
            phase: Phase::Plain,
        }
    }

    /// Returns an outbound stream.
    pub(super) fn outbound(io: S, shared: Arc<Shared<S>>) -> Self {
        Self {
            io: Some(io),
            phase: Phase::New(shared),
        }
    }

    /// Returns the stream below and its phase, or the error with which the stream failed.
    fn parts(&mut self) -> io::Result<(&mut S, &mut Phase<S>)> {
        match (&mut self.io, &mut self.phase) {
            (_, Phase::Failed(_, Some(error))) => Err(error.clone().into()),
            (_, Phase::Failed(kind, None)) => Err((*kind).into()),
            (Some(io), phase) => Ok((io, phase)),
            // Unreachable: only failed streams have no stream below.
            (None, _) => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// The answer of the peer was not read: the next stream of the protocol waits for it.
    fn withdraw(&self) {
        if let Phase::Unanswered(unanswered) = &self.phase {
            unanswered.shared().withdraw(unanswered.line());
        }
    }

    /// Ends the stream with `error`.
    fn fail(&mut self, error: io::Error) -> io::Error {
        self.withdraw();
        let inner = error.get_ref();
        let cause = inner.and_then(|inner| inner.downcast_ref::<UnconfirmedProtocol>());
        let failed = Phase::Failed(error.kind(), cause.cloned());
        if let Phase::Unanswered(unanswered) = mem::replace(&mut self.phase, failed) {
            unanswered.wake_writer();
        }
        self.io = None;
        error
    }

    /// Returns whether the first write, `data`, is a proposal that is answered locally.
    fn propose(&mut self, data: &[u8]) -> bool {
        let Phase::New(shared) = &self.phase else {
            return false;
        };
        let expected = proposal(data).and_then(|line| shared.expect(line));
        let Some((line, permit)) = expected else {
            return false;
        };
        self.phase = Phase::Unanswered(Box::new(Unanswered::new(line, permit)));
        true
    }

    /// The first write, `data`, was passed to the stream below.
    fn passed(&mut self, data: &[u8]) {
        let Phase::New(shared) = &self.phase else {
            return;
        };
        self.phase = match proposal(data) {
            Some(line) => Phase::Waiting(Box::new(Waiting {
                shared: Arc::clone(shared),
                line: line.into(),
                answer: Answer::default(),
            })),
            None => Phase::Plain,
        };
    }

    /// Notes `bytes` of the answer of the peer.
    fn note(&mut self, bytes: &[u8]) {
        let Phase::Waiting(waiting) = &mut self.phase else {
            return;
        };
        match waiting.answer.receive(&waiting.line, bytes) {
            Verdict::Incomplete if !bytes.is_empty() => return,
            Verdict::Confirmed => waiting.shared.confirm(&waiting.line),
            Verdict::Refused => waiting.shared.withdraw(&waiting.line),
            Verdict::Invalid | Verdict::Incomplete => {}
        }
        self.phase = Phase::Plain;
    }

    /// Reads the local answer, or the answer of the peer. Returns `None` once the data of the
    /// stream follow.
    fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<io::Result<Option<usize>>> {
        let (io, phase) = self.parts()?;
        let Phase::Unanswered(unanswered) = phase else {
            return Poll::Ready(Ok(None));
        };
        if let Some(count) = unanswered.read_local(out) {
            return Poll::Ready(Ok(Some(count)));
        }
        match ready!(unanswered.poll_answer(io, cx)) {
            Ok(()) => {
                self.phase = Phase::Plain;
                Poll::Ready(Ok(None))
            }
            Err(error) => Poll::Ready(Err(self.fail(error))),
        }
    }

    /// Converts the result of an operation that sends.
    fn sent<T>(&self, result: io::Result<T>) -> Poll<io::Result<T>> {
        if result.is_err() {
            self.withdraw();
        }
        Poll::Ready(result)
    }
}

#[cfg(test)]
impl<S: AsyncRead + AsyncWrite + Unpin> Stream<S> {
    /// Returns the stream below, unless this one has failed.
    pub(super) fn below(&mut self) -> Option<&mut S> {
        self.io.as_mut()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(count) = ready!(this.poll_answer(cx, out))? {
            return Poll::Ready(Ok(count));
        }
        let (io, phase) = this.parts()?;
        let count = ready!(Pin::new(io).poll_read(cx, out))?;
        if matches!(phase, Phase::Waiting(_)) && !out.is_empty() {
            this.note(&out[..count]);
        }
        Poll::Ready(Ok(count))
    }

    fn poll_read_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if !matches!(this.phase, Phase::Plain) {
            let first = out.iter_mut().find(|slice| !slice.is_empty());
            let first = first.map_or(&mut [][..], |slice| &mut **slice);
            return Pin::new(this).poll_read(cx, first);
        }
        let (io, _) = this.parts()?;
        Pin::new(io).poll_read_vectored(cx, out)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.propose(data) {
            return Poll::Ready(Ok(data.len()));
        }
        let (io, phase) = this.parts()?;
        match phase {
            Phase::Unanswered(unanswered) => {
                let written = ready!(unanswered.poll_write(io, cx, &[IoSlice::new(data)]));
                this.sent(written)
            }
            Phase::New(_) => {
                let written = ready!(Pin::new(io).poll_write(cx, data))?;
                this.passed(data);
                Poll::Ready(Ok(written))
            }
            _ => Pin::new(io).poll_write(cx, data),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let (io, phase) = this.parts()?;
        match phase {
            Phase::Unanswered(unanswered) => {
                let written = ready!(unanswered.poll_write(io, cx, data));
                this.sent(written)
            }
            _ => {
                let written = ready!(Pin::new(io).poll_write_vectored(cx, data))?;
                // A dialer writes its proposal in one piece, so this is something else.
                this.passed(&[]);
                Poll::Ready(Ok(written))
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let (io, phase) = this.parts()?;
        match phase {
            Phase::Unanswered(unanswered) => {
                let flushed = ready!(unanswered.poll_flush(io, cx));
                this.sent(flushed)
            }
            _ => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let (io, phase) = this.parts()?;
        match phase {
            Phase::Unanswered(unanswered) => {
                let closed = ready!(unanswered.poll_close(io, cx));
                this.sent(closed)
            }
            _ => Pin::new(io).poll_close(cx),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Drop for Stream<S> {
    fn drop(&mut self) {
        let phase = mem::replace(&mut self.phase, Phase::Plain);
        match (self.io.take(), phase) {
            (Some(io), Phase::Unanswered(unanswered)) if !unanswered.is_unused() => {
                let shared = Arc::clone(unanswered.shared());
                shared.hand_over(Dropped::new(io, unanswered));
            }
            // The peer may not have answered for long: no other stream is opened early.
            (_, Phase::Waiting(waiting)) => waiting.shared.withdraw(&waiting.line),
            _ => {}
        }
    }
}
