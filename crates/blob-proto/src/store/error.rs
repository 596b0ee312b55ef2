//! Why a store did not do what it was asked to.

use std::{io, path::PathBuf};

use crate::{
    BlobId,
    collection::CollectionError,
    error::{CallbackError, ChunkError, ListError},
};

/// Error of a read that the disk itself reports as damage: EIO, 5 on every Unix.
const EIO: i32 = 5;

/// Why an operation on a store failed. Whatever it was, nothing half-done is visible.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The disk, or the share of it that the user has, is full.
    #[error("no space left while {doing} {}", path.display())]
    DiskFull {
        /// What was being done.
        doing: &'static str,
        /// The file that it was done to.
        path: PathBuf,
    },
    /// The operating system refused something else.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file that it was done to.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The store may not hold that much.
    #[error(
        "{wanted_bytes} bytes more than the {used_bytes} in use exceed the limit of {limit_bytes} \
         ({partial_bytes} of partial downloads and {reserved_bytes} of blobs being written included)"
    )]
    Quota {
        /// Most that the store may hold, in bytes.
        limit_bytes: u64,
        /// What blobs, partial downloads and blobs being written use, in bytes.
        used_bytes: u64,
        /// The part of it that partial downloads use, in bytes.
        partial_bytes: u64,
        /// The part of it that is reserved for blobs being written, in bytes.
        reserved_bytes: u64,
        /// What was asked for, in bytes.
        wanted_bytes: u64,
    },
    /// The content is another blob's than was promised.
    #[error("the content is blob {actual}, not {expected}")]
    Mismatch {
        /// The id that was promised.
        expected: BlobId,
        /// The id that the content has.
        actual: BlobId,
    },
    /// The content is larger than a blob may be.
    #[error(transparent)]
    TooLarge(#[from] ListError),
    /// A chunk was refused.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// A partial download lacks chunks.
    #[error("blob {id} lacks {missing_chunks} chunks")]
    Incomplete {
        /// The id of the blob.
        id: BlobId,
        /// Chunks that are not there yet.
        missing_chunks: usize,
    },
    /// The store does not have the blob.
    #[error("blob {id} is not in the store")]
    NotFound {
        /// The id of the blob.
        id: BlobId,
    },
    /// What is stored under the id is not its content any more: the disk lost or changed bytes.
    #[error("what is stored as blob {id} is damaged")]
    Damaged {
        /// The id of the blob.
        id: BlobId,
    },
    /// A range that the blob does not have, or longer than is read at one time.
    #[error(
        "{len_bytes} bytes from {start} of a blob of {size_bytes}, at most {max_bytes} at a time"
    )]
    Range {
        /// Offset of the first byte.
        start: u64,
        /// Length of the range, in bytes.
        len_bytes: u64,
        /// Size of the blob, in bytes.
        size_bytes: u64,
        /// Most that is read at one time, in bytes.
        max_bytes: usize,
    },
    /// Another transfer is downloading the blob into this store.
    #[error("blob {id} is being downloaded already")]
    Busy {
        /// The id of the blob.
        id: BlobId,
    },
    /// As many of a kind as the store keeps are there.
    #[error("{max} {what} are in the store, which is the most it keeps")]
    TooMany {
        /// The kind of thing.
        what: &'static str,
        /// Most that are kept.
        max: usize,
    },
    /// A tag's name is empty or too long.
    #[error("a tag of {len_bytes} bytes, must have 1 to {max_bytes}")]
    TagName {
        /// Length of the name, in bytes.
        len_bytes: usize,
        /// Longest name, in bytes.
        max_bytes: usize,
    },
    /// Tags cannot be read. The blobs that they protect are unknown, so nothing is collected.
    #[error("{damaged} damaged tags may protect any blob")]
    DamagedTags {
        /// The number of such tags.
        damaged: usize,
    },
    /// A file to be stored is a folder, a device, a pipe or a socket.
    #[error("{} is not a regular file", path.display())]
    NotRegular {
        /// The path of the file.
        path: PathBuf,
    },
    /// Another process has the store open.
    #[error("{} is in use by another process", path.display())]
    Locked {
        /// The folder of the store.
        path: PathBuf,
    },
    /// The folder holds a store of another version, or something else.
    #[error("{} is no blob store of a version this program knows", path.display())]
    Format {
        /// The file that says so.
        path: PathBuf,
    },
    /// The writer that the content goes to failed.
    #[error("the writer failed: {source}")]
    Writer {
        /// The error of the writer.
        source: io::Error,
    },
    /// What was written to a writer, which cannot take it back, is not the content of the blob.
    #[error("what was written before is not the content of blob {id}")]
    Spoiled {
        /// The id of the blob.
        id: BlobId,
    },
    /// An earlier write of this blob failed, so its content has a gap.
    #[error("an earlier write failed")]
    Broken,
    /// The files of a folder are no collection.
    #[error(transparent)]
    Collection(#[from] CollectionError),
    /// The store panicked or did not answer.
    #[error(transparent)]
    Callback(#[from] CallbackError),
    /// There is no runtime to work on, or it ended before the work did.
    #[error("no runtime, or it stopped before the store was done")]
    Stopped,
}

impl StoreError {
    /// Returns `true` if stored bytes are lost: they are missing, are others than were stored, or
    /// the disk cannot read them.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } => true,
            Self::Io { source, .. } => source.raw_os_error() == Some(EIO),
            _ => false,
        }
    }
}

/// Names what was done to which file when the system refused it.
#[cfg(all(any(feature = "fs", feature = "transfer"), unix))]
pub(crate) fn io_error(
    doing: &'static str,
    path: &std::path::Path,
) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            StoreError::DiskFull { doing, path }
        }
        _ => StoreError::Io {
            doing,
            path,
            source,
        },
    }
}
