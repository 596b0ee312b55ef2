//! The planner against simulated providers, in virtual time.

#![allow(
    clippy::single_range_in_vec_init,
    reason = "chunks are asked for in ranges, often in one"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what broke by panicking"
)]

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use calimero_network_blob::plan::{Cause, Effect, Failure, Input, Planner, PlannerConfig};
use calimero_network_primitives::{Keypair, PeerId};
use proptest::prelude::*;

const CHUNK: u64 = 1 << 20;
const MIB: u64 = 1 << 20;

/// Longest simulated time. What takes longer never ends.
const END: Duration = Duration::from_secs(24 * 3600);

fn peer(seed: u8) -> PeerId {
    Keypair::ed25519_from_bytes([seed; 32])
        .unwrap()
        .public()
        .to_peer_id()
}

/// How a simulated provider behaves.
#[derive(Clone, Debug)]
struct Behaviour {
    bytes_per_s: u64,
    latency: Duration,
    /// What it does in place of sending its chunk of this number.
    ends: Option<(u64, End)>,
}

#[derive(Clone, Copy, Debug)]
enum End {
    Silence,
    Lie,
    Refuse,
    Break,
    Busy,
    /// It reports that it has all chunks, and answers each request at once that it comes later.
    PutOff,
}

/// Simulated time after which it is accepted that a transfer without an honest provider goes on.
const NO_END: Duration = Duration::from_secs(300);

fn steady(bytes_per_s: u64) -> Behaviour {
    let latency = Duration::from_millis(20);
    Behaviour {
        bytes_per_s,
        latency,
        ends: None,
    }
}

fn ending(after: u64, end: End) -> Behaviour {
    Behaviour {
        ends: Some((after, end)),
        ..steady(10 * MIB)
    }
}

impl Behaviour {
    fn is_honest(&self) -> bool {
        // A chunk takes longer than the stall deadline below 105 kB/s, as the simulation delivers
        // it in one piece.
        self.ends.is_none() && self.bytes_per_s > 120_000
    }
}

struct Simulated {
    behaviour: Behaviour,
    queue: VecDeque<u64>,
    /// When the chunk at the front is sent in whole.
    next: Option<Duration>,
    sent: u64,
}

impl Simulated {
    fn chunk_time(&self) -> Duration {
        Duration::from_micros(CHUNK * 1_000_000 / self.behaviour.bytes_per_s.max(1))
    }

    fn ask(&mut self, chunks: impl Iterator<Item = u64>, now: Duration) {
        if self.queue.is_empty() {
            let puts_off =
                matches!(self.behaviour.ends, Some((after, End::PutOff)) if self.sent >= after);
            let sending = if puts_off {
                Duration::ZERO
            } else {
                self.chunk_time()
            };
            self.next = Some(now + self.behaviour.latency + sending);
        }
        self.queue.extend(chunks);
    }

    fn is_silent(&self) -> bool {
        matches!(self.behaviour.ends, Some((after, End::Silence)) if self.sent >= after)
    }
}

/// What came of a simulated transfer.
#[derive(Debug, Default)]
struct Outcome {
    took: Duration,
    done: bool,
    missing: Option<u64>,
    verified: BTreeSet<u64>,
    /// Chunks that were sent, by provider.
    sent: BTreeMap<PeerId, u64>,
    left: Vec<(PeerId, Cause)>,
}

struct Simulation {
    planner: Planner,
    config: PlannerConfig,
    providers: BTreeMap<PeerId, Simulated>,
    now: Duration,
    outcome: Outcome,
}

fn simulate(config: &PlannerConfig, chunks: u64, behaviours: &[Behaviour]) -> Outcome {
    let mut simulation = Simulation {
        planner: Planner::new(config.clone(), 0..chunks),
        config: config.clone(),
        providers: BTreeMap::new(),
        now: Duration::ZERO,
        outcome: Outcome::default(),
    };
    for (seed, behaviour) in (1..).zip(behaviours) {
        let (queue, next, sent) = (VecDeque::new(), None, 0);
        let simulated = Simulated {
            behaviour: behaviour.clone(),
            queue,
            next,
            sent,
        };
        simulation.providers.insert(peer(seed), simulated);
        simulation.tell(Input::Found(peer(seed)));
        if let Some((0, End::PutOff)) = behaviour.ends
            && chunks > 0
        {
            let peer = peer(seed);
            // In two reports, so that it does not count as complete.
            for chunks in [0..chunks - 1, chunks - 1..chunks] {
                let chunks = Vec::from([chunks]);
                simulation.tell(Input::Has { peer, chunks });
            }
        }
    }
    simulation.run();
    simulation.outcome
}

