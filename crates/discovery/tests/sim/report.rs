//! A large network, and what it costs.
//!
//! `SIM_NODES` sets its size (10,000), `SIM_BOOTS` its boot nodes (2), `SIM_SERVER=stock` the
//! server they run, `SIM_MINUTES` its time (10), `SIM_RAMP` the seconds within which nodes start
//! (1), `SIM_MEMORY` the peers each remembers (as configured by default).

use std::{str::FromStr, time::Duration};

use super::{
    MINUTE, settings,
    world::{Server, Settings, World},
};

/// Median and 99th percentile of the times from `since` until nodes had joined, in seconds, and
/// how many have not.
pub(crate) fn times_to_join(world: &World, since: Duration) -> (f64, f64, usize) {
    let joined = world.nodes.iter().filter_map(|node| node.joined);
    let mut times: Vec<_> = joined
        .map(|at| at.saturating_sub(since).as_secs_f64())
        .collect();
    times.sort_by(f64::total_cmp);
    let at = |share: usize| times.get((times.len() * share / 100).min(times.len() - 1));
    let missing = world.nodes.len() - times.len();
    (*at(50).unwrap(), *at(99).unwrap(), missing)
}

/// What has been counted so far.
#[derive(Clone, Copy, Default)]
struct Counted {
    requests: u64,
    told: u64,
    messages: u64,
    dials: u64,
}

impl Counted {
    fn of(world: &World) -> Self {
        Self {
            requests: world.boots.values().map(|boot| boot.requests).sum(),
            told: world.boots.values().map(|boot| boot.told).sum(),
            messages: world.nodes.iter().map(|node| node.messages).sum(),
            dials: world.nodes.iter().map(|node| node.dials).sum(),
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            requests: self.requests - before.requests,
            told: self.told - before.told,
            messages: self.messages - before.messages,
            dials: self.dials - before.dials,
        }
    }
}

fn variable<T: FromStr<Err: std::fmt::Debug>>(name: &str, default: T) -> T {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Memory of this process, in KiB.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.and_then(|text| text.parse().ok()).unwrap_or(0)
}

pub(crate) fn run() {
    let nodes = variable("SIM_NODES", 10_000);
    let boot_nodes = variable("SIM_BOOTS", 2);
    let minutes: u32 = variable("SIM_MINUTES", 10);
    let stock = std::env::var("SIM_SERVER").is_ok_and(|server| server == "stock");
    let empty = resident_kib();
    let mut world = World::new(Settings {
        boot_nodes,
        server: if stock { Server::Stock } else { Server::Own },
        start_within: Duration::from_secs(variable("SIM_RAMP", 1)),
        memory: std::env::var("SIM_MEMORY")
            .ok()
            .map(|_| variable("SIM_MEMORY", 0)),
        ..settings(nodes, 9)
    });
    let half = MINUTE * minutes / 2;
    world.run_until(half, false);
    let start = Counted::of(&world);
    world.run_until(2 * half, false);
    let settled = Counted::of(&world).since(start);

    let (median, late, missing) = times_to_join(&world, Duration::ZERO);
    let per_node = |count: u64| count as f64 / f64::from(nodes);
    let per_minute = |count: u64| per_node(count) / half.as_secs_f64() * 60.0;
    let boots = f64::from(boot_nodes);
    let (registrations, slots) = world.held(1);
    let (direct, relayed) = world.paths();
    let kib = resident_kib().saturating_sub(empty) as f64 / f64::from(nodes);
    let server = if stock { "stock" } else { "own" };
    println!("{nodes} nodes, {boot_nodes} boot nodes, {server} server, {minutes} min");
    println!("joined all overlays: median {median:.1} s, p99 {late:.1} s, missing {missing}");
    println!("first half, then second half, per node and minute:");
    for (name, counted) in [("first", start), ("second", settled)] {
        println!(
            "  {name}: {:.2} messages at the node, {:.2} requests at each boot node, {:.1} registrations told by each",
            per_minute(counted.messages),
            per_minute(counted.requests) / boots,
            per_minute(counted.told) / boots,
        );
    }
    println!(
        "dials per node: {:.1} in the first half, {:.1} in the second",
        per_node(start.dials),
        per_node(settled.dials)
    );
    let links: usize = world.nodes.iter().map(|node| node.links.len()).sum();
    println!(
        "connections per node: {:.1}, most {}; pairs direct {direct}, relayed {relayed}",
        links as f64 / f64::from(nodes),
        world.most_connections(),
    );
    println!("a boot node: {registrations} registrations, {slots} slots");
    println!("memory per node, the simulation's own in it: {kib:.1} KiB");
    println!("events: {}", world.events);
}
