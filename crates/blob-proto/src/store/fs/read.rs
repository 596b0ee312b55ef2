//! A complete blob, open to be read.

use std::{
    fs::{self, File},
    ops::Range,
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use calimero_network_primitives::limits::BLOB_CHUNK_BYTES;
use rustix::{
    buffer::spare_capacity,
    io::{Errno, pread},
};

use super::{FsBlobStore, content_name, hashes_name, index::Place, pack_name};
use crate::{
    BlobHasher, BlobId, ChunkList,
    store::{
        MAX_READ_BYTES,
        error::{StoreError, io_error},
    },
};

/// A complete blob, open to be read. Cheap to clone. It stays readable when it is removed from
/// the store.
#[derive(Clone, Debug)]
pub struct FsReader {
    open: Arc<Open>,
}

#[derive(Debug)]
struct Open {
    id: BlobId,
    size_bytes: u64,
    file: File,
    path: PathBuf,
    /// Where the blob begins in the file.
    offset: u64,
    hashes: PathBuf,
    list: OnceLock<ChunkList>,
}

impl FsBlobStore {
    /// Opens a blob to read, or `None` where not all of it is here.
    ///
    /// # Errors
    ///
    /// What the system refuses.
    pub fn reader(&self, id: &BlobId) -> Result<Option<FsReader>, StoreError> {
        // Under the lock, so that the file is not replaced between looking it up and opening it.
        let index = self.shared.index();
        let Some(&entry) = index.entries.get(id) else {
            return Ok(None);
        };
        let (path, offset) = match entry.place {
            Place::File => (self.shared.blobs.join(&content_name(id)), 0),
            Place::Pack { number, offset, .. } => {
                (self.shared.packs.join(&pack_name(number)), offset)
            }
        };
        let file = File::open(&path);
        drop(index);
        let open = Open {
            id: *id,
            size_bytes: entry.size_bytes,
            file: file.map_err(io_error("opening", &path))?,
            path,
            offset,
            hashes: self.shared.blobs.join(&hashes_name(id)),
            list: OnceLock::new(),
        };
        Ok(Some(FsReader {
            open: Arc::new(open),
        }))
    }

    /// Reads a blob again and compares it with its id.
    ///
    /// # Errors
    ///
    /// [`StoreError::Damaged`] where it has other bytes than it was stored with,
    /// [`StoreError::NotFound`] where it is not here, and what the system refuses.
    pub fn verify(&self, id: &BlobId) -> Result<(), StoreError> {
        let reader = self.reader(id)?.ok_or(StoreError::NotFound { id: *id })?;
        reader.rehash().map(|_| ())
    }
}

impl FsReader {
    /// The blob.
    #[must_use]
    pub fn id(&self) -> BlobId {
        self.open.id
    }

    /// Its size in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.open.size_bytes
    }

    /// Reads a range of at most [`MAX_READ_BYTES`]. Does not verify what the disk returns.
    ///
    /// # Errors
    ///
    /// [`StoreError::Range`] beyond the end or the bound, [`StoreError::Damaged`] where the file
    /// has become shorter, and what the system refuses.
    pub fn read(&self, range: Range<u64>) -> Result<Bytes, StoreError> {
        let open = &*self.open;
        let len_bytes = range.end.saturating_sub(range.start);
        let len = usize::try_from(len_bytes).ok().filter(|&len| {
            len <= MAX_READ_BYTES && range.start <= range.end && range.end <= open.size_bytes
        });
        let Some(len) = len else {
            return Err(StoreError::Range {
                start: range.start,
                len_bytes,
                size_bytes: open.size_bytes,
                max_bytes: MAX_READ_BYTES,
            });
        };
        let mut content = Vec::with_capacity(len);
        while content.len() < len {
            let at = open.offset + range.start + content.len() as u64;
            // Into memory that nobody has to clear first. It holds no more than is wanted.
            match pread(&open.file, spare_capacity(&mut content), at) {
                Ok(0) => return Err(StoreError::Damaged { id: open.id }),
                Ok(_) => {}
                Err(Errno::INTR) => {}
                Err(error) => return Err(io_error("reading", &open.path)(error.into())),
            }
        }
        content.truncate(len);
        Ok(content.into())
    }

    /// Reads a chunk. Does not verify what the disk returns: whoever fetches it does, and
    /// [`ChunkList::verify`] can.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn chunk(&self, index: u64) -> Result<Bytes, StoreError> {
        let chunk = BLOB_CHUNK_BYTES as u64;
        let start = index.saturating_mul(chunk);
        let end = start.saturating_add(chunk).min(self.open.size_bytes);
        self.read(start..end)
    }

    /// The chunk hashes. Where they are not at hand, or damaged, all of the blob is read.
    ///
    /// # Errors
    ///
    /// [`StoreError::Damaged`] where the content does not have the id, and what the system
    /// refuses.
    pub fn list(&self) -> Result<ChunkList, StoreError> {
        if let Some(list) = self.open.list.get() {
            return Ok(list.clone());
        }
        let list = match self.stored_list() {
            Some(list) => list,
            None => self.rehash()?,
        };
        Ok(self.open.list.get_or_init(|| list).clone())
    }

    /// The chunk hashes beside the content, if they prove themselves.
    fn stored_list(&self) -> Option<ChunkList> {
        let open = &*self.open;
        if open.size_bytes <= BLOB_CHUNK_BYTES as u64 {
            return None;
        }
        let expected = crate::chunk_count(open.size_bytes) * crate::CHUNK_HASH_BYTES as u64;
        let found = fs::metadata(&open.hashes).ok()?.len();
        let digests = (found == expected).then(|| fs::read(&open.hashes).ok())??;
        ChunkList::prove(open.id, digests.into()).ok()
    }

    fn rehash(&self) -> Result<ChunkList, StoreError> {
        let mut hasher = BlobHasher::new();
        for index in 0..crate::chunk_count(self.open.size_bytes) {
            hasher.update(&self.chunk(index)?)?;
        }
        let list = hasher.finish().list;
        if list.id() == self.open.id {
            Ok(list)
        } else {
            Err(StoreError::Damaged { id: self.open.id })
        }
    }
}
