//! Lost peers and the times at which they are dialled again.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use calimero_network_primitives::{
    Multiaddr, PeerId,
    addr::{Circuit, DialAddr},
    config::RedialTuning,
};
use rand::rngs::StdRng;

use super::{
    Effect,
    dials::DialReason,
    schedule::{Schedule, jittered},
};

/// Time after which a connection counts as lasting, 30 s. If the connection of a peer ends before,
/// for example at a limit of that peer, the waits between its dials go on growing. Otherwise it
/// would be dialled as fast as it closes connections.
const STEADY: Duration = Duration::from_secs(30);

/// Time after a change of the network in which its connections end, 10 s: the probes of existing
/// connections take 3 s.
const CHANGE_WINDOW: Duration = Duration::from_secs(10);

/// Time after a change of the network in which a new address belongs to it, 1 min: a host that
/// changes to another network has an address there within seconds.
const RETURN_WINDOW: Duration = Duration::from_secs(60);

/// Lost peers that are dialled through a relay when it returns, 8: half of the circuits that a relay
/// of this project allows one peer.
const MAX_BEHIND_RELAY: usize = 8;

/// Peers of the local link whose dials are repeated at one time, 64: more hosts of a link than
/// cannot be reached at once, and a small part of all lost peers, since any host of the link can
/// announce peers that do not exist.
const MAX_LOCAL: usize = 64;

#[derive(Clone, Debug)]
struct Lost {
    /// Number of dials since the loss.
    attempts: usize,
    /// Addresses of the peer at the time of the loss. The address book may remove them later.
    addresses: Vec<DialAddr>,
    /// The reason for the dials. A boot node is dialled without limit. Other peers are given up after
    /// the last step.
    reason: DialReason,
    /// Whether the network changed while a dial was under way, so that its failure says nothing
    /// about the network as it is now.
    is_outdated: bool,
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
    /// The last change of the network.
    changed: Option<Instant>,
    /// When the first change of the current [`RETURN_WINDOW`] was.
    window: Option<Instant>,
}

impl Redials {
    pub(super) fn new(config: RedialTuning) -> Self {
        Self {
            config,
            lost: HashMap::new(),
            due: Schedule::default(),
            back: HashMap::new(),
            steady: Schedule::default(),
            changed: None,
            window: None,
        }
    }

    /// `peer` was lost and is wanted again, for `reason`. A boot node counts as lost at the start.
    pub(super) fn lost(
        &mut self,
        peer: PeerId,
        addresses: Vec<DialAddr>,
        reason: DialReason,
        now: Instant,
        rng: &mut StdRng,
    ) {
        let full = self.lost.len() >= self.config.max_peers as usize;
        if self.lost.contains_key(&peer) || (full && reason != DialReason::Boot) {
            return;
        }
        self.forget_steady(now);
        self.steady.cancel(&peer);
        let lost = Lost {
            attempts: self.back.remove(&peer).unwrap_or(0),
            addresses,
            reason,
            is_outdated: false,
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

    /// Adds a peer that is dialled now for the first time, for `reason`, so that a dial that fails
    /// is repeated.
    pub(super) fn first_dialled(
        &mut self,
        peer: PeerId,
        addresses: Vec<DialAddr>,
        reason: DialReason,
    ) {
        let is_local = |lost: &&Lost| lost.reason == DialReason::Local;
        let is_full = self.lost.len() >= self.config.max_peers as usize
            || (reason == DialReason::Local
                && self.lost.values().filter(is_local).count() >= MAX_LOCAL);
        if !is_full {
            self.lost.entry(peer).or_insert(Lost {
                attempts: 0,
                addresses,
                reason,
                is_outdated: false,
            });
        }
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

    /// Returns a lost peer whose next dial is due, with the reason, and removes it from those that
    /// wait.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<(PeerId, DialReason)> {
        loop {
            let peer = self.due.pop_due(now)?;
            if let Some(lost) = self.lost.get(&peer) {
                return Some((peer, lost.reason));
            }
        }
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
        if std::mem::take(&mut lost.is_outdated) {
            self.due.set(peer, now);
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
            _ if lost.reason == DialReason::Boot => self.config.interval,
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

    /// The network changed. The attempts of all peers start again, as after a new loss. Waiting peers
    /// are due now, and a peer for which `is_dialled` returns `true` as soon as that dial fails. The
    /// connections that end because of the change are not counted against their peers.
    ///
    /// A further change within [`RETURN_WINDOW`] belongs to the first one and does not extend the
    /// window: else interfaces that come and go would count as changes for ever.
    pub(super) fn retry_now(&mut self, now: Instant, is_dialled: impl Fn(&PeerId) -> bool) {
        if !self.has_network_changed(now) {
            self.window = Some(now);
        }
        self.changed = Some(now);
        self.back.clear();
        while self.steady.pop_first().is_some() {}
        for (peer, lost) in &mut self.lost {
            lost.attempts = 0;
            lost.is_outdated = is_dialled(peer);
        }
        let mut waiting = Vec::with_capacity(self.due.len());
        while let Some(peer) = self.due.pop_first() {
            waiting.push(peer);
        }
        for peer in waiting {
            if self.lost.contains_key(&peer) {
                self.due.set(peer, now);
            }
        }
    }

    /// Returns whether the network changed so recently that a new address belongs to the change.
    pub(super) fn has_network_changed(&self, now: Instant) -> bool {
        let is_recent = |at| now.saturating_duration_since(at) < RETURN_WINDOW;
        self.window.is_some_and(is_recent)
    }

    /// Returns whether a connection that existed for `lasted` and ended now says nothing about its
    /// peer.
    pub(super) fn is_harmless_end(&self, lasted: Duration, now: Instant) -> bool {
        let changed = |at| now.saturating_duration_since(at) < CHANGE_WINDOW;
        lasted >= STEADY || self.changed.is_some_and(changed)
    }

    /// A relay is connected again. Its lost peers are dialled through it now, at most
    /// [`MAX_BEHIND_RELAY`] of them.
    pub(super) fn relay_returned(&self, relay: &PeerId, out: &mut VecDeque<Effect>) {
        let behind = self.lost.iter().filter_map(|(peer, lost)| {
            let circuits = lost.addresses.iter().filter(|one| is_behind(one, relay));
            let addresses: Vec<_> = circuits.cloned().collect();
            (!addresses.is_empty()).then_some((*peer, addresses))
        });
        let mut behind: Vec<_> = behind.collect();
        // The table has no order, and the same inputs must have the same effects.
        behind.sort_unstable_by_key(|(peer, _)| *peer);
        for (peer, addresses) in behind.into_iter().take(MAX_BEHIND_RELAY) {
            out.push_back(Effect::DialCircuits { peer, addresses });
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

fn is_behind(address: &Multiaddr, relay: &PeerId) -> bool {
    Circuit::parse(address).is_ok_and(|circuit| circuit.relay() == *relay)
}
