//! Lost peers and the times at which they are dialled again.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use calimero_network_primitives::{Multiaddr, PeerId, addr::DialAddr, config::RedialTuning};
use rand::rngs::StdRng;

use super::schedule::{Schedule, jittered};

/// Time after which a connection counts as lasting, 30 s. If the connection of a peer ends before,
/// for example at a limit of that peer, the waits between its dials go on growing. Otherwise it
/// would be dialled as fast as it closes connections.
pub(super) const STEADY: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
struct Lost {
    /// Number of dials since the loss.
    attempts: usize,
    /// Addresses of the peer at the time of the loss. The address book may remove them later.
    addresses: Vec<DialAddr>,
    /// Whether the peer is a boot node, which is dialled without limit. Other peers are given up
    /// after the last step.
    infrastructure: bool,
}

/// Lost peers. Each is due at some time, or its dial waits or is under way.
#[derive(Clone, Debug)]
pub(super) struct Redials {
    config: RedialTuning,
    lost: HashMap<PeerId, Lost>,
    due: Schedule<PeerId>,
    /// Peers that returned with the number of dials that took, until their connection has lasted.
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

    /// `peer` was lost and is wanted again. A boot node counts as lost at the start.
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

    /// `peer` is connected again. If the connection does not last, its dials continue at the step
    /// where they were.
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

    /// Removes and returns a lost peer whose next dial is due.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<PeerId> {
        self.due.pop_due(now)
    }

    /// A dial of `peer` failed or could not be made. Plans the next dial, or gives the peer up
    /// after the last one.
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

    /// Plans the next dial, or gives the peer up.
    fn plan(&mut self, peer: PeerId, now: Instant, rng: &mut StdRng) {
        let Some(lost) = self.lost.get(&peer) else {
            return;
        };
        let steps = &self.config.steps;
        // The steps are times since the loss; a wait is the difference of two steps.
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

    /// Removes `peer`, which is no longer wanted.
    pub(super) fn settle(&mut self, peer: &PeerId) {
        self.lost.remove(peer);
        self.due.cancel(peer);
        self.back.remove(peer);
        self.steady.cancel(peer);
    }

    /// The network changed. All waiting peers are due now, as after a new loss.
    pub(super) fn retry_now(&mut self, now: Instant) {
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

    /// Removes an address that no longer leads to `peer`.
    pub(super) fn address_dead(&mut self, peer: &PeerId, address: &Multiaddr) {
        if let Some(lost) = self.lost.get_mut(peer) {
            lost.addresses.retain(|other| **other != *address);
        }
    }

    /// Returns the addresses of `peer` at the time of its loss.
    pub(super) fn addresses(&self, peer: &PeerId) -> &[DialAddr] {
        self.lost.get(peer).map_or(&[], |lost| &lost.addresses)
    }

    /// Returns whether `peer` waits for its next dial and no dial is under way.
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
