//! When a transfer gives up: the time since content last came. Pure: time is an argument.

use std::time::Duration;

/// The time at which a transfer last had a reason to go on.
#[derive(Debug)]
pub(super) struct Hope {
    /// Rate below which content is no reason to go on, in bytes per second.
    floor_bytes_per_s: u64,
    renewed: Duration,
    /// Bytes of content that came since then.
    bytes: u64,
}

impl Hope {
    pub(super) fn new(floor_bytes_per_s: u64) -> Self {
        Self {
            floor_bytes_per_s,
            renewed: Duration::ZERO,
            bytes: 0,
        }
    }

    pub(super) fn renew(&mut self, now: Duration) {
        (self.renewed, self.bytes) = (now, 0);
    }

    /// Counts content. A reason to go on where it came at the minimum rate since the last one: a
    /// few bytes in each of many attempts are none.
    pub(super) fn on_content(&mut self, bytes: u64, now: Duration) {
        self.bytes = self.bytes.saturating_add(bytes);
        let least = u128::from(self.floor_bytes_per_s) * self.age(now).as_millis() / 1000;
        if bytes > 0 && u128::from(self.bytes) >= least {
            self.renew(now);
        }
    }

    /// Returns the time since the transfer last had a reason to go on.
    pub(super) fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.renewed)
    }
}

#[cfg(test)]
mod tests;
