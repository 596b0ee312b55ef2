use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds = Bounds {
    negotiating: 2,
    open: 4,
    waiting: 3,
};

fn conn(id: usize) -> ConnectionId {
    ConnectionId::new_unchecked(id)
}

/// Runs `step` and returns the effects that the router requests.
fn effects(router: &mut Router, step: impl FnOnce(&mut Router, &mut Vec<Effect>)) -> Vec<Effect> {
    let mut effects = Vec::new();
    step(router, &mut effects);
    effects
}

fn open(router: &mut Router, peer: PeerId) -> (RequestId, Vec<Effect>) {
    let mut effects = Vec::new();
    let id = router.open(peer, &mut effects).unwrap();
    (id, effects)
}

#[test]
fn requests_share_one_dial_and_any_connection_serves_them() {
    let (mut router, peer) = (Router::new(BOUNDS), PeerId::random());
    let (a, first) = open(&mut router, peer);
    assert_eq!(first, [Effect::Dial(peer)]);
    let (b, second) = open(&mut router, peer);
    assert_eq!(second, []);
    assert!(router.wants_dial(peer));
    router.dial_started(peer, conn(7));
    assert!(!router.wants_dial(peer));
    // The peer connects to this node before the dial completes.
    let served = effects(&mut router, |r, e| r.established(peer, conn(1), false, e));
    assert_eq!(
        served,
        [Effect::Negotiate(conn(1), a), Effect::Negotiate(conn(1), b)]
    );
    let late = effects(&mut router, |r, e| r.dial_failed(peer, conn(7), e));
    assert_eq!(late, []);
}

#[test]
fn only_the_awaited_dial_fails_waiting_requests() {
    let (mut router, peer) = (Router::new(BOUNDS), PeerId::random());
    let (a, _) = open(&mut router, peer);
    router.dial_started(peer, conn(7));
    assert_eq!(
        effects(&mut router, |r, e| r.dial_failed(peer, conn(6), e)),
        []
    );
    // Another behaviour dials the peer: the outcome of any dial counts.
    router.dial_shared(peer, conn(7));
    let failed = effects(&mut router, |r, e| r.dial_failed(peer, conn(5), e));
    assert_eq!(failed, [Effect::Fail(a, Failure::Dial)]);
    assert!(router.peers.is_empty() && router.requests.is_empty());
    // The next request starts a new dial.
    assert_eq!(open(&mut router, peer).1, [Effect::Dial(peer)]);
}

#[test]
fn an_unneeded_dial_is_not_started() {
    let (mut router, peer) = (Router::new(BOUNDS), PeerId::random());
    let (a, _) = open(&mut router, peer);
    router.cancel(a, &mut Vec::new());
    assert!(!router.wants_dial(peer));
    assert!(router.peers.is_empty());
}

#[test]
fn direct_is_preferred_to_relayed_and_working_to_suspect() {
    let (mut router, peer) = (Router::new(BOUNDS), PeerId::random());
    effects(&mut router, |r, e| r.established(peer, conn(1), true, e));
    let (a, on_relay) = open(&mut router, peer);
    assert_eq!(on_relay, [Effect::Negotiate(conn(1), a)]);
    effects(&mut router, |r, e| r.established(peer, conn(2), false, e));
    let (b, direct) = open(&mut router, peer);
    assert_eq!(direct, [Effect::Negotiate(conn(2), b)]);
    // The direct connection fails. The relayed one takes over and stays
    // preferred until the direct one has worked again.
    let moved = effects(&mut router, |r, e| {
        r.finished(peer, conn(2), b, Outcome::Broken, e)
    });
    assert_eq!(moved, [Effect::Negotiate(conn(1), b)]);
    effects(&mut router, |r, e| {
        r.finished(peer, conn(1), a, Outcome::Opened, e)
    });
    effects(&mut router, |r, e| {
        r.finished(peer, conn(1), b, Outcome::Opened, e)
    });
    let (c, still) = open(&mut router, peer);
    assert_eq!(still, [Effect::Negotiate(conn(1), c)]);
    // When the relayed connection hangs as well, the direct one is preferred
    // again.
    router.expire(c, &mut Vec::new());
    let (d, again) = open(&mut router, peer);
    assert_eq!(again, [Effect::Negotiate(conn(2), d)]);
}

