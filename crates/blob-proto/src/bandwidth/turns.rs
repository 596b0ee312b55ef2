//! Turns at an upload limit: at most as many requesters are sent to at one time as get a useful
//! share of it.

use std::{
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use calimero_network_primitives::{BlobId, PeerId};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{
    Shared,
    queue::{Answer, Asking, Extra, RETURN_MAX, TurnQueue},
};
use crate::{id::CHUNK_BYTES, plan::FLOOR_BYTES_PER_S};

/// Bytes that one turn sends: one chunk.
pub(crate) const TURN_BYTES: u64 = CHUNK_BYTES;

/// Share of the limit that each turn gets at least, in bytes per second: twice the rate below which
/// a requester gives up a provider, because other answers use the limit as well.
const SHARE_BYTES_PER_S: u64 = 2 * FLOOR_BYTES_PER_S;

/// Shortest time after which a requester is asked to try again: 1 s.
const RETRY_MIN: Duration = Duration::from_secs(1);

/// The turns of one kind. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Turns(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: Arc<Shared>,
    queue: Mutex<TurnQueue>,
    /// Notified when a turn ends, or a stream waits no longer while one is free.
    changed: Notify,
}

impl Turns {
    /// Returns the turns under a limit: of requests for chunks, and of blobs that are sent as a
    /// whole. Half as many more of both together are granted while the limit is not used.
    pub(super) fn new(limit: &Arc<Shared>, bytes_per_s: u64) -> (Self, Self) {
        let extra = Extra::new((active(bytes_per_s) / 2).max(1));
        let chunks = Self::of_chunks(limit, bytes_per_s, &extra);
        (chunks, Self::of_blobs(limit, bytes_per_s, &extra))
    }

    fn of_chunks(limit: &Arc<Shared>, bytes_per_s: u64, extra: &Extra) -> Self {
        let active = active(bytes_per_s);
        let bytes = TURN_BYTES.saturating_mul(active as u64);
        let micros = bytes.saturating_mul(1_000_000) / bytes_per_s.max(1);
        Self::of(
            limit,
            TurnQueue::new(active, Some(Duration::from_micros(micros)), extra),
        )
    }

    /// Half as many as of chunks, because each lasts for as long as its blob.
    fn of_blobs(limit: &Arc<Shared>, bytes_per_s: u64, extra: &Extra) -> Self {
        let active = (active(bytes_per_s) / 2).max(1);
        Self::of(limit, TurnQueue::new(active, None, extra))
    }

    fn of(limit: &Arc<Shared>, queue: TurnQueue) -> Self {
        Self(Arc::new(Inner {
            limit: Arc::clone(limit),
            queue: Mutex::new(queue),
            changed: Notify::new(),
        }))
    }

    /// Waits for a turn to send something of a blob, at most for `patience`. Dropping the future
    /// gives up the position.
    ///
    /// # Errors
    ///
    /// The time after which the requester is to ask again. Its position is kept. At once where too
    /// many of its streams wait.
    pub(crate) async fn acquire(
        &self,
        asking: Asking,
        blob: BlobId,
        patience: Duration,
    ) -> Result<Turn, Duration> {
        let Some(waiter) = Waiter::join(self, asking, blob) else {
            return Err(RETURN_MAX);
        };
        let give_up = Instant::now() + patience;
        loop {
            // Before the look, so that no change is missed.
            let mut changed = pin!(self.0.changed.notified());
            changed.as_mut().enable();
            let (answer, measure) = self.with(|queue, now| {
                queue.measure(self.0.limit.unused(), now);
                (queue.poll(&asking.peer, now), queue.next_measure())
            });
            let now = Instant::now();
            let (until, after) = match answer {
                Answer::Granted(number) => return Ok(waiter.granted(number)),
                Answer::Held { until } => (until, Duration::ZERO),
                Answer::Later { after } => (measure, after),
            };
            let until = self.0.limit.since + until;
            if now + after >= give_up {
                return Err(waiter.put_off(after.max(RETRY_MIN)));
            }
            tokio::select! {
                () = changed => {}
                () = sleep_until(until.min(give_up)) => {}
            }
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut TurnQueue, Duration) -> T) -> T {
        let now = self.0.limit.since.elapsed();
        let mut queue = self.0.queue.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut queue, now)
    }
}

