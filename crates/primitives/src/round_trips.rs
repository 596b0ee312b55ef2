//! Which of several connections with one peer are slow. Shared by the crates that choose one.
//!
//! The measure of a connection is the least of its latest round trips: load makes single ones
//! longer, and a longer path makes all of them longer. A connection is slow if its measure is
//! clearly above that of the fastest one, and stays slow until it is about as fast. Between the two
//! marks nothing changes, so that streams do not move back and forth.

use std::time::Duration;

/// Round trips that count, 4: about a minute of pings.
const SAMPLES: usize = 4;

/// Round trips without which a connection is not compared, 2. The first ping is sent while the
/// protocols of a new connection begin.
const MIN_SAMPLES: usize = 2;

/// A connection becomes slow above 4/3 of the fastest one and 5 ms. The difference is for short
/// paths, whose round trips are mostly the work of the hosts.
const SLOW: Mark = Mark {
    factor: (4, 3),
    more: Duration::from_millis(5),
};

/// A slow connection is no longer slow below 7/6 of the fastest one and 2 ms.
const FAST: Mark = Mark {
    factor: (7, 6),
    more: Duration::from_millis(2),
};

#[derive(Clone, Copy)]
struct Mark {
    factor: (u32, u32),
    more: Duration,
}

impl Mark {
    fn of(self, fastest: Duration) -> Duration {
        let (by, of) = self.factor;
        fastest.saturating_mul(by) / of + self.more
    }
}

/// The latest round trips of one connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct RoundTrips {
    latest: [Option<Duration>; SAMPLES],
    next: usize,
    slow: bool,
}

impl RoundTrips {
    /// Adds the duration of a round trip. The oldest of more than four no longer counts.
    pub fn add(&mut self, round_trip: Duration) {
        if let Some(oldest) = self.latest.get_mut(self.next) {
            *oldest = Some(round_trip);
        }
        self.next = (self.next + 1) % SAMPLES;
    }

    /// Returns whether another connection with the peer is clearly faster, as the last
    /// [`compare`] found. A connection with fewer than two round trips is not slow.
    #[must_use]
    pub const fn is_slow(&self) -> bool {
        self.slow
    }

    /// Returns whether there are enough round trips, two, to compare the connection with others.
    #[must_use]
    pub fn is_measured(&self) -> bool {
        self.measure().is_some()
    }

    fn measure(&self) -> Option<Duration> {
        let latest = self.latest.iter().flatten();
        (latest.clone().count() >= MIN_SAMPLES)
            .then(|| latest.min().copied())
            .flatten()
    }
}

/// Decides which of `all`, the connections with one peer, are slow. The fastest one never is.
pub fn compare<'a>(all: impl Iterator<Item = &'a mut RoundTrips>) {
    let mut measured: Vec<_> = all.filter_map(|one| Some((one.measure()?, one))).collect();
    let Some(fastest) = measured.iter().map(|(measure, _)| *measure).min() else {
        return;
    };
    for (measure, one) in &mut measured {
        one.slow = match one.slow {
            true => *measure > FAST.of(fastest),
            false => *measure > SLOW.of(fastest),
        };
    }
}

#[cfg(test)]
#[path = "round_trips_tests.rs"]
mod tests;
