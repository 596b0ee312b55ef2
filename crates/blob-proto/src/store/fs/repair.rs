//! Damaged blobs: found, withdrawn, and kept as far as their chunks verify.

use super::{
    FsBlobStore, FsReader, Shared, content_name, hashes_name,
    index::{Location, MAX_PARTIALS, PartialInfo},
    part_name,
    partial::write_state,
};
use crate::{
    BlobId, ChunkList,
    clock::unix_seconds,
    id::CHUNK_BYTES,
    store::{Verification, error::StoreError},
};

/// Longest file of chunk hashes, in bytes.
const MAX_HASHES_BYTES: u64 = crate::MAX_BLOB_CHUNKS as u64 * crate::CHUNK_HASH_BYTES as u64;

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
            Err(error) if error.is_damage() && !repair => {
                Ok(Verification::Damaged { withdrawn: false })
            }
            Err(error) if error.is_damage() => match self.withdraw(id)? {
                true => Ok(Verification::Damaged { withdrawn: true }),
                // It was removed or stored again while it was read.
                false => self.check(id, false),
            },
            Err(error) => Err(error),
        }
    }

    /// Stops showing a blob that was found damaged. Chunks that verify stay as a partial download,
    /// so that the next fetch asks only for the others.
    ///
    /// The stored copy is read and verified first: a reader that was opened before may have read
    /// an earlier one. `false` where that copy is intact, or the blob is not shown.
    ///
    /// # Errors
    ///
    /// What the system refuses. A blob that cannot be read is still shown. One that is damaged and
    /// cannot be removed is hidden until the store is next opened.
    pub fn withdraw(&self, id: &BlobId) -> Result<bool, StoreError> {
        self.shared.withdraw(*id)
    }
}

/// A copy of a blob that was found damaged.
struct Damaged {
    copy: u64,
    /// The chunk hashes, if they are known, and the chunks that verify. There is at least one.
    salvaged: Option<(ChunkList, Vec<u32>)>,
}

impl Shared {
    pub(super) fn withdraw(&self, id: BlobId) -> Result<bool, StoreError> {
        loop {
            let Some(damaged) = self.find_damage(id)? else {
                return Ok(false);
            };
            if self.withdraw_copy(id, damaged)? {
                return Ok(true);
            }
            // Another copy is shown in its place, which may be intact.
        }
    }

    /// Returns `true` where the stored content of a small blob is `content`.
    pub(super) fn has_intact(&self, id: BlobId, content: &[u8]) -> Result<bool, StoreError> {
        let intact = || -> Result<bool, StoreError> {
            let Some((_, reader)) = self.open_copy(id) else {
                return Ok(false);
            };
            let reader = reader?;
            if reader.size_bytes() != content.len() as u64 {
                return Ok(false);
            }
            for (index, chunk) in (0..).zip(content.chunks(CHUNK_BYTES as usize)) {
                if reader.chunk(index)? != chunk {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        match intact() {
            Err(error) if error.is_damage() => Ok(false),
            found => found,
        }
    }

    /// Opens the copy of a blob that is shown. `None` where none is.
    fn open_copy(&self, id: BlobId) -> Option<(u64, Result<FsReader, StoreError>)> {
        // Under the lock, so that the file is not replaced between looking it up and opening it.
        let index = self.index();
        let entry = index.entries.get(&id).copied()?;
        Some((entry.copy, FsReader::open_of_any_length(self, id, entry)))
    }

    /// Reads the chunk hashes of a blob, whatever length its content has. `None` where they are lost.
    fn hashes(&self, id: BlobId) -> Result<Option<ChunkList>, StoreError> {
        let digests = self.blobs.read(&hashes_name(&id), MAX_HASHES_BYTES)?;
        Ok(digests.and_then(|digests| ChunkList::prove(id, digests.into()).ok()))
    }

    /// Reads the copy of a blob that is shown. `None` where it is intact, or none is shown.
    fn find_damage(&self, id: BlobId) -> Result<Option<Damaged>, StoreError> {
        let Some((copy, reader)) = self.open_copy(id) else {
            return Ok(None);
        };
        let reader = match reader {
            Err(error) if error.is_damage() => {
                let salvaged = None;
                return Ok(Some(Damaged { copy, salvaged }));
            }
            opened => opened?,
        };
        let list = match self.hashes(id) {
            Err(error) if error.is_damage() => None,
            list => list?,
        };
        let Some(list) = list else {
            let salvaged = None;
            return match reader.rehash() {
                Ok(_) => Ok(None),
                Err(error) if error.is_damage() => Ok(Some(Damaged { copy, salvaged })),
                Err(error) => Err(error),
            };
        };
        let mut intact = Vec::new();
        // At most MAX_BLOB_CHUNKS.
        for index in 0..list.len() as u32 {
            if u64::from(index) * CHUNK_BYTES >= reader.size_bytes() {
                // The file had lost them when the store was opened.
                break;
            }
            match reader.chunk(u64::from(index)) {
                Ok(chunk) if list.verify(index as usize, &chunk).is_ok() => intact.push(index),
                Ok(_) => {}
                Err(error) if error.is_damage() => {}
                Err(error) => return Err(error),
            }
        }
        if intact.len() == list.len() && list.accepts_size(reader.size_bytes()) {
            return Ok(None);
        }
        let salvaged = (!intact.is_empty()).then_some((list, intact));
        Ok(Some(Damaged { copy, salvaged }))
    }

    /// Takes a damaged copy of a blob off the disk. Its intact chunks become a partial download.
    /// `false` where it is not the copy that is shown.
    fn withdraw_copy(&self, id: BlobId, damaged: Damaged) -> Result<bool, StoreError> {
        let _publishing = self.publishing();
        self.mark_unmarked()?;
        let mut index = self.index();
        let shown = index.entries.get(&id).copied();
        let Some(entry) = shown.filter(|shown| shown.copy == damaged.copy) else {
            return Ok(false);
        };
        index.take(&id, false);
        drop(index);
        if let Location::Pack {
            number, entry: at, ..
        } = entry.location
        {
            self.remove_from_pack(number, &[(at, entry.size_bytes)])?;
            return Ok(true);
        }
        match damaged.salvaged.filter(|_| self.has_room_for_partial(&id)) {
            Some((list, chunks)) => {
                write_state(&self.blobs, &list, &chunks)?;
                self.blobs.rename(&content_name(&id), &part_name(&id))?;
                self.blobs.flush()?;
                let (_, max_bytes) = list.size_bounds();
                let content_bytes = chunks.len() as u64 * CHUNK_BYTES;
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
        self.blobs.flush()?;
        Ok(true)
    }

    /// Returns `true` if a blob can become a partial download. Called while publishing is locked.
    fn has_room_for_partial(&self, id: &BlobId) -> bool {
        if self.index().partials.contains_key(id) {
            return false;
        }
        // A failure to delete another one costs the intact chunks and nothing else.
        self.evict_partial().is_ok() && self.index().partials.len() < MAX_PARTIALS
    }
}

#[cfg(test)]
mod tests;
