//! The address book: what is known of where peers are. Its one writer is this file.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use calimero_network_primitives::{Multiaddr, PeerId, config::BookConfig};

use super::{address::is_circuit, schedule::Schedule};

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
}

impl Known {
    /// Smaller is better: proven, then untried, then failing; a direct way before a circuit.
    fn rank(&self) -> (u32, bool, bool) {
        (self.failures, !self.proven, is_circuit(&self.address))
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
    /// Peers that may be evicted, the one unheard of for longest first.
    evictable: Schedule<PeerId>,
}

impl AddressBook {
    pub(super) fn new(config: BookConfig) -> Self {
        Self {
            config,
            peers: HashMap::new(),
            evictable: Schedule::default(),
        }
    }

    /// Remembers `addresses` of a boot node for good, beyond every bound but their own number.
    pub(super) fn insert_infrastructure(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        let entry = self.peers.entry(peer).or_default();
        entry.infrastructure = true;
        entry.known = addresses
            .into_iter()
            .map(|address| Known {
                address,
                failures: 0,
                proven: false,
            })
            .collect();
    }

    /// Remembers filtered `addresses` of `peer`, heard `age` ago. Returns those that are new.
    pub(super) fn learn(
        &mut self,
        peer: PeerId,
        addresses: Vec<Multiaddr>,
        age: Duration,
        now: Instant,
    ) -> Vec<Multiaddr> {
        let Some(left) = self.config.max_age.checked_sub(age) else {
            return Vec::new();
        };
        if addresses.is_empty() || !self.make_room(&peer) {
            return Vec::new();
        }
        let max = self.config.max_addresses_per_peer as usize;
        let entry = self.peers.entry(peer).or_default();
        let new = addresses
            .into_iter()
            .filter(|address| !entry.infrastructure && add(&mut entry.known, address, max))
            .collect();
        self.heard(peer, now + left);
        new
    }

    /// A connection with `peer` is up; through `address`, if we dialled it.
    pub(super) fn connected(&mut self, peer: PeerId, address: Option<&Multiaddr>, now: Instant) {
        self.make_room(&peer);
        let max = self.config.max_addresses_per_peer as usize;
        let entry = self.peers.entry(peer).or_default();
        entry.connected = true;
        if let Some(address) = address {
            prove(entry, address, max);
        }
        self.heard(peer, now + self.config.max_age);
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
        self.heard(peer, now + self.config.max_age);
        while self.peers.len() > self.config.max_peers as usize && self.evict_one() {}
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
        while let Some(peer) = self.evictable.pop_due(now) {
            self.peers.remove(&peer);
        }
    }

    /// Forgets `peer`, whatever it is.
    pub(super) fn remove(&mut self, peer: &PeerId) {
        self.evictable.cancel(peer);
        self.peers.remove(peer);
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

    fn heard(&mut self, peer: PeerId, expires: Instant) {
        let Some(entry) = self.peers.get_mut(&peer) else {
            return;
        };
        let expires = entry.expires.map_or(expires, |before| before.max(expires));
        let moved = entry
            .expires
            .is_none_or(|before| expires - before >= EXPIRY_STEP);
        if entry.kept() {
            self.evictable.cancel(&peer);
        } else if moved || !self.evictable.contains(&peer) {
            self.evictable.set(peer, expires);
        } else {
            return;
        }
        entry.expires = Some(expires);
    }

    /// Whether `peer` has a place, or got that of another.
    fn make_room(&mut self, peer: &PeerId) -> bool {
        self.peers.contains_key(peer)
            || self.peers.len() < self.config.max_peers as usize
            || self.evict_one()
    }

    fn evict_one(&mut self) -> bool {
        match self.evictable.pop_first() {
            Some(oldest) => self.peers.remove(&oldest).is_some(),
            None => false,
        }
    }
}

/// Adds `address`, in place of the worst one where there is no room. Returns whether it is new.
fn add(known: &mut Vec<Known>, address: &Multiaddr, max: usize) -> bool {
    if known.iter().any(|k| k.address == *address) {
        return false;
    }
    let new = Known {
        address: address.clone(),
        failures: 0,
        proven: false,
    };
    if known.len() < max {
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
fn prove(entry: &mut Entry, address: &Multiaddr, max: usize) {
    let proven = Known {
        address: address.clone(),
        failures: 0,
        proven: true,
    };
    let place = entry.known.iter().position(|k| k.address == *address);
    match place {
        Some(place) => entry.known[place] = proven,
        None if entry.infrastructure => {}
        None => {
            if entry.known.len() >= max {
                entry.known.sort_by_key(Known::rank);
                entry.known.truncate(max - 1);
            }
            entry.known.push(proven);
        }
    }
}
