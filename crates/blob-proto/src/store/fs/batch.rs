//! Many blobs that become durable together.

use std::{collections::HashSet, sync::Arc};

use super::{
    FsBlobStore, Holds, Reservation, Shared, content_name, dead_name,
    dir::Temporary,
    index::{Entry, Location},
    pack::{Dead, PACK_MAX_BLOB_BYTES, PackIndex},
    pack_name,
};
use crate::{
    BlobHasher, BlobId, ChunkList, blob_id,
    store::{StoredBatch, error::StoreError},
};

/// Small blobs gathered before they are written, in bytes: 1 MiB. The content that a batch holds
/// in memory.
const BUFFER_BYTES: usize = 1024 * 1024;

/// Larger blobs of one batch: 256, since each holds a descriptor until the batch is committed.
const MAX_FILES: usize = 256;

/// Many blobs, made durable with one flush for all small ones. Dropping it leaves nothing behind.
///
/// Blobs up to [`PACK_MAX_BLOB_BYTES`] share files, larger ones have their own.
#[derive(Debug)]
pub struct FsBatch {
    shared: Arc<Shared>,
    packs: Vec<PackWriter>,
    files: Vec<Whole>,
    /// What this batch writes, to write it once.
    writes: HashSet<BlobId>,
    /// All blobs in the order they were added; each is held once for each time.
    held: Holds,
    reservation: Reservation,
    broken: bool,
}

/// A blob in a file of its own.
#[derive(Debug)]
struct Whole {
    temporary: Temporary,
    list: ChunkList,
    size_bytes: u64,
}

/// A pack being written.
#[derive(Debug)]
pub(super) struct PackWriter {
    temporary: Temporary,
    index: PackIndex,
    buffer: Vec<u8>,
}

