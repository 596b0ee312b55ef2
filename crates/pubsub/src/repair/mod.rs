//! The one-way mesh: a peer that has missed the announcements of the other.
//!
//! Gossipsub tells its topics once, on the first connection with a peer. When a peer loses its
//! connection without the other end noticing and comes back on a new one, the two disagree about
//! which connection is the first:
//!
//! - the *returning* end starts afresh and announces its topics again, on the new connection;
//! - the *remaining* end still has the old connection, so for it nothing begins, and it announces
//!   nothing. It goes on to send messages, half of them into the dead connection.
//!
//! So the returning end receives messages from a peer that, as far as it knows, follows nothing,
//! and sends none to it. [`Repair`] recognises the state at either end:
//!
//! - the remaining end hears topics announced again that it knows, on a newer connection than
//!   before: what is older is dead at the other end, and the other end knows nothing of this one;
//! - the returning end receives messages of a topic which their sender has not announced.
//!
//! Either closes all connections, and the next one is the first for both. Who dials it is who has
//! an address: the end that found out does, at once if it had dialled before, a moment later if
//! not; the end that is closed by the other right after dialling dials again.
//!
//! A peer may publish on a topic without following it, and announcements may be overtaken. A
//! peer is suspected only when it passes on messages of others, which only followers do, or has
//! announced nothing at all and not greeted either; when it has left no topic a moment ago; and
//! when that lasts for a grace time. Gossipsub 1.3 greets on what it takes for the first
//! connection. What is left to chance, a publisher of an older version that follows nothing, is
//! met by a cooldown that doubles with each repair that changed nothing.

mod signs;

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::{Duration, Instant},
};

use calimero_network_primitives::PeerId;

pub use self::signs::{Effect, Input};

/// Peers whose repairs are remembered, in number. One that does not fit is not repaired until
/// the cooldown of another ends.
const MAX_REPAIRS: usize = 1024;

/// Doublings of the cooldown, in number: 16 times in the end.
const MAX_DOUBLINGS: u32 = 4;

/// A connection that is closed so soon after it was dialled, without an announcement heard, was
/// closed to be made anew.
const SHUT_OUT: Duration = Duration::from_secs(5);

/// Delays before each dial after a close. The first finds a peer that is simply there; the others
/// one that was closing its end as well. An end that has not dialled before starts with the
/// second, to leave the first move to the other.
const DIAL_DELAYS: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_secs(2),
    Duration::from_secs(10),
];

/// When a peer is suspected and how often it is repaired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RepairTimes {
    /// How long a suspicion must last.
    pub grace: Duration,
    /// Least time between two repairs of one peer.
    pub cooldown: Duration,
}

#[derive(Debug)]
struct Peer<C> {
    /// In the order they were opened.
    connections: Vec<C>,
    /// When the first was, if this node dialled it.
    dialled_at: Option<Instant>,
    announced_on: Option<C>,
    greeted: bool,
    left_at: Option<Instant>,
    suspected: Option<Instant>,
}

#[derive(Debug)]
struct Attempt {
    /// No further repair before.
    until: Instant,
    /// In a row, without an announcement heard since.
    in_vain: u32,
    redial: Option<Redial>,
}

#[derive(Clone, Copy, Debug)]
struct Redial {
    tried: usize,
    due: Option<Instant>,
}

/// The state machine. Time is an argument; effects come out of [`poll`](Self::poll), which must
/// be called after each [`handle`](Self::handle) and at [`next_timeout`](Self::next_timeout).
#[derive(Debug)]
pub struct Repair<C> {
    times: RepairTimes,
    peers: HashMap<PeerId, Peer<C>>,
    attempts: HashMap<PeerId, Attempt>,
    due: BTreeSet<(Instant, PeerId)>,
    effects: VecDeque<Effect>,
}

impl<C: Copy + Eq> Repair<C> {
    /// A machine that knows nobody.
    #[must_use]
    pub fn new(times: RepairTimes) -> Self {
        Self {
            times,
            peers: HashMap::new(),
            attempts: HashMap::new(),
            due: BTreeSet::new(),
            effects: VecDeque::new(),
        }
    }

