//! The registrations of this node at rendezvous servers. The state is kept here alone, not in a
//! client library.

mod table;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use calimero_network_primitives::{PeerId, config::RendezvousTuning};
use rand::rngs::StdRng;

use self::table::Table;
use super::{
    effect::Effect,
    input::RendezvousFailure,
    namespace::Namespace,
    schedule::{Schedule, backoff, jittered},
};

/// Time for a rendezvous server to answer: 20 s, the deadline of the request (10 s) and the
/// negotiation of a stream (10 s).
pub(super) const SERVER_TIMEOUT: Duration = Duration::from_secs(20);

/// Refusals in a row after which a server counts as full for this node, 2. libp2p-rendezvous 0.18
/// reports a lost request in the same way, so one refusal proves nothing.
const REFUSALS_OF_A_FULL_SERVER: u32 = 2;

/// The state of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration {
    /// Requested as soon as this node has an external address and a connection with the server, and
    /// the server has capacity for another registration of this node.
    Pending,
    /// A request for the registration is under way.
    Requested,
    /// The server holds the registration.
    Registered {
        /// Time at which the registration expires unless it is refreshed.
        expires: Instant,
    },
    /// The request was refused or not answered. It is repeated later.
    Retrying {
        /// Time of the next request.
        at: Instant,
    },
}

type Key = (PeerId, Namespace);

/// One registration per server and followed namespace.
#[derive(Clone, Debug)]
pub(super) struct Registrations {
    config: RendezvousTuning,
    table: Table,
    /// Deadline, refresh or retry of a registration, depending on its state.
    due: Schedule<Key>,
    rotations: Schedule<PeerId>,
    has_address: bool,
}

impl Registrations {
    pub(super) fn new(config: RendezvousTuning, servers: impl IntoIterator<Item = PeerId>) -> Self {
        let places = config.max_registrations_per_server as usize;
        Self {
            config,
            table: Table::new(places, servers),
            due: Schedule::default(),
            rotations: Schedule::default(),
            has_address: false,
        }
    }

    /// Adds a server, which is not connected yet.
    pub(super) fn add_server(&mut self, server: PeerId, followed: &[Namespace]) {
        self.table.add_server(server);
        for namespace in followed {
            self.table.add(server, namespace);
        }
    }

    /// Removes a server. It keeps the registrations until they expire.
    pub(super) fn remove_server(&mut self, server: PeerId) {
        self.rotations.cancel(&server);
        for namespace in self.table.remove_server(server) {
            self.due.cancel(&(server, namespace));
        }
    }

    pub(super) fn follow(
        &mut self,
        namespace: &Namespace,
        now: Instant,
        out: &mut VecDeque<Effect>,
    ) {
        for server in self.table.servers() {
            self.table.add(server, namespace);
            self.fill(server, now, out);
        }
    }

    pub(super) fn unfollow(
        &mut self,
        namespace: &Namespace,
        now: Instant,
        out: &mut VecDeque<Effect>,
    ) {
        for server in self.table.servers() {
            let key = (server, namespace.clone());
            self.due.cancel(&key);
            let Some(slot) = self.table.remove(&key) else {
                continue;
            };
            if slot.takes_a_place() {
                self.unregister(key, out);
            }
            self.fill(server, now, out);
        }
    }

    /// A server is connected. It may have lost the registrations, so all are requested again, in
    /// the same order.
    pub(super) fn server_up(
        &mut self,
        server: PeerId,
        now: Instant,
        rng: &mut StdRng,
        out: &mut VecDeque<Effect>,
    ) {
        if !self.table.set_connected(server, true) {
            return;
        }
        for (namespace, slot) in self.table.slots_of(server) {
            slot.state = Registration::Pending;
            slot.attempts = 0;
            slot.stale = false;
            self.due.cancel(&(server, namespace.clone()));
        }
        let wait = jittered(rng, self.config.rotation);
        self.rotations.set(server, now + wait);
        self.fill(server, now, out);
    }

    /// A server was disconnected. It may keep the registrations. Requests under way are repeated
    /// later.
    pub(super) fn server_down(&mut self, server: PeerId) {
        if !self.table.set_connected(server, false) {
            return;
        }
        self.rotations.cancel(&server);
        for (namespace, slot) in self.table.slots_of(server) {
            if !matches!(slot.state, Registration::Registered { .. }) {
                slot.state = Registration::Pending;
                slot.stale = false;
                self.due.cancel(&(server, namespace.clone()));
            }
        }
    }

    /// The external addresses changed. Registrations are refreshed; without an address they are
    /// removed.
    pub(super) fn addresses_changed(
        &mut self,
        has_address: bool,
        now: Instant,
        out: &mut VecDeque<Effect>,
    ) {
        self.has_address = has_address;
        for server in self.table.servers() {
            let mut held = Vec::new();
            for (namespace, slot) in self.table.slots_of(server) {
                match slot.state {
                    // One request at a time. Its answer decides about the next.
                    Registration::Requested => slot.stale = true,
                    Registration::Registered { .. } => held.push((server, namespace.clone())),
                    Registration::Pending | Registration::Retrying { .. } => {}
                }
            }
            for key in held {
                // Refreshes the registration, or removes it if there is no address.
                self.request(&key, now, out);
            }
            self.fill(server, now, out);
        }
    }

