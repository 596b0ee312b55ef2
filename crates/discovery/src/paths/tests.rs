#![expect(clippy::disallowed_methods, reason = "a test starts at some time")]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const PING: Duration = Duration::from_secs(15);

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Two peer ids, the lower one first.
fn two_ids() -> [PeerId; 2] {
    let mut ids = [PeerId::random(), PeerId::random()];
    ids.sort_unstable();
    ids
}

/// One node and its connections with one peer.
struct Node {
    paths: Paths<u32>,
    peer: PeerId,
    preferred: Vec<u32>,
    spares: BTreeSet<u32>,
    closed: Vec<u32>,
}

impl Node {
    fn new(local: PeerId, peer: PeerId) -> Self {
        Self {
            paths: Paths::new(local),
            peer,
            preferred: Vec::new(),
            spares: BTreeSet::new(),
            closed: Vec::new(),
        }
    }

    fn decide(&mut self) {
        while let Some(decision) = self.paths.next_decision() {
            match decision {
                Decision::Prefer { connection, .. } => self.preferred.push(connection),
                Decision::Close { connection, .. } => self.closed.push(connection),
                Decision::Spare {
                    connection, spare, ..
                } => {
                    let changed = match spare {
                        true => self.spares.insert(connection),
                        false => self.spares.remove(&connection),
                    };
                    assert!(changed, "a decision that changes nothing");
                }
            }
        }
    }

    fn open(&mut self, connection: u32, path: Path, now: Instant) {
        self.paths.on_opened(self.peer, connection, path, now);
        self.decide();
    }

    fn close(&mut self, connection: u32, now: Instant) {
        self.paths.on_closed(self.peer, connection, now);
        self.spares.remove(&connection);
        self.decide();
    }

    /// The peer answers a ping on each connection after these milliseconds, or does not.
    fn ping(&mut self, round: &[(u32, Option<u64>)], now: Instant) {
        for (connection, answer) in round {
            match answer {
                Some(time) => self
                    .paths
                    .on_answered(self.peer, *connection, ms(*time), now),
                None => self.paths.on_unanswered(self.peer, *connection, now),
            }
            self.decide();
        }
    }
}

/// A node with the lower id and two direct connections, 0 and 1.
fn with_two() -> (Node, Instant) {
    let [low, high] = two_ids();
    let (mut node, now) = (Node::new(low, high), Instant::now());
    node.open(0, Path::Direct, now);
    node.open(1, Path::Direct, now);
    (node, now)
}

#[test]
fn a_connection_that_is_slow_for_a_minute_is_a_spare_until_it_is_not_slow() {
    let (mut node, start) = with_two();
    let mut now = start;
    // Two round trips each, after which they are compared.
    for _ in 0..2 {
        node.ping(&[(0, Some(90)), (1, Some(30))], now);
        now += PING;
    }
    assert_eq!(node.preferred, [1]);
    let slow_since = now - PING;
    while now < slow_since + WORSE_FOR {
        node.ping(&[(0, Some(90)), (1, Some(30))], now);
        assert!(node.spares.is_empty());
        now += PING;
    }
    node.ping(&[(0, Some(90)), (1, Some(30))], now);
    assert_eq!(node.spares, [0].into());
    for _ in 0..4 {
        now += PING;
        node.ping(&[(0, Some(30)), (1, Some(30))], now);
    }
    assert!(node.spares.is_empty());
    assert_eq!(node.preferred, [1]);
}

#[test]
fn the_node_with_the_higher_id_has_no_spares_and_prefers_all_the_same() {
    let [low, high] = two_ids();
    let (mut node, mut now) = (Node::new(high, low), Instant::now());
    node.open(0, Path::Direct, now);
    node.open(1, Path::Direct, now);
    for _ in 0..20 {
        node.ping(&[(0, Some(90)), (1, Some(30))], now);
        now += PING;
    }
    assert_eq!(node.preferred, [1]);
    assert!(node.spares.is_empty());
}

#[test]
fn a_spare_is_needed_again_when_the_better_one_does_not_answer_or_closes() {
    let lose: [fn(&mut Node, Instant); 2] = [
        |node, now| node.ping(&[(1, None)], now),
        |node, now| node.close(1, now),
    ];
    for lose in lose {
        let (mut node, mut now) = with_two();
        for _ in 0..8 {
            node.ping(&[(0, Some(90)), (1, Some(30))], now);
            now += PING;
        }
        assert_eq!(node.spares, [0].into());
        lose(&mut node, now);
        assert!(node.spares.is_empty());
    }
}

#[test]
fn a_connection_without_answers_is_not_used_and_not_a_spare() {
    let (mut node, mut now) = with_two();
    for _ in 0..8 {
        node.ping(&[(0, None), (1, Some(30))], now);
        now += PING;
    }
    assert_eq!(node.preferred, [1]);
    assert!(node.spares.is_empty());
}

#[test]
fn a_direct_connection_is_used_before_a_faster_relayed_one_and_named_for_each_new_one() {
    let [low, high] = two_ids();
    let (mut node, now) = (Node::new(low, high), Instant::now());
    node.open(0, Path::Relayed, now);
    assert!(node.preferred.is_empty());
    node.open(1, Path::Direct, now);
    assert_eq!(node.preferred, [1]);
    node.ping(&[(0, Some(1)), (1, Some(90))], now);
    assert_eq!(node.preferred, [1]);
    node.open(2, Path::Relayed, now);
    assert_eq!(node.preferred, [1, 1]);
    node.close(1, now);
    assert_eq!(node.preferred, [1, 1]);
}