impl Simulation {
    fn tell(&mut self, input: Input) {
        for effect in self.planner.handle(input, self.now) {
            match effect {
                Effect::Read { peer, chunks } => {
                    assert!(chunks.start < chunks.end);
                    assert!(!self.outcome.done, "nothing is asked for after the end");
                    let lied = (peer, Cause::Failed(Failure::Lied));
                    assert!(!self.outcome.left.contains(&lied), "a liar is asked again");
                    let provider = self.providers.get_mut(&peer).unwrap();
                    provider.ask(chunks, self.now);
                    assert!(provider.queue.len() <= self.config.provider_window_chunks);
                }
                Effect::Leave { peer, cause } => {
                    let provider = self.providers.get_mut(&peer).unwrap();
                    provider.queue.clear();
                    provider.next = None;
                    self.outcome.left.push((peer, cause));
                }
                Effect::Done => {
                    assert!(
                        !std::mem::replace(&mut self.outcome.done, true),
                        "said once"
                    );
                }
                Effect::Cancel { peer } => {
                    let provider = self.providers.get_mut(&peer).unwrap();
                    provider.queue.clear();
                    provider.next = None;
                }
                Effect::NoProviders { missing } => self.outcome.missing = Some(missing),
            }
        }
        // An idle provider is asked for one chunk, whatever the others hold.
        let most = self.config.window_chunks + self.providers.len();
        assert!(self.planner.in_flight() <= most);
        self.outcome.took = self.now;
    }

    fn run(&mut self) {
        let honest = (self.providers.values()).any(|provider| provider.behaviour.is_honest());
        while !self.outcome.done && self.outcome.missing.is_none() {
            let sending = self
                .providers
                .iter()
                .filter(|(_, provider)| !provider.is_silent());
            let sent = sending
                .filter_map(|(peer, provider)| Some((provider.next?, *peer)))
                .min();
            let due = self.planner.next_timeout();
            if !honest && self.now >= NO_END {
                self.outcome.missing = Some(self.planner.missing());
                return;
            }
            let (at, from) = match (sent, due) {
                (Some((at, peer)), due) if due.is_none_or(|due| at <= due) => (at, Some(peer)),
                (_, Some(due)) => (due, None),
                (_, None) => panic!("nothing will ever happen: {:?}", self.planner),
            };
            assert!(
                at >= self.now && at < END,
                "the transfer never ends: {:?}",
                self.planner
            );
            self.now = at;
            match from {
                Some(peer) => self.deliver(peer),
                None => self.tell(Input::Tick),
            }
        }
    }

    fn deliver(&mut self, peer: PeerId) {
        let provider = self.providers.get_mut(&peer).unwrap();
        if let Some((after, End::PutOff)) = provider.behaviour.ends
            && provider.sent >= after
        {
            let index = provider.queue.pop_front().unwrap();
            let next = self.now + provider.behaviour.latency;
            provider.next = (!provider.queue.is_empty()).then_some(next);
            let retry_after = Some(Duration::from_secs(10));
            return self.tell(Input::Absent {
                peer,
                index,
                retry_after,
            });
        }
        let failure = match provider.behaviour.ends {
            Some((after, end)) if provider.sent >= after => Some(match end {
                End::Silence | End::PutOff => unreachable!("it is handled above"),
                End::Lie => Failure::Lied,
                End::Refuse => Failure::Refused,
                End::Break => Failure::Broken,
                End::Busy => Failure::Busy {
                    retry_after: Duration::from_secs(3),
                },
            }),
            _ => None,
        };
        if let Some(failure) = failure {
            return self.tell(Input::Failed { peer, failure });
        }
        let index = provider.queue.pop_front().unwrap();
        provider.sent += 1;
        let time = provider.chunk_time();
        provider.next = (!provider.queue.is_empty()).then_some(self.now + time);
        *self.outcome.sent.entry(peer).or_default() += 1;
        self.outcome.verified.insert(index);
        self.tell(Input::Received { peer, bytes: CHUNK });
        if !self.outcome.done {
            self.tell(Input::Verified { peer, index });
        }
    }
}

