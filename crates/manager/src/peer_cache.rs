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

    /// Saves `entries` in place of the saved ones. Does nothing before [`loaded`](Self::loaded) has
    /// returned: the entries would replace those that are being loaded and lack them.
    pub(crate) fn save(&mut self, entries: Vec<CacheEntry>) {
        let Some(cache) = &self.cache else { return };
        if self.loading.is_some() {
            return;
        }
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

    /// Returns `true` until [`loaded`](Self::loaded) has returned.
    pub(crate) fn is_loading(&self) -> bool {
        self.loading.is_some()
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
mod tests;
