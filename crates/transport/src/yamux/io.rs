//! The layer between the `yamux` crate and the secured byte stream.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use calimero_network_primitives::resources::Refused;
use futures::{AsyncRead, AsyncWrite, FutureExt as _, ready};
use futures_timer::Delay;

use super::{
    frames::{Frames, Header, Next},
    unread::{SHOWN_FRAME_BYTES, Unread},
};
use crate::executor::is_turn_over;

/// Time for which a connection is not read at a limit of unread data before a stream is reset: 1 s. A
/// reader that is only slow, because of a disk or a busy thread, has read by then.
const RELIEF_TIME: Duration = Duration::from_secs(1);

/// Interval in which the limit is tried again, 20 ms: a round trip of a short path.
const RELIEF_INTERVAL: Duration = Duration::from_millis(20);

/// Splits long frames and flushes once per poll instead of once per frame.
///
/// The `yamux` crate flushes after each frame and reads when it has no more
/// frames to write. Flushing only before a read combines all frames of a poll
/// into few TLS records and one socket write.
///
/// A poll that has taken 250 µs reads no more, so that a peer whose data does not end leaves time to
/// the other connections of the thread.
///
/// Each data frame is counted before its body is received. At a limit, nothing is read.
///
/// The `yamux` crate answers a violation of the protocol with a frame and goes on. Here the connection
/// ends once that frame is written.
#[derive(Debug)]
pub(super) struct Io<S> {
    io: S,
    frames: Frames,
    unread: Arc<Unread>,
    /// Why the connection is not read, while a limit is reached.
    held_up: Option<HeldUp>,
    /// The frames that are written.
    written: Frames,
    /// `true` if the last write had to wait.
    is_write_blocked: bool,
    /// `true` after a frame was written that reports an error of the peer.
    is_violated: bool,
    unflushed: bool,
    /// `true` after a poll that ended without a read. The next one reads, also if writing takes all
    /// of its time, so that the peer can always go on.
    is_read_due: bool,
}

/// A limit of unread data is reached.
#[derive(Debug)]
struct HeldUp {
    refused: Refused,
    /// When the connection was held up, or when a stream was last reset for it.
    since: Instant,
    /// The next try.
    retry: Delay,
}

impl HeldUp {
    /// Has a stream reset if there was no room for a second.
    ///
    /// # Errors
    ///
    /// The refusal, if that is not possible: the data of this connection cannot be freed.
    fn relieve(&mut self, unread: &Unread) -> io::Result<()> {
        let now = Instant::now();
        if now - self.since < RELIEF_TIME {
            return Ok(());
        }
        self.since = now;
        match unread.relieve(self.refused.scope) {
            true => Ok(()),
            false => Err(io::Error::other(self.refused)),
        }
    }
}

impl<S> Io<S> {
    pub(super) fn new(io: S, unread: Arc<Unread>) -> Self {
        Self {
            io,
            frames: Frames::new(SHOWN_FRAME_BYTES as u32),
            unread,
            held_up: None,
            written: Frames::new(u32::MAX),
            is_write_blocked: false,
            is_violated: false,
            unflushed: false,
            is_read_due: false,
        }
    }

    /// Counts the data frame whose header is passed on next. Waits at a limit, and then resets the
    /// stream that holds most, until the frame can be counted.
    fn poll_count(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Next::Show(bytes) = self.frames.next() else {
            return Poll::Ready(Ok(()));
        };
        // A part of a header was counted with the whole one.
        let Some(header) = Header::of(bytes) else {
            return Poll::Ready(Ok(()));
        };
        loop {
            if let Some(held_up) = &mut self.held_up {
                ready!(held_up.retry.poll_unpin(cx));
                held_up.retry.reset(RELIEF_INTERVAL);
                if !self.unread.has_room(&header) {
                    held_up.relieve(&self.unread)?;
                    continue;
                }
            }
            match self.unread.receive(&header) {
                Ok(()) => break,
                // Another connection was faster.
                Err(_) if self.held_up.is_some() => {}
                Err(refused) => {
                    self.held_up = Some(HeldUp {
                        refused,
                        since: Instant::now(),
                        retry: Delay::new(RELIEF_INTERVAL),
                    });
                }
            }
        }
        self.held_up = None;
        Poll::Ready(Ok(()))
    }

    /// Follows the frames that are written.
    fn on_written(&mut self, mut bytes: &[u8]) {
        loop {
            let count = match self.written.next() {
                Next::Show(header) => {
                    self.is_violated |=
                        Header::of(header).is_some_and(|header| header.reports_error());
                    header.len()
                }
                _ if bytes.is_empty() => return,
                Next::Read(space) => {
                    let count = space.len().min(bytes.len());
                    space[..count].copy_from_slice(&bytes[..count]);
                    bytes = &bytes[count..];
                    count
                }
                Next::Pass(left) => {
                    let count = left.min(bytes.len());
                    bytes = &bytes[count..];
                    count
                }
            };
            self.written.done(count);
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Io<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.unflushed && Pin::new(&mut this.io).poll_flush(cx)?.is_ready() {
            this.unflushed = false;
        }
        // The `yamux` crate has handled all streams that were dropped before it reads, unless it
        // waits to write.
        if !this.is_write_blocked {
            this.unread.freed();
        }
        if this.is_violated {
            let text = "the peer violated the Yamux protocol";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, text)));
        }
        if is_turn_over() && !this.is_read_due {
            this.is_read_due = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        this.is_read_due = false;
        loop {
            ready!(this.poll_count(cx))?;
            let io = Pin::new(&mut this.io);
            let (count, shown) = match this.frames.next() {
                Next::Read(space) => (ready!(io.poll_read(cx, space))?, false),
                Next::Show(bytes) => {
                    let count = bytes.len().min(out.len());
                    out[..count].copy_from_slice(&bytes[..count]);
                    (count, true)
                }
                Next::Pass(left) => {
                    let count = left.min(out.len());
                    (ready!(io.poll_read(cx, &mut out[..count]))?, true)
                }
            };
            if count == 0 && !shown && !this.frames.at_boundary() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            this.frames.done(count);
            if shown || count == 0 {
                return Poll::Ready(Ok(count));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Io<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.unflushed = true;
        let written = Pin::new(&mut this.io).poll_write(cx, data);
        this.is_write_blocked = written.is_pending();
        let count = ready!(written)?;
        this.on_written(&data[..count]);
        Poll::Ready(Ok(count))
    }

    /// Returns immediately. The next read flushes.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_close(cx)
    }
}
