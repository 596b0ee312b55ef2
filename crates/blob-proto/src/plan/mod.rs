//! Which chunk is asked of which provider, and when: a state machine without IO, clock or
//! randomness.
//!
//! The driver passes each [`Input`] to [`Planner::handle`] and carries out the [`Effect`]s it
//! answers with, in order. It calls again with [`Input::Tick`] no later than
//! [`Planner::next_timeout`]. Time is the distance from any fixed point the driver chooses.
//!
//! Chunks are asked for from the front of what is missing, of every provider as many as it sends
//! in a second, so that the fast ones carry more. An idle provider is always asked for one chunk,
//! whatever the others hold. Where nothing is left to ask for, it is asked for the chunk that would
//! take longest to arrive, if all providers that hold it are much slower; the first copy counts,
//! and a provider that owes only copies is cancelled. A provider that stalls or falls below the
//! floor rests, with each failure for longer, and its chunks go to others. One that lied is not
//! asked again. One that does not have the blob is asked again when it is found again. One that is
//! busy has not failed for as long as it said, or for two hours where it has shown that it has the
//! blob: requesters of a provider with an upload limit take turns.
//!
//! Where other peers fetch the blob at the same time, chunks are asked for one by one in place of
//! from the front: of providers that have a part of the blob before those that have all of it, and
//! the rarest first, by chance where several are equally rare. A provider that has all of it is
//! asked only for what no other one gives at half its rate. A chunk that a provider puts off is
//! asked of the next one at once.

mod bits;
mod patience;
mod provider;
mod ranges;
mod types;

use std::{collections::BTreeMap, ops::Range, time::Duration};

use calimero_network_primitives::PeerId;

#[cfg(feature = "transfer")]
pub(crate) use self::patience::Patience;
pub use self::types::{Cause, Effect, Failure, Input, PlannerConfig};
#[cfg(feature = "transfer")]
pub(crate) use self::types::{FLOOR_BYTES_PER_S, PROVIDER_WINDOW_CHUNKS, WINDOW_CHUNKS};
use self::{
    bits::Bits,
    provider::{Provider, Status},
    ranges::Ranges,
};
use crate::id::CHUNK_BYTES;

/// Rate that an untried provider is assumed to have at least, in bytes a second: 1 MiB, a guess. It
/// must not follow the rates that are known: a single slow provider would then look usual.
const UNKNOWN_RATE: u64 = 1024 * 1024;

/// Chunks that are asked of a second provider while the first is only twice as slow, one in this
/// many: 20, so that duplicates are at most 5 %.
const CHEAP_DUPLICATES: u64 = 20;

/// How many times slower than an idle provider the first one is where its chunk is asked of both,
/// beyond [`CHEAP_DUPLICATES`]: 8, so that it sends an eighth of the chunk in vain.
const SLOW_FACTOR: u32 = 8;

/// Time after which it is looked again whether an idle provider would be quicker than one that
/// keeps others waiting. Half a second, a guess: much shorter than the stall deadline.
const STEAL_RECHECK: Duration = Duration::from_millis(500);

/// Places where a chunk is looked for, of which the rarest is taken: 32. A guess: one of the rarest
/// tenth is found with 97 %.
const SAMPLES: u64 = 32;

/// Silence after which a provider that owes chunks does not keep others from being asked for what
/// it has as well. One second.
const QUIET: Duration = Duration::from_secs(1);

/// Time that a chunk is expected to take, and silence of its provider, from which on another one is
/// asked for it beyond [`CHEAP_DUPLICATES`] while the blob is shared. Eight seconds, a chunk at
/// 128 KiB a second, and four seconds: peers that also fetch are slow and silent at times.
const LONG_WAIT: Duration = Duration::from_secs(8);
const SILENCE: Duration = Duration::from_secs(4);

/// Longest time for which a provider may put off a chunk: 10 s.
const LATER_MAX: Duration = Duration::from_secs(10);

/// Time after a chunk was first put off from which on an idle provider does not leave it to one
/// that has not sent anything yet: 5 s. Longer than a chunk takes to another requester, as a rule.
const PUT_OFF_PATIENCE: Duration = Duration::from_secs(5);

