//! The controller as pure state, after BBRv3 (draft-ietf-ccwg-bbr).
//!
//! # Driving it
//!
//! 1. [`Bbr::on_sent`] for each burst of packets, with its time.
//! 2. For each acknowledgement frame: [`Bbr::on_ack`] for every packet that it acknowledges first,
//!    then [`Bbr::on_end_acks`] once.
//! 3. [`Bbr::on_loss`] for the packets that were declared lost at one time, [`Bbr::on_marks`] for
//!    an acknowledgement whose packets a router marked (ECN).
//! 4. [`Bbr::window`] says how many bytes may be in flight now.
//!
//! Time is an argument and the only randomness is the seed, so the same calls give the same
//! windows.
//!
//! # What differs from the draft
//!
//! `quinn` spreads packets by the window alone: 1.25 windows a round trip. The rate that the model
//! wants therefore cannot be handed over. The window grows by what that rate permits since
//! the last acknowledgement ([`Bbr::window`]): packets beyond one bandwidth-delay product are sent
//! at the rate of the model, and those up to it whenever there are some.
//!
//! Loss alone is no sign of a full queue, because radio links lose more than the 2 % that the
//! draft permits. Loss counts where the round trip time has grown and the bandwidth has not, or where
//! it is so high that the link must be overloaded ([`OVERLOAD_LOSS`]). A startup slows down as soon
//! as eight round trips in a row were longer than the shortest by an eighth, as in HyStart++ (RFC
//! 9406), so that a shallow queue overflows once at most. The eight must not come from one moment
//! ([`QUEUED_TIME`]): a host that was busy sees delays that are not the path's.
//!
//! `quinn` reports a connection as app-limited even if the path is full. After the startup that
//! counts only while less than one bandwidth-delay product is in flight. A probe that becomes
//! app-limited ends at once and keeps the measured bandwidth; in the draft it goes on.
//!
//! The draft skips one probe for the round trip time when a connection sends again after it was
//! idle. Here an app-limited flow with no more in flight than that probe permits
//! ([`PROBE_RTT_GAIN`]) is never probed for it, and such a flow never raises the shortest round
//! trip time: peers acknowledge single packets late.
//!
//! While it looks for more bandwidth, no more than [`GROWTH_PACKETS`] are added to those in flight
//! in one round trip, and no more than these are in flight beyond the bandwidth-delay product. The
//! draft doubles what is in flight, or adds a quarter in a probe. What does not fit into the queue
//! of a long, fast path is lost, packet by packet, and receivers end a connection whose stream has
//! about 1,000 gaps.
//!
//! A mark of a router (ECN) counts as a full queue, once a round, with the answer of this module to
//! losses in a full queue.
//!
//! A probe goes on while it brings bandwidth, so that a flow with a small share grows faster than
//! one with a large share. The bandwidth-delay product counts the queue of other flows
//! ([`MAX_FOREIGN_QUEUE`]): without it, a flow that fills a deep queue would starve this one.

use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::rate::{RateSampler, Sample};

/// Packets in the first window (RFC 9002, section 7.2).
const INITIAL_PACKETS: u64 = 10;

/// Bytes of the first window at most (RFC 9002, section 7.2).
const MAX_INITIAL_BYTES: u64 = 14_720;

/// Packets that may always be in flight (draft section 2.7, `MinPipeCwnd`).
const MIN_PACKETS: u64 = 4;

/// Windows of the measured bandwidth-delay product that may be in flight (draft section 2.5).
const WINDOW_GAIN: f64 = 2.0;

/// Share of the measured bandwidth that is sent at while it is not probed: 1 % less, so that queues
/// drain (draft section 2.6, `PacingMarginPercent`).
const CRUISE_GAIN: f64 = 0.99;

/// Growth of what is sent in one round of a probe, to find more bandwidth (draft section 4.3.3.6).
const PROBE_GROWTH: f64 = 0.25;

/// Growth in a round of a startup that has seen a queue.
const QUEUED_STARTUP_GROWTH: f64 = 0.25;

