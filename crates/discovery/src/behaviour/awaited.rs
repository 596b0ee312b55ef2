//! Holes that only the other side can go through.
//!
//! DCUtR gives the side that was dialled through the relay the listener's part: it opens its NAT
//! and waits for the other to come in. Behind a symmetric NAT it waits in vain, since its next
//! mapping is not the one the other was told of. But the other has opened its own NAT towards it,
//! and where that filters by address or not at all, a dial from here goes through.

use std::time::{Duration, Instant};

use calimero_network_primitives::{Multiaddr, PeerId};

/// How long the ordinary way is given, 3 s: one SYN lost at a NAT that was not open yet is sent
/// again after 1 s (RFC 6298), and a handshake takes a few round trips. Well below the time for
/// which NATs keep a hole open that nothing came through, 30 s and more.
const HEAD_START: Duration = Duration::from_secs(3);
/// Hole punches in mind at one time; above it the oldest is forgotten and stays relayed until its
/// next attempt.
const MAX_WAITING: usize = 64;

/// Hole punches under way in which we have the listener's part.
#[derive(Debug, Default)]
pub(super) struct Awaited {
    /// By the time at which they are due: all have the same head start.
    waiting: Vec<(Instant, PeerId, Vec<Multiaddr>)>,
}

impl Awaited {
    /// We wait for `peer` to come in from one of `addresses`.
    pub(super) fn began(&mut self, peer: PeerId, addresses: &[Multiaddr], now: Instant) {
        self.waiting.retain(|(_, other, _)| *other != peer);
        if self.waiting.len() >= MAX_WAITING {
            self.waiting.remove(0);
        }
        let at = now + HEAD_START;
        self.waiting.push((at, peer, addresses.to_vec()));
    }

    /// When [`due`](Self::due) has something to say.
    pub(super) fn next(&self) -> Option<Instant> {
        self.waiting.first().map(|(at, ..)| *at)
    }

    /// A peer that has had its time. It is to be dialled unless it has come in.
    pub(super) fn due(&mut self, now: Instant) -> Option<(PeerId, Vec<Multiaddr>)> {
        self.next().filter(|at| *at <= now)?;
        let (_, peer, addresses) = self.waiting.remove(0);
        Some((peer, addresses))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::behaviour::now;

    #[test]
    fn each_attempt_has_its_head_start() {
        let start = now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let [a, b] = [0; 2].map(|_| PeerId::random());
        let addresses: Vec<Multiaddr> = vec!["/ip4/203.0.113.1/tcp/1".parse().unwrap()];
        let mut awaited = Awaited::default();
        assert_eq!(awaited.next(), None);
        awaited.began(a, &addresses, start);
        awaited.began(b, &addresses, at(1));
        awaited.began(a, &[], at(2));
        assert_eq!(awaited.next(), Some(at(4)));
        assert_eq!(awaited.due(at(3)), None);
        assert_eq!(awaited.due(at(4)), Some((b, addresses)));
        assert_eq!(awaited.due(at(5)), Some((a, Vec::new())));
        assert_eq!(awaited.next(), None);
    }

    #[test]
    fn no_more_are_kept_than_may_be() {
        let mut awaited = Awaited::default();
        for _ in 0..=MAX_WAITING {
            awaited.began(PeerId::random(), &[], now());
        }
        assert_eq!(awaited.waiting.len(), MAX_WAITING);
    }
}
