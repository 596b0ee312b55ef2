//! Gathering the pages of a list of chunk hashes.

use bytes::BytesMut;

use super::{ListPage, MAX_PAGE_HASHES};
use crate::{BlobId, CHUNK_HASH_BYTES, ChunkList, chunk_count, error::ListError};

/// The pages of one provider's list, until it is whole. Grows with what has arrived.
#[derive(Clone, Debug)]
pub struct ListAssembly {
    id: BlobId,
    /// Size and number of chunks, by the word of the first page.
    claim: Option<(u64, u64)>,
    digests: BytesMut,
}

/// Why a page was refused. Its sender is not to be trusted with this blob again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PageError {
    /// It does not continue what is there.
    #[error("a page of chunk hashes from {from}, expected from {expected}")]
    Gap {
        /// The index where it begins.
        from: u64,
        /// The index where it should begin.
        expected: u64,
    },
    /// It claims another size than the pages before.
    #[error("a size of {size_bytes} bytes after one of {before_bytes}")]
    Size {
        /// What it claims, in bytes.
        size_bytes: u64,
        /// What was claimed before, in bytes.
        before_bytes: u64,
    },
    /// It has more hashes than the claimed size needs, or too few for a page that is not last.
    #[error("a page of {hashes} chunk hashes where {expected} belong")]
    Length {
        /// How many it has.
        hashes: u64,
        /// How many it should have.
        expected: u64,
    },
    /// All pages are there and they are not the list of this blob.
    #[error(transparent)]
    List(#[from] ListError),
}

impl ListAssembly {
    /// An assembly of the list of a blob, empty.
    #[must_use]
    pub fn new(id: BlobId) -> Self {
        Self {
            id,
            claim: None,
            digests: BytesMut::new(),
        }
    }

    /// First chunk hash that is still wanted.
    #[must_use]
    pub fn next(&self) -> u64 {
        (self.digests.len() / CHUNK_HASH_BYTES) as u64
    }

    /// Takes the next page. Yields the list once it is whole and proven.
    ///
    /// # Errors
    ///
    /// [`PageError`] with what is wrong about the page or the list.
    pub fn push(&mut self, page: &ListPage) -> Result<Option<ChunkList>, PageError> {
        let chunks = chunk_count(page.size_bytes);
        let (size_bytes, chunks) = *self.claim.get_or_insert((page.size_bytes, chunks));
        if page.size_bytes != size_bytes {
            return Err(PageError::Size {
                size_bytes: page.size_bytes,
                before_bytes: size_bytes,
            });
        }
        let expected = self.next();
        if page.from != expected {
            let from = page.from;
            return Err(PageError::Gap { from, expected });
        }
        let hashes = (page.digests.len() / CHUNK_HASH_BYTES) as u64;
        let expected = (chunks - expected).min(MAX_PAGE_HASHES as u64);
        if hashes != expected {
            return Err(PageError::Length { hashes, expected });
        }
        if hashes == chunks {
            // The usual case: one page, which becomes the list without a copy.
            return Ok(Some(ChunkList::prove(self.id, page.digests.clone())?));
        }
        self.digests.extend_from_slice(&page.digests);
        if self.next() < chunks {
            return Ok(None);
        }
        let digests = self.digests.split().freeze();
        Ok(Some(ChunkList::prove(self.id, digests)?))
    }
}
