//! The address book: what is known of where peers are. Its one writer is this file.

use std::time::{Duration, Instant};

use calimero_network_primitives::{
    Multiaddr, PeerId,
    addr::{DialAddr, is_relayed},
    config::BookTuning,
};

use super::peers::{NOBODY, Number, PeerTable};

/// Time without contact after which a peer is forgotten: 24 h, the usual lease of a home address.
pub(super) const MAX_AGE: Duration = Duration::from_secs(24 * 3600);

/// Failed dials in a row after which an address is forgotten.
pub(super) const MAX_DIAL_FAILURES: u32 = 3;

#[derive(Clone, Debug)]
struct Known {
    address: DialAddr,
    /// Dials in a row that failed.
    failures: u32,
    /// Whether a connection was established through it.
    proven: bool,
    circuit: bool,
}

impl Known {
    fn new(address: DialAddr, proven: bool) -> Self {
        Self {
            circuit: is_relayed(&address),
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

/// Those that stand next to one among those that may be evicted; `NOBODY` at the ends.
#[derive(Clone, Copy, Debug)]
struct Place {
    sooner: Number,
    later: Number,
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
    /// Peers in the book; above it the one seen least recently is evicted.
    max_peers: u32,
    config: BookTuning,
    peers: PeerTable<Entry>,
    /// Of those that may be evicted, the one unheard of for longest, and the one heard of last.
    /// Each knows its neighbours. Word of a peer puts it last, so that nothing is searched for; but
    /// what a cache tells is old, and finds its place from the end.
    first: Number,
    last: Number,
}

impl AddressBook {
    pub(super) fn new(max_peers: u32, config: BookTuning) -> Self {
        Self {
            max_peers,
            config,
            peers: PeerTable::default(),
            first: NOBODY,
            last: NOBODY,
        }
    }

    /// Remembers `addresses` of a boot node for good, beyond every bound but their own number.
    pub(super) fn insert_infrastructure(&mut self, peer: PeerId, addresses: Vec<DialAddr>) {
        let number = self.peers.number_or_insert(peer, Entry::default);
        if let Some(entry) = self.peers.get_mut(number) {
            entry.infrastructure = true;
            let known = addresses.into_iter();
            entry.known = known.map(|address| Known::new(address, false)).collect();
        }
        self.take_out(number);
        self.shrink();
    }

    /// Stores `addresses` of `peer`, learned `age` ago, and calls `new` for each that was not stored.
    pub(super) fn learn(
        &mut self,
        peer: PeerId,
        addresses: impl Iterator<Item = DialAddr>,
        age: Duration,
        now: Instant,
        mut new: impl FnMut(DialAddr),
    ) {
        let mut addresses = addresses.peekable();
        let Some(left) = MAX_AGE.checked_sub(age) else {
            return;
        };
        if addresses.peek().is_none() {
            return;
        }
        let max = self.config.max_addresses_per_peer as usize;
        let number = self.peers.number_or_insert(peer, Entry::default);
        let entry = self.peers.get_mut(number);
        if let Some(entry) = entry.filter(|entry| !entry.infrastructure) {
            addresses
                .filter(|address| add(&mut entry.known, address, max))
                .for_each(&mut new);
        }
        self.heard(number, now + left);
        self.shrink();
    }

    /// A connection with `peer` is up; through `address`, if we dialled it. Whether the address is
    /// a new one.
    pub(super) fn connected(
        &mut self,
        peer: PeerId,
        address: Option<&DialAddr>,
        now: Instant,
    ) -> bool {
        let max = self.config.max_addresses_per_peer as usize;
        let number = self.peers.number_or_insert(peer, Entry::default);
        let Some(entry) = self.peers.get_mut(number) else {
            return false;
        };
        entry.connected = true;
        let new = address.is_some_and(|address| prove(entry, address, max));
        self.heard(number, now + MAX_AGE);
        self.shrink();
        new
    }

    /// The last connection with `peer` is gone. What is known of it stays.
    pub(super) fn disconnected(&mut self, peer: PeerId, now: Instant) {
        let Some(number) = self.peers.number(&peer) else {
            return;
        };
        let Some(entry) = self.peers.get_mut(number) else {
            return;
        };
        entry.connected = false;
        if entry.known.is_empty() {
            self.forget(number);
            return;
        }
        self.heard(number, now + MAX_AGE);
        self.shrink();
    }

    /// A dial of `address` failed. Returns whether that was once too often.
    pub(super) fn dial_failed(&mut self, peer: &PeerId, address: &Multiaddr) -> bool {
        let max = MAX_DIAL_FAILURES;
        let Some(number) = self.peers.number(peer) else {
            return false;
        };
        let Some(entry) = self.peers.get_mut(number) else {
            return false;
        };
        let Some(at) = entry.known.iter().position(|k| *k.address == *address) else {
            return false;
        };
        let known = &mut entry.known[at];
        known.failures = known.failures.saturating_add(1);
        if entry.infrastructure || known.failures < max {
            return false;
        }
        entry.known.remove(at);
        if entry.known.is_empty() && !entry.kept() {
            self.forget(number);
        }
        true
    }

    /// The addresses of `peer`, the best first.
    pub(super) fn addresses(&self, peer: &PeerId) -> Vec<DialAddr> {
        let Some(entry) = self.get(peer) else {
            return Vec::new();
        };
        let mut known: Vec<&Known> = entry.known.iter().collect();
        known.sort_by_key(|known| known.rank());
        known.into_iter().map(|k| k.address.clone()).collect()
    }

    /// Whether no address of `peer` is known.
    pub(super) fn is_stranger(&self, peer: &PeerId) -> bool {
        self.get(peer).is_none_or(|entry| entry.known.is_empty())
    }

    /// Peers worth remembering, and how long ago they were heard of: those that were reached, the
    /// one heard of last first; after them, those that have come in and said where they listen,
    /// while they are connected.
    pub(super) fn worthy(&self, now: Instant) -> Vec<(PeerId, Duration)> {
        let mut worthy: Vec<_> = self
            .peers
            .iter()
            .filter(|(_, entry)| !entry.infrastructure)
            .filter_map(|(peer, entry)| {
                let reached = entry.known.iter().any(|known| known.proven);
                let came = entry.connected && !entry.known.is_empty();
                let left = entry.expires.map(|at| at.saturating_duration_since(now));
                let age = match left {
                    Some(left) if !entry.connected => MAX_AGE.saturating_sub(left),
                    _ => Duration::ZERO,
                };
                (reached || came).then_some((!reached, age, *peer))
            })
            .collect();
        worthy.sort_unstable();
        let worthy = worthy.into_iter().map(|(_, age, peer)| (peer, age));
        worthy.collect()
    }

    /// Forgets whom nothing was heard of for too long.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some(first) = self.peers.get(self.first) {
            if first.expires.is_some_and(|at| at > now) {
                return;
            }
            self.forget(self.first);
        }
    }

    /// Forgets `peer`, whatever it is.
    pub(super) fn remove(&mut self, peer: &PeerId) {
        if let Some(number) = self.peers.number(peer) {
            self.forget(number);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }

    /// The most addresses known of any peer that is not a boot node.
    #[cfg(test)]
    pub(super) fn longest(&self) -> usize {
        let all = self.peers.iter().map(|(_, entry)| entry);
        let learnt = all.filter(|entry| !entry.infrastructure);
        learnt.map(|entry| entry.known.len()).max().unwrap_or(0)
    }

    fn get(&self, peer: &PeerId) -> Option<&Entry> {
        self.peers.get(self.peers.number(peer)?)
    }

    fn forget(&mut self, number: Number) {
        self.take_out(number);
        self.peers.remove(number);
    }

    /// Forgets whom nothing was heard of for longest, until there is room or nobody to forget.
    fn shrink(&mut self) {
        while self.peers.len() > self.max_peers as usize && self.first != NOBODY {
            self.forget(self.first);
        }
    }

    /// There is word of a peer: it is forgotten at `expires`, or later if that was known already.
    fn heard(&mut self, number: Number, expires: Instant) {
        let Some(entry) = self.peers.get_mut(number) else {
            return;
        };
        let expires = entry.expires.map_or(expires, |before| before.max(expires));
        entry.expires = Some(expires);
        let kept = entry.kept();
        self.take_out(number);
        if !kept {
            self.put(number, expires);
        }
    }

    /// Puts a peer among those that may be evicted, after those that expire no later.
    fn put(&mut self, number: Number, expires: Instant) {
        let (mut sooner, mut later) = (self.last, NOBODY);
        while let Some(Entry {
            expires: Some(at),
            place: Some(place),
            ..
        }) = self.peers.get(sooner)
        {
            if *at <= expires {
                break;
            }
            (sooner, later) = (place.sooner, sooner);
        }
        if let Some(entry) = self.peers.get_mut(number) {
            entry.place = Some(Place { sooner, later });
        }
        self.join(sooner, number);
        self.join(number, later);
    }

    fn take_out(&mut self, number: Number) {
        let entry = self.peers.get_mut(number);
        if let Some(Place { sooner, later }) = entry.and_then(|entry| entry.place.take()) {
            self.join(sooner, later);
        }
    }

    /// Makes two of those that may be evicted, or the ends, neighbours.
    fn join(&mut self, sooner: Number, later: Number) {
        match self.place(sooner) {
            Some(place) => place.later = later,
            None => self.first = later,
        }
        match self.place(later) {
            Some(place) => place.sooner = sooner,
            None => self.last = sooner,
        }
    }

    fn place(&mut self, number: Number) -> Option<&mut Place> {
        self.peers.get_mut(number)?.place.as_mut()
    }
}

/// Adds `address`, in place of the worst one where there is no room. Returns whether it is new.
fn add(known: &mut Vec<Known>, address: &DialAddr, max: usize) -> bool {
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
fn prove(entry: &mut Entry, address: &DialAddr, max: usize) -> bool {
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