/// The plan of one transfer.
#[derive(Clone, Debug)]
pub struct Planner {
    config: PlannerConfig,
    providers: BTreeMap<PeerId, Provider>,
    /// Chunks that are missing and not asked for.
    wanted: Ranges,
    /// Chunks that are asked for, with the number of providers that they are asked of.
    asked: BTreeMap<u64, u8>,
    in_flight: usize,
    /// Chunks that are missing, asked for or not.
    missing: Bits,
    /// When a provider put off a missing chunk for the first time.
    put_off: BTreeMap<u64, Duration>,
    /// Whether other peers fetch the blob at the same time.
    shared: bool,
    /// Chunks of the plan, and how many of them were asked of a second provider.
    total: u64,
    duplicates: u64,
    /// First chunk that is not to be asked for yet.
    horizon: u64,
    /// Time of the last input.
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
        let wanted_total = wanted.len();
        let mut bits = Bits::new(wanted.end());
        wanted.runs().for_each(|run| bits.insert_all(run));
        Self {
            random: config.seed | 1,
            config,
            providers: BTreeMap::new(),
            wanted,
            asked: BTreeMap::new(),
            in_flight: 0,
            missing: bits,
            put_off: BTreeMap::new(),
            shared: false,
            total: wanted_total,
            duplicates: 0,
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

    /// Returns the sum of the rates of all providers that are asked, in bytes a second.
    #[must_use]
    pub fn total_rate(&self) -> u64 {
        let rates = self.ready().filter_map(|(_, provider)| provider.rate());
        rates.fold(0, u64::saturating_add)
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
        providers.all(|provider| matches!(provider.status, Status::Out { .. }))
    }

    /// Whether a provider has failed and will be asked again later.
    #[must_use]
    pub fn is_resting(&self) -> bool {
        let mut providers = self.providers.values();
        providers.any(|provider| matches!(provider.status, Status::Resting { .. }))
    }

    /// Whether a provider said that it is busy for some time, which is not over, and nothing else
    /// since.
    #[must_use]
    pub fn is_promised(&self, now: Duration) -> bool {
        let mut providers = self.providers.values();
        providers.any(|provider| provider.waits && provider.patience.is_left(now))
    }

    /// Whether a provider was busy when it was left last.
    #[must_use]
    pub fn was_busy(&self, peer: &PeerId) -> bool {
        let provider = self.providers.get(peer);
        provider.is_some_and(|provider| provider.is_busy)
    }

    /// Whether a provider is to be asked again, and has a chunk that is missing.
    #[must_use]
    pub fn is_useful(&self, peer: &PeerId) -> bool {
        let provider = self.providers.get(peer);
        provider.is_some_and(|provider| {
            !matches!(provider.status, Status::Out { .. })
                && provider.has.as_ref().is_none_or(|has| has.count() > 0)
        })
    }

    /// Whether a provider rests, or is not to be asked again.
    #[must_use]
    pub fn is_left(&self, peer: &PeerId) -> bool {
        let provider = self.providers.get(peer);
        provider.is_none_or(|provider| provider.status != Status::Ready)
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
            Status::Out { .. } => None,
        };
        let recheck = self.could_steal().then(|| self.now + STEAL_RECHECK);
        let later = self
            .ready()
            .flat_map(|(_, one)| one.later.values().copied());
        let later = later.filter(|later| *later > self.now);
        let due = self.providers.values().filter_map(due);
        due.chain(recheck).chain(later).min()
    }

