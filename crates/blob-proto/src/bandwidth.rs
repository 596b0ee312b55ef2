//! Limits of the bytes per second that blob transfers send and receive.
//!
//! [`TokenBucket`] is the pure decision, with the time as an argument. [`Bandwidth`] holds one
//! bucket for each direction, which all transfers of a node share, and applies them to the streams
//! that blobs are served over and to those that an [`Opener`] opens.
//!
//! A limit that all requesters share at one time would give each of many too little: a requester
//! gives up a provider below 16 KiB/s, and a part of a chunk is of no use to it. So a
//! [`Server`](crate::serve::Server) sends to as many at one time as get 32 KiB/s, and the others
//! wait for their turn.

mod queue;
mod turns;

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use calimero_network_primitives::PeerId;
use futures::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep};

pub(crate) use self::{
    queue::Asking,
    turns::{Turn, Turns},
};
use crate::transfer::{Opened, Opener};

/// Time by which a bucket is ahead of or behind its rate: 50 ms. Timers are exact to a millisecond,
/// so a shorter time would keep fast rates below their limit.
pub const BURST: Duration = Duration::from_millis(50);

/// Largest part of a read or write that passes at one time, in bytes.
const MAX_PIECE_BYTES: u64 = 16 << 10;

/// Smallest part, in bytes.
const MIN_PIECE_BYTES: u64 = 1 << 10;

const NANOS_PER_S: u128 = 1_000_000_000;

/// A bucket of tokens, one for each byte, that fills at a constant rate. Pure: times are durations
/// since a moment that the caller chooses.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    bytes_per_s: u64,
    /// When all bytes that were taken are paid for, at the rate.
    paid: Duration,
    /// Time in which nothing was to be paid for.
    unused: Duration,
}

impl TokenBucket {
    /// Returns a full bucket of this rate. A rate of 0 is taken as 1.
    #[must_use]
    pub fn new(bytes_per_s: u64) -> Self {
        Self {
            bytes_per_s: bytes_per_s.max(1),
            paid: Duration::ZERO,
            unused: Duration::ZERO,
        }
    }

    /// Takes tokens, and returns the time until more may be taken. In a time `t`, callers that wait
    /// take at most `bytes_per_s * (t + 2 * BURST)` bytes, and one further call each.
    pub fn take(&mut self, bytes: u64, now: Duration) -> Duration {
        let cost = u128::from(bytes) * NANOS_PER_S / u128::from(self.bytes_per_s);
        let cost = Duration::from_nanos(u64::try_from(cost).unwrap_or(u64::MAX));
        // What was not used before counts, up to the burst.
        let start = self.paid.max(now.saturating_sub(BURST));
        self.unused += start - self.paid;
        self.paid = start.saturating_add(cost);
        let debt = self.paid.saturating_sub(now);
        if debt > BURST { debt } else { Duration::ZERO }
    }
}

impl TokenBucket {
    /// Returns the time until now in which the rate was not used.
    fn unused(&self, now: Duration) -> Duration {
        let unpaid = now.saturating_sub(BURST).saturating_sub(self.paid);
        self.unused.saturating_add(unpaid)
    }
}

/// A bucket that streams share.
#[derive(Debug)]
struct Shared {
    bucket: Mutex<TokenBucket>,
    since: Instant,
    piece_bytes: usize,
}

impl Shared {
    fn new(bytes_per_s: u64) -> Option<Arc<Self>> {
        if bytes_per_s == 0 {
            return None;
        }
        let piece_bytes = (bytes_per_s / 16).clamp(MIN_PIECE_BYTES, MAX_PIECE_BYTES);
        Some(Arc::new(Self {
            bucket: Mutex::new(TokenBucket::new(bytes_per_s)),
            since: Instant::now(),
            piece_bytes: usize::try_from(piece_bytes).unwrap_or(usize::MAX),
        }))
    }

    fn take(&self, bytes: usize) -> Duration {
        let now = self.since.elapsed();
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.take(bytes as u64, now)
    }

    fn unused(&self) -> Duration {
        let now = self.since.elapsed();
        let bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.unused(now)
    }
}

/// The limits of a node for all of its blob transfers. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Bandwidth {
    upload: Option<Arc<Shared>>,
    download: Option<Arc<Shared>>,
    /// Turns of requests for chunks, and of whole blobs, at the upload limit.
    turns: Option<(Turns, Turns)>,
}

