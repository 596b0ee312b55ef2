//! The table of registrations by server: which ones use the capacity of a server, and the order in
//! which others wait.

use std::collections::BTreeMap;

use calimero_network_primitives::PeerId;

use super::{super::namespace::Namespace, Key, Registration};

#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) state: Registration,
    /// Number that gives the order in which registrations are requested and rotated.
    since: u64,
    /// Number of refusals in a row.
    pub(super) attempts: u32,
    /// Whether the external addresses changed since the request under way.
    pub(super) stale: bool,
}

impl Slot {
    fn pending(since: u64) -> Self {
        Self {
            state: Registration::Pending,
            since,
            attempts: 0,
            stale: false,
        }
    }

    /// Returns whether the server holds the registration or may hold it.
    pub(super) fn takes_a_place(&self) -> bool {
        !matches!(self.state, Registration::Pending)
    }

    fn is_held(&self) -> bool {
        matches!(self.state, Registration::Registered { .. })
    }
}

#[derive(Clone, Debug, Default)]
struct Server {
    connected: bool,
    /// Number of registrations of this node that the server accepts, if that is known to be fewer
    /// than configured.
    capacity: Option<usize>,
    slots: BTreeMap<Namespace, Slot>,
}

impl Server {
    fn places_taken(&self) -> usize {
        let slots = self.slots.values();
        slots.filter(|slot| slot.takes_a_place()).count()
    }

    /// Returns the overlays whose entries are `wanted`, those that have waited longest first.
    fn in_order(&self, wanted: impl Fn(&Slot) -> bool) -> Vec<Namespace> {
        let mut line: Vec<_> = self
            .slots
            .iter()
            .filter(|(_, slot)| wanted(slot))
            .map(|(namespace, slot)| (slot.since, namespace.clone()))
            .collect();
        line.sort_unstable();
        line.into_iter().map(|(_, namespace)| namespace).collect()
    }
}

/// The registrations of all servers and followed namespaces.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// Limit of registrations at each server.
    max_per_server: usize,
    servers: BTreeMap<PeerId, Server>,
    sequence: u64,
}

impl Table {
    pub(super) fn new(max_per_server: usize, servers: impl IntoIterator<Item = PeerId>) -> Self {
        let servers = servers.into_iter().map(|peer| (peer, Server::default()));
        Self {
            max_per_server,
            servers: servers.collect(),
            sequence: 0,
        }
    }

    pub(super) fn servers(&self) -> Vec<PeerId> {
        self.servers.keys().copied().collect()
    }

    pub(super) fn add_server(&mut self, server: PeerId) {
        self.servers.entry(server).or_default();
    }

    /// Removes a server. Returns the namespaces of its registrations.
    pub(super) fn remove_server(&mut self, server: PeerId) -> Vec<Namespace> {
        let removed = self.servers.remove(&server);
        let slots = removed.into_iter().flat_map(|server| server.slots);
        slots.map(|(namespace, _)| namespace).collect()
    }

    pub(super) fn is_server(&self, peer: &PeerId) -> bool {
        self.servers.contains_key(peer)
    }

    pub(super) fn is_connected(&self, server: &PeerId) -> bool {
        self.servers.get(server).is_some_and(|s| s.connected)
    }

    /// Sets whether `server` is connected. A server that connects is assumed to have the configured
    /// capacity again. Returns whether `server` is a rendezvous server.
    pub(super) fn set_connected(&mut self, server: PeerId, connected: bool) -> bool {
        let Some(state) = self.servers.get_mut(&server) else {
            return false;
        };
        state.connected = connected;
        if connected {
            state.capacity = None;
        }
        true
    }

    pub(super) fn slot(&mut self, (server, namespace): &Key) -> Option<&mut Slot> {
        self.servers.get_mut(server)?.slots.get_mut(namespace)
    }

