//! Which peers are dialled, in which order, how many at a time. Its one writer is this file.

use std::{
    collections::{BTreeMap, HashMap},
    time::Instant,
};

use calimero_network_primitives::{PeerId, config::DialsConfig};

use super::schedule::Schedule;

/// Peers that rest at one time: above it, the one whose rest ends first is free again.
const MAX_RESTING: usize = 4096;

/// Why a peer is dialled, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DialReason {
    /// It is a boot node.
    Boot,
    /// Its connection was lost.
    Lost,
    /// It was connected before the restart.
    Cached,
    /// It is a member of an overlay that lacks connected members.
    Member,
    /// It was met on the local link.
    Local,
}

impl DialReason {
    /// Whether the dial has a pace of its own, so that a failure asks for no rest.
    fn is_paced(self) -> bool {
        matches!(self, Self::Boot | Self::Lost)
    }
}

type Place = (DialReason, u64);

/// The queue of peers to dial and the dials under way.
///
/// Every peer is in at most one of: waiting, under way, resting after a failure.
#[derive(Clone, Debug)]
pub(super) struct Dials {
    config: DialsConfig,
    queue: BTreeMap<Place, PeerId>,
    places: HashMap<PeerId, Place>,
    sequence: u64,
    /// Dials under way and when they are taken as failed.
    in_flight: Schedule<PeerId>,
    resting: Schedule<PeerId>,
}

impl Dials {
    pub(super) fn new(config: DialsConfig) -> Self {
        Self {
            config,
            queue: BTreeMap::new(),
            places: HashMap::new(),
            sequence: 0,
            in_flight: Schedule::default(),
            resting: Schedule::default(),
        }
    }

    /// Asks for a dial of `peer`. Returns whether one is waiting or under way. The peer it drove
    /// out of the queue, if any, is the second value.
    pub(super) fn want(&mut self, peer: PeerId, reason: DialReason) -> (bool, Option<PeerId>) {
        if self.in_flight.contains(&peer) {
            return (true, None);
        }
        if self.resting.contains(&peer) && !reason.is_paced() {
            return (false, None);
        }
        if let Some(place) = self.places.get(&peer).copied() {
            if place.0 <= reason {
                return (true, None);
            }
            self.queue.remove(&place);
        }
        self.resting.cancel(&peer);
        self.sequence += 1;
        let place = (reason, self.sequence);
        self.queue.insert(place, peer);
        self.places.insert(peer, place);
        if self.queue.len() <= self.config.max_queued as usize {
            return (true, None);
        }
        let dropped = self.queue.pop_last().map(|(_, dropped)| dropped);
        dropped.map(|dropped| self.places.remove(&dropped));
        (dropped != Some(peer), dropped)
    }

    /// The most urgent peer, now under way, if another dial is allowed.
    pub(super) fn start(&mut self, now: Instant) -> Option<(PeerId, DialReason)> {
        if self.in_flight.len() >= self.config.max_in_flight as usize {
            return None;
        }
        let ((reason, _), peer) = self.queue.pop_first()?;
        self.places.remove(&peer);
        self.in_flight.set(peer, now + self.config.timeout);
        Some((peer, reason))
    }

    /// The peer is connected, or must not be dialled: nothing waits for it here any more.
    pub(super) fn settle(&mut self, peer: &PeerId) {
        self.in_flight.cancel(peer);
        self.resting.cancel(peer);
        self.places
            .remove(peer)
            .map(|place| self.queue.remove(&place));
    }

    /// A dial of `peer` failed. It rests, so that others have their turn.
    pub(super) fn failed(&mut self, peer: PeerId, now: Instant) {
        self.in_flight.cancel(&peer);
        if self.places.contains_key(&peer) {
            return;
        }
        self.resting.set(peer, now + self.config.rest);
        if self.resting.len() > MAX_RESTING {
            self.resting.pop_first();
        }
    }

    /// A peer whose dial nobody ever told the end of.
    pub(super) fn pop_overdue(&mut self, now: Instant) -> Option<PeerId> {
        self.in_flight.pop_due(now)
    }

    /// Ends the rests that are over.
    pub(super) fn wake(&mut self, now: Instant) {
        while self.resting.pop_due(now).is_some() {}
    }

    pub(super) fn next(&self) -> Option<Instant> {
        // The end of a rest needs no wake-up: the next round of upkeep sees it.
        self.in_flight.next()
    }

    pub(super) fn is_in_flight(&self, peer: &PeerId) -> bool {
        self.in_flight.contains(peer)
    }

    #[cfg(test)]
    pub(super) fn is_pending(&self, peer: &PeerId) -> bool {
        self.in_flight.contains(peer) || self.places.contains_key(peer)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }
}
