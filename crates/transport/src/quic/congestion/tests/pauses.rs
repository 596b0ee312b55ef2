//! Senders that have nothing to send at times.

use std::time::{Duration, Instant};

use super::{
    MBIT,
    link::{Link, PACKET_BYTES, Run},
    ours, share_of,
};

/// A sender that has found the bandwidth of the link, and nothing to send after that.
fn settled(link: Link) -> Run {
    after_bulk(link, 3.0)
}

/// A sender that has sent as much as the link carries in `seconds`, and nothing for 3 s after that.
fn after_bulk(link: Link, seconds: f64) -> Run {
    let start = Instant::now();
    let mut run = Run::new(link, 7, start);
    run.add_idle(ours(1, start));
    run.offer(0, Some((link.rate * seconds) as u64));
    // The path becomes longer, so the shortest round trip is not seen again.
    let before = Duration::from_secs(2);
    run.run(before);
    run.set_link(Link {
        rtt: link.rtt.mul_f64(1.05),
        ..link
    });
    run.run(Duration::from_secs_f64(seconds + 3.0) - before);
    run
}

/// The first acknowledgement of a burst measures the pause before it, and a burst can end in the
/// middle of a probe.
#[test]
fn pauses_between_bursts_do_not_lower_the_bandwidth() {
    for rtt in [20, 100, 300] {
        for products in [0.5, 1.05, 1.5, 2.0, 3.0] {
            for messages in [false, true] {
                let link = Link::new(MBIT, rtt, 1.0, 0.0);
                let mut run = settled(link);
                let burst = (products * link.rate * link.rtt.as_secs_f64()) as u64;
                let case = format!("{rtt} ms, bursts of {products}, messages {messages}");
                for _ in 0..20 {
                    run.offer(0, Some(burst));
                    for step in 0..300 {
                        run.run(Duration::from_millis(10));
                        let known = run.sender(0).bandwidth() / link.rate;
                        assert!(known >= 0.9, "{case}: {known}");
                        if messages && step % 5 == 0 {
                            run.offer(0, Some(PACKET_BYTES));
                        }
                    }
                }
                run.offer(0, None);
                let time = Duration::from_secs(5);
                let share = share_of(&link, run.run(time)[0], time);
                assert!(share >= 0.85, "{case}: {share}");
            }
        }
    }
}

/// Time that a burst of two bandwidth-delay products takes.
fn burst_time(run: &mut Run, link: &Link) -> Duration {
    let burst = (2.0 * link.rate * link.rtt.as_secs_f64()) as u64;
    run.offer(0, Some(burst));
    let step = Duration::from_millis(1);
    let mut time = Duration::ZERO;
    while run.unfinished(0) != Some(0) {
        run.run(step);
        time += step;
        assert!(time < Duration::from_secs(60), "the burst does not end");
    }
    time
}

/// The keep-alive packets of an idle connection are acknowledged late, and are no reason to keep
/// the window small while the round trip time is measured.
#[test]
fn an_idle_connection_sends_a_burst_as_fast_as_a_busy_one() {
    for rtt in [20, 100, 300] {
        for idle in 1..=6 {
            let link = Link::new(MBIT, rtt, 1.0, 0.0);
            let busy = burst_time(&mut settled(link), &link);
            let mut run = settled(link);
            for _ in 0..idle {
                run.run(Duration::from_secs(5));
                run.offer(0, Some(1));
            }
            run.run(Duration::from_secs(1));
            let time = burst_time(&mut run, &link);
            let case = format!("{rtt} ms, idle {idle}: {time:?} in place of {busy:?}");
            assert!(time <= busy.mul_f64(1.2), "{case}");
        }
    }
}

/// A transfer can end while the window is small to measure the round trip time.
#[test]
fn a_burst_is_as_fast_whenever_the_transfer_before_it_ended() {
    let link = Link::new(MBIT, 100, 1.0, 0.0);
    let busy = burst_time(&mut settled(link), &link);
    for end in 0..75 {
        let seconds = 4.0 + 0.04 * f64::from(end);
        let time = burst_time(&mut after_bulk(link, seconds), &link);
        let case = format!("{seconds} s: {time:?} in place of {busy:?}");
        assert!(time <= busy.mul_f64(1.1), "{case}");
    }
}
