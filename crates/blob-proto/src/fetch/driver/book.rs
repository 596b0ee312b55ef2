//! What a transfer remembers: providers and their failures, chunks, bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use calimero_network_primitives::PeerId;

use crate::{
    BlobId,
    fetch::{
        Fetched, Progress, ProviderError, ProviderFailure,
        progress::{ProviderProgress, Rate},
        session::SessionId,
    },
    id::CHUNK_BYTES,
    store::{Hold, PartialBlob},
};

/// Time between two words about progress, unless [`PUBLISH_STEPS`] says one is due before.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(100);

/// A part of one in this many is a word about progress, however fast it came.
const PUBLISH_STEPS: u64 = 16;

/// Providers whose place another one has taken, at most: 1,024. Then no more are taken, so that a
/// search that invents providers ends.
const MAX_GIVEN_UP: usize = 1024;

/// A provider that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The provider whose place it takes.
    pub(super) in_place_of: Option<PeerId>,
    /// Whether it is one of the first of the transfer, as many as are used at one time.
    pub(super) is_early: bool,
}

#[derive(Default)]
struct Provider {
    verified_bytes: u64,
    /// What it did last, and in which session.
    failure: Option<(u64, ProviderError)>,
    v0: bool,
}

pub(super) struct Book {
    max_providers: usize,
    providers: BTreeMap<PeerId, Provider>,
    /// Providers whose place another one has taken. They return where there is space.
    given_up: BTreeSet<PeerId>,
    /// Those of them that sent what does not verify. They do not return.
    liars: BTreeSet<PeerId>,
    /// Number of providers that were found.
    found: usize,
    /// Which chunks are verified, once they are known.
    chunks: Vec<bool>,
    first_missing: usize,
    size_bytes: Option<u64>,
    verified_bytes: u64,
    /// Part of it that earlier tries verified.
    resumed_bytes: u64,
    received_bytes: u64,
    rate: Rate,
    /// When the last word about progress was given, and how many bytes were verified by then.
    published: Option<(Duration, u64)>,
}

impl Book {
    pub(super) fn new(max_providers: usize) -> Self {
        Self {
            max_providers,
            providers: BTreeMap::new(),
            given_up: BTreeSet::new(),
            liars: BTreeSet::new(),
            found: 0,
            chunks: Vec::new(),
            first_missing: 0,
            size_bytes: None,
            verified_bytes: 0,
            resumed_bytes: 0,
            received_bytes: 0,
            rate: Rate::default(),
            published: None,
        }
    }

    /// Notes a provider. `None` where it is known, or one too many. Where there is no space, it
    /// takes that of the provider that failed first, has given nothing and has no session.
    pub(super) fn found(
        &mut self,
        peer: PeerId,
        has_session: impl Fn(&PeerId) -> bool,
    ) -> Option<Found> {
        if self.providers.contains_key(&peer) || self.liars.contains(&peer) {
            return None;
        }
        let mut in_place_of = None;
        if self.providers.len() >= self.max_providers {
            if self.given_up.contains(&peer) || self.given_up.len() >= MAX_GIVEN_UP {
                return None;
            }
            let useless = self
                .providers
                .iter()
                .filter(|(peer, provider)| provider.verified_bytes == 0 && !has_session(peer));
            let failed = useless.filter_map(|(peer, provider)| {
                let (number, error) = provider.failure.as_ref()?;
                Some((!error.is_final(), *number, *peer, error.is_lie()))
            });
            let (_, _, before, lied) = failed.min()?;
            self.providers.remove(&before);
            self.given_up.insert(before);
            if lied {
                self.liars.insert(before);
            }
            in_place_of = Some(before);
        }
        self.providers.insert(peer, Provider::default());
        self.found += 1;
        Some(Found {
            in_place_of,
            is_early: self.found <= self.max_providers,
        })
    }

    /// Whether a provider has failed and given nothing since.
    pub(super) fn has_failed(&self, peer: &PeerId) -> bool {
        let provider = self.providers.get(peer);
        provider.is_some_and(|provider| provider.failure.is_some())
    }

    pub(super) fn failed(&mut self, id: SessionId, error: ProviderError) {
        if let Some(provider) = self.providers.get_mut(&id.peer) {
            provider.failure = Some((id.number, error));
        }
    }

    /// Whether a provider speaks v0 alone. `None` where it is not known.
    pub(super) fn is_v0(&self, peer: &PeerId) -> Option<bool> {
        self.providers.get(peer).map(|provider| provider.v0)
    }

    pub(super) fn set_v0(&mut self, peer: PeerId) {
        if let Some(provider) = self.providers.get_mut(&peer) {
            provider.v0 = true;
        }
    }

    /// Older providers that may still be asked.
    pub(super) fn v0(&self) -> Vec<PeerId> {
        self.hopeful(true)
    }

    /// Other providers that may still be asked.
    pub(super) fn v1(&self) -> Vec<PeerId> {
        self.hopeful(false)
    }