/// Packets that are added to those in flight in one round at most. So many can be lost, each
/// between two that arrive, before the sender learns of the first. `quic-go` ends a connection at
/// 1,000 gaps in a stream. `quinn` does so at 1,024 chunks that it cannot join, and a gap that is
/// filled between two chunks can count as a third one. The simulation of long, fast paths finds at
/// most 972 chunks with 320 packets, and 1,403 with 512.
const GROWTH_PACKETS: u64 = 320;

/// Share of the growth of the window by which the bandwidth has to grow in one round; below it, a
/// startup has found the whole bandwidth. With a doubled window these are the 1.25 of the draft
/// (section 4.3.1.2).
const FULL_BANDWIDTH_SHARE: f64 = 0.25;

/// Rounds without that growth that end a startup (draft section 4.3.1.2).
const FULL_BANDWIDTH_ROUNDS: u32 = 3;

/// The same share for a startup that has seen a queue: it ends because the queue is its own. Where
/// it is that of others, more in flight brings more bandwidth. A guess.
const QUEUED_SHARE: f64 = 0.4;

/// Growth of the bandwidth in one round from which on losses are no sign of a full queue of this
/// flow. A guess.
const GROWING: f64 = 1.1;

/// Share of a round's bytes above which losses are a sign of a full queue, where the round trip
/// has grown too (draft section 2.5, `LossThresh`).
const CONGESTED_LOSS: f64 = 0.02;

/// Share of a round's bytes above which losses are a sign of overload on their own: policers drop
/// without a queue. A guess, far above what links lose that can still be used.
const OVERLOAD_LOSS: f64 = 0.15;

/// Packets lost in a round below which its losses mean nothing (draft section 4.3.1.3 takes six
/// in a startup).
const MIN_LOST_PACKETS: u64 = 6;

/// Packets lost in a round of a startup that end it at once, without waiting for the round. A new
/// flow may lose a whole first window to the full queue of others.
const STARTUP_LOST_PACKETS: u64 = 32;

/// What remains of a bound after a round of congestion (draft section 2.5, `Beta`).
const BETA: f64 = 0.7;

/// Share of the bound that is used while it is not probed (draft section 2.5, `Headroom`).
const HEADROOM: f64 = 0.85;

/// Growth of the round trip time that shows a queue: an eighth (RFC 9406, section 4.2)...
const QUEUE_RTT_SHARE: u32 = 8;

/// ...and no less than this, which is the noise of timers and schedulers.
const QUEUE_RTT_MIN: Duration = Duration::from_millis(2);

/// Round trips in a row that show a queue and end a startup (RFC 9406, section 4.2).
const QUEUED_SAMPLES: u32 = 8;

/// Time between the first and the last of them at least. A thread that was not scheduled for a few
/// milliseconds handles many acknowledgements at once, all of which look late.
const QUEUED_TIME: Duration = Duration::from_millis(4);

/// Time between two probes for bandwidth: from 2 s to 3 s, spread so that flows do not probe
/// together (draft section 4.3.3.5).
const PROBE_WAIT: Duration = Duration::from_secs(2);

/// Round trips between two probes where those are shorter: short paths share links with others whose
/// flows come and go as fast. A guess; TCP Reno takes as many to win back 16 packets.
const PROBE_WAIT_ROUNDS: u32 = 16;

/// Time between two probes at least.
const PROBE_WAIT_MIN: Duration = Duration::from_millis(250);

/// Rounds after which a probe ends although the bandwidth still grows with it.
const PROBE_ROUNDS: u32 = 8;

/// Time after which the shortest round trip is measured again (draft section 2.8,
/// `ProbeRTTInterval`).
const MIN_RTT_INTERVAL: Duration = Duration::from_secs(5);

/// Time after which a shortest round trip that was not seen again is replaced (draft section 2.8,
/// `MinRTTFilterLen`).
const MIN_RTT_LIFE: Duration = Duration::from_secs(10);