fn default_config() -> PlannerConfig {
    PlannerConfig::default()
}

fn whole(chunks: u64) -> BTreeSet<u64> {
    (0..chunks).collect()
}

#[test]
fn nothing_missing_is_done_at_once() {
    let mut planner = Planner::new(default_config(), []);
    assert_eq!(planner.handle(Input::Tick, Duration::ZERO), [Effect::Done]);
    assert_eq!(planner.handle(Input::Found(peer(1)), Duration::ZERO), []);
    assert_eq!(planner.next_timeout(), None);
}

#[test]
fn two_providers_are_nearly_twice_as_fast() {
    let one = simulate(&default_config(), 256, &[steady(12 * MIB)]);
    let two = simulate(
        &default_config(),
        256,
        &[steady(12 * MIB), steady(12 * MIB)],
    );
    assert_eq!((one.verified.len(), two.verified.len()), (256, 256));
    assert!(
        two.took * 18 < one.took * 10,
        "{:?} and {:?}",
        two.took,
        one.took
    );
}

#[test]
fn unequal_providers_end_together() {
    let outcome = simulate(&default_config(), 330, &[steady(30 * MIB), steady(3 * MIB)]);
    // 33 MiB/s for 330 MiB.
    assert!(outcome.took < Duration::from_secs(11), "{:?}", outcome.took);
    let sent: u64 = outcome.sent.values().sum();
    assert!(sent <= 332, "{sent} chunks for 330");
}

#[test]
fn the_tail_of_a_slow_provider_is_taken_over() {
    let slow = Behaviour {
        bytes_per_s: 64 << 10,
        ..steady(0)
    };
    let outcome = simulate(&default_config(), 40, &[slow, steady(20 * MIB)]);
    assert!(outcome.took < Duration::from_secs(4), "{:?}", outcome.took);
}

/// As many slow providers as fill the window, each above the floor, do not keep an idle one out. A
/// slow provider takes 8.5 s for a chunk; the transfer ends before the first of them has sent one.
#[test]
fn slow_providers_cannot_hold_a_transfer() {
    for (chunks, dribblers) in [(1, 1), (3, 1), (40, 16)] {
        let dribbling = (0..dribblers).map(|_| steady(120 << 10));
        let behaviours: Vec<_> = dribbling.chain([steady(10 * MIB)]).collect();
        let outcome = simulate(&default_config(), chunks, &behaviours);
        assert_eq!(outcome.verified, whole(chunks));
        assert!(outcome.took < Duration::from_secs(8), "{:?}", outcome.took);
    }
}

#[test]
fn equal_providers_send_few_duplicates() {
    for chunks in [3, 4, 5, 7, 40, 200] {
        for rate in [MIB / 2, 3 * MIB, 100 * MIB] {
            let outcome = simulate(&default_config(), chunks, &[steady(rate), steady(rate)]);
            let sent: u64 = outcome.sent.values().sum();
            assert!((sent - chunks) * 20 <= chunks, "{sent} chunks for {chunks}");
        }
    }
}

#[test]
fn a_provider_that_does_not_have_the_blob_is_asked_again_when_it_is_found_again() {
    let config = default_config();
    let mut planner = Planner::new(config.clone(), 0..4);
    let peer = peer(1);
    let failed = |failure| Input::Failed { peer, failure };
    planner.handle(Input::Found(peer), Duration::ZERO);
    planner.handle(failed(Failure::Refused), Duration::ZERO);
    let soon = Duration::from_secs(1);
    assert_eq!(planner.handle(Input::Found(peer), soon), [], "too soon");
    let read = Effect::Read { peer, chunks: 0..2 };
    assert_eq!(planner.handle(Input::Found(peer), config.rest_max), [read]);
    planner.handle(failed(Failure::Lied), config.rest_max);
    let later = config.rest_max * 9;
    assert_eq!(planner.handle(Input::Found(peer), later), [], "it lied");
}