    /// A server accepted a registration for `ttl`.
    pub(super) fn registered(
        &mut self,
        key: Key,
        ttl: Duration,
        now: Instant,
        rng: &mut StdRng,
        out: &mut VecDeque<Effect>,
    ) {
        if !self.table.is_server(&key.0) {
            return;
        }
        let Some(slot) = self.table.slot(&key) else {
            // The answer crossed the removal of the registration.
            self.unregister(key, out);
            return;
        };
        if slot.state != Registration::Requested {
            return;
        }
        slot.attempts = 0;
        // A server may claim any time. At most the requested one counts, and at least one that
        // keeps refreshes, which are made after half of it, from being too frequent.
        let ttl = ttl.clamp(
            self.config.min_backoff * 2,
            self.config.ttl.max(self.config.min_backoff * 2),
        );
        let expires = now + ttl;
        slot.state = Registration::Registered { expires };
        let stale = std::mem::take(&mut slot.stale);
        self.due.set(key.clone(), now + jittered(rng, ttl / 2));
        if stale {
            self.request(&key, now, out);
        }
    }

    /// A server refused a registration or did not answer.
    pub(super) fn failed(
        &mut self,
        key: Key,
        why: RendezvousFailure,
        now: Instant,
        rng: &mut StdRng,
        out: &mut VecDeque<Effect>,
    ) {
        let Some(slot) = self.table.slot(&key) else {
            return;
        };
        if slot.state != Registration::Requested {
            return;
        }
        slot.attempts = slot.attempts.saturating_add(1);
        let (min, max) = (self.config.min_backoff, self.config.max_backoff);
        let at = now + backoff(rng, min, max, slot.attempts);
        slot.stale = false;
        let full = why == RendezvousFailure::Unavailable
            && slot.attempts >= REFUSALS_OF_A_FULL_SERVER
            && self.table.lower_capacity(key.0);
        if full {
            // The registration is removed, so that the refreshes of the others find room at the
            // server.
            self.due.cancel(&key);
            self.table.shelve(&key);
            self.unregister(key, out);
        } else if let Some(slot) = self.table.slot(&key) {
            slot.state = Registration::Retrying { at };
            self.due.set(key, at);
        }
    }

    /// Does what is due: refreshes, repeats and times out requests, and rotates registrations.
    pub(super) fn advance(&mut self, now: Instant, rng: &mut StdRng, out: &mut VecDeque<Effect>) {
        while let Some(key) = self.due.pop_due(now) {
            let Some(slot) = self.table.slot(&key) else {
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

    /// Removes every registration that a server holds or may hold.
    pub(super) fn stop(&mut self, out: &mut VecDeque<Effect>) {
        for key in self.table.take() {
            self.unregister(key, out);
        }
        self.due = Schedule::default();
        self.rotations = Schedule::default();
    }

    pub(super) fn next(&self) -> Option<Instant> {
        [self.due.next(), self.rotations.next()]
            .into_iter()
            .flatten()
            .min()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&PeerId, &Namespace, Registration)> {
        self.table.iter()
    }

    /// Returns whether a connected server holds a registration for `namespace`.
    pub(super) fn is_settled(&self, namespace: &Namespace) -> bool {
        self.table.is_held(namespace)
    }

    /// Returns whether something is due at some time for `key`.
    #[cfg(test)]
    pub(super) fn has_time(&self, key: &Key) -> bool {
        self.due.contains(key)
    }

    /// Requests pending registrations while the server has capacity, those that have waited longest
    /// first.
    fn fill(&mut self, server: PeerId, now: Instant, out: &mut VecDeque<Effect>) {
        if !self.has_address || !self.table.is_connected(&server) {
            return;
        }
        for namespace in self.table.next_places(server) {
            self.request(&(server, namespace), now, out);
        }
    }

    /// Requests the registration of `key`, or leaves it pending if that is not possible now.
    fn request(&mut self, key: &Key, now: Instant, out: &mut VecDeque<Effect>) {
        let possible = self.has_address && self.table.is_connected(&key.0);
        let Some(slot) = self.table.slot(key) else {
            return;
        };
        slot.stale = false;
        if !possible {
            let before = std::mem::replace(&mut slot.state, Registration::Pending);
            self.due.cancel(key);
            if matches!(before, Registration::Registered { .. }) {
                // Members must not be given an address that is no longer valid.
                self.unregister(key.clone(), out);
            }
            return;
        }
        slot.state = Registration::Requested;
        self.due.set(key.clone(), now + SERVER_TIMEOUT);
        out.push_back(Effect::Register {
            server: key.0,
            namespace: key.1.clone(),
            ttl: self.config.ttl,
        });
    }

    fn unregister(&self, (server, namespace): Key, out: &mut VecDeque<Effect>) {
        if self.table.is_connected(&server) {
            out.push_back(Effect::Unregister { server, namespace });
        }
    }

    /// Removes the registrations that were held longest and requests those that wait.
    fn rotate(&mut self, server: PeerId, now: Instant, out: &mut VecDeque<Effect>) {
        for namespace in self.table.next_to_rotate(server) {
            let key = (server, namespace);
            self.due.cancel(&key);
            self.table.shelve(&key);
            self.unregister(key, out);
        }
        self.table.raise_capacity(server);
        self.fill(server, now, out);
    }
}
