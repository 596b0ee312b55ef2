//! Transfers over links with delay, rate, queue and loss: ours over QUIC and TCP, stock libp2p over
//! QUIC and the kernel's TCP, one after the other over the same link, or two at one time for
//! fairness.

mod link;
mod raw;
mod swarm;
mod trips;

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use serde::Serialize;

use self::link::{Passed, Shape, ip};
pub(crate) use self::{
    link::{LinkArgs, execute as execute_link},
    raw::{RawArgs, execute as execute_raw},
    swarm::{
        SwarmArgs, SwarmSideArgs, execute as execute_swarm, execute_side as execute_swarm_side,
    },
    trips::{
        TripsArgs, TripsSideArgs, execute as execute_trips, execute_side as execute_trips_side,
    },
};
use crate::{Failure, client::Figures};

/// Port of the kernel's TCP in the right namespace.
const RAW_PORT: u16 = 9_999;

/// Time between the start of a flow and the moment from which fairness is measured.
const SETTLE: Duration = Duration::from_secs(2);

/// Time over which fairness is measured.
const SHARED_TIME: Duration = Duration::from_secs(30);

/// A sender of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Sender {
    /// The kernel's TCP with its default congestion control.
    Kernel,
    /// The kernel's TCP with Cubic.
    Cubic,
    /// The kernel's TCP with BBR.
    Bbr,
    /// A stream of ours over TCP.
    Tcp,
    /// A stream of ours over QUIC.
    Quic,
    /// A stream of stock libp2p over QUIC, whose congestion control is Cubic.
    StockQuic,
}

impl Sender {
    fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel TCP",
            Self::Cubic => "kernel Cubic",
            Self::Bbr => "kernel BBR",
            Self::Tcp => "ours TCP",
            Self::Quic => "ours QUIC",
            Self::StockQuic => "stock QUIC (Cubic)",
        }
    }

    /// The stack and the transport as arguments of this program; `None` for the kernel's TCP.
    fn side(self) -> Option<[&'static str; 4]> {
        let (stack, transport) = match self {
            Self::Tcp => ("ours", "tcp"),
            Self::Quic => ("ours", "quic"),
            Self::StockQuic => ("stock", "quic"),
            Self::Kernel | Self::Cubic | Self::Bbr => return None,
        };
        Some(["--stack", stack, "--transport", transport])
    }
}

/// Measures transfers over a link and prints a table.
#[derive(Debug, Args)]
pub(crate) struct WanArgs {
    #[command(flatten)]
    shape: Shape,
    /// Size of each transfer, in MB of 1,000,000 bytes.
    #[arg(long, default_value_t = 100)]
    transfer_mb: u64,
    /// Transfers of each sender; the median is printed.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Longest time of one transfer, in seconds.
    #[arg(long, default_value_t = 240)]
    timeout_s: u64,
    /// Senders, measured one after the other.
    #[arg(long, value_enum, num_args = 1.., default_values = ["kernel", "tcp", "quic"])]
    sender: Vec<Sender>,
    /// Sender that shares the link with ours over QUIC for 30 s, in place of the table.
    #[arg(long, value_enum)]
    beside: Option<Sender>,
    /// Print a line of JSON for each sender in place of the table.
    #[arg(long, conflicts_with = "beside")]
    json: bool,
}

/// Result of one sender.
#[derive(Debug, Serialize)]
struct Row {
    sender: &'static str,
    /// Median of the rounds in MB of 1,000,000 bytes a second; 0 for a transfer that did not end.
    mb_per_second: f64,
    /// The same as a share of the link's rate.
    share: f64,
    /// Share of the packets that the full queue dropped.
    dropped: f64,
    /// Median time that packets waited in the queue, in milliseconds.
    median_wait_ms: f64,
}

/// Result of one transfer.
struct Transfer {
    /// Seconds that it took; `None` where it did not end in time.
    seconds: Option<f64>,
    /// Port that received it.
    port: u16,
}

