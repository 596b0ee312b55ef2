//! Our registrations at rendezvous servers. Its one writer is this file, and the table here is
//! the truth: what a client library remembers is not asked.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use calimero_network_primitives::{PeerId, config::RendezvousConfig};
use rand::rngs::StdRng;

use super::{
    effect::Effect,
    input::RendezvousFailure,
    namespace::Namespace,
    schedule::{Schedule, backoff, jittered},
};

/// Refusals in a row after which a server counts as full for us. libp2p-rendezvous 0.18 says
/// the same of a lost request, so one proves nothing.
const REFUSALS_OF_A_FULL_SERVER: u32 = 2;

/// How a registration stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration {
    /// To be asked for as soon as there is an external address to register, a connection with
    /// the server, and a place among those it holds of us.
    Pending,
    /// Asked for.
    Requested,
    /// Held by the server.
    Registered {
        /// Until then, unless refreshed.
        expires: Instant,
    },
    /// Refused or not answered; asked for again at a time.
    Retrying {
        /// That time.
        at: Instant,
    },
}

#[derive(Clone, Debug)]
struct Slot {
    state: Registration,
    /// When it came into this line: the order in which places are given and given up.
    since: u64,
    attempts: u32,
    /// Our addresses have changed since the request under way.
    stale: bool,
}

impl Slot {
    /// Whether the server holds it, or may.
    fn takes_a_place(&self) -> bool {
        !matches!(self.state, Registration::Pending)
    }
}

#[derive(Clone, Debug, Default)]
struct Server {
    connected: bool,
    /// Registrations it is known to hold of us, where that is fewer than configured.
    capacity: Option<usize>,
}

type Key = (PeerId, Namespace);

/// One registration per server and namespace followed.
#[derive(Clone, Debug)]
pub(super) struct Registrations {
    config: RendezvousConfig,
    servers: BTreeMap<PeerId, Server>,
    slots: BTreeMap<Key, Slot>,
    /// Deadline, refresh or retry of a registration, by its state.
    due: Schedule<Key>,
    rotations: Schedule<PeerId>,
    sequence: u64,
    has_address: bool,
}

impl Registrations {
    pub(super) fn new(config: RendezvousConfig, servers: impl IntoIterator<Item = PeerId>) -> Self {
        let servers = servers.into_iter().map(|peer| (peer, Server::default()));
        Self {
            config,
            servers: servers.collect(),
            slots: BTreeMap::new(),
            due: Schedule::default(),
            rotations: Schedule::default(),
            sequence: 0,
            has_address: false,
        }
    }

    pub(super) fn follow(
        &mut self,
        namespace: &Namespace,
        now: Instant,
        out: &mut VecDeque<Effect>,
    ) {
        let servers: Vec<_> = self.servers.keys().copied().collect();
        for server in servers {
            let slot = Slot {
                state: Registration::Pending,
                since: self.next_in_line(),
                attempts: 0,
                stale: false,
            };
            self.slots
                .entry((server, namespace.clone()))
                .or_insert(slot);
            self.fill(server, now, out);
        }
    }

    pub(super) fn unfollow(
        &mut self,
        namespace: &Namespace,
        now: Instant,
        out: &mut VecDeque<Effect>,
    ) {
        let servers: Vec<_> = self.servers.keys().copied().collect();
        for server in servers {
            let key = (server, namespace.clone());
            self.due.cancel(&key);
            let Some(slot) = self.slots.remove(&key) else {
                continue;
            };
            if slot.takes_a_place() {
                self.unregister(key, out);
            }
            self.fill(server, now, out);
        }
    }

    /// A server is connected. It may have forgotten us meanwhile, so everything is registered
    /// anew.
    pub(super) fn server_up(
        &mut self,
        server: PeerId,
        now: Instant,
        rng: &mut StdRng,
        out: &mut VecDeque<Effect>,
    ) {
        let Some(state) = self.servers.get_mut(&server) else {
            return;
        };
        state.connected = true;
        state.capacity = None;
        self.shelve(server);
        let wait = jittered(rng, self.config.rotation);
        self.rotations.set(server, now + wait);
        self.fill(server, now, out);
    }

    /// A server is not connected any more. What it holds it may hold on to; what was asked of it
    /// is asked again.
    pub(super) fn server_down(&mut self, server: PeerId) {
        if let Some(state) = self.servers.get_mut(&server) {
            state.connected = false;
            self.rotations.cancel(&server);
            self.shelve_unless_registered(server);
        }
    }