    pub(super) fn slots_of(
        &mut self,
        server: PeerId,
    ) -> impl Iterator<Item = (&Namespace, &mut Slot)> {
        let server = self.servers.get_mut(&server).into_iter();
        server.flat_map(|server| server.slots.iter_mut())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&PeerId, &Namespace, Registration)> {
        let servers = self.servers.iter();
        servers.flat_map(|(peer, server)| {
            let slots = server.slots.iter();
            slots.map(move |(namespace, slot)| (peer, namespace, slot.state))
        })
    }

    /// Returns whether a connected server holds a registration of `namespace`.
    pub(super) fn is_held(&self, namespace: &Namespace) -> bool {
        let mut connected = self.servers.values().filter(|server| server.connected);
        connected.any(|server| server.slots.get(namespace).is_some_and(Slot::is_held))
    }

    /// Adds a pending registration, if there is none, that waits behind all others.
    pub(super) fn add(&mut self, server: PeerId, namespace: &Namespace) {
        let since = self.next_in_line();
        if let Some(server) = self.servers.get_mut(&server) {
            let slot = server.slots.entry(namespace.clone());
            slot.or_insert_with(|| Slot::pending(since));
        }
    }

    pub(super) fn remove(&mut self, (server, namespace): &Key) -> Option<Slot> {
        self.servers.get_mut(server)?.slots.remove(namespace)
    }

    /// Removes all registrations. Returns those that a server holds or may hold.
    pub(super) fn take(&mut self) -> Vec<Key> {
        let mut taken = Vec::new();
        for (peer, server) in &mut self.servers {
            let slots = std::mem::take(&mut server.slots).into_iter();
            let held = slots.filter(|(_, slot)| slot.takes_a_place());
            taken.extend(held.map(|(namespace, _)| (*peer, namespace)));
        }
        taken
    }

    /// Makes the registration pending, behind all others.
    pub(super) fn shelve(&mut self, key: &Key) {
        let since = self.next_in_line();
        if let Some(slot) = self.slot(key) {
            *slot = Slot::pending(since);
        }
    }

    /// Returns the pending registrations that `server` has capacity for, those that have waited
    /// longest first.
    pub(super) fn next_places(&self, server: PeerId) -> Vec<Namespace> {
        let Some(state) = self.servers.get(&server) else {
            return Vec::new();
        };
        let mut line = state.in_order(|slot| !slot.takes_a_place());
        line.truncate(self.free(state));
        line
    }

    /// Returns the registrations to remove for others that wait, those held longest first.
    pub(super) fn next_to_rotate(&self, server: PeerId) -> Vec<Namespace> {
        let Some(state) = self.servers.get(&server) else {
            return Vec::new();
        };
        let waiting = state.slots.len() - state.places_taken();
        let mut held = state.in_order(Slot::is_held);
        held.truncate(waiting.saturating_sub(self.free(state)));
        held
    }

    /// The server refuses although this node holds fewer registrations than configured, so its
    /// capacity is the number that it holds. One is left free, because a refresh needs it. Returns
    /// whether the refusal says anything.
    pub(super) fn lower_capacity(&mut self, server: PeerId) -> bool {
        let Some(server) = self.servers.get_mut(&server) else {
            return false;
        };
        let held = server.places_taken().saturating_sub(1);
        if held > 0 {
            server.capacity = Some(held);
        }
        held > 0
    }

    /// Raises the assumed capacity of a server by one, since it may have been given more.
    pub(super) fn raise_capacity(&mut self, server: PeerId) {
        let state = self.servers.get_mut(&server);
        if let Some(capacity) = state.and_then(|server| server.capacity.as_mut()) {
            *capacity += 1;
        }
    }

    fn free(&self, server: &Server) -> usize {
        let max = self.max_per_server;
        let capacity = server.capacity.map_or(max, |known| known.min(max));
        capacity.saturating_sub(server.places_taken())
    }

    fn next_in_line(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }
}
