//! A table of peers: what is known of each, under a small number.
//!
//! A peer id takes 80 bytes in memory. Here it is kept once, however many lists its peer is on:
//! they hold its number.

use std::hash::{BuildHasher, RandomState};

use calimero_network_primitives::PeerId;
use hashbrown::HashTable;

/// The number of a peer in one table. It is given anew once its peer is removed.
pub(super) type Number = u32;

/// No peer: what a [`Number`] is where there is none. A table would need 400 GiB to get there.
pub(super) const NOBODY: Number = Number::MAX;

/// The fraction by which a full table grows: what is not needed is not kept for every table.
const GROWTH: usize = 4;

#[derive(Clone, Debug)]
enum Slot<T> {
    Taken { peer: PeerId, value: T },
    Free { next: Number },
}

#[derive(Clone, Debug)]
pub(super) struct PeerTable<T> {
    slots: Vec<Slot<T>>,
    /// The first of the free slots, each of which knows the next.
    free: Number,
    by_peer: HashTable<Number>,
    hasher: RandomState,
}

impl<T> Default for PeerTable<T> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: NOBODY,
            by_peer: HashTable::new(),
            hasher: RandomState::new(),
        }
    }
}

impl<T> PeerTable<T> {
    pub(super) fn number(&self, peer: &PeerId) -> Option<Number> {
        let same = |number: &Number| self.peer(*number) == Some(peer);
        self.by_peer.find(self.hash(peer), same).copied()
    }

    pub(super) fn peer(&self, number: Number) -> Option<&PeerId> {
        match self.slots.get(number as usize)? {
            Slot::Taken { peer, .. } => Some(peer),
            Slot::Free { .. } => None,
        }
    }

    pub(super) fn get(&self, number: Number) -> Option<&T> {
        match self.slots.get(number as usize)? {
            Slot::Taken { value, .. } => Some(value),
            Slot::Free { .. } => None,
        }
    }

    pub(super) fn get_mut(&mut self, number: Number) -> Option<&mut T> {
        match self.slots.get_mut(number as usize)? {
            Slot::Taken { value, .. } => Some(value),
            Slot::Free { .. } => None,
        }
    }

    /// The number of `peer`, which is taken in with `value` if it is not there.
    pub(super) fn number_or_insert(&mut self, peer: PeerId, value: impl FnOnce() -> T) -> Number {
        if let Some(number) = self.number(&peer) {
            return number;
        }
        let value = value();
        let taken = Slot::Taken { peer, value };
        let free = self.free as usize;
        let number = match self.slots.get_mut(free) {
            Some(slot) => {
                if let Slot::Free { next } = std::mem::replace(slot, taken) {
                    self.free = next;
                }
                free
            }
            None => {
                if self.slots.len() == self.slots.capacity() {
                    self.slots.reserve_exact(self.slots.len() / GROWTH + GROWTH);
                }
                self.slots.push(taken);
                self.slots.len() - 1
            }
        };
        let number = Number::try_from(number).unwrap_or(NOBODY);
        let (slots, hasher) = (&self.slots, &self.hasher);
        let rehash = |number: &Number| match slots.get(*number as usize) {
            Some(Slot::Taken { peer, .. }) => hash(hasher, peer),
            _ => 0,
        };
        self.by_peer
            .insert_unique(hash(hasher, &peer), number, rehash);
        number
    }

    pub(super) fn remove(&mut self, number: Number) -> Option<(PeerId, T)> {
        let hash = self.hash(self.peer(number)?);
        let slot = self.slots.get_mut(number as usize)?;
        let next = self.free;
        let Slot::Taken { peer, value } = std::mem::replace(slot, Slot::Free { next }) else {
            return None;
        };
        self.free = number;
        if let Ok(entry) = self.by_peer.find_entry(hash, |other| *other == number) {
            entry.remove();
        }
        Some((peer, value))
    }

    pub(super) fn len(&self) -> usize {
        self.by_peer.len()
    }

    /// Everybody, in an order that depends on nothing but what was done.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&PeerId, &T)> {
        self.slots.iter().filter_map(|slot| match slot {
            Slot::Taken { peer, value } => Some((peer, value)),
            Slot::Free { .. } => None,
        })
    }

    fn hash(&self, peer: &PeerId) -> u64 {
        hash(&self.hasher, peer)
    }
}

/// Of the digest alone: the rest is the same for nearly everybody.
fn hash(hasher: &RandomState, peer: &PeerId) -> u64 {
    hasher.hash_one(peer.as_ref().digest())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn peer(number: u32) -> PeerId {
        let [a, b, c, d] = number.to_be_bytes();
        PeerId::from_bytes(&[0, 4, a, b, c, d]).unwrap()
    }

    proptest! {
        #[test]
        fn it_is_a_map_whose_numbers_stay(steps in prop::collection::vec((0..30_u32, any::<bool>()), 0..200)) {
            let mut table = PeerTable::default();
            let mut map = BTreeMap::new();
            for (turn, (who, insert)) in steps.into_iter().enumerate() {
                let known = table.number(&peer(who));
                prop_assert_eq!(known, map.get(&peer(who)).map(|(number, _)| *number));
                if insert {
                    let number = table.number_or_insert(peer(who), || turn);
                    map.entry(peer(who)).or_insert((number, turn));
                } else if let Some(number) = known {
                    let removed = table.remove(number);
                    let (_, value) = map.remove(&peer(who)).unwrap();
                    prop_assert_eq!(removed, Some((peer(who), value)));
                    prop_assert_eq!(table.remove(number), None);
                }
                prop_assert_eq!(table.len(), map.len());
                for (peer, (number, value)) in &map {
                    prop_assert_eq!(table.peer(*number), Some(peer));
                    prop_assert_eq!(table.get(*number), Some(value));
                }
                let mut all: Vec<_> = table.iter().map(|(peer, value)| (*peer, *value)).collect();
                all.sort();
                prop_assert!(all.into_iter().eq(map.iter().map(|(peer, (_, value))| (*peer, *value))));
            }
            // What was free was used again.
            prop_assert!(table.slots.len() <= 30);
        }
    }
}
