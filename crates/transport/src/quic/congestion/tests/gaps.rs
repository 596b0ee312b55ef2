//! How many gaps a sender leaves in a stream. Receivers end connections with too many.

use super::*;

/// Runs of data with gaps between them that `quic-go` holds of one stream.
const MOST_RUNS: usize = 1_000;

/// Chunks that `quinn` holds of one stream after it has joined what it can.
const MOST_CHUNKS: usize = 1_024;

/// Runs a link for `startup` and for `time`, of which it must be filled, then a changed one.
fn run(seed: u64, link: Link, startup: Duration, time: Duration, changed: Option<Link>) {
    let start = Instant::now();
    let mut run = Run::new(link, seed, start);
    run.add(ours(seed, start), Duration::ZERO);
    run.run(startup);
    let outcome = run.run(time)[0];
    if let Some(changed) = changed {
        run.set_link(changed);
        run.run(time);
    }
    let (stream, share) = (run.stream(0), share_of(&link, outcome, time));
    let (runs, chunks) = (stream.most_runs(), stream.most_chunks());
    let case = format!("seed {seed}, {link:?}: {runs} runs, {chunks} chunks, share {share:.2}");
    eprintln!("{case}");
    assert!(runs < MOST_RUNS && chunks <= MOST_CHUNKS, "{case}");
    assert!(share > 0.8, "{case}");
}

#[test]
fn long_fast_paths_leave_fewer_gaps_than_receivers_accept() {
    let (startup, time) = (Duration::from_secs(3), Duration::from_secs(5));
    for queue in [0.1, 0.25, 1.0] {
        for (seed, loss) in [(7, 0.0), (8, 0.02)] {
            let link = Link::new(100.0, 300, queue, loss);
            run(seed, link, startup, time, None);
        }
    }
}

/// 500 Mbit/s over 200 ms: 8,600 packets in flight.
#[test]
fn the_longest_and_fastest_path_leaves_few_gaps_and_is_filled() {
    let (startup, time) = (Duration::from_secs(5), Duration::from_secs(3));
    for (queue, loss) in [(0.1, 0.0), (1.0, 0.05)] {
        run(7, Link::new(500.0, 200, queue, loss), startup, time, None);
    }
}

#[test]
fn a_path_that_becomes_slower_leaves_few_gaps() {
    let (startup, time) = (Duration::from_secs(4), Duration::from_secs(2));
    let link = Link::new(300.0, 200, 1.0, 0.0);
    let half = Link {
        rate: link.rate / 2.0,
        ..link
    };
    run(7, link, startup, time, Some(half));
}