impl PackWriter {
    pub(super) fn new(temporary: Temporary) -> Self {
        Self {
            temporary,
            index: PackIndex::default(),
            buffer: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, id: BlobId, content: &[u8]) -> Result<(), StoreError> {
        if self.buffer.len() + content.len() > BUFFER_BYTES {
            self.spill()?;
        }
        // At most PACK_MAX_BLOB_BYTES.
        self.index.push(id, content.len() as u32);
        self.buffer.extend_from_slice(content);
        Ok(())
    }

    /// Ends the pack and makes its content durable.
    pub(super) fn end(mut self) -> Result<(Temporary, PackIndex), StoreError> {
        self.spill()?;
        self.buffer = self.index.encode();
        self.spill()?;
        self.temporary.flush()?;
        Ok((self.temporary, self.index))
    }

    fn spill(&mut self) -> Result<(), StoreError> {
        self.temporary.append(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

impl FsBlobStore {
    /// Begins a batch of blobs.
    #[must_use]
    pub fn batch(&self) -> FsBatch {
        let shared = &self.shared;
        FsBatch {
            shared: Arc::clone(shared),
            packs: Vec::new(),
            files: Vec::new(),
            writes: HashSet::new(),
            held: Holds::of(shared, Vec::new()),
            reservation: Reservation::none(shared),
            broken: false,
        }
    }
}

impl FsBatch {
    /// Verifies and writes a blob. It is durable and visible once the batch is committed.
    ///
    /// # Errors
    ///
    /// [`StoreError::Mismatch`] where the content is not the blob that is `expected`; the batch
    /// goes on without it then. [`StoreError::TooMany`] beyond 256 blobs above
    /// [`PACK_MAX_BLOB_BYTES`], [`StoreError::Quota`], [`StoreError::DiskFull`] and what else the
    /// system refuses; [`StoreError::Broken`] after any of these.
    pub fn add(&mut self, expected: Option<BlobId>, content: &[u8]) -> Result<BlobId, StoreError> {
        if self.broken {
            return Err(StoreError::Broken);
        }
        let small = content.len() <= PACK_MAX_BLOB_BYTES;
        let (id, list) = if small {
            (blob_id(content), None)
        } else {
            let mut hasher = BlobHasher::new();
            hasher.update(content)?;
            let list = hasher.finish().list;
            (list.id(), Some(list))
        };
        if let Some(expected) = expected.filter(|expected| *expected != id) {
            let actual = id;
            return Err(StoreError::Mismatch { expected, actual });
        }
        let result = match self.hold(id, content) {
            Ok(false) => Ok(()),
            Ok(true) => match list {
                None => self.write_small(id, content),
                Some(list) => self.write_whole(list, content),
            },
            Err(error) => Err(error),
        };
        self.broken = result.is_err();
        result.map(|()| id)
    }

    /// Makes all blobs durable and visible.
    ///
    /// # Errors
    ///
    /// [`StoreError::Broken`] where a write failed before, and what the system refuses. Each blob
    /// is then either whole and visible or not there.
    pub fn commit(mut self) -> Result<StoredBatch, StoreError> {
        if self.broken {
            return Err(StoreError::Broken);
        }
        let packs: Result<Vec<_>, _> = self.packs.drain(..).map(PackWriter::end).collect();
        let packs = packs?;
        self.files
            .iter()
            .try_for_each(|file| file.temporary.flush())?;

        let shared = Arc::clone(&self.shared);
        let _publishing = shared.publishing();
        shared.retract_orphans()?;
        let mut numbers = Vec::with_capacity(packs.len());
        let mut files = Vec::with_capacity(self.files.len());
        let published = self.publish_packs(packs, &mut numbers);
        let published = published.and_then(|()| self.publish_files(&mut files));
        if let Err(error) = published {
            // Or what was published would be shown when the store is next opened, removed or not.
            let packs = numbers.into_iter();
            shared.retract(packs.map(|(number, ..)| number), &files);
            return Err(error);
        }

        let mut index = shared.index();
        self.reservation.settle(&mut index);
        for (id, size_bytes, _) in files {
            index.insert(id, Entry::new(size_bytes, Location::File));
        }
        for (number, pack, dead) in numbers {
            index.insert_pack(number, &pack, &dead);
        }
        drop(index);
        Ok(StoredBatch {
            ids: self.held.ids.clone(),
            hold: self.held.into_hold(),
        })
    }

    /// Holds a blob. Returns `true` where it has to be written: it is not stored, or its stored copy
    /// is damaged.
    fn hold(&mut self, id: BlobId, content: &[u8]) -> Result<bool, StoreError> {
        let mut index = self.shared.index();
        index.hold(id);
        self.held.ids.push(id);
        let shown = index.entries.contains_key(&id);
        drop(index);
        if shown && self.shared.has_intact(id, content)? {
            return Ok(false);
        }
        if shown {
            self.shared.withdraw(id)?;
        }
        Ok(self.writes.insert(id))
    }

    fn write_small(&mut self, id: BlobId, content: &[u8]) -> Result<(), StoreError> {
        self.reservation.grow(content.len() as u64)?;
        match self.packs.last_mut().filter(|pack| !pack.index.is_full()) {
            Some(pack) => pack.push(id, content),
            None => {
                let mut pack = PackWriter::new(self.shared.packs.temporary()?);
                pack.push(id, content)?;
                self.packs.push(pack);
                Ok(())
            }
        }
    }

    fn write_whole(&mut self, list: ChunkList, content: &[u8]) -> Result<(), StoreError> {
        if self.files.len() >= MAX_FILES {
            return Err(StoreError::TooMany {
                what: "larger blobs of one batch",
                max: MAX_FILES,
            });
        }
        let size_bytes = content.len() as u64;
        self.reservation.grow(size_bytes)?;
        let mut temporary = self.shared.blobs.temporary()?;
        temporary.append(content)?;
        self.files.push(Whole {
            temporary,
            list,
            size_bytes,
        });
        Ok(())
    }

    fn publish_packs(
        &mut self,
        packs: Vec<(Temporary, PackIndex)>,
        published: &mut Vec<(u64, PackIndex, Dead)>,
    ) -> Result<(), StoreError> {
        if packs.is_empty() {
            return Ok(());
        }
        for (temporary, pack) in packs {
            let mut index = self.shared.index();
            let number = index.next_pack();
            // What another writer stored in the meantime is marked as removed from this pack
            // before anything can remove the other copy. Publishing is locked.
            let mut dead = Dead::none(pack.len());
            for (at, entry) in pack.entries().iter().enumerate() {
                if index.entries.contains_key(&entry.id) {
                    dead.insert(at);
                }
            }
            drop(index);
            let marks = dead.encode();
            published.push((number, pack, dead));
            self.shared.packs.write(&dead_name(number), &marks)?;
            temporary.publish(&self.shared.packs, &pack_name(number))?;
        }
        self.shared.packs.flush()
    }

    /// Publishes the blobs in files of their own. Those of `published` are to be shown; the flag is
    /// `true` where the file is new.
    fn publish_files(
        &mut self,
        published: &mut Vec<(BlobId, u64, bool)>,
    ) -> Result<(), StoreError> {
        if self.files.is_empty() {
            return Ok(());
        }
        for file in self.files.drain(..) {
            let id = file.list.id();
            let is_new = !self.shared.index().entries.contains_key(&id);
            published.push((id, file.size_bytes, is_new));
            if is_new {
                self.shared.write_hashes(&file.list)?;
                file.temporary
                    .publish(&self.shared.blobs, &content_name(&id))?;
            }
        }
        self.shared.blobs.flush()
    }
}
