//! The discovery machine: decides whom to dial, where to register, whom to ask, which relays to
//! keep. It does no IO and reads no clock.
//!
//! # Driving it
//!
//! 1. [`Machine::new`], then drain [`Machine::poll_effect`].
//! 2. For whatever happens, [`Machine::handle`] with the time, then drain
//!    [`Machine::poll_effect`] and carry out the effects in their order. The queue of effects is
//!    bounded by what one input can cause, so it must be drained before the next.
//! 3. Sleep until [`Machine::next_timeout`] at most, then handle [`Input::Timeout`].
//!
//! Every effect that asks for something names the input that ends it. An end that never comes is
//! assumed at a deadline, so a driver that loses one delays the machine and does not stop it. A
//! clock that goes back is taken to stand still.
//!
//! The same inputs, times and seed give the same effects.
//!
//! # Parts
//!
//! Each status has one writer, a part in a file of its own: the address book, connections,
//! overlays, dials, redials, external addresses, reachability, registrations, discoveries, relay
//! reservations, the direct path, listening addresses, refreshes of the routing table. The machine hands inputs to parts and what they find to other parts. [`Phase`] is
//! derived from all of them and written by none.
//!
//! # Bounds
//!
//! Those of [`DiscoveryConfig`]: peers and addresses in the book, overlays and members, queued
//! dials and dials in flight, lost peers, candidates. Registrations and questions: one per boot
//! node and overlay. Connections: as many as the driver tells of. Blocked peers: as many as the
//! operator blocks.

mod book;
mod boot_nodes;
mod connections;
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
mod status;
#[cfg(test)]
mod tests;
mod whereabouts;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Instant,
};

use calimero_network_primitives::{
    Multiaddr, PeerId,
    addr::{DialAddr, DialPolicy, DialRules, peer_of, without_peer},
    config::{ConfigError, DiscoveryConfig},
};
use rand::{SeedableRng, rngs::StdRng};

#[cfg(feature = "libp2p")]
pub(crate) use self::routing_refresh::INTERVAL as ROUTING_REFRESH_INTERVAL;
use self::{
    book::AddressBook,
    boot_nodes::BootNodes,
    connections::Connections,
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
    status::Facts,
};
pub use self::{
    boot_nodes::{BootNode, UnreachableCause},
    connections::Path,
    dials::DialReason,
    direct_path::{AttemptId, AttemptKind, HolePunch},
    effect::Effect,
    externals::AddressSource,
    input::{CacheEntry, Input, RendezvousFailure},
    namespace::{Cookie, MAX_COOKIE_BYTES, Namespace, NamespaceError},
    overlays::OverlayStatus,
    reachability::{LastProbe, ProbeOutcome, Reachability, ReachableBecause},
    registrations::Registration,
    relays::{RelayListener, Reservation},
    status::{Phase, Status},
};

/// Passes over the parts in one [`Machine::handle`]: what one part does may be due in another at
/// once. What is left after them is due at the next call.
const MAX_PASSES: usize = 4;

/// Effects for which room is kept: the many that a server's answer can cause are rare.
const EFFECTS_KEPT: usize = 32;

/// The discovery machine. See the [module](self) for how to drive it.
#[derive(Clone, Debug)]
pub struct Machine {
    config: DiscoveryConfig,
    local: PeerId,
    /// Decides which addresses of others are kept and dialled.
    rules: DialRules,
    rng: StdRng,
    /// The latest time heard of.
    now: Instant,
    out: VecDeque<Effect>,
    boot: BTreeMap<PeerId, Vec<DialAddr>>,
    boot_nodes: BootNodes,
    blocked: BTreeSet<PeerId>,
    book: AddressBook,
    connections: Connections,
    overlays: Overlays,
    dials: Dials,
    redials: Redials,
    externals: Externals,
    prober: Prober,
    registrations: Registrations,
    discoveries: Discoveries,
    relays: Relays,
    direct: DirectPath,
    listening: Listening,
    held: HeldDials,
    routing: RoutingRefresh,
    next_tick: Instant,
    next_save: Instant,
    /// When a node of unknown reachability takes a relay all the same.
    patience_ends: Option<Instant>,
    serves_probes: bool,
    stopped: bool,
}

