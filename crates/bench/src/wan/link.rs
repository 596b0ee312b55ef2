//! A link between two network namespaces with a rate, a delay, a queue, losses and jitter, each
//! direction independent of the other. Packets pass through two TUN devices and this process.
//!
//! It needs root. No packet leaves the namespaces.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    io::BufRead as _,
    process::Command,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde::{Deserialize, Serialize};
use tappers::{Interface, linux::Tun};

use crate::Failure;

/// Largest IP packet of the link, in bytes: that of Ethernet.
const MTU_BYTES: u16 = 1_500;

/// Rate, delay, queue and losses of a link, the same in both directions.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Shape {
    /// Rate in Mbit/s.
    #[arg(long, default_value_t = 100.0)]
    pub(crate) rate_mbit: f64,
    /// Round trip time without a queue, in milliseconds.
    #[arg(long, default_value_t = 20)]
    pub(crate) rtt_ms: u64,
    /// Bytes that may wait for each direction.
    #[arg(long, default_value_t = 262_144)]
    pub(crate) queue_bytes: u64,
    /// Share of the packets that is lost, from 0 to 1, in each direction.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) loss: f64,
    /// Additional delay of a packet at most, in milliseconds. Packets keep their order.
    #[arg(long, default_value_t = 0)]
    pub(crate) jitter_ms: u64,
    /// Share of the packets that overtake those before them, from 0 to 1.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) reorder: f64,
}

/// Arguments of `netbench link`.
#[derive(Debug, Args)]
pub(crate) struct LinkArgs {
    /// Network namespace that gets 10.99.0.1.
    #[arg(long)]
    left: String,
    /// Network namespace that gets 10.99.0.2.
    #[arg(long)]
    right: String,
    #[command(flatten)]
    shape: Shape,
}

/// Counts of one direction since the last report.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Passed {
    /// Bytes of IP packets that were delivered to each port, TCP and UDP together.
    pub(crate) delivered_bytes: BTreeMap<u16, u64>,
    /// Packets that came in.
    pub(crate) packets: u64,
    /// Packets dropped because the queue was full.
    pub(crate) queue_drops: u64,
    /// Packets lost at random.
    pub(crate) losses: u64,
    /// Median time that packets waited in the queue, in milliseconds.
    pub(crate) median_wait_ms: f64,
    #[serde(skip)]
    waits: Vec<Duration>,
}

/// A packet between the end of its transmission and its delivery.
struct InFlight {
    due: Instant,
    number: u64,
    packet: Vec<u8>,
}

impl PartialEq for InFlight {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for InFlight {}

impl PartialOrd for InFlight {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for InFlight {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}

/// One direction of a link.
#[derive(Default)]
struct Direction {
    in_flight: Mutex<BinaryHeap<Reverse<InFlight>>>,
    arrived: Condvar,
    passed: Mutex<Passed>,
}

/// Joins the two namespaces until standard input ends. Prints `ready`, then for each line that it
/// reads one line of JSON: the counts since the last one, left to right first.
pub(crate) fn execute(args: &LinkArgs) -> Result<(), Failure> {
    let left = device(&args.left, "10.99.0.1/24")?;
    let right = device(&args.right, "10.99.0.2/24")?;
    let there = direction(&left, &right, args.shape, 1);
    let back = direction(&right, &left, args.shape, 2);
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        line?;
        let report = [take(&there.passed), take(&back.passed)];
        println!("{}", serde_json::to_string(&report)?);
    }
    Ok(())
}

/// Creates a TUN device and moves it into a namespace. Its packets are still read and written by
/// this process.
fn device(namespace: &str, address: &str) -> Result<Arc<Tun>, Failure> {
    let name = format!("{namespace}-w");
    let device = Tun::create_named(Interface::new(&name)?)?;
    let commands = format!(
        "link set {name} mtu {MTU_BYTES} txqueuelen 10000\nlink set {name} netns {namespace}\n"
    );
    ip(&[], &commands)?;
    let commands = format!("link set lo up\naddr add {address} dev {name}\nlink set {name} up\n");
    ip(&["-n", namespace], &commands)?;
    Ok(Arc::new(device))
}

/// Runs `ip` with a batch of commands.
pub(crate) fn ip(options: &[&str], commands: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    let mut child = Command::new("ip")
        .args(options)
        .args(["-batch", "-"])
        .stdin(std::process::Stdio::piped())
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(commands.as_bytes())?;
    }
    let status = child.wait()?;
    if status.success() {
        return Ok(());
    }
    Err(format!("ip failed ({status}) at one of: {commands}").into())
}

