//! Which chunk is asked of which provider, and when: a state machine without IO, clock or
//! randomness.
//!
//! The driver tells it what happened ([`Planner::handle`]) and carries out the [`Effect`]s it
//! answers with, in order. It calls again with [`Input::Tick`] no later than
//! [`Planner::next_timeout`]. Time is the distance from any fixed point the driver chooses.
//!
//! Chunks are asked for from the front of what is missing, of every provider as many as it sends
//! in a second, so that the fast ones carry more. Where nothing is left to ask for, an idle
//! provider is asked for the last chunk of the one that would take longest, if it would be
//! quicker; whichever comes first counts. A provider that stalls or falls below the floor rests,
//! ever longer, and its chunks go to others; one that lied is not asked again.

mod provider;
mod ranges;
mod types;

use std::{collections::BTreeMap, ops::Range, time::Duration};

use calimero_network_primitives::PeerId;

pub use self::types::{Cause, Effect, Failure, Input, PlannerConfig};
pub(crate) use self::types::{FLOOR_BYTES_PER_S, PROVIDER_WINDOW_CHUNKS, WINDOW_CHUNKS};
use self::{
    provider::{Provider, Status},
    ranges::Ranges,
};
use crate::id::CHUNK_BYTES;

/// Rate assumed while no provider's is known, in bytes a second: 1 MiB, a guess.
const UNKNOWN_RATE: u64 = 1024 * 1024;

/// Time after which it is looked again whether an idle provider would be quicker than one that
/// keeps others waiting. Half a second, a guess: short beside the stall deadline.
const STEAL_RECHECK: Duration = Duration::from_millis(500);

/// Plans one transfer.
#[derive(Clone, Debug)]
pub struct Planner {
    config: PlannerConfig,
    providers: BTreeMap<PeerId, Provider>,
    /// Missing and asked of nobody.
    wanted: Ranges,
    /// Missing and asked of somebody: of how many, at most two.
    asked: BTreeMap<u64, u8>,
    in_flight: usize,
    /// First chunk that is not to be asked for yet.
    horizon: u64,
    /// When it was last told something.
    now: Duration,
    random: u64,
    /// Whether the end, or the want of providers, is said.
    said_done: bool,
    said_alone: bool,
}

impl Planner {
    /// A plan to fetch the chunks that are missing.
    #[must_use]
    pub fn new(config: PlannerConfig, missing: impl IntoIterator<Item = u64>) -> Self {
        let mut wanted = Ranges::default();
        missing.into_iter().for_each(|index| wanted.insert(index));
        Self {
            random: config.seed | 1,
            config,
            providers: BTreeMap::new(),
            wanted,
            asked: BTreeMap::new(),
            in_flight: 0,
            horizon: u64::MAX,
            now: Duration::ZERO,
            said_done: false,
            said_alone: false,
        }
    }

