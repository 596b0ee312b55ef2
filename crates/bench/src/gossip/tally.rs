//! The messages that a receiver has got.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::HEAD_BYTES;
use crate::Failure;

/// Returns the time since 1970 in nanoseconds. All processes on this host read
/// the same clock.
pub(super) fn now_nanos() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The result of a receiver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Arrivals {
    /// Number of different messages.
    pub(super) delivered: u64,
    /// Number of messages that were delivered a second time.
    pub(super) repeated: u64,
    /// Time from the first message to the last one, in seconds.
    pub(super) seconds: f64,
    /// Median time from publication to delivery, in milliseconds.
    pub(super) p50_ms: f64,
    /// The same for 99 % of the messages.
    pub(super) p99_ms: f64,
}

/// Counts messages by their number.
#[derive(Debug)]
pub(super) struct Tally {
    seen: Vec<bool>,
    repeated: u64,
    /// Nanoseconds from publication to delivery of each message.
    ages: Vec<u64>,
    first: Option<Instant>,
    last: Option<Instant>,
}

impl Tally {
    pub(super) fn new(messages: u64) -> Self {
        let messages = usize::try_from(messages).unwrap_or(usize::MAX);
        Self {
            seen: vec![false; messages],
            repeated: 0,
            ages: Vec::with_capacity(messages),
            first: None,
            last: None,
        }
    }

    /// Counts a message that was delivered at `nanos` since 1970.
    ///
    /// # Errors
    ///
    /// A message that no publisher of this measurement sends.
    pub(super) fn count(&mut self, message: &[u8], nanos: u64) -> Result<(), Failure> {
        let head: Option<(&[u8; HEAD_BYTES], _)> = message.split_first_chunk();
        let (head, _) = head.ok_or("a message without a header")?;
        let head = u128::from_be_bytes(*head);
        let (number, published) = ((head >> 64) as usize, head as u64);
        let seen = self.seen.get_mut(number);
        let seen = seen.ok_or_else(|| format!("message {number} was not published"))?;
        if std::mem::replace(seen, true) {
            self.repeated += 1;
            return Ok(());
        }
        self.ages.push(nanos.saturating_sub(published));
        Ok(())
    }

    /// Records when messages were delivered, for the rate.
    pub(super) fn delivered_at(&mut self, now: Instant) {
        self.first.get_or_insert(now);
        self.last = Some(now);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ages.is_empty()
    }

    pub(super) fn is_complete(&self) -> bool {
        self.ages.len() == self.seen.len()
    }

    pub(super) fn arrivals(mut self) -> Arrivals {
        self.ages.sort_unstable();
        let millis = |share| quantile(&self.ages, share) as f64 / 1e6;
        let between = self.first.zip(self.last).map(|(first, last)| last - first);
        Arrivals {
            delivered: self.ages.len() as u64,
            repeated: self.repeated,
            seconds: between.unwrap_or_default().as_secs_f64(),
            p50_ms: millis(0.5),
            p99_ms: millis(0.99),
        }
    }
}

/// Returns the smallest value that is not exceeded by the given share of the
/// sorted values, or 0 without values.
pub(super) fn quantile(sorted: &[u64], share: f64) -> u64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}
