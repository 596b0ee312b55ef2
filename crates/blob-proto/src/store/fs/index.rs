//! The state of the store in memory: where each blob is, how much space is used, what is held.

use std::collections::{HashMap, HashSet};

use super::pack::{Dead, PackEntry, PackIndex};
use crate::{BlobId, store::StoreError};

/// Partial downloads that are kept, at most: 1024. Each has an entry in memory and two files. At the
/// limit a new one replaces one that no transfer has open: one without chunks, or the oldest.
pub const MAX_PARTIALS: usize = 1024;

/// Where a blob is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Location {
    /// In a file of its own.
    File,
    /// In a pack, with others.
    Pack {
        number: u64,
        entry: u32,
        offset: u64,
    },
}

/// A blob that is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) size_bytes: u64,
    pub(super) location: Location,
    /// Number of the copy, which no other copy of any blob has. Set when it is shown.
    pub(super) copy: u64,
}

impl Entry {
    pub(super) fn new(size_bytes: u64, location: Location) -> Self {
        Self {
            size_bytes,
            location,
            copy: 0,
        }
    }
}

/// A pack and what is removed of it.
#[derive(Clone, Debug)]
pub(super) struct PackInfo {
    pub(super) dead: Dead,
    pub(super) live: usize,
    pub(super) live_bytes: u64,
    pub(super) content_bytes: u64,
}

impl PackInfo {
    pub(super) fn new(index: &PackIndex) -> Self {
        Self {
            dead: Dead::none(index.len()),
            live: index.len(),
            live_bytes: index.content_bytes(),
            content_bytes: index.content_bytes(),
        }
    }

    pub(super) fn kill(&mut self, entry: usize, len_bytes: u64) {
        if !self.dead.contains(entry) {
            self.dead.insert(entry);
            self.live -= 1;
            self.live_bytes -= len_bytes;
        }
    }

    /// Returns `true` where more than half of the content is removed.
    pub(super) fn is_sparse(&self) -> bool {
        self.live_bytes < self.content_bytes / 2
    }
}

/// A partial download that the folder holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct PartialInfo {
    /// Bytes that count against the limit: the verified chunks and the list of hashes.
    pub(super) used_bytes: u64,
    /// Largest size that the blob can have, in bytes.
    pub(super) max_bytes: u64,
    /// When a chunk was last written, in seconds since the Unix epoch.
    pub(super) written_s: u64,
    /// Whether a transfer has it open.
    pub(super) open: bool,
}

impl PartialInfo {
    /// Whether a chunk is there, and not the list of hashes alone.
    pub(super) fn has_chunks(&self) -> bool {
        self.used_bytes > crate::chunk_count(self.max_bytes) * crate::CHUNK_HASH_BYTES as u64
    }
}

#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) entries: HashMap<BlobId, Entry>,
    pub(super) packs: HashMap<u64, PackInfo>,
    pub(super) partials: HashMap<BlobId, PartialInfo>,
    /// How often each blob is held. No zeros.
    holds: HashMap<BlobId, usize>,
    blob_bytes: u64,
    partial_bytes: u64,
    reserved_bytes: u64,
    limit_bytes: u64,
    /// Packs that were published and could neither be made durable nor be deleted. They are not
    /// shown, but may be when the store is next opened.
    pub(super) orphans: HashSet<u64>,
    /// The same of blobs in files of their own.
    pub(super) orphan_files: HashSet<BlobId>,
    /// Entries of packs whose blobs are shown in files of their own, and that could not be marked as
    /// removed: they are removed in memory alone.
    pub(super) unmarked: Vec<(u64, u32)>,
    next_pack: u64,
    /// Copies that were shown so far.
    copies: u64,
}

impl Index {
    pub(super) fn new(limit_bytes: u64) -> Self {
        Self {
            limit_bytes,
            ..Self::default()
        }
    }

    pub(super) fn blob_bytes(&self) -> u64 {
        self.blob_bytes
    }

    pub(super) fn partial_bytes(&self) -> u64 {
        self.partial_bytes
    }

    pub(super) fn reserved_bytes(&self) -> u64 {
        self.reserved_bytes
    }

    /// Refuses what would exceed the limit. Reserves nothing.
    pub(super) fn check(&self, wanted_bytes: u64) -> Result<(), StoreError> {
        let used_bytes = (self.blob_bytes)
            .saturating_add(self.partial_bytes)
            .saturating_add(self.reserved_bytes);
        if used_bytes.saturating_add(wanted_bytes) > self.limit_bytes {
            return Err(StoreError::Quota {
                limit_bytes: self.limit_bytes,
                used_bytes,
                partial_bytes: self.partial_bytes,
                reserved_bytes: self.reserved_bytes,
                wanted_bytes,
            });
        }
        Ok(())
    }

    /// Reserves bytes for content that is about to be written.
    pub(super) fn reserve(&mut self, wanted_bytes: u64) -> Result<(), StoreError> {
        self.check(wanted_bytes)?;
        self.reserved_bytes += wanted_bytes;
        Ok(())
    }

