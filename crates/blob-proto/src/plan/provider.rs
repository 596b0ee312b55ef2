//! What the planner knows of one provider.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use super::{CHUNK_BYTES, PlannerConfig, bits::Bits, patience::Patience};

/// Weight of the newest measurement in the rate, one in this many.
const RATE_SMOOTHING: u64 = 4;

/// Shortest span over which a rate is measured.
const RATE_SPAN: Duration = Duration::from_millis(200);

/// Chunks asked at first of a provider whose rate is not known: one being sent and one behind it.
/// Until it is known, one more with each that comes.
const FIRST_CHUNKS: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Ready,
    /// Not asked until then.
    Resting {
        until: Duration,
    },
    /// Not asked again, unless it is found again.
    Out {
        since: Duration,
    },
}

#[derive(Clone, Debug)]
pub(super) struct Provider {
    pub(super) status: Status,
    /// Chunks asked for, in the order they will be answered.
    pub(super) in_flight: VecDeque<u64>,
    pub(super) failures: u32,
    /// Times in a row that no stream to it could be opened.
    pub(super) unreachable: u32,
    pub(super) lied: bool,
    /// Whether it was busy when it was left last.
    pub(super) is_busy: bool,
    /// Whether that is no failure.
    pub(super) waits: bool,
    pub(super) patience: Patience,
    /// The missing chunks that it has. `None` where it has all of them.
    pub(super) has: Option<Bits>,
    /// Whether it reports which chunks it has.
    pub(super) reports: bool,
    /// Chunks that it does not send before some time.
    pub(super) later: BTreeMap<u64, Duration>,
    /// Missing chunks that it has put off.
    pub(super) put_off: BTreeSet<u64>,
    /// When it was asked after a pause.
    asked_since: Duration,
    /// Whether something came since it was asked after a pause.
    has_begun: bool,
    /// When the last byte came, or the first request after a pause was sent.
    last_byte: Duration,
    /// Begin of the span over which the floor is checked, and what came since.
    floor_since: Duration,
    floor_bytes: u64,
    /// The same for the rate.
    rate_since: Duration,
    rate_bytes: u64,
    /// Bytes a second, smoothed.
    rate: Option<u64>,
}

impl Provider {
    pub(super) fn new(now: Duration) -> Self {
        Self {
            status: Status::Ready,
            in_flight: VecDeque::new(),
            failures: 0,
            unreachable: 0,
            lied: false,
            is_busy: false,
            waits: false,
            patience: Patience::default(),
            has: None,
            reports: false,
            later: BTreeMap::new(),
            put_off: BTreeSet::new(),
            asked_since: now,
            has_begun: false,
            last_byte: now,
            floor_since: now,
            floor_bytes: 0,
            rate_since: now,
            rate_bytes: 0,
            rate: None,
        }
    }

    pub(super) fn rate(&self) -> Option<u64> {
        self.rate
    }

    /// Takes a provider back that was found again some time after it was given up. One that lied
    /// stays out.
    pub(super) fn revive(&mut self, config: &PlannerConfig, now: Duration) {
        if let Status::Out { since } = self.status
            && !self.lied
            && now.saturating_sub(since) >= config.rest_max
        {
            self.status = Status::Ready;
            (self.failures, self.unreachable) = (0, 0);
        }
    }

    /// Whether it has a chunk, and sends it now.
    pub(super) fn gives(&self, index: u64, now: Duration) -> bool {
        self.has.as_ref().is_none_or(|has| has.contains(index))
            && self.later.get(&index).is_none_or(|later| *later <= now)
    }

    /// Returns the time since which it owes something.
    pub(super) fn asked_since(&self) -> Duration {
        self.asked_since
    }

    /// Notes that chunks are asked for.
    pub(super) fn ask(&mut self, chunks: impl Iterator<Item = u64>, now: Duration) {
        if self.in_flight.is_empty() {
            self.asked_since = now;
            // Time without requests counts for nothing.
            self.restart(now);
        }
        self.in_flight.extend(chunks);
    }

