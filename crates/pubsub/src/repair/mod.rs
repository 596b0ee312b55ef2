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
//! announced nothing at all; when it has left no topic a moment ago; and when that lasts for a
//! grace time. What is left to chance, a publisher that follows nothing, is met by a cooldown
//! that doubles with each repair that changed nothing.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::{Duration, Instant},
};

use calimero_network_primitives::PeerId;

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

/// What [`Repair`] hears. `C` names a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input<C> {
    /// A connection with `peer` is established.
    Opened {
        /// The peer.
        peer: PeerId,
        /// The connection.
        connection: C,
        /// Whether this node dialled it.
        dialled: bool,
    },
    /// A connection with `peer` is closed.
    Closed {
        /// The peer.
        peer: PeerId,
        /// The connection.
        connection: C,
    },
    /// `peer` says that it follows a topic.
    Announced {
        /// The peer.
        peer: PeerId,
        /// The connection on which it says so.
        connection: C,
        /// Whether that was known.
        repeated: bool,
    },
    /// `peer` has left a topic.
    Left {
        /// The peer.
        peer: PeerId,
    },
    /// `peer` has sent a message of a topic that this node follows, and which `peer` has not
    /// announced.
    Unannounced {
        /// The peer.
        peer: PeerId,
        /// Whether the message is of another author.
        forwarded: bool,
    },
    /// A dial asked for has failed.
    DialFailed {
        /// The peer.
        peer: PeerId,
    },
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The two ends disagree about what was announced; close all connections with `peer`.
    /// [`Effect::Dial`] follows when they are closed.
    CloseAll {
        /// The peer.
        peer: PeerId,
    },
    /// Dial `peer`.
    Dial {
        /// The peer.
        peer: PeerId,
    },
    /// `peer` could not be dialled. It is left to whatever finds peers.
    GaveUp {
        /// The peer.
        peer: PeerId,
    },
}

