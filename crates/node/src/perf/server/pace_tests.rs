use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::time::{self, Interval};

use super::*;

/// A client that sends `step` bytes in each interval, for ever, and reads at once.
struct Slow {
    step: usize,
    interval: Interval,
}

impl Slow {
    fn new(step: usize, interval: Duration) -> Self {
        Self {
            step,
            interval: time::interval(interval),
        }
    }
}

impl AsyncRead for Slow {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.interval.poll_tick(cx));
        // Zeros ask for nothing.
        let count = self.step.min(bytes.len());
        bytes[..count].fill(0);
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for Slow {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(60);

/// The kind of the failure that ends a request.
async fn end(client: Slow, grant: impl FnMut(u64) -> bool, limits: Limits) -> io::ErrorKind {
    let end = timeout(LONG / 2, answer(client, grant, limits)).await;
    end.unwrap().unwrap_err().kind()
}

#[tokio::test]
async fn a_byte_now_and_then_does_not_hold_a_request() {
    let limits = Limits {
        request: LONG,
        window: Duration::from_millis(50),
        ..LIMITS
    };
    let client = Slow::new(1, Duration::from_millis(20));
    assert_eq!(end(client, |_| true, limits).await, io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn a_request_ends_at_its_deadline_at_any_speed() {
    let limits = Limits {
        request: Duration::from_millis(100),
        window: LONG,
        ..LIMITS
    };
    let client = Slow::new(BLOCK_BYTES, Duration::from_millis(1));
    assert_eq!(end(client, |_| true, limits).await, io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn received_bytes_are_granted_too() {
    let client = Slow::new(BLOCK_BYTES, Duration::from_millis(1));
    let mut granted = 0;
    let limit = 4 * BLOCK_BYTES as u64;
    let grant = |bytes| {
        granted += bytes;
        granted <= limit
    };
    assert_eq!(
        end(client, grant, LIMITS).await,
        io::ErrorKind::QuotaExceeded
    );
    assert_eq!(granted, limit + BLOCK_BYTES as u64);
}
