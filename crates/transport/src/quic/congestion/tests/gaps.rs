//! How many gaps a sender leaves in a stream. Receivers end connections with too many.

use super::*;

/// Runs of data with gaps between them that receivers hold of one stream: `quic-go` 1,000, `quinn`
/// 1,024.
const MOST_RUNS: usize = 1_000;

/// Returns the most runs that the receiver held, and the share of the link after `startup`.
fn run(link: Link, startup: Duration, time: Duration) -> (usize, f64) {
    let start = Instant::now();
    let mut run = Run::new(link, 7, start);
    run.add(ours(1, start), Duration::ZERO);
    run.run(startup);
    let outcome = run.run(time)[0];
    (run.most_runs(0), share_of(&link, outcome, time))
}

#[test]
fn long_fast_paths_leave_fewer_gaps_than_receivers_accept() {
    let (startup, time) = (Duration::from_secs(3), Duration::from_secs(7));
    for queue in [0.1, 0.25, 1.0, 4.0] {
        for loss in [0.0, 0.02] {
            let (runs, share) = run(Link::new(100.0, 300, queue, loss), startup, time);
            let case = format!("queue {queue}, loss {loss}: {runs} runs, share {share:.2}");
            eprintln!("{case}");
            assert!(runs < MOST_RUNS, "{case}");
            assert!(share > 0.8, "{case}");
        }
    }
}

/// 500 Mbit/s over 200 ms: 8,600 packets in flight.
#[test]
fn the_longest_and_fastest_path_leaves_few_gaps_and_is_filled() {
    let (startup, time) = (Duration::from_secs(5), Duration::from_secs(4));
    for (queue, loss) in [(0.1, 0.0), (1.0, 0.02)] {
        let (runs, share) = run(Link::new(500.0, 200, queue, loss), startup, time);
        let case = format!("queue {queue}, loss {loss}: {runs} runs, share {share:.2}");
        eprintln!("{case}");
        assert!(runs < MOST_RUNS, "{case}");
        assert!(share > 0.8, "{case}");
    }
}
