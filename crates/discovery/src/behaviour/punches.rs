//! The limit of dials that relayed peers cause.
//!
//! DCUtR dials every address that a relayed peer names, three times. A peer could name addresses of
//! others, which this node would then scan or flood.

use std::time::{Duration, Instant};

/// Time over which dials are counted, 1 min.
const WINDOW: Duration = Duration::from_secs(60);

/// Most dials in a minute for peers that are neither boot nodes nor members whose connections are
/// kept alive, 60: the three attempts of 20 peers.
const MAX_OTHERS: u32 = 60;

/// Most dials in a minute for boot nodes and members of overlays, 240: twice the three attempts of
/// all members of an overlay that are kept alive.
const MAX_KEPT_ALIVE: u32 = 240;

/// Counts the dials of hole punches in windows of a minute, for all peers.
#[derive(Debug)]
pub(super) struct Punches {
    since: Instant,
    kept_alive: u32,
    others: u32,
}

impl Punches {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            kept_alive: 0,
            others: 0,
        }
    }

    /// Counts a dial, if there may be one more.
    ///
    /// # Errors
    ///
    /// The limit that was reached.
    pub(super) fn admit(&mut self, is_kept_alive: bool, now: Instant) -> Result<(), u32> {
        if now.saturating_duration_since(self.since) >= WINDOW {
            *self = Self::new(now);
        }
        let (count, max) = match is_kept_alive {
            true => (&mut self.kept_alive, MAX_KEPT_ALIVE),
            false => (&mut self.others, MAX_OTHERS),
        };
        if *count >= max {
            return Err(max);
        }
        *count += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
