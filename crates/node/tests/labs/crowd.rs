//! Attacks of peers that cost nothing to make, on a node that serves another peer.
//!
//! There are three hosts: the node, the other peer, which measures the speed of the node with the
//! perf protocol, and the attackers. The attackers are one process with the lowest priority, so that
//! they take little processor time from the node.

use std::{
    fs::{self, File},
    thread,
    time::{Duration, Instant},
};

use crate::{
    floods::{ATTACK, Attack, DONE, SECONDS, TARGET},
    host::{Host, peer_of},
    is_full, is_selected,
    support::{self, Process, calnet},
};

/// Address of the node. It is from the range for benchmarks, because many limits are larger for
/// private addresses.
const NODE: &str = "198.18.1.1";

/// Both servers are on, so that the node speaks every protocol.
const CONFIG: &str = "[server.rendezvous]\nenabled = true\n[server.relay]\nenabled = true\n";

/// Settings of the allocator of glibc with which it returns freed memory to the system, so that
/// resident memory is what the node uses. By default it keeps most of it for later use.
const ALLOCATOR: [(&str, &str); 2] = [
    ("MALLOC_ARENA_MAX", "2"),
    ("MALLOC_TRIM_THRESHOLD_", "131072"),
];

/// Limit of the resident memory of the node during an attack, in MiB. The most that was measured is
/// 74 MiB in a debug build, of which 50 MiB are code.
const MEMORY_MIB: u64 = 128;

/// Limit of the resident memory after an attack, relative to the memory before it.
const REMAINS: f64 = 1.2;

/// The same in the short lab. Its figures depend on the speed of the machine, and other tests run at
/// the same time.
const REMAINS_SHORT: f64 = 1.5;

/// Time after an attack in which memory is returned: connections end and tables expire.
const SETTLE: Duration = Duration::from_secs(60);

/// Limit of log lines per minute. An attack of less than a minute counts as a minute.
const LOG_LINES: f64 = 60.0;

/// Share of its undisturbed speed that the other peer keeps.
const SPEED: f64 = 0.5;

/// Measurements of the undisturbed speed in the full lab, of which the median counts.
const UNDISTURBED: usize = 9;

/// The attacks of the short lab, one of each kind.
const SHORT: &[Attack] = &[
    Attack::Connections,
    Attack::Identities,
    Attack::HalfSent,
    Attack::Valid,
    Attack::MalformedByMany,
];

/// The three hosts. The node has a link to each of the others.
struct World {
    node: Host,
    other: Host,
    attackers: Host,
}

impl World {
    fn new() -> Self {
        let [node, other, attackers] = ["node", "other", "attackers"].map(Host::new);
        for (host, near, subnet) in [(&other, "eth0", 1), (&attackers, "eth1", 2)] {
            node.namespace.join(near, &host.namespace, "eth0").unwrap();
            let near_ip = format!("addr add 198.18.{subnet}.1/24 dev {near}\n");
            node.namespace.ip(&near_ip).unwrap();
            let far_ip = format!("addr add 198.18.{subnet}.2/24 dev eth0\n");
            host.namespace.ip(&far_ip).unwrap();
            let route = format!("route add default via 198.18.{subnet}.1\n");
            host.namespace.ip(&route).unwrap();
        }
        fs::write(node.path("node.toml"), CONFIG).unwrap();
        Self {
            node,
            other,
            attackers,
        }
    }
}

/// The speed of the node for the other peer.
#[derive(Clone, Copy, Debug)]
struct Speed {
    round_trips_per_s: f64,
    mb_per_s: f64,
}

impl Speed {
    /// Returns the two shares of another speed: round trips and throughput.
    fn shares_of(self, other: Self) -> [f64; 2] {
        [
            self.round_trips_per_s / other.round_trips_per_s,
            self.mb_per_s / other.mb_per_s,
        ]
    }

