//! A whole network in one process under load. The nodes subscribe to the same
//! overlays, publish messages, use streams, fetch blobs, leave and return. The
//! harness verifies each message to each member, each echo, each blob and each
//! task.

mod ledger;
mod member;
mod network;
mod report;
mod sample;
#[cfg(test)]
mod tests;
mod work;

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use calimero_network::NetworkConfig as Config;
use clap::{Args, ValueEnum};
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::{sync::watch, task::JoinSet};

use self::{
    member::{End, NodeState, Running},
    network::Network,
    report::Outcome,
    sample::Sample,
};
use crate::Failure;

/// The transport between the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Over {
    /// The in-memory transport of libp2p, all nodes on one runtime.
    Memory,
    /// TCP on loopback, each node on its own thread.
    Tcp,
    /// QUIC on loopback, each node on its own thread.
    Quic,
}

impl Over {
    fn addresses(self) -> &'static [&'static str] {
        match self {
            Self::Memory => &["/memory/0"],
            Self::Tcp => &["/ip4/127.0.0.1/tcp/0"],
            Self::Quic => &["/ip4/127.0.0.1/udp/0/quic-v1"],
        }
    }
}

/// Size of the network and amount of load.
#[derive(Clone, Debug, Args)]
pub(crate) struct LoadArgs {
    /// Number of nodes in addition to a boot node.
    #[arg(long, default_value_t = 100)]
    nodes: usize,
    /// Transport between the nodes.
    #[arg(long, value_enum, default_value = "memory")]
    over: Over,
    /// Number of overlays. All nodes subscribe to all of them.
    #[arg(long, default_value_t = 5)]
    overlays: usize,
    /// Duration of the load, in seconds.
    #[arg(long = "seconds", default_value = "600", value_parser = seconds, value_name = "SECONDS")]
    lasts: Duration,
    /// Messages published per second in the whole network.
    #[arg(long, default_value_t = 8.0, value_name = "RATE")]
    messages: f64,
    /// Size of a message, in bytes, at least 12.
    #[arg(long, default_value_t = 512, value_name = "BYTES")]
    message_bytes: usize,
    /// Streams opened per second in the whole network, each for eight echoed
    /// frames.
    #[arg(long, default_value_t = 10.0, value_name = "RATE")]
    streams: f64,
    /// Blobs fetched per second in the whole network.
    #[arg(long, default_value_t = 1.0, value_name = "RATE")]
    fetches: f64,
    /// Largest size of a blob, in bytes.
    #[arg(long, default_value_t = 256 << 10, value_name = "BYTES")]
    blob_bytes: usize,
    /// Number of blobs that a node retains.
    #[arg(long, default_value_t = 32)]
    blobs_kept: usize,
    /// Seconds between two nodes that leave and return. Without this option all
    /// nodes stay.
    #[arg(long = "churn", value_parser = seconds, value_name = "SECONDS")]
    churn_every: Option<Duration>,
    /// Seconds from the first contact of a node until all messages are expected
    /// by it.
    #[arg(long, default_value = "5", value_parser = seconds, value_name = "SECONDS")]
    settle: Duration,
    /// Seconds between two samples of the process.
    #[arg(long = "sample", default_value = "5", value_parser = seconds, value_name = "SECONDS")]
    sample_every: Duration,
    /// Threads of the runtime of the harness, and of the nodes if they share
    /// it.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

impl Default for LoadArgs {
    fn default() -> Self {
        Self {
            nodes: 100,
            over: Over::Memory,
            overlays: 5,
            lasts: Duration::from_secs(600),
            messages: 8.0,
            message_bytes: 512,
            streams: 10.0,
            fetches: 1.0,
            blob_bytes: 256 << 10,
            blobs_kept: 32,
            churn_every: None,
            settle: Duration::from_secs(5),
            sample_every: Duration::from_secs(5),
            threads: 2,
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

/// Runs the load, prints the result, and fails if anything was lost or grew.
pub(crate) fn execute(args: &LoadArgs) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(args.threads)
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(run(args.clone()))?;
    outcome.print();
    let faults = outcome.faults();
    match faults.as_slice() {
        [] => Ok(()),
        faults => Err(faults.join("\n").into()),
    }
}

/// Starts the network, runs the load, waits for open messages, and stops the
/// network.
pub(crate) async fn run(args: LoadArgs) -> Result<Outcome, Failure> {
    let folder = tempfile::tempdir()?;
    let (boot, addresses) = work::boot(args.over).await?;
    let states = (0..args.nodes).map(|nth| NodeState::new(folder.path().join(nth.to_string())));
    let net = Arc::new(Network::new(
        args.clone(),
        member::config(&args, &addresses),
        member::topics(args.overlays),
        states.collect(),
    ));
    let running = start_all(&net).await?;
    wait_until_stable(&net).await;
    eprintln!("{} nodes have started", running.len());

    let began = Instant::now();
    let (stop, stopped) = watch::channel(false);
    let mut load = JoinSet::new();
    let (sharing, until) = (net.clone(), stopped.clone());
    load.spawn(async move {
        let publish = || work::publish(sharing.clone());
        work::repeat(sharing.args.messages, until, publish).await;
    });
    let (sharing, until) = (net.clone(), stopped.clone());
    load.spawn(async move {
        let exchange = || work::exchange_frames(sharing.clone());
        work::repeat(sharing.args.streams, until, exchange).await;
    });
    let (sharing, until) = (net.clone(), stopped.clone());
    load.spawn(async move {
        let fetch = || work::fetch(sharing.clone());
        work::repeat(sharing.args.fetches, until, fetch).await;
    });
    let (sharing, until) = (net.clone(), stopped.clone());
    load.spawn(async move { work::watch_delays(&sharing, until).await });
    let churning = tokio::spawn(work::churn(net.clone(), running, stopped));

    let samples = take_samples(&net, began).await?;
    stop.send_replace(true);
    while load.join_next().await.is_some() {}
    let running = churning.await??;
    drain(&net).await;

    let mut ending = JoinSet::new();
    for running in running {
        net.leave(&running.member);
        ending.spawn(member::end(running, End::Shutdown));
    }
    let mut last_shutdowns = Vec::new();
    while let Some(ended) = ending.join_next().await {
        last_shutdowns.extend(ended??);
    }
    boot.shutdown().await?;
    drop(boot);
    let tasks_left = tasks_left().await;
    Ok(Outcome::new(&net, samples, last_shutdowns, tasks_left))
}

/// Starts the nodes, a few at a time, because handshakes dominate the cost of a
/// start.
async fn start_all(net: &Arc<Network>) -> Result<Vec<Running>, Failure> {
    const AT_A_TIME: usize = 8;
    let started = futures::stream::iter(0..net.args.nodes)
        .map(|position| async move {
            let joining = member::start(net, position, false).await?;
            work::join(net, joining, false).await
        })
        .buffer_unordered(AT_A_TIME);
    started.try_collect().await
}

/// Waits until the number of connections is stable.
async fn wait_until_stable(net: &Network) {
    const QUIET: Duration = Duration::from_secs(5);
    const TIMEOUT: Duration = Duration::from_secs(180);
    let began = Instant::now();
    let (mut since, mut before) = (began, 0);
    while since.elapsed() < QUIET && began.elapsed() < TIMEOUT {
        tokio::time::sleep(QUIET / 20).await;
        let peers = (net.present().iter())
            .map(|member| member.client.peer_count().unwrap_or(0))
            .sum::<usize>();
        if peers.abs_diff(before) > peers / 100 {
            (since, before) = (Instant::now(), peers);
        }
    }
}

/// Takes samples of the process for the duration of the load.
async fn take_samples(net: &Arc<Network>, began: Instant) -> Result<Vec<Sample>, Failure> {
    let mut samples = Vec::new();
    let mut ticks = tokio::time::interval(net.args.sample_every);
    while began.elapsed() < net.args.lasts {
        ticks.tick().await;
        close(net);
        let sample = Sample::take(net, began)?;
        eprintln!(
            "{:4.0} s: {} nodes, {} settled, {:.1} MiB resident, {} allocated, {} tasks, {} peers, {:.1} s of CPU, {} delivered, {} streams, {} fetches, {} restarts, {} faults",
            sample.at.as_secs_f64(),
            sample.nodes,
            net.settled_count(),
            sample.resident_kib as f64 / 1024.0,
            sample.allocated_mib(),
            sample.tasks,
            sample.peers,
            sample.cpu_seconds,
            sample.delivered,
            net.tally.streams.load(Ordering::Relaxed),
            net.tally.fetches.load(Ordering::Relaxed),
            net.tally.restarts.load(Ordering::Relaxed),
            net.tally.faults.load(Ordering::Relaxed),
        );
        samples.push(sample);
    }
    Ok(samples)
}

/// Closes the records of old messages and reports losses.
fn close(net: &Network) {
    let lost = net.ledger().close(Instant::now());
    for (message, member) in lost {
        net.fault(format!("message {message} is lost to {member}"));
    }
}

/// Waits until every message was delivered or is lost.
async fn drain(net: &Network) {
    let deadline = Instant::now() + ledger::WINDOW;
    while net.ledger().incomplete() > 0 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let lost = net.ledger().end(Instant::now());
    for (message, member) in lost {
        net.fault(format!("message {message} is lost to {member}"));
    }
}

/// Returns the number of tasks on this runtime after everything has ended.
/// Waits up to 10 s for tasks that end on their own.
async fn tasks_left() -> usize {
    let deadline = Instant::now() + Duration::from_secs(10);
    let alive = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    while alive() > 0 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    alive()
}
