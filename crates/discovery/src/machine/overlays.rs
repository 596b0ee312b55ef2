//! The followed overlays and their members.

use std::collections::{BTreeMap, BTreeSet};

use calimero_network_primitives::{PeerId, resources::Origin};
use rand::{RngExt, rngs::StdRng, seq::IteratorRandom};

use super::{
    connections::Arrival,
    namespace::Namespace,
    peers::{Number, PeerTable},
};

/// Ticks over which the dials of lacking members are spread, 6. Nodes that ask early, or ask a
/// server that returns one first page to all, learn the same few members. A few dials of those are
/// enough to begin with; the rest go to members that are learned later. With the default target of
/// 12, two are dialled in each tick, and all within half a minute.
const ROUNDS: usize = 6;

/// Connected members of an overlay that are kept alive, for each one of the target. A member that
/// no other peer prefers has dialled as many members as have dialled it, and a third part allows
/// for the spread. Connections above this come from peers that many nodes learned of at once.
const KEPT_FOR_EACH_WANTED: usize = 3;

/// The part of the members of an overlay that is reserved for members that this node dialled, one
/// in 3: identities cost nothing, so one party can own all members that dialled this node. It cannot
/// choose which members this node dials.
const ONE_DIALLED_OF: usize = 3;

/// A connected member of an overlay.
#[derive(Clone, Copy, Debug)]
struct Connected {
    member: Number,
    /// Whether this node dialled it.
    dialled: bool,
    /// The origin from which it dialled this node. `None` if several hosts may share it.
    origin: Option<Origin>,
}

impl Connected {
    fn new(member: Number, arrival: Arrival) -> Self {
        Self {
            member,
            dialled: arrival.dialled,
            origin: arrival.inbound_origin(),
        }
    }
}

/// Counts connected members: those that this node dialled, and of those that dialled this node one
/// for each origin, up to a limit.
#[derive(Debug)]
struct Counts {
    dialled: usize,
    inbound: usize,
    max_inbound: usize,
    origins: Vec<Origin>,
}

impl Counts {
    fn new(max_inbound: usize) -> Self {
        Self {
            dialled: 0,
            inbound: 0,
            max_inbound,
            origins: Vec::new(),
        }
    }

    /// Counts `one`. Returns whether it counts.
    fn add(&mut self, one: &Connected) -> bool {
        if one.dialled {
            self.dialled += 1;
            return true;
        }
        if self.inbound >= self.max_inbound {
            return false;
        }
        if let Some(origin) = one.origin {
            if self.origins.contains(&origin) {
                return false;
            }
            self.origins.push(origin);
        }
        self.inbound += 1;
        true
    }

    fn all(&self) -> usize {
        self.dialled + self.inbound
    }
}

#[derive(Clone, Debug)]
struct Overlay {
    /// Name of the overlay, shared by the entries of all its members.
    name: Namespace,
    /// Connected members, the one connected longest first.
    connected: Vec<Connected>,
    known: Vec<Number>,
}

/// The counts of members of an overlay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OverlayStatus {
    /// Number of connected members.
    pub connected: usize,
    /// Number of members that are known and not connected.
    pub known: usize,
}

/// Members of each followed overlay: all that are connected, and a bounded choice of the others.
#[derive(Clone, Debug)]
pub(super) struct Overlays {
    max_overlays: usize,
    max_known: usize,
    target: usize,
    overlays: BTreeMap<Namespace, Overlay>,
    /// The overlays of each member, so that an event of a peer costs as much as it has overlays,
    /// not as many as there are.
    members: PeerTable<Vec<Namespace>>,
}

impl Overlays {
    pub(super) fn new(max_overlays: u32, max_known: u32, target: u32) -> Self {
        Self {
            max_overlays: max_overlays as usize,
            max_known: max_known as usize,
            target: target as usize,
            overlays: BTreeMap::new(),
            members: PeerTable::default(),
        }
    }

    /// Follows `namespace`. Returns `false` if it is followed already or the limit is reached.
    pub(super) fn follow(&mut self, namespace: &Namespace) -> bool {
        if self.overlays.contains_key(namespace) || self.overlays.len() >= self.max_overlays {
            return false;
        }
        let overlay = Overlay {
            name: namespace.clone(),
            connected: Vec::new(),
            known: Vec::new(),
        };
        self.overlays.insert(namespace.clone(), overlay);
        true
    }

