//! A network in virtual time: machines as nodes, boot nodes as what they serve, links with
//! latency, loss and partitions. Everything follows from the seed.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    time::{Duration, Instant},
};

use calimero_network_discovery::machine::{
    Cookie, Effect, Input, Machine, Namespace, Path, ProbeOutcome, RelayListener, RendezvousFailure,
};
use calimero_network_primitives::{
    Multiaddr, PeerId, config::DiscoveryConfig, multiaddr::Protocol,
};
use rand::{Rng, SeedableRng, rngs::StdRng};

/// Time after which a dial that nobody answers fails.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// Time after which a silent link is given up, by the liveness check.
const SILENCE: Duration = Duration::from_secs(60);

pub(crate) type Id = u32;

pub(crate) fn peer(id: Id) -> PeerId {
    let [a, b, c, d] = id.to_be_bytes();
    PeerId::from_bytes(&[0, 4, a, b, c, d]).unwrap()
}

fn id(peer: &PeerId) -> Id {
    let bytes = peer.to_bytes();
    u32::from_be_bytes(bytes[2..6].try_into().unwrap())
}

fn address(id: Id) -> Multiaddr {
    let [_, a, b, c] = id.to_be_bytes();
    format!("/ip4/45.{a}.{b}.{c}/tcp/2428").parse().unwrap()
}

/// The relay an address leads through, if any.
fn relay_of(address: &Multiaddr) -> Option<Id> {
    let mut relay = None;
    for protocol in address {
        match protocol {
            Protocol::P2p(peer) => relay = Some(id(&peer)),
            Protocol::P2pCircuit => return relay,
            _ => {}
        }
    }
    None
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) nodes: u32,
    pub(crate) boot_nodes: u32,
    pub(crate) overlays: u32,
    pub(crate) overlays_per_node: u32,
    /// Nodes out of a hundred that cannot be dialled.
    pub(crate) behind_nat: u32,
    /// Messages and dials out of a hundred that are lost.
    pub(crate) loss: u32,
    pub(crate) seed: u64,
}

#[derive(Default)]
pub(crate) struct Boot {
    pub(crate) up: bool,
    sequence: u64,
    /// In the order in which a server of today's library tells them, which is that of a hash.
    registrations: BTreeMap<Namespace, BTreeMap<u64, (Id, Vec<Multiaddr>)>>,
    /// What each cookie stands for: the registrations told before it. Each serves once.
    cookies: BTreeMap<u64, BTreeSet<u64>>,
    slots: BTreeSet<Id>,
    pub(crate) requests: u64,
}

pub(crate) struct Node {
    machine: Machine,
    public: bool,
    /// Side of a partition.
    side: u32,
    overlays: BTreeSet<Namespace>,
    /// Overlays without a connected co-member, until there was one in each.
    unmet: BTreeSet<Namespace>,
    external: BTreeSet<Multiaddr>,
    connections: BTreeMap<Id, Path>,
    listeners: BTreeMap<RelayListener, Id>,
    wake: Option<Duration>,
    pub(crate) dials: u64,
    pub(crate) joined: Option<Duration>,
}

enum Event {
    Start(Id),
    Wake(Id),
    Tell(Id, Input),
    Connect {
        from: Id,
        to: Id,
        path: Path,
        through: Multiaddr,
    },
    /// A request of a node reaches a boot node.
    Serve {
        node: Id,
        server: Id,
        effect: Effect,
    },
    Cut {
        one: Id,
        other: Id,
    },
}

struct Timed(Duration, u64, Event);

impl PartialEq for Timed {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Timed {}
impl PartialOrd for Timed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Timed {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

pub(crate) struct World {
    settings: Settings,
    epoch: Instant,
    now: Duration,
    rng: StdRng,
    queue: BinaryHeap<Reverse<Timed>>,
    sequence: u64,
    pub(crate) boots: BTreeMap<Id, Boot>,
    pub(crate) nodes: BTreeMap<Id, Node>,
    pub(crate) events: u64,
}

impl World {
    /// Boot nodes are up; nodes start within the first second.
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
            queue: BinaryHeap::new(),
            sequence: 0,
            boots: BTreeMap::new(),
            nodes: BTreeMap::new(),
            events: 0,
        };
        for boot in 1..=settings.boot_nodes {
            let up = true;
            world.boots.insert(
                boot,
                Boot {
                    up,
                    ..Boot::default()
                },
            );
        }
        for number in 0..settings.nodes {
            world.add_node(1000 + number);
        }
        world
    }

