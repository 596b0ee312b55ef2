//! The queue of dials: which peers are dialled, in which order, and how many at one time.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use calimero_network_primitives::{PeerId, config::DialsTuning};

/// Time after which a dial that has not ended counts as failed: 35 s, the deadline of a dial (30 s)
/// and a reserve.
pub(super) const DIAL_TIMEOUT: Duration = Duration::from_secs(35);

/// Limit of peers that rest at one time. Above it, the peer whose rest ends first may be dialled.
const MAX_RESTING: usize = 4096;

/// The reason for a dial, ordered from the most to the least urgent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DialReason {
    /// The peer is a boot node.
    Boot,
    /// The connection with the peer was lost.
    Lost,
    /// The peer was connected before the restart.
    Cached,
    /// The peer is a member of an overlay with too few connected members, or this node has no
    /// connection and the peer was reached before.
    Member,
    /// The peer was found on the local link.
    Local,
}

impl DialReason {
    /// Returns whether the dials for this reason have waits of their own, so that the peer need not
    /// rest after a failure.
    fn is_paced(self) -> bool {
        !matches!(self, Self::Member)
    }
}

/// Position in the queue: the more urgent reason first, then the peer that has waited longest.
type Turn = (DialReason, u64);

/// The time at which a state ends, and a number that makes ends at one instant distinct.
type End = (Instant, u64);

/// The state of a peer that is dialled, was dialled, or waits for it.
#[derive(Clone, Copy, Debug)]
enum State {
    Waiting(Turn),
    /// A dial of the peer is under way. It counts as failed at that time.
    UnderWay(End),
    /// A dial of the peer failed. No dial begins until that time.
    Resting(End),
}

/// The queue of peers to dial and the dials under way.
#[derive(Clone, Debug)]
pub(super) struct Dials {
    config: DialsTuning,
    states: HashMap<PeerId, State>,
    waiting: BTreeMap<Turn, PeerId>,
    under_way: BTreeMap<End, PeerId>,
    resting: BTreeMap<End, PeerId>,
    sequence: u64,
}

impl Dials {
    pub(super) fn new(config: DialsTuning) -> Self {
        Self {
            config,
            states: HashMap::new(),
            waiting: BTreeMap::new(),
            under_way: BTreeMap::new(),
            resting: BTreeMap::new(),
            sequence: 0,
        }
    }

    /// Queues a dial of `peer`. Returns whether one waits or is under way, and the peer that was
    /// dropped from the full queue for it, if any.
    pub(super) fn want(&mut self, peer: PeerId, reason: DialReason) -> (bool, Option<PeerId>) {
        match self.states.get(&peer) {
            Some(State::UnderWay(_)) => return (true, None),
            Some(State::Waiting((before, _))) if *before <= reason => return (true, None),
            Some(State::Resting(_)) if !reason.is_paced() => return (false, None),
            Some(State::Waiting(_) | State::Resting(_)) | None => {}
        }
        let turn = (reason, self.next_number());
        self.put(peer, State::Waiting(turn));
        if self.waiting.len() <= self.config.max_queued as usize {
            return (true, None);
        }
        let dropped = self.waiting.pop_last().map(|(_, dropped)| dropped);
        dropped.map(|dropped| self.states.remove(&dropped));
        (dropped != Some(peer), dropped)
    }

    /// Starts the most urgent dial if the limit allows another one.
    pub(super) fn start(&mut self, now: Instant) -> Option<(PeerId, DialReason)> {
        if self.under_way.len() >= self.config.max_in_flight as usize {
            return None;
        }
        let ((reason, _), peer) = self.waiting.pop_first()?;
        let end = (now + DIAL_TIMEOUT, self.next_number());
        self.states.insert(peer, State::UnderWay(end));
        self.under_way.insert(end, peer);
        Some((peer, reason))
    }

    /// Removes the state of `peer`, which is connected or must not be dialled.
    pub(super) fn settle(&mut self, peer: &PeerId) {
        if let Some(state) = self.states.remove(peer) {
            self.take_out(state);
        }
    }

    /// A dial of `peer` failed. The peer rests, so that other peers are dialled, unless another
    /// dial of it waits.
    pub(super) fn failed(&mut self, peer: PeerId, now: Instant) {
        if matches!(self.states.get(&peer), Some(State::Waiting(_))) {
            return;
        }
        let end = (now + self.config.rest, self.next_number());
        self.put(peer, State::Resting(end));
        if self.resting.len() > MAX_RESTING {
            let free = self.resting.pop_first();
            free.map(|(_, free)| self.states.remove(&free));
        }
    }

    /// Removes and returns a peer whose dial has exceeded [`DIAL_TIMEOUT`].
    pub(super) fn pop_overdue(&mut self, now: Instant) -> Option<PeerId> {
        let ended = pop_ended(&mut self.under_way, now)?;
        self.states.remove(&ended);
        Some(ended)
    }

    /// Ends the rests that are over.
    pub(super) fn wake(&mut self, now: Instant) {
        while let Some(free) = pop_ended(&mut self.resting, now) {
            self.states.remove(&free);
        }
    }

    pub(super) fn next(&self) -> Option<Instant> {
        // The end of a rest needs no timeout: the next tick finds it.
        let ((at, _), _) = self.under_way.first_key_value()?;
        Some(*at)
    }

    pub(super) fn is_in_flight(&self, peer: &PeerId) -> bool {
        matches!(self.states.get(peer), Some(State::UnderWay(_)))
    }

    /// Returns whether a dial of `peer` failed a short time ago.
    pub(super) fn is_resting(&self, peer: &PeerId) -> bool {
        matches!(self.states.get(peer), Some(State::Resting(_)))
    }

    /// Returns whether a dial of `peer` waits or is under way.
    pub(super) fn is_pending(&self, peer: &PeerId) -> bool {
        let state = self.states.get(peer);
        matches!(state, Some(State::UnderWay(_) | State::Waiting(_)))
    }

    fn put(&mut self, peer: PeerId, state: State) {
        if let Some(before) = self.states.insert(peer, state) {
            self.take_out(before);
        }
        match state {
            State::Waiting(turn) => self.waiting.insert(turn, peer),
            State::UnderWay(end) => self.under_way.insert(end, peer),
            State::Resting(end) => self.resting.insert(end, peer),
        };
    }

    fn take_out(&mut self, state: State) {
        match state {
            State::Waiting(turn) => self.waiting.remove(&turn),
            State::UnderWay(end) => self.under_way.remove(&end),
            State::Resting(end) => self.resting.remove(&end),
        };
    }

    fn next_number(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    pub(super) fn in_flight(&self) -> usize {
        self.under_way.len()
    }

    pub(super) fn queued(&self) -> usize {
        self.waiting.len()
    }
}

fn pop_ended(of: &mut BTreeMap<End, PeerId>, now: Instant) -> Option<PeerId> {
    let first = of.first_entry()?;
    (first.key().0 <= now).then(|| first.remove())
}