/// Two round trips, of which the first is not compared.
fn measure(router: &mut Router, peer: PeerId, id: usize, ms: u64) -> Vec<Effect> {
    let round_trip = Duration::from_millis(ms);
    effects(router, |r, e| {
        r.measured(peer, conn(id), round_trip, e);
        r.measured(peer, conn(id), round_trip, e);
    })
}

#[test]
fn streams_use_the_fast_connection_until_it_is_full_or_silent() {
    let (mut router, peer) = (Router::new(BOUNDS), PeerId::random());
    for (id, relayed, ms) in [(1, false, 90), (2, false, 20), (3, true, 1)] {
        effects(&mut router, |r, e| {
            r.established(peer, conn(id), relayed, e);
        });
        assert_eq!(measure(&mut router, peer, id, ms), []);
    }
    let on = |router: &mut Router| match open(router, peer).1[..] {
        [Effect::Negotiate(on, _)] => on,
        ref other => panic!("{other:?}"),
    };
    for _ in 0..BOUNDS.negotiating {
        assert_eq!(on(&mut router), conn(2));
    }
    assert_eq!(on(&mut router), conn(1), "the fast one is full");
    router.unanswered(peer, conn(1));
    router.unanswered(peer, conn(2));
    for _ in 0..BOUNDS.negotiating {
        assert_eq!(on(&mut router), conn(3), "both direct ones are silent");
    }
    // The relayed one is full. A request waits until a direct one answers.
    let (waiting, nothing) = open(&mut router, peer);
    assert_eq!(nothing, []);
    let answered = measure(&mut router, peer, 1, 90);
    assert_eq!(answered, [Effect::Negotiate(conn(1), waiting)]);
}

#[test]
fn a_connection_is_slow_as_long_as_a_faster_one_exists() {
    let (mut router, peer) = (Router::new(BOUNDS), PeerId::random());
    for (id, relayed, ms) in [(1, false, 90), (2, false, 20), (3, true, 1)] {
        effects(&mut router, |r, e| {
            r.established(peer, conn(id), relayed, e);
        });
        measure(&mut router, peer, id, ms);
    }
    let slow = |router: &Router| {
        let connections = router.peers[&peer].connections.values();
        connections
            .map(|one| one.round_trips.is_slow())
            .collect::<Vec<_>>()
    };
    assert_eq!(slow(&router), [true, false, false]);
    effects(&mut router, |r, e| r.closed(peer, conn(2), e));
    assert_eq!(slow(&router), [false, false]);
}

#[test]
fn requests_above_capacity_wait_in_order_and_above_the_queue_limit_are_refused() {
    let (mut router, peer) = (Router::new(BOUNDS), PeerId::random());
    effects(&mut router, |r, e| r.established(peer, conn(1), false, e));
    effects(&mut router, |r, e| r.established(peer, conn(2), true, e));
    let ids: Vec<_> = (0..5).map(|_| open(&mut router, peer).0).collect();
    assert_eq!(router.open(peer, &mut Vec::new()), None);
    // Requests wait for the direct connection although the relayed one has
    // capacity.
    router.cancel(ids[3], &mut Vec::new());
    let next = effects(&mut router, |r, e| {
        r.finished(peer, conn(1), ids[1], Outcome::Opened, e)
    });
    assert_eq!(next, [Effect::Negotiate(conn(1), ids[2])]);
    let next = effects(&mut router, |r, e| {
        r.finished(peer, conn(1), ids[0], Outcome::Unsupported, e)
    });
    let failed = Effect::Fail(ids[0], Failure::Negotiation);
    assert_eq!(next, [failed, Effect::Negotiate(conn(1), ids[4])]);
}