/// The process that runs the link, with its pipes.
struct Link {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Link {
    fn line(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }
}

/// Two namespaces and the link between them, removed when this value is dropped.
struct Lab {
    left: String,
    right: String,
    link: Mutex<Option<Link>>,
}

impl Lab {
    fn new(shape: Shape) -> Result<Self, Failure> {
        let number = std::process::id();
        let lab = Self {
            left: format!("nbl{number}"),
            right: format!("nbr{number}"),
            link: Mutex::new(None),
        };
        ip(
            &[],
            &format!("netns add {}\nnetns add {}\n", lab.left, lab.right),
        )?;
        let mut child = Command::new(std::env::current_exe()?)
            .args(["link", "--left", &lab.left, "--right", &lab.right])
            .args(["--rate-mbit", &shape.rate_mbit.to_string()])
            .args(["--rtt-ms", &shape.rtt_ms.to_string()])
            .args(["--queue-bytes", &shape.queue_bytes.to_string()])
            .args(["--loss", &shape.loss.to_string()])
            .args(["--jitter-ms", &shape.jitter_ms.to_string()])
            .args(["--reorder", &shape.reorder.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (input, output) = pipes(&mut child)?;
        let mut link = Link {
            child,
            input,
            output,
        };
        let first = link.line()?;
        *lab.link.lock().unwrap_or_else(PoisonError::into_inner) = Some(link);
        if first != "ready" {
            return Err("the link did not start".into());
        }
        Ok(lab)
    }

    /// Counts of the link since the last call, left to right first.
    fn passed(&self) -> Result<[Passed; 2], Failure> {
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        let link = link.as_mut().ok_or("no link")?;
        link.input.write_all(b"\n")?;
        Ok(serde_json::from_str(&link.line()?)?)
    }

    /// Starts this program in a namespace, with pipes for its input and output.
    fn run(&self, namespace: &str, args: &[&str]) -> Result<Child, Failure> {
        Ok(Command::new("ip")
            .args(["netns", "exec", namespace])
            .arg(std::env::current_exe()?)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?)
    }

    /// Sends `bytes` from left to right.
    fn transfer(&self, sender: Sender, bytes: u64, timeout: Duration) -> Result<Transfer, Failure> {
        let port = RAW_PORT.to_string();
        let mut server = match sender.side() {
            None => self.run(&self.right, &["raw", "--listen", &port])?,
            Some(side) => {
                let listening = ["serve", "--listen", "10.99.0.2", "--runtime", "beside"];
                self.run(&self.right, &[&listening[..], &side[..]].concat())?
            }
        };
        let (_input, mut output) = pipes(&mut server)?;
        let mut address = String::new();
        output.read_line(&mut address)?;
        let bytes = bytes.to_string();
        let mut client = match sender.side() {
            None => {
                let to = format!("10.99.0.2:{RAW_PORT}");
                let mut args = vec!["raw", "--send-to", &to, "--bytes", &bytes];
                match sender {
                    Sender::Cubic => args.extend(["--congestion", "cubic"]),
                    Sender::Bbr => args.extend(["--congestion", "bbr"]),
                    _ => {}
                }
                self.run(&self.left, &args)?
            }
            Some(side) => {
                let mut args = vec!["client", "--listen", "10.99.0.1", "--runtime", "beside"];
                args.extend(side);
                args.extend(["--address", address.trim_end(), "transfer"]);
                args.extend(["--bytes", &bytes, "--size-bytes", "1000000"]);
                self.run(&self.left, &args)?
            }
        };
        let (_client_input, mut figures) = pipes(&mut client)?;
        let seconds = if wait(&mut client, timeout)? {
            let mut line = String::new();
            figures.read_line(&mut line)?;
            Some(serde_json::from_str::<Figures>(&line)?.seconds)
        } else {
            None
        };
        end(&mut client);
        end(&mut server);
        Ok(Transfer {
            seconds,
            port: port_of(&address).unwrap_or(RAW_PORT),
        })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let link = self.link.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(Link { mut child, .. }) = link.take() {
            end(&mut child);
        }
        let commands = format!("netns del {}\nnetns del {}\n", self.left, self.right);
        if let Err(error) = ip(&["-force"], &commands) {
            eprintln!("netbench wan: {error}");
        }
    }
}

/// The UDP or TCP port of a multiaddress; `None` for another form of address.
fn port_of(address: &str) -> Option<u16> {
    let mut parts = address.split('/');
    parts.find(|part| matches!(*part, "udp" | "tcp"))?;
    parts.next()?.parse().ok()
}

fn pipes(child: &mut Child) -> Result<(ChildStdin, BufReader<ChildStdout>), Failure> {
    let input = child.stdin.take().ok_or("no standard input")?;
    let output = child.stdout.take().ok_or("no standard output")?;
    Ok((input, BufReader::new(output)))
}

/// Waits for a child to end. Returns `false` if it does not end in time.
fn wait(child: &mut Child, timeout: Duration) -> Result<bool, Failure> {
    let started = Instant::now();
    while started.elapsed() < timeout {
        if let Some(status) = child.try_wait()? {
            return if status.success() {
                Ok(true)
            } else {
                Err(format!("a client ended with {status}").into())
            };
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(false)
}

/// Kills a child, which may have ended already, and waits for it.
fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

pub(crate) fn execute(args: &WanArgs) -> Result<(), Failure> {
    let shape = args.shape;
    if !args.json {
        println!(
            "{} Mbit/s, {} ms, queue of {} bytes, {} % lost, kernel default {}",
            shape.rate_mbit,
            shape.rtt_ms,
            shape.queue_bytes,
            shape.loss * 100.0,
            fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control")?.trim_end()
        );
    }
    if let Some(other) = args.beside {
        return fairness(args, other);
    }
    if !args.json {
        println!("\n| sender | MB/s | of the link | dropped by the queue | median wait |");
        println!("|---|---:|---:|---:|---:|");
    }
    let lab = Lab::new(shape)?;
    for sender in &args.sender {
        let row = measure(&lab, args, *sender)?;
        if args.json {
            println!("{}", serde_json::to_string(&row)?);
            continue;
        }
        println!(
            "| {} | {:.1} | {:.2} | {:.1} % | {:.0} ms |",
            row.sender,
            row.mb_per_second,
            row.share,
            row.dropped * 100.0,
            row.median_wait_ms,
        );
    }
    Ok(())
}

fn measure(lab: &Lab, args: &WanArgs, sender: Sender) -> Result<Row, Failure> {
    let mut rates = Vec::new();
    lab.passed()?;
    for _ in 0..args.rounds.max(1) {
        let timeout = Duration::from_secs(args.timeout_s);
        let transfer = lab.transfer(sender, args.transfer_mb * 1_000_000, timeout)?;
        let seconds = transfer.seconds.unwrap_or(f64::INFINITY);
        rates.push(args.transfer_mb as f64 / seconds);
    }
    rates.sort_by(f64::total_cmp);
    let rate = rates[rates.len() / 2];
    let [there, _] = lab.passed()?;
    Ok(Row {
        sender: sender.name(),
        mb_per_second: rate,
        share: rate * 8.0 / args.shape.rate_mbit,
        dropped: there.queue_drops as f64 / there.packets.max(1) as f64,
        median_wait_ms: there.median_wait_ms,
    })
}

/// Measures how ours over QUIC and another sender share the link.
fn fairness(args: &WanArgs, other: Sender) -> Result<(), Failure> {
    let lab = Lab::new(args.shape)?;
    let time = SHARED_TIME + SETTLE;
    // More than the link carries in the time, so that neither ends before it.
    let bytes = (args.shape.rate_mbit * 1e6 / 8.0 * time.as_secs_f64() * 1.2) as u64;
    let bytes = bytes / 1_000_000 * 1_000_000;
    let (ours, theirs, there) = std::thread::scope(|scope| {
        let run = |sender| {
            let lab = &lab;
            scope.spawn(move || lab.transfer(sender, bytes, time))
        };
        let (ours, theirs) = (run(Sender::Quic), run(other));
        std::thread::sleep(SETTLE);
        let before = lab.passed().map(drop);
        let ended = |result: std::thread::Result<_>| match result {
            Ok(result) => result,
            Err(_) => Err("a transfer panicked".into()),
        };
        let ports = (ended(ours.join()), ended(theirs.join()));
        before?;
        Ok::<_, Failure>((ports.0?, ports.1?, lab.passed()?.into_iter().next()))
    })?;
    let there = there.unwrap_or_default();
    let of = |port| there.delivered_bytes.get(&port).copied().unwrap_or(0) as f64;
    let (ours, theirs) = (of(ours.port), of(theirs.port));
    println!(
        "ours QUIC {:.0} % with {}, {:.1} % dropped by the queue, median wait {:.0} ms",
        ours * 100.0 / (ours + theirs).max(1.0),
        other.name(),
        there.queue_drops as f64 * 100.0 / there.packets.max(1) as f64,
        there.median_wait_ms,
    );
    Ok(())
}