#[test]
fn a_listed_provider_that_cannot_be_reached_is_soon_out() {
    let mut planner = Planner::new(default_config(), 0..4);
    let peer = peer(1);
    let unreachable = Input::Failed {
        peer,
        failure: Failure::Unreachable,
    };
    planner.handle(Input::Found(peer), Duration::ZERO);
    planner.handle(unreachable.clone(), Duration::ZERO);
    let rested = planner.next_timeout().unwrap();
    assert!(
        !planner.handle(Input::Tick, rested).is_empty(),
        "it is tried again"
    );
    let effects = planner.handle(unreachable, rested);
    assert!(effects.contains(&Effect::NoProviders { missing: 4 }));
}

/// As a provider of v0 at 52 KB/s that sends each chunk in one burst.
#[test]
fn a_provider_that_sends_in_bursts_is_not_left() {
    let burst = Duration::from_secs(60);
    let config = PlannerConfig {
        window_chunks: 1,
        provider_window_chunks: 1,
        burst,
        floor_span: 2 * burst,
        ..default_config()
    };
    let peer = peer(1);
    let mut planner = Planner::new(config, 0..1);
    planner.handle(Input::Found(peer), Duration::ZERO);
    let received = |bytes| Input::Received { peer, bytes };
    assert_eq!(planner.handle(received(100), Duration::from_secs(1)), []);
    for second in 2..200 {
        let input = match second % 20 {
            0 => received(CHUNK),
            _ => Input::Tick,
        };
        let effects = planner.handle(input, Duration::from_secs(second));
        assert_eq!(effects, [], "after {second} s");
    }
    // One that answers nothing at all is left after the stall timeout.
    let mut silent = Planner::new(default_config(), 0..1);
    silent.handle(Input::Found(peer), Duration::ZERO);
    let left = silent.handle(Input::Tick, default_config().stall_timeout);
    let cause = Cause::Stalled;
    assert!(left.contains(&Effect::Leave { peer, cause }), "{left:?}");
}

#[test]
fn a_silent_provider_rests_and_the_other_finishes() {
    let outcome = simulate(
        &default_config(),
        500,
        &[ending(3, End::Silence), steady(10 * MIB)],
    );
    assert_eq!(outcome.verified, whole(500));
    assert_eq!(outcome.left.first(), Some(&(peer(1), Cause::Stalled)));
}

#[test]
fn a_provider_below_the_floor_is_left() {
    // Bytes come often enough, and far too few.
    let mut planner = Planner::new(default_config(), 0..4);
    let read = planner.handle(Input::Found(peer(1)), Duration::ZERO);
    assert_eq!(
        read,
        [Effect::Read {
            peer: peer(1),
            chunks: 0..2
        }]
    );
    let mut left = Vec::new();
    for second in 1..=20 {
        let received = Input::Received {
            peer: peer(1),
            bytes: 1000,
        };
        left = planner.handle(received, Duration::from_secs(second));
        assert_eq!(left.is_empty(), second < 20);
    }
    assert_eq!(
        left,
        [Effect::Leave {
            peer: peer(1),
            cause: Cause::TooSlow
        }]
    );
    assert_eq!((planner.missing(), planner.in_flight()), (4, 0));
    let rested = planner.next_timeout().unwrap();
    let again = planner.handle(Input::Tick, rested);
    assert!(matches!(again[..], [Effect::Read { .. }]));
}

#[test]
fn rests_grow_and_end() {
    let config = default_config();
    let mut planner = Planner::new(config.clone(), 0..4);
    let mut now = Duration::ZERO;
    planner.handle(Input::Found(peer(1)), now);
    let mut rests = Vec::new();
    let broken = Input::Failed {
        peer: peer(1),
        failure: Failure::Broken,
    };
    loop {
        let effects = planner.handle(broken.clone(), now);
        if effects.contains(&Effect::NoProviders { missing: 4 }) {
            break;
        }
        // The stream that was left ends as well, which is no second failure.
        assert_eq!(planner.handle(broken.clone(), now), []);
        let until = planner.next_timeout().unwrap();
        rests.push(until - now);
        now = until;
        assert!(!planner.handle(Input::Tick, now).is_empty());
    }
    assert_eq!(rests.len() as u32, config.max_failures - 1);
    for (doublings, rest) in rests.iter().enumerate() {
        let full = config.rest_initial * 2_u32.pow(doublings as u32);
        assert!(
            *rest > full / 2 - Duration::from_millis(1) && *rest <= full,
            "{rest:?}"
        );
    }
    // Another one carries on.
    let found = planner.handle(Input::Found(peer(2)), now);
    assert_eq!(
        found,
        [Effect::Read {
            peer: peer(2),
            chunks: 0..2
        }]
    );
}

