//! Measures messages a second and latency between processes on loopback.
//!
//! ```text
//! throughput [NODES] [MESSAGES] [RATE] [PAYLOAD_BYTES]
//! ```
//!
//! Starts `NODES` processes (default 2), all connected with each other over TCP. The first
//! publishes `MESSAGES` messages (default 50,000) of `PAYLOAD_BYTES` (default 1,024), `RATE` a
//! second or, at 0 (the default), as many as its queues take. Each of the others says what it got,
//! how fast, and how old it was.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a measuring program reads the clock, and ends where it cannot go on"
)]

use std::{
    process::Stdio,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use calimero_network_primitives::{ContextId, Keypair, Multiaddr, Topic};
use calimero_network_pubsub::{Behaviour, Config, Event, PublishError};
use futures::{FutureExt, StreamExt};
use libp2p_core::{Transport, upgrade::Version};
use libp2p_swarm::{Swarm, SwarmEvent};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

/// Messages published before connections get a turn.
const BURST: usize = 16;

/// Wait for an event of room before the next attempt.
const ROOM_PATIENCE: Duration = Duration::from_millis(100);

#[derive(Clone, Copy)]
struct Run {
    nodes: usize,
    messages: usize,
    rate: u64,
    payload: usize,
}

fn main() {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let (child, numbers) = match args.split_first() {
        Some((first, rest)) if first == "node" => (true, rest),
        _ => (false, &args[..]),
    };
    let number = |index: usize, default: usize| {
        let text = numbers.get(index);
        text.map_or(default, |text| text.parse().expect("a number"))
    };
    let run = Run {
        nodes: number(0, 2),
        messages: number(1, 50_000),
        rate: number(2, 0) as u64,
        payload: number(3, 1024).max(16),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    if child {
        runtime.block_on(node(run, number(4, 0), &numbers[5..]));
    } else {
        runtime.block_on(conduct(run));
    }
}

struct Process {
    _child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Process {
    async fn line(&mut self) -> String {
        self.output.next_line().await.unwrap().expect("node ended")
    }
}

/// Starts the nodes one after the other, each with the addresses of those before it.
async fn conduct(run: Run) {
    let mut nodes: Vec<Process> = Vec::new();
    let mut addrs: Vec<String> = Vec::new();
    for index in 0..run.nodes {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("node");
        let numbers = [
            run.nodes,
            run.messages,
            run.rate as usize,
            run.payload,
            index,
        ];
        command.args(numbers.map(|n| n.to_string())).args(&addrs);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().unwrap();
        let mut node = Process {
            input: child.stdin.take().unwrap(),
            output: BufReader::new(child.stdout.take().unwrap()).lines(),
            _child: child,
        };
        addrs.push(node.line().await);
        nodes.push(node);
    }
    for node in &mut nodes {
        assert_eq!(node.line().await, "ready");
    }
    nodes[0].input.write_all(b"go\n").await.unwrap();
    for (index, node) in nodes.iter_mut().enumerate() {
        println!("node {index}: {}", node.line().await);
    }
}

/// Time that this process has been running on a processor, where the system says so: unlike the
/// rate, it does not depend on what else runs there.
fn cpu_micros() -> f64 {
    const TICK_MICROS: f64 = 10_000.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name, which may hold spaces: user and system time are the 12th and 13th.
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
    let ticks = fields.split(' ').skip(11).take(2);
    ticks
        .filter_map(|ticks| ticks.parse::<f64>().ok())
        .sum::<f64>()
        * TICK_MICROS
}

fn now_nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_nanos()).unwrap()
}

async fn node(run: Run, index: usize, addrs: &[String]) {
    let keypair = Keypair::generate_ed25519();
    let transport = libp2p_tcp::tokio::Transport::new(libp2p_tcp::Config::new().nodelay(true))
        .upgrade(Version::V1Lazy)
        .authenticate(libp2p_noise::Config::new(&keypair).unwrap())
        .multiplex(libp2p_yamux::Config::default())
        .boxed();
    let pubsub = Behaviour::new(keypair.clone(), &Config::small()).unwrap();
    let config = libp2p_swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(Duration::from_secs(600));
    let mut swarm = Swarm::new(transport, pubsub, keypair.public().to_peer_id(), config);
    let topic = Topic::context(ContextId::new([1; 32]));
    swarm.behaviour_mut().subscribe(&topic).unwrap();
    swarm
        .listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap())
        .unwrap();
    for addr in addrs {
        swarm.dial(addr.parse::<Multiaddr>().unwrap()).unwrap();
    }
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            println!("{address}");
            break;
        }
    }
    while swarm.behaviour().subscribed_peers(&topic).len() + 1 < run.nodes {
        swarm.select_next_some().await;
    }
    println!("ready");
    if index == 0 {
        publish(run, &mut swarm, &topic).await;
    } else {
        receive(run, &mut swarm).await;
    }
}

