//! Many nodes and overlays in one process, with failures: deliveries, latency and cost.
//!
//! ```text
//! simulation [NODES] [OVERLAYS] [SECONDS] [SEED]
//! ```
//!
//! `NODES` nodes (default 200) are connected in memory and follow the topics of `OVERLAYS`
//! overlays (default 50), each node those of four. Members of an overlay form a ring with a
//! chord each. One message a second is published in each overlay. All the time a tenth of the
//! nodes a minute is stopped and comes back as new; in the middle the network is parted in two
//! halves for ten seconds.
//!
//! A delivery is expected of every member that was up from three seconds before the message to
//! three seconds after and is joined with its publisher by others that were, while the network
//! was whole that long. Every delivery is counted, and each must be the first of its message at
//! that node.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a measuring program reads the clock, and ends where it cannot go on"
)]

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use calimero_network_primitives::{ContextId, Keypair, Multiaddr, PeerId, Topic};
use calimero_network_pubsub::{Behaviour, Config, Counters, Event};
use futures::StreamExt;
use libp2p_core::{Transport, transport::MemoryTransport, upgrade::Version};
use libp2p_swarm::{Swarm, SwarmEvent};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use tokio::sync::mpsc;

const OVERLAYS_PER_NODE: usize = 4;
const PAYLOAD_BYTES: usize = 1024;
const SETTLED: Duration = Duration::from_secs(3);
const PARTED: Duration = Duration::from_secs(10);

/// Number of an incarnation of a node, never used twice.
type Life = u64;

enum Order {
    Publish(usize, u64),
    Dial(PeerId, Multiaddr),
    Hang(Vec<PeerId>),
}

enum Report {
    Got(Life, u64),
    Sent(Life, u64),
    Ended(Counters),
}

struct Node {
    life: Life,
    born: Instant,
    peer: PeerId,
    addr: Multiaddr,
    orders: mpsc::Sender<Order>,
}

struct Sent {
    overlay: usize,
    at: Instant,
    by: Life,
}

fn topic(overlay: usize) -> Topic {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&(overlay as u64).to_be_bytes());
    Topic::context(ContextId::new(id))
}

fn start(life: Life, overlays: &[usize], reports: mpsc::Sender<Report>) -> Node {
    let keypair = Keypair::generate_ed25519();
    let peer = keypair.public().to_peer_id();
    let transport = MemoryTransport::default()
        .upgrade(Version::V1Lazy)
        .authenticate(libp2p_noise::Config::new(&keypair).unwrap())
        .multiplex(libp2p_yamux::Config::default())
        .boxed();
    let mut pubsub = Behaviour::new(keypair, &Config::small()).unwrap();
    for overlay in overlays {
        pubsub.subscribe(&topic(*overlay)).unwrap();
    }
    let config = libp2p_swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(Duration::from_secs(600));
    let mut swarm = Swarm::new(transport, pubsub, peer, config);
    let addr: Multiaddr = format!("/memory/{}", life + 1).parse().unwrap();
    swarm.listen_on(addr.clone()).unwrap();
    let (orders, queue) = mpsc::channel(256);
    tokio::spawn(run(life, swarm, queue, reports));
    Node {
        life,
        born: Instant::now(),
        peer,
        addr,
        orders,
    }
}