impl Machine {
    /// A machine for `local` that begins at `now`; `seed` decides every choice it leaves to
    /// chance.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] with the key whose value cannot hold.
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
        // Spread from the first: nodes that start together are not to work in step.
        let next_tick = now + jittered(&mut rng, config.tick);
        let mut machine = Self {
            local,
            rules: DialRules {
                local,
                policy: DialPolicy::for_network(config.local_network),
            },
            rng,
            now,
            out: VecDeque::new(),
            boot_nodes: BootNodes::new(boot.keys().copied()),
            blocked: BTreeSet::new(),
            book: AddressBook::new(config.max_peers, config.book),
            connections: Connections::default(),
            overlays: Overlays::new(
                overlays.max_overlays,
                overlays.max_members,
                config.members_target,
            ),
            dials: Dials::new(dials),
            redials: Redials::new(config.redial),
            externals: Externals::default(),
            prober: Prober::new(config.reachability, !config.external.is_empty()),
            registrations: Registrations::new(config.rendezvous, boot.keys().copied()),
            discoveries: Discoveries::new(config.rendezvous, boot.keys().copied()),
            relays: Relays::new(config.relays, config.relay, boot.clone()),
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

    /// Takes in what happened, at `now`. Then drain [`Machine::poll_effect`].
    pub fn handle(&mut self, input: Input, now: Instant) {
        self.now = self.now.max(now);
        if self.stopped {
            return;
        }
        // First what happened, then what is due: an answer that is late but there counts.
        self.apply(input);
        self.advance();
        if !self.stopped {
            self.ask();
            self.start_dials();
        }
    }

    /// The next thing to do, in the order in which it is to be done.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        let effect = self.out.pop_front();
        if effect.is_none() && self.out.capacity() > EFFECTS_KEPT {
            self.out = VecDeque::new();
        }
        effect
    }

    /// When [`Input::Timeout`] is to be handled, if nothing else is before. Never before the
    /// latest time heard of; `None` only after [`Input::Stop`].
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

    /// How far discovery has come.
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

    /// How discovery stands. Costs a copy of every table; for people, not for every event.
    #[must_use]
    pub fn status(&self) -> Status {
        let external = self
            .externals
            .iter()
            .map(|(a, why)| (a.clone(), why.to_vec()));
        let registrations = self
            .registrations
            .iter()
            .map(|(s, n, r)| (*s, n.clone(), r));
        let reservations = self
            .relays
            .iter()
            .map(|(peer, state)| (*peer, state.clone()));
        Status {
            phase: self.phase(),
            boot_nodes: self.boot_nodes.iter().collect(),
            reachability: self.prober.reachability(),
            external_addresses: external.collect(),
            registrations: registrations.collect(),
            reservations: reservations.collect(),
            overlays: self
                .overlays
                .status()
                .map(|(n, s)| (n.clone(), s))
                .collect(),
            last_probe: self.prober.last().cloned(),
            connected_peers: self.connections.len(),
            known_peers: self.book.len(),
            queued_dials: self.dials.queued(),
            dials_in_flight: self.dials.in_flight(),
            lost_peers: self.redials.len(),
            next_timeout: self.next_timeout(),
        }
    }

    /// The best way to `peer` there is; `None` where it is not connected.
    #[must_use]
    pub fn path(&self, peer: &PeerId) -> Option<Path> {
        self.connections.path(peer)
    }

    /// Whether others can reach us, and how that is known. Cheaper than [`Machine::status`].
    #[must_use]
    pub fn reachability(&self) -> Reachability {
        self.prober.reachability()
    }

