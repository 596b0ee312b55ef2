//! The number of streams that a peer may have open, which grows with their use.

use std::time::{Duration, Instant};

/// Streams that a new connection grants, 192. It is also the number of streams that a peer can open
/// without a byte on any of them, of which this side does not learn.
///
/// `quinn` stores each stream that it grants in two hash tables of 17 bytes a slot: 2,048 take 140
/// KiB of a connection that has two open. 192 and 32 streams that this side opens fit 256 slots,
/// which take 8.5 KiB; the 256 of libp2p-quic need 512 slots.
const FIRST_GRANT: u32 = 192;

/// Time in which inbound streams are counted, 2 s: many round trips, of which each granted stream
/// takes one or two.
const COUNTED: Duration = Duration::from_secs(2);

/// Decides how many inbound streams are granted. Pure: the caller passes the time.
///
/// The grant is doubled when half of it is open, or was opened within 2 s: a peer whose streams are
/// short is limited by the grants of a round trip. A peer that opens all streams at once waits for
/// one round trip for each doubling.
#[derive(Debug)]
pub(super) struct StreamLimit {
    granted: u32,
    most: u32,
    /// Streams opened since `since`.
    opened: u32,
    since: Option<Instant>,
}

impl StreamLimit {
    /// Number of streams that a connection grants at first, at most `most`.
    pub(super) fn first_grant(most: u32) -> u32 {
        FIRST_GRANT.min(most)
    }

    /// Starts with the first grant, which the handshake announced.
    pub(super) fn new(most: u32) -> Self {
        Self {
            granted: Self::first_grant(most),
            most,
            opened: 0,
            since: None,
        }
    }

    /// The peer opened a stream, after which `open` of its streams are open. Returns the new grant
    /// if it has changed.
    pub(super) fn on_opened(&mut self, open: u32, now: Instant) -> Option<u32> {
        let is_counted = self
            .since
            .is_some_and(|since| now.saturating_duration_since(since) < COUNTED);
        if !is_counted {
            self.since = Some(now);
            self.opened = 0;
        }
        self.opened = self.opened.saturating_add(1);
        if self.granted == self.most || self.opened.max(open) < self.granted / 2 {
            return None;
        }
        self.granted = self.granted.saturating_mul(2).min(self.most);
        Some(self.granted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Opens `count` streams `apart`, of which `open` are open, and returns the last grant.
    fn grant(
        limit: &mut StreamLimit,
        count: u32,
        apart: Duration,
        open: impl Fn(u32) -> u32,
    ) -> u32 {
        let start = Instant::now();
        let mut granted = FIRST_GRANT;
        for nth in 1..=count {
            let now = start + apart * nth;
            granted = limit.on_opened(open(nth), now).unwrap_or(granted);
        }
        granted
    }

    #[test]
    fn a_peer_that_opens_few_streams_is_granted_no_more() {
        let mut limit = StreamLimit::new(2048);
        let second = Duration::from_secs(1);
        assert_eq!(grant(&mut limit, 10_000, second, |_| 1), FIRST_GRANT);
    }

    #[test]
    fn streams_that_stay_open_are_granted_up_to_the_limit() {
        let mut limit = StreamLimit::new(2048);
        let hour = Duration::from_secs(3600);
        // The peer never meets the limit.
        let mut granted = FIRST_GRANT;
        for open in 1..=2048 {
            assert!(open <= granted, "{open} streams with a grant of {granted}");
            let now = Instant::now() + hour * open;
            granted = limit.on_opened(open, now).unwrap_or(granted);
        }
        assert_eq!(granted, 2048);
    }

    #[test]
    fn many_short_streams_are_granted_up_to_the_limit() {
        let mut limit = StreamLimit::new(600);
        let millisecond = Duration::from_millis(1);
        assert_eq!(grant(&mut limit, 300, millisecond, |_| 0), 600);
        let mut limit = StreamLimit::new(2048);
        assert_eq!(grant(&mut limit, 1024, millisecond, |_| 0), 2048);
    }

    #[test]
    fn a_limit_below_the_first_grant_is_kept() {
        let mut limit = StreamLimit::new(3);
        assert_eq!(StreamLimit::first_grant(3), 3);
        assert_eq!(limit.on_opened(3, Instant::now()), None);
    }
}
