//! What the store holds, in memory: where each blob is, how much is used, what must stay.

use std::collections::HashMap;

use super::pack::{Dead, PackEntry, PackIndex};
use crate::{BlobId, store::StoreError};

/// Partial downloads that are kept: 1024. Each holds an entry here, and its full size of the
/// quota, until it is finished or discarded.
pub const MAX_PARTIALS: usize = 1024;

/// Where a blob is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In a file of its own.
    File,
    /// In a pack.
    Pack {
        number: u64,
        entry: u32,
        offset: u64,
    },
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) size_bytes: u64,
    pub(super) place: Place,
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

    /// Whether more than half of the content is removed.
    pub(super) fn is_sparse(&self) -> bool {
        self.live_bytes < self.content_bytes / 2
    }
}

/// A partial download that the folder holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct PartialInfo {
    pub(super) reserved_bytes: u64,
    pub(super) open: bool,
}

#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) entries: HashMap<BlobId, Entry>,
    pub(super) packs: HashMap<u64, PackInfo>,
    pub(super) partials: HashMap<BlobId, PartialInfo>,
    /// How often each blob is held. No zeros.
    holds: HashMap<BlobId, usize>,
    used_bytes: u64,
    reserved_bytes: u64,
    limit_bytes: u64,
    next_pack: u64,
}

impl Index {
    pub(super) fn new(limit_bytes: u64) -> Self {
        Self {
            limit_bytes,
            ..Self::default()
        }
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    pub(super) fn reserved_bytes(&self) -> u64 {
        self.reserved_bytes
    }

    /// Sets bytes of the quota aside.
    pub(super) fn reserve(&mut self, wanted_bytes: u64) -> Result<(), StoreError> {
        let used_bytes = self.used_bytes.saturating_add(self.reserved_bytes);
        if used_bytes.saturating_add(wanted_bytes) > self.limit_bytes {
            return Err(StoreError::Quota {
                limit_bytes: self.limit_bytes,
                used_bytes,
                wanted_bytes,
            });
        }
        self.reserved_bytes += wanted_bytes;
        Ok(())
    }

    /// Sets bytes aside for what is on the disk already, whatever the quota says.
    pub(super) fn reserve_existing(&mut self, bytes: u64) {
        self.reserved_bytes = self.reserved_bytes.saturating_add(bytes);
    }

    pub(super) fn release(&mut self, bytes: u64) {
        self.reserved_bytes = self.reserved_bytes.saturating_sub(bytes);
    }

    /// Shows a blob. `false` where it is there already.
    pub(super) fn insert(&mut self, id: BlobId, entry: Entry) -> bool {
        if self.entries.contains_key(&id) {
            return false;
        }
        self.used_bytes = self.used_bytes.saturating_add(entry.size_bytes);
        self.entries.insert(id, entry);
        true
    }

    /// Hides a blob, unless somebody holds it and holds count.
    pub(super) fn take(&mut self, id: &BlobId, unless_held: bool) -> Option<Entry> {
        if unless_held && self.holds.contains_key(id) {
            return None;
        }
        let entry = self.entries.remove(id)?;
        self.used_bytes = self.used_bytes.saturating_sub(entry.size_bytes);
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

    /// A number that no pack has.
    pub(super) fn next_pack(&mut self) -> u64 {
        self.next_pack += 1;
        self.next_pack
    }

    /// Keeps new packs from taking a number.
    pub(super) fn occupy_pack(&mut self, number: u64) {
        self.next_pack = self.next_pack.max(number);
    }

    /// Shows the blobs of a pack, but those that are removed. Those that are there already are
    /// removed from the pack; whether there were any is returned.
    pub(super) fn insert_pack(
        &mut self,
        number: u64,
        pack: &PackIndex,
        dead: Option<Dead>,
    ) -> bool {
        let mut info = PackInfo::new(pack);
        let mut duplicates = false;
        for (entry, blob) in pack.entries().iter().enumerate() {
            let removed = dead.as_ref().is_some_and(|dead| dead.contains(entry));
            if removed || !self.insert(blob.id, place_in_pack(number, entry, blob)) {
                info.kill(entry, u64::from(blob.len_bytes));
                duplicates |= !removed;
            }
        }
        self.packs.insert(number, info);
        duplicates
    }
}

pub(super) fn place_in_pack(number: u64, entry: usize, blob: &PackEntry) -> Entry {
    Entry {
        size_bytes: u64::from(blob.len_bytes),
        place: Place::Pack {
            number,
            // At most PACK_MAX_ENTRIES.
            entry: entry as u32,
            offset: blob.offset,
        },
    }
}
