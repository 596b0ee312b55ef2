//! Which chunks a provider puts off, so that requesters of one blob give them to each other. Pure:
//! time is the distance from any fixed point.
//!
//! A chunk that was just given to one requester is not sent to a second one at once: the second one
//! gets it from the first, or from this provider when it asks again. The time that this takes is
//! measured by the reports of the requesters. Each requester is put off once for a chunk, and not any
//! more when it had to come back several times, so that peers that keep chunks for themselves delay a
//! transfer by one such time.

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use calimero_network_primitives::PeerId;

/// Chunks that are remembered as given: 1,024, of which those of the last seconds matter.
const MAX_GIVEN: usize = 1024;

/// Time from the request for a chunk to the report that it is verified, where none was measured:
/// half a second, a chunk at 2 MiB/s. A guess.
const UNKNOWN_TIME: Duration = Duration::from_millis(500);

/// Longest such time that counts: 5 s, so that no chunk is put off for more than 10 s.
const TIME_MAX: Duration = Duration::from_secs(5);

/// How many of those times a chunk may be on its way to another requester before a second one gets
/// it as well: 3. A guess.
const PATIENCE: u32 = 3;

/// Weight of the newest time among those that were measured, one in this many.
const SMOOTHING: u32 = 4;

/// Shortest pause that is asked for, so that requests do not follow each other without one.
const RETRY_MIN: Duration = Duration::from_millis(20);

/// Chunks that a requester may come back for before it is not put off any more: 8. A guess.
const MAX_RETURNS: u32 = 8;

/// Chunks of a blob from which on they are put off: 4. A smaller blob is sooner sent to all.
const MIN_CHUNKS: u64 = 4;

#[derive(Debug)]
struct Given {
    index: u64,
    to: PeerId,
    at: Duration,
    verified: Option<Duration>,
}

/// What was given of one blob.
#[derive(Debug, Default)]
pub(crate) struct Spread {
    given: VecDeque<Given>,
    /// Smoothed time until a chunk that was given is verified.
    time: Option<Duration>,
}

/// What one requester was put off for.
#[derive(Debug, Default)]
pub(crate) struct PutOff {
    chunks: HashSet<u64>,
    returns: u32,
}

impl Spread {
    /// Notes that a chunk is sent to a requester that serves it afterwards.
    pub(crate) fn on_given(&mut self, index: u64, to: PeerId, now: Duration) {
        if self.given.len() >= MAX_GIVEN {
            self.given.pop_front();
        }
        self.given.push_back(Given {
            index,
            to,
            at: now,
            verified: None,
        });
    }

    /// Notes that a requester has verified a chunk that was given to it.
    pub(crate) fn on_verified(&mut self, index: u64, by: &PeerId, now: Duration) {
        let mut given = self.given.iter_mut().rev();
        let Some(given) = given.find(|given| given.index == index && given.to == *by) else {
            return;
        };
        if given.verified.replace(now).is_some() {
            return;
        }
        let took = now.saturating_sub(given.at).min(TIME_MAX);
        self.time = Some(match self.time {
            None => took,
            Some(before) => before - before / SMOOTHING + took / SMOOTHING,
        });
    }

    /// Decides whether a requester is put off for a chunk of a blob of some chunks, and for how long.
    /// `serves` returns whether a peer is still connected and serves its chunks.
    pub(crate) fn put_off(
        &self,
        index: u64,
        requester: &PeerId,
        before: &mut PutOff,
        chunks: u64,
        serves: impl Fn(&PeerId) -> bool,
        now: Duration,
    ) -> Option<Duration> {
        if before.chunks.remove(&index) {
            before.returns += 1;
            return None;
        }
        if chunks < MIN_CHUNKS || before.returns >= MAX_RETURNS {
            return None;
        }
        let mut others = self.given.iter().rev();
        let given = others
            .find(|given| given.index == index && given.to != *requester && serves(&given.to))?;
        let time = self.time.unwrap_or(UNKNOWN_TIME);
        let since = given.verified.unwrap_or(given.at);
        if now.saturating_sub(since) >= time * PATIENCE {
            return None;
        }
        before.chunks.insert(index);
        let rest = match given.verified {
            None => time * 2,
            // It only has to ask there.
            Some(_) => time,
        };
        Some(rest.max(RETRY_MIN))
    }
}

