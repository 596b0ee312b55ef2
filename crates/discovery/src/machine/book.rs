//! The address book: the addresses of known peers.

use std::time::{Duration, Instant};

use calimero_network_primitives::{
    Multiaddr, PeerId,
    addr::{AddressTransport, DialAddr, is_relayed, transport_of},
    config::BookTuning,
};

use super::peers::{NO_PEER, Number, PeerTable};

/// Time without contact after which a peer is forgotten: 24 h, the usual lease of a home address.
pub(super) const MAX_AGE: Duration = Duration::from_secs(24 * 3600);

/// Failed dials in a row after which an address rests. It is forgotten unless it worked before or is
/// from the peer cache.
const MAX_DIAL_FAILURES: u32 = 3;

/// Time after which an address that worked before is dialled again although it failed
/// [`MAX_DIAL_FAILURES`] times, 1 min. It doubles with each further failure. A node whose network
/// fails for some minutes would otherwise never dial the peers that it knows, and they would not
/// dial it.
const MIN_REST: Duration = Duration::from_secs(60);

/// Longest rest of an address that failed, 15 min.
const MAX_REST: Duration = Duration::from_secs(15 * 60);

#[derive(Clone, Debug)]
struct Known {
    address: DialAddr,
    /// Dials in a row that failed. Dials during a rest do not count.
    failures: u32,
    /// Time until which the address is not dialled, because it failed.
    rests_until: Option<Instant>,
    /// Whether a connection was established through it in this run.
    proven: bool,
    way: Way,
}

/// The way to an address, the better one first. WebSocket is TCP with more overhead, and a circuit
/// uses the bandwidth of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Direct,
    WebSocket,
    Circuit,
}

impl Way {
    fn of(address: &Multiaddr) -> Self {
        if is_relayed(address) {
            return Self::Circuit;
        }
        match transport_of(address) {
            Some(AddressTransport::WebSocket) => Self::WebSocket,
            _ => Self::Direct,
        }
    }
}

impl Known {
    fn new(address: DialAddr, proven: bool) -> Self {
        Self {
            way: Way::of(&address),
            address,
            failures: 0,
            rests_until: None,
            proven,
        }
    }

    /// Smaller is better: proven, then untried, then failing; a direct way before a circuit.
    fn rank(&self) -> (u32, bool, Way) {
        (self.failures, !self.proven, self.way)
    }

    /// Whether the last dials failed. Such an address is not in the routing table.
    fn has_failed(&self) -> bool {
        self.failures >= MAX_DIAL_FAILURES
    }

    fn rests(&self, now: Instant) -> bool {
        self.rests_until.is_some_and(|until| until > now)
    }

    /// Counts a failed dial. The dials of a lost peer do not wait for the end of a rest, and do not
    /// extend it.
    fn fail(&mut self, now: Instant) {
        if self.rests(now) {
            return;
        }
        self.failures = self.failures.saturating_add(1);
        if let Some(further) = self.failures.checked_sub(MAX_DIAL_FAILURES) {
            let factor = 1_u32.checked_shl(further).unwrap_or(u32::MAX);
            self.rests_until = Some(now + MIN_REST.saturating_mul(factor).min(MAX_REST));
        }
    }

    /// Ends the rest, since failures on the former network do not count.
    fn end_rest(&mut self) {
        self.rests_until = None;
        self.failures = match self.has_failed() {
            true => MAX_DIAL_FAILURES,
            false => 0,
        };
    }
}

#[derive(Clone, Debug, Default)]
struct Entry {
    known: Vec<Known>,
    /// A boot node: its addresses come from the configuration and stay.
    infrastructure: bool,
    connected: bool,
    /// The peer cache had it: an earlier run reached it.
    cached: bool,
    /// Time at which the peer expires unless it is seen again.
    expires: Option<Instant>,
    /// Links in the list of peers that may be evicted; `None` for a peer that is kept.
    links: Option<Links>,
}

/// Neighbours in a list of peers that may be evicted; `NO_PEER` at its ends.
#[derive(Clone, Copy, Debug)]
struct Links {
    is_in: Evictable,
    sooner: Number,
    later: Number,
}

/// The list of a peer that may be evicted.
#[derive(Clone, Copy, Debug)]
enum Evictable {
    /// Only reported. Evicted first.
    Reported,
    /// Reached in this run or in an earlier one.
    Reached,
}

