//! Peers that do not read what they are sent.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use calimero_network_primitives::PeerId;

/// Says when a peer has been slow for too long.
///
/// Gossipsub reports once a heartbeat the peers whose queue was full, and how many messages found
/// it so. Reports that follow each other without a break belong together. Where fewer were lost
/// than this node published, the queue has moved: the peer reads, only the publisher is faster, and
/// that is the publisher's to heed.
#[derive(Debug)]
pub struct Slow {
    timeout: Duration,
    pause: Duration,
    peers: HashMap<PeerId, (Instant, Instant)>,
    /// Own messages for a peer since its last report.
    published: HashMap<PeerId, usize>,
}

impl Slow {
    /// A peer is slow for too long after `timeout`; a report more than `pause` after the last
    /// starts anew.
    #[must_use]
    pub fn new(timeout: Duration, pause: Duration) -> Self {
        Self {
            timeout,
            pause,
            peers: HashMap::new(),
            published: HashMap::new(),
        }
    }

    /// An own message is about to be put into the queue of `peer`.
    pub fn publishing(&mut self, peer: PeerId) {
        *self.published.entry(peer).or_default() += 1;
    }

    /// Takes in a report that `lost` messages found the queue full. `true`: the peer has been slow
    /// for too long; its record is cleared.
    pub fn reported(&mut self, peer: PeerId, lost: usize, now: Instant) -> bool {
        let published = self.published.remove(&peer).unwrap_or_default();
        if lost < published {
            self.peers.remove(&peer);
            return false;
        }
        let (since, last) = self.peers.entry(peer).or_insert((now, now));
        if now.saturating_duration_since(*last) > self.pause {
            *since = now;
        }
        *last = now;
        let over = now.saturating_duration_since(*since) >= self.timeout;
        if over {
            self.peers.remove(&peer);
        }
        over
    }

    /// The peer is no longer connected.
    pub fn gone(&mut self, peer: &PeerId) {
        self.peers.remove(peer);
        self.published.remove(peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_peer_that_stays_slow_is_told_of_once() {
        let (mut slow, start) = (Slow::new(SECOND * 10, SECOND * 3), Instant::now());
        let peer = PeerId::random();
        let told: Vec<_> = (0..15)
            .map(|s| slow.reported(peer, 1, start + SECOND * s))
            .collect();
        assert_eq!(told.iter().position(|told| *told), Some(10));
        assert_eq!(told.iter().filter(|told| **told).count(), 1);
    }

    #[test]
    fn a_peer_that_catches_up_in_between_is_not() {
        let (mut slow, start) = (Slow::new(SECOND * 10, SECOND * 3), Instant::now());
        let peer = PeerId::random();
        for burst in 0..10 {
            let start = start + SECOND * 20 * burst;
            assert!((0..9).all(|s| !slow.reported(peer, 1, start + SECOND * s)));
        }
    }

    #[test]
    fn a_peer_that_reads_more_slowly_than_is_published_is_not_told_of() {
        let (mut slow, start) = (Slow::new(SECOND * 10, SECOND * 3), Instant::now());
        let peer = PeerId::random();
        for second in 0..30 {
            (0..100).for_each(|_| slow.publishing(peer));
            assert!(!slow.reported(peer, 99, start + SECOND * second));
        }
        // From here on nothing finds room.
        let told = (30..41).map(|second| {
            (0..100).for_each(|_| slow.publishing(peer));
            slow.reported(peer, 100, start + SECOND * second)
        });
        assert_eq!(told.filter(|told| *told).count(), 1);
    }

    #[test]
    fn peers_that_leave_are_forgotten() {
        let mut slow = Slow::new(SECOND, SECOND);
        let peer = PeerId::random();
        slow.reported(peer, 1, Instant::now());
        slow.gone(&peer);
        assert!(slow.peers.is_empty());
    }
}