#[cfg(test)]
mod tests {
    use calimero_network_primitives::Keypair;

    use super::*;

    const CHUNKS: u64 = 100;

    fn peer(seed: u8) -> PeerId {
        let key = Keypair::ed25519_from_bytes([seed; 32]).unwrap();
        key.public().to_peer_id()
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn put_off(
        spread: &Spread,
        index: u64,
        requester: &PeerId,
        before: &mut PutOff,
        now: Duration,
    ) -> Option<Duration> {
        spread.put_off(index, requester, before, CHUNKS, |_| true, now)
    }

    #[test]
    fn a_requester_is_put_off_once_for_what_another_one_gets() {
        let (one, other) = (peer(1), peer(2));
        let (mut spread, mut before) = (Spread::default(), PutOff::default());
        assert_eq!(put_off(&spread, 7, &other, &mut before, ms(0)), None);
        spread.on_given(7, one, ms(0));
        assert_eq!(put_off(&spread, 7, &one, &mut before, ms(1)), None);
        assert_eq!(put_off(&spread, 8, &other, &mut before, ms(1)), None);
        let pause = put_off(&spread, 7, &other, &mut before, ms(1));
        assert_eq!(pause, Some(2 * UNKNOWN_TIME));
        assert_eq!(put_off(&spread, 7, &other, &mut before, ms(2)), None);
    }

    #[test]
    fn the_pause_follows_the_measured_time_and_has_a_bound() {
        let (one, other) = (peer(1), peer(2));
        let mut spread = Spread::default();
        spread.on_given(1, one, ms(0));
        spread.on_verified(1, &one, ms(100));
        spread.on_given(2, one, ms(100));
        let mut before = PutOff::default();
        let pause = put_off(&spread, 2, &other, &mut before, ms(150));
        assert_eq!(pause, Some(ms(200)));
        // The first one has it: the second one has to ask it.
        assert_eq!(
            put_off(&spread, 1, &other, &mut before, ms(150)),
            Some(ms(100))
        );
        // Too long ago.
        let mut before = PutOff::default();
        assert_eq!(put_off(&spread, 2, &other, &mut before, ms(400)), None);
        for _ in 0..100 {
            spread.on_given(3, one, ms(0));
            spread.on_verified(3, &one, ms(3_600_000));
        }
        spread.on_given(3, one, ms(0));
        let pause = put_off(&spread, 3, &other, &mut before, ms(1));
        assert!(
            pause > Some(TIME_MAX) && pause <= Some(2 * TIME_MAX),
            "{pause:?}"
        );
    }

    #[test]
    fn one_that_comes_back_often_is_not_put_off_any_more() {
        let (one, other) = (peer(1), peer(2));
        let (mut spread, mut before) = (Spread::default(), PutOff::default());
        for index in 0..u64::from(MAX_RETURNS) {
            spread.on_given(index, one, ms(0));
            assert!(put_off(&spread, index, &other, &mut before, ms(1)).is_some());
            assert!(put_off(&spread, index, &other, &mut before, ms(1)).is_none());
        }
        spread.on_given(99, one, ms(0));
        assert_eq!(put_off(&spread, 99, &other, &mut before, ms(1)), None);
    }

    #[test]
    fn chunks_of_peers_that_left_and_of_small_blobs_are_sent() {
        let (one, other) = (peer(1), peer(2));
        let (mut spread, mut before) = (Spread::default(), PutOff::default());
        spread.on_given(1, one, ms(0));
        let left = spread.put_off(1, &other, &mut before, CHUNKS, |_| false, ms(1));
        let small = spread.put_off(1, &other, &mut before, MIN_CHUNKS - 1, |_| true, ms(1));
        assert_eq!((left, small), (None, None));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let one = peer(1);
        let mut spread = Spread::default();
        for index in 0..2 * MAX_GIVEN as u64 {
            spread.on_given(index, one, ms(index));
        }
        assert_eq!(spread.given.len(), MAX_GIVEN);
    }
}