/// First and last peer of a list of peers that may be evicted, ordered by the time at which they
/// expire.
#[derive(Clone, Copy, Debug)]
struct List {
    first: Number,
    last: Number,
}

impl List {
    const EMPTY: Self = Self {
        first: NO_PEER,
        last: NO_PEER,
    };
}

/// Why a peer is kept over a restart, the best reason first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum KeptBecause {
    /// This run reached it.
    Reached,
    /// An earlier run reached it, and this one has not found it unreachable.
    Cached,
    /// It connected to this node and reported its addresses.
    CameIn,
    /// It was reached, and all its addresses have failed since. The network of this node may have
    /// failed instead.
    Failing,
}

impl Entry {
    fn kept(&self) -> bool {
        self.infrastructure || self.connected
    }

    fn was_reached(&self) -> bool {
        self.cached || self.known.iter().any(|known| known.proven)
    }

    /// The addresses that may be dialled now.
    fn dialable(&self, now: Instant) -> impl Iterator<Item = &Known> {
        let dialable = move |known: &&Known| self.infrastructure || !known.rests(now);
        self.known.iter().filter(dialable)
    }

    /// The addresses whose last dials did not fail.
    fn working(&self) -> impl Iterator<Item = &Known> {
        let working = |known: &&Known| self.infrastructure || !known.has_failed();
        self.known.iter().filter(working)
    }

    fn kept_because(&self) -> Option<KeptBecause> {
        let mut working = self.working().peekable();
        let has_address = working.peek().is_some();
        if working.any(|known| known.proven) {
            return Some(KeptBecause::Reached);
        }
        if self.cached && has_address {
            return Some(KeptBecause::Cached);
        }
        if self.connected && has_address {
            return Some(KeptBecause::CameIn);
        }
        (self.was_reached() && !self.known.is_empty()).then_some(KeptBecause::Failing)
    }
}

/// Addresses of peers: bounded in peers, in addresses per peer and in age. Boot nodes and
/// connected peers are never evicted, and peers that were reached after all others.
#[derive(Clone, Debug)]
pub(super) struct AddressBook {
    /// Limit of peers in the book. Above it the peer seen least recently is evicted.
    max_peers: u32,
    config: BookTuning,
    peers: PeerTable<Entry>,
    /// Peers that may be evicted. A peer that was just seen goes to the end of its list, which
    /// takes constant time. Only a peer from the peer cache, whose age is not zero, is inserted by
    /// a search from the end.
    reported: List,
    reached: List,
}

impl AddressBook {
    pub(super) fn new(max_peers: u32, config: BookTuning) -> Self {
        Self {
            max_peers,
            config,
            peers: PeerTable::default(),
            reported: List::EMPTY,
            reached: List::EMPTY,
        }
    }

    /// Stores the `addresses` of a boot node. They never expire and do not count against the
    /// limits.
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

