//! Dials, connections, hole punching, and what a connection brings.

use std::{collections::BTreeSet, time::Duration};

use calimero_network_discovery::machine::{AttemptId, AttemptKind, HolePunch, Input, Path};
use calimero_network_primitives::Multiaddr;

use super::{
    ANSWER_TIMEOUT, Event, World,
    names::{FIRST_NODE, Id, id, peer, relay_of},
    node::{Link, Node},
};

/// Time after which an unused connection is closed (`connections.idle_timeout_ms`).
const IDLE: Duration = Duration::from_secs(300);
/// How often a node looks for such.
pub(super) const TIDY: Duration = Duration::from_secs(30);

impl World {
    /// Whether packets pass between two of them, at least through a relay.
    pub(super) fn is_linked(&self, one: Id, other: Id) -> bool {
        let side = |id: Id| match self.boots.get(&id) {
            Some(boot) => boot.up.then_some(0),
            None => {
                let node = self.nodes.get((id - FIRST_NODE) as usize);
                node.filter(|node| node.up).map(|node| node.side)
            }
        };
        side(one).is_some() && side(one) == side(other)
    }

    pub(super) fn dial(&mut self, from: Id, to: Id, addresses: Vec<Multiaddr>) {
        if let Some(node) = self.node(from) {
            node.dials += 1;
            node.messages += 1;
        }
        let latency = self.latency() * 3;
        let open = !self.is_lost() && self.is_linked(from, to);
        let mut ways = addresses.iter();
        match ways.find(|way| open && self.leads(from, to, way)).cloned() {
            Some(through) => self.after(latency, Event::Connect { from, to, through }),
            None => {
                let (peer, tried) = (peer(to), addresses);
                let failed = Input::DialFailed { peer, tried };
                self.later(ANSWER_TIMEOUT, from, failed);
            }
        }
    }

    /// Its failure is not reported.
    pub(super) fn dial_circuits(&mut self, from: Id, to: Id, addresses: Vec<Multiaddr>) {
        if let Some(node) = self.node(from) {
            node.messages += 1;
        }
        let latency = self.latency() * 3;
        let open = !self.is_lost() && self.is_linked(from, to);
        let mut ways = addresses.into_iter();
        if let Some(through) = ways.find(|way| open && self.leads(from, to, way)) {
            self.after(latency, Event::Connect { from, to, through });
        }
    }

    fn leads(&self, from: Id, to: Id, through: &Multiaddr) -> bool {
        if let Some(relay) = relay_of(through) {
            let boot = self.boots.get(&relay);
            let slot = boot.is_some_and(|boot| boot.slots.contains(&to));
            return slot && self.is_linked(from, relay) && self.is_linked(relay, to);
        }
        match to.checked_sub(FIRST_NODE) {
            None => self.boots.contains_key(&to),
            Some(at) => {
                let node = self.nodes.get(at as usize);
                node.is_some_and(|node| node.address == *through && node.nat.is_open())
            }
        }
    }

    /// Returns how many nodes have just joined all their overlays.
    pub(super) fn connect(&mut self, from: Id, to: Id, through: Multiaddr) -> usize {
        let known = self.node(from).is_some_and(|n| n.links.contains_key(&to));
        if known || !self.is_linked(from, to) {
            let (peer, tried) = (peer(to), Vec::new());
            self.tell(from, Input::DialFailed { peer, tried });
            return 0;
        }
        let relay = relay_of(&through);
        let (path, link) = match relay {
            Some(_) => (
                Path::Relayed,
                Link {
                    direct: false,
                    relayed: relay,
                    rounds: 0,
                },
            ),
            None => (
                Path::Direct,
                Link {
                    direct: true,
                    relayed: None,
                    rounds: 0,
                },
            ),
        };
        let mut joined = 0;
        for (one, other, dialled) in [(from, to, Some(through)), (to, from, None)] {
            if let Some(node) = self.node(one) {
                node.links.insert(other, link);
            }
            let peer = peer(other);
            let opened = Input::ConnectionOpened {
                peer,
                path,
                dialled,
                remote_ip: None,
                is_local: false,
            };
            self.tell(one, opened);
            joined += usize::from(self.meet(one, other));
        }
        if relay.is_some() {
            self.relayed_is_up(from, to);
        }
        joined
    }