#[derive(Debug)]
struct Peer<C> {
    /// In the order they were opened.
    connections: Vec<C>,
    /// When the first was, if this node dialled it.
    dialled_at: Option<Instant>,
    announced_on: Option<C>,
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
            Input::Closed { peer, connection } => self.closed(peer, connection, now),
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
            left_at: None,
            suspected: None,
        });
        known.connections.push(connection);
        if let Some(attempt) = self.attempts.get_mut(&peer) {
            attempt.redial = None;
        }
    }

    fn closed(&mut self, peer: PeerId, connection: C, now: Instant) {
        let Some(known) = self.peers.get_mut(&peer) else {
            return;
        };
        known.connections.retain(|other| *other != connection);
        if !known.connections.is_empty() {
            return;
        }
        let shut_out = known.announced_on.is_none()
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
        let merely_publishes = !forwarded && known.announced_on.is_some();
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TIMES: RepairTimes = RepairTimes {
        grace: Duration::from_secs(1),
        cooldown: Duration::from_secs(15),
    };

    struct Bench {
        repair: Repair<u32>,
        peer: PeerId,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            Self {
                repair: Repair::new(TIMES),
                peer: PeerId::random(),
                now: Instant::now(),
            }
        }

        fn hear(&mut self, input: impl FnOnce(PeerId) -> Input<u32>) -> Vec<Effect> {
            self.repair.handle(input(self.peer), self.now);
            self.effects()
        }

        fn opened(&mut self, connection: u32, dialled: bool) {
            let effects = self.hear(|peer| Input::Opened {
                peer,
                connection,
                dialled,
            });
            assert_eq!(effects, []);
        }

        fn closed(&mut self, connection: u32) -> Vec<Effect> {
            self.hear(|peer| Input::Closed { peer, connection })
        }

        fn announced(&mut self, connection: u32, repeated: bool) -> Vec<Effect> {
            self.hear(|peer| Input::Announced {
                peer,
                connection,
                repeated,
            })
        }

        fn unannounced(&mut self, forwarded: bool) {
            let effects = self.hear(|peer| Input::Unannounced { peer, forwarded });
            assert_eq!(effects, []);
        }

        fn pass(&mut self, time: Duration) -> Vec<Effect> {
            self.now += time;
            self.effects()
        }

        fn effects(&mut self) -> Vec<Effect> {
            std::iter::from_fn(|| self.repair.poll(self.now)).collect()
        }
    }

    #[test]
    fn a_peer_that_delivers_and_announced_nothing_is_closed_and_dialled() {
        let mut bench = Bench::new();
        let peer = bench.peer;
        bench.opened(1, true);
        bench.unannounced(false);
        assert_eq!(bench.pass(TIMES.grace / 2), []);
        assert_eq!(bench.pass(TIMES.grace / 2), [Effect::CloseAll { peer }]);
        let effects = bench.closed(1);
        assert_eq!(effects, [Effect::Dial { peer }]);
        bench.opened(2, true);
        assert_eq!(bench.announced(2, false), []);
        assert_eq!(bench.pass(Duration::from_secs(3600)), []);
    }

    #[test]
    fn an_announcement_within_the_grace_clears_a_peer() {
        let mut bench = Bench::new();
        bench.opened(1, true);
        bench.unannounced(true);
        bench.announced(1, false);
        assert_eq!(bench.pass(TIMES.grace), []);
    }

    #[test]
    fn a_peer_that_publishes_without_following_is_left_alone() {
        let mut bench = Bench::new();
        bench.opened(1, true);
        bench.announced(1, false);
        bench.unannounced(false);
        assert_eq!(bench.pass(TIMES.grace), []);
        let peer = bench.peer;
        bench.unannounced(true);
        assert_eq!(bench.pass(TIMES.grace), [Effect::CloseAll { peer }]);
    }

    #[test]
    fn messages_overtaken_by_a_leave_are_no_sign() {
        let mut bench = Bench::new();
        bench.opened(1, true);
        bench.announced(1, false);
        bench.hear(|peer| Input::Left { peer });
        bench.unannounced(true);
        assert_eq!(bench.pass(TIMES.grace), []);
    }

    #[test]
    fn repairs_in_vain_wait_twice_as_long_each_time() {
        let mut bench = Bench::new();
        let peer = bench.peer;
        let mut last: Option<Instant> = None;
        let mut gaps = Vec::new();
        for connection in 0.. {
            bench.opened(connection, true);
            loop {
                bench.unannounced(false);
                let effects = bench.pass(TIMES.grace);
                if effects == [Effect::CloseAll { peer }] {
                    break;
                }
                assert_eq!(effects, []);
            }
            gaps.extend(last.map(|last| (bench.now - last).as_secs()));
            last = Some(bench.now);
            let effects = bench.closed(connection);
            assert_eq!(effects, [Effect::Dial { peer }]);
            if gaps.len() == 6 {
                break;
            }
        }
        assert_eq!(gaps, [15, 30, 60, 120, 240, 240]);
    }

    #[test]
    fn dials_are_repeated_and_given_up() {
        let mut bench = Bench::new();
        let peer = bench.peer;
        bench.opened(1, true);
        bench.unannounced(false);
        bench.pass(TIMES.grace);
        bench.closed(1);
        assert_eq!(bench.hear(|peer| Input::DialFailed { peer }), []);
        assert_eq!(bench.pass(DIAL_DELAYS[1]), [Effect::Dial { peer }]);
        assert_eq!(bench.hear(|peer| Input::DialFailed { peer }), []);
        assert_eq!(bench.pass(DIAL_DELAYS[2]), [Effect::Dial { peer }]);
        let effects = bench.hear(|peer| Input::DialFailed { peer });
        assert_eq!(effects, [Effect::GaveUp { peer }]);
        assert_eq!(bench.hear(|peer| Input::DialFailed { peer }), []);
    }

    #[test]
    fn topics_told_again_on_a_newer_connection_close_all() {
        let mut bench = Bench::new();
        let peer = bench.peer;
        bench.opened(1, false);
        bench.announced(1, false);
        bench.opened(2, false);
        bench.opened(3, false);
        assert_eq!(bench.announced(3, true), [Effect::CloseAll { peer }]);
        for connection in 1..3 {
            assert_eq!(bench.closed(connection), []);
        }
        // The other end dialled, so it has the first move.
        assert_eq!(bench.closed(3), []);
        assert_eq!(bench.pass(DIAL_DELAYS[1]), [Effect::Dial { peer }]);
    }

    #[test]
    fn a_peer_that_comes_back_is_not_dialled() {
        let mut bench = Bench::new();
        bench.opened(1, false);
        bench.announced(1, false);
        bench.opened(2, false);
        bench.announced(2, true);
        bench.closed(1);
        bench.closed(2);
        bench.opened(3, false);
        assert_eq!(bench.pass(Duration::from_secs(3600)), []);
    }

    #[test]
    fn a_connection_closed_right_after_dialling_is_dialled_again_once() {
        let mut bench = Bench::new();
        let peer = bench.peer;
        bench.opened(1, true);
        assert_eq!(bench.closed(1), [Effect::Dial { peer }]);
        bench.opened(2, true);
        assert_eq!(bench.closed(2), []);
    }

    #[test]
    fn a_connection_that_lasted_or_was_of_use_is_not_dialled_again() {
        for (announced, dialled, lasted) in [
            (true, true, Duration::ZERO),
            (false, false, Duration::ZERO),
            (false, true, SHUT_OUT),
        ] {
            let mut bench = Bench::new();
            bench.opened(1, dialled);
            if announced {
                bench.announced(1, false);
            }
            bench.pass(lasted);
            assert_eq!(bench.closed(1), []);
            assert_eq!(bench.pass(Duration::from_secs(3600)), []);
        }
    }

    #[test]
    fn topics_told_again_on_the_same_or_an_older_connection_close_nothing() {
        let mut bench = Bench::new();
        bench.opened(1, true);
        assert_eq!(bench.announced(1, false), []);
        assert_eq!(bench.announced(1, true), []);
        bench.opened(2, true);
        assert_eq!(bench.announced(2, false), []);
        assert_eq!(bench.announced(1, true), []);
    }

    fn inputs() -> impl Strategy<Value = Vec<(u8, usize, u32, bool, u64)>> {
        prop::collection::vec(
            (0..7u8, 0..3usize, 0..4u32, any::<bool>(), 0..3000u64),
            0..120,
        )
    }

    proptest! {
        /// Whatever is heard: repairs of one peer keep their distance, dials follow a repair and
        /// a close, only open connections are closed, and nothing is due for ever.
        #[test]
        fn repairs_keep_their_distance(inputs in inputs()) {
            let peers: Vec<_> = (0..3).map(|_| PeerId::random()).collect();
            let mut repair = Repair::new(TIMES);
            let mut now = Instant::now();
            let mut last: HashMap<PeerId, Instant> = HashMap::new();
            let mut open: HashMap<PeerId, Vec<u32>> = HashMap::new();
            for (what, peer, connection, flag, wait) in inputs {
                let peer = peers[peer];
                let conns = open.entry(peer).or_default();
                let input = match what {
                    0 if !conns.contains(&connection) => {
                        conns.push(connection);
                        Input::Opened { peer, connection, dialled: flag }
                    }
                    1 if conns.contains(&connection) => {
                        conns.retain(|c| *c != connection);
                        Input::Closed { peer, connection }
                    }
                    2 => Input::Announced { peer, connection, repeated: flag },
                    3 => Input::Left { peer },
                    4 | 5 => Input::Unannounced { peer, forwarded: flag },
                    _ => Input::DialFailed { peer },
                };
                repair.handle(input, now);
                for wait in [0, wait] {
                    now += Duration::from_millis(wait);
                    while let Some(effect) = repair.poll(now) {
                        match effect {
                            Effect::CloseAll { peer } => {
                                let before = last.insert(peer, now);
                                prop_assert!(before.is_none_or(|at| now - at >= TIMES.cooldown));
                                prop_assert!(!open[&peer].is_empty());
                            }
                            Effect::Dial { peer } => prop_assert!(open[&peer].is_empty()),
                            Effect::GaveUp { .. } => {}
                        }
                    }
                }
                prop_assert!(repair.next_timeout().is_none_or(|at| at > now));
                prop_assert!(repair.due.len() <= 12);
            }
        }
    }
}