    /// Takes what happened and says what to do, in order.
    pub fn handle(&mut self, input: Input, now: Duration) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.now = now;
        match input {
            Input::Found(peer) => {
                let provider = self.providers.entry(peer);
                let provider = provider.or_insert_with(|| Provider::new(now));
                provider.revive(&self.config, now);
            }
            Input::Forgotten(peer) => {
                let owed = self
                    .providers
                    .remove(&peer)
                    .map(|provider| provider.in_flight);
                let owed = owed.unwrap_or_default();
                self.in_flight -= owed.len();
                owed.into_iter().for_each(|index| self.give_back(index));
            }
            Input::Received { peer, bytes } => {
                if let Some(provider) = self.providers.get_mut(&peer) {
                    provider.receive(bytes, now);
                }
            }
            Input::Verified { peer, index } => self.verified(peer, index, &mut effects),
            Input::Proven(peer) => {
                if let Some(provider) = self.providers.get_mut(&peer) {
                    provider.patience.on_proven();
                }
            }
            Input::Failed { peer, failure } => {
                self.leave(peer, Cause::Failed(failure), now, &mut effects);
            }
            Input::Reaching(peer) => {
                if let Some(provider) = self.providers.get_mut(&peer) {
                    provider.restart(now);
                }
            }
            Input::Has { peer, chunks } => self.has(peer, &chunks),
            Input::Absent {
                peer,
                index,
                retry_after,
            } => self.absent(peer, index, retry_after, now),
            Input::Horizon(chunk) => self.horizon = chunk,
            Input::Tick => {}
        }
        self.check_deadlines(now, &mut effects);
        self.wake(now);
        self.ask(now, &mut effects);
        self.conclude(&mut effects);
        effects
    }

    fn has(&mut self, peer: PeerId, chunks: &[Range<u64>]) {
        let Some(provider) = self.providers.get_mut(&peer) else {
            return;
        };
        provider.unreachable = 0;
        let end = self.wanted.end();
        let end = self
            .asked
            .last_key_value()
            .map_or(end, |(last, _)| end.max(last + 1));
        if let [all] = chunks
            && all.start == 0
            && all.end >= end
        {
            (provider.has, provider.reports) = (None, true);
            return;
        }
        if !std::mem::replace(&mut provider.reports, true) {
            // It counted as having all of them.
            provider.has = Some(self.missing.emptied());
        }
        let Some(has) = &mut provider.has else {
            return;
        };
        for range in chunks {
            has.insert_all(range.clone());
        }
        has.retain(&self.missing);
        self.shared = true;
    }

    fn absent(&mut self, peer: PeerId, index: u64, retry_after: Option<Duration>, now: Duration) {
        let Some(provider) = self.providers.get_mut(&peer) else {
            return;
        };
        let Some(at) = provider.in_flight.iter().position(|asked| *asked == index) else {
            return;
        };
        provider.in_flight.remove(at);
        provider.unreachable = 0;
        self.in_flight -= 1;
        match retry_after {
            Some(after) => {
                self.put_off.entry(index).or_insert(now);
                // An honest provider puts off a chunk again on another stream only, so it stays a
                // provider of the chunk, for the case that no other one has it.
                let later = match provider.put_off.insert(index) {
                    true => after.min(LATER_MAX),
                    false => LATER_MAX,
                };
                provider.later.insert(index, now + later);
            }
            None => {
                let has = provider.has.get_or_insert_with(|| self.missing.clone());
                has.remove(index);
            }
        }
        self.shared = true;
        self.give_back(index);
    }

    /// Notes that one provider less is asked for a chunk.
    fn give_back(&mut self, index: u64) {
        if let Some(askers) = self.asked.get_mut(&index) {
            *askers -= 1;
            if *askers == 0 {
                self.asked.remove(&index);
                self.wanted.insert(index);
            }
        }
    }

    fn verified(&mut self, peer: PeerId, index: u64, effects: &mut Vec<Effect>) {
        let jitter = self.jitter();
        self.wanted.remove(index);
        self.missing.remove(index);
        self.put_off.remove(&index);
        for provider in self.providers.values_mut() {
            provider.later.remove(&index);
            provider.put_off.remove(&index);
            if let Some(has) = &mut provider.has {
                has.remove(index);
            }
        }
        if self.asked.remove(&index).is_some_and(|askers| askers > 1) {
            self.cancel_copies(peer, index, effects);
        }
        if let Some(provider) = self.providers.get_mut(&peer) {
            // What came before a failure may be verified after it, and makes up for nothing.
            if provider.status == Status::Ready {
                provider.failures = 0;
                provider.waits = false;
            }
            // A busy provider may have sent the chunk right before it said so. That was no failure
            // then.
            let is_busy = provider.is_busy && provider.status != Status::Ready;
            if is_busy && !std::mem::replace(&mut provider.waits, true) {
                provider.failures = provider.failures.saturating_sub(1);
                let (least, most) = (self.config.rest_initial, self.config.rest_max);
                let until = self.now + provider.patience.pause(least, most, jitter);
                provider.status = Status::Resting { until };
            }
            provider.patience.on_verified(is_busy, self.now);
            if let Some(at) = provider.in_flight.iter().position(|asked| *asked == index) {
                provider.in_flight.remove(at);
                self.in_flight -= 1;
            }
        }
    }

    /// Cancels the other providers of a chunk that owe nothing but chunks that have arrived.
    fn cancel_copies(&mut self, peer: PeerId, index: u64, effects: &mut Vec<Effect>) {
        for (other, provider) in &mut self.providers {
            let owes = |index: &u64| self.asked.contains_key(index);
            if *other != peer
                && provider.in_flight.contains(&index)
                && !provider.in_flight.iter().any(owes)
            {
                self.in_flight -= provider.in_flight.len();
                provider.cancel(self.now);
                effects.push(Effect::Cancel { peer: *other });
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
        let refused = matches!(cause, Cause::Failed(Failure::Lied | Failure::Refused));
        let unreachable = matches!(cause, Cause::Failed(Failure::Unreachable));
        provider.unreachable = if unreachable {
            provider.unreachable + 1
        } else {
            0
        };
        provider.lied |= matches!(cause, Cause::Failed(Failure::Lied));
        let for_good = refused || provider.unreachable >= self.config.max_unreachable;
        match provider.status {
            Status::Out { .. } => return,
            // The end of a stream that was left already is not another failure.
            Status::Resting { .. } if !for_good => return,
            _ => {}
        }
        let owed = std::mem::take(&mut provider.in_flight);
        let busy = match cause {
            Cause::Failed(Failure::Busy { retry_after }) => Some(retry_after),
            _ => None,
        };
        provider.is_busy = busy.is_some();
        provider.waits = busy.is_some_and(|after| provider.patience.on_busy(after, now));
        if !provider.waits {
            provider.failures += 1;
        }
        let rest = rest(&self.config, provider.failures, jitter);
        provider.status = match cause {
            Cause::Failed(Failure::Busy { .. }) if provider.waits => {
                let (least, most) = (self.config.rest_initial, self.config.rest_max);
                let until = now + provider.patience.pause(least, most, jitter);
                Status::Resting { until }
            }
            _ if for_good || provider.failures >= self.config.max_failures => {
                Status::Out { since: now }
            }
            Cause::Failed(Failure::Busy { retry_after }) => Status::Resting {
                until: now + rest.max(retry_after.min(self.config.rest_max)),
            },
            _ => Status::Resting { until: now + rest },
        };
        self.in_flight -= owed.len();
        owed.into_iter().for_each(|index| self.give_back(index));
        effects.push(Effect::Leave { peer, cause });
    }

    fn wake(&mut self, now: Duration) {
        for provider in self.providers.values_mut() {
            if matches!(provider.status, Status::Resting { until } if until <= now) {
                provider.status = Status::Ready;
            }
            provider.later.retain(|_, later| *later > now);
        }
    }

    fn ask(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        while let Some((peer, chunks)) = self.next_to_ask() {
            for index in chunks.clone() {
                self.wanted.remove(index);
                self.asked.insert(index, 1);
            }
            self.send(peer, chunks, now, effects);
        }
        while let Some((peer, index)) = self.next_to_steal() {
            if let Some(askers) = self.asked.get_mut(&index) {
                *askers += 1;
            }
            self.duplicates += 1;
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

    /// The provider that would send a further chunk soonest, and the chunks that it is asked for.
    /// One that is idle is asked even where the window is full: others may hold all of it for long.
    fn next_to_ask(&mut self) -> Option<(PeerId, Range<u64>)> {
        if !self.wants() {
            return None;
        }
        let dice = self.random();
        let free = self.config.window_chunks.saturating_sub(self.in_flight);
        let typical = self.typical_rate();
        let open = self.ready().filter_map(|(peer, provider)| {
            let asked = provider.in_flight.len();
            let own = provider.window(&self.config).checked_sub(asked)?;
            let room = own.min(free.max(usize::from(asked == 0)));
            let soon = provider.expected(asked + 1, typical);
            // One that has a part is asked first: the others have what it does not have.
            (room > 0).then_some((provider.has.is_none(), soon, *peer, room))
        });
        let mut open: Vec<_> = open.collect();
        open.sort_unstable();
        let mut chosen = open.into_iter().filter_map(|(_, _, peer, room)| {
            let chunks = match self.shared {
                false => self.wanted.front(room as u64, self.horizon),
                true => self.choose(&peer, dice).map(|index| index..index + 1)?,
            };
            Some((peer, chunks))
        });
        chosen.next()
    }

    /// The chunk that a provider is asked for next while other peers fetch the blob as well: the
    /// rarest of some that are taken by chance.
    fn choose(&self, peer: &PeerId, dice: u64) -> Option<u64> {
        let provider = self.providers.get(peer)?;
        let parts = self.ready().filter(|(other, _)| *other != peer);
        let parts = parts.map(|(_, part)| part);
        let parts: Vec<_> = parts.filter(|part| part.has.is_some()).collect();
        let end = self.wanted.end().min(self.horizon);
        let fits = |index: u64| {
            index < end
                && self.wanted.contains(index)
                && provider.gives(index, self.now)
                && (provider.has.is_some()
                    || !parts.iter().any(|part| {
                        // A part that has put off the chunk does not keep it from others.
                        part.gives(index, self.now) && self.is_quick(part, provider.rate())
                    }))
        };
        let copies = |index: &u64| {
            let gives = |part: &&&Provider| part.gives(*index, self.now);
            parts.iter().filter(gives).count()
        };
        if self.wanted.len() <= SAMPLES || self.horizon != u64::MAX {
            // All of them, in the order of the content where it has to arrive so.
            let mut all = self
                .wanted
                .runs()
                .flatten()
                .take_while(|index| *index < end);
            return match self.horizon {
                u64::MAX => {
                    let all: Vec<_> = all.filter(|index| fits(*index)).collect();
                    let first = usize::try_from(dice % (all.len().max(1) as u64)).ok()?;
                    let (before, after) = all.split_at(first);
                    after.iter().chain(before).copied().min_by_key(copies)
                }
                _ => all.find(|index| fits(*index)),
            };
        }
        let sampled = (0..SAMPLES).filter_map(|sample| {
            let from = mix(dice.wrapping_add(sample)) % end.max(1);
            match &provider.has {
                Some(has) => has.next_around(from),
                None => self.wanted.next_around(from),
            }
        });
        sampled.filter(|index| fits(*index)).min_by_key(copies)
    }

    /// Whether a provider that has a part gives it at half of a rate at least, as far as is known.
    fn is_quick(&self, part: &Provider, rate: Option<u64>) -> bool {
        let silent = !part.in_flight.is_empty() && part.silence(self.now) >= QUIET;
        let slow = matches!((part.rate(), rate), (Some(own), Some(rate)) if own < rate / 2);
        !silent && !slow
    }

    /// An idle provider, and the chunk that it would send much sooner than each provider that is
    /// asked for it.
    fn next_to_steal(&self) -> Option<(PeerId, u64)> {
        // Where each provider has all chunks, an idle one has been asked for what is wanted.
        if self.wants() && !self.shared {
            return None;
        }
        let typical = self.typical_rate();
        let idle = self
            .ready()
            .filter(|(_, provider)| provider.in_flight.is_empty());
        // Of two that are expected equally soon, the one whose rate is measured.
        let soonest = |(peer, thief): &(&PeerId, &Provider)| {
            (thief.expected(1, typical), thief.rate().is_none(), **peer)
        };
        let mut idle: Vec<_> = idle.collect();
        idle.sort_by_key(soonest);
        idle.into_iter().find_map(|(peer, thief)| {
            let (index, wait) = self.longest_wait(typical, thief)?;
            (wait > thief.expected(1, typical)).then_some((*peer, index))
        })
    }

    /// The chunk that would take longest to arrive, and the time for which its providers count as
    /// slower than an idle one. A chunk is as late as the quickest provider that is asked for it.
    fn longest_wait(&self, typical: u64, thief: &Provider) -> Option<(u64, Duration)> {
        let few = (self.duplicates + 1) * CHEAP_DUPLICATES <= self.total;
        let cheap = few && !(self.shared && self.wants());
        let factor = if cheap { 2 } else { SLOW_FACTOR };
        let mut waits = BTreeMap::new();
        for (_, owner) in self.ready() {
            let asked_for = self.now.saturating_sub(owner.asked_since());
            // A provider whose rate is unknown has shown nothing but its silence. One that is
            // silent sends nothing in vain, so twice the usual time is enough.
            let silence = owner.silence(self.now) / 2;
            for (at, index) in owner.in_flight.iter().enumerate() {
                // Answers come in order, so the last one takes longest.
                let expected = owner.rate().map(|_| owner.expected(at + 1, typical));
                let expected = expected.unwrap_or_default();
                let wait = (expected / factor).max(silence);
                // Peers that share a blob are idle again and again, not only at its end.
                let hurried =
                    self.shared && !cheap && expected < LONG_WAIT && silence < SILENCE / 2;
                let wait = if hurried { Duration::ZERO } else { wait };
                let put_off = self.put_off.get(index);
                let overdue = put_off.is_some_and(|since| self.now >= *since + PUT_OFF_PATIENCE);
                let long = self.copy_is_due(*index, asked_for);
                let wait = match long || (overdue && owner.rate().is_none()) {
                    true => Duration::MAX,
                    false => wait,
                };
                let earliest = waits.entry(*index).or_insert(wait);
                *earliest = wait.min(*earliest);
            }
        }
        waits.retain(|index, _| self.asked.contains_key(index) && thief.gives(*index, self.now));
        waits
            .into_iter()
            .max_by_key(|(index, wait)| (*wait, *index))
    }

    /// Returns whether a chunk is asked of a further provider because of the time for which one has
    /// owed it. The time grows with the number of copies, so that few providers send all of a blob.
    fn copy_is_due(&self, index: u64, asked_for: Duration) -> bool {
        let askers = u32::from(self.asked.get(&index).copied().unwrap_or_default());
        let steps = 1_u32
            .checked_shl(askers)
            .map_or(u32::MAX, |steps| steps - 1);
        let after = self.config.copy_after;
        after.is_some_and(|after| asked_for >= after.saturating_mul(steps))
    }

    /// Returns `true` where a provider is idle while others are asked for chunks.
    fn could_steal(&self) -> bool {
        (self.shared || !self.wants())
            && !self.asked.is_empty()
            && self
                .ready()
                .any(|(_, provider)| provider.in_flight.is_empty())
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

    /// Returns `true` where a missing chunk may be asked for and is not.
    fn wants(&self) -> bool {
        self.wanted
            .first()
            .is_some_and(|first| first < self.horizon)
    }

    fn ready(&self) -> impl Iterator<Item = (&PeerId, &Provider)> {
        let providers = self.providers.iter();
        providers.filter(|(_, provider)| provider.status == Status::Ready)
    }

    /// The best rate known, and no less than an untried provider is assumed to have.
    fn typical_rate(&self) -> u64 {
        let rates = self.ready().filter_map(|(_, provider)| provider.rate());
        rates.max().unwrap_or_default().max(UNKNOWN_RATE)
    }

    /// A number below 1024 by xorshift, for nothing that an adversary may not guess.
    fn jitter(&mut self) -> u32 {
        (self.random() >> 54) as u32
    }

    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

/// Spreads consecutive numbers over all of 64 bits, by the finalizer of SplitMix64.
fn mix(number: u64) -> u64 {
    let number = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
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