    fn hopeful(&self, v0: bool) -> Vec<PeerId> {
        let hopeful = self.providers.iter().filter(|(_, provider)| {
            let out = provider
                .failure
                .as_ref()
                .is_some_and(|(_, error)| error.is_final());
            provider.v0 == v0 && !out
        });
        hopeful.map(|(peer, _)| *peer).collect()
    }

    pub(super) fn failures(&self) -> Vec<ProviderFailure> {
        let failed = self.providers.iter().filter_map(|(peer, provider)| {
            let (_, reason) = provider.failure.clone()?;
            Some(ProviderFailure {
                peer: *peer,
                reason,
            })
        });
        failed.collect()
    }

    pub(super) fn size(&mut self, size_bytes: u64) {
        self.size_bytes = Some(size_bytes);
    }

    /// Notes which chunks are there, and says which are not.
    pub(super) fn begin_chunks(&mut self, partial: &dyn PartialBlob) -> Vec<u64> {
        self.chunks = (0..partial.list().len())
            .map(|index| partial.has(index))
            .collect();
        let there = self.chunks.iter().filter(|there| **there).count() as u64;
        let most = self.size_bytes.unwrap_or(u64::MAX);
        self.resumed_bytes = (there * CHUNK_BYTES).min(most);
        self.verified_bytes = self.resumed_bytes;
        self.advance();
        let missing = (0..).zip(&self.chunks).filter(|(_, there)| !**there);
        missing.map(|(index, _)| index).collect()
    }

    pub(super) fn has(&self, index: u64) -> bool {
        let index = usize::try_from(index).ok();
        index
            .and_then(|index| self.chunks.get(index))
            .is_some_and(|there| *there)
    }

    /// The first chunk that is not there.
    pub(super) fn first_missing(&self) -> u64 {
        self.first_missing as u64
    }

    /// Notes a chunk. Whether the first one that is missing is another now.
    pub(super) fn chunk_verified(&mut self, from: SessionId, index: u64, len: u64) -> bool {
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        let Some(there) = self.chunks.get_mut(index).filter(|there| !**there) else {
            return false;
        };
        *there = true;
        self.verified(from, len);
        let before = self.first_missing;
        self.advance();
        self.first_missing != before
    }

    fn advance(&mut self) {
        let rest = &self.chunks[self.first_missing..];
        self.first_missing += rest.iter().take_while(|there| **there).count();
    }

    /// Notes content of a session. A failure is forgotten where it was of an earlier one: what
    /// came before a failure may be written after it, and makes up for nothing.
    pub(super) fn verified(&mut self, from: SessionId, bytes: u64) {
        self.verified_bytes += bytes;
        if let Some(provider) = self.providers.get_mut(&from.peer) {
            provider.verified_bytes += bytes;
            let failure = &mut provider.failure;
            failure.take_if(|(number, error)| *number < from.number && !error.is_final());
        }
    }

    pub(super) fn received(&mut self, bytes: u64) {
        self.received_bytes += bytes;
    }

    pub(super) fn complete(&mut self, size_bytes: u64) {
        self.size_bytes = Some(size_bytes);
        self.verified_bytes = size_bytes;
    }

    pub(super) fn is_due(&self, now: Duration) -> bool {
        let step = self.size_bytes.map(|size| size.div_ceil(PUBLISH_STEPS));
        self.published.is_none_or(|(before, bytes)| {
            let came = self.verified_bytes.saturating_sub(bytes);
            now.saturating_sub(before) >= PUBLISH_INTERVAL
                || step.is_some_and(|step| came > 0 && came >= step)
        })
    }

    pub(super) fn progress(
        &mut self,
        now: Duration,
        state: impl Fn(&PeerId) -> (Option<u64>, bool),
    ) -> Progress {
        self.published = Some((now, self.verified_bytes));
        let fetched_bytes = self.verified_bytes.saturating_sub(self.resumed_bytes);
        let providers = self.providers.iter().map(|(peer, provider)| {
            let (rate_bytes_per_s, connected) = state(peer);
            ProviderProgress {
                peer: *peer,
                verified_bytes: provider.verified_bytes,
                rate_bytes_per_s,
                connected,
            }
        });
        Progress {
            size_bytes: self.size_bytes,
            verified_bytes: self.verified_bytes,
            received_bytes: self.received_bytes,
            rate_bytes_per_s: self.rate.at(now, fetched_bytes),
            searching: false,
            providers: providers.collect(),
        }
    }

    pub(super) fn fetched(&self, id: BlobId, size_bytes: u64, hold: Hold) -> Fetched {
        let gave = self.providers.iter().filter(|(_, p)| p.verified_bytes > 0);
        Fetched {
            id,
            size_bytes,
            resumed_bytes: self.resumed_bytes,
            received_bytes: self.received_bytes,
            providers: gave.map(|(peer, p)| (*peer, p.verified_bytes)).collect(),
            failures: self.failures(),
            hold: Some(hold),
            content: None,
        }
    }
}

#[cfg(test)]
mod tests;
