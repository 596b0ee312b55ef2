//! The peer cache writer: loads and saves the peer cache outside of the thread of the network.

use std::{sync::Arc, time::SystemTime};

use calimero_network_discovery::{
    cache::{CacheError, Loaded, PeerCache},
    machine::CacheEntry,
};
use tokio::task::JoinHandle;

/// The cache and its running operation. It runs one operation at a time: entries to save wait for the
/// operation that runs, and newer entries replace them.
#[derive(Default)]
pub(crate) struct PeerCacheWriter {
    cache: Option<Arc<dyn PeerCache>>,
    loading: Option<JoinHandle<Result<Loaded, CacheError>>>,
    saving: Option<JoinHandle<Result<(), CacheError>>>,
    waiting: Option<Vec<CacheEntry>>,
}

impl PeerCacheWriter {
    /// Starts to load the cache. Must be called in a tokio runtime.
    pub(crate) fn load(cache: Option<Arc<dyn PeerCache>>) -> Self {
        let loading = cache
            .clone()
            .map(|cache| tokio::task::spawn_blocking(move || cache.load(SystemTime::now())));
        Self {
            cache,
            loading,
            ..Self::default()
        }
    }

    /// Saves `entries` in place of the saved ones.
    pub(crate) fn save(&mut self, entries: Vec<CacheEntry>) {
        let Some(cache) = &self.cache else { return };
        if self.saving.is_some() {
            self.waiting = Some(entries);
            return;
        }
        let cache = cache.clone();
        let saving = move || cache.save(&entries, SystemTime::now());
        self.saving = Some(tokio::task::spawn_blocking(saving));
    }

    /// Returns the loaded entries, once, and drives the operations until then. Cancel safe.
    pub(crate) async fn loaded(&mut self) -> Vec<CacheEntry> {
        loop {
            tokio::select! {
                loaded = ended(&mut self.loading) => return entries(loaded),
                saved = ended(&mut self.saving) => self.on_saved(saved),
            }
        }
    }

    /// Returns when all entries are saved.
    pub(crate) async fn settle(&mut self) {
        while self.saving.is_some() {
            let saved = ended(&mut self.saving).await;
            self.on_saved(saved);
        }
    }

    fn on_saved(&mut self, saved: Option<Result<(), CacheError>>) {
        if let Some(Err(error)) = saved {
            tracing::warn!(%error, "cannot save the peer cache");
        }
        if let Some(entries) = self.waiting.take() {
            self.save(entries);
        }
    }
}

/// The output of a task when it has ended, or `None` if it panicked. Waits without end if no task
/// runs.
async fn ended<T>(task: &mut Option<JoinHandle<T>>) -> Option<T> {
    let Some(running) = task else {
        return std::future::pending().await;
    };
    let output = running.await;
    *task = None;
    output.ok()
}

fn entries(loaded: Option<Result<Loaded, CacheError>>) -> Vec<CacheEntry> {
    match loaded {
        Some(Ok(Loaded { entries, damage })) => {
            if let Some(damage) = damage {
                tracing::warn!(%damage, "peers of an earlier run are lost");
            }
            entries
        }
        Some(Err(error)) => {
            tracing::warn!(%error, "peers of an earlier run could not be read");
            Vec::new()
        }
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
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
}