#[test]
fn liars_and_refusers_are_out_and_the_rest_finishes() {
    for end in [End::Lie, End::Refuse, End::Break, End::Busy] {
        let outcome = simulate(&default_config(), 60, &[ending(5, end), steady(MIB)]);
        assert_eq!(outcome.verified, whole(60), "{end:?}");
        assert!(
            outcome.left.iter().any(|(left, _)| *left == peer(1)),
            "{end:?}"
        );
    }
    let outcome = simulate(
        &default_config(),
        60,
        &[ending(5, End::Lie), ending(7, End::Refuse)],
    );
    assert_eq!(outcome.missing, Some(60 - outcome.verified.len() as u64));
}

fn behaviour() -> impl Strategy<Value = Behaviour> {
    let end = prop_oneof![
        Just(End::Silence),
        Just(End::Lie),
        Just(End::Refuse),
        Just(End::Break),
        Just(End::Busy),
        Just(End::PutOff),
    ];
    let ends = prop::option::of((0_u64..30, end));
    (100_000_u64..200 * MIB, 0_u64..500, ends).prop_map(|(bytes_per_s, latency_ms, ends)| {
        Behaviour {
            bytes_per_s,
            latency: Duration::from_millis(latency_ms),
            ends,
        }
    })
}

proptest! {
    #[test]
    fn it_ends_and_one_honest_provider_is_enough(
        behaviours in prop::collection::vec(behaviour(), 1..6), chunks in 0_u64..200,
        window in 1_usize..20, provider_window in 1_usize..9, seed in any::<u64>(),
    ) {
        let config = PlannerConfig {
            window_chunks: window,
            provider_window_chunks: provider_window,
            seed,
            ..default_config()
        };
        let honest = behaviours.iter().any(Behaviour::is_honest);
        let outcome = simulate(&config, chunks, &behaviours);
        if outcome.done {
            prop_assert_eq!(&outcome.verified, &whole(chunks));
        } else {
            prop_assert!(!honest, "{:?}", outcome);
            prop_assert_eq!(outcome.missing, Some(chunks - outcome.verified.len() as u64));
        }
        let sent: u64 = outcome.sent.values().sum();
        prop_assert!(sent <= 2 * chunks, "no chunk is asked of more than two at a time");
    }

    #[test]
    fn arbitrary_inputs_never_panic(
        steps in prop::collection::vec((0_u8..10, 1_u8..4, any::<u64>(), 0_u64..30_000), 0..60),
    ) {
        let mut planner = Planner::new(default_config(), (0..50).chain(90..95));
        let mut now = Duration::ZERO;
        for (kind, seed, number, millis) in steps {
            now += Duration::from_millis(millis);
            let peer = peer(seed);
            let failed = |failure| Input::Failed { peer, failure };
            let input = match kind {
                0 => Input::Found(peer),
                1 => Input::Received { peer, bytes: number },
                2 => Input::Verified { peer, index: number % 120 },
                3 => failed(Failure::Broken),
                4 => failed(Failure::Busy { retry_after: Duration::from_millis(number) }),
                5 => {
                    let start = number % 120;
                    let chunks = Vec::from([start..start + 1 + number % 30]);
                    Input::Has { peer, chunks }
                }
                6 | 7 => Input::Absent {
                    peer,
                    index: number % 120,
                    retry_after: (kind == 6).then_some(Duration::from_millis(number)),
                },
                8 => Input::Forgotten(peer),
                _ => Input::Tick,
            };
            let before = planner.missing();
            planner.handle(input, now);
            prop_assert!(planner.missing() <= before);
            prop_assert!(planner.in_flight() <= 16 + 3);
            if let Some(due) = planner.next_timeout() {
                prop_assert!(due > now, "what is due is done");
            }
        }
    }
}

