//! Two labs: odd hosts, and attacks by peers that cost nothing to make.
//!
//! The hosts are network namespaces, which need root, `ip`, `mount`, `unshare`, `setpriv` and python3.
//! Where these are missing, the tests print the reason and pass. Without `LAB=full` a part runs that
//! takes half a minute. Everything:
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

/// Cases that run at the same time.
const AT_ONE_TIME: usize = 6;

/// The name of an odd host and what is done on it. Returns what was observed.
type Case = (&'static str, fn() -> String);

/// Returns `true` if the whole labs are requested.
fn is_full() -> bool {
    std::env::var("LAB").is_ok_and(|what| what == "full")
}

/// Returns `true` if a row of the labs is requested: those whose name contains
/// the variable `LAB_ROW`, or all without it.
fn is_selected(name: &str) -> bool {
    std::env::var("LAB_ROW").map_or(true, |part| name.contains(&part))
}

/// Returns the message of a panic.
fn reason(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
    text.unwrap_or_else(|| "a panic without a message".to_owned())
}

/// Runs all cases, prints a table, and fails if one of them failed.
fn run_all(cases: &[&[Case]]) {
    let cases = cases.iter().copied().flatten().copied();
    let cases: Vec<_> = cases.filter(|(name, _)| is_selected(name)).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some((name, run)) = cases.get(at) else {
                return done;
            };
            let begin = Instant::now();
            let observed = catch_unwind(AssertUnwindSafe(run));
            let took = begin.elapsed().as_secs_f32();
            let observed = observed.map_err(|panic| format!("{name}: {}", reason(&*panic)));
            done.push((
                at,
                observed.map(|observed| format!("| {name} | {observed} | {took:.1} s |")),
            ));
        }
    };
    let mut done: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONE_TIME).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap())
            .collect()
    });
    done.sort_by_key(|(at, _)| *at);
    println!("| host | observed | time |\n|---|---|---:|");
    let mut failed = Vec::new();
    for (_, row) in done {
        match row {
            Ok(row) => println!("{row}"),
            Err(reason) => failed.push(reason),
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn a_node_works_on_odd_hosts_or_reports_why_not() {
    if let Err(reason) = is_possible() {
        eprintln!("skipped: {reason}");
        return;
    }
    run_all(&[networks::CASES, disks::CASES, resolver::CASES, clock::CASES]);
}

#[test]
fn a_process_obeys_signals_and_locks_whatever_happens_to_its_output() {
    run_all(&[processes::CASES]);
}

#[test]
fn other_peers_are_served_during_attacks() {
    if let Err(reason) = is_possible() {
        eprintln!("skipped: {reason}");
        return;
    }
    crowd::run();
}

/// The process of the attackers, started by the test above.
#[test]
#[ignore = "the other process of a test in this file"]
fn attacker() {
    floods::attack();
}

/// Waits until a condition holds for which there is no event.
fn until(limit: Duration, what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within {limit:?}");
        thread::park_timeout(Duration::from_millis(20));
    }
}
