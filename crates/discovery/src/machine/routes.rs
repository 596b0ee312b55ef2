//! The dispatch of inputs: which part handles an input, and which other parts its result goes to.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use calimero_network_primitives::{
    Multiaddr, PeerId,
    addr::{DialAddr, DialPolicy},
};
use rand::seq::IteratorRandom;

use super::{
    AddressBook, CacheEntry, Cookie, DialReason, Effect, Machine, Namespace, Overlays, Path,
    RendezvousFailure, connections::Arrival, discoveries::Need, without_peer,
};

/// Addresses that are examined in one list of a peer, 32. Honest lists are shorter, and the rest
/// costs nothing.
pub(crate) const MAX_EXAMINED_ADDRESSES: usize = 32;

// Overlays and operators.
impl Machine {
    pub(super) fn follow(&mut self, namespace: Namespace) {
        if self.overlays.is_followed(&namespace) {
            return;
        }
        if !self.overlays.follow(&namespace) {
            self.out.push_back(Effect::RefuseFollow { namespace });
            return;
        }
        self.registrations
            .follow(&namespace, self.now, &mut self.out);
        self.discoveries.follow(&namespace, self.now);
    }

    pub(super) fn unfollow(&mut self, namespace: &Namespace) {
        if self.overlays.unfollow(namespace) {
            self.registrations
                .unfollow(namespace, self.now, &mut self.out);
            self.discoveries.unfollow(namespace);
        }
    }

    pub(super) fn block(&mut self, peer: PeerId) {
        if peer == self.local || !self.blocked.insert(peer) {
            return;
        }
        self.dials.settle(&peer);
        self.redials.settle(&peer);
        self.book.remove(&peer);
        self.registrations.server_down(peer, self.now);
        self.discoveries.server_down(peer);
        let lost = self
            .relays
            .forget(peer, self.now, &mut self.rng, &mut self.out);
        self.relays_changed(lost);
        for namespace in self.overlays.remove(peer) {
            self.discoveries.retry_now(&namespace, self.now);
        }
        self.direct.remove(&peer);
        // The close of its connections is counted, and not reported to the parts again.
        (self.boot_nodes).on_disconnected(peer, true, self.now, &mut self.out);
        if self.connections.remove(&peer) {
            self.out.push_back(Effect::Disconnect { peer });
        }
    }

    pub(super) fn unblock(&mut self, peer: PeerId) {
        if !self.blocked.remove(&peer) {
            return;
        }
        if let Some(addresses) = self.boot.get(&peer).cloned() {
            let (now, rng) = (self.now, &mut self.rng);
            let relays = &mut self.relays;
            let lost = relays.set_addresses(peer, &addresses, now, rng, &mut self.out);
            self.relays_changed(lost);
            self.seek_boot_node(peer);
        }
    }

    pub(super) fn load_cache(&mut self, mut entries: Vec<CacheEntry>) {
        entries.sort_by_key(|entry| entry.age);
        entries.truncate(self.config.cache.max_peers as usize);
        let dialled = self.config.cache.dialled_at_start as usize;
        for (place, entry) in entries.into_iter().enumerate() {
            self.learn_aged(entry.peer, &entry.addresses, entry.age);
            self.book.cached(&entry.peer);
            if place < dialled && entry.age < super::book::MAX_AGE {
                self.dial_cached(entry.peer);
            }
        }
    }

    /// Dials a peer of the last run. It counts as lost by the restart, so that a dial that fails is
    /// repeated.
    fn dial_cached(&mut self, peer: PeerId) {
        if self.want(peer, DialReason::Cached) {
            let addresses = self.book.addresses(&peer, self.now);
            self.redials
                .first_dialled(peer, addresses, DialReason::Cached);
        }
    }

    pub(super) fn network_changed(&mut self) {
        let dials = &self.dials;
        let is_dialled = |peer: &PeerId| dials.is_in_flight(peer);
        self.redials.retry_now(self.now, is_dialled);
        self.book.network_changed();
        self.prober.retry_now(self.now);
        self.relays
            .retry_now(self.now, &mut self.rng, &mut self.out);
        self.direct.retry_now(self.now, &mut self.rng);
    }

    pub(super) fn stop(&mut self) {
        self.registrations.stop(&mut self.out);
        let lost = self
            .relays
            .set_wanted(false, self.now, &mut self.rng, &mut self.out);
        self.relays_changed(lost);
        self.out.push_back(Effect::SaveCache);
        self.stopped = true;
    }
}