fn direction(from: &Arc<Tun>, to: &Arc<Tun>, shape: Shape, seed: u64) -> Arc<Direction> {
    let direction = Arc::new(Direction::default());
    let (reading, entry) = (Arc::clone(from), Arc::clone(&direction));
    thread::spawn(move || entry.read(&reading, shape, seed));
    let (writing, exit) = (Arc::clone(to), Arc::clone(&direction));
    thread::spawn(move || exit.write(&writing));
    direction
}

impl Direction {
    /// Reads packets and decides for each whether and when it is delivered.
    fn read(&self, device: &Tun, shape: Shape, seed: u64) {
        let bytes_per_second = shape.rate_mbit * 1e6 / 8.0;
        let mut rng = StdRng::seed_from_u64(seed);
        let mut buffer = vec![0; usize::from(MTU_BYTES) + 64];
        let mut link_free = Instant::now();
        let mut last_due = link_free;
        let mut number = 0;
        while let Ok(length) = device.recv(&mut buffer) {
            let now = Instant::now();
            let waits = link_free.saturating_duration_since(now);
            let waiting_bytes = waits.as_secs_f64() * bytes_per_second;
            let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
            passed.packets += 1;
            if waiting_bytes + length as f64 > shape.queue_bytes as f64 {
                passed.queue_drops += 1;
                continue;
            }
            passed.waits.push(waits);
            let sent =
                now.max(link_free) + Duration::from_secs_f64(length as f64 / bytes_per_second);
            link_free = sent;
            if rng.random_bool(shape.loss) {
                passed.losses += 1;
                continue;
            }
            drop(passed);
            let delay = Duration::from_millis(shape.rtt_ms) / 2;
            let jitter = Duration::from_millis(shape.jitter_ms).mul_f64(rng.random());
            let due = if rng.random_bool(shape.reorder) {
                sent + delay / 2
            } else {
                (sent + delay + jitter).max(last_due)
            };
            last_due = last_due.max(due);
            number += 1;
            let packet = buffer[..length].to_vec();
            let in_flight = InFlight {
                due,
                number,
                packet,
            };
            self.in_flight
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(Reverse(in_flight));
            self.arrived.notify_one();
        }
    }

    /// Delivers packets when they are due.
    fn write(&self, device: &Tun) {
        let mut in_flight = self
            .in_flight
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        loop {
            let now = Instant::now();
            let Some(Reverse(first)) = in_flight.peek() else {
                in_flight = self
                    .arrived
                    .wait(in_flight)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let wait = first.due.saturating_duration_since(now);
            if !wait.is_zero() {
                let woken = self.arrived.wait_timeout(in_flight, wait);
                in_flight = woken.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            let Some(Reverse(first)) = in_flight.pop() else {
                continue;
            };
            drop(in_flight);
            // Writing fails once the namespace is being removed, which ends the measurement.
            if device.send(&first.packet).is_ok() {
                self.count(&first.packet);
            }
            in_flight = self
                .in_flight
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn count(&self, packet: &[u8]) {
        // The kernel sends no IPv4 options here, so the ports follow 20 bytes of header (RFC 791,
        // section 3.1).
        let port = match packet.get(22..24) {
            Some(&[high, low]) => u16::from_be_bytes([high, low]),
            _ => 0,
        };
        let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        *passed.delivered_bytes.entry(port).or_default() += packet.len() as u64;
    }
}

/// Returns the counts and resets them.
fn take(passed: &Mutex<Passed>) -> Passed {
    let mut passed = std::mem::take(&mut *passed.lock().unwrap_or_else(PoisonError::into_inner));
    passed.waits.sort_unstable();
    let median = passed.waits.get(passed.waits.len() / 2);
    passed.median_wait_ms = median.map_or(0.0, |wait| wait.as_secs_f64() * 1e3);
    passed
}