    pub(super) fn release(&mut self, bytes: u64) {
        self.reserved_bytes = self.reserved_bytes.saturating_sub(bytes);
    }

    /// Adds a partial download, whatever the limit says: its bytes are on the disk already.
    pub(super) fn insert_partial(&mut self, id: BlobId, partial: PartialInfo) {
        self.remove_partial(&id);
        self.partial_bytes = self.partial_bytes.saturating_add(partial.used_bytes);
        self.partials.insert(id, partial);
    }

    pub(super) fn remove_partial(&mut self, id: &BlobId) -> Option<PartialInfo> {
        let partial = self.partials.remove(id)?;
        self.partial_bytes = self.partial_bytes.saturating_sub(partial.used_bytes);
        Some(partial)
    }

    /// Takes space for a verified chunk of a partial download.
    pub(super) fn grow_partial(
        &mut self,
        id: &BlobId,
        bytes: u64,
        now_s: u64,
    ) -> Result<(), StoreError> {
        self.check(bytes)?;
        if let Some(partial) = self.partials.get_mut(id) {
            partial.used_bytes += bytes;
            partial.written_s = now_s;
            self.partial_bytes += bytes;
        }
        Ok(())
    }

    /// Sets what a partial download uses, once its chunks are verified.
    pub(super) fn resize_partial(&mut self, id: &BlobId, used_bytes: u64) {
        if let Some(partial) = self.partials.get_mut(id) {
            let before = std::mem::replace(&mut partial.used_bytes, used_bytes);
            self.partial_bytes = self.partial_bytes.saturating_sub(before) + used_bytes;
        }
    }

    /// Gives space of a partial download back, where a chunk could not be written.
    pub(super) fn shrink_partial(&mut self, id: &BlobId, bytes: u64) {
        if let Some(partial) = self.partials.get_mut(id) {
            partial.used_bytes -= bytes;
            self.partial_bytes -= bytes;
        }
    }

    /// Shows a blob. `false` where it is shown already.
    pub(super) fn insert(&mut self, id: BlobId, entry: Entry) -> bool {
        if self.entries.contains_key(&id) {
            return false;
        }
        self.replace(id, entry);
        true
    }

    /// Shows a blob in place of an earlier copy, which is returned.
    pub(super) fn replace(&mut self, id: BlobId, mut entry: Entry) -> Option<Entry> {
        let before = self.take(&id, false);
        self.copies += 1;
        entry.copy = self.copies;
        self.blob_bytes = self.blob_bytes.saturating_add(entry.size_bytes);
        self.entries.insert(id, entry);
        before
    }

    /// Hides a blob, unless it is held and `unless_held` is set.
    pub(super) fn take(&mut self, id: &BlobId, unless_held: bool) -> Option<Entry> {
        if unless_held && self.holds.contains_key(id) {
            return None;
        }
        let entry = self.entries.remove(id)?;
        self.blob_bytes = self.blob_bytes.saturating_sub(entry.size_bytes);
        Some(entry)
    }

    pub(super) fn hold(&mut self, id: BlobId) {
        *self.holds.entry(id).or_default() += 1;
    }

    pub(super) fn release_hold(&mut self, id: &BlobId) {
        if let Some(count) = self.holds.get_mut(id) {
            *count -= 1;
            if *count == 0 {
                self.holds.remove(id);
            }
        }
    }

    /// Returns a number that no pack has.
    pub(super) fn next_pack(&mut self) -> u64 {
        self.next_pack += 1;
        self.next_pack
    }

    /// Keeps new packs from taking a number.
    pub(super) fn occupy_pack(&mut self, number: u64) {
        self.next_pack = self.next_pack.max(number);
    }

    /// Shows the blobs of a pack, except those that are removed. Blobs that are shown already are
    /// marked as removed from this pack; their entries are returned.
    pub(super) fn insert_pack(&mut self, number: u64, pack: &PackIndex, dead: &Dead) -> Vec<u32> {
        let mut info = PackInfo::new(pack);
        let mut duplicates = Vec::new();
        for (entry, blob) in pack.entries().iter().enumerate() {
            let removed = dead.contains(entry);
            if removed || !self.insert(blob.id, entry_in_pack(number, entry, blob)) {
                info.kill(entry, u64::from(blob.len_bytes));
                if !removed {
                    // At most PACK_MAX_ENTRIES.
                    duplicates.push(entry as u32);
                }
            }
        }
        self.packs.insert(number, info);
        duplicates
    }
}

pub(super) fn entry_in_pack(number: u64, entry: usize, blob: &PackEntry) -> Entry {
    let location = Location::Pack {
        number,
        // At most PACK_MAX_ENTRIES.
        entry: entry as u32,
        offset: blob.offset,
    };
    Entry::new(u64::from(blob.len_bytes), location)
}
