//! A table of values by peer, which refers to each peer by a small number.
//!
//! A peer id takes 80 bytes in memory. It is stored once here, and lists of peers hold its number.

use std::hash::{BuildHasher, RandomState};

use calimero_network_primitives::PeerId;
use hashbrown::HashTable;

/// The number of a peer in one table. It is reused after its peer was removed.
pub(super) type Number = u32;

/// The number that means no peer. A table would need 400 GiB to reach it.
pub(super) const NO_PEER: Number = Number::MAX;

/// A full table grows by this fraction of its size, so that little memory is unused.
const GROWTH: usize = 4;

#[derive(Clone, Debug)]
enum Slot<T> {
    Taken { peer: PeerId, value: T },
    Free { next: Number },
}

#[derive(Clone, Debug)]
pub(super) struct PeerTable<T> {
    slots: Vec<Slot<T>>,
    /// First entry of the list of free slots.
    free: Number,
    by_peer: HashTable<Number>,
    hasher: RandomState,
}

impl<T> Default for PeerTable<T> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: NO_PEER,
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

    /// Returns the number of `peer`, which is inserted with `value` if it is not in the table.
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
        let number = Number::try_from(number).unwrap_or(NO_PEER);
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

    /// Iterates over all peers, in an order that depends only on the operations before.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&PeerId, &T)> {
        self.slots.iter().filter_map(|slot| match slot {
            Slot::Taken { peer, value } => Some((peer, value)),
            Slot::Free { .. } => None,
        })
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.iter_mut().filter_map(|slot| match slot {
            Slot::Taken { value, .. } => Some(value),
            Slot::Free { .. } => None,
        })
    }

    fn hash(&self, peer: &PeerId) -> u64 {
        hash(&self.hasher, peer)
    }
}

/// Hashes the digest alone, because the other bytes are equal for nearly all peer ids.
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
            // Free entries were reused.
            prop_assert!(table.slots.len() <= 30);
        }
    }
}