async fn run(
    life: Life,
    mut swarm: Swarm<Behaviour>,
    mut orders: mpsc::Receiver<Order>,
    reports: mpsc::Sender<Report>,
) {
    loop {
        tokio::select! {
            event = swarm.select_next_some() => {
                if let SwarmEvent::Behaviour(Event::Message(message)) = event {
                    let number = u64::from_be_bytes(message.data[..8].try_into().unwrap());
                    reports.send(Report::Got(life, number)).await.unwrap();
                }
            }
            order = orders.recv() => match order {
                Some(Order::Publish(overlay, number)) => {
                    let mut data = number.to_be_bytes().to_vec();
                    data.resize(PAYLOAD_BYTES, 0);
                    if swarm.behaviour_mut().publish(&topic(overlay), data).is_ok() {
                        reports.send(Report::Sent(life, number)).await.unwrap();
                    }
                }
                Some(Order::Dial(peer, addr)) => {
                    if !swarm.is_connected(&peer) {
                        let _ = swarm.dial(addr);
                    }
                }
                Some(Order::Hang(peers)) => {
                    for peer in peers {
                        let _ = swarm.disconnect_peer_id(peer);
                    }
                }
                None => {
                    let counters = swarm.behaviour().mesh_stats().counters;
                    reports.send(Report::Ended(counters)).await.unwrap();
                    return;
                }
            }
        }
    }
}

/// The network: nodes that run, connections that should exist, and messages.
struct Network {
    rng: StdRng,
    nodes: Vec<Node>,
    memberships: Vec<Vec<usize>>,
    /// Pairs of nodes, by place.
    links: HashSet<(usize, usize)>,
    members: Vec<Vec<usize>>,
    parted: bool,
    lives: Life,
    reports: mpsc::Sender<Report>,
    /// When each incarnation began and ended, and its place.
    past: HashMap<Life, (usize, Instant, Option<Instant>)>,
}

impl Network {
    fn new(nodes: usize, overlays: usize, seed: u64, reports: mpsc::Sender<Report>) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut members = vec![Vec::new(); overlays];
        let mut memberships = Vec::new();
        for node in 0..nodes {
            let mut all: Vec<_> = (0..overlays).collect();
            all.shuffle(&mut rng);
            all.truncate(OVERLAYS_PER_NODE);
            for overlay in &all {
                members[*overlay].push(node);
            }
            memberships.push(all);
        }
        let mut links = HashSet::new();
        for members in members.iter().filter(|members| members.len() > 1) {
            for (index, node) in members.iter().enumerate() {
                let next = members[(index + 1) % members.len()];
                let chord = members[rng.random_range(0..members.len())];
                for other in [next, chord].into_iter().filter(|other| other != node) {
                    links.insert((*node.min(&other), *node.max(&other)));
                }
            }
        }
        let mut network = Self {
            rng,
            nodes: Vec::new(),
            memberships,
            links,
            members,
            parted: false,
            lives: 0,
            reports,
            past: HashMap::new(),
        };
        for place in 0..nodes {
            let node = network.begin(place);
            network.nodes.push(node);
        }
        network
    }

    fn begin(&mut self, place: usize) -> Node {
        let life = self.lives;
        self.lives += 1;
        let node = start(life, &self.memberships[place], self.reports.clone());
        self.past.insert(life, (place, node.born, None));
        node
    }

    fn apart(&self, one: usize, other: usize) -> bool {
        let half = self.nodes.len() / 2;
        self.parted && (one < half) != (other < half)
    }

    /// Dials what should be connected, as discovery does in a whole node.
    async fn connect(&self) {
        for &(one, other) in &self.links {
            if !self.apart(one, other) {
                let to = &self.nodes[other];
                let order = Order::Dial(to.peer, to.addr.clone());
                let _ = self.nodes[one].orders.send(order).await;
            }
        }
    }

    /// One message in each overlay that has two members.
    async fn publish(&mut self, log: &mut Log) {
        for (overlay, members) in self.members.iter().enumerate() {
            if members.len() < 2 {
                continue;
            }
            let place = members[self.rng.random_range(0..members.len())];
            let order = Order::Publish(overlay, log.ordered.len() as u64);
            log.ordered.push(overlay);
            let _ = self.nodes[place].orders.send(order).await;
        }
    }

    /// Stops all nodes of the network.
    fn end(self) -> End {
        End {
            past: self.past,
            members: self.members,
            links: self.links,
        }
    }

    async fn restart_one(&mut self) {
        let place = self.rng.random_range(0..self.nodes.len());
        let node = self.begin(place);
        let former = std::mem::replace(&mut self.nodes[place], node);
        self.past.get_mut(&former.life).unwrap().2 = Some(Instant::now());
        drop(former);
    }

    async fn part(&mut self) {
        self.parted = true;
        let half = self.nodes.len() / 2;
        let others: Vec<_> = self.nodes[half..].iter().map(|node| node.peer).collect();
        for node in &self.nodes[..half] {
            let _ = node.orders.send(Order::Hang(others.clone())).await;
        }
    }
}

