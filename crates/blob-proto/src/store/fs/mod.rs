//! Blobs in a folder.
//!
//! ```text
//! lock                  held while a process has the store open
//! format                version of this layout
//! blobs/ID              content of a blob, ID in hexadecimal
//! blobs/ID.hashes       its chunk hashes where it has several: 32 bytes each, proven by the id
//! blobs/ID.part         content of a partial download
//! blobs/ID.state        its chunk hashes and the chunks that were written
//! packs/N.pack          many small blobs in one file
//! packs/N.dead          which of them are removed
//! tags/HASH             a tag
//! ```
//!
//! Every file is written under a temporary name in its own folder, flushed and renamed; then the
//! folder is flushed, and only then the blob is acknowledged. A removal deletes names or overwrites
//! one byte for each blob, so it needs no free space. Opening the store deletes what an interrupted
//! process did not finish. File names are made of ids and numbers, never of names that a peer or a
//! user chose. The module's tests cut the power between any two of these steps.

mod batch;
mod dir;
mod face;
mod folder;
mod index;
mod open;
mod pack;
mod partial;
#[cfg(test)]
mod power_cut;
mod read;
mod remove;
mod repair;
mod state;
mod tags;
mod write;

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

/// How a folder of blobs is kept.
pub use calimero_network_primitives::config::BlobStoreConfig as FsConfig;

pub use self::{
    batch::FsBatch,
    folder::StoredFolder,
    index::MAX_PARTIALS,
    pack::{PACK_MAX_BLOB_BYTES, PACK_MAX_BYTES, PACK_MAX_ENTRIES, PackIndex},
    partial::{FsPartial, PARTIAL_MAX_AGE},
    read::FsReader,
    state::PartialState,
    tags::{MAX_TAG_BYTES, MAX_TAGS},
    write::FsWriter,
};
use self::{dir::Dir, index::Index, tags::Tags};
use super::{
    Hold, StoreError, Usage,
    disk::{Disk, Lock, RealDisk},
};
use crate::{BlobId, clock::unix_seconds};

/// A partial download that a store keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialUsage {
    /// The blob of which a part is stored.
    pub id: BlobId,
    /// Verified chunks and chunk hashes, in bytes.
    pub used_bytes: u64,
    /// Largest size that the blob can have, in bytes.
    pub max_bytes: u64,
    /// Time since a chunk was last written.
    pub age: Duration,
}

/// Blobs in a folder. Cheap to clone; all clones are the same store.
///
/// Its own methods block, on the disk and on hashing: call them where blocking is allowed. The
/// [`BlobStore`](super::BlobStore) it implements runs them on tokio's blocking threads.
#[derive(Clone, Debug)]
pub struct FsBlobStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    blobs: Dir,
    packs: Dir,
    index: Mutex<Index>,
    tags: Mutex<Tags>,
    /// Held while the set of blobs on the disk changes, so that no blob is published and removed
    /// at the same time. Taken before the other two; the index is never held over a write.
    publishing: Mutex<()>,
    limit_bytes: u64,
    /// Whether blobs are given to every peer that knows their id.
    public: bool,
    /// Held for as long as the store is open.
    _lock: Lock,
}

impl Shared {
    fn index(&self) -> MutexGuard<'_, Index> {
        lock(&self.index)
    }

    fn tags(&self) -> MutexGuard<'_, Tags> {
        lock(&self.tags)
    }

    fn publishing(&self) -> MutexGuard<'_, ()> {
        lock(&self.publishing)
    }
}

