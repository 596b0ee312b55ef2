//! Peers that cost nothing to make: what they take from a node and from its other peers.
//!
//! Three hosts: the node, a peer that measures it with the perf protocol, and attackers in a process
//! that has the lowest priority, so that the processor time of the node is its own.

use std::{
    fs::{self, File},
    process::Child,
    thread,
    time::{Duration, Instant},
};

use crate::{
    floods::{ATTACK, Attack, DONE, SECONDS, TARGET},
    host::Host,
    is_full,
    support::{self, Process, calnet},
};

const NODE: &str = "10.84.1.1";

/// Most that the node may have in memory during any attack, in MiB: a debug build has 60 without
/// load.
const MEMORY_MIB: u64 = 400;

/// Growth that may remain after an attack.
const REMAINS: f64 = 1.2;

/// Time after an attack in which memory is returned: connections end and tables expire.
const SETTLE: Duration = Duration::from_secs(60);

/// Lines of log a minute.
const LOG_LINES: f64 = 60.0;

/// Share of its undisturbed speed that a peer keeps.
const SPEED: f64 = 0.5;

struct World {
    node: Host,
    good: Host,
    bad: Host,
}

impl World {
    fn new() -> Self {
        let (node, good, bad) = (Host::new("node"), Host::new("good"), Host::new("bad"));
        for (other, near, far, subnet) in [(&good, "good", "eth0", 1), (&bad, "bad", "eth0", 2)] {
            node.namespace.join(near, &other.namespace, far).unwrap();
            let near_ip = format!("addr add 10.84.{subnet}.1/24 dev {near}\n");
            node.namespace.ip(&near_ip).unwrap();
            let far_ip = format!("addr add 10.84.{subnet}.2/24 dev {far}\n");
            other.namespace.ip(&far_ip).unwrap();
            let route = format!("route add default via 10.84.{subnet}.1\n");
            other.namespace.ip(&route).unwrap();
        }
        Self { node, good, bad }
    }
}

/// What the peer that is served sees.
#[derive(Clone, Copy, Debug)]
struct Speed {
    round_trips_per_s: f64,
    mb_per_s: f64,
}

impl Speed {
    fn share_of(self, other: Self) -> f64 {
        let trips = self.round_trips_per_s / other.round_trips_per_s;
        trips.min(self.mb_per_s / other.mb_per_s)
    }
}

struct Victim {
    process: Process,
    address: String,
    pid: u32,
}

impl Victim {
    fn start(world: &World) -> Self {
        let listen = ["--perf", "--listen", "/ip4/0.0.0.0/tcp/2428"];
        let process = world.node.start(&[], &listen);
        let peer = process.event("started")["peer"]
            .as_str()
            .unwrap()
            .to_owned();
        process.event("listening");
        let pid = process.id();
        Self {
            process,
            address: format!("/ip4/{NODE}/tcp/2428/p2p/{peer}"),
            pid,
        }
    }

    fn memory_mib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1));
        kib.unwrap().parse::<u64>().unwrap() / 1024
    }

    /// The speed of a peer that transfers 2 MB each way.
    fn speed(&self, world: &World) -> Speed {
        let mut command = world.good.namespace.command(calnet().get_program());
        command.args(["perf", "--json", "--round-trips", "50", "--streams", "1"]);
        command.args(["--upload-bytes", "2000000", "--download-bytes", "2000000"]);
        command.arg(&self.address);
        let ended = support::run(command);
        assert!(ended.success, "a peer is not served: {}", ended.stderr);
        let lines = ended.json_lines();
        let trips = lines.iter().find(|line| line["event"] == "round_trips");
        let rates = lines
            .iter()
            .filter_map(|line| line["megabytes_per_second"].as_f64());
        Speed {
            round_trips_per_s: trips.unwrap()["per_second"].as_f64().unwrap(),
            mb_per_s: rates.fold(f64::INFINITY, f64::min),
        }
    }

    /// The median of several measurements.
    fn median(speeds: &mut [Speed]) -> Speed {
        let middle = speeds.len() / 2;
        speeds.sort_by(|a, b| a.round_trips_per_s.total_cmp(&b.round_trips_per_s));
        let round_trips_per_s = speeds[middle].round_trips_per_s;
        speeds.sort_by(|a, b| a.mb_per_s.total_cmp(&b.mb_per_s));
        let mb_per_s = speeds[middle].mb_per_s;
        Speed {
            round_trips_per_s,
            mb_per_s,
        }
    }
}

