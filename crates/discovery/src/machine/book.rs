//! The address book: what is known of where peers are. Its one writer is this file.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use calimero_network_primitives::{Multiaddr, PeerId, config::BookConfig};

use super::address::is_circuit;

/// Words of a peer that come faster than this count as one: keeping them in order costs more than
/// all the rest of hearing them.
const EXPIRY_STEP: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
struct Known {
    address: Multiaddr,
    /// Dials in a row that failed.
    failures: u32,
    /// Whether a connection was established through it.
    proven: bool,
    circuit: bool,
}

impl Known {
    fn new(address: Multiaddr, proven: bool) -> Self {
        Self {
            circuit: is_circuit(&address),
            address,
            failures: 0,
            proven,
        }
    }

    /// Smaller is better: proven, then untried, then failing; a direct way before a circuit.
    fn rank(&self) -> (u32, bool, bool) {
        (self.failures, !self.proven, self.circuit)
    }
}

#[derive(Clone, Debug, Default)]
struct Entry {
    known: Vec<Known>,
    /// A boot node: its addresses come from the configuration and stay.
    infrastructure: bool,
    connected: bool,
    /// Last word of it, as the time at which it will be forgotten.
    expires: Option<Instant>,
    /// Where it stands among those that may be evicted.
    place: Option<Place>,
}

/// When a peer is forgotten; the number tells those of one instant apart.
type Place = (Instant, u64);

/// Peers that may be evicted, the one unheard of for longest first. Each entry of the book knows
/// its place here, so that to move it costs no search by peer.
#[derive(Clone, Debug, Default)]
struct Evictable {
    order: BTreeMap<Place, PeerId>,
    last: u64,
}

impl Evictable {
    fn put(&mut self, peer: PeerId, entry: &mut Entry, expires: Instant) {
        self.take_out(entry);
        self.last += 1;
        let place = (expires, self.last);
        self.order.insert(place, peer);
        entry.place = Some(place);
    }

    fn take_out(&mut self, entry: &mut Entry) {
        if let Some(place) = entry.place.take() {
            self.order.remove(&place);
        }
    }
}

impl Entry {
    fn kept(&self) -> bool {
        self.infrastructure || self.connected
    }
}

/// Addresses of peers: bounded in peers, in addresses per peer and in age. Boot nodes and
/// connected peers are never evicted.
#[derive(Clone, Debug)]
pub(super) struct AddressBook {
    config: BookConfig,
    peers: HashMap<PeerId, Entry>,
    evictable: Evictable,
}

impl AddressBook {
    pub(super) fn new(config: BookConfig) -> Self {
        Self {
            config,
            peers: HashMap::new(),
            evictable: Evictable::default(),
        }
    }

    /// Remembers `addresses` of a boot node for good, beyond every bound but their own number.
    pub(super) fn insert_infrastructure(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        let entry = self.peers.entry(peer).or_default();
        entry.infrastructure = true;
        let known = addresses.into_iter();
        entry.known = known.map(|address| Known::new(address, false)).collect();
        self.evictable.take_out(entry);
        self.shrink();
    }

    /// Remembers filtered `addresses` of `peer`, heard `age` ago. Tells `new` of those that are.
    pub(super) fn learn(
        &mut self,
        peer: PeerId,
        addresses: impl Iterator<Item = Multiaddr>,
        age: Duration,
        now: Instant,
        mut new: impl FnMut(Multiaddr),
    ) {
        let mut addresses = addresses.peekable();
        let Some(left) = self.config.max_age.checked_sub(age) else {
            return;
        };
        if addresses.peek().is_none() {
            return;
        }
        let max = self.config.max_addresses_per_peer as usize;
        let entry = self.peers.entry(peer).or_default();
        if !entry.infrastructure {
            addresses
                .filter(|address| add(&mut entry.known, address, max))
                .for_each(&mut new);
        }
        heard(peer, entry, now + left, &mut self.evictable);
        self.shrink();
    }

    /// A connection with `peer` is up; through `address`, if we dialled it. Whether the address is
    /// a new one.
    pub(super) fn connected(
        &mut self,
        peer: PeerId,
        address: Option<&Multiaddr>,
        now: Instant,
    ) -> bool {
        let max = self.config.max_addresses_per_peer as usize;
        let entry = self.peers.entry(peer).or_default();
        entry.connected = true;
        let new = address.is_some_and(|address| prove(entry, address, max));
        let expires = now + self.config.max_age;
        heard(peer, entry, expires, &mut self.evictable);
        self.shrink();
        new
    }

    /// The last connection with `peer` is gone. What is known of it stays.
    pub(super) fn disconnected(&mut self, peer: PeerId, now: Instant) {
        let Some(entry) = self.peers.get_mut(&peer) else {
            return;
        };
        entry.connected = false;
        if entry.known.is_empty() {
            self.remove(&peer);
            return;
        }
        let expires = now + self.config.max_age;
        heard(peer, entry, expires, &mut self.evictable);
        self.shrink();
    }