/// How many requesters are sent to at one time under a limit.
fn active(bytes_per_s: u64) -> usize {
    let active = usize::try_from(bytes_per_s / SHARE_BYTES_PER_S);
    active.unwrap_or(usize::MAX).max(1)
}

/// A stream that waits for a turn. Leaves the queue when it is dropped.
struct Waiter {
    turns: Turns,
    peer: PeerId,
    blob: BlobId,
    /// `false` once the queue knows that the stream does not wait.
    waits: bool,
    retry_after: Option<Duration>,
}

impl Waiter {
    fn join(turns: &Turns, asking: Asking, blob: BlobId) -> Option<Self> {
        let waits = turns.with(|queue, now| queue.join(asking, &blob, now));
        waits.then(|| Self {
            turns: turns.clone(),
            peer: asking.peer,
            blob,
            waits: true,
            retry_after: None,
        })
    }

    fn granted(mut self, number: u64) -> Turn {
        self.waits = false;
        Turn {
            turns: self.turns.clone(),
            number,
            left_bytes: TURN_BYTES,
        }
    }

    fn put_off(mut self, after: Duration) -> Duration {
        self.retry_after = Some(after);
        after
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if self.waits {
            let (peer, blob, retry_after) = (&self.peer, &self.blob, self.retry_after);
            let has_free = self.turns.with(|queue, now| {
                queue.leave(peer, blob, retry_after, now);
                queue.has_free()
            });
            if has_free {
                self.turns.0.changed.notify_waiters();
            }
        }
    }
}

/// The turn of one stream. Ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    turns: Turns,
    number: u64,
    left_bytes: u64,
}

/// A part that is sent in a turn.
#[derive(Debug)]
pub(crate) struct Sending {
    limit: Arc<Shared>,
    begun: Instant,
    unused: Duration,
}

impl Sending {
    /// Returns `true` if `bytes` took longer than at the share of a turn, and the limit was not
    /// used for a fifth of that time.
    pub(crate) fn is_slow(&self, bytes: u64) -> bool {
        let took = self.begun.elapsed();
        let micros = bytes.saturating_mul(1_000_000) / SHARE_BYTES_PER_S;
        let unused = self.limit.unused().saturating_sub(self.unused);
        took > Duration::from_micros(micros) && unused > took / 5
    }
}

impl Turn {
    /// Begins to measure a part that is sent.
    pub(crate) fn sending(&self) -> Sending {
        let limit = Arc::clone(&self.turns.0.limit);
        Sending {
            begun: Instant::now(),
            unused: limit.unused(),
            limit,
        }
    }

    /// Returns `true` if bytes may be sent in this turn, as far as is known now.
    pub(crate) fn may_cover(&self, bytes: u64) -> bool {
        bytes <= self.left_bytes || !self.turns.with(|queue, now| queue.is_contended(now))
    }

    /// Counts bytes that are about to be sent. Returns `false` where the turn does not cover them
    /// and another requester waits.
    pub(crate) fn covers(&mut self, bytes: u64) -> bool {
        if bytes > self.left_bytes {
            let number = self.number;
            let renewed = self.turns.with(|queue, now| {
                let contended = queue.is_contended(now);
                if !contended {
                    queue.renew(number, now);
                }
                !contended
            });
            if !renewed {
                return false;
            }
            self.left_bytes = TURN_BYTES;
        }
        self.left_bytes = self.left_bytes.saturating_sub(bytes);
        true
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let (number, whole) = (self.number, self.left_bytes == 0);
        (self.turns).with(|queue, now| queue.release(number, whole, now));
        self.turns.0.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