/// The attackers, in a process of their own.
fn attack(world: &World, victim: &Victim, attack: Attack, seconds: u64) -> Child {
    let test = std::env::current_exe().unwrap();
    let mut command = world.bad.namespace.command("nice");
    command.args(["-n", "19"]).arg(test);
    command.args([
        "attacker",
        "--exact",
        "--ignored",
        "--nocapture",
        "--test-threads",
        "1",
    ]);
    command.env(TARGET, &victim.address);
    command
        .env(ATTACK, attack.name())
        .env(SECONDS, seconds.to_string());
    command.stdout(File::create(world.bad.path("out")).unwrap());
    command.spawn().unwrap()
}

/// One attack on a node that has just started.
fn suffer(which: Attack, seconds: u64) -> Vec<String> {
    let world = World::new();
    let mut victim = Victim::start(&world);
    let mut before: Vec<_> = (0..3).map(|_| victim.speed(&world)).collect();
    let before = Victim::median(&mut before);
    let idle_mib = victim.memory_mib();
    let lines_before = world.node.log().lines().count();
    let begin = Instant::now();
    let mut attacker = attack(&world, &victim, which, seconds);
    let (mut during, mut most_mib) = (Vec::new(), idle_mib);
    while during.is_empty() || attacker.try_wait().unwrap().is_none() {
        during.push(victim.speed(&world));
        most_mib = most_mib.max(victim.memory_mib());
    }
    let minutes = begin.elapsed().as_secs_f64() / 60.0;
    let during = Victim::median(&mut during);
    let done = fs::read_to_string(world.bad.path("out")).unwrap();
    let done = done.lines().find_map(|line| line.split_once(DONE));
    let (_, done) = done.expect("the attackers report what they did");
    let limit_mib = (idle_mib as f64 * REMAINS) as u64;
    let settle = if is_full() { SETTLE } else { Duration::ZERO };
    let deadline = Instant::now() + settle;
    while victim.memory_mib() > limit_mib && Instant::now() < deadline {
        thread::park_timeout(Duration::from_millis(500));
    }
    let after_mib = victim.memory_mib();
    let lines = world.node.log().lines().count() - lines_before;
    let lines_per_minute = lines as f64 / minutes.max(1.0);
    let share = during.share_of(before);
    println!(
        "| {} | {} | {:.0} % | {idle_mib}, {most_mib}, {after_mib} MiB | {lines_per_minute:.0} |",
        which.name(),
        done.trim(),
        share * 100.0,
    );
    assert!(victim.process.end_by("-TERM").success());
    let mut failed = Vec::new();
    let mut require = |holds: bool, what: String| {
        if !holds {
            failed.push(format!("{}: {what}", which.name()));
        }
    };
    require(most_mib <= MEMORY_MIB, format!("{most_mib} MiB"));
    require(
        lines_per_minute <= LOG_LINES,
        format!("{lines} lines of log:\n{}", world.node.log()),
    );
    // A short attack says nothing about times: other tests run at the same time.
    if is_full() {
        require(
            after_mib <= limit_mib,
            format!("{after_mib} MiB remain of {idle_mib}"),
        );
        require(share >= SPEED, format!("{during:?} instead of {before:?}"));
    }
    failed
}

pub(crate) fn run() {
    let seconds = if is_full() { 60 } else { 3 };
    let attacks = if is_full() {
        Attack::ALL
    } else {
        &[Attack::Connections, Attack::Malformed]
    };
    let failed: Vec<_> = attacks
        .iter()
        .flat_map(|which| suffer(*which, seconds))
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
}
