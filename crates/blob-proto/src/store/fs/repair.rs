//! Damaged blobs: found, withdrawn, and kept as far as their chunks verify.

use super::{
    FsBlobStore, FsReader, Shared, content_name, hashes_name,
    index::{Entry, Location, MAX_PARTIALS, PartialInfo},
    part_name,
    partial::write_state,
};
use crate::{
    BlobId, ChunkList,
    clock::unix_seconds,
    store::{Verification, error::StoreError},
};

/// Error of a read that the disk itself reports as damage: EIO, 5 on every Unix.
const EIO: i32 = 5;

impl FsBlobStore {
    /// Reads a blob again and compares it with its id.
    ///
    /// # Errors
    ///
    /// [`StoreError::Damaged`] where it has other bytes than it was stored with,
    /// [`StoreError::NotFound`] where it is not here, and what the system refuses.
    pub fn verify(&self, id: &BlobId) -> Result<(), StoreError> {
        match self.check(id, false)? {
            Verification::Intact { .. } => Ok(()),
            Verification::Damaged { .. } => Err(StoreError::Damaged { id: *id }),
            Verification::Missing => Err(StoreError::NotFound { id: *id }),
        }
    }

    /// Reads a blob again and compares it with its id. With `repair`, a damaged blob is
    /// [withdrawn](Self::withdraw), so that the next fetch or put of it stores it again.
    ///
    /// # Errors
    ///
    /// What the system refuses. A block that the disk cannot read is damage, not an error.
    pub fn check(&self, id: &BlobId, repair: bool) -> Result<Verification, StoreError> {
        let reader = match self.reader(id) {
            Ok(Some(reader)) => Ok(reader),
            Ok(None) => return Ok(Verification::Missing),
            Err(error) => Err(error),
        };
        match reader.and_then(|reader| reader.rehash().map(|_| reader.size_bytes())) {
            Ok(size_bytes) => Ok(Verification::Intact { size_bytes }),
            Err(error) if is_damage(&error) => Ok(Verification::Damaged {
                withdrawn: repair && self.withdraw(id)?,
            }),
            Err(error) => Err(error),
        }
    }

    /// Stops showing a blob that was found damaged. Chunks that verify stay as a partial download,
    /// so that the next fetch asks only for the others. `false` where the blob is not shown.
    ///
    /// # Errors
    ///
    /// What the system refuses. The blob is hidden all the same, until the store is next opened.
    pub fn withdraw(&self, id: &BlobId) -> Result<bool, StoreError> {
        self.shared.withdraw(*id)
    }
}

impl Shared {
    pub(super) fn withdraw(&self, id: BlobId) -> Result<bool, StoreError> {
        // Hidden first: reading what is left of a large blob takes time.
        let entry = self.index().take(&id, false);
        match entry {
            Some(entry) => self.withdraw_hidden(id, entry).map(|()| true),
            None => Ok(false),
        }
    }

    /// Returns `true` where the stored content of a small blob is `content`.
    pub(super) fn has_intact(&self, id: BlobId, content: &[u8]) -> bool {
        let entry = self.index().entries.get(&id).copied();
        let reader = entry.and_then(|entry| FsReader::open(self, id, entry).ok());
        reader.is_some_and(|reader| {
            (0..)
                .zip(content.chunks(crate::id::CHUNK_BYTES as usize))
                .all(|(index, chunk)| reader.chunk(index).is_ok_and(|stored| stored == chunk))
                && reader.size_bytes() == content.len() as u64
        })
    }

    /// Takes a hidden blob off the disk. Its intact chunks become a partial download.
    fn withdraw_hidden(&self, id: BlobId, entry: Entry) -> Result<(), StoreError> {
        // Read outside of the lock.
        let salvaged = self.salvage(id, entry)?;
        let _publishing = self.publishing();
        if let Location::Pack {
            number, entry: at, ..
        } = entry.location
        {
            return self.remove_from_pack(number, &[(at, entry.size_bytes)]);
        }
        let index = self.index();
        if index.entries.contains_key(&id) {
            // It was stored again in the meantime, in the same file.
            return Ok(());
        }
        let room = index.partials.len() < MAX_PARTIALS && !index.partials.contains_key(&id);
        drop(index);
        match salvaged.filter(|_| room) {
            Some((list, chunks)) => {
                write_state(&self.blobs, &list, &chunks)?;
                self.blobs.rename(&content_name(&id), &part_name(&id))?;
                self.blobs.flush()?;
                let (_, max_bytes) = list.size_bounds();
                let content_bytes = chunks.len() as u64 * crate::id::CHUNK_BYTES;
                let partial = PartialInfo {
                    used_bytes: content_bytes.min(max_bytes) + list.digests().len() as u64,
                    max_bytes,
                    written_s: unix_seconds(),
                    open: false,
                };
                self.index().insert_partial(id, partial);
            }
            None => self.blobs.remove(&content_name(&id))?,
        }
        self.blobs.remove(&hashes_name(&id))?;
        self.blobs.flush()
    }

    /// The chunks of a damaged blob that verify, where its chunk hashes are known.
    fn salvage(
        &self,
        id: BlobId,
        entry: Entry,
    ) -> Result<Option<(ChunkList, Vec<u32>)>, StoreError> {
        let Ok(reader) = FsReader::open(self, id, entry) else {
            return Ok(None);
        };
        let Some(list) = reader.stored_list()? else {
            return Ok(None);
        };
        // At most MAX_BLOB_CHUNKS.
        let intact = (0..list.len() as u32).filter(|&index| {
            let chunk = reader.chunk(u64::from(index));
            chunk.is_ok_and(|chunk| list.verify(index as usize, &chunk).is_ok())
        });
        let intact: Vec<u32> = intact.collect();
        Ok((!intact.is_empty()).then_some((list, intact)))
    }
}

/// Returns `true` for an error that says that stored bytes are lost.
pub(super) fn is_damage(error: &StoreError) -> bool {
    match error {
        StoreError::Damaged { .. } => true,
        StoreError::Io { source, .. } => source.raw_os_error() == Some(EIO),
        _ => false,
    }
}
