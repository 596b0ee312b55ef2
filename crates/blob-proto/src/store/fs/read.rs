//! A complete blob, open to be read.

use std::{
    io,
    ops::Range,
    path::PathBuf,
    sync::{Arc, OnceLock, Weak},
};

use bytes::Bytes;
use calimero_network_primitives::limits::BLOB_CHUNK_BYTES;

use super::{
    FsBlobStore, Shared, content_name,
    dir::Dir,
    hashes_name,
    index::{Entry, Location},
    pack_name,
};
use crate::{
    BlobHasher, BlobId, ChunkList,
    store::{
        MAX_READ_BYTES,
        disk::{DiskFile, Mode},
        error::{StoreError, io_error},
    },
};

/// A complete blob, open to be read. Cheap to clone. It stays readable when it is removed from
/// the store.
#[derive(Clone, Debug)]
pub struct FsReader {
    open: Arc<Open>,
    /// The store, to which lost chunk hashes are written back. Not kept open by its readers.
    store: Weak<Shared>,
}

#[derive(Debug)]
struct Open {
    /// Folder of the chunk hashes.
    blobs: Dir,
    id: BlobId,
    size_bytes: u64,
    file: Box<dyn DiskFile>,
    path: PathBuf,
    /// Where the blob begins in the file.
    offset: u64,
    list: OnceLock<ChunkList>,
}

impl FsBlobStore {
    /// Opens a blob to read, or `None` where not all of it is here.
    ///
    /// # Errors
    ///
    /// [`StoreError::Damaged`] where its file is missing or too short, and what the system refuses.
    pub fn reader(&self, id: &BlobId) -> Result<Option<FsReader>, StoreError> {
        // Under the lock, so that the file is not replaced between looking it up and opening it.
        let index = self.shared.index();
        match index.entries.get(id) {
            Some(entry) => {
                let reader = FsReader::open(&self.shared, *id, *entry)?;
                let store = Arc::downgrade(&self.shared);
                Ok(Some(FsReader { store, ..reader }))
            }
            None => Ok(None),
        }
    }
}

impl FsReader {
    pub(super) fn open(shared: &Shared, id: BlobId, entry: Entry) -> Result<Self, StoreError> {
        let reader = Self::open_of_any_length(shared, id, entry)?;
        let open = &*reader.open;
        if open.file.len().map_err(io_error("reading", &open.path))? < open.offset + open.size_bytes
        {
            return Err(StoreError::Damaged { id });
        }
        Ok(reader)
    }

    /// Opens a blob whose file may be too short. Reads beyond its end report damage.
    pub(super) fn open_of_any_length(
        shared: &Shared,
        id: BlobId,
        entry: Entry,
    ) -> Result<Self, StoreError> {
        let (dir, name, offset) = match entry.location {
            Location::File => (&shared.blobs, content_name(&id), 0),
            Location::Pack { number, offset, .. } => (&shared.packs, pack_name(number), offset),
        };
        let path = dir.join(&name);
        let file = match dir.disk().open(&path, Mode::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::Damaged { id });
            }
            opened => opened.map_err(io_error("opening", &path))?,
        };
        let open = Open {
            blobs: shared.blobs.clone(),
            id,
            size_bytes: entry.size_bytes,
            file,
            path,
            offset,
            list: OnceLock::new(),
        };
        Ok(Self {
            open: Arc::new(open),
            store: Weak::new(),
        })
    }

    /// The id of the blob.
    #[must_use]
    pub fn id(&self) -> BlobId {
        self.open.id
    }

    /// Size of the blob, in bytes.
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
        let mut content = Vec::new();
        let read = open.file.read(&mut content, len, open.offset + range.start);
        read.map_err(io_error("reading", &open.path))?;
        if content.len() < len {
            return Err(StoreError::Damaged { id: open.id });
        }
        Ok(content.into())
    }

    /// Reads a chunk. Does not verify what the disk returns: [`ChunkList::verify`] does.
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

    /// Returns the chunk hashes. Where their file is missing or damaged, all of the blob is read,
    /// and the file is written again.
    ///
    /// # Errors
    ///
    /// [`StoreError::Damaged`] where the content does not have the id, and what the system
    /// refuses.
    pub fn list(&self) -> Result<ChunkList, StoreError> {
        if let Some(list) = self.stored_list()? {
            return Ok(list);
        }
        let list = self.rehash()?;
        // What cannot be written now is computed again by the next reader.
        let _ = self.write_back(&list);
        Ok(self.open.list.get_or_init(|| list).clone())
    }

    /// Returns the chunk hashes where they are known without reading the blob: `None` where their
    /// file is missing or damaged, and for a blob of one chunk, which has no such file.
    ///
    /// # Errors
    ///
    /// What the system refuses.
    pub fn stored_list(&self) -> Result<Option<ChunkList>, StoreError> {
        if let Some(list) = self.open.list.get() {
            return Ok(Some(list.clone()));
        }
        let list = self.read_list()?;
        Ok(list.map(|list| self.open.list.get_or_init(|| list).clone()))
    }

    /// Writes lost chunk hashes back, unless the blob was removed in the meantime.
    fn write_back(&self, list: &ChunkList) -> Result<(), StoreError> {
        let Some(store) = self.store.upgrade().filter(|_| list.len() > 1) else {
            return Ok(());
        };
        let _publishing = store.publishing();
        if store.index().entries.contains_key(&self.open.id) {
            store.write_hashes(list)?;
            store.blobs.flush()?;
        }
        Ok(())
    }

    /// Reads the file of chunk hashes. `None` where they do not prove themselves.
    fn read_list(&self) -> Result<Option<ChunkList>, StoreError> {
        let open = &*self.open;
        if open.size_bytes <= BLOB_CHUNK_BYTES as u64 {
            return Ok(None);
        }
        let expected = crate::chunk_count(open.size_bytes) * crate::CHUNK_HASH_BYTES as u64;
        let digests = open.blobs.read(&hashes_name(&open.id), expected)?;
        let digests = digests.filter(|digests| digests.len() as u64 == expected);
        Ok(digests.and_then(|digests| ChunkList::prove(open.id, digests.into()).ok()))
    }

    /// Reads all of the blob and computes its chunk hashes.
    pub(super) fn rehash(&self) -> Result<ChunkList, StoreError> {
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