/// Times at which things happen.
struct Plan {
    begin: Instant,
    publish_at: Instant,
    connect_at: Instant,
    restart_at: Instant,
    restart_every: Duration,
    part_at: Instant,
    heal_at: Instant,
    quiet: Instant,
    end: Instant,
}

impl Plan {
    fn new(nodes: usize, seconds: u64) -> Self {
        let begin = Instant::now();
        let (part_at, end) = (
            begin + Duration::from_secs(seconds / 2),
            begin + Duration::from_secs(seconds),
        );
        Self {
            begin,
            publish_at: begin + SETTLED,
            connect_at: begin,
            restart_at: begin + SETTLED * 3,
            restart_every: Duration::from_secs_f64(60.0 / (nodes as f64 * 0.1)),
            part_at,
            heal_at: part_at + PARTED,
            quiet: end - SETTLED,
            end,
        }
    }

    /// Does what is due.
    async fn carry_out(&mut self, network: &mut Network, log: &mut Log) {
        let now = Instant::now();
        if now >= self.publish_at && now < self.quiet {
            self.publish_at += Duration::from_secs(1);
            network.publish(log).await;
        }
        if now >= self.restart_at && now < self.quiet {
            self.restart_at += self.restart_every;
            network.restart_one().await;
        }
        if now >= self.part_at && now < self.heal_at && !network.parted {
            network.part().await;
        } else if now >= self.heal_at {
            network.parted = false;
        }
        if now >= self.connect_at {
            self.connect_at = now + Duration::from_millis(500);
            network.connect().await;
        }
    }

    /// Whether the network was whole around `at`.
    fn whole(&self, at: Instant) -> bool {
        let from = at.checked_sub(SETTLED).unwrap_or(self.begin);
        at + SETTLED < self.part_at || from > self.heal_at
    }
}

/// Messages that were published and received.
#[derive(Default)]
struct Log {
    /// Overlay of each message that a node was asked to publish.
    ordered: Vec<usize>,
    sent: HashMap<u64, Sent>,
    got: HashMap<(Life, u64), Vec<Instant>>,
    totals: Counters,
}

impl Log {
    fn take(&mut self, report: Report) {
        let at = Instant::now();
        match report {
            Report::Got(life, number) => self.got.entry((life, number)).or_default().push(at),
            Report::Sent(by, number) => {
                let overlay = self.ordered[number as usize];
                self.sent.insert(number, Sent { overlay, at, by });
            }
            Report::Ended(counters) => add(&mut self.totals, counters),
        }
    }

    /// How many deliveries were expected, and how long those took that were made.
    fn deliveries(&self, plan: &Plan, end: &End) -> (usize, Vec<Duration>) {
        let (mut expected, mut ages) = (0, Vec::new());
        let whole = |message: &Sent| plan.whole(message.at);
        for (number, message) in self.sent.iter().filter(|(_, sent)| whole(sent)) {
            for life in end.reached(message) {
                expected += 1;
                let times = self.got.get(&(life, *number));
                ages.extend(times.map(|times| times[0].saturating_duration_since(message.at)));
            }
        }
        ages.sort_unstable();
        (expected, ages)
    }