    fn add_node(&mut self, node: Id) {
        let boot = |boot: &Id| address(*boot).with(Protocol::P2p(peer(*boot)));
        let config = DiscoveryConfig {
            boot: self.boots.keys().map(boot).collect(),
            ..DiscoveryConfig::default()
        };
        let seed = self.rng.random();
        let machine = Machine::new(config, peer(node), seed, self.epoch + self.now).unwrap();
        let mut overlays = BTreeSet::new();
        while overlays.len() < self.settings.overlays_per_node as usize {
            let number = self.rng.random_range(0..self.settings.overlays);
            overlays.insert(Namespace::new(&format!("/calimero/ctx/{number}")).unwrap());
        }
        let state = Node {
            machine,
            public: self.rng.random_range(0..100) >= self.settings.behind_nat,
            side: 0,
            unmet: overlays.clone(),
            overlays,
            external: BTreeSet::new(),
            connections: BTreeMap::new(),
            listeners: BTreeMap::new(),
            wake: None,
            dials: 0,
            joined: None,
        };
        self.nodes.insert(node, state);
        let start = Duration::from_millis(self.rng.random_range(0..1000));
        self.after(start, Event::Start(node));
    }

    pub(crate) fn now(&self) -> Duration {
        self.now
    }

    /// Runs until `end`, or until every node has joined all its overlays.
    pub(crate) fn run_until(&mut self, end: Duration, stop_when_joined: bool) {
        let mut missing = self
            .nodes
            .values()
            .filter(|node| node.joined.is_none())
            .count();
        while let Some(Reverse(Timed(at, ..))) = self.queue.peek() {
            if *at > end || (stop_when_joined && missing == 0) {
                break;
            }
            let Some(Reverse(Timed(at, _, event))) = self.queue.pop() else {
                break;
            };
            self.now = at;
            self.events += 1;
            if let Some(joined) = self.happen(event) {
                missing -= usize::from(joined);
            }
        }
        if missing > 0 || !stop_when_joined {
            self.now = end;
        }
    }

    fn after(&mut self, wait: Duration, event: Event) {
        self.sequence += 1;
        let timed = Timed(self.now + wait, self.sequence, event);
        self.queue.push(Reverse(timed));
    }

    fn latency(&mut self) -> Duration {
        Duration::from_millis(self.rng.random_range(10..100))
    }

    fn is_lost(&mut self) -> bool {
        self.rng.random_range(0..100) < self.settings.loss
    }

    /// Returns whether a node has just joined all its overlays.
    fn happen(&mut self, event: Event) -> Option<bool> {
        match event {
            Event::Start(node) => {
                let overlays = self.nodes.get(&node)?.overlays.clone();
                for overlay in overlays {
                    self.tell(node, Input::Follow(overlay));
                }
                Some(false)
            }
            Event::Wake(node) => {
                let state = self.nodes.get_mut(&node)?;
                if state.wake != Some(self.now) {
                    return None;
                }
                state.wake = None;
                Some(self.tell(node, Input::Timeout))
            }
            Event::Tell(node, input) => Some(self.tell(node, input)),
            Event::Connect {
                from,
                to,
                path,
                through,
            } => {
                self.connect(from, to, path, through);
                Some(false)
            }
            Event::Serve {
                node,
                server,
                effect,
            } => {
                self.serve(node, server, effect);
                Some(false)
            }
            Event::Cut { one, other } => {
                if !self.is_linked(one, other) {
                    self.close(one, other);
                }
                Some(false)
            }
        }
    }

    /// Whether packets pass between two of them.
    fn is_linked(&self, one: Id, other: Id) -> bool {
        let side = |id: Id| match self.boots.get(&id) {
            Some(boot) => boot.up.then_some(0),
            None => self.nodes.get(&id).map(|node| node.side),
        };
        side(one).is_some() && side(one) == side(other)
    }

