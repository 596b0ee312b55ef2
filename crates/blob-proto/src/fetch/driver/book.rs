//! What a transfer remembers: providers and their failures, chunks, bytes.

use std::{collections::BTreeMap, time::Duration};

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

    /// Notes a provider. `false` where it is known, or one too many.
    pub(super) fn found(&mut self, peer: PeerId) -> bool {
        if self.providers.len() >= self.max_providers || self.providers.contains_key(&peer) {
            return false;
        }
        self.providers.insert(peer, Provider::default());
        true
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

    pub(super) fn fetched(&self, id: BlobId, size_bytes: u64, hold: Option<Hold>) -> Fetched {
        let gave = self.providers.iter().filter(|(_, p)| p.verified_bytes > 0);
        Fetched {
            id,
            size_bytes,
            resumed_bytes: self.resumed_bytes,
            received_bytes: self.received_bytes,
            providers: gave.map(|(peer, p)| (*peer, p.verified_bytes)).collect(),
            failures: self.failures(),
            hold,
            content: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use calimero_network_primitives::{Keypair, PeerId};

    use super::Book;
    use crate::{
        error::ChunkError,
        fetch::{ProviderError, session::SessionId},
    };

    fn peer() -> PeerId {
        let key = Keypair::ed25519_from_bytes([1; 32]).unwrap();
        key.public().to_peer_id()
    }

    fn session(number: u64) -> SessionId {
        SessionId {
            peer: peer(),
            number,
        }
    }

    fn book() -> Book {
        let mut book = Book::new(1);
        assert!(book.found(peer()));
        book
    }

    #[test]
    fn what_came_before_a_failure_does_not_undo_it() {
        let mut book = book();
        let received_bytes = 7;
        book.failed(session(1), ProviderError::Closed { received_bytes });
        book.verified(session(1), 7);
        let failures = book.failures();
        assert!(
            matches!(failures[..], [ref only] if matches!(only.reason, ProviderError::Closed { received_bytes: 7 })),
            "{failures:?}"
        );
        assert_eq!(book.verified_bytes, 7);
    }

    #[test]
    fn what_comes_after_a_failure_undoes_it() {
        let mut book = book();
        let after = Duration::from_secs(1);
        book.failed(session(1), ProviderError::Stalled { after });
        book.verified(session(2), 7);
        assert!(book.failures().is_empty());
    }

    #[test]
    fn nothing_undoes_a_lie() {
        let mut book = book();
        let lie = ChunkError::Mismatch { index: 0 };
        book.failed(session(1), ProviderError::Chunk(lie));
        book.verified(session(2), 7);
        assert_eq!(book.failures().len(), 1);
        assert!(book.v1().is_empty());
    }
}
