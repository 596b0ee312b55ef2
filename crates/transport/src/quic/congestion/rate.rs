//! Delivery rate samples, after draft-ietf-ccwg-bbr section 4.1.2.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Sending times that are remembered at most. A path of 500 Mbit/s and 200 ms has some 900 bursts
/// of ten packets in flight.
const MAX_SENT: usize = 8192;

/// Sending times for which memory is kept while few are needed: a few KiB.
const KEPT_SENT: usize = 64;

/// What was known of delivery at one sending time.
#[derive(Clone, Copy, Debug)]
struct Sent {
    at: Instant,
    delivered: u64,
    delivered_at: Instant,
    first_sent_at: Instant,
    /// Bytes in flight after the packets of that time were sent.
    in_flight: u64,
    /// Whether there was too little to send shortly before.
    app_limited: bool,
}

/// What the acknowledgements of one moment say about the path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// Bytes per second delivered while the newest acknowledged packet was in flight, if that time
    /// is long enough to judge.
    pub(super) rate: Option<f64>,
    /// Time from sending the newest acknowledged packet to its acknowledgement.
    pub(super) rtt: Duration,
    /// Bytes delivered in all when that packet was sent.
    pub(super) prior_delivered: u64,
    /// Bytes in flight when that packet was sent.
    pub(super) in_flight: u64,
    /// Whether that packet was sent while there was too little to send: the rate is a lower bound
    /// of what the path carries.
    pub(super) app_limited: bool,
}

/// Measures how fast packets are delivered.
#[derive(Clone, Debug)]
pub(super) struct RateSampler {
    sent: VecDeque<Sent>,
    delivered: u64,
    delivered_at: Instant,
    first_sent_at: Instant,
    /// Sending time of the newest packet acknowledged at this moment.
    newest: Option<Instant>,
    /// Delivered bytes, in all, after which packets are no longer sent app-limited: those that were
    /// in flight when there was too little to send (`C.app_limited` of the draft).
    limited_until: Option<u64>,
}

impl RateSampler {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            sent: VecDeque::new(),
            delivered: 0,
            delivered_at: now,
            first_sent_at: now,
            newest: None,
            limited_until: None,
        }
    }

    /// Bytes delivered in all.
    pub(super) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Notes that there is too little to send to fill the path, with `in_flight` bytes in flight.
    /// Packets that are sent until those are delivered measure the pause, not the path.
    pub(super) fn on_app_limited(&mut self, in_flight: u64) {
        self.limited_until = Some(self.delivered.saturating_add(in_flight));
    }

    /// Notes that packets are sent at `now`, when `in_flight` bytes were in flight before them.
    pub(super) fn on_sent(&mut self, now: Instant, bytes: u64, in_flight: u64) {
        if in_flight == 0 {
            // Time without anything in flight says nothing about the path.
            self.first_sent_at = now;
            self.delivered_at = now;
        }
        let after = in_flight.saturating_add(bytes);
        if let Some(last) = self.sent.back_mut()
            && last.at == now
        {
            last.in_flight = after;
            return;
        }
        if self.sent.len() == MAX_SENT {
            self.sent.pop_front();
        }
        self.sent.push_back(Sent {
            at: now,
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            first_sent_at: self.first_sent_at,
            in_flight: after,
            app_limited: self.limited_until.is_some(),
        });
    }

    /// Notes that `bytes` sent at `sent` arrived.
    pub(super) fn on_ack(&mut self, sent: Instant, bytes: u64) {
        self.delivered = self.delivered.saturating_add(bytes);
        self.limited_until = self.limited_until.filter(|&until| self.delivered <= until);
        self.newest = Some(self.newest.map_or(sent, |newest| newest.max(sent)));
    }

    /// The sample of all acknowledgements since the last call; `None` where there were none, or
    /// only of packets that were sent too long ago to be remembered.
    ///
    /// Rates over less than `min_rtt` are left out: they measure bursts of acknowledgements.
    pub(super) fn take(&mut self, now: Instant, min_rtt: Duration) -> Option<Sample> {
        let newest = self.newest.take()?;
        self.delivered_at = now;
        let index = self.sent.partition_point(|sent| sent.at < newest);
        let sent = *self.sent.get(index).filter(|sent| sent.at == newest)?;
        self.first_sent_at = newest;
        // Older packets that are still in flight arrived out of order or are lost: at most one
        // round trip of sending times is kept for them.
        let rtt = now.saturating_duration_since(newest);
        while self.sent.front().is_some_and(|old| old.at + rtt < newest) {
            self.sent.pop_front();
        }
        // A connection that has become idle does not keep the memory of its fastest time.
        if self.sent.capacity() > KEPT_SENT && self.sent.len() < self.sent.capacity() / 8 {
            self.sent.shrink_to(KEPT_SENT);
        }
        let sending = newest.saturating_duration_since(sent.first_sent_at);
        let arriving = now.saturating_duration_since(sent.delivered_at);
        let interval = sending.max(arriving);
        let bytes = self.delivered - sent.delivered;
        let rate = (interval >= min_rtt && !interval.is_zero())
            .then(|| bytes as f64 / interval.as_secs_f64());
        Some(Sample {
            rate,
            rtt,
            prior_delivered: sent.delivered,
            in_flight: sent.in_flight,
            app_limited: sent.app_limited,
        })
    }
}