    fn tell(&mut self, node: Id, input: Input) -> bool {
        let now = self.epoch + self.now;
        let Some(state) = self.nodes.get_mut(&node) else {
            return false;
        };
        state.machine.handle(input, now);
        let effects: Vec<_> = std::iter::from_fn(|| state.machine.poll_effect()).collect();
        let next = state.machine.next_timeout().map(|at| at - self.epoch);
        if let Some(next) = next
            && state.wake.is_none_or(|wake| next < wake || wake < self.now)
        {
            state.wake = Some(next);
            self.after(next.saturating_sub(self.now), Event::Wake(node));
        }
        for effect in effects {
            self.carry_out(node, effect);
        }
        self.notice_joined(node)
    }

    fn carry_out(&mut self, node: Id, effect: Effect) {
        match effect {
            Effect::Dial {
                peer, addresses, ..
            } => self.dial(node, id(&peer), addresses),
            Effect::Register { server, .. }
            | Effect::Unregister { server, .. }
            | Effect::Discover { server, .. } => {
                let (server, latency) = (id(&server), self.latency());
                self.after(
                    latency,
                    Event::Serve {
                        node,
                        server,
                        effect,
                    },
                );
            }
            Effect::Reserve { relay, .. } => {
                let (server, latency) = (id(&relay), self.latency() * 2);
                self.after(
                    latency,
                    Event::Serve {
                        node,
                        server,
                        effect,
                    },
                );
            }
            Effect::StopListening { listener } => {
                let relay = self
                    .nodes
                    .get_mut(&node)
                    .and_then(|n| n.listeners.remove(&listener));
                if let Some(boot) = relay.and_then(|relay| self.boots.get_mut(&relay)) {
                    boot.slots.remove(&node);
                }
            }
            Effect::Probe { address } => self.probe(node, address),
            Effect::AddExternalAddress { address } => {
                self.nodes
                    .get_mut(&node)
                    .map(|n| n.external.insert(address));
            }
            Effect::RemoveExternalAddress { address } => {
                self.nodes
                    .get_mut(&node)
                    .map(|n| n.external.remove(&address));
            }
            Effect::CloseRelayed { .. }
            | Effect::Disconnect { .. }
            | Effect::AddRoutingAddress { .. }
            | Effect::RemoveRoutingAddress { .. }
            | Effect::ServeProbes(_)
            | Effect::RefuseFollow { .. }
            | Effect::SaveCache => {}
        }
    }

    fn dial(&mut self, from: Id, to: Id, addresses: Vec<Multiaddr>) {
        if let Some(node) = self.nodes.get_mut(&from) {
            node.dials += 1;
        }
        let latency = self.latency() * 3;
        let open = !self.is_lost() && self.is_linked(from, to);
        let through = addresses
            .iter()
            .find(|address| open && self.leads(from, to, address));
        match through.cloned() {
            Some(through) => {
                let path = match relay_of(&through) {
                    Some(_) => Path::Relayed,
                    None => Path::Direct,
                };
                self.after(
                    latency,
                    Event::Connect {
                        from,
                        to,
                        path,
                        through,
                    },
                );
            }
            None => {
                let (peer, tried) = (peer(to), addresses);
                let failed = Input::DialFailed { peer, tried };
                self.after(DIAL_TIMEOUT, Event::Tell(from, failed));
            }
        }
    }

    fn leads(&self, from: Id, to: Id, through: &Multiaddr) -> bool {
        match relay_of(through) {
            Some(relay) => {
                let slot = self
                    .boots
                    .get(&relay)
                    .is_some_and(|boot| boot.slots.contains(&to));
                slot && self.is_linked(from, relay) && self.is_linked(relay, to)
            }
            None => {
                *through == address(to) && (self.boots.contains_key(&to) || self.nodes[&to].public)
            }
        }
    }

    fn connect(&mut self, from: Id, to: Id, path: Path, through: Multiaddr) {
        let known = self.nodes[&from].connections.contains_key(&to);
        if known || !self.is_linked(from, to) {
            let (peer, tried) = (peer(to), Vec::new());
            self.tell(from, Input::DialFailed { peer, tried });
            return;
        }
        for (one, other, dialled) in [(from, to, Some(through)), (to, from, None)] {
            let Some(node) = self.nodes.get_mut(&one) else {
                continue;
            };
            node.connections.insert(other, path);
            let peer = peer(other);
            self.tell(
                one,
                Input::ConnectionOpened {
                    peer,
                    path,
                    dialled,
                },
            );
            self.after_identify(one, other);
        }
    }

