//! Where blobs are kept: the [`BlobStore`] that transfers read from and write to, and
//! [`FsBlobStore`], which keeps them in a folder.
//!
//! A store shows a blob under its id only when all of its bytes are verified and durable.
//! The traits are object safe and know no runtime; their futures are `'static`, so that dropping
//! one abandons the answer and never the consistency of the store.

#[cfg(any(feature = "fs", feature = "transfer"))]
pub(crate) mod blocking;
#[cfg(all(any(feature = "fs", feature = "transfer"), unix))]
pub(crate) mod disk;
pub(crate) mod error;
#[cfg(all(feature = "fs", unix))]
mod fs;

use std::{fmt, ops::Range, pin::Pin, sync::Arc};

use bytes::Bytes;

pub use self::error::StoreError;
#[cfg(all(feature = "fs", unix))]
pub use self::fs::{
    FsBatch, FsBlobStore, FsConfig, FsPartial, FsReader, FsWriter, MAX_PARTIALS, MAX_TAG_BYTES,
    MAX_TAGS, PACK_MAX_BLOB_BYTES, PACK_MAX_BYTES, PACK_MAX_ENTRIES, PARTIAL_MAX_AGE, PackIndex,
    PartialState, PartialUsage, StoredFolder,
};
use crate::{BlobId, ChunkList};

/// Most bytes that one read of a [`BlobReader`] returns: 8 MiB, the largest frame.
///
/// Bounds what one call allocates, whatever range it is asked for.
pub const MAX_READ_BYTES: usize = calimero_network_primitives::limits::MAX_FRAME_PAYLOAD_BYTES;

/// The answer of a store, some time later.
pub type StoreFuture<T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send>>;

/// A place that keeps blobs.
pub trait BlobStore: Send + Sync + 'static {
    /// Size of a blob in bytes, or `None` where the store does not have all of it.
    fn size(&self, id: BlobId) -> StoreFuture<Option<u64>>;

    /// Opens a blob to read, or `None` where the store does not have all of it.
    ///
    /// Fails with [`StoreError::Damaged`] if the content is lost although the store shows the blob. A
    /// server then [withdraws](Self::withdraw) and reports it.
    fn reader(&self, id: BlobId) -> StoreFuture<Option<Arc<dyn BlobReader>>>;

    /// Whether a blob is given to every peer that knows its id, where no authorizer says otherwise.
    ///
    /// Default: it is. A store with private blobs answers for each blob.
    fn is_public(&self, id: BlobId) -> StoreFuture<bool> {
        let _ = id;
        Box::pin(std::future::ready(Ok(true)))
    }

    /// Returns a number that is the same for all handles of one store, such as an address. Transfers
    /// of one blob into one store are one transfer.
    ///
    /// Default: `None`. Only clones of the same `Arc` are then the same store.
    fn address(&self) -> Option<usize> {
        None
    }

    /// Returns how much the store holds, for metrics. Must not block.
    ///
    /// Default: `None`, which is not known.
    fn usage(&self) -> Option<Usage> {
        None
    }

    /// Reads a blob again and compares it with its id. With `repair`, a blob that does not verify
    /// is [withdrawn](Self::withdraw), so that the next fetch or put of it stores it again.
    ///
    /// Default: reads the blob through [`reader`](Self::reader).
    fn verify(&self, id: BlobId, repair: bool) -> StoreFuture<Verification> {
        let (reader, withdraw) = (self.reader(id), repair.then(|| self.withdraw(id)));
        Box::pin(async move {
            match reader.await {
                Ok(None) => return Ok(Verification::Missing),
                Ok(Some(reader)) if verify_all(&*reader).await? => {
                    let size_bytes = reader.size_bytes();
                    return Ok(Verification::Intact { size_bytes });
                }
                Ok(Some(_)) => {}
                Err(error) if error.is_damage() => {}
                Err(error) => return Err(error),
            }
            let withdrawn = match withdraw {
                Some(withdraw) => withdraw.await?,
                None => false,
            };
            Ok(Verification::Damaged { withdrawn })
        })
    }

    /// Stops showing a blob that was found damaged. Chunks of it that verify may be kept as a
    /// partial download. Returns whether the blob was shown before.
    ///
    /// Default: does nothing. A store that cannot withdraw goes on showing the blob; what does not
    /// verify is still never sent.
    fn withdraw(&self, id: BlobId) -> StoreFuture<bool> {
        let _ = id;
        Box::pin(std::future::ready(Ok(false)))
    }

    /// Keeps a blob from garbage collection until the hold is dropped, whether it is here yet or not.
    /// Must not block.
    ///
    /// Default: a hold that does nothing, for a store that collects no garbage.
    fn hold(&self, id: BlobId) -> Hold {
        let _ = id;
        Hold::default()
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

/// How much a store holds. The limit applies to the sum of the three numbers of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Number of complete blobs.
    pub blobs: usize,
    /// Content of complete blobs, in bytes.
    pub used_bytes: u64,
    /// Number of partial downloads.
    pub partials: usize,
    /// Verified chunks and chunk hashes of partial downloads, in bytes.
    pub partial_bytes: u64,
    /// Content of blobs that are being written, in bytes.
    pub reserved_bytes: u64,
    /// Most that the store may hold, in bytes.
    pub limit_bytes: u64,
}