#[test]
fn requests_of_a_closed_connection_move_and_the_last_one_fails_them() {
    let (mut router, peer) = (Router::new(BOUNDS), PeerId::random());
    effects(&mut router, |r, e| r.established(peer, conn(1), false, e));
    effects(&mut router, |r, e| r.established(peer, conn(2), true, e));
    let ids: Vec<_> = (0..3).map(|_| open(&mut router, peer).0).collect();
    let moved = effects(&mut router, |r, e| r.closed(peer, conn(1), e));
    assert_eq!(
        moved,
        [
            Effect::Negotiate(conn(2), ids[0]),
            Effect::Negotiate(conn(2), ids[1])
        ]
    );
    // Outcomes reported by the closed connection are ignored.
    let stale = effects(&mut router, |r, e| {
        r.finished(peer, conn(1), ids[0], Outcome::TimedOut, e)
    });
    assert_eq!(stale, []);
    let mut failed = effects(&mut router, |r, e| r.closed(peer, conn(2), e));
    failed.sort_by_key(|effect| match effect {
        Effect::Fail(id, Failure::ConnectionClosed) => *id,
        other => panic!("{other:?}"),
    });
    assert_eq!(failed.len(), 3);
    assert!(router.peers.is_empty() && router.requests.is_empty());
}

#[test]
fn open_streams_count_until_they_are_released() {
    let (mut router, peer) = (Router::new(BOUNDS), PeerId::random());
    effects(&mut router, |r, e| r.established(peer, conn(1), false, e));
    for _ in 0..4 {
        let (id, _) = open(&mut router, peer);
        effects(&mut router, |r, e| {
            r.finished(peer, conn(1), id, Outcome::Opened, e)
        });
    }
    let (fifth, nothing) = open(&mut router, peer);
    assert_eq!(nothing, []);
    let next = effects(&mut router, |r, e| r.released(peer, conn(1), e));
    assert_eq!(next, [Effect::Negotiate(conn(1), fifth)]);
}

#[derive(Clone, Debug)]
enum Step {
    Open,
    Cancel(usize),
    Expire(usize),
    Establish(bool),
    Close(usize),
    Measure(usize, u64),
    Unanswered(usize),
    Finish(usize, Outcome),
    Release(usize),
    DialBegins,
    DialShared,
    DialFails,
}

fn step() -> impl Strategy<Value = Step> {
    let outcome = prop_oneof![
        3 => Just(Outcome::Opened),
        1 => Just(Outcome::Unsupported),
        2 => Just(Outcome::Broken),
        1 => Just(Outcome::TimedOut),
    ];
    prop_oneof![
        6 => Just(Step::Open),
        1 => (0..16usize).prop_map(Step::Cancel),
        1 => (0..16usize).prop_map(Step::Expire),
        2 => any::<bool>().prop_map(Step::Establish),
        1 => (0..8usize).prop_map(Step::Close),
        5 => (0..16usize, outcome).prop_map(|(which, outcome)| Step::Finish(which, outcome)),
        3 => (0..16usize).prop_map(Step::Release),
        2 => (0..8usize, 0..100u64).prop_map(|(which, ms)| Step::Measure(which, ms)),
        1 => (0..8usize).prop_map(Step::Unanswered),
        1 => Just(Step::DialBegins),
        1 => Just(Step::DialShared),
        1 => Just(Step::DialFails),
    ]
}

/// A model of the caller: executes the effects and records the pending
/// requests.
#[derive(Default)]
struct Model {
    connections: HashMap<ConnectionId, bool>,
    negotiating: Vec<(ConnectionId, RequestId)>,
    alive: HashSet<RequestId>,
    open: Vec<ConnectionId>,
    dial: Option<ConnectionId>,
    next_connection: usize,
}

