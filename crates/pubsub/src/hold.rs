//! How long a peer whose queue is full may hold others back.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use calimero_network_primitives::PeerId;

/// What a full queue means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Whoever adds to it must wait.
    Back,
    /// It has been full for so long that the others go on without the peer.
    Excused,
}

#[derive(Clone, Copy, Debug)]
struct Full {
    since: Instant,
    told: bool,
}

/// Remembers since when the queues of peers are full.
///
/// A queue that is full holds back whoever adds to it, so that nothing is lost to a peer that is
/// only slower. One that does not move is excused after a while: one peer must not stop the rest.
/// It is so until its queue was empty.
#[derive(Debug)]
pub struct Holds {
    longest: Duration,
    full: HashMap<PeerId, Full>,
}

impl Holds {
    /// Nobody is held back for more than `longest` at a time.
    #[must_use]
    pub fn new(longest: Duration) -> Self {
        Self {
            longest,
            full: HashMap::new(),
        }
    }

    /// The queue of `peer` is full.
    pub fn full(&mut self, peer: PeerId, now: Instant) -> Held {
        let full = self.full.entry(peer).or_insert(Full {
            since: now,
            told: false,
        });
        if now.saturating_duration_since(full.since) < self.longest {
            Held::Back
        } else {
            Held::Excused
        }
    }

    /// The queue of `peer` is empty, or the peer is gone. `true` where it was full.
    pub fn drained(&mut self, peer: &PeerId) -> bool {
        self.full.remove(peer).is_some()
    }

    /// A peer that is excused from now on, if there is one. Told once for each time.
    pub fn excuse(&mut self, now: Instant) -> Option<PeerId> {
        let longest = self.longest;
        let over = |full: &Full| !full.told && now.saturating_duration_since(full.since) >= longest;
        let (peer, full) = self.full.iter_mut().find(|(_, full)| over(full))?;
        full.told = true;
        Some(*peer)
    }

    /// When [`excuse`](Self::excuse) has somebody next.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let held = self.full.values().filter(|full| !full.told);
        held.map(|full| full.since + self.longest).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_secs(2);

    #[test]
    fn a_queue_holds_back_until_it_is_empty_or_time_is_over() {
        let (mut holds, start) = (Holds::new(LONGEST), Instant::now());
        let peer = PeerId::random();
        assert_eq!(holds.next_timeout(), None);
        assert_eq!(holds.full(peer, start), Held::Back);
        assert_eq!(holds.full(peer, start + LONGEST / 2), Held::Back);
        assert_eq!(holds.next_timeout(), Some(start + LONGEST));
        assert_eq!(holds.excuse(start + LONGEST / 2), None);

        assert_eq!(holds.full(peer, start + LONGEST), Held::Excused);
        assert_eq!(holds.excuse(start + LONGEST), Some(peer));
        assert_eq!(holds.excuse(start + LONGEST), None);
        assert_eq!(holds.next_timeout(), None);
        assert_eq!(holds.full(peer, start + LONGEST * 9), Held::Excused);

        assert!(holds.drained(&peer));
        assert!(!holds.drained(&peer));
        assert_eq!(holds.full(peer, start + LONGEST * 9), Held::Back);
    }

    #[test]
    fn each_peer_has_its_own_time() {
        let (mut holds, start) = (Holds::new(LONGEST), Instant::now());
        let (first, second) = (PeerId::random(), PeerId::random());
        holds.full(first, start);
        holds.full(second, start + LONGEST / 2);
        assert_eq!(holds.excuse(start + LONGEST), Some(first));
        assert_eq!(holds.excuse(start + LONGEST), None);
        assert_eq!(holds.next_timeout(), Some(start + LONGEST / 2 + LONGEST));
    }
}