    /// What a connection brings: our address as the other sees it, and its subscriptions.
    fn after_identify(&mut self, node: Id, other: Id) {
        let latency = self.latency();
        if self.boots.contains_key(&other) {
            let candidate = Input::AddressCandidate(address(node));
            self.after(latency, Event::Tell(node, candidate));
            return;
        }
        let shared = &self.nodes[&node].overlays & &self.nodes[&other].overlays;
        if let Some(state) = self.nodes.get_mut(&node) {
            state.unmet.retain(|overlay| !shared.contains(overlay));
        }
        for namespace in shared {
            let peer = peer(other);
            let seen = Input::MemberSeen { namespace, peer };
            self.after(latency, Event::Tell(node, seen));
        }
    }

    fn close(&mut self, one: Id, other: Id) {
        for (node, other) in [(one, other), (other, one)] {
            if let Some(state) = self.nodes.get_mut(&node)
                && let Some(path) = state.connections.remove(&other)
            {
                let of_relay = state.listeners.iter().filter(|(_, relay)| **relay == other);
                let listeners: Vec<_> = of_relay.map(|(listener, _)| *listener).collect();
                if self.nodes[&node].joined.is_none() {
                    let unmet = self.unmet(&self.nodes[&node]);
                    self.nodes
                        .get_mut(&node)
                        .map(|state| std::mem::replace(&mut state.unmet, unmet));
                }
                let peer = peer(other);
                self.tell(node, Input::ConnectionClosed { peer, path });
                for listener in listeners {
                    self.nodes
                        .get_mut(&node)
                        .map(|n| n.listeners.remove(&listener));
                    self.tell(node, Input::RelayListenerClosed { listener });
                }
            }
            if let Some(boot) = self.boots.get_mut(&node) {
                boot.slots.remove(&other);
            }
        }
    }

    fn probe(&mut self, node: Id, address: Multiaddr) {
        let connected = self.nodes[&node].connections.keys();
        let server = connected.copied().find(|id| self.boots.contains_key(id));
        let outcome = match server {
            None => ProbeOutcome::NotTried,
            Some(_) if self.nodes[&node].public => ProbeOutcome::Reached,
            Some(_) => ProbeOutcome::NotReached,
        };
        let server = peer(server.unwrap_or_default());
        let latency = self.latency() * 4;
        let probed = Input::Probed {
            address,
            server,
            outcome,
        };
        self.after(latency, Event::Tell(node, probed));
    }

    fn serve(&mut self, node: Id, server: Id, effect: Effect) {
        let lost = self.is_lost();
        let answer = if lost || !self.is_linked(node, server) {
            (DIAL_TIMEOUT, unanswered(effect))
        } else {
            let external = self.nodes[&node].external.iter().cloned().collect();
            let Some(boot) = self.boots.get_mut(&server) else {
                return;
            };
            boot.requests += 1;
            let answer = boot.serve(node, external, effect);
            if let Some(Input::ReservationAccepted { listener }) = &answer {
                let (state, listener) = (self.nodes.get_mut(&node), *listener);
                state.map(|state| state.listeners.insert(listener, server));
            }
            (self.latency(), answer)
        };
        if let (wait, Some(input)) = answer {
            self.after(wait, Event::Tell(node, input));
        }
    }

    /// Returns whether `node` has just met a co-member in the last of its overlays.
    fn notice_joined(&mut self, node: Id) -> bool {
        match self.nodes.get_mut(&node) {
            Some(state) if state.joined.is_none() && state.unmet.is_empty() => {
                state.joined = Some(self.now);
                true
            }
            _ => false,
        }
    }

    /// The overlays of `node` in which nobody connected is.
    fn unmet(&self, node: &Node) -> BTreeSet<Namespace> {
        let mut unmet = node.overlays.clone();
        for other in node.connections.keys().filter_map(|id| self.nodes.get(id)) {
            unmet.retain(|overlay| !other.overlays.contains(overlay));
        }
        unmet
    }

