//! Chunks, their hashes, and the id that commits to them.
//!
//! Content is cut into chunks of [`BLOB_CHUNK_BYTES`], the last one shorter but never empty. A
//! chunk's hash is its SHA-256, and the blob's id is the SHA-256 of all chunk hashes in order.
//! So a list of chunk hashes proves itself against the id before a single chunk has arrived, and
//! each chunk proves itself against the list, in any order and from any provider.

use std::fmt;

use bytes::Bytes;
pub use calimero_network_primitives::BlobId;
use calimero_network_primitives::limits::BLOB_CHUNK_BYTES;
use sha2::{Digest, Sha256};

use crate::error::{ChunkError, ListError};

/// Length of a chunk hash, in bytes: one SHA-256 digest.
pub const CHUNK_HASH_BYTES: usize = 32;

/// Most chunks a blob may have: 2^20, so 1 TiB of content.
///
/// Bounds the list of chunk hashes, which is held in memory, to 32 MiB.
pub const MAX_BLOB_CHUNKS: usize = 1 << 20;

/// Largest blob, in bytes: 1 TiB, inclusive.
pub const MAX_BLOB_BYTES: u64 = MAX_BLOB_CHUNKS as u64 * CHUNK_BYTES;

/// [`BLOB_CHUNK_BYTES`] as a size of content.
pub(crate) const CHUNK_BYTES: u64 = BLOB_CHUNK_BYTES as u64;

/// Alignment of chunks in memory that are written past the system's cache, in bytes: 4 KiB, the
/// largest sector in use. A disk that wants more refuses, and is written through the cache.
#[cfg(any(all(feature = "fs", unix), feature = "transfer"))]
pub(crate) const DISK_ALIGN_BYTES: usize = 4096;

/// SHA-256 of one chunk.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChunkHash([u8; CHUNK_HASH_BYTES]);

impl ChunkHash {
    /// Hashes the bytes of one chunk.
    #[must_use]
    pub fn of(chunk: &[u8]) -> Self {
        Self(Sha256::digest(chunk).into())
    }

    /// Returns the bytes of the digest.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; CHUNK_HASH_BYTES] {
        &self.0
    }
}

impl From<[u8; CHUNK_HASH_BYTES]> for ChunkHash {
    fn from(digest: [u8; CHUNK_HASH_BYTES]) -> Self {
        Self(digest)
    }
}

impl fmt::Debug for ChunkHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Number of chunks that content of `size_bytes` is cut into.
#[must_use]
pub fn chunk_count(size_bytes: u64) -> u64 {
    size_bytes.div_ceil(CHUNK_BYTES)
}

/// The id of content that is at hand as a whole.
#[must_use]
pub fn blob_id(content: &[u8]) -> BlobId {
    let mut hasher = Sha256::new();
    for chunk in content.chunks(BLOB_CHUNK_BYTES) {
        hasher.update(ChunkHash::of(chunk).0);
    }
    BlobId::from(<[u8; CHUNK_HASH_BYTES]>::from(hasher.finalize()))
}

/// The chunk hashes of a blob, proven against its id. A value of this type cannot hold a list
/// that does not belong to its id.
///
/// The list fixes the size of the blob but for the length of its last chunk, which that chunk's
/// hash fixes. A claimed size can therefore be refused at once where
/// [`accepts_size`](Self::accepts_size) says no, and is certain once the last chunk is verified.
#[derive(Clone, PartialEq, Eq)]
pub struct ChunkList {
    id: BlobId,
    /// The digests one after another. A whole number of them.
    digests: Bytes,
}

impl ChunkList {
    /// Proves a list of digests, one after another, against an id. Nothing is copied.
    ///
    /// # Errors
    ///
    /// [`ListError::Ragged`] where the bytes are no whole number of digests,
    /// [`ListError::TooLong`] beyond [`MAX_BLOB_CHUNKS`], [`ListError::Mismatch`] where it is
    /// the list of another blob.
    pub fn prove(id: BlobId, digests: Bytes) -> Result<Self, ListError> {
        if !digests.len().is_multiple_of(CHUNK_HASH_BYTES) {
            return Err(ListError::Ragged {
                len_bytes: digests.len(),
            });
        }
        let chunks = digests.len() / CHUNK_HASH_BYTES;
        if chunks > MAX_BLOB_CHUNKS {
            return Err(ListError::TooLong {
                chunks,
                max_chunks: MAX_BLOB_CHUNKS,
            });
        }
        let actual = BlobId::from(<[u8; CHUNK_HASH_BYTES]>::from(Sha256::digest(&digests)));
        if actual != id {
            return Err(ListError::Mismatch { id, actual });
        }
        Ok(Self { id, digests })
    }

    /// The id that the list belongs to.
    #[must_use]
    pub fn id(&self) -> BlobId {
        self.id
    }

    /// Number of chunks. Zero for the empty blob.
    #[must_use]
    pub fn len(&self) -> usize {
        self.digests.len() / CHUNK_HASH_BYTES
    }

