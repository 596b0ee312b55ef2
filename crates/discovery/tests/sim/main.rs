//! Whole networks of machines in virtual time.
//!
//! `SIM_NODES=10000 cargo test --release -p calimero-network-discovery --no-default-features \
//! --test sim -- --ignored --nocapture` runs a large one and prints a report.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says so"
)]

mod report;
mod world;

use std::time::Duration;

use self::{
    report::times_to_join,
    world::{Nat, Server, Settings, World},
};

const MINUTE: Duration = Duration::from_secs(60);

fn settings(nodes: u32, seed: u64) -> Settings {
    Settings {
        nodes,
        boot_nodes: 2,
        server: Server::Own,
        // Some forty members an overlay.
        overlays: (nodes / 20).max(2),
        overlays_per_node: 2,
        behind_nat: 50,
        loss: 5,
        churn: 0,
        failing_punches: 0,
        start_within: Duration::from_secs(1),
        memory: None,
        seed,
    }
}

#[test]
fn a_thousand_nodes_that_know_only_boot_nodes_join_all_their_overlays() {
    let mut world = World::new(settings(1000, 1));
    world.run_until(MINUTE / 2, false);
    let (median, late, missing) = times_to_join(&world, Duration::ZERO);
    assert_eq!(missing, 0);
    assert!(median < 10.0 && late < 60.0, "median {median}, p99 {late}");
    let dials: u64 = world.nodes.iter().map(|node| node.dials).sum();
    assert!(dials / 1000 < 100, "{dials}");
    // Each wants twelve members of three overlays.
    let most = world.most_connections();
    assert!(most < 200, "{most}");
    // What can be punched is.
    let (direct, relayed) = world.paths();
    assert!(direct > 10 * relayed, "{direct} direct, {relayed} relayed");
    assert!(relayed > 0);
}

/// Restricted nodes alone: none is reached without its relay, and each pair can be punched.
#[test]
fn two_nodes_behind_nats_are_direct_after_two_failed_punches_and_relayed_until_then() {
    let mut world = World::new(Settings {
        nodes: 2,
        overlays: 1,
        overlays_per_node: 1,
        behind_nat: 100,
        loss: 0,
        failing_punches: 2,
        ..settings(2, 1)
    });
    world.put_behind(Nat::PortRestricted);
    let punched = |world: &World| {
        world
            .nodes
            .iter()
            .map(|n| n.failed_punches)
            .collect::<Vec<_>>()
    };
    // The round of the first connection fails at once, the second one 5 s later at least.
    let mut seen = Vec::new();
    for second in 1..120 {
        world.run_until(Duration::from_secs(second), false);
        if seen.last() != Some(&(world.paths(), punched(&world))) {
            seen.push((world.paths(), punched(&world)));
        }
    }
    let paths: Vec<_> = seen.iter().map(|(paths, _)| *paths).collect();
    let relayed = paths.iter().position(|paths| *paths == (0, 1)).unwrap();
    let direct = paths.iter().position(|paths| *paths == (1, 0)).unwrap();
    assert!(relayed < direct, "{seen:?}");
    assert!(
        paths[direct..].iter().all(|paths| *paths == (1, 0)),
        "{seen:?}"
    );
    assert!(
        paths[relayed..direct].iter().all(|paths| *paths == (0, 1)),
        "{seen:?}"
    );
    let (_, failures) = seen.last().unwrap();
    assert!(failures.iter().all(|failures| *failures >= 2), "{seen:?}");
    // The connections of rounds and the relayed one are closed, once each.
    assert_eq!(world.links(), [(1, 0), (1, 0)]);
}

#[test]
fn servers_that_tell_everybody_the_same_page_do_not_gather_everybody_on_it() {
    let stock = Server::Stock;
    let mut world = World::new(Settings {
        server: stock,
        ..settings(500, 1)
    });
    world.run_until(MINUTE / 2, false);
    let (median, late, missing) = times_to_join(&world, Duration::ZERO);
    assert_eq!(missing, 0);
    assert!(median < 10.0 && late < 60.0, "median {median}, p99 {late}");
    let most = world.most_connections();
    assert!(most < 250, "{most}");
}

#[test]
fn losing_a_boot_node_loses_nothing_and_its_return_is_noticed() {
    let mut world = World::new(settings(100, 2));
    world.run_until(2 * MINUTE, false);
    let before = world.held(1);
    world.crash(1);
    world.run_until(3 * MINUTE, false);
    assert_eq!(world.held(1), (0, 0));
    assert_eq!(world.alone(), 0);
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

/// Each node is all that the other one knows.
#[test]
fn a_partition_heals_without_boot_nodes() {
    let mut world = World::new(Settings {
        overlays: 1,
        overlays_per_node: 1,
        behind_nat: 0,
        loss: 0,
        ..settings(2, 3)
    });
    world.run_until(2 * MINUTE, true);
    for boot in 1..=2 {
        world.crash(boot);
    }
    world.partition(50);
    world.run_until(world.now() + 10 * MINUTE, false);
    assert_eq!(world.alone(), 2, "both are on one side");
    let healed = world.now();
    world.partition(0);
    // The longest rest of an address, and the time until it is dialled.
    world.run_until(healed + 16 * MINUTE, true);
    assert_eq!(world.alone(), 0);
}

#[test]
fn nodes_that_die_and_return_all_the_time_leave_nobody_alone() {
    let mut world = World::new(Settings {
        churn: 10,
        ..settings(200, 6)
    });
    world.run_until(15 * MINUTE, false);
    assert!(world.up() > 150 && world.up() < 200, "{}", world.up());
    // Who has returned this very moment may be.
    let alone = world.alone();
    assert!(alone * 20 <= world.up(), "{alone} of {}", world.up());
}

#[test]
fn nodes_that_slept_for_hours_are_back_at_once_and_clocks_that_go_back_stop_nobody() {
    let mut world = World::new(settings(200, 7));
    world.run_until(2 * MINUTE, false);
    world.sleep(50, Duration::from_secs(9 * 3600));
    world.forget_joined();
    let woken = world.now();
    world.run_until(woken + MINUTE, true);
    let (median, late, missing) = times_to_join(&world, woken);
    assert_eq!(missing, 0);
    assert!(median < 5.0 && late < 40.0, "median {median}, p99 {late}");
    world.turn_clocks_back(50);
    world.run_until(woken + 5 * MINUTE, false);
    assert_eq!(world.alone(), 0);
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let history = |seed| {
        let mut world = World::new(Settings {
            churn: 5,
            ..settings(60, seed)
        });
        world.run_until(3 * MINUTE, false);
        (world.events, world.joins())
    };
    assert_eq!(history(4), history(4));
    assert_ne!(history(4), history(5));
}

#[test]
#[ignore = "takes minutes; prints a report"]
fn report() {
    report::run();
}
