//! Looks at the own neighbourhood in the Kademlia table that nobody has answered.
//!
//! libp2p-kad 0.49 looks when it meets somebody, and then every [`INTERVAL`]. A node that has met
//! one peer, whose answer is lost on the way, would know nobody else until then; so it looks again,
//! after a wait that doubles.

use std::time::{Duration, Instant};

use rand::{SeedableRng, rngs::StdRng};

use crate::machine::schedule::backoff;

/// Time between two looks that are answered, 5 min: the default of libp2p-kad.
pub(super) const INTERVAL: Duration = Duration::from_secs(300);
/// Wait after the first look that nobody has answered, 2 s: long enough for the connection to have
/// settled whose beginning made libp2p-kad look.
const MIN_WAIT: Duration = Duration::from_secs(2);

/// How the looks went, and when the next one is due that libp2p-kad would not take by itself.
#[derive(Debug)]
pub(super) struct Neighbourhood {
    /// Whether anybody has answered the look under way.
    answered: bool,
    /// Looks that nobody has answered since one was.
    unanswered: u32,
    again: Option<Instant>,
    rng: StdRng,
}

impl Neighbourhood {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            answered: false,
            unanswered: 0,
            again: None,
            rng: StdRng::seed_from_u64(seed),
        }
    }

    /// A part of a look is over, in which some of those asked have answered.
    pub(super) fn looked(&mut self, answers: u32, last: bool, now: Instant) {
        self.answered |= answers > 0;
        if !last {
            return;
        }
        if std::mem::take(&mut self.answered) {
            self.unanswered = 0;
            self.again = None;
        } else {
            self.wait(now);
        }
    }

    /// When [`due`](Self::due) has something to say.
    pub(super) fn next(&self) -> Option<Instant> {
        self.again
    }

    /// Whether to look again now. A node that is connected with nobody waits on: looking is
    /// dialling then, and whom to dial is not decided here.
    pub(super) fn due(&mut self, connected: bool, now: Instant) -> bool {
        if self.again.is_none_or(|at| at > now) {
            return false;
        }
        self.again = None;
        if !connected {
            self.wait(now);
        }
        connected
    }

    fn wait(&mut self, now: Instant) {
        self.unanswered = self.unanswered.saturating_add(1);
        let wait = backoff(&mut self.rng, MIN_WAIT, INTERVAL, self.unanswered);
        self.again = Some(now + wait);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::behaviour::now;

    #[test]
    fn waits_double_up_to_the_ordinary_interval_until_somebody_answers() {
        let (mut at, mut looks) = (now(), Neighbourhood::new(1));
        for seconds in [2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
            looks.looked(0, true, at);
            let due = looks.next().unwrap();
            let middle = Duration::from_secs(seconds);
            assert!(due - at >= middle.mul_f64(0.75) && due - at <= middle.mul_f64(1.25));
            assert!(!looks.due(true, due - Duration::from_millis(1)));
            assert!(looks.due(true, due));
            assert_eq!(looks.next(), None);
            at = due;
        }
        looks.looked(1, true, at);
        assert_eq!(looks.next(), None);
        looks.looked(0, true, at);
        assert!(looks.next().unwrap() - at < 2 * MIN_WAIT);
    }

    #[test]
    fn an_answer_to_any_part_is_an_answer() {
        let (at, mut looks) = (now(), Neighbourhood::new(1));
        looks.looked(0, false, at);
        looks.looked(2, false, at);
        looks.looked(0, true, at);
        assert_eq!(looks.next(), None);
        looks.looked(0, false, at);
        assert_eq!(looks.next(), None);
        looks.looked(0, true, at);
        assert!(looks.next().is_some());
    }

    #[test]
    fn nobody_is_asked_by_a_node_that_is_alone() {
        let (at, mut looks) = (now(), Neighbourhood::new(1));
        looks.looked(0, true, at);
        let due = looks.next().unwrap();
        assert!(!looks.due(false, due));
        let later = looks.next().unwrap();
        assert!(later > due);
        assert!(looks.due(true, later));
    }
}