/// Time for which the window stays small to measure the round trip (draft section 2.8).
const PROBE_RTT_TIME: Duration = Duration::from_millis(200);

/// Part of the bandwidth-delay product in flight during that time (draft section 2.8).
const PROBE_RTT_GAIN: f64 = 0.5;

/// Shortest round trips that the queue of others is taken to add at most. A guess: queues of four
/// bandwidth-delay products are common at access links.
const MAX_FOREIGN_QUEUE: u32 = 4;

/// What the controller is doing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Phase {
    /// Doubles the window each round until the bandwidth is found, or adds [`GROWTH_PACKETS`].
    Startup {
        /// Bandwidth at the last round that brought growth, in bytes per second.
        reached: f64,
        /// Rounds since the last growth of the bandwidth.
        rounds: u32,
        /// Whether a queue was seen: the window grows by a quarter a round from then on.
        queued: bool,
    },
    /// Waits until what a startup or a probe has queued is delivered.
    Drain,
    /// Sends at the measured bandwidth.
    Cruise {
        /// When more is probed for.
        until: Instant,
    },
    /// Fills the pipe for a round before a probe, with short-term bounds lifted.
    Refill,
    /// Sends more than was measured.
    Probe {
        /// Rounds since the beginning.
        rounds: u32,
    },
    /// Measures the shortest round trip with a small window.
    ProbeRtt {
        /// When it ends; from the time on at which little enough is in flight.
        until: Option<Instant>,
    },
}

/// What was seen since the round began.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    /// Delivered bytes, in all, at which the round ends.
    ends: u64,
    /// Delivered bytes, in all, at which it began.
    began: u64,
    lost: u64,
    /// Whether a router marked a packet because its queue is long.
    marked: bool,
    /// Samples, and those of them that show a queue.
    samples: u32,
    queued: u32,
    /// Largest delivery rate, in bytes per second.
    rate: f64,
    /// Bandwidth that was known when the round began.
    known: f64,
    /// Most bytes that were in flight when a packet delivered in the round was sent.
    in_flight: u64,
}

/// The congestion controller. See the [module](self).
#[derive(Clone, Debug)]
pub(super) struct Bbr {
    mtu: u64,
    rng: SmallRng,
    sampler: RateSampler,
    phase: Phase,
    round: Round,
    /// Packets that were lost in the round before.
    lost_before: u64,
    /// Largest delivery rates of this probe cycle and the one before, in bytes per second.
    bandwidths: [f64; 2],
    /// Bound on the bandwidth until the next probe.
    bandwidth_low: Option<f64>,
    min_rtt: Option<Duration>,
    min_rtt_at: Instant,
    /// Shortest round trip since the last probe for it, and when it was seen.
    recent_rtt: Duration,
    recent_rtt_at: Instant,
    /// Shortest round trips of the probe cycle before and of this one.
    cycle_rtts: [Duration; 2],
    /// Samples in a row that show a queue, and when the first of them was taken.
    queued: u32,
    queued_at: Instant,
    /// Bytes that were acknowledged ahead of the measured rate at most, of late.
    aggregated: u64,
    epoch_at: Instant,
    epoch_bytes: u64,
    /// Bound on bytes in flight until the next probe.
    in_flight_low: Option<u64>,
    /// Bound on bytes in flight that a probe has found.
    in_flight_high: Option<u64>,
    /// Bytes in flight, as far as is known between two acknowledgements.
    in_flight: u64,
    /// Upper bound of the window.
    cap: u64,
    /// Bytes that the model's rate permits beyond those in flight.
    quota: f64,
    quota_at: Instant,
    /// Bytes acknowledged since the last [`Bbr::on_end_acks`].
    acked: u64,
}

