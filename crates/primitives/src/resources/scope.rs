//! The counters of one scope, and the tables of the scopes that are in use.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::{BuildHasher, Hash},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
};

use super::limits::{COUNT, Resource};

/// Parts of a table that are locked apart. A lock is taken once for each connection, not for each
/// permit.
const SHARDS: usize = 16;

/// Amounts in use, one counter for each resource.
#[derive(Debug)]
pub(super) struct Counters([AtomicU64; COUNT]);

impl Counters {
    pub(super) fn get(&self, resource: Resource) -> u64 {
        self.0[resource.index()].load(Ordering::SeqCst)
    }

    /// Adds `amount` unless the sum exceeds `limit`.
    pub(super) fn add(&self, resource: Resource, amount: u64, limit: u64) -> bool {
        // `SeqCst` here, in `sub` and on the count of waiters: a release either sees the waiter that
        // it has to serve, or the waiter sees what was released.
        let sum = |used: u64| used.checked_add(amount).filter(|sum| *sum <= limit);
        self.0[resource.index()]
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, sum)
            .is_ok()
    }

    pub(super) fn sub(&self, resource: Resource, amount: u64) {
        self.0[resource.index()].fetch_sub(amount, Ordering::SeqCst);
    }

    /// Returns `true` if an amount of a resource that `wanted` selects is in use.
    pub(super) fn any(&self, wanted: impl Fn(Resource) -> bool) -> bool {
        Resource::ALL
            .into_iter()
            .any(|resource| wanted(resource) && self.get(resource) > 0)
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

/// One peer or one origin that holds something.
#[derive(Debug)]
pub(super) struct Entry<K: Hash + Eq + Copy> {
    pub(super) key: K,
    pub(super) used: Counters,
    /// The reasons for which a peer is protected, as a set of bits.
    pub(super) protection: AtomicU8,
    table: Arc<Table<K>>,
}

impl<K: Hash + Eq + Copy> Drop for Entry<K> {
    fn drop(&mut self) {
        let mut shard = self.table.shard(&self.key);
        // A successor of the same key may have taken the place already.
        if shard
            .get(&self.key)
            .is_some_and(|entry| entry.strong_count() == 0)
        {
            shard.remove(&self.key);
        }
    }
}

/// The entries of all keys of one kind. An entry exists while a holder or a permit refers to it.
#[derive(Debug)]
pub(super) struct Table<K: Hash + Eq + Copy> {
    shards: [Mutex<HashMap<K, Weak<Entry<K>>>>; SHARDS],
    hasher: RandomState,
}

impl<K: Hash + Eq + Copy> Table<K> {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
        })
    }

    /// The entry of `key`. Makes one if there is none; `protection` is called under the lock of
    /// the table, so that no change of protection is missed.
    pub(super) fn entry(
        self: &Arc<Self>,
        key: K,
        protection: impl FnOnce() -> u8,
    ) -> Arc<Entry<K>> {
        let mut shard = self.shard(&key);
        if let Some(entry) = shard.get(&key).and_then(Weak::upgrade) {
            return entry;
        }
        let entry = Arc::new(Entry {
            key,
            used: Counters::default(),
            protection: AtomicU8::new(protection()),
            table: self.clone(),
        });
        shard.insert(key, Arc::downgrade(&entry));
        entry
    }

    /// The entry of `key`, if there is one.
    pub(super) fn find(&self, key: &K) -> Option<Arc<Entry<K>>> {
        self.shard(key).get(key).and_then(Weak::upgrade)
    }

    /// Returns the number of entries.
    pub(super) fn len(&self) -> usize {
        let len = |shard: &Mutex<HashMap<_, _>>| lock(shard).len();
        self.shards.iter().map(len).sum()
    }

    /// The key with the largest use of `resource`, and that use.
    pub(super) fn largest(&self, resource: Resource) -> Option<(K, u64)> {
        let mut largest = None;
        for shard in &self.shards {
            let entries: Vec<_> = lock(shard).values().filter_map(Weak::upgrade).collect();
            for entry in entries {
                let used = entry.used.get(resource);
                if used > largest.map_or(0, |(_, most)| most) {
                    largest = Some((entry.key, used));
                }
            }
        }
        largest
    }

    fn shard(&self, key: &K) -> MutexGuard<'_, HashMap<K, Weak<Entry<K>>>> {
        let hash = self.hasher.hash_one(key);
        lock(&self.shards[(hash % SHARDS as u64) as usize])
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
