//! The result of a load: figures as Markdown, and faults.

use std::{sync::atomic::Ordering, time::Duration};

use super::{
    LoadArgs,
    ledger::Counts,
    network::{Network, Times},
    sample::{Sample, growth},
};

/// Allowed growth of tasks and memory of a node from the first to the last
/// third: 5 and 10 %. Churn changes the number of connections, and the memory
/// includes unused memory of the allocator.
const TASKS_MAY_GROW: f64 = 1.05;
const MEMORY_MAY_GROW: f64 = 1.10;

/// Growth per node that counts as noise, in KiB.
const NOISE_KIB: f64 = 256.0;

type Figure = fn(&Sample) -> f64;

/// The memory of a node: allocated bytes and resident bytes.
const MEMORY: [(&str, Figure); 2] = [
    ("allocated", Sample::allocated_kib_per_node),
    ("resident", Sample::resident_kib_per_node),
];

/// Smallest number of samples for the check of growth: 90 s with the default
/// interval.
const SAMPLES: usize = 18;

/// Number of rows in the table over time.
const ROWS: usize = 12;

/// The result of a load.
#[derive(Debug)]
pub(crate) struct Outcome {
    args: LoadArgs,
    pub(crate) counts: Counts,
    pub(crate) times: Times,
    pub(crate) samples: Vec<Sample>,
    pub(crate) last_shutdowns: Vec<Duration>,
    pub(crate) tasks_left: usize,
    largest_delay: Duration,
    pub(crate) streams: u64,
    pub(crate) fetches: u64,
    pub(crate) restarts: u64,
    refused: u64,
    echoed_bytes: u64,
    fetched_bytes: u64,
    cut: u64,
    pub(crate) blobs_checked: u64,
    faults: Vec<String>,
    fault_count: u64,
}

impl Outcome {
    pub(crate) fn new(
        net: &Network,
        samples: Vec<Sample>,
        last_shutdowns: Vec<Duration>,
        tasks_left: usize,
    ) -> Self {
        let tally = &net.tally;
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        Self {
            args: net.args.clone(),
            counts: net.ledger().counts().clone(),
            times: net.times().clone(),
            samples,
            last_shutdowns,
            tasks_left,
            largest_delay: net.largest_delay(),
            streams: count(&tally.streams),
            fetches: count(&tally.fetches),
            restarts: count(&tally.restarts),
            refused: count(&tally.refused),
            echoed_bytes: count(&tally.echoed_bytes),
            fetched_bytes: count(&tally.fetched_bytes),
            cut: count(&tally.cut),
            blobs_checked: count(&tally.blobs_checked),
            faults: net.faults(),
            fault_count: count(&tally.faults),
        }
    }

