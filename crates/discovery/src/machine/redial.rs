//! Peers that were lost, and when they are dialled again. Its one writer is this file.

use std::{collections::HashMap, time::Instant};

use calimero_network_primitives::{Multiaddr, PeerId, config::RedialConfig};
use rand::rngs::StdRng;

use super::schedule::{Schedule, jittered};

#[derive(Clone, Debug)]
struct Lost {
    /// Dials so far.
    attempts: usize,
    /// Where it was, captured at the loss: the address book may forget it meanwhile.
    addresses: Vec<Multiaddr>,
    /// A boot node is dialled for ever, others until the last step.
    infrastructure: bool,
}

/// Lost peers. Each has a time at which it is due, or a dial that is waiting or under way.
#[derive(Clone, Debug)]
pub(super) struct Redials {
    config: RedialConfig,
    lost: HashMap<PeerId, Lost>,
    due: Schedule<PeerId>,
}

impl Redials {
    pub(super) fn new(config: RedialConfig) -> Self {
        Self {
            config,
            lost: HashMap::new(),
            due: Schedule::default(),
        }
    }

    /// `peer` is gone (or, for a boot node, not yet there) and wanted back.
    pub(super) fn lost(
        &mut self,
        peer: PeerId,
        addresses: Vec<Multiaddr>,
        infrastructure: bool,
        now: Instant,
        rng: &mut StdRng,
    ) {
        let full = self.lost.len() >= self.config.max_peers as usize;
        if self.lost.contains_key(&peer) || (full && !infrastructure) {
            return;
        }
        let lost = Lost {
            attempts: 0,
            addresses,
            infrastructure,
        };
        self.lost.insert(peer, lost);
        let [first, ..] = self.config.steps;
        self.due.set(peer, now + jittered(rng, first));
    }

    /// A lost peer whose next dial is due.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<PeerId> {
        self.due.pop_due(now)
    }

    /// A dial of `peer` failed or could not be made: the next one is planned, or it was the last.
    pub(super) fn failed(&mut self, peer: PeerId, now: Instant, rng: &mut StdRng) {
        let Some(lost) = self.lost.get_mut(&peer) else {
            return;
        };
        if self.due.contains(&peer) {
            return;
        }
        lost.attempts = lost.attempts.saturating_add(1);
        let steps = &self.config.steps;
        // The steps are times since the loss, the waits are what lies between them.
        let wait = match (steps.get(lost.attempts), steps.get(lost.attempts - 1)) {
            (Some(next), Some(last)) => next.saturating_sub(*last),
            _ if lost.infrastructure => self.config.interval,
            _ => {
                self.lost.remove(&peer);
                return;
            }
        };
        self.due.set(peer, now + jittered(rng, wait));
    }

    /// `peer` is back, or not wanted any more.
    pub(super) fn settle(&mut self, peer: &PeerId) {
        self.lost.remove(peer);
        self.due.cancel(peer);
    }

    /// The network has changed: everybody who is waiting is due, as after a fresh loss.
    pub(super) fn hasten(&mut self, now: Instant) {
        let mut waiting = Vec::with_capacity(self.due.len());
        while let Some(peer) = self.due.pop_first() {
            waiting.push(peer);
        }
        for peer in waiting {
            if let Some(lost) = self.lost.get_mut(&peer) {
                lost.attempts = 0;
                self.due.set(peer, now);
            }
        }
    }

    /// Where `peer` was when it was lost.
    pub(super) fn addresses(&self, peer: &PeerId) -> &[Multiaddr] {
        self.lost.get(peer).map_or(&[], |lost| &lost.addresses)
    }

    /// Whether `peer` waits for its time, rather than for a dial.
    #[cfg(test)]
    pub(super) fn is_waiting(&self, peer: &PeerId) -> bool {
        self.due.contains(peer)
    }

    #[cfg(test)]
    pub(super) fn peers(&self) -> impl Iterator<Item = &PeerId> {
        self.lost.keys()
    }

    pub(super) fn len(&self) -> usize {
        self.lost.len()
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.due.next()
    }
}