// Connections and dials.
impl Machine {
    pub(super) fn opened(
        &mut self,
        peer: PeerId,
        path: Path,
        dialled: Option<Multiaddr>,
        remote_ip: Option<IpAddr>,
        is_local: bool,
    ) {
        if peer == self.local {
            return;
        }
        if self.blocked.contains(&peer) {
            self.connections.refused(peer, path);
            self.out.push_back(Effect::Disconnect { peer });
            return;
        }
        let inbound = dialled.is_none();
        // The gate of the transport let this address pass. It may be a local one that the operator
        // named, so the policy for addresses of others does not decide about it again.
        let dialled =
            dialled.and_then(|address| DialAddr::of_peer(&peer, &address, DialPolicy::Local).ok());
        let stranger = inbound
            && (!is_local || self.config.local_network)
            && path == Path::Direct
            && !self.connections.is_connected(&peer)
            && !self.contacted.contains(&peer, remote_ip, self.now)
            && !remote_ip.is_some_and(|ip| self.connections.has_ip(ip));
        let arrival = Arrival {
            dialled: !inbound,
            remote_ip,
        };
        let new = self.book.connected(peer, dialled.as_ref(), self.now);
        // An address that identify reports is not added to the routing table again if the book has
        // it.
        if new
            && let Some(address) =
                (dialled.as_ref()).and_then(|dialled| self.rules.check(&peer, dialled).ok())
        {
            self.out
                .push_back(Effect::AddRoutingAddress { peer, address });
        }
        // Whichever side dialled, the peer is connected, so every dial of it ends.
        self.dials.settle(&peer);
        self.redials.returned(&peer, self.now);
        let first = self.connections.opened(peer, path, arrival, self.now);
        let (best, now) = (self.connections.path(&peer), self.now);
        (self.direct).on_opened(peer, path, best, dialled.as_ref(), now, &mut self.rng);
        if !first {
            return;
        }
        if stranger {
            self.stranger_came_in();
        }
        self.overlays.connected(peer, arrival);
        self.boot_nodes.on_connected(&peer, self.now);
        if self.boot.contains_key(&peer) {
            let (now, rng) = (self.now, &mut self.rng);
            self.registrations.server_up(peer, now, rng, &mut self.out);
            self.discoveries.server_up(peer, now);
            self.redials.relay_returned(&peer, &mut self.out);
            // A relay whose connections do not last rests on: it would be asked, and dialled by the
            // relay client, as fast as it closes.
            if !self.boot_nodes.is_flapping(&peer) {
                self.relays.relay_up(peer, now, rng, &mut self.out);
            }
        }
    }

    pub(super) fn closed(&mut self, peer: PeerId, path: Path) {
        let last = self.connections.closed(peer, path);
        let (best, now) = (self.connections.path(&peer), self.now);
        self.direct.on_closed(peer, path, best, now, &mut self.rng);
        let Some((since, arrival)) = last else {
            return;
        };
        self.contacted
            .disconnected(peer, arrival.remote_ip, self.now);
        // Read before the entry can be removed below.
        let addresses = self.book.addresses(&peer, self.now);
        self.book.disconnected(peer, self.now);
        for namespace in self.overlays.disconnected(peer) {
            self.discoveries.retry_now(&namespace, self.now);
        }
        let lasted = self.now.saturating_duration_since(since);
        let lasted = self.redials.is_harmless_end(lasted, self.now);
        (self.boot_nodes).on_disconnected(peer, lasted, self.now, &mut self.out);
        let is_boot = self.boot.contains_key(&peer);
        if is_boot {
            self.registrations.server_down(peer, self.now);
            self.discoveries.server_down(peer);
        }
        let (now, rng) = (self.now, &mut self.rng);
        if is_boot || self.overlays.lacks(&peer) {
            let reason = if is_boot {
                DialReason::Boot
            } else {
                DialReason::Lost
            };
            self.redials.lost(peer, addresses, reason, now, rng);
        }
        if !lasted {
            // The connection did not last, for example at a limit of the peer. This counts as a
            // failed dial.
            self.dials.failed(peer, now);
        }
    }

    pub(super) fn dial_failed(&mut self, peer: PeerId, tried: &[Multiaddr]) {
        if self.is_stranger(&peer) {
            return;
        }
        for address in tried.iter().take(MAX_EXAMINED_ADDRESSES) {
            let address = without_peer(address);
            if self.book.dial_failed(&peer, &address, self.now) {
                self.out
                    .push_back(Effect::RemoveRoutingAddress { peer, address });
            }
        }
        if self.dials.is_in_flight(&peer) {
            self.dial_came_to_nothing(peer);
        }
    }

