//! Whole networks of machines in virtual time.
//!
//! `cargo test --release -p calimero-network-discovery --no-default-features --test sim -- \
//! --ignored --nocapture` runs the large one and prints a report; `SIM_NODES` sets its size.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says so"
)]

mod world;

use std::time::Duration;

use self::world::{Settings, World};

const MINUTE: Duration = Duration::from_secs(60);

fn settings(nodes: u32, seed: u64) -> Settings {
    Settings {
        nodes,
        boot_nodes: 2,
        // Some forty members an overlay.
        overlays: (nodes / 20).max(2),
        overlays_per_node: 2,
        behind_nat: 50,
        loss: 5,
        seed,
    }
}

/// Median and 99th percentile of the times from `since` until nodes had joined, in seconds, and
/// how many have not.
fn times_to_join(world: &World, since: Duration) -> (f64, f64, usize) {
    let joined = world.nodes.values().filter_map(|node| node.joined);
    let mut times: Vec<_> = joined.map(|at| (at - since).as_secs_f64()).collect();
    times.sort_by(f64::total_cmp);
    let at = |share: usize| times.get((times.len() * share / 100).min(times.len() - 1));
    let missing = world.nodes.len() - times.len();
    (*at(50).unwrap(), *at(99).unwrap(), missing)
}

#[test]
fn a_thousand_nodes_that_know_only_boot_nodes_join_all_their_overlays() {
    let mut world = World::new(settings(1000, 1));
    world.run_until(2 * MINUTE, true);
    let (median, late, missing) = times_to_join(&world, Duration::ZERO);
    assert_eq!(missing, 0);
    assert!(median < 10.0 && late < 60.0, "median {median}, p99 {late}");
    // Each wants twelve members an overlay. Those told first are dialled by many: the first page
    // of a server is the same for everybody.
    let most = world.most_connections();
    assert!(most < 500, "{most}");
    let dials: u64 = world.nodes.values().map(|node| node.dials).sum();
    assert!(dials / 1000 < 100, "{dials}");
}

#[test]
fn losing_a_boot_node_loses_nothing_and_its_return_is_noticed() {
    let mut world = World::new(settings(100, 2));
    world.run_until(2 * MINUTE, false);
    let before = world.held(1);
    world.crash(1);
    world.run_until(3 * MINUTE, false);
    assert_eq!(world.held(1), (0, 0));
    // A node that begins now finds the others through the one that is left.
    world.forget_joined();
    world.run_until(4 * MINUTE, false);
    let (.., missing) = times_to_join(&world, 3 * MINUTE);
    assert_eq!(missing, 0);
    world.restart(1);
    world.run_until(6 * MINUTE, false);
    let (registrations, slots) = world.held(1);
    assert!(
        registrations * 10 >= before.0 * 9,
        "{registrations} of {}",
        before.0
    );
    assert!(slots * 10 >= before.1 * 9, "{slots} of {}", before.1);
}

#[test]
fn a_partition_without_a_word_heals() {
    let mut world = World::new(settings(200, 3));
    world.run_until(2 * MINUTE, true);
    let cut = world.now();
    world.partition(40);
    world.run_until(cut + 10 * MINUTE, false);
    world.forget_joined();
    let healed = world.now();
    world.partition(0);
    world.run_until(healed + 2 * MINUTE, true);
    let (median, late, missing) = times_to_join(&world, healed);
    assert_eq!(missing, 0);
    // A boot node is dialled again every 15 s, a quarter more or less.
    assert!(
        median <= 20.0 && late <= 40.0,
        "median {median}, p99 {late}"
    );
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let history = |seed| {
        let mut world = World::new(settings(60, seed));
        world.run_until(MINUTE, false);
        let joined: Vec<_> = world.nodes.values().map(|node| node.joined).collect();
        (world.events, joined)
    };
    assert_eq!(history(4), history(4));
    assert_ne!(history(4), history(5));
}

#[test]
#[ignore = "takes minutes; prints a report"]
fn report() {
    let nodes = std::env::var("SIM_NODES").map_or(10_000, |text| text.parse().unwrap());
    let mut world = World::new(settings(nodes, 9));
    world.run_until(10 * MINUTE, false);
    let (median, late, missing) = times_to_join(&world, Duration::ZERO);
    let dials: u64 = world.nodes.values().map(|node| node.dials).sum();
    let requests: u64 = world.boots.values().map(|boot| boot.requests).sum();
    let per_node = |count: u64| count as f64 / f64::from(nodes);
    println!("nodes {nodes}, two boot nodes, half behind NATs, 5 % loss, 10 min of virtual time");
    println!("joined all overlays: median {median:.1} s, p99 {late:.1} s, missing {missing}");
    println!("dials per node: {:.1}", per_node(dials));
    println!(
        "requests to boot nodes per node and minute: {:.2}",
        per_node(requests) / 10.0
    );
    println!("most connections of a node: {}", world.most_connections());
    println!("events: {}", world.events);
}
