//! Where blobs are kept: the [`BlobStore`] that transfers read from and write to, and
//! [`FsBlobStore`], which keeps them in a folder.
//!
//! A store shows a blob under its id only when all of its bytes are verified and durable.
//! The traits are object safe and know no runtime; their futures are `'static`, so that dropping
//! one abandons the answer and never the consistency of the store.

#[cfg(any(feature = "fs", feature = "transfer"))]
pub(crate) mod blocking;
#[cfg(all(any(feature = "fs", feature = "transfer"), unix))]
pub(crate) mod chunk_file;
pub(crate) mod error;
#[cfg(all(feature = "fs", unix))]
mod fs;

use std::{fmt, ops::Range, pin::Pin, sync::Arc};

use bytes::Bytes;

pub use self::error::StoreError;
#[cfg(all(feature = "fs", unix))]
pub use self::fs::{
    FsBatch, FsBlobStore, FsConfig, FsPartial, FsReader, FsWriter, MAX_PARTIALS, MAX_TAG_BYTES,
    MAX_TAGS, PACK_MAX_BLOB_BYTES, PACK_MAX_BYTES, PACK_MAX_ENTRIES, PackIndex, PartialState,
    Usage,
};
use crate::{BlobId, ChunkList};

/// Most bytes that one read of a [`BlobReader`] returns: 8 MiB, the largest frame.
///
/// Bounds what one call allocates, whatever range it is asked for.
pub const MAX_READ_BYTES: usize = calimero_network_primitives::limits::MAX_FRAME_PAYLOAD_BYTES;

/// Alignment of what goes to a disk past the system's cache, in bytes: 4 KiB, the largest sector
/// in use. A disk that wants more refuses, and is written through the cache.
#[cfg(any(all(feature = "fs", unix), feature = "transfer"))]
pub(crate) const DISK_ALIGN_BYTES: usize = 4096;

/// The answer of a store, some time later.
pub type StoreFuture<T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send>>;

/// A place that keeps blobs.
pub trait BlobStore: Send + Sync + 'static {
    /// Size of a blob in bytes, or `None` where the store does not have all of it.
    fn size(&self, id: BlobId) -> StoreFuture<Option<u64>>;

    /// Opens a blob to read, or `None` where the store does not have all of it.
    fn reader(&self, id: BlobId) -> StoreFuture<Option<Arc<dyn BlobReader>>>;

    /// Whether a blob is given to whoever knows its id, where no authorizer says otherwise.
    ///
    /// Default: it is. A store that keeps what is not for everybody answers for each blob.
    fn is_public(&self, id: BlobId) -> StoreFuture<bool> {
        let _ = id;
        Box::pin(std::future::ready(Ok(true)))
    }

    /// Begins a blob whose content arrives in order.
    fn writer(&self) -> StoreFuture<Box<dyn BlobWriter>>;

    /// Begins or resumes a blob whose chunks arrive in any order.
    ///
    /// Fails with [`StoreError::Busy`] while another one of the same blob is open.
    fn partial(&self, list: ChunkList) -> StoreFuture<Arc<dyn PartialBlob>>;

    /// Stores many blobs at once. All of them are durable when it returns their ids, in order; it
    /// costs one flush of the disk rather than one each. Where `expected` holds an id, content
    /// of another blob is refused, and nothing of the batch is kept.
    fn put_batch(&self, blobs: Vec<(Option<BlobId>, Bytes)>) -> StoreFuture<StoredBatch>;
}

/// A complete blob, open to be read. It stays readable when it is removed from the store.
pub trait BlobReader: Send + Sync {
    /// The blob.
    fn id(&self) -> BlobId;

    /// Its size in bytes.
    fn size_bytes(&self) -> u64;

    /// Its chunk hashes, proven against its id.
    fn list(&self) -> StoreFuture<ChunkList>;

    /// Reads a range of at most [`MAX_READ_BYTES`].
    fn read(&self, range: Range<u64>) -> StoreFuture<Bytes>;
}

/// A blob being written in order. Dropping it leaves nothing behind.
pub trait BlobWriter: Send {
    /// Takes the next piece of the content. After a failure every further call fails.
    fn write(&mut self, piece: Bytes) -> StoreFuture<()>;

    /// Ends the content and makes it durable and visible, if it is the blob that is `expected`.
    fn finish(self: Box<Self>, expected: Option<BlobId>) -> StoreFuture<Stored>;
}

/// A blob whose chunks arrive in any order. Dropping it keeps the chunks for the next try.
pub trait PartialBlob: Send + Sync {
    /// Its chunk hashes.
    fn list(&self) -> &ChunkList;

    /// Whether a chunk is there and verified. `false` beyond the end.
    fn has(&self, index: usize) -> bool;

    /// Chunks that are not there.
    fn missing(&self) -> usize;

    /// Verifies a chunk and writes it.
    fn write(&self, index: usize, chunk: Bytes) -> StoreFuture<()>;

    /// Makes the blob durable and visible.
    ///
    /// Fails with [`StoreError::Incomplete`] while chunks are missing, and loses none then.
    fn finish(&self) -> StoreFuture<Stored>;
}

/// A blob that is durable and visible.
#[derive(Debug)]
pub struct Stored {
    /// The blob.
    pub id: BlobId,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Keeps it from garbage collection until it is tagged.
    pub hold: Hold,
}

/// Blobs that are durable and visible.
#[derive(Debug)]
pub struct StoredBatch {
    /// The blobs, in the order they were given.
    pub ids: Vec<BlobId>,
    /// Keeps them from garbage collection until they are tagged.
    pub hold: Hold,
}

/// Keeps blobs from garbage collection until it is dropped.
#[must_use = "what it holds may be collected once it is dropped"]
#[derive(Default)]
pub struct Hold {
    release: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl Hold {
    /// A hold that calls `release` when it is dropped. One that does nothing is
    /// [`Hold::default`].
    pub fn new(release: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self {
            release: Some(Box::new(release)),
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(release) = self.release.take() {
            release();
        }
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hold")
    }
}