/// The chunks that one answer asks of a provider.
fn asked(effects: Vec<Effect>) -> Vec<(PeerId, std::ops::Range<u64>)> {
    let read = |effect| match effect {
        Effect::Read { peer, chunks } => Some((peer, chunks)),
        _ => None,
    };
    effects.into_iter().filter_map(read).collect()
}

#[test]
fn nothing_is_asked_for_beyond_the_horizon() {
    let mut planner = Planner::new(PlannerConfig::default(), 0..100);
    let at = Duration::from_millis;
    assert_eq!(planner.handle(Input::Horizon(1), at(0)), []);
    let first = asked(planner.handle(Input::Found(peer(1)), at(1)));
    assert_eq!(first, [(peer(1), 0..1)]);
    assert_eq!(asked(planner.handle(Input::Tick, at(2))), []);
    let next = asked(planner.handle(Input::Horizon(3), at(3)));
    assert_eq!(
        next,
        [(peer(1), 1..2)],
        "two in flight, until its rate is known"
    );
    let verified = Input::Verified {
        peer: peer(1),
        index: 0,
    };
    assert_eq!(asked(planner.handle(verified, at(4))), [(peer(1), 2..3)]);
}

#[test]
fn what_is_below_the_horizon_is_taken_over_from_a_silent_provider() {
    let mut planner = Planner::new(PlannerConfig::default(), 0..100);
    let at = Duration::from_secs;
    planner.handle(Input::Horizon(2), at(0));
    let first = asked(planner.handle(Input::Found(peer(1)), at(0)));
    assert_eq!(first, [(peer(1), 0..2)]);
    let mut stolen = asked(planner.handle(Input::Found(peer(2)), at(0)));
    stolen.extend(asked(planner.handle(Input::Tick, at(5))));
    assert!(
        stolen.iter().any(|(thief, _)| *thief == peer(2)),
        "{stolen:?}"
    );
}

#[test]
fn a_provider_that_is_being_reached_has_no_deadline() {
    let config = PlannerConfig::default();
    let mut planner = Planner::new(config.clone(), 0..4);
    planner.handle(Input::Found(peer(1)), Duration::ZERO);
    let left = |effects: Vec<Effect>| {
        let mut effects = effects.into_iter();
        effects.any(|effect| matches!(effect, Effect::Leave { .. }))
    };
    // Much longer than both deadlines, with an input every second.
    let mut now = Duration::ZERO;
    while now < 3 * (config.stall_timeout + config.floor_span) {
        now += Duration::from_secs(1);
        assert!(!left(planner.handle(Input::Reaching(peer(1)), now)));
        assert!(planner.is_asked(&peer(1)));
    }
    // Once it is reached they run.
    now += config.stall_timeout;
    assert!(left(planner.handle(Input::Tick, now)));
    assert!(!planner.is_asked(&peer(1)));
    assert!(!planner.is_alone(), "it rests");
}

/// The chunks that effects ask of one provider.
fn asked_of(effects: Vec<Effect>, of: PeerId) -> BTreeSet<u64> {
    let asked = asked(effects).into_iter();
    let of = asked.filter(|(peer, _)| *peer == of);
    of.flat_map(|(_, chunks)| chunks).collect()
}

#[test]
fn a_complete_provider_is_asked_for_what_no_part_has() {
    for seed in 1..50 {
        let config = PlannerConfig {
            seed,
            ..default_config()
        };
        let mut planner = Planner::new(config, 0..10);
        let (part, whole) = (peer(1), peer(2));
        let now = Duration::ZERO;
        planner.handle(Input::Found(part), now);
        let chunks = Vec::from([0..5, 6..9]);
        planner.handle(Input::Has { peer: part, chunks }, now);
        let effects = planner.handle(Input::Found(whole), now);
        assert_eq!(asked_of(effects, whole), BTreeSet::from([5, 9]));
        // The part is silent, so it does not keep its chunks from the complete provider.
        let mut asked = BTreeSet::new();
        for index in [5, 9] {
            let verified = Input::Verified { peer: whole, index };
            let later = now + Duration::from_millis(1100);
            asked.extend(asked_of(planner.handle(verified, later), whole));
        }
        assert!(!asked.is_empty(), "seed {seed}");
    }
}

