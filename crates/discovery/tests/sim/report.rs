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
    let at =
        |share: usize| times.get((times.len() * share / 100).min(times.len().saturating_sub(1)));
    let missing = world.nodes.len() - times.len();
    let at = |share| at(share).copied().unwrap_or(f64::NAN);
    (at(50), at(99), missing)
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

    /// Messages, requests, returned registrations and dials per minute, if these are the counts of
    /// `time`.
    fn each_minute(self, time: Duration) -> [f64; 4] {
        let all = [self.messages, self.requests, self.told, self.dials];
        all.map(|count| count as f64 / time.as_secs_f64() * 60.0)
    }
}

fn variable<T: FromStr<Err: std::fmt::Debug>>(name: &str, default: T) -> T {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Memory of this process, in KiB: `VmRSS:` now, `VmHWM:` at most.
fn memory_kib(which: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(which));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.and_then(|text| text.parse().ok()).unwrap_or(0)
}

pub(crate) fn run() {
    let nodes = variable("SIM_NODES", 10_000);
    let boot_nodes = variable("SIM_BOOTS", 2);
    let minutes: u32 = variable("SIM_MINUTES", 10);
    let stock = std::env::var("SIM_SERVER").is_ok_and(|server| server == "stock");
    let empty = memory_kib("VmRSS:");
    let mut world = World::new(Settings {
        boot_nodes,
        server: if stock { Server::Stock } else { Server::Own },
        start_within: Duration::from_secs(variable("SIM_RAMP", 1)),
        memory: std::env::var("SIM_MEMORY")
            .ok()
            .map(|_| variable("SIM_MEMORY", 0)),
        ..settings(nodes, 9)
    });
    let mut before = Counted::default();
    println!("{}", COLUMNS.map(|name| format!("{name:>9}")).concat());
    let early = [10, 30].map(Duration::from_secs).into_iter();
    for end in early.chain((1..=minutes).map(|minute| MINUTE * minute)) {
        let passed = end - world.now();
        world.run_until(end, false);
        let now = Counted::of(&world);
        let counted = now.since(before).each_minute(passed);
        println!("{}", line(&world, counted, boot_nodes, empty));
        before = now;
    }
    let dials = before.dials as f64 / f64::from(nodes);
    let (registrations, slots) = world.held(1);
    let (direct, relayed) = world.paths();
    let most_mib = memory_kib("VmHWM:") / 1024;
    let server = if stock { "stock" } else { "own" };
    println!("{nodes} nodes, {boot_nodes} boot nodes, {server} server, {minutes} min");
    println!("dials per node: {dials:.1}");
    println!("pairs direct {direct}, relayed {relayed}");
    println!("a boot node: {registrations} registrations, {slots} slots");
    println!(
        "events: {}, memory of the process at most: {most_mib} MiB",
        world.events
    );
}

/// After this number of seconds: nodes that have not joined all their overlays, and the time it
/// took the others; per minute since the last line and per node, messages, requests and returned
/// registrations at each boot node, dials; its connections, those of the node with most, and its
/// memory including that of the simulation.
const COLUMNS: [&str; 11] = [
    "second", "missing", "median s", "p99 s", "messages", "requests", "told", "dials", "links",
    "most", "KiB",
];

fn line(world: &World, counted: [f64; 4], boot_nodes: u32, empty: u64) -> String {
    let nodes = world.nodes.len() as f64;
    let boots = f64::from(boot_nodes);
    let [messages, requests, told, dials] = counted;
    let (median, late, missing) = times_to_join(world, Duration::ZERO);
    let links: usize = world.nodes.iter().map(|node| node.links.len()).sum();
    let kib = memory_kib("VmRSS:").saturating_sub(empty);
    [
        world.now().as_secs_f64(),
        missing as f64,
        median,
        late,
        messages / nodes,
        requests / nodes / boots,
        told / nodes / boots,
        dials / nodes,
        links as f64 / nodes,
        world.most_connections() as f64,
        kib as f64 / nodes,
    ]
    .map(|figure| format!("{:>9}", (figure * 100.0).round() / 100.0))
    .concat()
}
