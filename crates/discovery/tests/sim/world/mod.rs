//! A network in virtual time: machines as nodes, boot nodes as what they serve, links with
//! latency, loss, NATs and partitions. Everything follows from the seed.

mod boot;
mod faults;
mod links;
mod names;
mod node;
mod queue;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use calimero_network_discovery::machine::{
    AttemptId, AttemptKind, CacheEntry, Effect, HolePunch, Input, Machine, Namespace, Path,
    ProbeOutcome, RendezvousFailure,
};
use calimero_network_primitives::{Multiaddr, config::DiscoveryConfig, multiaddr::Protocol};
use rand::{RngExt, SeedableRng, rngs::StdRng};

pub(crate) use self::{boot::Server, node::Nat};
use self::{
    boot::{Answer, Boot},
    names::{FIRST_NODE, Id, address, id, namespace, peer},
    node::Node,
    queue::Queue,
};

/// Time after which a request or a dial without an answer fails.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) nodes: u32,
    pub(crate) boot_nodes: u32,
    pub(crate) server: Server,
    pub(crate) overlays: u32,
    pub(crate) overlays_per_node: u32,
    /// Nodes out of a hundred that stand behind a NAT.
    pub(crate) behind_nat: u32,
    /// Messages and dials out of a hundred that are lost.
    pub(crate) loss: u32,
    /// Nodes out of a hundred that die each minute, without a word, and return a minute later.
    pub(crate) churn: u32,
    /// Hole punches of each pair of nodes that fail before one may succeed.
    pub(crate) failing_punches: u32,
    /// Time within which the nodes start.
    pub(crate) start_within: Duration,
    /// Peers and members that a node remembers, where that is fewer than by default.
    pub(crate) memory: Option<u32>,
    pub(crate) seed: u64,
}

enum Event {
    Start(Id),
    Wake(Id),
    /// For one life of a node.
    Tell(Id, u32, Box<Input>),
    /// What a boot node answers, for one life of a node.
    Answered(Id, u32, Box<Answer>),
    Connect {
        from: Id,
        to: Id,
        through: Multiaddr,
    },
    /// Both ends of a relayed connection try to reach each other.
    Punch {
        one: Id,
        other: Id,
    },
    /// The dial of an attempt of the direct path ends.
    Attempt {
        id: AttemptId,
        kind: AttemptKind,
        from: Id,
        to: Id,
        through: Option<Multiaddr>,
    },
    /// A request of a node reaches a boot node.
    Serve {
        node: Id,
        server: Id,
        effect: Box<Effect>,
    },
    Cut {
        one: Id,
        other: Id,
    },
    /// A node closes its unused connections.
    Tidy(Id),
    Die,
    Return(Id, Vec<CacheEntry>),
}

pub(crate) struct World {
    settings: Settings,
    epoch: Instant,
    now: Duration,
    rng: StdRng,
    queue: Queue<Event>,
    pub(crate) boots: BTreeMap<Id, Boot>,
    pub(crate) nodes: Vec<Node>,
    config: DiscoveryConfig,
    namespaces: Vec<Namespace>,
    /// Hole punches of each pair of nodes.
    punches: BTreeMap<(Id, Id), u32>,
    pub(crate) events: u64,
}