    /// Unfollows `namespace`. Returns whether it was followed.
    pub(super) fn unfollow(&mut self, namespace: &Namespace) -> bool {
        let Some(overlay) = self.overlays.remove(namespace) else {
            return false;
        };
        let connected = overlay.connected.into_iter().map(|one| one.member);
        for member in connected.chain(overlay.known) {
            forget(&mut self.members, member, namespace);
        }
        true
    }

    pub(super) fn is_followed(&self, namespace: &Namespace) -> bool {
        self.overlays.contains_key(namespace)
    }

    /// Adds `peer` as a member of `namespace`, with how it was connected if it is. At the limit a
    /// random member is removed, so that no peer can choose which one.
    pub(super) fn add(
        &mut self,
        namespace: &Namespace,
        peer: PeerId,
        connected: Option<Arrival>,
        rng: &mut StdRng,
    ) {
        let Some(overlay) = self.overlays.get_mut(namespace) else {
            return;
        };
        let member = self.members.number_or_insert(peer, Vec::new);
        let Some(of) = self.members.get_mut(member) else {
            return;
        };
        let new = !of.contains(namespace);
        if new {
            // Most peers are members of one or two of the overlays of this node.
            of.reserve_exact(1);
            of.push(overlay.name.clone());
        }
        if let Some(arrival) = connected {
            if new || take_out(&mut overlay.known, member) {
                overlay.connected.push(Connected::new(member, arrival));
            }
        } else if new {
            if overlay.known.len() >= self.max_known {
                let victim = rng.random_range(0..overlay.known.len());
                let victim = overlay.known.swap_remove(victim);
                forget(&mut self.members, victim, namespace);
            }
            overlay.known.push(member);
        }
    }

    /// Removes `peer` from `namespace`. Returns whether it was the last connected member.
    pub(super) fn remove_member(&mut self, namespace: &Namespace, peer: &PeerId) -> bool {
        let overlay = self.overlays.get_mut(namespace);
        let (Some(overlay), Some(member)) = (overlay, self.members.number(peer)) else {
            return false;
        };
        forget(&mut self.members, member, namespace);
        take_out(&mut overlay.known, member);
        overlay.disconnected(member) && overlay.connected.is_empty()
    }

    pub(super) fn connected(&mut self, peer: PeerId, arrival: Arrival) {
        let Some(member) = self.members.number(&peer) else {
            return;
        };
        for namespace in self.members.get(member).into_iter().flatten() {
            if let Some(overlay) = self.overlays.get_mut(namespace)
                && take_out(&mut overlay.known, member)
            {
                overlay.connected.push(Connected::new(member, arrival));
            }
        }
    }

    /// A peer was disconnected. Returns the overlays whose last connected member it was.
    pub(super) fn disconnected(&mut self, peer: PeerId) -> Vec<Namespace> {
        let mut alone = Vec::new();
        let Some(member) = self.members.number(&peer) else {
            return alone;
        };
        for namespace in self.members.get(member).cloned().unwrap_or_default() {
            let Some(overlay) = self.overlays.get_mut(&namespace) else {
                continue;
            };
            if !overlay.disconnected(member) {
                continue;
            }
            if overlay.known.len() >= self.max_known && !overlay.known.is_empty() {
                let other = overlay.known.swap_remove(0);
                forget(&mut self.members, other, &namespace);
            }
            overlay.known.push(member);
            if overlay.connected.is_empty() {
                alone.push(namespace);
            }
        }
        alone
    }

    /// Removes `peer` from all overlays. Returns those whose last connected member it was.
    pub(super) fn remove(&mut self, peer: PeerId) -> Vec<Namespace> {
        let alone = self.disconnected(peer);
        if let Some(member) = self.members.number(&peer) {
            let of = self.members.remove(member).map(|(_, of)| of);
            for namespace in of.into_iter().flatten() {
                let overlay = self.overlays.get_mut(&namespace);
                overlay.map(|overlay| take_out(&mut overlay.known, member));
            }
        }
        alone
    }

    /// Returns the connected members to keep alive, once for each overlay: those connected longest,
    /// which later ones cannot displace. A part is reserved for members that this node dialled, and
    /// of the others one for each prefix is kept.
    pub(super) fn kept_members(&self) -> impl Iterator<Item = &PeerId> {
        let most = self.target.saturating_mul(KEPT_FOR_EACH_WANTED);
        let overlays = self.overlays.values();
        let kept = overlays.flat_map(move |overlay| {
            let mut counts = Counts::new(most - most / ONE_DIALLED_OF);
            let connected = overlay.connected.iter();
            connected.filter(move |one| counts.all() < most && counts.add(one))
        });
        kept.filter_map(|one| self.members.peer(one.member))
    }

