//! The overlays followed, and who is known to be a member. Its one writer is this file.

use std::collections::{BTreeMap, BTreeSet};

use calimero_network_primitives::PeerId;
use rand::{rngs::StdRng, seq::IteratorRandom};

use super::namespace::Namespace;

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
}

impl Overlays {
    pub(super) fn new(max_overlays: u32, max_known: u32, target: u32) -> Self {
        Self {
            max_overlays: max_overlays as usize,
            max_known: max_known as usize,
            target: target as usize,
            overlays: BTreeMap::new(),
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
        self.overlays.remove(namespace).is_some()
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
        if connected {
            overlay.known.remove(&peer);
            overlay.connected.insert(peer);
            return;
        }
        if overlay.known.contains(&peer) {
            return;
        }
        if overlay.known.len() >= self.max_known {
            let victim = overlay.known.iter().choose(rng).copied();
            victim.map(|victim| overlay.known.remove(&victim));
        }
        overlay.known.insert(peer);
    }

    /// `peer` has left `namespace`.
    pub(super) fn remove_member(&mut self, namespace: &Namespace, peer: &PeerId) -> bool {
        let Some(overlay) = self.overlays.get_mut(namespace) else {
            return false;
        };
        overlay.known.remove(peer);
        overlay.connected.remove(peer) && overlay.connected.is_empty()
    }

    pub(super) fn connected(&mut self, peer: PeerId) {
        for overlay in self.overlays.values_mut() {
            if overlay.known.remove(&peer) {
                overlay.connected.insert(peer);
            }
        }
    }

    /// Returns the overlays that have lost their last connected member.
    pub(super) fn disconnected(&mut self, peer: PeerId) -> Vec<Namespace> {
        let mut alone = Vec::new();
        for (namespace, overlay) in &mut self.overlays {
            if overlay.connected.remove(&peer) {
                overlay.known.insert(peer);
                if overlay.known.len() > self.max_known {
                    let other = overlay.known.iter().find(|known| **known != peer).copied();
                    other.map(|other| overlay.known.remove(&other));
                }
                if overlay.connected.is_empty() {
                    alone.push(namespace.clone());
                }
            }
        }
        alone
    }

    /// Forgets `peer` everywhere. Returns the overlays that have lost their last connected member.
    pub(super) fn remove(&mut self, peer: PeerId) -> Vec<Namespace> {
        let alone = self.disconnected(peer);
        for overlay in self.overlays.values_mut() {
            overlay.known.remove(&peer);
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
        self.overlays.values().any(|overlay| {
            overlay.connected.len() < self.target
                && (overlay.known.contains(peer) || overlay.connected.contains(peer))
        })
    }

    /// How many members `namespace` lacks.
    pub(super) fn deficit(&self, namespace: &Namespace) -> usize {
        self.overlays.get(namespace).map_or(0, |overlay| {
            self.target.saturating_sub(overlay.connected.len())
        })
    }

    /// Members to dial: of each overlay that lacks some, twice as many as it lacks, at random.
    pub(super) fn candidates(&self, rng: &mut StdRng) -> Vec<PeerId> {
        let mut candidates = BTreeSet::new();
        for overlay in self.overlays.values() {
            let lacking = self.target.saturating_sub(overlay.connected.len());
            if lacking > 0 {
                candidates.extend(overlay.known.iter().choose_multiple(rng, 2 * lacking));
            }
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