    /// Our external addresses have changed. Registrations are refreshed, or wait for one.
    pub(super) fn addresses_changed(
        &mut self,
        has_address: bool,
        now: Instant,
        out: &mut VecDeque<Effect>,
    ) {
        self.has_address = has_address;
        let servers: Vec<_> = self.servers.keys().copied().collect();
        for server in servers {
            for key in self.keys_of(server) {
                let Some(slot) = self.slots.get_mut(&key) else {
                    continue;
                };
                match slot.state {
                    // One at a time: the answer to come decides what is next.
                    Registration::Requested => slot.stale = true,
                    // Refreshed, or shelved where there is nothing to register any more.
                    Registration::Registered { .. } => self.request(&key, now, out),
                    Registration::Pending | Registration::Retrying { .. } => {}
                }
            }
            self.fill(server, now, out);
        }
    }

    /// A server holds our registration for `ttl`.
    pub(super) fn registered(
        &mut self,
        key: Key,
        ttl: Duration,
        now: Instant,
        rng: &mut StdRng,
        out: &mut VecDeque<Effect>,
    ) {
        if !self.servers.contains_key(&key.0) {
            return;
        }
        let Some(slot) = self.slots.get_mut(&key) else {
            // It crossed our unregistering.
            self.unregister(key, out);
            return;
        };
        if slot.state != Registration::Requested {
            return;
        }
        slot.attempts = 0;
        // A server may claim any time; ours is what was asked for at most, and long enough that
        // a refresh at half of it is no storm.
        let ttl = ttl.clamp(
            self.config.min_backoff * 2,
            self.config.ttl.max(self.config.min_backoff * 2),
        );
        let expires = now + ttl;
        slot.state = Registration::Registered { expires };
        self.due.set(key.clone(), now + jittered(rng, ttl / 2));
        if std::mem::take(&mut slot.stale) {
            self.request(&key, now, out);
        }
    }

    /// A server has refused our registration, or did not answer.
    pub(super) fn failed(
        &mut self,
        key: Key,
        why: RendezvousFailure,
        now: Instant,
        rng: &mut StdRng,
        out: &mut VecDeque<Effect>,
    ) {
        let Some(slot) = self.slots.get_mut(&key) else {
            return;
        };
        if slot.state != Registration::Requested {
            return;
        }
        slot.attempts = slot.attempts.saturating_add(1);
        let full = why == RendezvousFailure::Unavailable
            && slot.attempts >= REFUSALS_OF_A_FULL_SERVER
            && self.lower_capacity(&key);
        if full {
            // Taken back, so that the refreshes of the others find the place that is free.
            self.shelve_one(&key);
            self.unregister(key, out);
            return;
        }
        let (min, max) = (self.config.min_backoff, self.config.max_backoff);
        let Some(slot) = self.slots.get_mut(&key) else {
            return;
        };
        let at = now + backoff(rng, min, max, slot.attempts);
        slot.state = Registration::Retrying { at };
        slot.stale = false;
        self.due.set(key, at);
    }

    /// Does what is due: refreshes, retries, gives up on answers, and takes turns.
    pub(super) fn advance(&mut self, now: Instant, rng: &mut StdRng, out: &mut VecDeque<Effect>) {
        while let Some(key) = self.due.pop_due(now) {
            let Some(slot) = self.slots.get(&key) else {
                continue;
            };
            match slot.state {
                Registration::Requested => {
                    self.failed(key, RendezvousFailure::Refused, now, rng, out);
                }
                Registration::Registered { .. } | Registration::Retrying { .. } => {
                    self.request(&key, now, out);
                }
                Registration::Pending => {}
            }
        }
        while let Some(server) = self.rotations.pop_due(now) {
            let wait = jittered(rng, self.config.rotation);
            self.rotations.set(server, now + wait);
            self.rotate(server, now, out);
        }
    }

    /// Takes every registration back that a server holds or may hold.
    pub(super) fn stop(&mut self, out: &mut VecDeque<Effect>) {
        let slots = std::mem::take(&mut self.slots);
        for (key, slot) in slots {
            self.due.cancel(&key);
            if slot.takes_a_place() {
                self.unregister(key, out);
            }
        }
        self.rotations = Schedule::default();
    }

    pub(super) fn next(&self) -> Option<Instant> {
        [self.due.next(), self.rotations.next()]
            .into_iter()
            .flatten()
            .min()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&PeerId, &Namespace, Registration)> {
        self.slots
            .iter()
            .map(|((server, namespace), slot)| (server, namespace, slot.state))
    }

    /// Whether nothing is to be done for `namespace` that could be done now.
    pub(super) fn is_settled(&self, namespace: &Namespace) -> bool {
        let mut connected = self.servers.iter().filter(|(_, server)| server.connected);
        connected.any(|(server, _)| {
            let slot = self.slots.get(&(*server, namespace.clone()));
            slot.is_some_and(|slot| matches!(slot.state, Registration::Registered { .. }))
        })
    }

    /// Whether there is a time at which something is done about `key`.
    #[cfg(test)]
    pub(super) fn has_time(&self, key: &Key) -> bool {
        self.due.contains(key)
    }

    fn is_connected(&self, server: &PeerId) -> bool {
        self.servers.get(server).is_some_and(|s| s.connected)
    }