#[test]
fn the_rarest_chunk_is_asked_for_first() {
    for seed in 1..50 {
        let config = PlannerConfig {
            seed,
            provider_window_chunks: 1,
            ..default_config()
        };
        // All but the first three chunks, so that each provider is asked for one of those at first.
        let mut planner = Planner::new(config, 0..20);
        let now = Duration::ZERO;
        for (seed, chunks) in [
            (1, Vec::from([1..20])),
            (2, vec![0..7, 8..20]),
            (3, vec![0..7, 8..20]),
        ] {
            let peer = peer(seed);
            planner.handle(Input::Found(peer), now);
            planner.handle(Input::Has { peer, chunks }, now);
        }
        // Only the first one has chunk 7.
        let mut next = BTreeSet::new();
        for index in 0..20 {
            let verified = Input::Verified {
                peer: peer(1),
                index,
            };
            let was_asked = planner.is_asked(&peer(1));
            let effects = planner.handle(verified, now);
            next.extend(asked_of(effects, peer(1)));
            if was_asked && !next.is_empty() {
                break;
            }
        }
        assert_eq!(next, BTreeSet::from([7]), "seed {seed}");
    }
}

#[test]
fn a_chunk_that_is_put_off_is_asked_for_again_after_its_time() {
    let mut planner = Planner::new(default_config(), 0..1);
    let (one, now) = (peer(1), Duration::ZERO);
    assert_eq!(asked(planner.handle(Input::Found(one), now)), [(one, 0..1)]);
    let after = Duration::from_secs(2);
    let absent = Input::Absent {
        peer: one,
        index: 0,
        retry_after: Some(after),
    };
    assert_eq!(asked(planner.handle(absent, now)), []);
    assert_eq!(planner.next_timeout(), Some(after));
    let before = after - Duration::from_millis(1);
    assert_eq!(asked(planner.handle(Input::Tick, before)), []);
    assert_eq!(asked(planner.handle(Input::Tick, after)), [(one, 0..1)]);
}

/// Reports `has` as a part of the blob.
fn part(planner: &mut Planner, peer: PeerId, has: std::ops::Range<u64>) -> Vec<Effect> {
    let mut effects = planner.handle(Input::Found(peer), Duration::ZERO);
    let chunks = Vec::from([has]);
    effects.extend(planner.handle(Input::Has { peer, chunks }, Duration::ZERO));
    effects
}

/// Runs a complete provider that sends a chunk in 100 ms, and others that put off each chunk after
/// `delay`. Returns when the transfer is complete, or `None` after 10 s.
fn with_chunks_put_off(delays: &[Duration], retry_after: Duration) -> Option<Duration> {
    let mut planner = Planner::new(default_config(), 0..10);
    let whole = peer(100);
    let parts: Vec<_> = (1..)
        .zip(delays)
        .map(|(seed, delay)| (peer(seed), *delay))
        .collect();
    let mut due = BTreeSet::new();
    let mut effects = Vec::new();
    for (peer, _) in &parts {
        effects.extend(part(&mut planner, *peer, 5..6));
    }
    effects.extend(planner.handle(Input::Found(whole), Duration::ZERO));
    let mut now = Duration::ZERO;
    loop {
        for effect in effects {
            match effect {
                Effect::Read { peer, chunks } => {
                    let mut parts = parts.iter().filter(|(part, _)| *part == peer);
                    let delay = parts
                        .next()
                        .map_or(Duration::from_millis(100), |(_, delay)| *delay);
                    due.extend(chunks.map(|index| (now + delay, peer, index)));
                }
                Effect::Cancel { peer } | Effect::Leave { peer, .. } => {
                    due.retain(|(_, of, _)| *of != peer);
                }
                Effect::Done => return Some(now),
                Effect::NoProviders { .. } => return None,
            }
        }
        let tick = planner.next_timeout();
        let next = due.first().copied();
        let first = next.filter(|(at, ..)| tick.is_none_or(|tick| *at <= tick));
        now = first.map_or(tick, |(at, ..)| Some(at))?;
        if now > Duration::from_secs(10) {
            return None;
        }
        effects = match first {
            None => planner.handle(Input::Tick, now),
            Some(answer) => {
                due.remove(&answer);
                let (_, peer, index) = answer;
                if peer == whole {
                    let received = planner.handle(Input::Received { peer, bytes: CHUNK }, now);
                    let verified = planner.handle(Input::Verified { peer, index }, now);
                    received.into_iter().chain(verified).collect()
                } else {
                    let retry_after = Some(retry_after);
                    planner.handle(
                        Input::Absent {
                            peer,
                            index,
                            retry_after,
                        },
                        now,
                    )
                }
            }
        };
    }
}

