//! Two labs: hosts that are odd, and peers that cost nothing to make.
//!
//! Every part runs in a network namespace and needs Linux, root, `ip`, `mount` and python3;
//! elsewhere it is passed over with a message. Without `LAB=full` a part runs that is over in
//! seconds:
//!
//! ```sh
//! LAB=full cargo test --workspace --test labs -- --nocapture --test-threads 1
//! ```

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "an unexpected result ends a test"
)]

mod clock;
mod crowd;
mod disks;
mod floods;
mod host;
mod networks;
mod processes;
mod resolver;
#[path = "../support/mod.rs"]
mod support;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use host::is_possible;

/// Odd hosts that are tried at the same time.
const AT_ONE_TIME: usize = 6;

/// An odd host, and what happens on it. Returns what was seen.
struct Case {
    name: &'static str,
    run: fn() -> String,
}

/// Returns `true` where everything is asked for.
fn is_full() -> bool {
    std::env::var("LAB").is_ok_and(|what| what == "full")
}

/// Returns the panic of a case as text.
fn reason(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
    text.unwrap_or_else(|| "a panic without a text".to_owned())
}

fn run_all(cases: &[Case]) {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut failed = Vec::new();
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let begin = Instant::now();
            let seen = catch_unwind(AssertUnwindSafe(case.run));
            let took = begin.elapsed();
            match seen {
                Ok(seen) => println!("| {} | {seen} | {:.1} s |", case.name, took.as_secs_f32()),
                Err(panic) => failed.push(format!("{}: {}", case.name, reason(&*panic))),
            }
        }
        failed
    };
    let failed: Vec<String> = thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONE_TIME).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap())
            .collect()
    });
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn a_node_works_on_odd_hosts_or_says_why_not() {
    if let Err(reason) = is_possible() {
        eprintln!("skipped: {reason}");
        return;
    }
    let parts = [
        networks::CASES,
        disks::CASES,
        resolver::CASES,
        clock::CASES,
        processes::CASES,
    ];
    let cases: Vec<_> = parts
        .into_iter()
        .flatten()
        .map(|&(name, run)| Case { name, run })
        .collect();
    run_all(&cases);
}

#[test]
fn others_are_served_while_peers_that_cost_nothing_attack() {
    if let Err(reason) = is_possible() {
        eprintln!("skipped: {reason}");
        return;
    }
    crowd::run();
}

/// Not a test: the process that attacks, started by the test above.
#[test]
#[ignore = "the other process of a test in this file"]
fn attacker() {
    floods::attack();
}

/// Waits until something holds.
fn until(limit: Duration, what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within {limit:?}");
        thread::park_timeout(Duration::from_millis(20));
    }
}