    /// Returns all faults.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = self.faults.clone();
        if self.fault_count > faults.len() as u64 {
            faults.push(format!("{} faults in all", self.fault_count));
        }
        let counts = &self.counts;
        for (what, count) in [
            ("deliveries are missing", counts.lost),
            ("deliveries were repeated", counts.repeated),
            ("messages are unknown", counts.unknown),
            ("tasks are left after the end", self.tasks_left as u64),
        ] {
            if count > 0 {
                faults.push(format!("{count} {what}"));
            }
        }
        if self.samples.len() >= SAMPLES {
            faults.extend(self.grown());
        }
        faults
    }

    fn grown(&self) -> Vec<String> {
        let mut grown = Vec::new();
        // The number of connections follows churn, so tasks of connections are
        // subtracted.
        if let Some((first, last)) =
            growth(&self.samples, |s| s.tasks_per_node() - s.peers_per_node())
            && last > first.max(1.0) * TASKS_MAY_GROW + 1.0
        {
            grown.push(format!("tasks of a node grew from {first:.1} to {last:.1}"));
        }
        // Allocated pages become resident when they are written and may stay
        // resident after they were freed. If the allocator reports allocated
        // bytes, they are compared instead.
        let reported = self.samples.iter().all(|s| s.allocated_bytes.is_some());
        let (what, figure) = MEMORY[usize::from(!reported)];
        if let Some((first, last)) = growth(&self.samples, figure)
            && last > first * MEMORY_MAY_GROW + NOISE_KIB
        {
            grown.push(format!(
                "{what} KiB of a node grew from {first:.0} to {last:.0}"
            ));
        }
        grown
    }

    /// Prints the result as Markdown.
    pub(crate) fn print(&self) {
        let Self {
            args,
            counts,
            times,
            ..
        } = self;
        println!("{args:?}\n");
        println!("| what | figure |\n| --- | ---: |");
        let row = |what: &str, figure: String| println!("| {what} | {figure} |");
        row("messages published", counts.published.to_string());
        row(
            "refused because the publisher was leaving",
            self.refused.to_string(),
        );
        row("deliveries expected", counts.expected.to_string());
        row("deliveries made", counts.delivered.to_string());
        row("deliveries lost", counts.lost.to_string());
        row("deliveries repeated", counts.repeated.to_string());
        row(
            "to members that need not receive them",
            counts.not_required.to_string(),
        );
        row(
            "messages whose publisher left within 10 s, missing deliveries",
            format!("{}, {}", counts.orphans, counts.orphans_missed),
        );
        row(
            "time to delivery, p50, p99, max",
            format!(
                "{}, {}, {}",
                millis(counts.within(0.5)),
                millis(counts.within(0.99)),
                millis(counts.slowest)
            ),
        );
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        row(
            "streams, MiB echoed",
            format!("{}, {:.0}", self.streams, mib(self.echoed_bytes)),
        );
        row(
            "blobs fetched, MiB",
            format!("{}, {:.0}", self.fetches, mib(self.fetched_bytes)),
        );
        row(
            "streams and fetches that failed because a node left",
            self.cut.to_string(),
        );
        row("restarts", self.restarts.to_string());
        row(
            "confirmed blobs checked after restarts",
            self.blobs_checked.to_string(),
        );
        row("first join: median, p99, max", spread(&times.joins));
        row("rejoin: median, p99, max", spread(&times.rejoins));
        row(
            "shutdown under load: median, p99, max",
            spread(&times.shutdowns),
        );
        row(
            "shutdown of all nodes at once: median, p99, max",
            spread(&self.last_shutdowns),
        );
        row(
            "largest scheduling delay of the harness",
            millis(self.largest_delay),
        );
        row("tasks left after the end", self.tasks_left.to_string());
        row("faults", self.fault_count.to_string());
        self.print_growth();
        self.print_samples();
    }

    fn print_growth(&self) {
        println!("\n| of a node | first third | last third |\n| --- | ---: | ---: |");
        let row = |what: &str, figure: &dyn Fn(&Sample) -> f64| {
            if let Some((first, last)) = growth(&self.samples, figure) {
                println!("| {what} | {first:.1} | {last:.1} |");
            }
        };
        row("tasks", &Sample::tasks_per_node);
        row("connected peers", &Sample::peers_per_node);
        for (what, figure) in MEMORY {
            row(&format!("{what} KiB"), &figure);
        }
    }

    fn print_samples(&self) {
        println!(
            "\n| s | nodes | resident MiB | allocated MiB | tasks | connected peers | threads | files | CPU |"
        );
        println!("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
        let step = self.samples.len().div_ceil(ROWS).max(1);
        let mut before: Option<&Sample> = None;
        for sample in self.samples.iter().step_by(step) {
            let cores = before.map_or(0.0, |before| {
                (sample.cpu_seconds - before.cpu_seconds) / (sample.at - before.at).as_secs_f64()
            });
            println!(
                "| {:.0} | {} | {:.0} | {} | {} | {} | {} | {} | {:.2} |",
                sample.at.as_secs_f64(),
                sample.nodes,
                sample.resident_kib as f64 / 1024.0,
                sample.allocated_mib(),
                sample.tasks,
                sample.peers,
                sample.threads,
                sample.files,
                cores,
            );
            before = Some(sample);
        }
    }
}

fn spread(times: &[Duration]) -> String {
    let mut times = times.to_vec();
    times.sort_unstable();
    let at = |share: f64| {
        let nth = (times.len() as f64 * share) as usize;
        times.get(nth.min(times.len().saturating_sub(1)))
    };
    match (at(0.5), at(0.99), times.last()) {
        (Some(median), Some(high), Some(most)) => {
            format!("{}, {}, {}", millis(*median), millis(*high), millis(*most))
        }
        _ => "none".to_owned(),
    }
}

fn millis(time: Duration) -> String {
    let millis = time.as_secs_f64() * 1e3;
    if millis < 10.0 {
        format!("{millis:.1} ms")
    } else {
        format!("{millis:.0} ms")
    }
}