#[test]
fn a_provider_that_puts_off_a_chunk_does_not_keep_it_from_others() {
    let answer = Duration::from_millis(1);
    for retry_after in [1, 100, 10_000].map(Duration::from_millis) {
        let took = with_chunks_put_off(&[answer], retry_after);
        assert!(
            took < Some(Duration::from_secs(3)) && took.is_some(),
            "{took:?}"
        );
    }
}

/// Each of them answers shortly before it would count as silent.
#[test]
fn providers_that_put_off_a_chunk_in_turn_do_not_keep_it_from_others() {
    for retry_after in [1, 10_000].map(Duration::from_millis) {
        let took = with_chunks_put_off(&[Duration::from_millis(900); 20], retry_after);
        assert!(took.is_some(), "not complete after 10 s");
    }
}

/// An honest provider puts off a chunk once on each stream, so there may be a second time.
#[test]
fn a_sole_provider_that_puts_off_a_chunk_twice_is_asked_again() {
    let mut planner = Planner::new(default_config(), 0..1);
    let (peer, mut now) = (peer(1), Duration::ZERO);
    let mut read = asked(planner.handle(Input::Found(peer), now));
    for _ in 0..3 {
        assert_eq!(read, [(peer, 0..1)]);
        let retry_after = Some(Duration::from_millis(1));
        let index = 0;
        planner.handle(
            Input::Absent {
                peer,
                index,
                retry_after,
            },
            now,
        );
        now = planner.next_timeout().unwrap();
        read = asked(planner.handle(Input::Tick, now));
    }
    assert!(now >= Duration::from_secs(20), "{now:?}");
}

#[test]
fn a_provider_without_a_chunk_is_asked_again_when_it_has_it() {
    let mut planner = Planner::new(default_config(), 0..1);
    let (one, now) = (peer(1), Duration::ZERO);
    planner.handle(Input::Found(one), now);
    assert!(planner.is_useful(&one));
    let absent = Input::Absent {
        peer: one,
        index: 0,
        retry_after: None,
    };
    assert_eq!(asked(planner.handle(absent, now)), []);
    assert!(!planner.is_useful(&one));
    let hour = Duration::from_secs(3600);
    assert_eq!(asked(planner.handle(Input::Tick, hour)), []);
    let chunks = Vec::from([0..1]);
    let has = Input::Has { peer: one, chunks };
    assert_eq!(asked(planner.handle(has, hour)), [(one, 0..1)]);
}

#[test]
fn reports_of_an_idle_provider_are_no_measure_of_its_rate() {
    let mut planner = Planner::new(default_config(), 0..1);
    let (one, other, now) = (peer(1), peer(2), Duration::ZERO);
    planner.handle(Input::Found(one), now);
    planner.handle(Input::Found(other), now);
    let idle = [one, other]
        .into_iter()
        .find(|peer| !planner.is_asked(peer));
    let peer = idle.unwrap();
    for second in 1..4 {
        let few = Input::Received { peer, bytes: 12 };
        planner.handle(few, Duration::from_secs(second));
    }
    assert_eq!(planner.rate(&peer), None);
}

/// All that is missing at first, and then more.
#[test]
fn a_provider_of_all_that_is_missing_stays_one_when_it_reports_more() {
    let mut planner = Planner::new(default_config(), 0..4);
    let (peer, now) = (peer(1), Duration::ZERO);
    planner.handle(Input::Found(peer), now);
    for range in [0..4, 7..8] {
        let chunks = Vec::from([range]);
        planner.handle(Input::Has { peer, chunks }, now);
    }
    assert!(planner.is_useful(&peer));
    let mut asked = BTreeSet::new();
    for index in 0..2 {
        let verified = Input::Verified { peer, index };
        asked.extend(asked_of(planner.handle(verified, now), peer));
    }
    assert_eq!(asked, BTreeSet::from([2, 3]));
}
