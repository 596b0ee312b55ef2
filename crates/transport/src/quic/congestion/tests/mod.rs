//! The controller on simulated links, in virtual time.
//!
//! The bounds asserted here are those that hold on every link of the table; docs/measurements has
//! the figures of real sockets.

mod gaps;
mod link;
mod pauses;
mod receiver;
mod sender;

use std::time::{Duration, Instant};

use proptest::prelude::*;

use self::{
    link::{Link, Outcome, PACKET_BYTES, Run},
    sender::{Cubic, Sender},
};
use super::bbr::Bbr;

/// Rate of simulated links in Mbit/s: enough for some hundred packets in flight, and few enough
/// packets for a test.
const MBIT: f64 = 20.0;

fn ours(seed: u64, now: Instant) -> Box<dyn Sender> {
    Box::new(Bbr::new(PACKET_BYTES as u16, seed, now))
}

fn share_of(link: &Link, outcome: Outcome, time: Duration) -> f64 {
    outcome.delivered as f64 / time.as_secs_f64() / link.rate
}

fn dropped(outcome: Outcome) -> f64 {
    outcome.dropped_by_queue as f64 / outcome.sent.max(1) as f64
}

#[test]
fn a_link_is_filled_whatever_its_length_queue_and_loss() {
    let time = Duration::from_secs(15);
    for rtt in [20, 100, 300] {
        for queue in [0.25, 1.0, 4.0] {
            for loss in [0.0, 0.02] {
                let start = Instant::now();
                let link = Link::new(MBIT, rtt, queue, loss);
                let mut run = Run::new(link, 7, start);
                run.add(ours(1, start), Duration::ZERO);
                let outcome = run.run(time)[0];
                let case = format!("{rtt} ms, queue {queue}, loss {loss}: {outcome:?}");
                let least = if loss > 0.0 { 0.75 } else { 0.85 };
                assert!(share_of(&link, outcome, time) >= least, "{case}");
                let most = if queue < 1.0 { 0.08 } else { 0.03 };
                assert!(dropped(outcome) <= most, "{case}");
                assert!(run.median_wait() <= link.rtt, "{case}");
            }
        }
    }
}

/// Simulates a busy host: acknowledgements wait until the thread that reads them is scheduled, and
/// the thread sends nothing before that.
#[test]
fn a_sender_that_is_not_scheduled_at_times_fills_the_link() {
    let time = Duration::from_secs(10);
    for rtt in [20, 100] {
        for queue in [0.25, 1.0] {
            let start = Instant::now();
            let link = Link {
                stall: Duration::from_millis(10),
                ..Link::new(MBIT, rtt, queue, 0.01)
            };
            let mut run = Run::new(link, 7, start);
            run.add(ours(1, start), Duration::ZERO);
            let outcome = run.run(time)[0];
            let case = format!("{rtt} ms, queue {queue}: {outcome:?}");
            assert!(share_of(&link, outcome, time) >= 0.8, "{case}");
            assert!(dropped(outcome) <= 0.08, "{case}");
        }
    }
}

#[test]
fn two_flows_that_begin_together_share_a_link() {
    let time = Duration::from_secs(30);
    for rtt in [20, 100] {
        for queue in [0.25, 1.0, 4.0] {
            let start = Instant::now();
            let mut run = Run::new(Link::new(MBIT, rtt, queue, 0.0), 7, start);
            run.add(ours(1, start), Duration::ZERO);
            run.add(ours(2, start), Duration::ZERO);
            let [one, other] = run.run(time)[..] else {
                unreachable!()
            };
            let share = one.delivered as f64 / (one.delivered + other.delivered) as f64;
            let case = format!("{rtt} ms, queue {queue}: {share}");
            assert!((0.4..=0.6).contains(&share), "{case}");
        }
    }
}

#[test]
fn cubic_on_the_same_link_is_neither_starved_nor_starves() {
    let time = Duration::from_secs(30);
    for rtt in [20, 100] {
        for queue in [0.25, 1.0, 4.0] {
            let start = Instant::now();
            let mut run = Run::new(Link::new(MBIT, rtt, queue, 0.0), 7, start);
            run.add(ours(1, start), Duration::ZERO);
            run.add(Box::new(Cubic::new()), Duration::ZERO);
            let [one, other] = run.run(time)[..] else {
                unreachable!()
            };
            let share = one.delivered as f64 / (one.delivered + other.delivered) as f64;
            let case = format!("{rtt} ms, queue {queue}: {share}");
            assert!((0.2..=0.8).contains(&share), "{case}");
        }
    }
}

