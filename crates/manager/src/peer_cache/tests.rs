//! The peer cache writer with a cache in memory.

use std::sync::Mutex;

use super::*;

/// A store that counts, and is as slow as its lock.
#[derive(Default)]
struct Counting {
    saved: Mutex<Vec<usize>>,
}

impl PeerCache for Counting {
    fn load(&self, _: SystemTime) -> Result<Loaded, CacheError> {
        Ok(Loaded::default())
    }

    fn save(&self, entries: &[CacheEntry], _: SystemTime) -> Result<(), CacheError> {
        self.saved.lock().unwrap().push(entries.len());
        Ok(())
    }
}

fn entries_of(count: usize) -> Vec<CacheEntry> {
    let entry = |_| CacheEntry {
        peer: calimero_network_primitives::PeerId::random(),
        addresses: Vec::new(),
        age: std::time::Duration::ZERO,
    };
    (0..count).map(entry).collect()
}

#[tokio::test]
async fn the_newest_of_those_that_wait_is_saved() {
    let cache = Arc::new(Counting::default());
    let mut writer = PeerCacheWriter::load(Some(cache.clone()));
    assert!(writer.loaded().await.is_empty());
    let held = cache.saved.lock().unwrap();
    for count in 1..=3 {
        writer.save(entries_of(count));
    }
    drop(held);
    writer.settle().await;
    assert_eq!(*cache.saved.lock().unwrap(), [1, 3]);
}

#[tokio::test]
async fn without_a_cache_nothing_is_waited_for() {
    let mut writer = PeerCacheWriter::load(None);
    writer.save(entries_of(1));
    writer.settle().await;
    let loaded = tokio::time::timeout(std::time::Duration::from_millis(1), writer.loaded());
    assert!(loaded.await.is_err());
}

#[tokio::test]
async fn nothing_replaces_the_entries_that_are_being_loaded() {
    let cache = Arc::new(Counting::default());
    let mut writer = PeerCacheWriter::load(Some(cache.clone()));
    assert!(writer.is_loading());
    writer.save(Vec::new());
    writer.settle().await;
    assert!(cache.saved.lock().unwrap().is_empty());
    writer.loaded().await;
    assert!(!writer.is_loading());
    writer.save(Vec::new());
    writer.settle().await;
    assert_eq!(*cache.saved.lock().unwrap(), [0]);
}
