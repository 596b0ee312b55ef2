//! Refreshes of the routing table that no peer answered.
//!
//! libp2p-kad 0.49 refreshes its routing table (a bootstrap query) when it meets a peer, and then
//! every [`INTERVAL`]. A node that met one peer, whose answer was lost on the way, would know no
//! other peer until then. It refreshes again after a wait that doubles.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;

use super::schedule::backoff;

/// Time between two refreshes that are answered, 5 min: the default of libp2p-kad.
pub(crate) const INTERVAL: Duration = Duration::from_secs(300);
/// Wait after the first refresh without an answer, 2 s: long enough for the connection to settle
/// whose beginning made libp2p-kad refresh.
const MIN_WAIT: Duration = Duration::from_secs(2);

/// How the latest refreshes ended, and when the next one is due that libp2p-kad would not begin.
#[derive(Clone, Debug, Default)]
pub(super) struct RoutingRefresh {
    /// Whether a peer answered the refresh under way.
    answered: bool,
    /// Refreshes without an answer since one was answered.
    unanswered: u32,
    due: Option<Instant>,
}

impl RoutingRefresh {
    /// A part of a refresh ended, in which `answers` of the peers that were asked answered.
    pub(super) fn on_ended(&mut self, answers: u32, last: bool, now: Instant, rng: &mut StdRng) {
        self.answered |= answers > 0;
        if !last {
            return;
        }
        if std::mem::take(&mut self.answered) {
            self.unanswered = 0;
            self.due = None;
        } else {
            self.wait(now, rng);
        }
    }

    /// When [`is_due`](Self::is_due) may return `true`.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due
    }

    /// Returns whether a refresh is due, once. A node without connections waits on: a refresh would
    /// dial, and the machine alone decides which peers are dialled.
    pub(super) fn is_due(&mut self, connected: bool, now: Instant, rng: &mut StdRng) -> bool {
        if self.due.is_none_or(|at| at > now) {
            return false;
        }
        self.due = None;
        if !connected {
            self.wait(now, rng);
        }
        connected
    }

    fn wait(&mut self, now: Instant, rng: &mut StdRng) {
        self.unanswered = self.unanswered.saturating_add(1);
        let wait = backoff(rng, MIN_WAIT, INTERVAL, self.unanswered);
        self.due = Some(now + wait);
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a test has to start somewhere")]
    fn new() -> (Instant, RoutingRefresh, StdRng) {
        let rng = StdRng::seed_from_u64(1);
        (Instant::now(), RoutingRefresh::default(), rng)
    }

    #[test]
    fn waits_double_up_to_the_ordinary_interval_until_a_peer_answers() {
        let (mut at, mut refresh, mut rng) = new();
        for seconds in [2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
            refresh.on_ended(0, true, at, &mut rng);
            let due = refresh.next().unwrap();
            let middle = Duration::from_secs(seconds);
            assert!(due - at >= middle.mul_f64(0.75) && due - at <= middle.mul_f64(1.25));
            assert!(!refresh.is_due(true, due - Duration::from_millis(1), &mut rng));
            assert!(refresh.is_due(true, due, &mut rng));
            assert_eq!(refresh.next(), None);
            at = due;
        }
        refresh.on_ended(1, true, at, &mut rng);
        assert_eq!(refresh.next(), None);
        refresh.on_ended(0, true, at, &mut rng);
        assert!(refresh.next().unwrap() - at < 2 * MIN_WAIT);
    }

    #[test]
    fn an_answer_to_any_part_is_an_answer() {
        let (at, mut refresh, mut rng) = new();
        refresh.on_ended(0, false, at, &mut rng);
        refresh.on_ended(2, false, at, &mut rng);
        refresh.on_ended(0, true, at, &mut rng);
        assert_eq!(refresh.next(), None);
        refresh.on_ended(0, false, at, &mut rng);
        assert_eq!(refresh.next(), None);
        refresh.on_ended(0, true, at, &mut rng);
        assert!(refresh.next().is_some());
    }

    #[test]
    fn a_node_without_connections_does_not_refresh() {
        let (at, mut refresh, mut rng) = new();
        refresh.on_ended(0, true, at, &mut rng);
        let due = refresh.next().unwrap();
        assert!(!refresh.is_due(false, due, &mut rng));
        let later = refresh.next().unwrap();
        assert!(later > due);
        assert!(refresh.is_due(true, later, &mut rng));
    }
}
