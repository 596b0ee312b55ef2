//! The discovery machine: a state machine that decides which peers to dial, where to register,
//! which servers to ask, which relays to use, and how a relayed peer becomes direct. It does no IO
//! and reads no clock.
//!
//! # Driving the machine
//!
//! 1. Call [`Machine::new`], then drain [`Machine::poll_effect`].
//! 2. For each event call [`Machine::handle`] with the time, then drain [`Machine::poll_effect`]
//!    and carry out the effects in their order. The queue of effects is bounded by what one input
//!    can cause, so it must be drained before the next input.
//! 3. Sleep until [`Machine::next_timeout`] at most, then handle [`Input::Timeout`].
//!
//! Every effect that requests something names the input that ends it. An input that never comes is
//! assumed at a deadline, so a driver that loses one delays the machine and does not stop it. A
//! time before the latest one is treated as the latest one.
//!
//! The same inputs, times and seed give the same effects.
//!
//! # Parts
//!
//! Each part of the state has a module of its own, which alone changes it: the address book,
//! connections, contacted peers, overlays, dials, redials, external addresses, reachability,
//! registrations, discoveries, relay reservations, boot nodes, the direct path, listening
//! addresses, refreshes of the routing table. The machine passes inputs to the parts, and the
//! results of a part to other parts. [`Phase`] is derived from all of them.
//!
//! # Bounds
//!
//! [`DiscoveryConfig`] limits peers and addresses in the book, overlays and members, queued dials
//! and dials in flight, lost peers, and candidates. At most 4096 dialled peers and IP addresses are
//! remembered. Registrations and requests for members are limited to one for each boot node and
//! overlay. The driver limits connections, and the operator blocked peers.

mod book;
mod boot_list;
mod boot_nodes;
mod circuit_limit;
mod connections;
mod contacted;
mod dials;
mod direct_path;
mod discoveries;
mod effect;
mod externals;
mod input;
mod listening;
mod namespace;
mod overlays;
mod peers;
mod reachability;
mod redial;
mod registrations;
mod relays;
mod routes;
mod routing_refresh;
pub(crate) mod schedule;
mod since;
mod status;
#[cfg(test)]
mod tests;
mod whereabouts;
mod why_relayed;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Instant,
};

pub use calimero_network_primitives::UnreachableCause;
use calimero_network_primitives::{
    Multiaddr, PeerId,
    addr::{DialAddr, DialPolicy, DialRules, peer_of, without_peer},
    config::{ConfigError, DiscoveryConfig},
};
use rand::{SeedableRng, rngs::StdRng, seq::IteratorRandom};

use self::{
    book::AddressBook,
    boot_nodes::BootNodes,
    connections::Connections,
    contacted::Contacted,
    dials::Dials,
    direct_path::DirectPath,
    discoveries::Discoveries,
    externals::Externals,
    listening::{HeldDials, Listening},
    overlays::Overlays,
    reachability::Prober,
    redial::Redials,
    registrations::Registrations,
    relays::Relays,
    routing_refresh::RoutingRefresh,
    schedule::jittered,
    since::Since,
    status::Facts,
};
pub use self::{
    boot_nodes::BootNode,
    circuit_limit::CircuitLimit,
    connections::Path,
    dials::DialReason,
    effect::{AttemptId, AttemptKind, Effect, HolePunch, RelayListener},
    externals::AddressSource,
    input::{CacheEntry, Input, RendezvousFailure},
    namespace::{Cookie, MAX_COOKIE_BYTES, Namespace, NamespaceError},
    overlays::OverlayStatus,
    reachability::{LastProbe, ProbeOutcome, Reachability, ReachableBecause},
    registrations::Registration,
    relays::Reservation,
    status::{BootNodeStatus, Phase, RegistrationStatus, ReservationStatus, Status},
    why_relayed::WhyRelayed,
};
#[cfg(feature = "libp2p")]
pub(crate) use self::{
    routes::MAX_EXAMINED_ADDRESSES, routing_refresh::INTERVAL as ROUTING_REFRESH_INTERVAL,
};

/// Passes over the parts in one call of [`Machine::handle`], since a part may make something due in
/// another part. What is left is due at the next call.
const MAX_PASSES: usize = 4;

/// Effects for which capacity is kept. Answers of servers that cause more are rare.
const EFFECTS_KEPT: usize = 32;

/// Peers reached before that a node without a connection dials in each tick, 2: few enough to leave
/// dials to boot nodes and members.
const DIALLED_ALONE: usize = 2;

