//! The layer between the `yamux` crate and the secured byte stream.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::{AsyncRead, AsyncWrite, FutureExt as _, ready};
use futures_timer::Delay;

use super::{
    frames::{Frames, Header, Next},
    unread::Unread,
};
use crate::executor::is_turn_over;

/// Largest body that is passed to the `yamux` crate, in bytes.
///
/// The crate allocates and zeroes each body when its header claims a length.
/// Short bodies bound the memory by the received bytes and stay in a
/// second-level cache until the reader copies them. Sizes from 32 to 256 KiB
/// had the same throughput in measurements.
const SHOWN_FRAME_BYTES: u32 = 64 * 1024;

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
    /// The time since which the connection is not read because of a limit, and the next try.
    held_up: Option<(Instant, Delay)>,
    /// The frames that are written.
    written: Frames,
    /// `true` after a frame was written that reports an error of the peer.
    is_violated: bool,
    unflushed: bool,
    /// `true` after a poll that ended without a read. The next one reads, also if writing takes all
    /// of its time, so that the peer can always go on.
    is_read_due: bool,
}

impl<S> Io<S> {
    pub(super) fn new(io: S, unread: Arc<Unread>) -> Self {
        Self {
            io,
            frames: Frames::new(SHOWN_FRAME_BYTES),
            unread,
            held_up: None,
            written: Frames::new(u32::MAX),
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
            if let Some((_, delay)) = &mut self.held_up {
                ready!(delay.poll_unpin(cx));
            }
            let Err(refused) = self.unread.receive(&header) else {
                break;
            };
            let now = Instant::now();
            let (since, delay) = self
                .held_up
                .get_or_insert_with(|| (now, Delay::new(RELIEF_INTERVAL)));
            delay.reset(RELIEF_INTERVAL);
            if now - *since >= RELIEF_TIME {
                *since = now;
                if !self.unread.reset_largest() {
                    return Poll::Ready(Err(io::Error::other(refused)));
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
        let count = ready!(Pin::new(&mut this.io).poll_write(cx, data))?;
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