impl Bandwidth {
    /// Returns limits in bytes per second. A limit of 0 is none.
    #[must_use]
    pub fn new(upload_bytes_per_s: u64, download_bytes_per_s: u64) -> Self {
        let upload = Shared::new(upload_bytes_per_s);
        let turns = upload.as_ref();
        let turns = turns.map(|limit| Turns::new(limit, upload_bytes_per_s));
        Self {
            upload,
            download: Shared::new(download_bytes_per_s),
            turns,
        }
    }

    /// The turns of requests for chunks. `None` without an upload limit.
    pub(crate) fn chunk_turns(&self) -> Option<&Turns> {
        self.turns.as_ref().map(|(chunks, _)| chunks)
    }

    /// The turns of blobs that are sent as a whole. `None` without an upload limit.
    pub(crate) fn blob_turns(&self) -> Option<&Turns> {
        self.turns.as_ref().map(|(_, blobs)| blobs)
    }

    /// Applies the limits to a stream. The caller runs on tokio, with its timers.
    pub fn limit<S>(&self, stream: S) -> Limited<S> {
        Limited {
            stream,
            upload: self.upload.clone().map(Gate::new),
            download: self.download.clone().map(Gate::new),
        }
    }

    /// Applies the limits to every stream that `opener` opens.
    pub fn limit_opener<O: Opener>(&self, opener: O) -> LimitedOpener<O> {
        LimitedOpener {
            opener,
            bandwidth: self.clone(),
        }
    }
}

/// The turn of one stream at a shared bucket.
#[derive(Debug)]
struct Gate {
    shared: Arc<Shared>,
    /// Whether the stream has asked the bucket before.
    begun: bool,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Gate {
    fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            begun: false,
            waiting: None,
        }
    }

    /// Waits until the bytes that were taken before are paid for. Returns the bytes that may pass.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        if !self.begun {
            self.begun = true;
            // A new stream waits for the debts of the others, or many short ones would not wait.
            self.passed(0);
        }
        if let Some(waiting) = &mut self.waiting {
            ready!(waiting.as_mut().poll(cx));
            self.waiting = None;
        }
        Poll::Ready(self.shared.piece_bytes)
    }

    fn passed(&mut self, bytes: usize) {
        let wait = self.shared.take(bytes);
        self.waiting = (wait > Duration::ZERO).then(|| Box::pin(sleep(wait)));
    }
}

/// A stream whose bytes are counted and held back by a [`Bandwidth`].
#[derive(Debug)]
pub struct Limited<S> {
    stream: S,
    upload: Option<Gate>,
    download: Option<Gate>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Limited<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let Some(gate) = &mut this.download else {
            return Pin::new(&mut this.stream).poll_read(cx, to);
        };
        let most = ready!(gate.poll_ready(cx)).min(to.len());
        let len = ready!(Pin::new(&mut this.stream).poll_read(cx, &mut to[..most]))?;
        gate.passed(len);
        Poll::Ready(Ok(len))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Limited<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let Some(gate) = &mut this.upload else {
            return Pin::new(&mut this.stream).poll_write(cx, from);
        };
        let most = ready!(gate.poll_ready(cx)).min(from.len());
        let len = ready!(Pin::new(&mut this.stream).poll_write(cx, &from[..most]))?;
        gate.passed(len);
        Poll::Ready(Ok(len))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.upload.is_none() {
            return Pin::new(&mut self.stream).poll_write_vectored(cx, from);
        }
        let first = from.iter().find(|slice| !slice.is_empty());
        self.poll_write(cx, first.map_or(&[], |slice| slice))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

/// An [`Opener`] whose streams are held back by a [`Bandwidth`].
#[derive(Clone, Debug)]
pub struct LimitedOpener<O> {
    opener: O,
    bandwidth: Bandwidth,
}

impl<O: Opener> Opener for LimitedOpener<O> {
    type Stream = Limited<O::Stream>;
    type Error = O::Error;

    async fn open(&self, peer: PeerId) -> Result<Opened<Self::Stream>, O::Error> {
        let opened = self.opener.open(peer).await?;
        Ok(Opened {
            stream: self.bandwidth.limit(opened.stream),
            version: opened.version,
            relayed: opened.relayed,
        })
    }
}

#[cfg(test)]
mod tests {
    use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _, future::join_all};
    use proptest::prelude::*;
    use tokio_util::compat::{TokioAsyncReadCompatExt as _, TokioAsyncWriteCompatExt as _};

    use super::*;

    const RATE: u64 = 1 << 20;