    /// Forgets who has joined, so that the next time can be measured.
    pub(crate) fn forget_joined(&mut self) {
        let of_all = self.nodes.iter().map(|(id, node)| (*id, self.unmet(node)));
        for (id, unmet) in of_all.collect::<Vec<_>>() {
            if let Some(node) = self.nodes.get_mut(&id) {
                node.joined = None;
                node.unmet = unmet;
            }
        }
    }

    /// Cuts a share of the nodes off, without a word to anybody; or joins all again.
    pub(crate) fn partition(&mut self, out_of_a_hundred: u32) {
        for node in self.nodes.values_mut() {
            node.side = u32::from(self.rng.random_range(0..100) < out_of_a_hundred);
        }
        let mut cuts = Vec::new();
        for (one, node) in &self.nodes {
            for other in node.connections.keys() {
                if !self.is_linked(*one, *other) {
                    cuts.push((*one, *other));
                }
            }
        }
        for (one, other) in cuts {
            self.after(SILENCE, Event::Cut { one, other });
        }
    }

    /// A boot node dies, and forgets everything.
    pub(crate) fn crash(&mut self, boot: Id) {
        let requests = self.boots.get(&boot).map_or(0, |boot| boot.requests);
        let dead = Boot {
            requests,
            ..Boot::default()
        };
        self.boots.insert(boot, dead);
        for node in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.close(node, boot);
        }
    }

    pub(crate) fn restart(&mut self, boot: Id) {
        if let Some(boot) = self.boots.get_mut(&boot) {
            boot.up = true;
        }
    }

    /// How many registrations boot nodes hold, and how many nodes have a slot.
    pub(crate) fn held(&self, boot: Id) -> (usize, usize) {
        let boot = &self.boots[&boot];
        let registrations = boot.registrations.values().map(BTreeMap::len).sum();
        (registrations, boot.slots.len())
    }

    /// Most connections of any node.
    pub(crate) fn most_connections(&self) -> usize {
        let counts = self.nodes.values().map(|node| node.connections.len());
        counts.max().unwrap_or(0)
    }
}

impl Boot {
    fn serve(&mut self, node: Id, external: Vec<Multiaddr>, effect: Effect) -> Option<Input> {
        match effect {
            Effect::Register {
                server,
                namespace,
                ttl,
            } => {
                self.sequence += 1;
                let of = self.registrations.entry(namespace.clone()).or_default();
                of.retain(|_, (registered, _)| *registered != node);
                of.insert(scrambled(self.sequence), (node, external));
                Some(Input::Registered {
                    server,
                    namespace,
                    ttl,
                })
            }
            Effect::Unregister { namespace, .. } => {
                let of = self.registrations.get_mut(&namespace)?;
                of.retain(|_, (registered, _)| *registered != node);
                None
            }
            Effect::Discover {
                server,
                namespace,
                cookie,
                limit,
            } => {
                let told = cookie.and_then(|cookie| cookie.as_bytes().try_into().ok());
                let told = told.and_then(|told| self.cookies.remove(&u64::from_be_bytes(told)));
                let mut told = told.unwrap_or_default();
                let of = self.registrations.entry(namespace.clone()).or_default();
                let new = of.iter().filter(|(key, _)| !told.contains(key));
                let page: Vec<_> = new.take(limit as usize).collect();
                let members = page.iter().map(|(_, (id, a))| (peer(*id), a.clone()));
                let members = members.collect();
                told.extend(page.into_iter().map(|(key, _)| *key));
                self.sequence += 1;
                let cookie = Cookie::new(&self.sequence.to_be_bytes());
                self.cookies.insert(self.sequence, told);
                Some(Input::Discovered {
                    server,
                    namespace,
                    members,
                    cookie,
                })
            }
            Effect::Reserve { listener, .. } => {
                self.slots.insert(node);
                Some(Input::ReservationAccepted { listener })
            }
            _ => None,
        }
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

/// A number that looks like chance: the finalizer of SplitMix64 (Steele, Lea, Flood, 2014).
fn scrambled(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