    /// Stores `addresses` of `peer`, learned `age` ago, and calls `new` for each that was not
    /// stored.
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
        self.seen(number, now + left);
        self.shrink();
    }

    /// A connection with `peer` was established, by a dial of `address` if this node dialled.
    /// Returns whether the address was not stored before, or had failed.
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
        self.seen(number, now + MAX_AGE);
        self.shrink();
        new
    }

    /// `peer` is from the peer cache: an earlier run reached it. Its addresses were stored before by
    /// [`learn`](Self::learn).
    pub(super) fn cached(&mut self, peer: &PeerId) {
        let Some(number) = self.peers.number(peer) else {
            return;
        };
        let Some(entry) = self.peers.get_mut(number) else {
            return;
        };
        entry.cached = true;
        if let Some(expires) = entry.expires {
            self.seen(number, expires);
        }
    }

    /// The last connection with `peer` was closed. Its addresses stay in the book.
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
        self.seen(number, now + MAX_AGE);
        self.shrink();
    }

    /// A dial of `address` failed. Returns whether the address was in use and no longer is. An
    /// address that worked before, or that an earlier run reached, is dialled again after a rest: a network
    /// that fails for a while must not cost this node all peers that it could find again.
    pub(super) fn dial_failed(&mut self, peer: &PeerId, address: &Multiaddr, now: Instant) -> bool {
        let Some(number) = self.peers.number(peer) else {
            return false;
        };
        let Some(entry) = self.peers.get_mut(number) else {
            return false;
        };
        let is_it = |known: &&mut Known| *known.address == *address;
        let Some(known) = entry.known.iter_mut().find(is_it) else {
            return false;
        };
        let had_failed = known.has_failed();
        known.fail(now);
        if entry.infrastructure || had_failed || !known.has_failed() {
            return false;
        }
        if !known.proven && !entry.cached {
            self.forget_address(number, address);
        }
        true
    }

    /// The network of this node changed. Addresses that worked before may be dialled at once.
    pub(super) fn network_changed(&mut self) {
        for entry in self.peers.values_mut() {
            let cached = entry.cached;
            let reached = entry.known.iter_mut();
            reached
                .filter(|known| cached || known.proven)
                .for_each(Known::end_rest);
        }
    }

    /// Removes `address`, which does not lead to `peer`. Returns whether it was in use until now.
    pub(super) fn remove_address(&mut self, peer: &PeerId, address: &Multiaddr) -> bool {
        let Some(number) = self.peers.number(peer) else {
            return false;
        };
        let Some(entry) = self.peers.get(number) else {
            return false;
        };
        let was_in_use = entry.working().any(|known| *known.address == *address);
        if !entry.infrastructure {
            self.forget_address(number, address);
        }
        was_in_use
    }

    fn forget_address(&mut self, number: Number, address: &Multiaddr) {
        let Some(entry) = self.peers.get_mut(number) else {
            return;
        };
        entry.known.retain(|known| *known.address != *address);
        if entry.known.is_empty() && !entry.kept() {
            self.forget(number);
        }
    }

    /// The addresses of `peer` that may be dialled now, the best first.
    pub(super) fn addresses(&self, peer: &PeerId, now: Instant) -> Vec<DialAddr> {
        let entry = self.get(peer);
        ranked(entry.into_iter().flat_map(|entry| entry.dialable(now)))
    }

    /// The addresses of `peer` to keep over a restart, the best first.
    pub(super) fn cacheable_addresses(&self, peer: &PeerId) -> Vec<DialAddr> {
        let entry = self.get(peer);
        ranked(entry.into_iter().flat_map(|entry| &entry.known))
    }

    /// Returns whether an address of `peer` is known that may be dialled now.
    pub(super) fn is_dialable(&self, peer: &PeerId, now: Instant) -> bool {
        let entry = self.get(peer);
        entry.is_some_and(|entry| entry.dialable(now).next().is_some())
    }

    /// The peers that this run or an earlier one reached and that may be dialled now, boot nodes
    /// excluded.
    pub(super) fn reached(&self, now: Instant) -> impl Iterator<Item = &PeerId> {
        let reached = self.peers.iter().filter(move |(_, entry)| {
            let is_wanted = |known: &Known| entry.cached || known.proven;
            !entry.infrastructure && entry.dialable(now).any(is_wanted)
        });
        reached.map(|(peer, _)| peer)
    }

    /// Returns the peers to keep over a restart and the time since each was seen, in the order of
    /// [`KeptBecause`], and of one reason the latest first.
    pub(super) fn cacheable(&self, now: Instant) -> Vec<(PeerId, Duration)> {
        let mut cacheable: Vec<_> = self
            .peers
            .iter()
            .filter(|(_, entry)| !entry.infrastructure)
            .filter_map(|(peer, entry)| {
                let why = entry.kept_because()?;
                let left = entry.expires.map(|at| at.saturating_duration_since(now));
                let age = match left {
                    Some(left) if !entry.connected => MAX_AGE.saturating_sub(left),
                    _ => Duration::ZERO,
                };
                Some((why, age, *peer))
            })
            .collect();
        cacheable.sort_unstable();
        let cacheable = cacheable.into_iter().map(|(_, age, peer)| (peer, age));
        cacheable.collect()
    }

    /// Removes the peers that were not seen for [`MAX_AGE`].
    pub(super) fn expire(&mut self, now: Instant) {
        for list in [Evictable::Reported, Evictable::Reached] {
            let first = |book: &Self| book.list(list).first;
            while let Some(entry) = self.peers.get(first(self)) {
                if entry.expires.is_some_and(|at| at > now) {
                    break;
                }
                self.forget(first(self));
            }
        }
    }

    /// Removes `peer`, a boot node too.
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

    /// Evicts the peers seen least recently, those that were only reported first, until the limit
    /// holds or no peer can be evicted.
    fn shrink(&mut self) {
        while self.peers.len() > self.max_peers as usize {
            match (self.reported.first, self.reached.first) {
                (NO_PEER, NO_PEER) => return,
                (NO_PEER, reached) => self.forget(reached),
                (reported, _) => self.forget(reported),
            }
        }
    }

    /// A peer was seen. It expires at `expires`, or later if a later time is stored.
    fn seen(&mut self, number: Number, expires: Instant) {
        let Some(entry) = self.peers.get_mut(number) else {
            return;
        };
        let expires = entry.expires.map_or(expires, |before| before.max(expires));
        entry.expires = Some(expires);
        let kept = entry.kept();
        let is_in = match entry.was_reached() {
            true => Evictable::Reached,
            false => Evictable::Reported,
        };
        self.take_out(number);
        if !kept {
            self.put(number, is_in, expires);
        }
    }

    /// Inserts a peer into a list of those that may be evicted, after those that expire no later.
    fn put(&mut self, number: Number, is_in: Evictable, expires: Instant) {
        let (mut sooner, mut later) = (self.list(is_in).last, NO_PEER);
        while let Some(Entry {
            expires: Some(at),
            links: Some(links),
            ..
        }) = self.peers.get(sooner)
        {
            if *at <= expires {
                break;
            }
            (sooner, later) = (links.sooner, sooner);
        }
        if let Some(entry) = self.peers.get_mut(number) {
            entry.links = Some(Links {
                is_in,
                sooner,
                later,
            });
        }
        self.join(is_in, sooner, number);
        self.join(is_in, number, later);
    }

    fn take_out(&mut self, number: Number) {
        let entry = self.peers.get_mut(number);
        if let Some(links) = entry.and_then(|entry| entry.links.take()) {
            self.join(links.is_in, links.sooner, links.later);
        }
    }

    /// Makes two peers of a list neighbours. `NO_PEER` is an end of the list.
    fn join(&mut self, is_in: Evictable, sooner: Number, later: Number) {
        match self.links(sooner) {
            Some(links) => links.later = later,
            None => self.list_mut(is_in).first = later,
        }
        match self.links(later) {
            Some(links) => links.sooner = sooner,
            None => self.list_mut(is_in).last = sooner,
        }
    }

    fn list(&self, which: Evictable) -> &List {
        match which {
            Evictable::Reported => &self.reported,
            Evictable::Reached => &self.reached,
        }
    }

    fn list_mut(&mut self, which: Evictable) -> &mut List {
        match which {
            Evictable::Reported => &mut self.reported,
            Evictable::Reached => &mut self.reached,
        }
    }

    fn links(&mut self, number: Number) -> Option<&mut Links> {
        self.peers.get_mut(number)?.links.as_mut()
    }
}