    /// What a connection brings: our address as the other sees it, and its subscriptions.
    /// Returns whether that was the last overlay to be joined.
    fn meet(&mut self, node: Id, other: Id) -> bool {
        let (latency, now) = (self.latency(), self.now);
        let of_other = self.node(other).map(|other| other.overlays.clone());
        let Some(state) = self.node(node) else {
            return false;
        };
        let Some(of_other) = of_other else {
            let candidate = Input::AddressCandidate(state.address.clone());
            self.later(latency, node, candidate);
            return false;
        };
        let overlays = state.overlays.iter().copied();
        let shared: Vec<_> = overlays.filter(|o| of_other.contains(o)).collect();
        state.unmet.retain(|overlay| !shared.contains(overlay));
        let joined = state.joined.is_none() && state.unmet.is_empty();
        if joined {
            state.joined = Some(now);
        }
        for overlay in shared {
            let (namespace, peer) = (self.namespaces[overlay as usize].clone(), peer(other));
            let seen = Input::MemberSeen { namespace, peer };
            self.later(latency, node, seen);
        }
        joined
    }

    /// Succeeds where both NATs permit it and nothing is lost.
    pub(super) fn punch(&mut self, one: Id, other: Id) {
        let nat = |node: Option<&mut Node>| node.map(|node| node.nat);
        let nats = (nat(self.node(one)), nat(self.node(other)));
        let (Some(of_one), Some(of_other)) = nats else {
            return;
        };
        if !self.is_linked(one, other) {
            return;
        }
        let walled = self.punches_before(one, other) < self.settings.failing_punches;
        if walled || self.is_lost() || !of_one.can_be_punched(of_other) {
            for (node, other) in [(one, other), (other, one)] {
                let (peer, outcome) = (peer(other), HolePunch::Failed);
                self.tell(node, Input::HolePunchEnded { peer, outcome });
            }
            return;
        }
        for (node, other) in [(one, other), (other, one)] {
            let link = self.node(node).and_then(|n| n.links.get_mut(&other));
            let Some(link) = link.filter(|link| !link.direct) else {
                continue;
            };
            link.direct = true;
            let opened = Input::ConnectionOpened {
                peer: peer(other),
                path: Path::Direct,
                dialled: None,
                remote_ip: None,
                is_local: false,
            };
            self.tell(node, opened);
        }
    }

    /// Counts the hole punches of a pair. Returns how many there were before.
    fn punches_before(&mut self, one: Id, other: Id) -> u32 {
        let pair = (one.min(other), one.max(other));
        let punches = self.punches.entry(pair).or_default();
        *punches += 1;
        *punches - 1
    }

    /// What follows a new connection through a relay.
    fn relayed_is_up(&mut self, one: Id, other: Id) {
        // Identify, then connect and sync of DCUtR: three round trips.
        let latency = self.latency() * 6;
        self.after(latency, Event::Punch { one, other });
        // The node that was reached through the relay learns the address of the other.
        let Some(address) = self.node(one).map(|node| node.address.clone()) else {
            return;
        };
        let (peer, addresses) = (peer(one), vec![address]);
        self.later(latency / 3, other, Input::Identified { peer, addresses });
        self.later(latency / 3, other, Input::ReachedThroughRelay { peer });
    }

    pub(super) fn attempt(
        &mut self,
        id: AttemptId,
        kind: AttemptKind,
        from: Id,
        to: Id,
        addresses: &[Multiaddr],
    ) {
        let open = !self.is_lost() && self.is_linked(from, to);
        let through = addresses
            .iter()
            .find(|way| open && self.leads(from, to, way));
        let through = through.cloned();
        let wait = match through {
            Some(_) => self.latency() * 3,
            None => ANSWER_TIMEOUT,
        };
        let ends = Event::Attempt {
            id,
            kind,
            from,
            to,
            through,
        };
        self.after(wait, ends);
    }