    /// Returns those of `addresses` that may be dialled to reach `peer`, as many as an honest peer
    /// reports.
    pub(super) fn dialable(&self, peer: &PeerId, addresses: &[Multiaddr]) -> Vec<DialAddr> {
        let checked = addresses.iter().take(MAX_EXAMINED_ADDRESSES);
        let dialable = checked.filter_map(|address| self.rules.check(peer, address).ok());
        dialable
            .take(self.config.book.max_addresses_per_peer as usize)
            .collect()
    }

    /// An address of `peer` is of no use. A peer without another address is given up until it is
    /// discovered again: its relay reports that it left.
    pub(super) fn address_dead(&mut self, peer: PeerId, address: &Multiaddr) {
        if self.is_stranger(&peer) || self.boot.contains_key(&peer) {
            return;
        }
        let address = without_peer(address);
        if self.book.remove_address(&peer, &address) {
            let address = address.clone();
            self.out
                .push_back(Effect::RemoveRoutingAddress { peer, address });
        }
        self.redials.address_dead(&peer, &address);
        if self.redials.addresses(&peer).is_empty() && !self.book.is_dialable(&peer, self.now) {
            self.redials.settle(&peer);
        }
    }

    pub(super) fn advance_connections(&mut self) {
        let (now, rng) = (self.now, &mut self.rng);
        (self.direct).advance(&self.connections, &self.book, now, rng, &mut self.out);
        let connected = self.connections.len() > 0;
        if self.routing.is_due(connected, now, rng) {
            self.out.push_back(Effect::RefreshRouting);
        }
        while let Some(peer) = self.connections.pop_superseded(self.now) {
            self.out.push_back(Effect::CloseRelayed { peer });
        }
        while let Some(peer) = self.dials.pop_overdue(self.now) {
            self.dial_came_to_nothing(peer);
        }
        while let Some((peer, reason)) = self.redials.pop_due(self.now) {
            // The overlays of a cached peer are not known before it is connected.
            if reason == DialReason::Lost && !self.overlays.lacks(&peer) {
                self.redials.settle(&peer);
            } else if !self.want(peer, reason) {
                self.redials.failed(peer, self.now, &mut self.rng);
            }
        }
    }

    /// Queues a dial of `peer` unless it has no address. Returns whether a dial is pending.
    pub(super) fn want(&mut self, peer: PeerId, reason: DialReason) -> bool {
        if self.is_stranger(&peer) || self.connections.is_connected(&peer) {
            return false;
        }
        let (pending, dropped) = self.dials.want(peer, reason);
        if let Some(dropped) = dropped {
            self.redials.failed(dropped, self.now, &mut self.rng);
        }
        pending
    }

    /// Starts as many dials as the limit allows.
    pub(super) fn start_dials(&mut self) {
        (self.held).release(&self.listening, self.now, &mut self.out);
        while let Some((peer, reason)) = self.dials.start(self.now) {
            let mut addresses = self.book.addresses(&peer, self.now);
            for captured in self.redials.addresses(&peer) {
                if !addresses.contains(captured) {
                    addresses.push(captured.clone());
                }
            }
            if addresses.is_empty() {
                self.dial_came_to_nothing(peer);
                continue;
            }
            let dial = Effect::Dial {
                peer,
                addresses,
                reason,
            };
            self.held.hold(dial, &mut self.out);
        }
    }

    fn dial_came_to_nothing(&mut self, peer: PeerId) {
        self.dials.failed(peer, self.now);
        self.redials.failed(peer, self.now, &mut self.rng);
    }
}

// Peers and members.
impl Machine {
    pub(super) fn learn(&mut self, peer: PeerId, addresses: &[Multiaddr]) {
        self.learn_aged(peer, addresses, Duration::ZERO);
    }

    fn learn_aged(&mut self, peer: PeerId, addresses: &[Multiaddr], age: Duration) {
        if self.is_stranger(&peer) {
            return;
        }
        let (rules, out) = (self.rules, &mut self.out);
        let kept = addresses
            .iter()
            .take(MAX_EXAMINED_ADDRESSES)
            .filter_map(|address| rules.check(&peer, address).ok())
            .take(self.config.book.max_addresses_per_peer as usize);
        self.book.learn(peer, kept, age, self.now, |address| {
            out.push_back(Effect::AddRoutingAddress { peer, address });
        });
    }

