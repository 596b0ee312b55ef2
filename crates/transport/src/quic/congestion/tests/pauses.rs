//! Senders that have nothing to send at times.

use std::time::{Duration, Instant};

use super::{
    MBIT,
    link::{Link, PACKET_BYTES, Run},
    ours, share_of,
};

/// A sender that has found the bandwidth of the link and has nothing to send.
fn settled(link: Link) -> Run {
    let start = Instant::now();
    let mut run = Run::new(link, 7, start);
    run.add_idle(ours(1, start));
    run.offer(0, Some((link.rate * 3.0) as u64));
    run.run(Duration::from_secs(6));
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
