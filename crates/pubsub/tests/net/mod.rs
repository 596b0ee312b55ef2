//! A network of machines in virtual time: no sockets, no clock, one seed.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "helpers of several tests; the time starts somewhere"
)]

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use calimero_network_primitives::{ContextId, Keypair, PeerId, Topic};
use calimero_network_pubsub::{
    Config, Event, Message as Delivered, MessageId, PublishError,
    libp2p_swarm::ConnectionId,
    machine::{Effect, Input, Machine, Received, Version},
    rpc::{Frame, Message, Rpc, next_frame},
    validate::Now,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

pub mod script;

/// Bytes of a frame that a node with a slow reader reports as written before the whole frame is.
const PROGRESS_BYTES: usize = 16 * 1024;

pub fn topic(number: u32) -> Topic {
    let mut id = [0; 32];
    id[..4].copy_from_slice(&number.to_be_bytes());
    Topic::context(ContextId::new(id))
}

fn decode(frame: &Frame) -> Rpc {
    let mut bytes = BytesMut::from(frame.head());
    bytes.extend_from_slice(frame.body());
    Rpc::decode(next_frame(&mut bytes, 2 << 20).unwrap().unwrap()).unwrap()
}

/// Reads frames as a connection does.
pub fn receive(machine: &Machine, from: &PeerId, frames: &[Frame], now: Now) -> Vec<Received> {
    let mut bytes = BytesMut::new();
    for frame in frames {
        bytes.extend_from_slice(frame.head());
        bytes.extend_from_slice(frame.body());
    }
    let mut out = Vec::new();
    while let Some(frame) = next_frame(&mut bytes, 2 << 20).unwrap() {
        let rpc = Rpc::decode(frame).unwrap();
        let parsed: Vec<_> = rpc
            .messages
            .iter()
            .map(|raw| Message::parse(raw).unwrap())
            .collect();
        out.push(Received {
            unsigned: parsed.iter().filter(|message| message.is_none()).count(),
            messages: parsed
                .into_iter()
                .flatten()
                .map(|message| machine.validator().check(message, from, now))
                .collect(),
            subscriptions: rpc.subscriptions,
            control: rpc.control,
            control_entries: rpc.control_entries,
        });
    }
    out
}

/// What a node does not send although it should.
#[derive(Clone, Default)]
pub enum Withholds {
    #[default]
    Nothing,
    /// All messages of others.
    Others,
    /// The messages of these authors.
    Of(Arc<HashSet<PeerId>>),
}

pub struct Node {
    pub machine: Machine,
    pub peer: PeerId,
    keypair: Keypair,
    config: Config,
    pub events: Vec<Event>,
    /// Bytes that this node reads in a second.
    pub reads: Option<usize>,
    pub withholds: Withholds,
    /// Messages that have arrived, if they are collected, and when.
    pub collected: Option<Vec<(Instant, Bytes)>>,
    /// Bytes that this node has sent.
    pub sent_bytes: usize,
}

impl Node {
    /// Removes the frames that this node withholds.
    fn withhold(&self, frames: &mut Vec<Frame>) {
        let is_withheld = |author: &PeerId| match &self.withholds {
            Withholds::Nothing => false,
            Withholds::Others => *author != self.peer,
            Withholds::Of(authors) => authors.contains(author),
        };
        if matches!(self.withholds, Withholds::Nothing) {
            return;
        }
        frames.retain(|frame| {
            let messages = decode(frame).messages;
            let mut parsed = messages.iter().flat_map(|raw| Message::parse(raw).unwrap());
            !parsed.any(|message| is_withheld(&message.author))
        });
    }

    pub fn messages(&self) -> Vec<Bytes> {
        let messages = self.events.iter().filter_map(|event| match event {
            Event::Message(message) => Some(message.data.clone()),
            _ => None,
        });
        messages.collect()
    }
}

enum Step {
    Input(usize, Input),
    /// Bytes for another node are written, on a stream that has been broken so often.
    Written(usize, usize, usize, u32, Input),
    Frames(usize, usize, ConnectionId, Vec<Frame>),
    Timeout(usize),
}

/// Machines, the links between them, and what is on its way.
pub struct Net {
    pub nodes: Vec<Node>,
    pub now: Now,
    pub rng: StdRng,
    pub latency: Duration,
    /// Latencies of which every connection has one. If there is none, all have `latency`.
    pub latencies: Vec<Duration>,
    drawn: HashMap<ConnectionId, Duration>,
    indices: HashMap<PeerId, usize>,
    /// Messages that were delivered, and where, instead of events.
    pub deliveries: Option<Vec<(usize, Instant, Delivered)>>,
    /// Time by which every second connection of two nodes is slower than `latency`.
    pub skew: Duration,
    slow: BTreeSet<ConnectionId>,
    links: BTreeMap<(usize, usize), Vec<ConnectionId>>,
    queue: BTreeMap<(Instant, u64), Step>,
    next: u64,
    /// When a link is free again, for nodes that read slowly.
    busy: BTreeMap<(usize, usize), Instant>,
    /// Bytes that wait to be written, by writer and reader.
    unwritten: BTreeMap<(usize, usize), usize>,
    connections: usize,
    /// Bytes on the wire.
    pub bytes: usize,
    /// RPCs that the recorded node has sent, by receiver.
    pub sent: BTreeMap<usize, Vec<Rpc>>,
    /// The node whose RPCs are recorded.
    pub record: Option<usize>,
    timeouts: Vec<Option<Instant>>,
    pub version: Version,
    /// No node reads the number of topics that an announcement contains, as other implementations
    /// do not.
    pub ignores_counts: bool,
    /// One in so many writes finds the stream broken.
    pub loses: Option<u32>,
    /// Streams that are broken and not yet opened again, by their writers and connections.
    broken: BTreeSet<(usize, ConnectionId)>,
    /// Connections that take all that is written, and carry nothing.
    pub blocked: BTreeSet<ConnectionId>,
    /// Whether a node keeps a connection alive.
    pub kept: BTreeMap<(usize, ConnectionId), bool>,
    /// How often the streams of a writer on a connection have been broken.
    breaks: BTreeMap<(usize, ConnectionId), u32>,
}

impl Net {
    pub fn new(seed: u64) -> Self {
        Self {
            nodes: Vec::new(),
            now: Now {
                at: Instant::now(),
                unix: Duration::from_secs(1_800_000_000),
            },
            rng: StdRng::seed_from_u64(seed),
            latency: Duration::from_millis(20),
            latencies: Vec::new(),
            drawn: HashMap::new(),
            indices: HashMap::new(),
            deliveries: None,
            skew: Duration::ZERO,
            slow: BTreeSet::new(),
            links: BTreeMap::new(),
            queue: BTreeMap::new(),
            next: 0,
            busy: BTreeMap::new(),
            unwritten: BTreeMap::new(),
            connections: 1,
            bytes: 0,
            sent: BTreeMap::new(),
            record: None,
            timeouts: Vec::new(),
            version: Version::V1_3,
            ignores_counts: false,
            loses: None,
            broken: BTreeSet::new(),
            blocked: BTreeSet::new(),
            kept: BTreeMap::new(),
            breaks: BTreeMap::new(),
        }
    }

    pub fn add(&mut self, config: &Config) -> usize {
        self.add_with(Keypair::generate_ed25519(), config)
    }

    /// Adds a node with a given key.
    pub fn add_with(&mut self, keypair: Keypair, config: &Config) -> usize {
        let machine = Machine::new(keypair.clone(), config, self.rng.random(), self.now);
        let peer = keypair.public().to_peer_id();
        self.indices.insert(peer, self.nodes.len());
        self.nodes.push(Node {
            machine,
            peer,
            keypair,
            config: config.clone(),
            events: Vec::new(),
            reads: None,
            withholds: Withholds::Nothing,
            collected: None,
            sent_bytes: 0,
        });
        self.timeouts.push(None);
        self.nodes.len() - 1
    }

    /// Restarts a node under another identity.
    pub fn restart_as(&mut self, node: usize, keypair: Keypair) {
        for other in self.links_of(node) {
            self.disconnect(node, other);
        }
        let peer = keypair.public().to_peer_id();
        self.indices.insert(peer, node);
        (self.nodes[node].peer, self.nodes[node].keypair) = (peer, keypair);
        self.restart(node);
    }

    /// Closes all connections of a node and replaces it by one with the same key that knows
    /// nothing.
    pub fn restart(&mut self, node: usize) {
        for other in self.links_of(node) {
            self.disconnect(node, other);
        }
        let seed = self.rng.random();
        let old = &mut self.nodes[node];
        old.machine = Machine::new(old.keypair.clone(), &old.config, seed, self.now);
        old.events.clear();
        self.timeouts[node] = None;
    }

    pub fn index_of(&self, peer: PeerId) -> usize {
        self.indices[&peer]
    }

    fn push(&mut self, at: Instant, step: Step) {
        self.next += 1;
        self.queue.insert((at, self.next), step);
    }

    /// The connections between two nodes, the oldest first.
    pub fn connections(&self, one: usize, other: usize) -> &[ConnectionId] {
        let link = self.links.get(&(one.min(other), one.max(other)));
        link.map_or(&[], Vec::as_slice)
    }

    /// The id of the connection that is opened next.
    pub fn next_connection(&self) -> ConnectionId {
        ConnectionId::new_unchecked(self.connections)
    }

    /// Connects two nodes that are not connected.
    pub fn connect(&mut self, one: usize, other: usize) {
        if self.connections(one, other).is_empty() {
            self.connect_again(one, other);
        }
    }

    /// Opens one more connection between two nodes.
    pub fn connect_again(&mut self, one: usize, other: usize) {
        if one == other {
            return;
        }
        let connection = self.next_connection();
        self.connections += 1;
        let link = self.links.entry((one.min(other), one.max(other)));
        let link = link.or_default();
        link.push(connection);
        if !self.latencies.is_empty() {
            let index = self.rng.random_range(0..self.latencies.len());
            self.drawn.insert(connection, self.latencies[index]);
        }
        if link.len().is_multiple_of(2) {
            self.slow.insert(connection);
        }
        for (me, to, dialled) in [(one, other, true), (other, one, false)] {
            let peer = self.nodes[to].peer;
            let input = Input::Connected {
                peer,
                connection,
                dialled,
                ip: None,
            };
            self.handle(me, input);
        }
    }

    /// Closes all connections between two nodes.
    pub fn disconnect(&mut self, one: usize, other: usize) {
        while let Some(connection) = self.connections(one, other).first().copied() {
            self.disconnect_one(one, other, connection);
        }
    }

    /// Closes one connection between two nodes.
    pub fn disconnect_one(&mut self, one: usize, other: usize, connection: ConnectionId) {
        if !self.remove_link(one, other, connection) {
            return;
        }
        for (me, to) in [(one, other), (other, one)] {
            let peer = self.nodes[to].peer;
            self.handle(me, Input::Disconnected { peer, connection });
        }
    }

    /// A connection fails, which `one` observes and `other` does not.
    pub fn fail_for(&mut self, one: usize, other: usize, connection: ConnectionId) {
        if self.remove_link(one, other, connection) {
            let peer = self.nodes[other].peer;
            self.handle(one, Input::Disconnected { peer, connection });
        }
    }

    /// Removes a connection. Returns `false` if it does not exist.
    fn remove_link(&mut self, one: usize, other: usize, connection: ConnectionId) -> bool {
        let key = (one.min(other), one.max(other));
        let Some(link) = self.links.get_mut(&key) else {
            return false;
        };
        let before = link.len();
        link.retain(|known| *known != connection);
        if link.len() == before {
            return false;
        }
        if link.is_empty() {
            self.links.remove(&key);
        }
        self.drawn.remove(&connection);
        for me in [one, other] {
            self.broken.remove(&(me, connection));
        }
        true
    }

    /// Breaks the stream that `me` writes to `to`; what it writes from now on is lost.
    pub fn break_stream(&mut self, me: usize, to: usize, connection: ConnectionId) {
        if self.broken.insert((me, connection)) {
            *self.breaks.entry((me, connection)).or_default() += 1;
            let (peer, at) = (
                self.nodes[to].peer,
                self.now.at + self.latency_of(connection),
            );
            self.push(at, Step::Input(me, Input::Lost { peer, connection }));
        }
    }

    fn latency_of(&self, connection: ConnectionId) -> Duration {
        let is_slow = self.slow.contains(&connection);
        let drawn = self.drawn.get(&connection).copied();
        drawn.unwrap_or(self.latency) + if is_slow { self.skew } else { Duration::ZERO }
    }

    /// Bytes that `me` has sent to `to` and that wait to be written.
    pub fn unwritten(&self, me: usize, to: usize) -> usize {
        self.unwritten.get(&(me, to)).copied().unwrap_or_default()
    }

    pub fn links_of(&self, node: usize) -> BTreeSet<usize> {
        let all = self.links.keys().filter(|(a, b)| *a == node || *b == node);
        all.map(|(a, b)| if *a == node { *b } else { *a }).collect()
    }

    pub fn subscribe(&mut self, node: usize, topic: &Topic) {
        self.nodes[node].machine.subscribe(topic, self.now).unwrap();
        self.drain(node);
    }

    pub fn unsubscribe(&mut self, node: usize, topic: &Topic) {
        self.nodes[node].machine.unsubscribe(topic, self.now);
        self.drain(node);
    }

    pub fn publish(
        &mut self,
        node: usize,
        topic: &Topic,
        data: impl Into<Bytes>,
    ) -> Result<MessageId, PublishError> {
        let result = self.nodes[node]
            .machine
            .publish(topic, data.into(), self.now);
        self.drain(node);
        result
    }

    pub fn handle(&mut self, node: usize, input: Input) {
        self.nodes[node].machine.handle(input, self.now);
        self.drain(node);
    }

    /// Sends bytes that no machine wrote.
    pub fn inject(&mut self, from: usize, to: usize, frames: Vec<Frame>) {
        let connection = *self.connections(from, to).first().unwrap();
        let at = self.now.at + self.latency;
        self.push(at, Step::Frames(from, to, connection, frames));
    }

    fn drain(&mut self, me: usize) {
        let mut effects = VecDeque::new();
        while let Some(effect) = self.nodes[me].machine.poll(self.now) {
            effects.push_back(effect);
        }
        for effect in effects {
            self.carry_out(me, effect);
        }
        let timeout = self.nodes[me].machine.next_timeout();
        if self.timeouts[me] != timeout {
            self.timeouts[me] = timeout;
            if let Some(at) = timeout {
                self.push(at.max(self.now.at), Step::Timeout(me));
            }
        }
    }

    fn carry_out(&mut self, me: usize, effect: Effect) {
        let my_peer = self.nodes[me].peer;
        match effect {
            Effect::Emit(event) => match (event, &mut self.deliveries) {
                (Event::Message(message), Some(deliveries)) => {
                    deliveries.push((me, self.now.at, message));
                }
                (event, _) => self.nodes[me].events.push(event),
            },
            Effect::KeepAlive {
                connection, keep, ..
            } => {
                self.kept.insert((me, connection), keep);
            }
            Effect::Close { peer } => {
                let other = self.index_of(peer);
                self.disconnect(me, other);
            }
            Effect::Open {
                peer, connection, ..
            } => {
                let (other, version) = (self.index_of(peer), self.version);
                let at = self.now.at + self.latency_of(connection);
                self.broken.remove(&(me, connection));
                if self.blocked.contains(&connection) {
                    return;
                }
                let accepted = Input::Accepted {
                    peer: my_peer,
                    connection,
                };
                self.push(at, Step::Input(other, accepted));
                let opened = Input::Opened {
                    peer,
                    connection,
                    version,
                };
                self.push(at, Step::Input(me, opened));
            }
            Effect::Send {
                peer,
                connection,
                mut frames,
            } => {
                let other = self.index_of(peer);
                let count = frames.len();
                self.nodes[me].withhold(&mut frames);
                if self.broken.contains(&(me, connection)) {
                    return;
                }
                if self.loses.is_some_and(|n| self.rng.random_ratio(1, n)) {
                    self.break_stream(me, other, connection);
                    return;
                }
                let bytes = frames.iter().map(Frame::len).sum::<usize>();
                self.bytes += bytes;
                self.nodes[me].sent_bytes += bytes;
                if self.record == Some(me) {
                    let rpcs = self.sent.entry(other).or_default();
                    rpcs.extend(frames.iter().map(decode));
                }
                let mut at = self.now.at;
                let breaks = self.breaks.get(&(me, connection)).copied();
                let breaks = breaks.unwrap_or_default();
                *self.unwritten.entry((me, other)).or_default() += bytes;
                let mut rest = bytes;
                if let Some(rate) = self.nodes[other].reads {
                    let free = self.busy.get(&(me, other)).copied().unwrap_or(at).max(at);
                    let time_of =
                        |bytes: usize| Duration::from_secs_f64(bytes as f64 / rate as f64);
                    at = free + time_of(bytes);
                    self.busy.insert((me, other), at);
                    while rest > PROGRESS_BYTES {
                        rest -= PROGRESS_BYTES;
                        let progress = Input::Written {
                            peer,
                            connection,
                            frames: 0,
                            bytes: PROGRESS_BYTES,
                        };
                        let step = Step::Written(me, other, PROGRESS_BYTES, breaks, progress);
                        self.push(free + time_of(bytes - rest), step);
                    }
                }
                let arrival = at + self.latency_of(connection);
                if !self.blocked.contains(&connection) {
                    self.push(arrival, Step::Frames(me, other, connection, frames));
                }
                let written = Input::Written {
                    peer,
                    connection,
                    frames: count,
                    bytes: rest,
                };
                self.push(at, Step::Written(me, other, rest, breaks, written));
            }
        }
    }

    /// Lets `time` pass in all nodes.
    pub fn run(&mut self, time: Duration) {
        let until = self.now.at + time;
        while let Some(entry) = self.queue.first_entry() {
            let at = entry.key().0;
            if at > until {
                break;
            }
            let step = entry.remove();
            self.advance(at);
            match step {
                Step::Written(me, other, bytes, breaks, input) => {
                    *self.unwritten.entry((me, other)).or_default() -= bytes;
                    let Input::Written { connection, .. } = input else {
                        continue;
                    };
                    // What was written to a stream that was lost is not reported any more.
                    let known = self.breaks.get(&(me, connection)).copied();
                    let is_same = known.unwrap_or_default() == breaks;
                    if is_same && self.is_current(me, &input) {
                        self.handle(me, input);
                    }
                }
                Step::Input(me, input) => {
                    if self.is_current(me, &input) {
                        self.handle(me, input);
                    }
                }
                Step::Frames(from, to, connection, frames) => {
                    if !self.connections(from, to).contains(&connection) {
                        continue;
                    }
                    let peer = self.nodes[from].peer;
                    if let Some(collected) = &mut self.nodes[to].collected {
                        let messages = frames.iter().flat_map(|frame| decode(frame).messages);
                        collected.extend(messages.map(|message| (at, message)));
                    }
                    let mut rpcs = receive(&self.nodes[to].machine, &peer, &frames, self.now);
                    if self.ignores_counts {
                        rpcs.iter_mut().for_each(|rpc| rpc.control.announces = None);
                    }
                    self.handle(
                        to,
                        Input::Received {
                            peer,
                            connection,
                            rpcs,
                        },
                    );
                }
                Step::Timeout(me) => {
                    if self.timeouts[me] == Some(at) || self.timeouts[me].is_some_and(|t| t <= at) {
                        self.timeouts[me] = None;
                        let now = self.now;
                        self.nodes[me].machine.handle_timeout(now);
                        self.drain(me);
                    }
                }
            }
        }
        self.advance(until);
    }

    fn is_current(&self, me: usize, input: &Input) -> bool {
        let (Input::Accepted { peer, connection }
        | Input::Opened {
            peer, connection, ..
        }
        | Input::Lost { peer, connection }
        | Input::Written {
            peer, connection, ..
        }) = input
        else {
            return true;
        };
        self.connections(me, self.index_of(*peer))
            .contains(connection)
    }

    fn advance(&mut self, at: Instant) {
        let at = at.max(self.now.at);
        self.now.unix += at - self.now.at;
        self.now.at = at;
    }
}