    /// Takes back all requests to the provider. A provider whose rate is unknown has sent less than
    /// a chunk since it was asked, so its rate is at most a chunk in that time.
    pub(super) fn cancel(&mut self, now: Duration) {
        self.in_flight.clear();
        if self.rate.is_none() {
            let micros = now.saturating_sub(self.rate_since).as_micros().max(1);
            let most = u128::from(self.rate_bytes + CHUNK_BYTES) * 1_000_000 / micros;
            self.rate = Some(u64::try_from(most).unwrap_or(u64::MAX));
        }
    }

    /// Restarts all measurements of the provider.
    pub(super) fn restart(&mut self, now: Duration) {
        (self.last_byte, self.floor_since, self.rate_since) = (now, now, now);
        (self.floor_bytes, self.rate_bytes) = (0, 0);
        self.has_begun = false;
    }

    /// Notes that bytes of what it was asked for came.
    pub(super) fn receive(&mut self, bytes: u64, now: Duration) {
        self.unreachable = 0;
        self.last_byte = now;
        if self.in_flight.is_empty() {
            // It was asked for nothing, which measures nothing.
            return;
        }
        if !std::mem::replace(&mut self.has_begun, true) {
            // The time until then is bounded by the stall timeout. A provider with an upload limit
            // waits for the turn of its requester.
            (self.floor_since, self.floor_bytes) = (now, 0);
        }
        self.floor_bytes = self.floor_bytes.saturating_add(bytes);
        self.rate_bytes = self.rate_bytes.saturating_add(bytes);
        let span = now.saturating_sub(self.rate_since);
        if span >= RATE_SPAN {
            let micros = span.as_micros().max(1);
            let rate = u128::from(self.rate_bytes) * 1_000_000 / micros;
            let rate = u64::try_from(rate).unwrap_or(u64::MAX).max(1);
            self.rate = Some(match self.rate {
                None => rate,
                Some(old) => old - old / RATE_SMOOTHING + rate / RATE_SMOOTHING,
            });
            (self.rate_since, self.rate_bytes) = (now, 0);
        }
    }

    /// Chunks that may be in flight: what it sends in a second, within bounds.
    pub(super) fn window(&self, config: &PlannerConfig) -> usize {
        let chunks = match self.rate {
            None => FIRST_CHUNKS as u64 + self.rate_bytes / CHUNK_BYTES,
            Some(rate) => rate / CHUNK_BYTES,
        };
        let chunks = usize::try_from(chunks).unwrap_or(usize::MAX);
        chunks.clamp(
            FIRST_CHUNKS.min(config.provider_window_chunks),
            config.provider_window_chunks,
        )
    }

    /// Time until it has sent `chunks`, by its rate or, unknown, by another.
    pub(super) fn expected(&self, chunks: usize, otherwise: u64) -> Duration {
        let rate = self.rate.unwrap_or(otherwise).max(1);
        let micros = (chunks as u64 * CHUNK_BYTES).saturating_mul(1_000_000) / rate;
        Duration::from_micros(micros)
    }

    /// Time since it last sent something, or was asked after a pause.
    pub(super) fn silence(&self, now: Duration) -> Duration {
        now.saturating_sub(self.last_byte)
    }

    /// When it has to have sent something, or enough.
    pub(super) fn deadline(&self, config: &PlannerConfig) -> Option<Duration> {
        if self.in_flight.is_empty() {
            return None;
        }
        let stall = self.last_byte + self.patience(config);
        Some(stall.min(self.floor_since + config.floor_span))
    }

    /// Longest silence that is accepted now.
    fn patience(&self, config: &PlannerConfig) -> Duration {
        match self.has_begun {
            true => config.stall_timeout.max(config.burst),
            false => config.stall_timeout,
        }
    }

    pub(super) fn is_stalled(&self, config: &PlannerConfig, now: Duration) -> bool {
        !self.in_flight.is_empty() && now >= self.last_byte + self.patience(config)
    }

    /// Whether the span is over and too little came in it. Begins the next span.
    pub(super) fn is_too_slow(&mut self, config: &PlannerConfig, now: Duration) -> bool {
        let span = now.saturating_sub(self.floor_since);
        if self.in_flight.is_empty() || span < config.floor_span {
            return false;
        }
        let least = u128::from(config.floor_bytes_per_s) * span.as_millis() / 1000;
        let too_slow = u128::from(self.floor_bytes) < least;
        (self.floor_since, self.floor_bytes) = (now, 0);
        too_slow
    }
}