    proptest! {
        /// Callers that wait as they are asked stay below the rate, and do not fall behind it.
        #[test]
        fn a_bucket_keeps_its_rate(
            rate in 1u64 << 10..1 << 32,
            sizes in prop::collection::vec(1u64..1 << 16, 1..200),
            late_us in prop::collection::vec(0u64..3000, 200),
        ) {
            let mut bucket = TokenBucket::new(rate);
            let mut now = Duration::from_secs(1000);
            let begun = now;
            let (mut taken, mut last, mut owed) = (0u64, 0, Duration::ZERO);
            for (size, late_us) in sizes.into_iter().zip(late_us) {
                let wait = bucket.take(size, now);
                (taken, last) = (taken + size, size);
                owed = wait;
                // Timers are late.
                now += wait + if wait.is_zero() { Duration::ZERO } else { Duration::from_micros(late_us) };
            }
            let at_rate = |time: Duration| time.as_secs_f64() * rate as f64;
            let most = at_rate(now - begun + 2 * BURST) + last as f64;
            prop_assert!(taken as f64 <= most + 1.0, "{taken} of {most}");
            // No more waiting than the bytes cost, and the lateness of the last timer.
            let cost = taken as f64 / rate as f64 + 0.003;
            let waited = (now - begun).as_secs_f64();
            prop_assert!(waited <= cost + 0.001, "{waited} of {cost}, {owed:?}");
        }

        #[test]
        fn a_bucket_takes_any_numbers(rate in any::<u64>(), bytes in any::<u64>(), now in any::<u64>()) {
            let mut bucket = TokenBucket::new(rate);
            let now = Duration::from_nanos(now);
            let first = bucket.take(bytes, now);
            prop_assert_eq!(bucket.take(0, now), first);
        }
    }

    /// Copies bytes through a limited stream, and returns the bytes that arrived.
    async fn send(bandwidth: &Bandwidth, len: usize, limits_reader: bool) -> u64 {
        let (near, far) = tokio::io::duplex(1 << 20);
        let unlimited = Bandwidth::default();
        let (write_limit, read_limit) = match limits_reader {
            false => (bandwidth, &unlimited),
            true => (&unlimited, bandwidth),
        };
        let mut near = write_limit.limit(near.compat_write());
        let mut far = read_limit.limit(far.compat());
        let writing = async {
            near.write_all(&vec![7; len]).await.unwrap();
            near.close().await.unwrap();
        };
        let mut received = Vec::new();
        let reading = far.read_to_end(&mut received);
        let ((), read) = futures::future::join(writing, reading).await;
        assert_eq!(read.unwrap(), len);
        received.len() as u64
    }

    /// Copies through streams, at most eight at one time, as transfers of one peer. In virtual
    /// time: exact, however loaded the machine is.
    async fn elapsed_of(streams: usize, len: usize, limits_reader: bool) -> (u64, f64) {
        let bandwidth = match limits_reader {
            false => Bandwidth::new(RATE, 0),
            true => Bandwidth::new(0, RATE),
        };
        let begun = Instant::now();
        let all = (0..streams).map(|_| send(&bandwidth, len, limits_reader));
        let sent = futures::stream::iter(all).buffer_unordered(8);
        let bytes: u64 = sent.collect::<Vec<_>>().await.into_iter().sum();
        (bytes, begun.elapsed().as_secs_f64())
    }

    #[tokio::test(start_paused = true)]
    async fn streams_share_a_limit_that_holds_within_ten_percent() {
        for limits_reader in [false, true] {
            // One long stream, some in parallel, and many that are shorter than a piece.
            for (streams, len) in [(1, 4 << 20), (8, 512 << 10), (2048, 2 << 10)] {
                let (bytes, seconds) = elapsed_of(streams, len, limits_reader).await;
                let rate = bytes as f64 / seconds;
                let off = rate / RATE as f64 - 1.0;
                assert!(off.abs() < 0.1, "{streams} of {len}: off by {off}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_limit_takes_no_time() {
        let begun = Instant::now();
        send(&Bandwidth::default(), 8 << 20, false).await;
        // The other direction is limited.
        send(&Bandwidth::new(0, 1), 8 << 20, false).await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn streams_get_equal_shares() {
        let bandwidth = Bandwidth::new(RATE, 0);
        let begun = Instant::now();
        let all = (0..4).map(|_| async {
            send(&bandwidth, 1 << 20, false).await;
            begun.elapsed().as_secs_f64()
        });
        let ends = join_all(all).await;
        // Each one ends when nearly all of the four are sent, after 4 s.
        assert!(ends.iter().all(|end| *end > 3.5), "{ends:?}");
    }
}
