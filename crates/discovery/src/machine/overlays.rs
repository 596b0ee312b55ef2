//! The overlays followed, and who is known to be a member. Its one writer is this file.

use std::collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry};

use calimero_network_primitives::PeerId;
use rand::{rngs::StdRng, seq::IteratorRandom};

use super::namespace::Namespace;

/// Rounds of dials over which what an overlay lacks is spread. Everybody who asks early, or asks
/// a server that has one first page for all, hears of the same few members: a few dials of those
/// are enough to begin with, the rest goes to members heard of later. Two of twelve are dialled
/// for each answer, and all within half a minute.
const ROUNDS: usize = 6;

#[derive(Clone, Debug, Default)]
struct Overlay {
    connected: BTreeSet<PeerId>,
    known: BTreeSet<PeerId>,
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
    /// The overlays each peer is a member of, so that what happens to a peer costs as much as it
    /// has overlays, not as there are.
    of_peer: HashMap<PeerId, Vec<Namespace>>,
}

impl Overlays {
    pub(super) fn new(max_overlays: u32, max_known: u32, target: u32) -> Self {
        Self {
            max_overlays: max_overlays as usize,
            max_known: max_known as usize,
            target: target as usize,
            overlays: BTreeMap::new(),
            of_peer: HashMap::new(),
        }
    }

    /// Returns whether `namespace` is newly followed; not where there is no room for it.
    pub(super) fn follow(&mut self, namespace: &Namespace) -> bool {
        if self.overlays.contains_key(namespace) || self.overlays.len() >= self.max_overlays {
            return false;
        }
        self.overlays.insert(namespace.clone(), Overlay::default());
        true
    }

    /// Returns whether `namespace` was followed.
    pub(super) fn unfollow(&mut self, namespace: &Namespace) -> bool {
        let Some(overlay) = self.overlays.remove(namespace) else {
            return false;
        };
        for peer in overlay.connected.iter().chain(&overlay.known) {
            forget(&mut self.of_peer, peer, namespace);
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
        let known = overlay.known.contains(&peer);
        if overlay.connected.contains(&peer) || (known && !connected) {
            return;
        }
        if connected {
            overlay.known.remove(&peer);
            overlay.connected.insert(peer);
        } else {
            if overlay.known.len() >= self.max_known
                && let Some(victim) = overlay.known.iter().choose(rng).copied()
            {
                overlay.known.remove(&victim);
                forget(&mut self.of_peer, &victim, namespace);
            }
            overlay.known.insert(peer);
        }
        if !known {
            let of_peer = self.of_peer.entry(peer).or_default();
            of_peer.reserve_exact(1);
            of_peer.push(namespace.clone());
        }
    }

    /// `peer` has left `namespace`. Returns whether it was the last one connected.
    pub(super) fn remove_member(&mut self, namespace: &Namespace, peer: &PeerId) -> bool {
        let Some(overlay) = self.overlays.get_mut(namespace) else {
            return false;
        };
        forget(&mut self.of_peer, peer, namespace);
        overlay.known.remove(peer);
        overlay.connected.remove(peer) && overlay.connected.is_empty()
    }

    pub(super) fn connected(&mut self, peer: PeerId) {
        for namespace in self.of_peer.get(&peer).into_iter().flatten() {
            if let Some(overlay) = self.overlays.get_mut(namespace)
                && overlay.known.remove(&peer)
            {
                overlay.connected.insert(peer);
            }
        }
    }

    /// Returns the overlays that have lost their last connected member.
    pub(super) fn disconnected(&mut self, peer: PeerId) -> Vec<Namespace> {
        let mut alone = Vec::new();
        for namespace in self.of_peer.get(&peer).cloned().unwrap_or_default() {
            let Some(overlay) = self.overlays.get_mut(&namespace) else {
                continue;
            };
            if !overlay.connected.remove(&peer) {
                continue;
            }
            overlay.known.insert(peer);
            if overlay.known.len() > self.max_known
                && let Some(other) = overlay.known.iter().find(|o| **o != peer).copied()
            {
                overlay.known.remove(&other);
                forget(&mut self.of_peer, &other, &namespace);
            }
            if overlay.connected.is_empty() {
                alone.push(namespace);
            }
        }
        alone
    }

    /// Forgets `peer` everywhere. Returns the overlays that have lost their last connected member.
    pub(super) fn remove(&mut self, peer: PeerId) -> Vec<Namespace> {
        let alone = self.disconnected(peer);
        for namespace in self.of_peer.remove(&peer).into_iter().flatten() {
            let overlay = self.overlays.get_mut(&namespace);
            overlay.map(|overlay| overlay.known.remove(&peer));
        }
        alone
    }

    /// Connected members, once for each overlay.
    pub(super) fn connected_members(&self) -> impl Iterator<Item = &PeerId> {
        self.overlays
            .values()
            .flat_map(|overlay| &overlay.connected)
    }

    /// Whether no member of `namespace` is connected.
    pub(super) fn is_alone(&self, namespace: &Namespace) -> bool {
        self.overlays
            .get(namespace)
            .is_some_and(|overlay| overlay.connected.is_empty())
    }

    /// Whether `peer` is a member of an overlay that lacks connected members.
    pub(super) fn lacks(&self, peer: &PeerId) -> bool {
        let of_peer = self.of_peer.get(peer).into_iter().flatten();
        of_peer
            .into_iter()
            .any(|namespace| self.deficit(namespace) > 0)
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
        let mut candidates = BTreeSet::new();
        for overlay in self.overlays.values() {
            let share = overlay.share(self.target);
            candidates.extend(overlay.known.iter().choose_multiple(rng, share));
        }
        candidates.into_iter().copied().collect()
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

/// `peer` is a member of `namespace` no more.
fn forget(of_peer: &mut HashMap<PeerId, Vec<Namespace>>, peer: &PeerId, namespace: &Namespace) {
    if let Entry::Occupied(mut of_peer) = of_peer.entry(*peer) {
        of_peer.get_mut().retain(|other| other != namespace);
        if of_peer.get().is_empty() {
            of_peer.remove();
        }
    }
}