    /// The median of each of the two.
    fn median(speeds: &[Self]) -> Self {
        let median = |value: fn(&Self) -> f64| {
            let mut values: Vec<_> = speeds.iter().map(value).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        Self {
            round_trips_per_s: median(|speed| speed.round_trips_per_s),
            mb_per_s: median(|speed| speed.mb_per_s),
        }
    }
}

/// The node that is attacked.
struct Victim {
    process: Process,
    address: String,
}

impl Victim {
    fn start(world: &World) -> Self {
        let config = world.node.path("node.toml");
        let external = format!("/ip4/{NODE}/tcp/2428");
        let mut command = world.node.node(
            &[],
            &[
                "--perf",
                "--config",
                config.to_str().unwrap(),
                "--listen",
                "/ip4/0.0.0.0/tcp/2428",
                "--external",
                &external,
            ],
        );
        command.envs(ALLOCATOR);
        let process = Process::start(command);
        let peer = peer_of(&process);
        process.event("listening");
        Self {
            process,
            address: format!("{external}/p2p/{peer}"),
        }
    }

    /// A number of KiB in the status of the process, in MiB.
    fn memory_mib(&self, field: &str) -> u64 {
        let path = format!("/proc/{}/status", self.process.id());
        let status = fs::read_to_string(path).unwrap();
        let line = status.lines().find(|line| line.starts_with(field));
        let kib = line.and_then(|line| line.split_whitespace().nth(1));
        kib.unwrap().parse::<u64>().unwrap() / 1024
    }

    fn resident_mib(&self) -> u64 {
        self.memory_mib("VmRSS:")
    }

    /// The resident memory that is not code.
    fn data_mib(&self) -> u64 {
        self.memory_mib("RssAnon:")
    }

    /// The largest resident memory since the start.
    fn peak_mib(&self) -> u64 {
        self.memory_mib("VmHWM:")
    }