#[test]
fn relayed_connections_are_closed_once_a_direct_one_answers() {
    let [low, high] = two_ids();
    let answers: [fn(&mut Node, Instant); 2] = [
        |node, now| node.ping(&[(1, Some(9))], now),
        |node, now| {
            node.paths.on_refused(node.peer, 1, now);
            node.decide();
        },
    ];
    for answer in answers {
        let (mut node, now) = (Node::new(high, low), Instant::now());
        node.open(0, Path::Relayed, now);
        node.open(1, Path::Direct, now);
        node.open(2, Path::Relayed, now);
        node.ping(&[(0, Some(9)), (2, Some(9))], now);
        node.paths.on_superseded(low, now);
        node.decide();
        assert_eq!(node.closed, []);
        answer(&mut node, now);
        assert_eq!(node.closed, [0, 2]);
        node.ping(&[(1, Some(9))], now);
        assert_eq!(node.closed, [0, 2]);
    }
}

#[test]
fn relayed_connections_stay_if_the_direct_one_does_not_answer_or_ends() {
    let [low, high] = two_ids();
    let (mut node, now) = (Node::new(low, high), Instant::now());
    node.open(0, Path::Relayed, now);
    node.open(1, Path::Direct, now);
    node.ping(&[(1, Some(9)), (1, None)], now);
    node.paths.on_superseded(high, now);
    node.decide();
    assert_eq!(node.closed, []);
    node.close(1, now);
    // The machine decides anew about the next one.
    node.open(2, Path::Direct, now);
    node.ping(&[(2, Some(9))], now);
    assert_eq!(node.closed, []);
}

#[derive(Clone, Debug)]
enum Step {
    /// Both sides ping on all connections, with these round trips at each side in milliseconds, or
    /// without an answer.
    Ping(Vec<[Option<u64>; 2]>),
    /// The side closes its spares. The other side learns of it with the next step.
    CloseSpares(usize),
    /// One more connection.
    Open(bool),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let side = prop_oneof![6 => (1_u64..200).prop_map(Some), 1 => Just(None)];
    prop_oneof![
        8 => prop::collection::vec([side.clone(), side], 4).prop_map(Step::Ping),
        3 => (0..2_usize).prop_map(Step::CloseSpares),
        1 => any::<bool>().prop_map(Step::Open),
        6 => (1_u64..90).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Whatever two nodes measure, they never close their last connection as a spare, even if the
    /// one learns late of what the other has closed.
    #[test]
    fn two_nodes_never_close_all_their_connections(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let [low, high] = two_ids();
        let mut nodes = [Node::new(low, high), Node::new(high, low)];
        let mut now = Instant::now();
        let mut open: BTreeSet<u32> = [0, 1].into();
        let mut next = 2;
        // What a side has closed and the other one has not noticed.
        let mut unnoticed: [Vec<u32>; 2] = [Vec::new(), Vec::new()];
        for node in &mut nodes {
            node.open(0, Path::Direct, now);
            node.open(1, Path::Direct, now);
        }
        for step in steps {
            let is_close = matches!(step, Step::CloseSpares(_));
            match step {
                Step::Ping(rounds) => {
                    for (side, node) in nodes.iter_mut().enumerate() {
                        let answers = open.iter().zip(&rounds);
                        let round: Vec<_> = answers
                            .map(|(connection, answers)| (*connection, answers[side]))
                            .collect();
                        node.ping(&round, now);
                    }
                }
                Step::CloseSpares(side) => {
                    for spare in nodes[side].spares.clone() {
                        nodes[side].close(spare, now);
                        unnoticed[1 - side].push(spare);
                        open.remove(&spare);
                    }
                }
                Step::Open(relayed) if open.len() < 4 => {
                    let path = if relayed { Path::Relayed } else { Path::Direct };
                    for node in &mut nodes {
                        node.open(next, path, now);
                    }
                    open.insert(next);
                    next += 1;
                }
                Step::Open(_) => {}
                Step::Wait(seconds) => now += Duration::from_secs(seconds),
            }
            prop_assert!(!open.is_empty());
            if !is_close {
                for (node, closed) in nodes.iter_mut().zip(&mut unnoticed) {
                    closed.drain(..).for_each(|connection| node.close(connection, now));
                }
            }
        }
        prop_assert!(nodes[1].spares.is_empty());
    }

    /// No connection becomes a spare without a better one that answered its last ping.
    #[test]
    fn a_spare_has_a_better_connection_that_answers(
        rounds in prop::collection::vec(
            prop::collection::vec(prop::option::weighted(0.8, 1_u64..300), 3),
            1..60,
        ),
    ) {
        let [low, high] = two_ids();
        let (mut node, mut now) = (Node::new(low, high), Instant::now());
        for connection in 0..3 {
            node.open(connection, Path::Direct, now);
        }
        for round in rounds {
            let pings: Vec<_> = (0..3_u32).zip(round.iter().copied()).collect();
            node.ping(&pings, now);
            now += PING;
            let used = (0..3_u32).zip(&round).filter(|(connection, answer)| {
                answer.is_some() && !node.spares.contains(connection)
            });
            prop_assert!(node.spares.is_empty() || used.count() > 0);
        }
    }
}