async fn publish(run: Run, swarm: &mut Swarm<Behaviour>, topic: &Topic) {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    loop {
        tokio::select! {
            _ = lines.next_line() => break,
            _ = swarm.select_next_some() => {}
        }
    }
    let start = Instant::now();
    let (mut sent, mut full) = (0, 0_u64);
    while sent < run.messages {
        let due = match run.rate {
            0 => sent + BURST,
            rate => {
                let due = start.elapsed().as_secs_f64() * rate as f64;
                (due as usize).min(sent + BURST)
            }
        };
        while sent < due.min(run.messages) {
            let mut data = vec![0; run.payload];
            data[..8].copy_from_slice(&now_nanos().to_be_bytes());
            match swarm.behaviour_mut().publish(topic, data) {
                Ok(_) => sent += 1,
                Err(PublishError::QueueFull { .. }) => {
                    full += 1;
                    let room = async {
                        loop {
                            if let SwarmEvent::Behaviour(Event::Room) =
                                swarm.select_next_some().await
                            {
                                return;
                            }
                        }
                    };
                    let _ = tokio::time::timeout(ROOM_PATIENCE, room).await;
                    break;
                }
                Err(error) => panic!("{error}"),
            }
        }
        // The connections run on this thread as well.
        while swarm.next().now_or_never().is_some() {}
        if run.rate == 0 {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let rate = run.messages as f64 / seconds;
    let lost = swarm.behaviour().mesh_stats().counters.lost_to_slow;
    let cpu = cpu_micros() / run.messages as f64;
    println!(
        "published {sent} in {seconds:.2} s, {rate:.0}/s, {cpu:.1} us of CPU each, \
         queue full {full} times, {lost} lost"
    );
    loop {
        swarm.select_next_some().await;
    }
}

async fn receive(run: Run, swarm: &mut Swarm<Behaviour>) {
    let mut ages: Vec<u64> = Vec::with_capacity(run.messages);
    let (mut first, mut last) = (None, Instant::now());
    while ages.len() < run.messages {
        let patience = Duration::from_secs(if first.is_some() { 5 } else { 60 });
        let Ok(event) = tokio::time::timeout(patience, swarm.select_next_some()).await else {
            break;
        };
        if let SwarmEvent::Behaviour(Event::Message(message)) = event {
            let sent = u64::from_be_bytes(message.data[..8].try_into().unwrap());
            ages.push(now_nanos().saturating_sub(sent));
            last = Instant::now();
            first.get_or_insert(last);
        } else if first.is_some() && last.elapsed() > patience {
            break;
        }
    }
    let seconds = first.map_or(0.0, |first| (last - first).as_secs_f64());
    ages.sort_unstable();
    let age = |part: f64| {
        let index = (ages.len() as f64 * part) as usize;
        ages.get(index).map_or(0.0, |nanos| *nanos as f64 / 1e6)
    };
    let counters = swarm.behaviour().mesh_stats().counters;
    println!(
        "got {} of {} in {seconds:.2} s, {:.0}/s; p50 {:.2} ms, p99 {:.2} ms; {:.2} copies and \
         {:.1} us of CPU each",
        ages.len(),
        run.messages,
        ages.len() as f64 / seconds,
        age(0.5),
        age(0.99),
        counters.copies as f64 / counters.delivered.max(1) as f64,
        cpu_micros() / ages.len().max(1) as f64,
    );
    loop {
        swarm.select_next_some().await;
    }
}