    /// Whether this is the list of the empty blob.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.digests.is_empty()
    }

    /// The digests one after another, as they are proven.
    #[must_use]
    pub fn digests(&self) -> &Bytes {
        &self.digests
    }

    /// The hash of one chunk, or `None` beyond the end.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<ChunkHash> {
        let start = index.checked_mul(CHUNK_HASH_BYTES)?;
        let digest = self
            .digests
            .get(start..start.checked_add(CHUNK_HASH_BYTES)?)?;
        digest.try_into().ok().map(ChunkHash)
    }

    /// Smallest and largest size, in bytes, that content with this list can have.
    #[must_use]
    pub fn size_bounds(&self) -> (u64, u64) {
        match self.len() as u64 {
            0 => (0, 0),
            chunks => ((chunks - 1) * CHUNK_BYTES + 1, chunks * CHUNK_BYTES),
        }
    }

    /// Whether content with this list can have that size.
    #[must_use]
    pub fn accepts_size(&self, size_bytes: u64) -> bool {
        let (least, most) = self.size_bounds();
        (least..=most).contains(&size_bytes)
    }

    /// Verifies one chunk: its length by its place, its bytes by its hash.
    ///
    /// # Errors
    ///
    /// [`ChunkError`] with the index of the chunk and what is wrong about it.
    pub fn verify(&self, index: usize, chunk: &[u8]) -> Result<(), ChunkError> {
        let Some(expected) = self.get(index) else {
            return Err(ChunkError::OutOfRange {
                index,
                chunks: self.len(),
            });
        };
        let last = index + 1 == self.len();
        let fits = if last {
            (1..=BLOB_CHUNK_BYTES).contains(&chunk.len())
        } else {
            chunk.len() == BLOB_CHUNK_BYTES
        };
        if !fits {
            return Err(ChunkError::Length {
                index,
                len_bytes: chunk.len(),
                max_bytes: BLOB_CHUNK_BYTES,
            });
        }
        if ChunkHash::of(chunk) != expected {
            return Err(ChunkError::Mismatch { index });
        }
        Ok(())
    }
}

impl fmt::Debug for ChunkList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChunkList")
            .field("id", &self.id)
            .field("chunks", &self.len())
            .finish()
    }
}

/// What a [`BlobHasher`] found: the id is `list.id()`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hashed {
    /// Size of the content, in bytes.
    pub size_bytes: u64,
    /// The chunk hashes, and with them the id.
    pub list: ChunkList,
}

/// Hashes content that arrives piece by piece, in pieces of any length.
///
/// Holds 32 bytes for each chunk seen and nothing of the content.
#[derive(Clone, Default)]
pub struct BlobHasher {
    /// Digests of the whole chunks so far.
    digests: Vec<u8>,
    chunk: Sha256,
    /// Bytes in `chunk`, below [`BLOB_CHUNK_BYTES`].
    chunk_len: usize,
}

impl BlobHasher {
    /// A hasher that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes seen so far.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        (self.digests.len() / CHUNK_HASH_BYTES) as u64 * CHUNK_BYTES + self.chunk_len as u64
    }

    /// Takes the next piece of the content.
    ///
    /// # Errors
    ///
    /// [`ListError::TooLong`] where the content exceeds [`MAX_BLOB_BYTES`]; nothing of the piece
    /// is taken then.
    pub fn update(&mut self, mut piece: &[u8]) -> Result<(), ListError> {
        let size_bytes = self.size_bytes().saturating_add(piece.len() as u64);
        if size_bytes > MAX_BLOB_BYTES {
            return Err(ListError::TooLong {
                chunks: usize::try_from(chunk_count(size_bytes)).unwrap_or(usize::MAX),
                max_chunks: MAX_BLOB_CHUNKS,
            });
        }
        while !piece.is_empty() {
            let room = BLOB_CHUNK_BYTES - self.chunk_len;
            let (now, later) = piece.split_at(room.min(piece.len()));
            self.chunk.update(now);
            self.chunk_len += now.len();
            if self.chunk_len == BLOB_CHUNK_BYTES {
                self.close_chunk();
            }
            piece = later;
        }
        Ok(())
    }

    /// Ends the content and returns its hashes.
    #[must_use]
    pub fn finish(mut self) -> Hashed {
        let size_bytes = self.size_bytes();
        if self.chunk_len > 0 {
            self.close_chunk();
        }
        let digests = Bytes::from(self.digests);
        let id = BlobId::from(<[u8; CHUNK_HASH_BYTES]>::from(Sha256::digest(&digests)));
        Hashed {
            size_bytes,
            list: ChunkList { id, digests },
        }
    }

    fn close_chunk(&mut self) {
        let digest = self.chunk.finalize_reset();
        self.digests.extend_from_slice(&digest);
        self.chunk_len = 0;
    }
}

impl fmt::Debug for BlobHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobHasher")
            .field("size_bytes", &self.size_bytes())
            .finish()
    }
}
