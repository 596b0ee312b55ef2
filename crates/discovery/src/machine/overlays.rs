//! The overlays followed, and who is known to be a member. Its one writer is this file.

use std::collections::{BTreeMap, BTreeSet};

use calimero_network_primitives::PeerId;
use rand::{Rng, rngs::StdRng, seq::index};

use super::{
    namespace::Namespace,
    peers::{Number, PeerTable},
};

/// Rounds of dials over which what an overlay lacks is spread. Everybody who asks early, or asks
/// a server that has one first page for all, hears of the same few members: a few dials of those
/// are enough to begin with, the rest goes to members heard of later. Two of twelve are dialled
/// in each round, and all within half a minute.
const ROUNDS: usize = 6;

/// Connected members of an overlay that are kept, for each that is wanted. Who is wanted by
/// nobody else holds as many that it dialled as others that dialled it; a third for the spread.
/// Beyond it are those whom everybody was told of at once.
const KEPT_FOR_EACH_WANTED: usize = 3;

#[derive(Clone, Debug)]
struct Overlay {
    /// What its members are noted under: one text for all of them.
    name: Namespace,
    /// The one connected longest first.
    connected: Vec<Number>,
    known: Vec<Number>,
}

/// How an overlay stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OverlayStatus {
    /// Members connected.
    pub connected: usize,
    /// Members known and not connected.
    pub known: usize,
}

/// Members of each overlay followed: those connected, and a bounded choice of the others.
#[derive(Clone, Debug)]
pub(super) struct Overlays {
    max_overlays: usize,
    max_known: usize,
    target: usize,
    overlays: BTreeMap<Namespace, Overlay>,
    /// The overlays of each member, so that what happens to a peer costs as much as it has
    /// overlays, not as there are.
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

    /// Returns whether `namespace` is newly followed; not where there is no room for it.
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

    /// Returns whether `namespace` was followed.
    pub(super) fn unfollow(&mut self, namespace: &Namespace) -> bool {
        let Some(overlay) = self.overlays.remove(namespace) else {
            return false;
        };
        for member in overlay.connected.into_iter().chain(overlay.known) {
            forget(&mut self.members, member, namespace);
        }
        true
    }

    pub(super) fn is_followed(&self, namespace: &Namespace) -> bool {
        self.overlays.contains_key(namespace)
    }

    /// `peer` is a member of `namespace`. Where too many are known, a random one makes room, so
    /// that nobody chooses who is forgotten.
    pub(super) fn add(
        &mut self,
        namespace: &Namespace,
        peer: PeerId,
        connected: bool,
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
            // Most are members of one overlay of ours or two.
            of.reserve_exact(1);
            of.push(overlay.name.clone());
        }
        if connected {
            if new || take_out(&mut overlay.known, member) {
                overlay.connected.push(member);
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

    /// `peer` has left `namespace`. Returns whether it was the last one connected.
    pub(super) fn remove_member(&mut self, namespace: &Namespace, peer: &PeerId) -> bool {
        let overlay = self.overlays.get_mut(namespace);
        let (Some(overlay), Some(member)) = (overlay, self.members.number(peer)) else {
            return false;
        };
        forget(&mut self.members, member, namespace);
        take_out(&mut overlay.known, member);
        take_out(&mut overlay.connected, member) && overlay.connected.is_empty()
    }

    pub(super) fn connected(&mut self, peer: PeerId) {
        let Some(member) = self.members.number(&peer) else {
            return;
        };
        for namespace in self.members.get(member).into_iter().flatten() {
            if let Some(overlay) = self.overlays.get_mut(namespace)
                && take_out(&mut overlay.known, member)
            {
                overlay.connected.push(member);
            }
        }
    }

    /// Returns the overlays that have lost their last connected member.
    pub(super) fn disconnected(&mut self, peer: PeerId) -> Vec<Namespace> {
        let mut alone = Vec::new();
        let Some(member) = self.members.number(&peer) else {
            return alone;
        };
        for namespace in self.members.get(member).cloned().unwrap_or_default() {
            let Some(overlay) = self.overlays.get_mut(&namespace) else {
                continue;
            };
            if !take_out(&mut overlay.connected, member) {
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

    /// Forgets `peer` everywhere. Returns the overlays that have lost their last connected member.
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

    /// Connected members worth keeping, once for each overlay: those connected longest, who
    /// cannot be driven out by any number that come later.
    pub(super) fn kept_members(&self) -> impl Iterator<Item = &PeerId> {
        let most = self.target.saturating_mul(KEPT_FOR_EACH_WANTED);
        let overlays = self.overlays.values();
        let kept = overlays.flat_map(move |overlay| overlay.connected.iter().take(most));
        kept.filter_map(|member| self.members.peer(*member))
    }

    /// Members known and not connected.
    pub(super) fn known_members(&self, namespace: &Namespace) -> impl Iterator<Item = &PeerId> {
        let known = self.overlays.get(namespace).map(|overlay| &overlay.known);
        let known = known.into_iter().flatten();
        known.filter_map(|member| self.members.peer(*member))
    }

    /// Whether no member of `namespace` is connected.
    pub(super) fn is_alone(&self, namespace: &Namespace) -> bool {
        self.overlays
            .get(namespace)
            .is_some_and(|overlay| overlay.connected.is_empty())
    }

    /// Whether `peer` is a member of an overlay that lacks connected members.
    pub(super) fn lacks(&self, peer: &PeerId) -> bool {
        let member = self.members.number(peer);
        let of_peer = member.and_then(|member| self.members.get(member));
        let mut of_peer = of_peer.into_iter().flatten();
        of_peer.any(|namespace| self.deficit(namespace) > 0)
    }

    /// How many members of `namespace` to dial at once.
    pub(super) fn share(&self, namespace: &Namespace) -> usize {
        let overlay = self.overlays.get(namespace);
        overlay.map_or(0, |overlay| overlay.share(self.target))
    }

    /// How many members `namespace` lacks.
    pub(super) fn deficit(&self, namespace: &Namespace) -> usize {
        self.overlays.get(namespace).map_or(0, |overlay| {
            self.target.saturating_sub(overlay.connected.len())
        })
    }

    /// Members to dial: of each overlay that lacks some its share, at random.
    pub(super) fn candidates(&self, rng: &mut StdRng) -> Vec<PeerId> {
        let mut candidates = BTreeSet::<Number>::new();
        for overlay in self.overlays.values() {
            let (known, share) = (&overlay.known, overlay.share(self.target));
            let chosen = index::sample(rng, known.len(), share.min(known.len()));
            candidates.extend(chosen.into_iter().filter_map(|at| known.get(at)));
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
    /// Members to dial in one round.
    fn share(&self, target: usize) -> usize {
        let lacking = target.saturating_sub(self.connected.len());
        lacking.div_ceil(ROUNDS)
    }
}

/// Takes `member` out of a list, which keeps its order. Returns whether it was there.
fn take_out(list: &mut Vec<Number>, member: Number) -> bool {
    let place = list.iter().position(|other| *other == member);
    place.map(|place| list.remove(place)).is_some()
}

/// A member of `namespace` is one no more.
fn forget(members: &mut PeerTable<Vec<Namespace>>, member: Number, namespace: &Namespace) {
    if let Some(of) = members.get_mut(member) {
        of.retain(|other| other != namespace);
        if of.is_empty() {
            members.remove(member);
        }
    }
}
