//! The store of the DHT: libp2p's memory store with three changes.
//!
//! It keeps this node's own record of a key when other peers put theirs, so that the own one is
//! renewed and returned. It does not return records for replication that are about to expire: on
//! the wire a lifetime is in whole seconds, and less than one second reads as a record that does
//! not expire, which would be stored for a whole lifetime by its receiver. When it is full, it
//! removes expired providers, whose keys libp2p's store never removes.

use std::{borrow::Cow, collections::HashMap, time::Duration};

use calimero_network_primitives::PeerId;
use libp2p_kad::{
    ProviderRecord, Record, RecordKey,
    store::{MemoryStore, MemoryStoreConfig, RecordStore, Result},
};

use super::{Instant, MAX_PROVIDERS_PER_KEY, RECORD_TTL, now};

/// Shortest remaining lifetime of a record that is replicated, 2 s: less than one second reads as
/// no limit, and one second is allowed for the transfer.
const LEAST_COPIED_LIFE: Duration = Duration::from_secs(2);

/// Time between two searches for expired providers in a full store.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// The records and providers that a node holds.
#[allow(
    unreachable_pub,
    reason = "a parameter of a handler that is an associated type of a public behaviour"
)]
pub struct Store {
    local: PeerId,
    inner: MemoryStore,
    /// Keys under which others are held as providers, and when the last of them expires.
    provided: HashMap<RecordKey, Instant>,
    max_provided: usize,
    swept: Option<Instant>,
}

impl Store {
    /// A store of the bounds of `config`; its bound of keys with providers is for others, and
    /// this node may provide as many again.
    pub(super) fn new(local: PeerId, config: MemoryStoreConfig) -> Self {
        let max_provided = config.max_provided_keys;
        let config = MemoryStoreConfig {
            max_provided_keys: 2 * max_provided,
            ..config
        };
        Self {
            local,
            inner: MemoryStore::with_config(local, config),
            provided: HashMap::new(),
            max_provided,
            swept: None,
        }
    }

    fn is_own(&self, record: &Record) -> bool {
        record.publisher.as_ref() == Some(&self.local)
    }

    /// Returns whether the store has capacity for providers of `key`.
    fn has_room(&mut self, key: &RecordKey, now: Instant) -> bool {
        if self.provided.len() < self.max_provided || self.provided.contains_key(key) {
            return true;
        }
        let is_due = |swept: Instant| now.saturating_duration_since(swept) >= SWEEP_INTERVAL;
        if self.swept.is_none_or(is_due) {
            self.swept = Some(now);
            self.sweep(now);
        }
        self.provided.len() < self.max_provided
    }

    /// A key with the limit of providers would not take this node, which then announced nothing.
    fn make_room_for_self(&mut self, key: &RecordKey) {
        let held = self.inner.providers(key);
        let is_full = held.len() >= MAX_PROVIDERS_PER_KEY;
        if let Some(last) = held.last().filter(|_| is_full)
            && held.iter().all(|held| held.provider != self.local)
        {
            self.inner.remove_provider(key, &last.provider);
        }
    }

    fn sweep(&mut self, now: Instant) {
        let (inner, local) = (&mut self.inner, &self.local);
        self.provided.retain(|key, expires| {
            if *expires > now {
                return true;
            }
            for held in inner.providers(key) {
                if held.provider != *local {
                    inner.remove_provider(key, &held.provider);
                }
            }
            false
        });
    }
}

impl RecordStore for Store {
    type RecordsIter<'a> = Box<dyn Iterator<Item = Cow<'a, Record>> + 'a>;
    type ProvidedIter<'a> = <MemoryStore as RecordStore>::ProvidedIter<'a>;