/// The discovery machine. See the [module](self) for how to drive it.
#[derive(Debug)]
pub struct Machine {
    config: DiscoveryConfig,
    local: PeerId,
    /// Decides which addresses of others are kept and dialled.
    rules: DialRules,
    rng: StdRng,
    /// Latest time that was passed to the machine.
    now: Instant,
    out: VecDeque<Effect>,
    boot: BTreeMap<PeerId, Vec<DialAddr>>,
    boot_nodes: BootNodes,
    /// Boot nodes of the lists, which are in `boot` as well.
    listed: BTreeSet<PeerId>,
    blocked: BTreeSet<PeerId>,
    book: AddressBook,
    connections: Connections,
    contacted: Contacted,
    overlays: Overlays,
    dials: Dials,
    redials: Redials,
    externals: Externals,
    prober: Prober,
    reachability: Since<Reachability>,
    registrations: Registrations,
    discoveries: Discoveries,
    relays: Relays,
    direct: DirectPath,
    listening: Listening,
    held: HeldDials,
    routing: RoutingRefresh,
    next_tick: Instant,
    next_save: Instant,
    /// Time after which a node of unknown reachability uses relays.
    patience_ends: Option<Instant>,
    serves_probes: bool,
    stopped: bool,
}

impl Machine {
    /// Creates a machine for the node `local` at the time `now`. `seed` decides every random
    /// choice.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] with the key whose value is invalid.
    pub fn new(
        config: DiscoveryConfig,
        local: PeerId,
        seed: u64,
        now: Instant,
    ) -> Result<Self, ConfigError> {
        config.validate()?;
        let boot = boot_nodes(&config.boot, local);
        let (overlays, dials) = (&config.rendezvous, config.dials);
        let mut rng = StdRng::seed_from_u64(seed);
        // Spread from the beginning, so that nodes that start together do not act together.
        let next_tick = now + jittered(&mut rng, config.tick);
        let mut machine = Self {
            local,
            rules: DialRules {
                local,
                scopes: config.dial_scopes(),
            },
            rng,
            now,
            out: VecDeque::new(),
            boot_nodes: BootNodes::new(boot.keys().copied(), now),
            listed: BTreeSet::new(),
            blocked: BTreeSet::new(),
            book: AddressBook::new(config.max_peers, config.book),
            connections: Connections::default(),
            contacted: Contacted::default(),
            overlays: Overlays::new(
                overlays.max_overlays,
                overlays.max_members,
                config.members_target,
            ),
            dials: Dials::new(dials),
            redials: Redials::new(config.redial),
            externals: Externals::default(),
            prober: Prober::new(config.reachability, !config.external.is_empty()),
            reachability: Since::new(Reachability::Unknown, now),
            registrations: Registrations::new(config.rendezvous, boot.keys().copied()),
            discoveries: Discoveries::new(config.rendezvous, boot.keys().copied()),
            relays: Relays::new(config.relays, config.relay, boot.clone(), now),
            direct: DirectPath::new(&config.relay),
            listening: Listening::default(),
            held: HeldDials::default(),
            routing: RoutingRefresh::default(),
            next_tick,
            next_save: now + config.cache_save_interval,
            patience_ends: Some(now + config.relay.patience),
            serves_probes: false,
            stopped: false,
            boot,
            config,
        };
        machine.begin();
        Ok(machine)
    }

    /// Handles an input at the time `now`. Drain [`Machine::poll_effect`] after it.
    pub fn handle(&mut self, input: Input, now: Instant) {
        self.now = self.now.max(now);
        if self.stopped {
            return;
        }
        // The input comes before what is due: an answer counts that arrives at its deadline.
        self.apply(input);
        self.advance();
        if !self.stopped {
            self.ask();
            self.start_dials();
        }
    }