    /// The peers whose connections are worth keeping, however little they are used: boot nodes,
    /// and members of overlays, of each three times `members_target` at most, those
    /// connected longest. Some are named more than once. The connections of others may close
    /// when nobody uses them: that is what bounds the connections of a node whom everybody was
    /// told of.
    pub fn kept(&self) -> impl Iterator<Item = PeerId> {
        self.boot
            .keys()
            .chain(self.overlays.kept_members())
            .copied()
    }

    /// The addresses of `peer`, the best first: what its next dial would try. Circuit addresses
    /// lack the `/p2p/<peer>` at their end.
    #[must_use]
    pub fn addresses(&self, peer: &PeerId) -> Vec<DialAddr> {
        self.book.addresses(peer)
    }

    /// When this node begins the next hole punch round with `peer`; `None` for a peer that is not
    /// relayed, and for one that connected to this node, since the rounds are the dialler's.
    #[must_use]
    pub fn next_hole_punch(&self, peer: &PeerId) -> Option<Instant> {
        self.direct.next_round(peer)
    }

    /// The addresses that this node listens on.
    #[cfg(feature = "libp2p")]
    pub(crate) fn listening_on(&self) -> &Listening {
        &self.listening
    }

    /// The peers worth remembering over a restart: those that were reached, the one heard of last
    /// first; after them, those that have come in and said where they listen, while they are
    /// connected.
    #[must_use]
    pub fn cache(&self) -> Vec<CacheEntry> {
        let worthy = self.book.worthy(self.now).into_iter();
        worthy
            .take(self.config.cache.max_peers as usize)
            .map(|(peer, age)| CacheEntry {
                peer,
                addresses: multiaddrs(self.book.addresses(&peer)),
                age,
            })
            .collect()
    }

    /// What holds from the first moment: the configuration's addresses, boot nodes and overlay.
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
        for address in &addresses {
            self.out.push_back(Effect::AddRoutingAddress {
                peer: boot,
                address: address.clone(),
            });
        }
        self.book.insert_infrastructure(boot, addresses.clone());
        let (now, rng) = (self.now, &mut self.rng);
        self.redials.lost(boot, addresses, true, now, rng);
    }

    fn apply(&mut self, input: Input) {
        match input {
            Input::Timeout => {}
            Input::Follow(namespace) => self.follow(namespace),
            Input::Unfollow(namespace) => self.unfollow(&namespace),
            Input::Block(peer) => self.block(peer),
            Input::Unblock(peer) => self.unblock(peer),
            Input::CacheLoaded(entries) => self.load_cache(entries),
            Input::NetworkChanged => self.network_changed(),
            Input::Stop => self.stop(),
            Input::ListenersPending => self.held.start(self.now, &mut self.out),
            Input::ConnectionOpened {
                peer,
                path,
                dialled,
            } => self.opened(peer, path, dialled),
            Input::ConnectionClosed { peer, path } => self.closed(peer, path),
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
            Input::Listening(address) => {
                self.listening.insert(address.clone(), self.now);
                self.held.on_listening(self.now);
                self.listening(&address);
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
            Input::ReservationAccepted { listener } => self.reservation_accepted(listener),
            Input::RelayListenerClosed { listener } => self.relay_listener_closed(listener),
        }
    }

    /// Does what time alone has made due.
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

    /// A round of upkeep.
    fn tick(&mut self) {
        self.next_tick = self.now + jittered(&mut self.rng, self.config.tick);
        self.book.expire(self.now);
        self.dials.wake(self.now);
        self.discoveries.refill();
        self.reconsider_reachability();
        for peer in self.overlays.candidates(&mut self.rng) {
            self.want(peer, DialReason::Member);
        }
        if self.next_save <= self.now {
            self.next_save = self.now + self.config.cache_save_interval;
            self.out.push_back(Effect::SaveCache);
        }
    }

    /// Whether there may be anything between `peer` and us.
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
