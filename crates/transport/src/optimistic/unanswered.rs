//! A stream that is used before the peer has answered its proposal.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker, ready},
};

use futures::{AsyncRead, AsyncWrite, task::AtomicWaker};

use super::{
    UnconfirmedProtocol,
    shared::{Permit, Shared},
    wire::{Answer, HEADER, MAX_LINE_BYTES, Verdict, name_of},
};

/// Longest header and proposal in bytes.
const MAX_PROPOSAL_BYTES: usize = HEADER.len() + MAX_LINE_BYTES;

/// Bytes of the answer that are read at one time, 64: an answer to the names in use.
const READ_BYTES: usize = 64;

/// The task that calls, of the two that may use a stream at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Reader,
    Writer,
}

/// Wakers of the tasks that wait to send on one stream. A stream remembers one waker, but the
/// reader sends the proposal as well.
#[derive(Debug, Default)]
struct Wakers {
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Wake for Wakers {
    fn wake(self: Arc<Self>) {
        self.reader.wake();
        self.writer.wake();
    }
}

/// State of a stream until its answer is read.
#[derive(Debug)]
pub(super) struct Unanswered<S> {
    permit: Permit<S>,
    line: Arc<[u8]>,
    /// Bytes of header and line that the stream below has accepted.
    sent: u16,
    /// Bytes of the local answer that the dialer has read.
    given: u16,
    /// Header and line were flushed.
    is_flushed: bool,
    answer: Answer,
    /// Allocated when a write has to wait.
    wakers: Option<Arc<Wakers>>,
}

impl<S> Unanswered<S> {
    pub(super) fn new(line: Arc<[u8]>, permit: Permit<S>) -> Self {
        Self {
            permit,
            line,
            sent: 0,
            given: 0,
            is_flushed: false,
            answer: Answer::default(),
            wakers: None,
        }
    }

    pub(super) fn shared(&self) -> &Arc<Shared<S>> {
        self.permit.shared()
    }

    pub(super) fn line(&self) -> &[u8] {
        &self.line
    }

    /// Returns the number of bytes of header and line.
    fn length(&self) -> usize {
        HEADER.len() + self.line.len()
    }

    /// Returns the bytes of header and line that were not sent.
    fn unsent(&self) -> usize {
        self.length().saturating_sub(self.sent.into())
    }

    /// Copies header and line from `from` on to `out`, as much as fits.
    fn copy(&self, from: usize, out: &mut [u8]) -> usize {
        let bytes = HEADER.iter().chain(&*self.line).skip(from);
        let mut count = 0;
        for (to, byte) in out.iter_mut().zip(bytes) {
            *to = *byte;
            count += 1;
        }
        count
    }

    /// Returns `true` if neither the peer nor the user knows of the stream.
    pub(super) fn is_unused(&self) -> bool {
        self.sent == 0 && !self.is_negotiated()
    }

    /// Returns `true` once the dialer has read the local answer.
    fn is_negotiated(&self) -> bool {
        usize::from(self.given) >= self.length()
    }

    /// Reads the local answer, which is equal to the proposal. Returns `None` at its end.
    pub(super) fn read_local(&mut self, out: &mut [u8]) -> Option<usize> {
        if self.is_negotiated() {
            return None;
        }
        let count = self.copy(self.given.into(), out);
        self.given += count as u16;
        Some(count)
    }

