//! What idle connections allocate at a node: identified, pinging, and otherwise unused. The clients
//! are in a process of their own, so that this one allocates for the node alone.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a surprise ends the test"
)]

mod common;

use std::{
    alloc::System,
    collections::HashSet,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use calimero_network_primitives::{addr::DialPolicy, config::TransportConfig};
use calimero_network_transport::build;
use common::{Over, config, loopback, start, within};
use futures::{StreamExt as _, stream::FuturesUnordered};
use libp2p::{
    Multiaddr, Swarm, identify,
    identity::Keypair,
    ping,
    swarm::{self, NetworkBehaviour, SwarmEvent},
};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::sync::{Semaphore, mpsc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Connections before the first measurement, which fill the tables and buffers of the node.
const FIRST: usize = 64;

/// Connections that are measured. With the first ones, fewer than one origin may have.
const MEASURED: usize = 192;

/// Handshakes at a time, fewer than a node accepts.
const HANDSHAKES: usize = 16;

/// How long a group of clients may take to connect, with a build without optimisation on a busy
/// host.
const CONNECT_LIMIT: Duration = Duration::from_secs(300);

/// What one idle connection over TCP may allocate, in bytes. Measured: 39,928.
const TCP_BYTES: usize = 44 << 10;

/// The same over QUIC. Measured: 89,704.
const QUIC_BYTES: usize = 96 << 10;

/// Bytes that this process has allocated and not freed.
fn allocated() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

/// The tests measure the same allocator.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[tokio::test]
async fn an_idle_connection_over_tcp_allocates_little() {
    assert_allocates_less(Over::Tcp, TCP_BYTES).await;
}

#[tokio::test]
async fn an_idle_connection_over_quic_allocates_little() {
    assert_allocates_less(Over::Quic, QUIC_BYTES).await;
}

async fn assert_allocates_less(over: Over, allowed: usize) {
    let _turn = TURN.lock().await;
    let node = start(config()).await;
    let mut events = node.events;
    // Their queue is not measured.
    let reading = tokio::spawn(async move { while events.next().await.is_some() {} });
    let (_, address) = node.client.listen_on(loopback(over)).await.unwrap();
    let (process, mut clients) = Clients::start(&address);
    let mut after = [0; 2];
    for (connections, after) in [FIRST, FIRST + MEASURED].into_iter().zip(&mut after) {
        let connecting = tokio::task::spawn_blocking(move || clients.connect());
        let connecting = tokio::time::timeout(CONNECT_LIMIT, connecting).await;
        clients = connecting.expect("in time").unwrap();
        let status = within(node.client.status()).await.unwrap();
        assert_eq!(status.connections.len(), connections);
        drop(status);
        *after = allocated();
    }
    drop(process);
    let each = (after[1] - after[0]) / MEASURED;
    println!("{over:?}: {each} bytes for each connection");
    assert!(each < allowed, "{over:?}: {each} bytes for each connection");
    within(node.client.shutdown()).await.unwrap();
    within(reading).await.unwrap();
}

/// The process of [`clients`]. It ends with this, and so does a thread that waits for its answers.
struct Process(Child);

/// The pipes of that process.
struct Clients {
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// Where the clients find the node.
const ADDRESS: &str = "IDLE_CONNECTIONS_ADDRESS";

/// What the clients write when they are identified and have a ping answered.
const CONNECTED: &str = "connected";

impl Clients {
    fn start(address: &Multiaddr) -> (Process, Self) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["clients", "--exact", "--ignored", "--nocapture"]);
        command.env(ADDRESS, address.to_string());
        // A heap profiler of the node, which is loaded this way, does not see the clients.
        command.env_remove("LD_PRELOAD");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let clients = Self {
            commands: process.stdin.take().unwrap(),
            answers: BufReader::new(process.stdout.take().unwrap()),
        };
        (Process(process), clients)
    }

    /// Has the next group of clients connect.
    fn connect(mut self) -> Self {
        writeln!(self.commands, "connect").unwrap();
        let mut line = String::new();
        while line.trim() != CONNECTED {
            line.clear();
            let read = self.answers.read_line(&mut line).unwrap();
            assert_ne!(read, 0, "the clients have ended");
        }
        self
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[derive(NetworkBehaviour)]
struct Client {
    identify: identify::Behaviour,
    ping: ping::Behaviour,
}

#[tokio::test]
#[ignore = "the other process of the test in this file"]
async fn clients() {
    let Ok(address) = std::env::var(ADDRESS) else {
        return;
    };
    let address: Multiaddr = address.parse().unwrap();
    let permits = Arc::new(Semaphore::new(HANDSHAKES));
    let mut clients = FuturesUnordered::new();
    for count in [FIRST, MEASURED] {
        let commanded = tokio::task::spawn_blocking(|| {
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).unwrap();
        });
        commanded.await.unwrap();
        let (connected, mut reports) = mpsc::channel(count);
        for _ in 0..count {
            let (permits, connected) = (permits.clone(), connected.clone());
            clients.push(tokio::spawn(run(address.clone(), permits, connected)));
        }
        for _ in 0..count {
            tokio::select! {
                report = reports.recv() => report.unwrap(),
                ended = clients.next() => panic!("a client has ended: {ended:?}"),
            }
        }
        println!("\n{CONNECTED}");
    }
    clients.next().await.unwrap().unwrap();
}

fn client() -> Swarm<Client> {
    let identity = Keypair::generate_ed25519();
    let gate = DialPolicy::Local.into();
    let transport = build(&identity, &TransportConfig::default(), gate).unwrap();
    let identify = identify::Config::new("/idle/1".to_owned(), identity.public());
    let behaviour = Client {
        identify: identify::Behaviour::new(identify),
        ping: ping::Behaviour::default(),
    };
    let config =
        swarm::Config::with_tokio_executor().with_idle_connection_timeout(CONNECT_LIMIT * 3);
    Swarm::new(
        transport.boxed,
        behaviour,
        identity.public().to_peer_id(),
        config,
    )
}

/// Connects, reports when the node has answered, and goes on.
async fn run(to: Multiaddr, permits: Arc<Semaphore>, connected: mpsc::Sender<()>) {
    let mut permit = Some(permits.acquire_owned().await.unwrap());
    let mut swarm = client();
    swarm.dial(to).unwrap();
    let mut waiting: HashSet<_> = ["identify received", "identify sent", "ping"].into();
    loop {
        let done = match swarm.select_next_some().await {
            SwarmEvent::Behaviour(ClientEvent::Identify(identify::Event::Received { .. })) => {
                "identify received"
            }
            SwarmEvent::Behaviour(ClientEvent::Identify(identify::Event::Sent { .. })) => {
                "identify sent"
            }
            SwarmEvent::Behaviour(ClientEvent::Ping(ping::Event { result: Ok(_), .. })) => "ping",
            SwarmEvent::ConnectionClosed { cause, .. } => panic!("closed: {cause:?}"),
            SwarmEvent::OutgoingConnectionError { error, .. } => panic!("not connected: {error}"),
            _ => continue,
        };
        if waiting.remove(done) && waiting.is_empty() {
            permit.take();
            connected.send(()).await.unwrap();
        }
    }
}
