//! Peers that were lost, and when they are dialled again. Its one writer is this file.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use calimero_network_primitives::{PeerId, addr::DialAddr, config::RedialTuning};
use rand::rngs::StdRng;

use super::schedule::{Schedule, jittered};

/// Time a connection lasts to count as one. A peer whose connection ends before, as where it has
/// no room for us, is dialled on at the pace it was: else it would be dialled as fast as it closes.
pub(super) const STEADY: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
struct Lost {
    /// Dials so far.
    attempts: usize,
    /// Where it was, captured at the loss: the address book may forget it meanwhile.
    addresses: Vec<DialAddr>,
    /// A boot node is dialled for ever, others until the last step.
    infrastructure: bool,
}

/// Lost peers. Each has a time at which it is due, or a dial that is waiting or under way.
#[derive(Clone, Debug)]
pub(super) struct Redials {
    config: RedialTuning,
    lost: HashMap<PeerId, Lost>,
    due: Schedule<PeerId>,
    /// Peers that are back, with the dials that took, until it is seen that they stay.
    back: HashMap<PeerId, usize>,
    steady: Schedule<PeerId>,
}

impl Redials {
    pub(super) fn new(config: RedialTuning) -> Self {
        Self {
            config,
            lost: HashMap::new(),
            due: Schedule::default(),
            back: HashMap::new(),
            steady: Schedule::default(),
        }
    }

    /// `peer` is gone (or, for a boot node, not yet there) and wanted back.
    pub(super) fn lost(
        &mut self,
        peer: PeerId,
        addresses: Vec<DialAddr>,
        infrastructure: bool,
        now: Instant,
        rng: &mut StdRng,
    ) {
        let full = self.lost.len() >= self.config.max_peers as usize;
        if self.lost.contains_key(&peer) || (full && !infrastructure) {
            return;
        }
        self.forget_steady(now);
        self.steady.cancel(&peer);
        let lost = Lost {
            attempts: self.back.remove(&peer).unwrap_or(0),
            addresses,
            infrastructure,
        };
        let attempts = lost.attempts;
        self.lost.insert(peer, lost);
        if attempts > 0 {
            self.plan(peer, now, rng);
            return;
        }
        let [first, ..] = self.config.steps;
        self.due.set(peer, now + jittered(rng, first));
    }

    /// `peer` is connected again. If that does not last, it is dialled on from where this was.
    pub(super) fn returned(&mut self, peer: &PeerId, now: Instant) {
        self.due.cancel(peer);
        self.forget_steady(now);
        let Some(lost) = self.lost.remove(peer) else {
            return;
        };
        self.back.insert(*peer, lost.attempts.saturating_add(1));
        self.steady.set(*peer, now + STEADY);
        if self.back.len() > self.config.max_peers as usize
            && let Some(oldest) = self.steady.pop_first()
        {
            self.back.remove(&oldest);
        }
    }

    fn forget_steady(&mut self, now: Instant) {
        while let Some(stays) = self.steady.pop_due(now) {
            self.back.remove(&stays);
        }
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
        self.plan(peer, now, rng);
    }

    /// Plans the dial after so many attempts, or gives up.
    fn plan(&mut self, peer: PeerId, now: Instant, rng: &mut StdRng) {
        let Some(lost) = self.lost.get(&peer) else {
            return;
        };
        let steps = &self.config.steps;
        // The steps are times since the loss, the waits are what lies between them.
        let last = lost.attempts.checked_sub(1);
        let last = last.and_then(|last| steps.get(last));
        let wait = match (steps.get(lost.attempts), last) {
            (Some(next), Some(last)) => next.saturating_sub(*last),
            _ if lost.infrastructure => self.config.interval,
            _ => {
                self.lost.remove(&peer);
                return;
            }
        };
        self.due.set(peer, now + jittered(rng, wait));
    }

    /// `peer` is not wanted any more.
    pub(super) fn settle(&mut self, peer: &PeerId) {
        self.lost.remove(peer);
        self.due.cancel(peer);
        self.back.remove(peer);
        self.steady.cancel(peer);
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

    /// `address` leads to `peer` no more.
    pub(super) fn address_dead(&mut self, peer: &PeerId, address: &Multiaddr) {
        if let Some(lost) = self.lost.get_mut(peer) {
            lost.addresses.retain(|other| **other != *address);
        }
    }

    /// Where `peer` was when it was lost.
    pub(super) fn addresses(&self, peer: &PeerId) -> &[DialAddr] {
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