    /// Wakes the task that waits to write.
    pub(super) fn wake_writer(&self) {
        if let Some(wakers) = &self.wakers {
            wakers.writer.wake();
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Unanswered<S> {
    /// Executes an operation that sends. If it has to wait, the tasks of both sides that wait are
    /// woken.
    fn send<T>(
        &mut self,
        io: &mut S,
        cx: &mut Context<'_>,
        side: Side,
        mut operation: impl FnMut(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(result) = operation(Pin::new(&mut *io), cx) {
            return Poll::Ready(result);
        }
        let wakers = self.wakers.get_or_insert_default();
        match side {
            Side::Reader => wakers.reader.register(cx.waker()),
            Side::Writer => wakers.writer.register(cx.waker()),
        }
        // The stream below remembers the waker of its last call.
        let waker = Waker::from(Arc::clone(wakers));
        operation(Pin::new(io), &mut Context::from_waker(&waker))
    }

    /// Sends what is left of header and line.
    fn poll_send_proposal(
        &mut self,
        io: &mut S,
        cx: &mut Context<'_>,
        side: Side,
    ) -> Poll<io::Result<()>> {
        while self.unsent() > 0 {
            let mut proposal = [0; MAX_PROPOSAL_BYTES];
            let length = self.copy(self.sent.into(), &mut proposal);
            let sent = ready!(self.send(io, cx, side, |io, cx| {
                io.poll_write(cx, &proposal[..length])
            }))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += sent as u16;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes `data`, after header and line if they were not sent.
    pub(super) fn poll_write(
        &mut self,
        io: &mut S,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if data.iter().all(|slice| slice.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        ready!(self.poll_send_proposal(io, cx, Side::Writer))?;
        self.send(io, cx, Side::Writer, |io, cx| match data {
            [slice] => io.poll_write(cx, slice),
            slices => io.poll_write_vectored(cx, slices),
        })
    }

    pub(super) fn poll_flush(&mut self, io: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send_proposal(io, cx, Side::Writer))?;
        ready!(self.send(io, cx, Side::Writer, |io, cx| io.poll_flush(cx)))?;
        self.is_flushed = true;
        Poll::Ready(Ok(()))
    }

    pub(super) fn poll_close(&mut self, io: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send_proposal(io, cx, Side::Writer))?;
        ready!(self.send(io, cx, Side::Writer, |io, cx| io.poll_close(cx)))?;
        self.is_flushed = true;
        Poll::Ready(Ok(()))
    }

    /// Reads the answer of the peer. The proposal is sent and flushed first.
    ///
    /// # Errors
    ///
    /// [`UnconfirmedProtocol`] inside of an [`io::Error`], or the error of the stream.
    pub(super) fn poll_answer(&mut self, io: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_flushed {
            ready!(self.poll_send_proposal(io, cx, Side::Reader))?;
            // A peer that takes no more data may have answered.
            let _ = ready!(self.send(io, cx, Side::Reader, |io, cx| io.poll_flush(cx)));
            self.is_flushed = true;
            self.wake_writer();
        }
        loop {
            let mut bytes = [0; READ_BYTES];
            let missing = self.answer.missing(&self.line).min(READ_BYTES);
            let count = ready!(Pin::new(&mut *io).poll_read(cx, &mut bytes[..missing]))?;
            let protocol = || name_of(&self.line);
            let error = match self.answer.receive(&self.line, &bytes[..count]) {
                Verdict::Incomplete if count == 0 => UnconfirmedProtocol::Ended(protocol()),
                Verdict::Incomplete => continue,
                Verdict::Confirmed => {
                    self.shared().answered();
                    return Poll::Ready(Ok(()));
                }
                Verdict::Refused => UnconfirmedProtocol::Withdrawn(protocol()),
                Verdict::Invalid => UnconfirmedProtocol::Invalid(protocol()),
            };
            return Poll::Ready(Err(error.into()));
        }
    }
}

/// A stream that its user dropped before its answer was read.
///
/// It completes once the answer was read, and the stream is then dropped as its user left it:
/// closed or not. Dropped before, the stream would be reset while the peer still negotiates, and
/// the peer would lose the data.
#[derive(Debug)]
pub(super) struct Dropped<S> {
    io: S,
    unanswered: Box<Unanswered<S>>,
    /// Number of times that [`Dropped::age`] was called.
    age: u8,
}

impl<S> Dropped<S> {
    pub(super) fn new(io: S, unanswered: Box<Unanswered<S>>) -> Self {
        Self {
            io,
            unanswered,
            age: 0,
        }
    }

    /// Makes the stream one period older and returns its age before.
    pub(super) fn age(&mut self) -> u8 {
        let age = self.age;
        self.age = age.saturating_add(1);
        age
    }

    /// The peer did not answer in time.
    pub(super) fn expire(self) {
        let unanswered = &self.unanswered;
        unanswered.shared().withdraw(unanswered.line());
        tracing::debug!(
            protocol = name_of(unanswered.line()),
            "stream dropped: the peer did not answer its proposal"
        );
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Dropped<S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if let Err(error) = ready!(this.unanswered.poll_answer(&mut this.io, cx)) {
            let unanswered = &this.unanswered;
            unanswered.shared().withdraw(unanswered.line());
            tracing::debug!(%error, "dropped stream was not confirmed");
        }
        Poll::Ready(())
    }
}