/// What each lock protects is consistent at every point where its holder could panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FsBlobStore {
    /// Opens the store in a folder, creating it where there is none. Deletes what a former
    /// process left half-done; partial downloads stay.
    ///
    /// # Errors
    ///
    /// [`StoreError::Locked`] while another process has it open, [`StoreError::Format`] where
    /// the folder holds a store of another version or something else, and what the system
    /// refuses.
    pub fn open(path: impl AsRef<Path>, config: &FsConfig) -> Result<Self, StoreError> {
        Self::open_on(Arc::new(RealDisk::PRIVATE), path.as_ref(), config)
    }

    fn open_on(disk: Arc<dyn Disk>, path: &Path, config: &FsConfig) -> Result<Self, StoreError> {
        let shared = Arc::new(open::open(&disk, path, config)?);
        Ok(Self { shared })
    }

    /// Whether all of a blob is here.
    #[must_use]
    pub fn has(&self, id: &BlobId) -> bool {
        self.shared.index().entries.contains_key(id)
    }

    /// Size of a blob in bytes, or `None` where not all of it is here.
    #[must_use]
    pub fn size(&self, id: &BlobId) -> Option<u64> {
        let index = self.shared.index();
        index.entries.get(id).map(|entry| entry.size_bytes)
    }

    /// The blobs that are complete, with their sizes in bytes, ordered by id.
    #[must_use]
    pub fn list(&self) -> Vec<(BlobId, u64)> {
        let index = self.shared.index();
        let sized = |(id, entry): (&BlobId, &index::Entry)| (*id, entry.size_bytes);
        let mut blobs: Vec<_> = index.entries.iter().map(sized).collect();
        drop(index);
        blobs.sort_unstable();
        blobs
    }

    /// The blobs of which a part is here.
    #[must_use]
    pub fn partials(&self) -> Vec<BlobId> {
        self.shared.index().partials.keys().copied().collect()
    }

    /// Returns what each partial download holds and how old it is, ordered by id.
    #[must_use]
    pub fn partial_usage(&self) -> Vec<PartialUsage> {
        let now_s = unix_seconds();
        let index = self.shared.index();
        let usage = index.partials.iter().map(|(id, partial)| PartialUsage {
            id: *id,
            used_bytes: partial.used_bytes,
            max_bytes: partial.max_bytes,
            age: Duration::from_secs(now_s.saturating_sub(partial.written_s)),
        });
        let mut usage: Vec<_> = usage.collect();
        drop(index);
        usage.sort_unstable_by_key(|partial| partial.id);
        usage
    }

    /// Returns how much the store holds.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let index = self.shared.index();
        Usage {
            blobs: index.entries.len(),
            used_bytes: index.blob_bytes(),
            partials: index.partials.len(),
            partial_bytes: index.partial_bytes(),
            reserved_bytes: index.reserved_bytes(),
            limit_bytes: self.shared.limit_bytes,
        }
    }

    /// Keeps a blob from garbage collection until the hold is dropped, whether it is here yet or
    /// not.
    pub fn hold(&self, id: BlobId) -> Hold {
        self.shared.index().hold(id);
        Holds::of(&self.shared, vec![id]).into_hold()
    }

    /// Protects a blob from garbage collection by a name, across restarts. The name may have
    /// protected another blob before. The blob need not be here yet.
    ///
    /// # Errors
    ///
    /// [`StoreError::TagName`], [`StoreError::TooMany`], and what the system refuses.
    pub fn tag(&self, name: &str, id: BlobId) -> Result<(), StoreError> {
        self.tag_all(&[(name.to_owned(), id)])
    }

    /// Protects blobs as [`tag`](Self::tag) does, all with few flushes of the disk. After a failure
    /// some of the tags may be set.
    ///
    /// # Errors
    ///
    /// As [`tag`](Self::tag). No tag is set where a name is refused or there are too many.
    pub fn tag_all(&self, tags: &[(String, BlobId)]) -> Result<(), StoreError> {
        self.shared.tags().set(tags)
    }

    /// Removes a tag and says which blob it protected.
    ///
    /// # Errors
    ///
    /// What the system refuses.
    pub fn untag(&self, name: &str) -> Result<Option<BlobId>, StoreError> {
        self.shared.tags().remove(name)
    }

    /// All tags, ordered by name.
    #[must_use]
    pub fn tags(&self) -> Vec<(String, BlobId)> {
        let tags = self.shared.tags();
        tags.all()
            .iter()
            .map(|(name, id)| (name.clone(), *id))
            .collect()
    }
}

/// Holds of the index, released when dropped. They do not keep the store open.
#[derive(Debug)]
struct Holds {
    shared: Weak<Shared>,
    ids: Vec<BlobId>,
}

impl Holds {
    /// Owns the holds of `ids`, which must be in the index.
    fn of(shared: &Arc<Shared>, ids: Vec<BlobId>) -> Self {
        Self {
            shared: Arc::downgrade(shared),
            ids,
        }
    }

    fn into_hold(self) -> Hold {
        Hold::new(move || drop(self))
    }
}

impl Drop for Holds {
    fn drop(&mut self) {
        let Some(shared) = self.shared.upgrade() else {
            return;
        };
        let mut index = shared.index();
        self.ids.iter().for_each(|id| index.release_hold(id));
    }
}

/// Bytes of the quota that are set aside, given back when dropped.
#[derive(Debug)]
struct Reservation {
    shared: Arc<Shared>,
    bytes: u64,
}

impl Reservation {
    fn none(shared: &Arc<Shared>) -> Self {
        Self {
            shared: Arc::clone(shared),
            bytes: 0,
        }
    }

    /// Must not be called while publishing is locked: expired partial downloads may have to go.
    fn grow(&mut self, bytes: u64) -> Result<(), StoreError> {
        self.shared.with_space(|index| index.reserve(bytes))?;
        self.bytes += bytes;
        Ok(())
    }

    /// Gives the bytes back to an index that is about to count them as used.
    fn settle(&mut self, index: &mut Index) {
        index.release(std::mem::take(&mut self.bytes));
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.shared.index().release(self.bytes);
        }
    }
}

/// File of a blob's content.
fn content_name(id: &BlobId) -> String {
    id.to_hex()
}

/// File of a blob's chunk hashes.
fn hashes_name(id: &BlobId) -> String {
    format!("{}.hashes", id.to_hex())
}

/// File of a partial download's content.
fn part_name(id: &BlobId) -> String {
    format!("{}.part", id.to_hex())
}

/// File of a partial download's state.
fn state_name(id: &BlobId) -> String {
    format!("{}.state", id.to_hex())
}

fn pack_name(number: u64) -> String {
    format!("{number:016x}.pack")
}

fn dead_name(number: u64) -> String {
    format!("{number:016x}.dead")
}