/// The result of reading a stored blob again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verification {
    /// Every byte of the blob verifies against its id.
    Intact {
        /// Size of the blob, in bytes.
        size_bytes: u64,
    },
    /// The stored bytes are not the content of the blob.
    Damaged {
        /// Whether the store stopped showing the blob.
        withdrawn: bool,
    },
    /// The store does not have the blob.
    Missing,
}

/// Reads all of a blob and compares it with its id.
async fn verify_all(reader: &dyn BlobReader) -> Result<bool, StoreError> {
    let mut hasher = crate::BlobHasher::new();
    let size_bytes = reader.size_bytes();
    for index in 0..crate::chunk_count(size_bytes) {
        let start = index * crate::id::CHUNK_BYTES;
        let end = (start + crate::id::CHUNK_BYTES).min(size_bytes);
        match reader.read(start..end).await {
            Ok(piece) => hasher.update(&piece)?,
            Err(error) if error.is_damage() => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(hasher.finish().list.id() == reader.id())
}

/// A complete blob, open to be read. It stays readable when it is removed from the store.
pub trait BlobReader: Send + Sync {
    /// Returns the id of the blob.
    fn id(&self) -> BlobId;

    /// Its size in bytes.
    fn size_bytes(&self) -> u64;

    /// Its chunk hashes, proven against its id.
    fn list(&self) -> StoreFuture<ChunkList>;

    /// Its chunk hashes where they are known without reading the content. A server that asks for
    /// them waits for no permit.
    ///
    /// Default: `None`.
    fn stored_list(&self) -> StoreFuture<Option<ChunkList>> {
        Box::pin(std::future::ready(Ok(None)))
    }

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
    /// Returns its chunk hashes.
    fn list(&self) -> &ChunkList;

    /// Whether a chunk is there and verified. `false` beyond the end.
    fn has(&self, index: usize) -> bool;

    /// Chunks that are not there.
    fn missing(&self) -> usize;

    /// Verifies a chunk and writes it.
    fn write(&self, index: usize, chunk: Bytes) -> StoreFuture<()>;

    /// Reads a chunk back, so that it can be served while others are missing. `None` where it is
    /// missing. Does not verify what the disk returns.
    ///
    /// Default: `None`. Chunks are then served once the blob is complete.
    fn read(&self, index: usize) -> StoreFuture<Option<Bytes>> {
        let _ = index;
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Makes the blob durable and visible.
    ///
    /// Fails with [`StoreError::Incomplete`] while chunks are missing, and loses none then.
    fn finish(&self) -> StoreFuture<Stored>;
}

/// A blob that is durable and visible.
#[derive(Debug)]
pub struct Stored {
    /// The id of the blob.
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

/// Keeps blobs from garbage collection until it and all its clones are dropped.
#[must_use = "what it holds may be collected once it is dropped"]
#[derive(Clone, Default)]
pub struct Hold {
    _release: Option<Arc<Release>>,
}

/// What the last clone of a [`Hold`] calls.
struct Release(Option<Box<dyn FnOnce() + Send + Sync>>);

impl Hold {
    /// A hold that calls `release` when it is dropped. One that does nothing is
    /// [`Hold::default`].
    pub fn new(release: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self {
            _release: Some(Arc::new(Release(Some(Box::new(release))))),
        }
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        if let Some(release) = self.0.take() {
            release();
        }
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hold")
    }
}