    /// Removes and returns the next effect.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        let effect = self.out.pop_front();
        if effect.is_none() && self.out.capacity() > EFFECTS_KEPT {
            self.out = VecDeque::new();
        }
        effect
    }

    /// Returns the time at which [`Input::Timeout`] is to be handled. Never before the latest time
    /// passed to the machine; `None` only after [`Input::Stop`].
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        if self.stopped {
            return None;
        }
        let parts = [
            self.connections.next(),
            self.dials.next(),
            self.redials.next(),
            self.prober.next(),
            self.registrations.next(),
            self.discoveries.next(),
            self.relays.next(),
            self.direct.next(),
            self.held.next(),
            self.routing.next(),
            self.patience_ends,
        ];
        let next = parts
            .into_iter()
            .flatten()
            .fold(self.next_tick, Instant::min);
        Some(next.max(self.now))
    }

    /// Returns the phase of discovery.
    #[must_use]
    pub fn phase(&self) -> Phase {
        let facts = Facts {
            stopped: self.stopped,
            boot_connected: self
                .boot
                .keys()
                .any(|peer| self.connections.is_connected(peer)),
            anybody_connected: self.connections.len() > 0,
        };
        let overlays = self.overlays.status().map(|(namespace, status)| {
            let waits = status == OverlayStatus::default();
            (status, waits && self.registrations.is_settled(namespace))
        });
        Phase::derive(facts, overlays)
    }

    /// Returns a snapshot of the state. Copies every table, so it is not for use at every event.
    #[must_use]
    pub fn status(&self) -> Status {
        let external = self
            .externals
            .iter()
            .map(|(a, why)| (a.clone(), why.to_vec()));
        Status {
            phase: self.phase(),
            boot_nodes: self.boot_nodes.status().collect(),
            reachability: self.prober.reachability(),
            reachability_changed_at: self.reachability.changed_at(),
            external_addresses: external.collect(),
            registrations: self.registrations.status().collect(),
            reservations: self.relays.status().collect(),
            overlays: self
                .overlays
                .status()
                .map(|(n, s)| (n.clone(), s))
                .collect(),
            last_probe: self.prober.last().cloned(),
            probes: self.prober.latest().cloned().collect(),
            admits_uncontacted_peers: self.prober.is_visited(),
            connected_peers: self.connections.len(),
            known_peers: self.book.len(),
            queued_dials: self.dials.queued(),
            dials_in_flight: self.dials.in_flight(),
            lost_peers: self.redials.len(),
            next_timeout: self.next_timeout(),
        }
    }

    /// Returns the best path to `peer`; `None` if it is not connected.
    #[must_use]
    pub fn path(&self, peer: &PeerId) -> Option<Path> {
        self.connections.path(peer)
    }

    /// Returns the reachability of this node. Cheaper than [`Machine::status`].
    #[must_use]
    pub fn reachability(&self) -> Reachability {
        self.prober.reachability()
    }

    /// Returns the boot nodes: those of the configuration and those of lists.
    pub fn boot_nodes(&self) -> impl Iterator<Item = PeerId> {
        self.boot.keys().copied()
    }

    /// Returns the peers whose connections are kept alive, used or not: boot nodes, and of each
    /// overlay at most three times `members_target` members, those connected longest. A third of
    /// this number is reserved for members that this node dialled, and of the members that dialled
    /// it from one public IPv4 address or IPv6 /64, one is kept. Some peers are returned more than
    /// once. Other connections may close when they are unused, which bounds the connections of a
    /// node that many nodes learned of.
    pub fn kept(&self) -> impl Iterator<Item = PeerId> {
        self.boot
            .keys()
            .chain(self.overlays.kept_members())
            .copied()
    }

    /// Returns the addresses of `peer` that its next dial would try, the best first. Circuit
    /// addresses lack the `/p2p/<peer>` at their end.
    #[must_use]
    pub fn addresses(&self, peer: &PeerId) -> Vec<DialAddr> {
        self.book.addresses(peer, self.now)
    }

    /// Returns why `peer` has no direct connection; `None` if it has one or is not connected.
    #[must_use]
    pub fn why_relayed(&self, peer: &PeerId) -> Option<WhyRelayed> {
        let is_relayed = self.connections.path(peer) == Some(Path::Relayed);
        is_relayed.then(|| self.direct.why_relayed(peer, self.now))
    }

    /// Returns the time of the next hole punch round with `peer`; `None` for a peer that is not
    /// relayed, and for one that connected to this node, because the side that dialled begins the
    /// rounds.
    #[must_use]
    pub fn next_hole_punch(&self, peer: &PeerId) -> Option<Instant> {
        self.direct.next_round(peer)
    }

    /// Returns the addresses that this node listens on.
    #[cfg(feature = "libp2p")]
    pub(crate) fn listening_on(&self) -> &Listening {
        &self.listening
    }

    /// Returns the peers to keep over a restart: first those that this run reached, then those of
    /// the peer cache, then connected peers that reported their addresses, then peers that were
    /// reached and failed since. Of each kind, the latest seen come first.
    ///
    /// A peer stays for 24 h after it was last seen, whether its dials fail or not, unless the limit
    /// is reached: a node that runs without its network keeps the peers that it can find again.
    #[must_use]
    pub fn cache(&self) -> Vec<CacheEntry> {
        let peers = self.book.cacheable(self.now).into_iter();
        peers
            .take(self.config.cache.max_peers as usize)
            .map(|(peer, age)| CacheEntry {
                peer,
                addresses: multiaddrs(self.book.cacheable_addresses(&peer)),
                age,
            })
            .collect()
    }

    /// Applies the configuration: external addresses, boot nodes and the global overlay.
    fn begin(&mut self) {
        for address in self.config.external.clone() {
            let address = without_peer(&address);
            let source = AddressSource::Configured;
            self.externals.add(&address, source, &mut self.out);
        }
        self.externals_changed();
        self.reconsider_reachability();
        for boot in self.boot.keys().copied().collect::<Vec<_>>() {
            self.seek_boot_node(boot);
        }
        if let Ok(global) = Namespace::new(&self.config.global_namespace) {
            self.follow(global);
        }
        self.advance();
    }

    fn seek_boot_node(&mut self, boot: PeerId) {
        let addresses = self.boot.get(&boot).cloned().unwrap_or_default();
        self.route_and_store(boot, addresses.clone());
        let (now, rng) = (self.now, &mut self.rng);
        self.redials
            .lost(boot, addresses, DialReason::Boot, now, rng);
    }

    /// Adds the addresses of a boot node to the routing table and to the book.
    fn route_and_store(&mut self, boot: PeerId, addresses: Vec<DialAddr>) {
        for address in &addresses {
            self.out.push_back(Effect::AddRoutingAddress {
                peer: boot,
                address: address.clone(),
            });
        }
        self.book.insert_infrastructure(boot, addresses);
    }

    fn apply(&mut self, input: Input) {
        match input {
            Input::Timeout => {}
            Input::Follow(namespace) => self.follow(namespace),
            Input::Unfollow(namespace) => self.unfollow(&namespace),
            Input::Block(peer) => self.block(peer),
            Input::Unblock(peer) => self.unblock(peer),
            Input::CacheLoaded(entries) => self.load_cache(entries),
            Input::BootList(addresses) => self.boot_list(&addresses),
            Input::NetworkChanged => self.network_changed(),
            Input::Stop => self.stop(),
            Input::ListenersPending => self.held.start(self.now, &mut self.out),
            Input::ConnectionOpened {
                peer,
                path,
                dialled,
                remote_ip,
                is_local,
            } => self.opened(peer, path, dialled, remote_ip, is_local),
            Input::ConnectionClosed { peer, path } => self.closed(peer, path),
            Input::Dialled { peer, addresses } => {
                self.contacted.dialled(peer, &addresses, self.now);
            }
            Input::DialFailed { peer, tried } => self.dial_failed(peer, &tried),
            Input::Unreachable { peer, cause } if !self.is_stranger(&peer) => {
                (self.boot_nodes).on_dial_failed(peer, cause, self.now, &mut self.out);
            }
            Input::Unreachable { .. } => {}
            Input::AddressDead { peer, address } => self.address_dead(peer, &address),
            Input::AttemptConnected { id, path } => {
                (self.direct).on_connected(id, path, self.now, &mut self.out);
            }
            Input::AttemptFailed { id } => {
                self.direct.end(id);
            }
            Input::HolePunchEnded { peer, .. } | Input::HolePunchAwaited { peer, .. }
                if self.is_stranger(&peer) => {}
            Input::HolePunchEnded { peer, outcome } => {
                let (best, now) = (self.connections.path(&peer), self.now);
                let (rng, out) = (&mut self.rng, &mut self.out);
                self.direct.on_ended(peer, outcome, best, now, rng, out);
            }
            Input::HolePunchAwaited { peer, addresses } => {
                let addresses = self.dialable(&peer, &addresses);
                self.direct.on_awaited(peer, addresses, self.now);
            }
            Input::ReachedThroughRelay { peer } => {
                let best = self.connections.path(&peer);
                let (book, now) = (&self.book, self.now);
                self.direct.dial_back(peer, best, book, now, &mut self.out);
            }
            Input::RoutingRefreshed { answers, last } => {
                (self.routing).on_ended(answers, last, self.now, &mut self.rng);
            }
            Input::Identified { peer, addresses } => self.learn(peer, &addresses),
            Input::LocalPeer { peer, addresses } => self.met_locally(peer, &addresses),
            Input::MemberSeen { namespace, peer } => self.member_seen(&namespace, peer),
            Input::MemberGone { namespace, peer } => self.member_gone(&namespace, &peer),
            Input::AddressCandidate(address) => self.address_candidate(&address),
            Input::AddressObserved { observer, address } => {
                self.address_observed(observer, address);
            }
            Input::Listening { address, open_for } => {
                let opened = self.now.checked_sub(open_for).unwrap_or(self.now);
                let is_change = self.is_change(&address);
                self.listening.insert(address.clone(), opened);
                self.held.on_listening(self.now);
                self.listening(&address);
                if is_change {
                    self.network_changed();
                }
            }
            Input::AddressGone(address) => {
                self.listening.remove(&address);
                self.address_gone(&address);
            }
            Input::Probed {
                address,
                server,
                outcome,
            } => self.probed(&address, server, outcome),
            Input::Registered {
                server,
                namespace,
                ttl,
            } => {
                let (now, rng) = (self.now, &mut self.rng);
                let key = (server, namespace);
                self.registrations
                    .registered(key, ttl, now, rng, &mut self.out);
            }
            Input::RegisterFailed {
                server,
                namespace,
                why,
            } => {
                let (now, rng) = (self.now, &mut self.rng);
                let key = (server, namespace);
                self.registrations.failed(key, why, now, rng, &mut self.out);
            }
            Input::Discovered {
                server,
                namespace,
                members,
                cookie,
            } => {
                self.discovered((server, namespace), members, cookie);
            }
            Input::DiscoverFailed {
                server,
                namespace,
                why,
            } => {
                self.discovery_failed(&(server, namespace), why);
            }
            Input::ReservationAccepted { listener, limit } => {
                self.reservation_accepted(listener, limit);
            }
            Input::RelayListenerClosed { listener } => self.relay_listener_closed(listener),
        }
    }

    /// Does what is due at the current time.
    fn advance(&mut self) {
        for _ in 0..MAX_PASSES {
            if self.next_timeout().is_none_or(|at| at > self.now) {
                return;
            }
            self.advance_connections();
            self.advance_servers();
            if self.patience_ends.is_some_and(|at| at <= self.now) {
                self.patience_ends = None;
                self.reconsider_reachability();
            }
            if self.next_tick <= self.now {
                self.tick();
            }
            self.ask();
            self.start_dials();
        }
    }

    /// Does the periodic work.
    fn tick(&mut self) {
        self.next_tick = self.now + jittered(&mut self.rng, self.config.tick);
        self.book.expire(self.now);
        self.dials.wake(self.now);
        self.discoveries.refill();
        self.reconsider_reachability();
        let (book, now) = (&self.book, self.now);
        let is_dialable = |peer: &PeerId| book.is_dialable(peer, now);
        let mut candidates = self.overlays.candidates(&mut self.rng, is_dialable);
        if self.connections.len() == 0 {
            // No peer can name others, so peers of which no overlay is known are dialled as well.
            let reached = book.reached(now).copied();
            candidates.extend(reached.sample(&mut self.rng, DIALLED_ALONE));
        }
        for peer in candidates {
            self.want(peer, DialReason::Member);
        }
        if self.next_save <= self.now {
            self.next_save = self.now + self.config.cache_save_interval;
            self.out.push_back(Effect::SaveCache);
        }
    }

    /// Returns whether inputs about `peer` are ignored: it is blocked, or it is this node.
    fn is_stranger(&self, peer: &PeerId) -> bool {
        *peer == self.local || self.blocked.contains(peer)
    }
}

/// The boot nodes by peer, each with its addresses, without this node.
///
/// The operator names them, so they may be local whatever the policy for addresses of others is.
fn boot_nodes(addresses: &[Multiaddr], local: PeerId) -> BTreeMap<PeerId, Vec<DialAddr>> {
    let mut boot: BTreeMap<PeerId, Vec<DialAddr>> = BTreeMap::new();
    for address in addresses {
        if let Some(peer) = peer_of(address)
            && peer != local
            && let Ok(address) = DialAddr::of_peer(&peer, address, DialPolicy::Local)
        {
            boot.entry(peer).or_default().push(address);
        }
    }
    boot
}

pub(crate) fn multiaddrs(addresses: Vec<DialAddr>) -> Vec<Multiaddr> {
    addresses
        .into_iter()
        .map(DialAddr::into_multiaddr)
        .collect()
}
