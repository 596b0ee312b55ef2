//! The peer cache in the store of the node, under the key and in the format of the published crate:
//! a node that changes from one to the other keeps its peers.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use calimero_store::{Store, key::Generic, slice::Slice, types::GenericData};
use network::discovery::{
    cache::{CacheError, Loaded, MAX_CACHED_ADDRESSES_PER_PEER, MAX_CACHED_PEERS, PeerCache},
    machine::CacheEntry,
};
use serde::{Deserialize, Serialize};

/// Age after which a peer is not loaded: 24 h, as in the published crate.
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);

#[derive(Serialize, Deserialize)]
struct StoredPeer {
    peer_id: String,
    addrs: Vec<String>,
    last_seen_secs: u64,
}

/// The peer cache in a [`Store`].
pub(crate) struct StoreCache(pub(crate) Store);

impl StoreCache {
    fn key() -> Generic {
        Generic::new(*b"calimero-peercch", [0; 32])
    }
}

impl PeerCache for StoreCache {
    fn load(&self, now: SystemTime) -> Result<Loaded, CacheError> {
        let handle = self.0.handle();
        let key = Self::key();
        let Some(stored) = handle.get(&key).map_err(store_error)? else {
            return Ok(Loaded::default());
        };
        let stored: Vec<StoredPeer> =
            serde_json::from_slice(stored.as_ref()).map_err(store_error)?;
        let mut entries: Vec<_> = stored
            .into_iter()
            .filter_map(|peer| entry(peer, now))
            .collect();
        entries.sort_by_key(|entry| entry.age);
        entries.truncate(MAX_CACHED_PEERS);
        let damage = None;
        Ok(Loaded { entries, damage })
    }

    fn save(&self, entries: &[CacheEntry], now: SystemTime) -> Result<(), CacheError> {
        let stored: Vec<_> = entries
            .iter()
            .take(MAX_CACHED_PEERS)
            .map(|entry| StoredPeer {
                peer_id: entry.peer.to_base58(),
                addrs: entry.addresses.iter().map(ToString::to_string).collect(),
                last_seen_secs: seconds(now).saturating_sub(entry.age.as_secs()),
            })
            .collect();
        let bytes = serde_json::to_vec(&stored).map_err(store_error)?;
        let data = GenericData::from(Slice::from(bytes));
        let key = Self::key();
        let mut handle = self.0.handle();
        handle.put(&key, &data).map_err(store_error)
    }
}

/// The peer of an entry in the store. A malformed or old entry is left out; the others count.
fn entry(stored: StoredPeer, now: SystemTime) -> Option<CacheEntry> {
    let age = Duration::from_secs(seconds(now).saturating_sub(stored.last_seen_secs));
    let addresses = stored
        .addrs
        .iter()
        .filter_map(|address| address.parse().ok());
    let addresses: Vec<_> = addresses.take(MAX_CACHED_ADDRESSES_PER_PEER).collect();
    let peer = stored.peer_id.parse().ok()?;
    (age <= MAX_AGE && !addresses.is_empty()).then_some(CacheEntry {
        peer,
        addresses,
        age,
    })
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

fn store_error(error: impl ToString) -> CacheError {
    CacheError::Store(error.to_string().into())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use calimero_store::db::InMemoryDB;

    use super::*;

    fn store() -> Store {
        Store::new(Arc::new(InMemoryDB::owned()))
    }

    #[test]
    fn peers_survive_in_the_format_of_the_published_crate() {
        let cache = StoreCache(store());
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        assert!(cache.load(now).unwrap().entries.is_empty());
        let entry = CacheEntry {
            peer: network::PeerId::random(),
            addresses: vec!["/ip4/192.0.2.1/tcp/2428".parse().unwrap()],
            age: Duration::from_secs(60),
        };
        cache.save(std::slice::from_ref(&entry), now).unwrap();

        let key = StoreCache::key();
        let handle = cache.0.handle();
        let json = String::from_utf8(handle.get(&key).unwrap().unwrap().as_ref().to_vec()).unwrap();
        let expected = format!(
            r#"[{{"peer_id":"{}","addrs":["/ip4/192.0.2.1/tcp/2428"],"last_seen_secs":1699999940}}]"#,
            entry.peer
        );
        assert_eq!(json, expected);

        let loaded = cache.load(now + Duration::from_secs(40)).unwrap().entries;
        assert_eq!(loaded[0].peer, entry.peer);
        assert_eq!(loaded[0].addresses, entry.addresses);
        assert_eq!(loaded[0].age, Duration::from_secs(100));
        assert!(cache.load(now + 2 * MAX_AGE).unwrap().entries.is_empty());
    }

    #[test]
    fn what_is_no_peer_cache_is_an_error_that_the_node_survives() {
        let store = store();
        let data = GenericData::from(Slice::from(b"{".to_vec()));
        store.handle().put(&StoreCache::key(), &data).unwrap();
        assert!(StoreCache(store).load(SystemTime::now()).is_err());
    }
}