    /// The speed for the other peer, which connects, makes 50 round trips, and transfers 2 MB in each
    /// direction. An error is why it was not served.
    fn speed(&self, world: &World) -> Result<Speed, String> {
        let mut command = world.other.namespace.command(calnet().get_program());
        command.args(["perf", "--json", "--round-trips", "50", "--streams", "1"]);
        command.args(["--upload-bytes", "2000000", "--download-bytes", "2000000"]);
        command.arg(&self.address);
        let ended = support::run(command);
        if !ended.success {
            return Err(ended.stderr);
        }
        let lines = ended.json_lines();
        let trips = lines.iter().find(|line| line["event"] == "round_trips");
        let rates = lines
            .iter()
            .filter_map(|line| line["megabytes_per_second"].as_f64());
        Ok(Speed {
            round_trips_per_s: trips.unwrap()["per_second"].as_f64().unwrap(),
            mb_per_s: rates.fold(f64::INFINITY, f64::min),
        })
    }
}

/// Starts the process of the attackers.
fn start_attack(world: &World, victim: &Victim, attack: Attack, seconds: u64) -> Process {
    let test = std::env::current_exe().unwrap();
    let mut command = world.attackers.namespace.command("nice");
    command.args(["-n", "19"]).arg(test);
    command.args(["attacker", "--exact", "--ignored", "--nocapture"]);
    command.env(TARGET, &victim.address);
    command.env(ATTACK, attack.name());
    command.env(SECONDS, seconds.to_string());
    command.stderr(File::create(world.attackers.path("log")).unwrap());
    Process::start_unread(command, File::create(world.attackers.path("out")).unwrap())
}

/// Attacks a node and prints a row of the table. Returns the requirements that did not hold.
fn suffer(attack: Attack, seconds: u64) -> Vec<String> {
    let world = World::new();
    let mut victim = Victim::start(&world);
    if is_full() && attack == Attack::Identities {
        // Fills the tables of peers, which have a fixed size, so that growth beyond them is seen.
        let mut first = start_attack(&world, &victim, attack, seconds);
        first.wait_within(Duration::from_secs(2 * seconds));
    }
    let undisturbed =
        (0..if is_full() { UNDISTURBED } else { 1 }).map(|_| victim.speed(&world).unwrap());
    let undisturbed = Speed::median(&undisturbed.collect::<Vec<_>>());
    let (idle_mib, idle_data_mib) = (victim.resident_mib(), victim.data_mib());
    let lines_before = world.node.log().lines().count();
    let begin = Instant::now();
    let mut attackers = start_attack(&world, &victim, attack, seconds);
    let (mut speeds, mut unserved) = (Vec::new(), Vec::new());
    let mut measured = 0;
    while measured == 0 || !attackers.ends_by(Instant::now()) {
        match victim.speed(&world) {
            Ok(speed) => speeds.push(speed),
            Err(error) => unserved.push(error),
        }
        measured += 1;
    }
    let minutes = (begin.elapsed().as_secs_f64() / 60.0).max(1.0);
    let peak_mib = victim.peak_mib();
    let done = fs::read_to_string(world.attackers.path("out")).unwrap();
    let done = done
        .lines()
        .find_map(|line| Some(line.split_once(DONE)?.1.trim().to_owned()));
    let done = done.expect("the attackers report what they did");
    let remains = if is_full() { REMAINS } else { REMAINS_SHORT };
    let limit_mib = (idle_mib as f64 * remains) as u64;
    let ended = Instant::now();
    while victim.resident_mib() > limit_mib && ended.elapsed() < SETTLE {
        thread::park_timeout(Duration::from_millis(500));
    }
    let after_s = ended.elapsed().as_secs();
    let (after_mib, after_data_mib) = (victim.resident_mib(), victim.data_mib());
    let lines = world.node.log().lines().count() - lines_before;
    let lines_per_minute = lines as f64 / minutes;
    assert!(victim.process.end_by("-TERM").success());
    let mut failed = Vec::new();
    let mut require = |holds: bool, what: String| {
        if !holds {
            failed.push(format!("{}: {what}", attack.name()));
        }
    };
    require(unserved.is_empty(), format!("not served: {unserved:?}"));
    require(peak_mib <= MEMORY_MIB, format!("{peak_mib} MiB"));
    require(
        lines_per_minute <= LOG_LINES,
        format!("{lines} lines of log:\n{}", world.node.log()),
    );
    require(
        after_mib <= limit_mib,
        format!("{after_mib} MiB after the attack, {idle_mib} MiB before it"),
    );
    if speeds.is_empty() {
        return failed;
    }
    let during = Speed::median(&speeds);
    let [trips, throughput] = during.shares_of(undisturbed).map(|share| share * 100.0);
    println!(
        "| {} | {done} | {:.0}, {trips:.0} % | {:.1}, {throughput:.0} % | {} of {measured} | \
         {idle_mib} ({idle_data_mib}) | {peak_mib} | {after_mib} ({after_data_mib}), {after_s} s | \
         {lines_per_minute:.0} |",
        attack.name(),
        undisturbed.round_trips_per_s,
        undisturbed.mb_per_s,
        speeds.len(),
    );
    // Other tests and other programs disturb a short measurement more than the attack does.
    if is_full() {
        require(
            trips.min(throughput) >= SPEED * 100.0,
            format!("{during:?} instead of {undisturbed:?}"),
        );
    }
    failed
}

/// Returns the time of an attack. That of the identities ends earlier if all have been connected.
fn seconds(attack: Attack) -> u64 {
    match attack {
        _ if !is_full() => 3,
        Attack::Identities => 240,
        _ => 60,
    }
}

pub(crate) fn run() {
    let attacks = if is_full() { Attack::ALL } else { SHORT };
    println!(
        "| attack | done | round trips/s, kept | MB/s, kept | served | MiB before (data) | \
         MiB at most | MiB after (data), time | log lines/min |\n\
         |---|---|---:|---:|---:|---:|---:|---:|---:|"
    );
    let failed: Vec<_> = attacks
        .iter()
        .filter(|attack| is_selected(attack.name()))
        .flat_map(|attack| suffer(*attack, seconds(*attack)))
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
}