    fn print(&self, plan: &Plan, end: &End) {
        let (expected, ages) = self.deliveries(plan, end);
        let (totals, arrived) = (&self.totals, ages.len());
        let twice = self.got.values().filter(|times| times.len() > 1).count();
        let age = |part: f64| {
            let age = ages.get((arrived.saturating_sub(1) as f64 * part) as usize);
            age.map_or(0.0, Duration::as_secs_f64) * 1e3
        };
        let (sent, refused) = (self.sent.len(), self.ordered.len() - self.sent.len());
        println!("messages: {sent} sent, {refused} refused without a subscriber");
        println!(
            "deliveries: {arrived} of {expected} expected ({:.4}), {} in all, {twice} repeated",
            arrived as f64 / expected as f64,
            self.got.len(),
        );
        println!(
            "latency: p50 {:.1} ms, p99 {:.1} ms, most {:.1} ms; a heartbeat is 1000 ms",
            age(0.5),
            age(0.99),
            age(1.0)
        );
        println!(
            "copies for each delivery: {:.2}; payload bytes for each byte delivered: {:.2}",
            totals.copies as f64 / totals.delivered as f64,
            totals.copied_bytes as f64 / (totals.delivered as f64 * PAYLOAD_BYTES as f64),
        );
        println!("{totals:?}");
    }
}

/// What the network was, for judging what it did.
struct End {
    past: HashMap<Life, (usize, Instant, Option<Instant>)>,
    members: Vec<Vec<usize>>,
    links: HashSet<(usize, usize)>,
}

impl End {
    /// The incarnations that were up around `message` and joined with its publisher by others.
    fn reached(&self, message: &Sent) -> Vec<Life> {
        let stable = self.past.iter().filter(|(_, (place, born, ended))| {
            self.members[message.overlay].contains(place)
                && *born + SETTLED <= message.at
                && ended.is_none_or(|ended| ended >= message.at + SETTLED)
        });
        let stable: HashMap<usize, Life> = stable.map(|(life, past)| (past.0, *life)).collect();
        let from = self.past[&message.by].0;
        if !stable.contains_key(&from) {
            return Vec::new();
        }
        let (mut seen, mut open) = (HashSet::from([from]), vec![from]);
        while let Some(one) = open.pop() {
            for other in stable.keys() {
                let linked = self.links.contains(&(one.min(*other), one.max(*other)));
                if linked && seen.insert(*other) {
                    open.push(*other);
                }
            }
        }
        seen.remove(&from);
        seen.iter().map(|place| stable[place]).collect()
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args: Vec<u64> = std::env::args()
        .skip(1)
        .map(|arg| arg.parse().expect("a number"))
        .collect();
    let number = |index: usize, default: u64| args.get(index).copied().unwrap_or(default);
    let (nodes, overlays) = (number(0, 200) as usize, number(1, 50) as usize);
    let seconds = number(2, 60).max(30);
    let (reports, mut received) = mpsc::channel(100_000);
    let mut network = Network::new(nodes, overlays, number(3, 1), reports);
    let (mut plan, mut log) = (Plan::new(nodes, seconds), Log::default());
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    while Instant::now() < plan.end {
        tokio::select! {
            Some(report) = received.recv() => log.take(report),
            _ = tick.tick() => plan.carry_out(&mut network, &mut log).await,
        }
    }
    let end = network.end();
    while let Some(report) = received.recv().await {
        log.take(report);
    }
    let restarts = end.past.len() - nodes;
    println!("{nodes} nodes, {overlays} overlays, {seconds} s, {restarts} restarts");
    log.print(&plan, &end);
}

fn add(totals: &mut Counters, more: Counters) {
    totals.published += more.published;
    totals.delivered += more.delivered;
    totals.copies += more.copies;
    totals.copied_bytes += more.copied_bytes;
    totals.invalid_dropped += more.invalid_dropped;
    totals.replays_dropped += more.replays_dropped;
    totals.announcements_refused += more.announcements_refused;
    totals.lost_to_slow += more.lost_to_slow;
    totals.lost_to_limits += more.lost_to_limits;
    totals.banned += more.banned;
}