    /// Returns the members that are known and not connected.
    pub(super) fn known_members(&self, namespace: &Namespace) -> impl Iterator<Item = &PeerId> {
        let known = self.overlays.get(namespace).map(|overlay| &overlay.known);
        let known = known.into_iter().flatten();
        known.filter_map(|member| self.members.peer(*member))
    }

    /// Returns whether no member of `namespace` is connected.
    pub(super) fn is_alone(&self, namespace: &Namespace) -> bool {
        self.overlays
            .get(namespace)
            .is_some_and(|overlay| overlay.connected.is_empty())
    }

    /// Returns whether `peer` is a member of an overlay that lacks connected members.
    pub(super) fn lacks(&self, peer: &PeerId) -> bool {
        let member = self.members.number(peer);
        let of_peer = member.and_then(|member| self.members.get(member));
        let mut of_peer = of_peer.into_iter().flatten();
        of_peer.any(|namespace| self.deficit(namespace) > 0)
    }

    /// Returns the number of members of `namespace` to dial in one tick.
    pub(super) fn share(&self, namespace: &Namespace) -> usize {
        let overlay = self.overlays.get(namespace);
        overlay.map_or(0, |overlay| overlay.share(self.target))
    }

    /// Returns the number of connected members that `namespace` lacks.
    pub(super) fn deficit(&self, namespace: &Namespace) -> usize {
        let overlay = self.overlays.get(namespace);
        overlay.map_or(0, |overlay| overlay.lacking(self.target))
    }

    /// Returns the members to dial in this tick, chosen at random among the known ones of each
    /// overlay that lacks members. `has_address` returns whether a member can be dialled.
    pub(super) fn candidates(
        &self,
        rng: &mut StdRng,
        has_address: impl Fn(&PeerId) -> bool,
    ) -> Vec<PeerId> {
        let mut candidates = BTreeSet::<Number>::new();
        for overlay in self.overlays.values() {
            let share = overlay.share(self.target);
            if share == 0 {
                continue;
            }
            let can_be_dialled =
                |member: &Number| self.members.peer(*member).is_some_and(&has_address);
            let known = overlay.known.iter().copied().filter(can_be_dialled);
            candidates.extend(known.sample(rng, share));
        }
        let peers = candidates
            .into_iter()
            .map(|member| self.members.peer(member));
        peers.flatten().copied().collect()
    }

    pub(super) fn status(&self) -> impl Iterator<Item = (&Namespace, OverlayStatus)> {
        self.overlays.iter().map(|(namespace, overlay)| {
            let status = OverlayStatus {
                connected: overlay.connected.len(),
                known: overlay.known.len(),
            };
            (namespace, status)
        })
    }
}

impl Overlay {
    /// Returns the number of members to dial in one tick.
    fn share(&self, target: usize) -> usize {
        self.lacking(target).div_ceil(ROUNDS)
    }

    /// Returns the number of connected members that are lacking.
    fn lacking(&self, target: usize) -> usize {
        let least = target / ONE_DIALLED_OF;
        let mut counts = Counts::new(target);
        for one in &self.connected {
            counts.add(one);
            if counts.all() >= target && counts.dialled >= least {
                return 0;
            }
        }
        let dialled = least.saturating_sub(counts.dialled);
        target.saturating_sub(counts.all()).max(dialled)
    }

    /// Removes a connected member and keeps the order. Returns whether it was connected.
    fn disconnected(&mut self, member: Number) -> bool {
        let place = self.connected.iter().position(|one| one.member == member);
        place.map(|place| self.connected.remove(place)).is_some()
    }
}

/// Removes `member` from a list and keeps the order. Returns whether it was in the list.
fn take_out(list: &mut Vec<Number>, member: Number) -> bool {
    let place = list.iter().position(|other| *other == member);
    place.map(|place| list.remove(place)).is_some()
}

/// Removes `namespace` from the overlays of a member.
fn forget(members: &mut PeerTable<Vec<Namespace>>, member: Number, namespace: &Namespace) {
    if let Some(of) = members.get_mut(member) {
        of.retain(|other| other != namespace);
        if of.is_empty() {
            members.remove(member);
        }
    }
}