impl World {
    /// Boot nodes are up; nodes are about to start.
    #[allow(
        clippy::disallowed_methods,
        reason = "a simulation has to start somewhere"
    )]
    pub(crate) fn new(settings: Settings) -> Self {
        let mut world = Self {
            settings,
            epoch: Instant::now(),
            now: Duration::ZERO,
            rng: StdRng::seed_from_u64(settings.seed),
            queue: Queue::default(),
            boots: BTreeMap::new(),
            nodes: Vec::with_capacity(settings.nodes as usize),
            config: DiscoveryConfig::default(),
            namespaces: (0..settings.overlays).map(namespace).collect(),
            punches: BTreeMap::new(),
            events: 0,
        };
        for boot in 1..=settings.boot_nodes {
            let boot_node = Boot::new(settings.server, world.rng.random());
            world.boots.insert(boot, boot_node);
        }
        world.config = world.configuration();
        for number in 0..settings.nodes {
            world.add_node(FIRST_NODE + number);
        }
        if settings.churn > 0 {
            world.after(Duration::from_secs(60), Event::Die);
        }
        world
    }

    fn add_node(&mut self, node: Id) {
        let machine = self.machine(node);
        let mut overlays = BTreeSet::new();
        while overlays.len() < self.settings.overlays_per_node as usize {
            overlays.insert(self.rng.random_range(0..self.settings.overlays));
        }
        let overlays: Vec<_> = overlays.into_iter().collect();
        let behind_nat = self.rng.random_range(0..100) < self.settings.behind_nat;
        let kind = Nat::of(self.rng.random_range(0..100));
        self.nodes.push(Node {
            machine,
            up: true,
            life: 0,
            nat: if behind_nat { kind } else { Nat::None },
            side: 0,
            ahead: Duration::ZERO,
            address: address(node),
            unmet: overlays.clone(),
            overlays,
            registered: Arc::default(),
            links: BTreeMap::new(),
            listeners: BTreeMap::new(),
            wake: None,
            unused: BTreeMap::new(),
            attempts: BTreeMap::new(),
            failed_punches: 0,
            dials: 0,
            messages: 0,
            joined: None,
        });
        let within = self.settings.start_within.max(Duration::from_millis(1));
        let start = within.mul_f64(self.rng.random());
        self.after(start, Event::Start(node));
        let first = start + links::TIDY.mul_f64(self.rng.random());
        self.after(first, Event::Tidy(node));
    }

    /// That of every node.
    fn configuration(&self) -> DiscoveryConfig {
        let boot = |boot: &Id| address(*boot).with(Protocol::P2p(peer(*boot)));
        let mut config = DiscoveryConfig {
            boot: self.boots.keys().map(boot).collect(),
            ..DiscoveryConfig::default()
        };
        if let Some(memory) = self.settings.memory {
            config.max_peers = memory;
            config.rendezvous.max_members = memory;
        }
        config
    }

    fn machine(&mut self, node: Id) -> Machine {
        let (seed, now) = (self.rng.random(), self.epoch + self.now);
        Machine::new(self.config.clone(), peer(node), seed, now).unwrap()
    }

    pub(crate) fn now(&self) -> Duration {
        self.now
    }

    /// Runs until `end`, or until every node has joined all its overlays.
    pub(crate) fn run_until(&mut self, end: Duration, stop_when_joined: bool) {
        let waiting = self.nodes.iter().filter(|node| node.joined.is_none());
        let mut missing = waiting.count();
        while !(stop_when_joined && missing == 0)
            && let Some((at, event)) = self.queue.pop_until(end)
        {
            self.now = at;
            self.events += 1;
            missing -= self.happen(event);
        }
        if missing > 0 || !stop_when_joined {
            self.now = end;
        }
    }

    fn after(&mut self, wait: Duration, event: Event) {
        self.queue.push(self.now + wait, event);
    }

    fn later(&mut self, wait: Duration, node: Id, input: Input) {
        if let Some(life) = self.node(node).map(|node| node.life) {
            self.after(wait, Event::Tell(node, life, Box::new(input)));
        }
    }

    fn latency(&mut self) -> Duration {
        Duration::from_millis(self.rng.random_range(10..100))
    }

    fn is_lost(&mut self) -> bool {
        self.rng.random_range(0..100) < self.settings.loss
    }

    fn node(&mut self, node: Id) -> Option<&mut Node> {
        self.nodes.get_mut(node.checked_sub(FIRST_NODE)? as usize)
    }

    fn ids(&self) -> impl Iterator<Item = Id> + use<> {
        FIRST_NODE..FIRST_NODE + self.settings.nodes
    }

    /// Returns how many nodes have just joined all their overlays.
    fn happen(&mut self, event: Event) -> usize {
        match event {
            Event::Start(node) => {
                let overlays = self.node(node).map(|node| node.overlays.clone());
                for overlay in overlays.into_iter().flatten() {
                    let namespace = self.namespaces[overlay as usize].clone();
                    self.tell(node, Input::Follow(namespace));
                }
            }
            Event::Wake(node) => {
                let now = self.now;
                let due = self.node(node).filter(|node| node.wake == Some(now));
                if due.is_some_and(|node| node.wake.take().is_some()) {
                    self.tell(node, Input::Timeout);
                }
            }
            Event::Tell(node, life, input) => {
                if self.node(node).is_some_and(|node| node.life == life) {
                    self.tell(node, *input);
                }
            }
            Event::Answered(node, life, answer) => {
                if self.node(node).is_some_and(|node| node.life == life) {
                    self.tell(node, answer.input());
                }
            }
            Event::Connect { from, to, through } => return self.connect(from, to, through),
            Event::Punch { one, other } => self.punch(one, other),
            Event::Attempt {
                id,
                kind,
                from,
                to,
                through,
            } => self.attempt_ends(id, kind, from, to, through),
            Event::Serve {
                node,
                server,
                effect,
            } => self.serve(node, server, *effect),
            Event::Cut { one, other } => {
                if !self.is_linked(one, other) {
                    self.close(one, other);
                }
            }
            Event::Tidy(node) => self.tidy(node),
            Event::Die => self.churn(),
            Event::Return(node, cache) => self.restart_node(node, cache),
        }
        0
    }

    fn tell(&mut self, node: Id, input: Input) {
        let (epoch, now) = (self.epoch, self.now);
        let Some(state) = self.node(node).filter(|node| node.up) else {
            return;
        };
        let clock = state.clock(epoch, now);
        state.messages += u64::from(!matches!(input, Input::Timeout | Input::MemberSeen { .. }));
        state.machine.handle(input, clock);
        let effects: Vec<_> = std::iter::from_fn(|| state.machine.poll_effect()).collect();
        let next = state.machine.next_timeout();
        let wait = next.map(|at| at.saturating_duration_since(clock));
        let wake = wait.map(|wait| now + wait);
        let earlier = state.wake.is_none_or(|set| set < now || wake < Some(set));
        if let Some(wait) = wait.filter(|_| earlier) {
            state.wake = wake;
            self.after(wait, Event::Wake(node));
        }
        for effect in effects {
            self.carry_out(node, effect);
        }
    }

    fn carry_out(&mut self, node: Id, effect: Effect) {
        let server = effect.peer().map(|peer| id(&peer));
        match effect {
            Effect::Dial {
                peer, addresses, ..
            } => {
                let addresses = addresses.into_iter().map(Multiaddr::from).collect();
                self.dial(node, id(&peer), addresses);
            }
            Effect::Register { .. }
            | Effect::Unregister { .. }
            | Effect::Discover { .. }
            | Effect::Reserve { .. } => {
                let Some(server) = server else { return };
                if let Some(state) = self.node(node) {
                    state.messages += 1;
                }
                let latency = self.latency();
                let serve = Event::Serve {
                    node,
                    server,
                    effect: Box::new(effect),
                };
                self.after(latency, serve);
            }
            Effect::StopListening { listener } => {
                let relay = self.node(node).and_then(|n| n.listeners.remove(&listener));
                if let Some(boot) = relay.and_then(|relay| self.boots.get_mut(&relay)) {
                    boot.slots.remove(&node);
                }
            }
            Effect::Probe { address } => self.probe(node, address),
            Effect::AddExternalAddress { address } => {
                if let Some(node) = self.node(node) {
                    node.add_external(address);
                }
            }
            Effect::RemoveExternalAddress { address } => {
                if let Some(node) = self.node(node) {
                    node.remove_external(&address);
                }
            }
            Effect::DialCircuits { peer, addresses } => {
                let addresses = addresses.into_iter().map(Multiaddr::from).collect();
                self.dial_circuits(node, id(&peer), addresses);
            }
            Effect::CloseRelayed { peer } => self.close_relayed(node, id(&peer)),
            Effect::Attempt {
                id: attempt,
                kind,
                peer,
                addresses,
            } => {
                let addresses: Vec<_> = addresses.into_iter().map(Multiaddr::from).collect();
                self.attempt(attempt, kind, node, id(&peer), &addresses);
            }
            Effect::CloseAttempt { id, .. } => self.close_attempt(node, id),
            Effect::HolePunchEnded { outcome, .. } => {
                if let Some(node) = self.node(node) {
                    node.failed_punches += u64::from(outcome == HolePunch::Failed);
                }
            }
            Effect::Disconnect { .. }
            | Effect::ProbeConnections { .. }
            | Effect::OfferCandidate { .. }
            | Effect::AddRoutingAddress { .. }
            | Effect::RemoveRoutingAddress { .. }
            | Effect::ServeProbes(_)
            | Effect::RefreshRouting
            | Effect::BootNodeUnreachable { .. }
            | Effect::RefuseFollow { .. }
            | Effect::SaveCache => {}
        }
    }

    fn probe(&mut self, node: Id, address: Multiaddr) {
        let latency = self.latency() * 4;
        let Some(state) = self.node(node) else { return };
        let (open, links) = (state.nat.is_open(), &state.links);
        let server = links.keys().copied().find(|id| *id < FIRST_NODE);
        let outcome = match server {
            None => ProbeOutcome::NotTried,
            Some(_) if open => ProbeOutcome::Reached,
            Some(_) => ProbeOutcome::NotReached,
        };
        let probed = Input::Probed {
            address,
            server: peer(server.unwrap_or_default()),
            outcome,
        };
        self.later(latency, node, probed);
    }

    fn serve(&mut self, node: Id, server: Id, effect: Effect) {
        let (lost, chance) = (self.is_lost(), self.rng.random());
        if lost || !self.is_linked(node, server) {
            if let Some(input) = unanswered(effect) {
                self.later(ANSWER_TIMEOUT, node, input);
            }
            return;
        }
        let Some(external) = self.node(node).map(|node| Arc::clone(&node.registered)) else {
            return;
        };
        let Some(boot) = self.boots.get_mut(&server) else {
            return;
        };
        let answer = boot.serve(node, external, chance, effect);
        if let Some(Answer::Told(Input::ReservationAccepted { listener, .. })) = &answer {
            let listener = *listener;
            self.node(node)
                .map(|node| node.listeners.insert(listener, server));
        }
        if let Some(answer) = answer
            && let Some(life) = self.node(node).map(|node| node.life)
        {
            let latency = self.latency();
            self.after(latency, Event::Answered(node, life, Box::new(answer)));
        }
    }

    /// How many registrations a boot node holds, and how many nodes have a slot.
    pub(crate) fn held(&self, boot: Id) -> (usize, usize) {
        let boot = &self.boots[&boot];
        (boot.held(), boot.slots.len())
    }

    /// Most connections of any node.
    pub(crate) fn most_connections(&self) -> usize {
        let counts = self.nodes.iter().map(|node| node.links.len());
        counts.max().unwrap_or(0)
    }

    /// Puts every node behind a NAT of one kind.
    pub(crate) fn put_behind(&mut self, nat: Nat) {
        for node in &mut self.nodes {
            node.nat = nat;
        }
    }

    /// Direct and relayed connections of each node with other nodes.
    pub(crate) fn links(&self) -> Vec<(usize, usize)> {
        let of_node = |node: &Node| {
            let links = node.links.iter().filter(|(other, _)| **other >= FIRST_NODE);
            let (direct, relayed): (Vec<_>, Vec<_>) = links
                .flat_map(|(_, link)| link.paths())
                .partition(|path| *path == Path::Direct);
            (direct.len(), relayed.len())
        };
        self.nodes.iter().map(of_node).collect()
    }

    /// Pairs of nodes that are connected directly, and through a relay alone.
    pub(crate) fn paths(&self) -> (usize, usize) {
        let links = self.nodes.iter().flat_map(|node| &node.links);
        let pairs = links.filter(|(other, _)| **other >= FIRST_NODE);
        let (direct, relayed): (Vec<_>, Vec<_>) = pairs.partition(|(_, link)| link.direct);
        (direct.len() / 2, relayed.len() / 2)
    }
}

fn unanswered(effect: Effect) -> Option<Input> {
    let why = RendezvousFailure::Unavailable;
    match effect {
        Effect::Register {
            server, namespace, ..
        } => Some(Input::RegisterFailed {
            server,
            namespace,
            why,
        }),
        Effect::Discover {
            server, namespace, ..
        } => Some(Input::DiscoverFailed {
            server,
            namespace,
            why,
        }),
        Effect::Reserve { listener, .. } => Some(Input::RelayListenerClosed { listener }),
        _ => None,
    }
}
