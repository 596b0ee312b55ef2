//! The rate limit of one connection. Without IO: time is an argument.

use std::time::{Duration, Instant};

/// A rate limiter that delays requests: a bucket of `burst` tokens, of which `per_second` are
/// refilled, stored as the time at which it would be full (the generic cell rate algorithm, ITU-T
/// I.371).
#[derive(Clone, Copy, Debug)]
pub(super) struct Throttle {
    /// Time that one request takes from the bucket.
    each: Duration,
    /// Time that a full bucket holds.
    burst: Duration,
    /// Time at which the bucket is full again.
    full: Option<Instant>,
}

impl Throttle {
    /// Creates a full bucket. Both numbers count as at least 1.
    pub(super) fn new(burst: u32, per_second: u32) -> Self {
        let each = Duration::from_secs(1) / per_second.max(1);
        Self {
            each,
            burst: each.saturating_mul(burst.max(1)),
            full: None,
        }
    }

    /// Takes a token. Returns the wait until it is available; `None`, without taking one, if the
    /// wait is longer than `patience`.
    pub(super) fn admit(&mut self, now: Instant, patience: Duration) -> Option<Duration> {
        let full = self
            .full
            .map_or(now, |full| full.max(now))
            .checked_add(self.each)?;
        let wait = full
            .saturating_duration_since(now)
            .saturating_sub(self.burst);
        (wait <= patience).then(|| {
            self.full = Some(full);
            wait
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_goes_through_and_the_rest_waits_its_turn() {
        let now = start();
        let mut throttle = Throttle::new(3, 2);
        let second = Duration::from_secs(1);
        let waits: Vec<_> = (0..7).map(|_| throttle.admit(now, second)).collect();
        let ms = |ms| Some(Duration::from_millis(ms));
        assert_eq!(waits, [ms(0), ms(0), ms(0), ms(500), ms(1000), None, None]);
        // What was refused took nothing.
        assert_eq!(throttle.admit(now + second, second), ms(500));
        assert_eq!(throttle.admit(now + second * 60, second), ms(0));
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "any time will do for a test to start from"
    )]
    fn start() -> Instant {
        Instant::now()
    }

    proptest! {
        /// Whatever comes when: in any stretch of time no more is served than the bucket and
        /// what came back into it.
        #[test]
        fn no_stretch_of_time_serves_more_than_the_rate(
            burst in 1u32..20,
            per_second in 1u32..50,
            gaps_ms in prop::collection::vec(0u64..300, 1..100),
        ) {
            let mut throttle = Throttle::new(burst, per_second);
            let mut now = start();
            let mut served = Vec::new();
            for gap in gaps_ms {
                now += Duration::from_millis(gap);
                if let Some(wait) = throttle.admit(now, Duration::from_secs(2)) {
                    served.push(now + wait);
                }
            }
            prop_assert!(served.is_sorted());
            for (first, from) in served.iter().enumerate() {
                for (last, until) in served.iter().enumerate().skip(first) {
                    let came = (*until - *from).as_secs_f64() * f64::from(per_second);
                    let count = (last - first + 1) as f64;
                    prop_assert!(count <= f64::from(burst) + came + 1.0 + 1e-6);
                }
            }
        }
    }
}