impl Bbr {
    /// A controller for a path whose packets have `mtu` bytes.
    pub(super) fn new(mtu: u16, seed: u64, now: Instant) -> Self {
        let mtu = u64::from(mtu);
        Self {
            mtu,
            rng: SmallRng::seed_from_u64(seed),
            sampler: RateSampler::new(now),
            phase: Phase::Startup {
                reached: 0.0,
                rounds: 0,
                queued: false,
            },
            round: Round::default(),
            lost_before: 0,
            bandwidths: [0.0; 2],
            bandwidth_low: None,
            min_rtt: None,
            min_rtt_at: now,
            recent_rtt: Duration::MAX,
            recent_rtt_at: now,
            cycle_rtts: [Duration::MAX; 2],
            queued: 0,
            queued_at: now,
            aggregated: 0,
            epoch_at: now,
            epoch_bytes: 0,
            in_flight_low: None,
            in_flight_high: None,
            in_flight: 0,
            cap: initial_window(mtu),
            quota: 0.0,
            quota_at: now,
            acked: 0,
        }
    }

    /// Bytes that may be in flight.
    ///
    /// Up to the bandwidth-delay product packets are sent as they come; beyond it at the rate of
    /// the phase, up to twice the product.
    pub(super) fn window(&self) -> u64 {
        let window = match self.phase {
            Phase::Startup { .. } | Phase::Drain | Phase::ProbeRtt { .. } => self.cap,
            Phase::Cruise { .. } | Phase::Refill | Phase::Probe { .. } => {
                let paced = self.in_flight.saturating_add(self.quota.max(0.0) as u64);
                paced.max(self.product(1.0)).min(self.cap)
            }
        };
        window.max(self.min_window())
    }

    /// The window that a connection begins with, in bytes.
    pub(super) fn initial_window(&self) -> u64 {
        initial_window(self.mtu)
    }

    /// Rate that is sent at, in bytes per second; 0 while nothing was measured.
    pub(super) fn rate(&self) -> f64 {
        self.gain() * self.bandwidth()
    }

    /// Packets have another size from now on.
    pub(super) fn on_mtu(&mut self, mtu: u16) {
        self.mtu = u64::from(mtu);
    }

    /// `bytes` are sent at `now`.
    pub(super) fn on_sent(&mut self, now: Instant, bytes: u64) {
        self.sampler.on_sent(now, bytes, self.in_flight);
        self.in_flight = self.in_flight.saturating_add(bytes);
        self.quota -= bytes as f64;
    }

    /// A packet of `bytes`, sent at `sent`, was acknowledged.
    pub(super) fn on_ack(&mut self, sent: Instant, bytes: u64) {
        self.sampler.on_ack(sent, bytes);
        self.acked = self.acked.saturating_add(bytes);
    }

