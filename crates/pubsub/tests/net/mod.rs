//! A network of machines in virtual time: no sockets, no clock, one seed.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "helpers of several tests; the time starts somewhere"
)]

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use calimero_network_primitives::{ContextId, Keypair, PeerId, Topic};
use calimero_network_pubsub::{
    Config, Event, MessageId, PublishError,
    machine::{Effect, Input, Machine, Received, Version},
    rpc::{Frame, Message, Rpc, next_frame},
    validate::Now,
};
use libp2p_swarm::ConnectionId;
use rand::{Rng, SeedableRng, rngs::StdRng};

pub fn topic(number: u32) -> Topic {
    let mut id = [0; 32];
    id[..4].copy_from_slice(&number.to_be_bytes());
    Topic::context(ContextId::new(id))
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

pub struct Node {
    pub machine: Machine,
    pub peer: PeerId,
    pub events: Vec<Event>,
    /// Bytes that this node reads in a second.
    pub reads: Option<usize>,
}

impl Node {
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
    Frames(usize, usize, ConnectionId, Vec<Frame>),
    Timeout(usize),
}

/// Machines, the links between them, and what is on its way.
pub struct Net {
    pub nodes: Vec<Node>,
    pub now: Now,
    pub rng: StdRng,
    pub latency: Duration,
    links: BTreeMap<(usize, usize), ConnectionId>,
    queue: BTreeMap<(Instant, u64), Step>,
    next: u64,
    /// When a link is free again, for nodes that read slowly.
    busy: BTreeMap<(usize, usize), Instant>,
    connections: usize,
    /// Bytes on the wire.
    pub bytes: usize,
    timeouts: Vec<Option<Instant>>,
    pub version: Version,
    /// One in so many writes finds the stream broken.
    pub loses: Option<u32>,
    /// Streams that are broken and not yet opened again, by their ends.
    broken: BTreeSet<(usize, usize)>,
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
            links: BTreeMap::new(),
            queue: BTreeMap::new(),
            next: 0,
            busy: BTreeMap::new(),
            connections: 1,
            bytes: 0,
            timeouts: Vec::new(),
            version: Version::V1_3,
            loses: None,
            broken: BTreeSet::new(),
        }
    }

    pub fn add(&mut self, config: &Config) -> usize {
        let keypair = Keypair::generate_ed25519();
        let peer = keypair.public().to_peer_id();
        let machine = Machine::new(keypair, config, self.rng.random(), self.now);
        self.nodes.push(Node {
            machine,
            peer,
            events: Vec::new(),
            reads: None,
        });
        self.timeouts.push(None);
        self.nodes.len() - 1
    }

    /// Replaces a node by one with the same key that knows nothing; its links are as before.
    pub fn index_of(&self, peer: PeerId) -> usize {
        self.nodes
            .iter()
            .position(|node| node.peer == peer)
            .unwrap()
    }

    fn push(&mut self, at: Instant, step: Step) {
        self.next += 1;
        self.queue.insert((at, self.next), step);
    }

    fn link(&self, one: usize, other: usize) -> Option<ConnectionId> {
        self.links.get(&(one.min(other), one.max(other))).copied()
    }

    pub fn connect(&mut self, one: usize, other: usize) {
        if one == other || self.link(one, other).is_some() {
            return;
        }
        let connection = ConnectionId::new_unchecked(self.connections);
        self.connections += 1;
        self.links
            .insert((one.min(other), one.max(other)), connection);
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

    pub fn disconnect(&mut self, one: usize, other: usize) {
        let Some(connection) = self.links.remove(&(one.min(other), one.max(other))) else {
            return;
        };
        for (me, to) in [(one, other), (other, one)] {
            let peer = self.nodes[to].peer;
            self.handle(me, Input::Disconnected { peer, connection });
        }
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
        let connection = self.link(from, to).unwrap();
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
            Effect::Emit(event) => self.nodes[me].events.push(event),
            Effect::KeepAlive { .. } => {}
            Effect::Close { peer } => {
                let other = self.index_of(peer);
                self.disconnect(me, other);
            }
            Effect::Open {
                peer, connection, ..
            } => {
                let (other, at) = (self.index_of(peer), self.now.at + self.latency);
                self.broken.remove(&(me, other));
                let version = self.version;
                self.push(
                    at,
                    Step::Input(
                        other,
                        Input::Accepted {
                            peer: my_peer,
                            connection,
                        },
                    ),
                );
                self.push(
                    at,
                    Step::Input(
                        me,
                        Input::Opened {
                            peer,
                            connection,
                            version,
                        },
                    ),
                );
            }
            Effect::Send {
                peer,
                connection,
                frames,
            } => {
                let other = self.index_of(peer);
                if self.broken.contains(&(me, other)) {
                    return;
                }
                let lost = self.loses.is_some_and(|n| self.rng.random_ratio(1, n));
                let (count, bytes) = (frames.len(), frames.iter().map(Frame::len).sum::<usize>());
                self.bytes += bytes;
                let mut at = self.now.at;
                if let Some(rate) = self.nodes[other].reads {
                    let free = self.busy.get(&(me, other)).copied().unwrap_or(at).max(at);
                    at = free + Duration::from_secs_f64(bytes as f64 / rate as f64);
                    self.busy.insert((me, other), at);
                }
                if lost {
                    self.broken.insert((me, other));
                    self.push(
                        at + self.latency,
                        Step::Input(me, Input::Lost { peer, connection }),
                    );
                    return;
                }
                self.push(
                    at + self.latency,
                    Step::Frames(me, other, connection, frames),
                );
                self.push(
                    at,
                    Step::Input(
                        me,
                        Input::Written {
                            peer,
                            connection,
                            frames: count,
                        },
                    ),
                );
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
                Step::Input(me, input) => {
                    if self.is_current(me, &input) {
                        self.handle(me, input);
                    }
                }
                Step::Frames(from, to, connection, frames) => {
                    if self.link(from, to) != Some(connection) {
                        continue;
                    }
                    let peer = self.nodes[from].peer;
                    let rpcs = receive(&self.nodes[to].machine, &peer, &frames, self.now);
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
        self.link(me, self.index_of(*peer)) == Some(*connection)
    }

    fn advance(&mut self, at: Instant) {
        let at = at.max(self.now.at);
        self.now.unix += at - self.now.at;
        self.now.at = at;
    }
}
