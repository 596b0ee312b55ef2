//! Senders of a simulated link: the controller of this crate, and Cubic as its competitor.

use std::time::{Duration, Instant};

use quinn_proto::congestion::Controller;

use super::super::bbr::Bbr;
use super::link::PACKET_BYTES;

/// A congestion controller in a simulation.
pub(super) trait Sender {
    fn window(&self) -> u64;

    /// Bandwidth that the sender counts on, in bytes per second; 0 if it does not measure any.
    fn bandwidth(&self) -> f64 {
        0.0
    }

    fn on_sent(&mut self, now: Instant, bytes: u64);
    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64);
    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool);
    fn on_loss(&mut self, now: Instant, sent: Instant, bytes: u64);
    fn on_marks(&mut self, now: Instant, sent: Instant);
}

impl Sender for Bbr {
    fn window(&self) -> u64 {
        self.window()
    }

    fn bandwidth(&self) -> f64 {
        self.bandwidth()
    }

    fn on_sent(&mut self, now: Instant, bytes: u64) {
        self.on_sent(now, bytes);
    }

    fn on_ack(&mut self, _: Instant, sent: Instant, bytes: u64) {
        self.on_ack(sent, bytes);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool) {
        self.on_end_acks(now, in_flight, app_limited);
    }

    fn on_loss(&mut self, now: Instant, sent: Instant, bytes: u64) {
        self.on_congestion_event(now, sent, false, bytes);
    }

    /// As `quinn` reports that the peer counted more marks.
    fn on_marks(&mut self, now: Instant, sent: Instant) {
        self.on_congestion_event(now, sent, false, 0);
    }
}

/// Cubic (RFC 9438), as far as another flow of the same link notices.
pub(super) struct Cubic {
    window: f64,
    threshold: f64,
    largest: f64,
    epoch: Option<Instant>,
    reduced_at: Option<Instant>,
    srtt: Duration,
}

impl Cubic {
    pub(super) fn new() -> Self {
        Self {
            window: 10.0 * PACKET_BYTES as f64,
            threshold: f64::MAX,
            largest: 0.0,
            epoch: None,
            reduced_at: None,
            srtt: Duration::from_millis(100),
        }
    }
}

impl Sender for Cubic {
    fn window(&self) -> u64 {
        self.window as u64
    }

    fn on_sent(&mut self, _: Instant, _: u64) {}

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64) {
        self.srtt = (self.srtt * 7 + (now - sent)) / 8;
        if self.window < self.threshold {
            self.window += bytes as f64;
            return;
        }
        let packet = PACKET_BYTES as f64;
        let epoch = *self.epoch.get_or_insert(now);
        let largest = (self.largest / packet).max(self.window / packet);
        let origin = (largest * 0.3 / 0.4).cbrt();
        let time = (now - epoch + self.srtt).as_secs_f64() - origin;
        let target = (0.4 * time.powi(3) + largest) * packet;
        // No slower than Reno with the same reduction (RFC 9438, section 4.3).
        let reno = 0.53 * packet * bytes as f64 / self.window;
        let cubic = (target - self.window).max(0.0) * bytes as f64 / self.window;
        self.window += cubic.max(reno).min(bytes as f64 / 2.0);
    }

    fn on_end_acks(&mut self, _: Instant, _: u64, _: bool) {}

    fn on_loss(&mut self, now: Instant, sent: Instant, _: u64) {
        if self.reduced_at.is_some_and(|at| sent <= at) {
            return;
        }
        self.reduced_at = Some(now);
        self.largest = self.window;
        self.window = (self.window * 0.7).max(2.0 * PACKET_BYTES as f64);
        self.threshold = self.window;
        self.epoch = None;
    }
    fn on_marks(&mut self, now: Instant, sent: Instant) {
        self.on_loss(now, sent, 0);
    }
}