    /// Takes in what happened.
    pub fn handle(&mut self, input: Input<C>, now: Instant) {
        match input {
            Input::Opened {
                peer,
                connection,
                dialled,
            } => self.opened(peer, connection, dialled, now),
            Input::Closed {
                peer,
                connection,
                by_peer,
            } => self.closed(peer, connection, by_peer, now),
            Input::Greeted { peer } => {
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.greeted = true;
                }
            }
            Input::Announced {
                peer,
                connection,
                repeated,
            } => self.announced(peer, connection, repeated, now),
            Input::Left { peer } => {
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.left_at = Some(now);
                }
            }
            Input::Unannounced { peer, forwarded } => self.unannounced(peer, forwarded, now),
            Input::DialFailed { peer } => self.dial_failed(peer, now),
        }
    }

    /// The next thing to do, `None` when there is nothing until
    /// [`next_timeout`](Self::next_timeout) or the next input.
    pub fn poll(&mut self, now: Instant) -> Option<Effect> {
        while let Some(&(at, peer)) = self.due.first() {
            if at > now {
                break;
            }
            self.due.pop_first();
            self.dial_if_due(peer, now);
            self.repair_if_suspected(peer, now);
        }
        self.effects.pop_front()
    }

    /// When [`poll`](Self::poll) has something to do next.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Whether `peer` is to be dialled again.
    #[must_use]
    pub fn redials(&self, peer: &PeerId) -> bool {
        let attempt = self.attempts.get(peer);
        attempt.is_some_and(|attempt| attempt.redial.is_some())
    }

    fn opened(&mut self, peer: PeerId, connection: C, dialled: bool, now: Instant) {
        let known = self.peers.entry(peer).or_insert_with(|| Peer {
            connections: Vec::with_capacity(1),
            dialled_at: dialled.then_some(now),
            announced_on: None,
            greeted: false,
            left_at: None,
            suspected: None,
        });
        known.connections.push(connection);
        if let Some(attempt) = self.attempts.get_mut(&peer) {
            attempt.redial = None;
        }
    }

    fn closed(&mut self, peer: PeerId, connection: C, by_peer: bool, now: Instant) {
        let Some(known) = self.peers.get_mut(&peer) else {
            return;
        };
        known.connections.retain(|other| *other != connection);
        if !known.connections.is_empty() {
            return;
        }
        let shut_out = by_peer
            && known.announced_on.is_none()
            && known
                .dialled_at
                .is_some_and(|at| now.saturating_duration_since(at) < SHUT_OUT);
        let dialled = known.dialled_at.is_some();
        self.peers.remove(&peer);
        let asked = self.attempts.get(&peer).is_some_and(|a| a.redial.is_some());
        if asked || (shut_out && self.begin(peer, now)) {
            self.redial(peer, usize::from(!dialled), now);
        }
    }

    fn announced(&mut self, peer: PeerId, connection: C, repeated: bool, now: Instant) {
        let Some(known) = self.peers.get_mut(&peer) else {
            return;
        };
        known.suspected = None;
        let before = known.announced_on.replace(connection);
        let position = |wanted: C| known.connections.iter().position(|c| *c == wanted);
        let newer = before.and_then(position) < position(connection);
        if repeated && before != Some(connection) && newer {
            if self.begin(peer, now) {
                self.effects.push_back(Effect::CloseAll { peer });
            }
        } else if let Some(attempt) = self.attempts.get_mut(&peer) {
            attempt.in_vain = 0;
        }
    }

    fn unannounced(&mut self, peer: PeerId, forwarded: bool, now: Instant) {
        let Some(known) = self.peers.get_mut(&peer) else {
            return;
        };
        let merely_publishes = !forwarded && (known.announced_on.is_some() || known.greeted);
        let on_its_way = known
            .left_at
            .is_some_and(|at| now.saturating_duration_since(at) < self.times.grace * 2);
        if known.suspected.is_some() || merely_publishes || on_its_way {
            return;
        }
        let at = now + self.times.grace;
        known.suspected = Some(at);
        self.due.insert((at, peer));
    }

    fn repair_if_suspected(&mut self, peer: PeerId, now: Instant) {
        let Some(known) = self.peers.get_mut(&peer) else {
            return;
        };
        if known.suspected.is_none_or(|at| at > now) {
            return;
        }
        known.suspected = None;
        if self.begin(peer, now) {
            self.effects.push_back(Effect::CloseAll { peer });
        }
    }

    /// Begins a repair, unless it is too early for another or there are too many.
    fn begin(&mut self, peer: PeerId, now: Instant) -> bool {
        if self.attempts.len() >= MAX_REPAIRS {
            self.attempts
                .retain(|_, attempt| attempt.until > now || attempt.redial.is_some());
        }
        let known = self.attempts.get(&peer);
        let too_early = known.is_some_and(|attempt| attempt.until > now);
        if too_early || (known.is_none() && self.attempts.len() >= MAX_REPAIRS) {
            return false;
        }
        let attempt = self.attempts.entry(peer).or_insert(Attempt {
            until: now,
            in_vain: 0,
            redial: None,
        });
        let doublings = attempt.in_vain.min(MAX_DOUBLINGS);
        attempt.until = now + self.times.cooldown * (1 << doublings);
        attempt.in_vain = doublings + 1;
        attempt.redial = Some(Redial {
            tried: 0,
            due: None,
        });
        true
    }

    /// Dials after the delay that belongs to the number of dials `tried`.
    fn redial(&mut self, peer: PeerId, tried: usize, now: Instant) {
        let Some(attempt) = self.attempts.get_mut(&peer) else {
            return;
        };
        match DIAL_DELAYS.get(tried) {
            Some(delay) => {
                let at = now + *delay;
                attempt.redial = Some(Redial {
                    tried,
                    due: Some(at),
                });
                self.due.insert((at, peer));
            }
            None => {
                attempt.redial = None;
                self.effects.push_back(Effect::GaveUp { peer });
            }
        }
    }

    fn dial_if_due(&mut self, peer: PeerId, now: Instant) {
        let Some(attempt) = self.attempts.get_mut(&peer) else {
            return;
        };
        let Some(redial) = &mut attempt.redial else {
            return;
        };
        if redial.due.is_some_and(|at| at <= now) {
            redial.due = None;
            redial.tried += 1;
            self.effects.push_back(Effect::Dial { peer });
        }
    }

    fn dial_failed(&mut self, peer: PeerId, now: Instant) {
        let redial = self.attempts.get(&peer).and_then(|a| a.redial);
        // A dial that somebody else asked for says nothing while ours is still to come.
        if let Some(Redial { tried, due: None }) = redial
            && !self.peers.contains_key(&peer)
        {
            self.redial(peer, tried, now);
        }
    }
}

#[cfg(test)]
mod tests;