/// The addresses, the best first.
fn ranked<'a>(known: impl Iterator<Item = &'a Known>) -> Vec<DialAddr> {
    let mut known: Vec<_> = known.collect();
    known.sort_by_key(|known| known.rank());
    known.into_iter().map(|k| k.address.clone()).collect()
}

/// Adds `address`. At the limit it replaces the worst one. Returns whether it is in use now and was
/// not before.
fn add(known: &mut Vec<Known>, address: &DialAddr, max: usize) -> bool {
    if let Some(known) = known.iter_mut().find(|k| k.address == *address) {
        let had_failed = known.has_failed();
        if had_failed {
            known.failures = 0;
            known.rests_until = None;
        }
        return had_failed;
    }
    let new = Known::new(address.clone(), false);
    if known.len() < max {
        // Most peers have one address or two, so no capacity is reserved for more.
        known.reserve_exact(1);
        known.push(new);
        return true;
    }
    // An address that works is not replaced by one that was only reported. Of reported ones the
    // newest is kept, because addresses change.
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

/// Marks `address` as one that works, and adds it if it is not stored. Returns whether it is in use
/// now and was not before.
fn prove(entry: &mut Entry, address: &DialAddr, max: usize) -> bool {
    let proven = Known::new(address.clone(), true);
    let place = entry.known.iter().position(|k| k.address == *address);
    match place {
        Some(place) => {
            let before = std::mem::replace(&mut entry.known[place], proven);
            before.has_failed() && !entry.infrastructure
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