    /// A dial of `address` failed. Returns whether that was once too often.
    pub(super) fn dial_failed(&mut self, peer: &PeerId, address: &Multiaddr) -> bool {
        let Some(entry) = self.peers.get_mut(peer) else {
            return false;
        };
        let Some(at) = entry.known.iter().position(|k| k.address == *address) else {
            return false;
        };
        entry.known[at].failures = entry.known[at].failures.saturating_add(1);
        if entry.infrastructure || entry.known[at].failures < self.config.max_dial_failures {
            return false;
        }
        entry.known.remove(at);
        if entry.known.is_empty() && !entry.kept() {
            self.remove(peer);
        }
        true
    }

    /// The addresses of `peer`, the best first.
    pub(super) fn addresses(&self, peer: &PeerId) -> Vec<Multiaddr> {
        let Some(entry) = self.peers.get(peer) else {
            return Vec::new();
        };
        let mut known: Vec<&Known> = entry.known.iter().collect();
        known.sort_by_key(|known| known.rank());
        known.into_iter().map(|k| k.address.clone()).collect()
    }

    /// Peers a connection was established with, the one heard of last first, and how long ago.
    pub(super) fn proven(&self, now: Instant) -> Vec<(PeerId, Duration)> {
        let mut proven: Vec<_> = self
            .peers
            .iter()
            .filter(|(_, entry)| !entry.infrastructure && entry.known.iter().any(|k| k.proven))
            .map(|(peer, entry)| {
                let left = entry.expires.map(|at| at.saturating_duration_since(now));
                let age = match left {
                    Some(left) if !entry.connected => self.config.max_age.saturating_sub(left),
                    _ => Duration::ZERO,
                };
                (*peer, age)
            })
            .collect();
        proven.sort_by_key(|(peer, age)| (*age, *peer));
        proven
    }

    /// Forgets whom nothing was heard of for too long.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some(first) = self.evictable.order.first_entry() {
            if first.key().0 > now {
                return;
            }
            self.peers.remove(&first.remove());
        }
    }

    /// Forgets `peer`, whatever it is.
    pub(super) fn remove(&mut self, peer: &PeerId) {
        if let Some(mut entry) = self.peers.remove(peer) {
            self.evictable.take_out(&mut entry);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }

    /// The most addresses known of any peer that is not a boot node.
    #[cfg(test)]
    pub(super) fn longest(&self) -> usize {
        let learnt = self.peers.values().filter(|entry| !entry.infrastructure);
        learnt.map(|entry| entry.known.len()).max().unwrap_or(0)
    }

    /// Forgets whom nothing was heard of for longest, until there is room or nobody to forget.
    fn shrink(&mut self) {
        while self.peers.len() > self.config.max_peers as usize {
            let Some((_, oldest)) = self.evictable.order.pop_first() else {
                return;
            };
            self.peers.remove(&oldest);
        }
    }
}

/// There is word of `peer`: it is forgotten at `expires`, or later if that was known already.
fn heard(peer: PeerId, entry: &mut Entry, expires: Instant, evictable: &mut Evictable) {
    let before = entry.expires;
    let expires = before.map_or(expires, |before| before.max(expires));
    if entry.kept() {
        evictable.take_out(entry);
    } else if entry.place.is_some() && before.is_some_and(|before| expires - before < EXPIRY_STEP) {
        return;
    } else {
        evictable.put(peer, entry, expires);
    }
    entry.expires = Some(expires);
}

/// Adds `address`, in place of the worst one where there is no room. Returns whether it is new.
fn add(known: &mut Vec<Known>, address: &Multiaddr, max: usize) -> bool {
    if known.iter().any(|k| k.address == *address) {
        return false;
    }
    let new = Known::new(address.clone(), false);
    if known.len() < max {
        // Most peers have one address or two: what they do not need is not kept for them.
        known.reserve_exact(1);
        known.push(new);
        return true;
    }
    // Something that works is not given up for a rumour; among rumours the newest wins, since
    // addresses change.
    let worst = known
        .iter_mut()
        .rev()
        .filter(|known| !known.proven || known.failures > 0)
        .max_by_key(|known| known.rank());
    match worst {
        Some(worst) => {
            *worst = new;
            true
        }
        None => false,
    }
}

/// Marks `address` as one that works, remembered or not so far.
fn prove(entry: &mut Entry, address: &Multiaddr, max: usize) -> bool {
    let proven = Known::new(address.clone(), true);
    let place = entry.known.iter().position(|k| k.address == *address);
    match place {
        Some(place) => {
            entry.known[place] = proven;
            false
        }
        None if entry.infrastructure => false,
        None => {
            if entry.known.len() >= max {
                entry.known.sort_by_key(Known::rank);
                entry.known.truncate(max - 1);
            }
            entry.known.push(proven);
            true
        }
    }
}