    fn get(&self, key: &RecordKey) -> Option<Cow<'_, Record>> {
        self.inner.get(key)
    }

    fn put(&mut self, record: Record) -> Result<()> {
        let held = self.inner.get(&record.key);
        if !self.is_own(&record) && held.is_some_and(|held| self.is_own(&held)) {
            return Ok(());
        }
        self.inner.put(record)
    }

    fn remove(&mut self, key: &RecordKey) {
        self.inner.remove(key);
    }

    /// What may be copied to others, and what has expired.
    fn records(&self) -> Self::RecordsIter<'_> {
        let now = now();
        let dies = move |record: &Record| {
            let left = |expires: Instant| expires.saturating_duration_since(now);
            !record.is_expired(now)
                && (record.expires).is_some_and(|expires| left(expires) < LEAST_COPIED_LIFE)
        };
        Box::new(self.inner.records().filter(move |record| !dies(record)))
    }

    fn add_provider(&mut self, record: ProviderRecord) -> Result<()> {
        if record.provider == self.local {
            self.make_room_for_self(&record.key);
            return self.inner.add_provider(record);
        }
        let now = now();
        if !self.has_room(&record.key, now) {
            return Err(libp2p_kad::store::Error::MaxProvidedKeys);
        }
        // Expired providers are removed for new ones.
        for held in self.inner.providers(&record.key) {
            if held.is_expired(now) {
                self.inner.remove_provider(&record.key, &held.provider);
            }
        }
        let expires = record.expires.unwrap_or(now + RECORD_TTL);
        let key = record.key.clone();
        self.inner.add_provider(record)?;
        let last = self.provided.entry(key).or_insert(expires);
        *last = expires.max(*last);
        Ok(())
    }

    fn providers(&self, key: &RecordKey) -> Vec<ProviderRecord> {
        self.inner.providers(key)
    }

    fn provided(&self) -> Self::ProvidedIter<'_> {
        self.inner.provided()
    }

    fn remove_provider(&mut self, key: &RecordKey, provider: &PeerId) {
        self.inner.remove_provider(key, provider);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: usize = 8;

    fn store(local: PeerId) -> Store {
        let config = MemoryStoreConfig {
            max_provided_keys: KEYS,
            max_providers_per_key: MAX_PROVIDERS_PER_KEY,
            ..MemoryStoreConfig::default()
        };
        Store::new(local, config)
    }

    fn record(key: &str, publisher: PeerId, life: Option<Duration>) -> Record {
        Record {
            key: RecordKey::new(&key),
            value: publisher.to_bytes(),
            publisher: Some(publisher),
            expires: life.map(|life| now() + life),
        }
    }

    fn provider(key: usize, provider: PeerId, life: Duration) -> ProviderRecord {
        ProviderRecord {
            key: RecordKey::new(&key.to_be_bytes()),
            provider,
            expires: Some(now() + life),
            addresses: Vec::new(),
        }
    }

    #[test]
    fn the_own_record_stays_whatever_others_put() {
        let (local, other) = (PeerId::random(), PeerId::random());
        let mut store = store(local);
        let key = RecordKey::new(&"key");
        store.put(record("key", other, None)).unwrap();
        store.put(record("key", local, None)).unwrap();
        store.put(record("key", other, None)).unwrap();
        assert_eq!(store.get(&key).unwrap().publisher, Some(local));
        store.remove(&key);
        store.put(record("key", other, None)).unwrap();
        assert_eq!(store.get(&key).unwrap().publisher, Some(other));
    }

    #[test]
    fn what_is_about_to_expire_is_not_copied_but_answered_until_then() {
        let mut store = store(PeerId::random());
        let other = PeerId::random();
        for (key, millis) in [("dead", 0), ("dying", 1500), ("alive", 60_000)] {
            let life = Some(Duration::from_millis(millis));
            store.put(record(key, other, life)).unwrap();
        }
        store.put(record("endless", other, None)).unwrap();
        let mut copied: Vec<_> = store.records().map(|record| record.key.to_vec()).collect();
        copied.sort_unstable();
        // The dead one is shown to be removed.
        assert_eq!(copied, [&b"alive"[..], b"dead", b"endless"]);
        assert!(store.get(&RecordKey::new(&"dying")).is_some());
    }

    #[test]
    fn a_flood_of_keys_is_forgotten_and_never_keeps_this_node_from_providing() {
        let (local, other) = (PeerId::random(), PeerId::random());
        let mut store = store(local);
        let life = Duration::from_secs(3600);
        for key in 0..KEYS {
            // They have expired when the store is full.
            let life = if key < 3 { Duration::ZERO } else { life };
            store.add_provider(provider(key, other, life)).unwrap();
        }
        for key in 0..KEYS {
            store.add_provider(provider(key, local, life)).unwrap();
        }
        for key in 100..103 {
            store.add_provider(provider(key, other, life)).unwrap();
        }
        store.add_provider(provider(103, other, life)).unwrap_err();
        assert_eq!(store.provided().count(), KEYS);
        let of = |key: usize| store.providers(&RecordKey::new(&key.to_be_bytes()));
        assert_eq!(of(0).len(), 1, "the own one alone");
        assert_eq!(of(3).len(), 2);
    }

    #[test]
    fn providers_that_have_expired_make_room_at_a_full_key() {
        let local = PeerId::random();
        let mut store = store(local);
        for _ in 0..MAX_PROVIDERS_PER_KEY {
            let gone = provider(1, PeerId::random(), Duration::ZERO);
            store.add_provider(gone).unwrap();
        }
        let comes = provider(1, PeerId::random(), Duration::from_secs(3600));
        store.add_provider(comes.clone()).unwrap();
        assert_eq!(store.providers(&comes.key), [comes]);
        // The providers that were stored first stay, except the last one when this node is added.
        for _ in 0..MAX_PROVIDERS_PER_KEY {
            let stays = provider(1, PeerId::random(), Duration::from_secs(3600));
            store.add_provider(stays).unwrap();
        }
        let own = provider(1, local, Duration::from_secs(3600));
        store.add_provider(own.clone()).unwrap();
        let held = store.providers(&own.key);
        assert_eq!(held.len(), MAX_PROVIDERS_PER_KEY);
        assert!(held.contains(&own));
        assert_eq!(store.provided().count(), 1);
    }
}