    pub(super) fn met_locally(&mut self, peer: PeerId, addresses: &[Multiaddr]) {
        self.learn(peer, addresses);
        let connected = self.connections.is_connected(&peer);
        // mDNS reports a peer once. Dials that fail are repeated, as those of a lost peer, and a
        // further report does not bring the next one forward.
        if self.is_stranger(&peer) || connected || self.dials.is_resting(&peer) {
            return;
        }
        let addresses = self.book.addresses(&peer, self.now);
        if !addresses.is_empty() {
            self.redials
                .first_dialled(peer, addresses, DialReason::Local);
            self.want(peer, DialReason::Local);
        }
    }

    pub(super) fn member_seen(&mut self, namespace: &Namespace, peer: PeerId) {
        if self.is_stranger(&peer) {
            return;
        }
        let connected = self.connections.arrival(&peer);
        self.overlays.add(namespace, peer, connected, &mut self.rng);
    }

    pub(super) fn member_gone(&mut self, namespace: &Namespace, peer: &PeerId) {
        if self.overlays.remove_member(namespace, peer) {
            self.discoveries.retry_now(namespace, self.now);
        }
    }
}

// Rendezvous servers.
impl Machine {
    pub(super) fn discovered(
        &mut self,
        key: (PeerId, Namespace),
        members: Vec<(PeerId, Vec<Multiaddr>)>,
        cookie: Option<Cookie>,
    ) {
        if !self.discoveries.is_awaited(&key) {
            return;
        }
        let told = members.len();
        // A server may send more members than requested. The choice among them is random, so that
        // the server does not make it.
        let max = self.config.rendezvous.max_answer as usize;
        let members = match told > max {
            true => members.into_iter().sample(&mut self.rng, max),
            false => members,
        };
        let mut strangers = Vec::new();
        for (peer, addresses) in members {
            self.learn(peer, &addresses);
            self.member_seen(&key.1, peer);
            if !self.is_stranger(&peer) && !self.connections.is_connected(&peer) {
                strangers.push(peer);
            }
        }
        // Members of the answer count if they can be dialled.
        let need = need(&self.overlays, &self.book, &key.1, self.now);
        let (now, rng) = (self.now, &mut self.rng);
        self.discoveries
            .answered(&key, told, cookie, need, now, rng);
        // A node without connected members dials a few at once. All other dials wait for the next
        // tick: the members of a first page are returned to every node that starts at that moment,
        // and later more are known.
        let pending = |peer: &&PeerId| self.dials.is_pending(peer);
        let pending = self.overlays.known_members(&key.1).filter(pending).count();
        let share = match need.alone {
            true => self.overlays.share(&key.1).saturating_sub(pending),
            false => 0,
        };
        let dialled = share.min(self.config.dials.max_per_answer as usize);
        let dialled = strangers.into_iter().sample(&mut self.rng, dialled);
        for peer in dialled {
            self.want(peer, DialReason::Member);
        }
    }

    /// Asks for members within the limit of a tick: for as many as are sought, and at least for
    /// enough to choose from when some are lacking.
    pub(super) fn ask(&mut self) {
        let (overlays, book, now) = (&self.overlays, &self.book, self.now);
        let few = self.config.members_target;
        let limit = |namespace: &Namespace| {
            let sought = need(overlays, book, namespace, now).sought();
            few.max(u32::try_from(sought).unwrap_or(u32::MAX))
        };
        self.discoveries.ask(self.now, limit, &mut self.out);
    }

    pub(super) fn discovery_failed(&mut self, key: &(PeerId, Namespace), why: RendezvousFailure) {
        let alone = self.overlays.is_alone(&key.1);
        let (now, rng) = (self.now, &mut self.rng);
        self.discoveries.failed(key, why, alone, now, rng);
    }

    pub(super) fn advance_servers(&mut self) {
        let now = self.now;
        self.prober.advance(now, &mut self.rng, &mut self.out);
        self.registrations
            .advance(now, &mut self.rng, &mut self.out);
        while let Some(key) = self.discoveries.pop_overdue(now) {
            self.discovery_failed(&key, RendezvousFailure::Unavailable);
        }
        let changes = self.relays.advance(now, &mut self.rng, &mut self.out);
        self.relays_changed(changes);
    }
}

fn need(overlays: &Overlays, book: &AddressBook, namespace: &Namespace, now: Instant) -> Need {
    let known = overlays.known_members(namespace);
    let known = known.filter(|member| book.is_dialable(member, now));
    Need {
        alone: overlays.is_alone(namespace),
        lacking: overlays.deficit(namespace),
        known: known.count(),
    }
}