    fn next_in_line(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    fn keys_of(&self, server: PeerId) -> Vec<Key> {
        let of_server = self.slots.keys().filter(|(at, _)| *at == server);
        of_server.cloned().collect()
    }

    fn capacity(&self, server: &PeerId) -> usize {
        let configured = self.config.max_registrations_per_server as usize;
        let known = self.servers.get(server).and_then(|s| s.capacity);
        known.unwrap_or(configured).min(configured)
    }

    fn places_taken(&self, server: PeerId) -> usize {
        let of_server = self.slots.iter().filter(|((at, _), _)| *at == server);
        of_server.filter(|(_, slot)| slot.takes_a_place()).count()
    }

    /// The server refuses although we hold fewer than we may: it holds as many of us as it will.
    /// One place is left free, since a refresh needs it. Returns whether that says anything.
    fn lower_capacity(&mut self, key: &Key) -> bool {
        let held = self.places_taken(key.0).saturating_sub(1);
        if held == 0 {
            return false;
        }
        if let Some(server) = self.servers.get_mut(&key.0) {
            server.capacity = Some(held);
        }
        true
    }

    /// Asks for pending registrations while the server has places, the longest waiting first.
    fn fill(&mut self, server: PeerId, now: Instant, out: &mut VecDeque<Effect>) {
        if !self.has_address || !self.is_connected(&server) {
            return;
        }
        let free = self
            .capacity(&server)
            .saturating_sub(self.places_taken(server));
        let mut line: Vec<(u64, Key)> = self
            .slots
            .iter()
            .filter(|((at, _), slot)| *at == server && !slot.takes_a_place())
            .map(|(key, slot)| (slot.since, key.clone()))
            .collect();
        line.sort_unstable();
        for (_, key) in line.into_iter().take(free) {
            self.request(&key, now, out);
        }
    }

    /// Asks for `key`, or shelves it where that is not possible now.
    fn request(&mut self, key: &Key, now: Instant, out: &mut VecDeque<Effect>) {
        let possible = self.has_address && self.is_connected(&key.0);
        let Some(slot) = self.slots.get_mut(key) else {
            return;
        };
        slot.stale = false;
        if !possible {
            slot.state = Registration::Pending;
            self.due.cancel(key);
            return;
        }
        slot.state = Registration::Requested;
        self.due.set(key.clone(), now + self.config.timeout);
        out.push_back(Effect::Register {
            server: key.0,
            namespace: key.1.clone(),
            ttl: self.config.ttl,
        });
    }

    fn unregister(&self, (server, namespace): Key, out: &mut VecDeque<Effect>) {
        if self.is_connected(&server) {
            out.push_back(Effect::Unregister { server, namespace });
        }
    }

    fn shelve_one(&mut self, key: &Key) {
        self.due.cancel(key);
        let since = self.next_in_line();
        if let Some(slot) = self.slots.get_mut(key) {
            *slot = Slot {
                state: Registration::Pending,
                since,
                attempts: 0,
                stale: false,
            };
        }
    }

    /// Everything of a server waits again, in its old order.
    fn shelve(&mut self, server: PeerId) {
        for key in self.keys_of(server) {
            self.due.cancel(&key);
            if let Some(slot) = self.slots.get_mut(&key) {
                slot.state = Registration::Pending;
                slot.attempts = 0;
                slot.stale = false;
            }
        }
    }

    fn shelve_unless_registered(&mut self, server: PeerId) {
        for key in self.keys_of(server) {
            let Some(slot) = self.slots.get_mut(&key) else {
                continue;
            };
            if !matches!(slot.state, Registration::Registered { .. }) {
                slot.state = Registration::Pending;
                slot.stale = false;
                self.due.cancel(&key);
            }
        }
    }

    /// Those registered longest give their places to those that wait.
    fn rotate(&mut self, server: PeerId, now: Instant, out: &mut VecDeque<Effect>) {
        let of_server = |(key, slot): (&Key, &Slot)| (slot.since, slot.state, key.clone());
        let (mut held, mut waiting) = (Vec::new(), 0_usize);
        for (since, state, key) in self
            .slots
            .iter()
            .filter(|((at, _), _)| *at == server)
            .map(of_server)
        {
            match state {
                Registration::Registered { .. } => held.push((since, key)),
                Registration::Pending => waiting += 1,
                Registration::Requested | Registration::Retrying { .. } => {}
            }
        }
        let free = self
            .capacity(&server)
            .saturating_sub(self.places_taken(server));
        held.sort_unstable();
        for (_, key) in held.into_iter().take(waiting.saturating_sub(free)) {
            self.shelve_one(&key);
            self.unregister(key, out);
        }
        // A server that was full may have been given more room; one more asks.
        let state = self.servers.get_mut(&server);
        if let Some(capacity) = state.and_then(|server| server.capacity.as_mut()) {
            *capacity += 1;
        }
        self.fill(server, now, out);
    }
}
