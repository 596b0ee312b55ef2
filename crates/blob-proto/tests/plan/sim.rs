//! What the tests share: simulated providers, and a clock that they live by.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use calimero_network_blob::plan::{Cause, Effect, Failure, Input, Planner, PlannerConfig};
use calimero_network_primitives::{Keypair, PeerId};

pub(crate) const CHUNK: u64 = 1 << 20;
pub(crate) const MIB: u64 = 1 << 20;

/// Longest simulated time. What takes longer never ends.
const END: Duration = Duration::from_secs(24 * 3600);

pub(crate) fn peer(seed: u8) -> PeerId {
    Keypair::ed25519_from_bytes([seed; 32])
        .unwrap()
        .public()
        .to_peer_id()
}

/// How a simulated provider behaves.
#[derive(Clone, Debug)]
pub(crate) struct Behaviour {
    pub(crate) bytes_per_s: u64,
    pub(crate) latency: Duration,
    /// What it does in place of sending its chunk of this number.
    pub(crate) ends: Option<(u64, End)>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
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

pub(crate) fn steady(bytes_per_s: u64) -> Behaviour {
    let latency = Duration::from_millis(20);
    Behaviour {
        bytes_per_s,
        latency,
        ends: None,
    }
}

pub(crate) fn ending(after: u64, end: End) -> Behaviour {
    Behaviour {
        ends: Some((after, end)),
        ..steady(10 * MIB)
    }
}

impl Behaviour {
    pub(crate) fn is_honest(&self) -> bool {
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
pub(crate) struct Outcome {
    pub(crate) took: Duration,
    pub(crate) done: bool,
    pub(crate) missing: Option<u64>,
    pub(crate) verified: BTreeSet<u64>,
    /// Chunks that were sent, by provider.
    pub(crate) sent: BTreeMap<PeerId, u64>,
    pub(crate) left: Vec<(PeerId, Cause)>,
}

struct Simulation {
    planner: Planner,
    config: PlannerConfig,
    providers: BTreeMap<PeerId, Simulated>,
    now: Duration,
    outcome: Outcome,
}

pub(crate) fn simulate(config: &PlannerConfig, chunks: u64, behaviours: &[Behaviour]) -> Outcome {
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

pub(crate) fn default_config() -> PlannerConfig {
    PlannerConfig::default()
}

pub(crate) fn whole(chunks: u64) -> BTreeSet<u64> {
    (0..chunks).collect()
}

/// The chunks that one answer asks of a provider.
pub(crate) fn asked(effects: Vec<Effect>) -> Vec<(PeerId, std::ops::Range<u64>)> {
    let read = |effect| match effect {
        Effect::Read { peer, chunks } => Some((peer, chunks)),
        _ => None,
    };
    effects.into_iter().filter_map(read).collect()
}
