//! Peers that do not read what they are sent.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use calimero_network_primitives::PeerId;

/// Says when a peer has been slow for too long.
///
/// Gossipsub reports once a heartbeat the peers whose queue was full. Reports that follow each
/// other without a break belong together.
#[derive(Debug)]
pub struct Slow {
    timeout: Duration,
    pause: Duration,
    peers: HashMap<PeerId, (Instant, Instant)>,
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
        }
    }

    /// Takes in a report. `true`: the peer has been slow for too long; its record is cleared.
    pub fn reported(&mut self, peer: PeerId, now: Instant) -> bool {
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
            .map(|s| slow.reported(peer, start + SECOND * s))
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
            assert!((0..9).all(|s| !slow.reported(peer, start + SECOND * s)));
        }
    }

    #[test]
    fn peers_that_leave_are_forgotten() {
        let mut slow = Slow::new(SECOND, SECOND);
        let peer = PeerId::random();
        slow.reported(peer, Instant::now());
        slow.gone(&peer);
        assert!(slow.peers.is_empty());
    }
}