impl Model {
    fn apply(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Dial(_) => {}
                Effect::Negotiate(on, id) => {
                    assert!(
                        self.connections.contains_key(&on),
                        "the connection is closed"
                    );
                    assert!(self.alive.contains(&id), "the request has ended");
                    assert!(
                        !self.negotiating.contains(&(on, id)),
                        "negotiated twice at one time"
                    );
                    self.negotiating.push((on, id));
                }
                Effect::Fail(id, _) => assert!(self.alive.remove(&id), "answered twice"),
            }
        }
    }

    fn step(&mut self, router: &mut Router, peer: PeerId, step: Step) {
        let mut effects = Vec::new();
        let pick = |which: usize, len: usize| (len > 0).then(|| which % len);
        match step {
            Step::Open => {
                let id = router.open(peer, &mut effects);
                self.alive.extend(id);
            }
            Step::Cancel(which) | Step::Expire(which) => {
                let mut alive: Vec<_> = self.alive.iter().copied().collect();
                alive.sort_unstable();
                if let Some(i) = pick(which, alive.len()) {
                    self.alive.remove(&alive[i]);
                    match step {
                        Step::Cancel(_) => router.cancel(alive[i], &mut effects),
                        _ => router.expire(alive[i], &mut effects),
                    }
                }
            }
            Step::Establish(relayed) => {
                let id = conn(self.next_connection);
                self.next_connection += 1;
                self.connections.insert(id, relayed);
                router.established(peer, id, relayed, &mut effects);
            }
            Step::Close(which) => {
                let mut ids: Vec<_> = self.connections.keys().copied().collect();
                ids.sort_unstable();
                if let Some(i) = pick(which, ids.len()) {
                    self.connections.remove(&ids[i]);
                    self.negotiating.retain(|(on, _)| *on != ids[i]);
                    self.open.retain(|on| *on != ids[i]);
                    router.closed(peer, ids[i], &mut effects);
                }
            }
            Step::Measure(which, _) | Step::Unanswered(which) => {
                let mut ids: Vec<_> = self.connections.keys().copied().collect();
                ids.sort_unstable();
                match (pick(which, ids.len()), step) {
                    (Some(i), Step::Measure(_, ms)) => {
                        let round_trip = Duration::from_millis(ms);
                        router.measured(peer, ids[i], round_trip, &mut effects);
                    }
                    (Some(i), _) => router.unanswered(peer, ids[i]),
                    (None, _) => {}
                }
            }
            Step::Finish(which, outcome) => {
                if let Some(i) = pick(which, self.negotiating.len()) {
                    let (on, id) = self.negotiating.remove(i);
                    if outcome == Outcome::Opened && self.alive.remove(&id) {
                        self.open.push(on);
                    }
                    router.finished(peer, on, id, outcome, &mut effects);
                }
            }
            Step::Release(which) => {
                if let Some(i) = pick(which, self.open.len()) {
                    router.released(peer, self.open.remove(i), &mut effects);
                }
            }
            Step::DialBegins => {
                if router.wants_dial(peer) {
                    let id = conn(self.next_connection);
                    self.next_connection += 1;
                    router.dial_started(peer, id);
                    self.dial = Some(id);
                }
            }
            Step::DialShared => {
                if let Some(id) = self.dial {
                    router.dial_shared(peer, id);
                }
            }
            Step::DialFails => {
                if let Some(id) = self.dial.take() {
                    router.dial_failed(peer, id, &mut effects);
                }
            }
        }
        self.apply(effects);
    }

    fn check(&self, router: &Router, peer: PeerId) {
        let open = |peer: &Peer| peer.connections.values().map(|one| one.open).sum::<usize>();
        assert_eq!(
            router.peers.values().map(open).sum::<usize>(),
            self.open.len()
        );
        let known: HashSet<_> = router.requests.keys().copied().collect();
        assert_eq!(
            known, self.alive,
            "each request is known until it is answered"
        );
        let Some(entry) = router.peers.get(&peer) else {
            assert!(self.alive.is_empty() && self.connections.is_empty());
            return;
        };
        assert!(entry.waiting.len() <= BOUNDS.waiting);
        for connection in entry.connections.values() {
            assert!(connection.negotiating.len() <= BOUNDS.negotiating);
            assert!(connection.streams() <= BOUNDS.open);
        }
        if !entry.waiting.is_empty() {
            let full = (entry.connections.values()).any(|one| !one.has_capacity(BOUNDS));
            assert!(
                full || entry.dial != Dial::None,
                "a request waits without a connection or a dial"
            );
        }
    }
}

proptest! {
    #[test]
    fn limits_hold_and_every_request_is_answered(steps in prop::collection::vec(step(), 0..200)) {
        let (mut router, peer) = (Router::new(BOUNDS), PeerId::random());
        let mut model = Model::default();
        for step in steps {
            model.step(&mut router, peer, step);
            model.check(&router, peer);
        }
        // Finally, all dials fail and all connections close.
        model.step(&mut router, peer, Step::DialBegins);
        model.step(&mut router, peer, Step::DialFails);
        while !model.connections.is_empty() {
            model.step(&mut router, peer, Step::Close(0));
        }
        prop_assert!(model.alive.is_empty());
        prop_assert!(router.requests.is_empty());
        prop_assert!(router.peers.is_empty());
    }
}