    /// All packets of an acknowledgement frame were given to [`Bbr::on_ack`]. `in_flight` bytes are
    /// still on their way; `app_limited` says that there was nothing more to send.
    pub(super) fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool) {
        self.in_flight = in_flight;
        let acked = std::mem::take(&mut self.acked);
        let Some(sample) = (self.sampler).take(now, self.min_rtt.unwrap_or_default()) else {
            self.settle(now);
            return;
        };
        // The caller also has nothing more to send while the path is full.
        let before = in_flight.saturating_add(acked);
        let fills = !matches!(self.phase, Phase::Startup { .. }) && before >= self.product(1.0);
        let app_limited = app_limited && !fills;
        if app_limited {
            self.sampler.on_app_limited(in_flight);
            if before <= self.product(PROBE_RTT_GAIN) {
                self.on_little_in_flight(now);
            }
        }
        let app_limited = app_limited || sample.app_limited;
        let round_ended = self.on_round(&sample);
        self.on_rtt(now, sample.rtt);
        self.on_rate(&sample);
        self.on_aggregation(now, acked);
        if round_ended {
            self.on_round_end(app_limited);
        }
        self.advance(now, acked, app_limited);
        if round_ended {
            self.begin_round();
        }
        self.settle(now);
    }

    /// Packets arrived that a router marked because its queue is long (RFC 9002, section 7.1).
    /// Marks count as losses of a full queue, once a round.
    pub(super) fn on_marks(&mut self, now: Instant) {
        self.round.marked = true;
        self.on_congestion();
        self.settle(now);
    }

    /// `bytes` that were in flight are lost. `persistent` says that nothing sent for a long time
    /// has arrived (RFC 9002, section 7.6).
    pub(super) fn on_loss(&mut self, now: Instant, bytes: u64, persistent: bool) {
        self.in_flight = self.in_flight.saturating_sub(bytes);
        self.round.lost = self.round.lost.saturating_add(bytes);
        if persistent {
            // The path has changed or failed: everything is measured again.
            let fresh = Self::new(
                u16::try_from(self.mtu).unwrap_or(u16::MAX),
                self.rng.random(),
                now,
            );
            let (sampler, in_flight) = (self.sampler.clone(), self.in_flight);
            *self = Self {
                sampler,
                in_flight,
                cap: fresh.min_window(),
                ..fresh
            };
            self.begin_round();
            return;
        }
        self.on_congestion();
        self.settle(now);
    }

    /// Ends a startup or a probe whose round shows a full queue. Other phases wait for the end of
    /// the round.
    fn on_congestion(&mut self) {
        let lost = self.round.lost / self.mtu.max(1);
        let congested = self.is_congested();
        match self.phase {
            // More than in the round before, by half of what a round adds: a queue too short to be
            // seen is full.
            Phase::Startup { .. }
                if lost.saturating_sub(self.lost_before) > GROWTH_PACKETS / 2
                    || (congested && lost > STARTUP_LOST_PACKETS) =>
            {
                self.bound_in_flight(self.round.in_flight / 2);
                self.phase = Phase::Drain;
            }
            Phase::Probe { .. } if congested => {
                self.bound_in_flight(self.round.in_flight.max(self.in_flight));
                self.leave_probe();
            }
            _ => {}
        }
    }

    /// Learns that `bytes` in flight were too many: not less than the draft's share of the product is
    /// kept, and the first window in any case.
    fn bound_in_flight(&mut self, bytes: u64) {
        let kept = (self.product(1.0) as f64 * BETA) as u64;
        self.in_flight_high = Some(bytes.max(kept).max(self.initial_window()));
    }

    fn min_window(&self) -> u64 {
        MIN_PACKETS * self.mtu
    }

    /// Bandwidth that the model counts on, in bytes per second.
    pub(super) fn bandwidth(&self) -> f64 {
        let measured = self.bandwidths[0].max(self.bandwidths[1]);
        self.bandwidth_low.map_or(measured, |low| low.min(measured))
    }

    /// `gain` times the bandwidth-delay product, in bytes; the first window while it is unknown.
    fn product(&self, gain: f64) -> u64 {
        match self.path_rtt() {
            Some(rtt) if self.bandwidth() > 0.0 => {
                let bytes = (gain * self.bandwidth() * rtt.as_secs_f64()) as u64;
                bytes.max(self.min_window())
            }
            _ => self.initial_window(),
        }
    }

    /// The shortest round trip while this flow keeps nothing in the queue: it drains after each
    /// probe, so what remains of the queue then is that of others.
    fn path_rtt(&self) -> Option<Duration> {
        let min = self.min_rtt?;
        let recent = self.cycle_rtts[0].min(self.cycle_rtts[1]);
        Some(recent.clamp(min, min * MAX_FOREIGN_QUEUE))
    }

    fn gain(&self) -> f64 {
        match self.phase {
            Phase::Probe { .. } => self.probe_gain(),
            Phase::Startup { .. } => 2.0,
            Phase::Drain | Phase::ProbeRtt { .. } => 0.5,
            Phase::Cruise { .. } | Phase::Refill => CRUISE_GAIN,
        }
    }

    /// Share of the measured bandwidth that a probe sends at.
    fn probe_gain(&self) -> f64 {
        1.0 + self.growth(PROBE_GROWTH, self.product(1.0))
    }

    /// Growth of `in_flight` bytes in one round: `wanted`, a share of them, or less if these would
    /// be more than [`GROWTH_PACKETS`].
    fn growth(&self, wanted: f64, in_flight: u64) -> f64 {
        wanted.min((GROWTH_PACKETS * self.mtu) as f64 / in_flight.max(1) as f64)
    }

    /// Growth of the window in a round of a startup.
    fn startup_growth(&self, queued: bool) -> f64 {
        let wanted = if queued { QUEUED_STARTUP_GROWTH } else { 1.0 };
        self.growth(wanted, self.cap)
    }

    /// Round trips longer than this show a queue.
    fn queue_rtt(&self) -> Option<Duration> {
        self.min_rtt
            .map(|rtt| rtt + (rtt / QUEUE_RTT_SHARE).max(QUEUE_RTT_MIN))
    }

    /// Whether the marks or the losses of this round are a sign of a full queue.
    fn is_congested(&self) -> bool {
        if self.round.marked {
            return true;
        }
        let Round { began, lost, .. } = self.round;
        if lost < MIN_LOST_PACKETS * self.mtu {
            return false;
        }
        let delivered = self.sampler.delivered() - began;
        let share = lost as f64 / (lost + delivered.max(self.in_flight)) as f64;
        let queued = self.round.queued * 2 > self.round.samples;
        // Losses while the bandwidth grows are those of a queue that others fill.
        let growing = self.round.rate > self.round.known * GROWING;
        share > OVERLOAD_LOSS || (queued && !growing && share > CONGESTED_LOSS)
    }

    /// Returns whether the round has ended: a packet sent since its beginning was acknowledged.
    fn on_round(&mut self, sample: &Sample) -> bool {
        self.round.in_flight = self.round.in_flight.max(sample.in_flight);
        sample.prior_delivered >= self.round.ends
    }

    fn begin_round(&mut self) {
        let delivered = self.sampler.delivered();
        self.lost_before = self.round.lost / self.mtu.max(1);
        self.round = Round {
            ends: delivered,
            began: delivered,
            known: self.bandwidth(),
            ..Round::default()
        };
    }

    fn on_rtt(&mut self, now: Instant, rtt: Duration) {
        let queued = self.queue_rtt().is_some_and(|limit| rtt > limit);
        if !queued {
            self.queued = 0;
        } else {
            if self.queued == 0 {
                self.queued_at = now;
            }
            self.queued += 1;
        }
        self.round.samples += 1;
        self.round.queued += u32::from(queued);
        self.cycle_rtts[1] = self.cycle_rtts[1].min(rtt);
        if rtt <= self.recent_rtt {
            self.recent_rtt = rtt;
            self.recent_rtt_at = now;
        }
        let expired = now.saturating_duration_since(self.min_rtt_at) > MIN_RTT_LIFE;
        if self.min_rtt.is_none_or(|min| rtt <= min) {
            self.min_rtt = Some(rtt);
            self.min_rtt_at = now;
        } else if expired {
            self.min_rtt = Some(self.recent_rtt);
            self.min_rtt_at = self.recent_rtt_at;
        }
    }

    fn on_rate(&mut self, sample: &Sample) {
        let Some(rate) = sample.rate else { return };
        self.round.rate = self.round.rate.max(rate);
        // While there is too little to send, a rate is a lower bound of what the path carries.
        if !sample.app_limited || rate > self.bandwidth() {
            self.bandwidths[1] = self.bandwidths[1].max(rate);
        }
    }

    /// Measures by how much acknowledgements run ahead of the rate at times: the window has to be
    /// larger by that.
    fn on_aggregation(&mut self, now: Instant, acked: u64) {
        let elapsed = now.saturating_duration_since(self.epoch_at).as_secs_f64();
        let expected = self.bandwidth() * elapsed;
        if self.epoch_bytes as f64 <= expected {
            self.epoch_at = now;
            self.epoch_bytes = acked;
            return;
        }
        self.epoch_bytes = self.epoch_bytes.saturating_add(acked);
        let ahead = (self.epoch_bytes as f64 - expected).max(0.0) as u64;
        self.aggregated = self.aggregated.max(ahead).min(self.product(1.0));
    }

    fn on_round_end(&mut self, app_limited: bool) {
        let congested = self.is_congested();
        let growths = [false, true].map(|queued| self.startup_growth(queued));
        match &mut self.phase {
            Phase::Startup {
                reached,
                rounds,
                queued,
            } if !app_limited => {
                let bandwidth = self.bandwidths[1];
                let (share, most) = if *queued {
                    (QUEUED_SHARE, 1)
                } else {
                    (FULL_BANDWIDTH_SHARE, FULL_BANDWIDTH_ROUNDS)
                };
                let growth = 1.0 + share * growths[usize::from(*queued)];
                if bandwidth >= *reached * growth {
                    (*reached, *rounds) = (bandwidth, 0);
                } else {
                    *rounds += 1;
                }
                if *rounds >= most || (congested && *rounds > 0) {
                    self.phase = Phase::Drain;
                }
            }
            Phase::Probe { rounds } => *rounds += 1,
            Phase::Refill => self.phase = Phase::Probe { rounds: 0 },
            Phase::Cruise { .. } | Phase::Drain if congested => self.on_congested_round(),
            _ => {}
        }
    }

    /// Sends less until the next probe: no less than what was just delivered, no less than the
    /// draft's share of before.
    fn on_congested_round(&mut self) {
        let bandwidth = self.bandwidth();
        self.bandwidth_low = Some(self.round.rate.max(bandwidth * BETA));
        let before = self.in_flight_low.unwrap_or(self.cap).min(self.cap);
        let kept = (before as f64 * BETA) as u64;
        self.in_flight_low = Some(self.round.in_flight.min(before).max(kept));
    }

    fn advance(&mut self, now: Instant, acked: u64, app_limited: bool) {
        match self.phase {
            Phase::Startup { ref mut queued, .. } => {
                let lasting = now.saturating_duration_since(self.queued_at) >= QUEUED_TIME;
                *queued |= self.queued >= QUEUED_SAMPLES && lasting;
                let queued = *queued;
                let more = (acked as f64 * self.startup_growth(queued)) as u64;
                if !app_limited || self.in_flight + acked >= self.cap / 2 {
                    self.cap = self.cap.saturating_add(more);
                }
            }
            Phase::Drain => {
                if self.in_flight <= self.product(1.0) {
                    self.cruise(now);
                }
            }
            Phase::Cruise { until } => {
                if now >= until && !app_limited {
                    self.bandwidth_low = None;
                    self.in_flight_low = None;
                    self.phase = Phase::Refill;
                    self.begin_round();
                    self.round.ends += self.in_flight;
                }
            }
            Phase::Refill | Phase::Probe { .. } if app_limited => self.abandon_probe(now),
            Phase::Refill => {}
            Phase::Probe { rounds } => {
                let bound = self.in_flight_high.unwrap_or(u64::MAX);
                if self.round.in_flight.saturating_add(2 * self.mtu) >= bound {
                    // The bound held without losses, so it is raised as in slow start.
                    self.in_flight_high = Some(bound.saturating_add(acked));
                }
                let full = self.in_flight >= self.product(self.probe_gain());
                if (rounds >= 1 && full) || rounds >= PROBE_ROUNDS {
                    self.leave_probe();
                }
            }
            Phase::ProbeRtt { until } => self.on_probe_rtt(now, until),
        }
        let due = now.saturating_duration_since(self.recent_rtt_at) > MIN_RTT_INTERVAL;
        let settled = !matches!(
            self.phase,
            Phase::Startup { .. } | Phase::ProbeRtt { .. } | Phase::Probe { .. } | Phase::Refill
        );
        if due && settled {
            self.phase = Phase::ProbeRtt { until: None };
            self.recent_rtt = Duration::MAX;
        }
    }

    /// Acts on an acknowledgement while the application sends so little that no more is in flight
    /// than a probe for the round trip time permits. Such a flow queues nothing, so it needs no
    /// probe now, and one that has begun ends.
    fn on_little_in_flight(&mut self, now: Instant) {
        self.recent_rtt_at = now;
        if matches!(self.phase, Phase::ProbeRtt { .. }) {
            // The samples since the beginning may include the queue that the probe was to drain,
            // and the delay with which the peer acknowledges a single packet.
            self.recent_rtt = self.recent_rtt.min(self.min_rtt.unwrap_or(Duration::MAX));
            self.cruise(now);
        }
    }

    fn on_probe_rtt(&mut self, now: Instant, until: Option<Instant>) {
        let small = self.product(PROBE_RTT_GAIN).max(self.min_window());
        match until {
            None if self.in_flight <= small.saturating_add(self.mtu) => {
                let round_trip = self.min_rtt.unwrap_or_default();
                let until = now + PROBE_RTT_TIME.max(round_trip);
                self.phase = Phase::ProbeRtt { until: Some(until) };
            }
            Some(until) if now >= until => {
                if self.recent_rtt < Duration::MAX {
                    self.min_rtt = Some(self.recent_rtt);
                    self.min_rtt_at = now;
                }
                self.recent_rtt_at = now;
                self.cruise(now);
            }
            _ => {}
        }
    }

    /// Ends a probe: the bandwidth of the cycle before it is forgotten.
    fn leave_probe(&mut self) {
        self.phase = Phase::Drain;
        self.bandwidths[0] = self.bandwidths[1];
        self.bandwidths[1] = 0.0;
        self.cycle_rtts = [self.cycle_rtts[1], Duration::MAX];
        self.aggregated /= 2;
    }

    /// Ends a probe in which there was too little to send to find anything: nothing is forgotten.
    fn abandon_probe(&mut self, now: Instant) {
        self.bandwidths = [self.bandwidths[0].max(self.bandwidths[1]), 0.0];
        self.cruise(now);
    }

    fn cruise(&mut self, now: Instant) {
        let rounds = self.min_rtt.unwrap_or_default() * PROBE_WAIT_ROUNDS;
        let wait = PROBE_WAIT.min(rounds.max(PROBE_WAIT_MIN));
        let until = now + wait.mul_f64(self.rng.random_range(1.0..1.5));
        self.phase = Phase::Cruise { until };
        self.quota = 0.0;
        self.quota_at = now;
    }

    /// Brings the window up to date with the phase and the time.
    fn settle(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.quota_at).as_secs_f64();
        self.quota_at = now;
        let rate = self.rate();
        // A quarter of a round trip may be made up for after acknowledgements were late.
        let room = (rate * self.min_rtt.unwrap_or_default().as_secs_f64() / 4.0)
            .max(10.0 * self.mtu as f64);
        self.quota = (self.quota.max(0.0) + rate * elapsed).min(room);
        let bounded = |bytes: u64, low: Option<u64>| low.map_or(bytes, |low| bytes.min(low));
        self.cap = match self.phase {
            Phase::Startup { .. } => self.cap,
            Phase::Drain => self.product(1.0),
            Phase::ProbeRtt { .. } => self.product(PROBE_RTT_GAIN),
            Phase::Cruise { .. } | Phase::Refill => {
                // A path that has become slower loses what is beyond its queue, as in a startup.
                let beyond = self.product(1.0) + GROWTH_PACKETS * self.mtu;
                let most = self.product(WINDOW_GAIN).min(beyond) + self.aggregated;
                let high = self
                    .in_flight_high
                    .map(|high| (high as f64 * HEADROOM) as u64)
                    .map(|high| high.max(self.product(1.0)));
                bounded(bounded(most, high), self.in_flight_low)
            }
            Phase::Probe { .. } => {
                let most = self.product(WINDOW_GAIN) + self.aggregated;
                bounded(most, self.in_flight_high)
            }
        }
        .max(self.min_window());
    }
}

fn initial_window(mtu: u64) -> u64 {
    (INITIAL_PACKETS * mtu).min(MAX_INITIAL_BYTES.max(2 * mtu))
}