    pub(super) fn attempt_ends(
        &mut self,
        id: AttemptId,
        kind: AttemptKind,
        from: Id,
        to: Id,
        through: Option<Multiaddr>,
    ) {
        let connected = self
            .node(from)
            .is_some_and(|node| node.links.contains_key(&to));
        let Some(through) = through.filter(|_| connected && self.is_linked(from, to)) else {
            return self.tell(from, Input::AttemptFailed { id });
        };
        let path = match kind {
            AttemptKind::Round => Path::Relayed,
            AttemptKind::DialBack | AttemptKind::ThroughHole => Path::Direct,
        };
        self.tell(from, Input::AttemptConnected { id, path });
        for (node, other, dialled) in [(from, to, Some(through)), (to, from, None)] {
            let Some(link) = self.node(node).and_then(|n| n.links.get_mut(&other)) else {
                continue;
            };
            match path {
                Path::Relayed => link.rounds += 1,
                Path::Direct if link.direct => continue,
                Path::Direct => link.direct = true,
            }
            let peer = peer(other);
            let opened = Input::ConnectionOpened {
                peer,
                path,
                dialled,
                remote_ip: None,
                is_local: false,
            };
            self.tell(node, opened);
        }
        if path == Path::Relayed {
            self.node(from).map(|node| node.attempts.insert(id, to));
            self.relayed_is_up(from, to);
        }
    }

    /// The connection that an attempt of `node` made is closed.
    pub(super) fn close_attempt(&mut self, node: Id, id: AttemptId) {
        let Some(other) = self.node(node).and_then(|node| node.attempts.remove(&id)) else {
            return;
        };
        for (node, other) in [(node, other), (other, node)] {
            let link = self.node(node).and_then(|n| n.links.get_mut(&other));
            if let Some(link) = link.filter(|link| link.rounds > 0) {
                link.rounds -= 1;
                let (peer, path) = (peer(other), Path::Relayed);
                self.tell(node, Input::ConnectionClosed { peer, path });
            }
        }
    }

    pub(super) fn close_relayed(&mut self, one: Id, other: Id) {
        for (node, other) in [(one, other), (other, one)] {
            let link = self.node(node).and_then(|n| n.links.get_mut(&other));
            let Some(link) = link.filter(|link| link.direct) else {
                continue;
            };
            let relayed = link.relayed.take().map_or(0, |_| 1) + std::mem::take(&mut link.rounds);
            for _ in 0..relayed {
                let closed = Input::ConnectionClosed {
                    peer: peer(other),
                    path: Path::Relayed,
                };
                self.tell(node, closed);
            }
        }
    }

    /// All that is between two of them ends, at both ends.
    pub(super) fn close(&mut self, one: Id, other: Id) {
        for (node, other) in [(one, other), (other, one)] {
            if let Some(boot) = self.boots.get_mut(&node) {
                boot.slots.remove(&other);
            }
            let link = self.node(node).and_then(|n| n.links.remove(&other));
            let Some(link) = link else { continue };
            self.miss(node);
            for path in link.paths() {
                let peer = peer(other);
                self.tell(node, Input::ConnectionClosed { peer, path });
            }
            let Some(state) = self.node(node) else {
                continue;
            };
            let of_relay = state.listeners.iter().filter(|(_, relay)| **relay == other);
            for listener in of_relay.map(|(l, _)| *l).collect::<Vec<_>>() {
                self.node(node).map(|n| n.listeners.remove(&listener));
                self.tell(node, Input::RelayListenerClosed { listener });
            }
        }
    }

    /// Closes connections that discovery has not wanted for long. Nothing else uses any here.
    pub(super) fn tidy(&mut self, node: Id) {
        self.after(TIDY, Event::Tidy(node));
        let now = self.now;
        let Some(state) = self.node(node).filter(|node| node.up) else {
            return;
        };
        let kept: BTreeSet<_> = state.machine.kept().map(|peer| id(&peer)).collect();
        let before = std::mem::take(&mut state.unused);
        let unused = state.links.keys().filter(|other| !kept.contains(other));
        let since = |other: &Id| (*other, before.get(other).copied().unwrap_or(now));
        state.unused = unused.map(since).collect();
        let over = state
            .unused
            .iter()
            .filter(|(_, since)| **since + IDLE <= now);
        for other in over.map(|(other, _)| *other).collect::<Vec<_>>() {
            self.close(node, other);
        }
    }

    /// Checks which overlays `node` lacks members of, unless it has joined once.
    pub(super) fn miss(&mut self, node: Id) {
        let Some(at) = node.checked_sub(FIRST_NODE) else {
            return;
        };
        let state = &self.nodes[at as usize];
        if state.joined.is_some() {
            return;
        }
        let mut unmet = state.overlays.clone();
        for other in state
            .links
            .keys()
            .filter_map(|id| id.checked_sub(FIRST_NODE))
        {
            let of_other = &self.nodes[other as usize].overlays;
            unmet.retain(|overlay| !of_other.contains(overlay));
        }
        self.nodes[at as usize].unmet = unmet;
    }
}