    /// Chunks that are missing.
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.wanted.len() + self.asked.len() as u64
    }

    /// Chunks in flight, those that are asked of two providers counted twice.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// A provider's rate in bytes a second, once it is known.
    #[must_use]
    pub fn rate(&self, peer: &PeerId) -> Option<u64> {
        self.providers.get(peer)?.rate()
    }

    /// Whether something is asked of a provider that it has not answered.
    #[must_use]
    pub fn is_asked(&self, peer: &PeerId) -> bool {
        let provider = self.providers.get(peer);
        provider.is_some_and(|provider| !provider.in_flight.is_empty())
    }

    /// Whether no provider is known that will be asked again.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        let mut providers = self.providers.values();
        providers.all(|provider| provider.status == Status::Out)
    }

    /// When [`Input::Tick`] is due, if nothing else happens before.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Duration> {
        if self.missing() == 0 {
            return None;
        }
        let due = |provider: &Provider| match provider.status {
            Status::Ready => provider.deadline(&self.config),
            Status::Resting { until } => Some(until),
            Status::Out => None,
        };
        let recheck = self.could_steal().then(|| self.now + STEAL_RECHECK);
        self.providers.values().filter_map(due).chain(recheck).min()
    }

    /// Takes what happened and says what to do, in order.
    pub fn handle(&mut self, input: Input, now: Duration) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.now = now;
        match input {
            Input::Found(peer) => {
                self.providers
                    .entry(peer)
                    .or_insert_with(|| Provider::new(now));
            }
            Input::Received { peer, bytes } => {
                if let Some(provider) = self.providers.get_mut(&peer) {
                    provider.receive(bytes, now);
                }
            }
            Input::Verified { peer, index } => self.verified(peer, index),
            Input::Failed { peer, failure } => {
                self.leave(peer, Cause::Failed(failure), now, &mut effects);
            }
            Input::Reaching(peer) => {
                if let Some(provider) = self.providers.get_mut(&peer) {
                    provider.restart(now);
                }
            }
            Input::Horizon(chunk) => self.horizon = chunk,
            Input::Tick => {}
        }
        self.check_deadlines(now, &mut effects);
        self.wake(now);
        self.ask(now, &mut effects);
        self.conclude(&mut effects);
        effects
    }

    fn verified(&mut self, peer: PeerId, index: u64) {
        self.wanted.remove(index);
        self.asked.remove(&index);
        if let Some(provider) = self.providers.get_mut(&peer) {
            // What came before a failure may be verified after it, and makes up for nothing.
            if provider.status == Status::Ready {
                provider.failures = 0;
            }
            if let Some(at) = provider.in_flight.iter().position(|asked| *asked == index) {
                provider.in_flight.remove(at);
                self.in_flight -= 1;
            }
        }
    }

    fn check_deadlines(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let mut late = Vec::new();
        for (peer, provider) in &mut self.providers {
            if provider.is_stalled(&self.config, now) {
                late.push((*peer, Cause::Stalled));
            } else if provider.is_too_slow(&self.config, now) {
                late.push((*peer, Cause::TooSlow));
            }
        }
        for (peer, cause) in late {
            self.leave(peer, cause, now, effects);
        }
    }

    /// Takes everything back from a provider, and decides when to ask it again.
    fn leave(&mut self, peer: PeerId, cause: Cause, now: Duration, effects: &mut Vec<Effect>) {
        let jitter = self.jitter();
        let Some(provider) = self.providers.get_mut(&peer) else {
            return;
        };
        let for_good = matches!(cause, Cause::Failed(Failure::Lied | Failure::Refused));
        match provider.status {
            Status::Out => return,
            // The end of a stream that was left already is not another failure.
            Status::Resting { .. } if !for_good => return,
            _ => {}
        }
        for index in provider.in_flight.drain(..) {
            self.in_flight -= 1;
            if let Some(askers) = self.asked.get_mut(&index) {
                *askers -= 1;
                if *askers == 0 {
                    self.asked.remove(&index);
                    self.wanted.insert(index);
                }
            }
        }
        provider.failures += 1;
        let rest = rest(&self.config, provider.failures, jitter);
        provider.status = match cause {
            _ if for_good || provider.failures >= self.config.max_failures => Status::Out,
            Cause::Failed(Failure::Busy { retry_after }) => Status::Resting {
                until: now + rest.max(retry_after.min(self.config.rest_max)),
            },
            _ => Status::Resting { until: now + rest },
        };
        effects.push(Effect::Leave { peer, cause });
    }

    fn wake(&mut self, now: Duration) {
        for provider in self.providers.values_mut() {
            if matches!(provider.status, Status::Resting { until } if until <= now) {
                provider.status = Status::Ready;
            }
        }
    }

    fn ask(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        while let Some((peer, room)) = self.next_to_ask() {
            let chunks = self.wanted.pop(room as u64, self.horizon);
            self.asked.extend(chunks.clone().map(|index| (index, 1)));
            self.send(peer, chunks, now, effects);
        }
        while let Some((peer, index)) = self.next_to_steal() {
            if let Some(askers) = self.asked.get_mut(&index) {
                *askers += 1;
            }
            self.send(peer, index..index + 1, now, effects);
        }
    }

    fn send(&mut self, peer: PeerId, chunks: Range<u64>, now: Duration, effects: &mut Vec<Effect>) {
        if let Some(provider) = self.providers.get_mut(&peer) {
            self.in_flight += (chunks.end - chunks.start) as usize;
            provider.ask(chunks.clone(), now);
            effects.push(Effect::Read { peer, chunks });
        }
    }

    /// The provider that would send a further chunk soonest, and for how many it has room.
    fn next_to_ask(&self) -> Option<(PeerId, usize)> {
        let room = self.config.window_chunks.checked_sub(self.in_flight)?;
        if room == 0 || !self.wants() {
            return None;
        }
        let typical = self.typical_rate();
        let open = self.ready().filter_map(|(peer, provider)| {
            let own = provider
                .window(&self.config)
                .checked_sub(provider.in_flight.len())?;
            let soon = provider.expected(provider.in_flight.len() + 1, typical);
            (own > 0).then_some((soon, peer, own.min(room)))
        });
        open.min_by_key(|(soon, peer, _)| (*soon, *peer))
            .map(|(_, peer, room)| (*peer, room))
    }

    /// An idle provider, and the chunk of another that it would send sooner.
    fn next_to_steal(&self) -> Option<(PeerId, u64)> {
        if self.wants() || self.in_flight >= self.config.window_chunks {
            return None;
        }
        let typical = self.typical_rate();
        let idle = self
            .ready()
            .filter(|(_, provider)| provider.in_flight.is_empty());
        let (peer, thief) = idle.min_by_key(|(peer, thief)| (thief.expected(1, typical), *peer))?;
        let stealable = self.ready().filter_map(|(_, owner)| {
            // Answers come in order, so the last one takes longest.
            let unique = |index: &u64| self.asked.get(index) == Some(&1);
            let last = owner.in_flight.iter().rposition(unique)?;
            // Who has been silent for a while may well be silent for as long again.
            let wait = owner
                .expected(last + 1, typical)
                .max(owner.silence(self.now));
            Some((wait, owner.in_flight[last]))
        });
        let (wait, index) = stealable.max()?;
        (wait > thief.expected(1, typical)).then_some((*peer, index))
    }

    /// Whether a provider is idle while another keeps a chunk to itself.
    fn could_steal(&self) -> bool {
        !self.wants()
            && self.in_flight < self.config.window_chunks
            && self
                .ready()
                .any(|(_, provider)| provider.in_flight.is_empty())
            && self.asked.values().any(|askers| *askers == 1)
    }

    fn conclude(&mut self, effects: &mut Vec<Effect>) {
        if self.missing() == 0 {
            if !std::mem::replace(&mut self.said_done, true) {
                effects.push(Effect::Done);
            }
            return;
        }
        let alone = self.is_alone();
        if alone && !self.providers.is_empty() && !self.said_alone {
            let missing = self.missing();
            effects.push(Effect::NoProviders { missing });
        }
        self.said_alone = alone && !self.providers.is_empty();
    }

    /// Whether something may be asked for that is asked of nobody.
    fn wants(&self) -> bool {
        self.wanted
            .first()
            .is_some_and(|first| first < self.horizon)
    }

    fn ready(&self) -> impl Iterator<Item = (&PeerId, &Provider)> {
        let providers = self.providers.iter();
        providers.filter(|(_, provider)| provider.status == Status::Ready)
    }

    /// The best rate known, so that a new provider is tried before it is judged.
    fn typical_rate(&self) -> u64 {
        let rates = self.ready().filter_map(|(_, provider)| provider.rate());
        rates.max().unwrap_or(UNKNOWN_RATE)
    }

    /// A number below 1024 by xorshift, for nothing that an adversary may not guess.
    fn jitter(&mut self) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 54) as u32
    }
}

/// Rest after some failures in a row: doubled with each, bounded, and shortened by up to half.
fn rest(config: &PlannerConfig, failures: u32, jitter: u32) -> Duration {
    let doubled = 1_u32
        .checked_shl(failures.saturating_sub(1))
        .unwrap_or(u32::MAX);
    let full = config
        .rest_initial
        .saturating_mul(doubled)
        .min(config.rest_max);
    full - full / 2 * jitter / 1024
}
