//! The state machine, heard and asked in a made-up time.

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
        self.hear(|peer| Input::Closed {
            peer,
            connection,
            by_peer: true,
        })
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
fn a_peer_that_greeted_may_publish_and_follow_nothing() {
    let mut bench = Bench::new();
    bench.opened(1, true);
    bench.hear(|peer| Input::Greeted { peer });
    bench.unannounced(false);
    assert_eq!(bench.pass(TIMES.grace), []);
}

#[test]
fn a_connection_closed_here_is_not_dialled_again() {
    let mut bench = Bench::new();
    bench.opened(1, true);
    let effects = bench.hear(|peer| Input::Closed {
        peer,
        connection: 1,
        by_peer: false,
    });
    assert_eq!(effects, []);
    assert_eq!(bench.pass(Duration::from_secs(3600)), []);
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
        (0..8u8, 0..3usize, 0..4u32, any::<bool>(), 0..3000u64),
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
                    Input::Closed { peer, connection, by_peer: flag }
                }
                2 => Input::Announced { peer, connection, repeated: flag },
                3 => Input::Left { peer },
                6 => Input::Greeted { peer },
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