/// Without marks these flows keep more than one round trip in the queue: each takes what the others
/// queue for the length of the path.
#[test]
fn flows_keep_a_queue_short_that_marks_packets() {
    for rtt in [20, 100] {
        for flows in [2, 4] {
            let start = Instant::now();
            let deep = Link::new(MBIT, rtt, 4.0, 0.0);
            let link = Link {
                marks_above: deep.queue_bytes / 8,
                ..deep
            };
            let mut run = Run::new(link, 7, start);
            for seed in 0..flows {
                run.add(ours(seed, start), Duration::ZERO);
            }
            run.run(Duration::from_secs(10));
            let time = Duration::from_secs(20);
            let outcomes = run.run(time);
            let shares: Vec<_> = outcomes
                .iter()
                .map(|&outcome| share_of(&link, outcome, time))
                .collect();
            let wait = run.median_wait();
            let case = format!("{rtt} ms: {shares:?}, {wait:?}");
            assert!(wait <= link.rtt / 2, "{case}");
            assert!(shares.iter().sum::<f64>() >= 0.9, "{case}");
            let least = 0.5 / shares.len() as f64;
            assert!(shares.iter().all(|&share| share >= least), "{case}");
        }
    }
}

#[test]
fn a_flow_that_joins_a_busy_link_gets_a_share() {
    let start = Instant::now();
    let mut run = Run::new(Link::new(MBIT, 20, 1.0, 0.0), 7, start);
    run.add(ours(1, start), Duration::ZERO);
    run.run(Duration::from_secs(5));
    run.add(ours(2, start), Duration::ZERO);
    run.run(Duration::from_secs(15));
    let [one, other] = run.run(Duration::from_secs(10))[..] else {
        unreachable!()
    };
    let share = other.delivered as f64 / (one.delivered + other.delivered) as f64;
    assert!(share >= 0.3, "{share}");
}

#[test]
fn a_link_that_changes_its_rate_is_followed() {
    let start = Instant::now();
    let link = Link::new(MBIT, 40, 1.0, 0.0);
    let mut run = Run::new(link, 7, start);
    run.add(ours(1, start), Duration::ZERO);
    run.run(Duration::from_secs(5));
    for mbit in [MBIT / 4.0, MBIT, 2.0 * MBIT] {
        let changed = Link {
            rate: mbit * 1e6 / 8.0,
            ..link
        };
        run.set_link(changed);
        run.run(Duration::from_secs(10));
        let time = Duration::from_secs(10);
        let outcome = run.run(time)[0];
        let share = share_of(&changed, outcome, time);
        assert!(share >= 0.85, "{mbit} Mbit/s: {share}");
        assert!(dropped(outcome) <= 0.03, "{mbit} Mbit/s: {outcome:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever a peer acknowledges and the path loses: the window stays between its bounds and
    /// nothing overflows.
    #[test]
    fn the_window_stays_in_bounds(
        mtu in 1_200u16..65_527,
        steps in prop::collection::vec((0u64..5, 0u64..400_000, 0u64..70_000, any::<bool>()), 1..400),
    ) {
        let start = Instant::now();
        let mut now = start;
        let mut controller = Bbr::new(mtu, 3, now);
        let mut sent = Vec::new();
        let mut in_flight = 0u64;
        for (kind, wait_us, bytes, flag) in steps {
            now += Duration::from_micros(wait_us);
            match kind {
                0 | 1 => {
                    controller.on_sent(now, bytes);
                    sent.push((now, bytes));
                    in_flight += bytes;
                }
                2 => {
                    for (at, bytes) in sent.drain(..sent.len().min(1 + bytes as usize % 8)) {
                        controller.on_ack(at, bytes);
                        in_flight = in_flight.saturating_sub(bytes);
                    }
                    controller.on_end_acks(now, in_flight, flag);
                }
                3 => controller.on_marks(now),
                _ => {
                    let lost = in_flight.min(bytes);
                    in_flight -= lost;
                    controller.on_loss(now, lost, flag && bytes > 60_000);
                }
            }
            let window = controller.window();
            prop_assert!(window >= 4 * u64::from(mtu));
            prop_assert!(window <= 1 << 40, "{window}");
            prop_assert!(controller.rate().is_finite());
        }
    }
}
