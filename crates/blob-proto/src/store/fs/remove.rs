//! Removal of blobs: one, or all that are neither tagged nor held.
//!
//! Removal needs no free space. A blob in a file of its own goes with its name, a blob in a pack by
//! one byte of a file that has its full length since the pack was written. Each blob is removed or
//! not, whenever the power goes. Where the disk refuses, what was not removed is shown again.

use std::collections::{BTreeMap, HashSet};

use super::{
    FsBlobStore, Shared,
    batch::PackWriter,
    content_name, dead_name, hashes_name,
    index::{Entry, Location},
    pack::{Dead, PackIndex, REMOVED, dead_len, dead_offset},
    pack_name,
};
use crate::{
    BlobId,
    store::{
        disk::Mode,
        error::{StoreError, io_error},
    },
};

/// A blob that is to be removed.
type Victim = (BlobId, Entry);

impl FsBlobStore {
    /// Removes a blob, tagged or held or not. Open readers can still read it. `false` where it is
    /// not here.
    ///
    /// # Errors
    ///
    /// What the system refuses. The blob is still here then, unless only the flush failed.
    pub fn remove(&self, id: &BlobId) -> Result<bool, StoreError> {
        let _publishing = self.shared.publishing();
        self.shared.retract_orphans()?;
        let entry = self.shared.index().take(id, false);
        let Some(entry) = entry else {
            return Ok(false);
        };
        self.shared.remove(vec![(*id, entry)])?;
        Ok(true)
    }

    /// Removes all blobs that are neither tagged nor held, and returns them. Deletes partial
    /// downloads that have [expired](super::PARTIAL_MAX_AGE).
    ///
    /// # Errors
    ///
    /// [`StoreError::DamagedTags`] where a tag cannot be read, and what the system refuses. What
    /// was not removed is still shown, and the next call goes on with it.
    pub fn collect_garbage(&self) -> Result<Vec<BlobId>, StoreError> {
        let _publishing = self.shared.publishing();
        self.shared.retract_orphans()?;
        self.shared.expire_partials()?;
        let tags = self.shared.tags();
        if tags.damaged() > 0 {
            return Err(StoreError::DamagedTags {
                damaged: tags.damaged(),
            });
        }
        let tagged: HashSet<BlobId> = tags.all().values().copied().collect();
        let mut index = self.shared.index();
        let untagged = index.entries.keys().filter(|id| !tagged.contains(*id));
        let untagged: Vec<BlobId> = untagged.copied().collect();
        // Hidden at once, so that no batch relies on them while they are removed.
        let take = |id: BlobId| index.take(&id, true).map(|entry| (id, entry));
        let victims: Vec<Victim> = untagged.into_iter().filter_map(take).collect();
        drop(index);
        drop(tags);
        let ids = victims.iter().map(|(id, _)| *id).collect();
        self.shared.remove(victims)?;
        Ok(ids)
    }
}

impl Shared {
    /// Removes blobs that are hidden already from the disk. What the disk refuses to remove is
    /// shown again. Called while publishing is locked.
    fn remove(&self, victims: Vec<Victim>) -> Result<(), StoreError> {
        let mut files = Vec::new();
        let mut packs: BTreeMap<u64, Vec<Victim>> = BTreeMap::new();
        for victim in victims {
            match victim.1.location {
                Location::File => files.push(victim),
                Location::Pack { number, .. } => packs.entry(number).or_default().push(victim),
            }
        }
        // The others are tried after a failure as well: each removal is independent.
        let mut outcome = self.remove_files(files);
        for (number, victims) in packs {
            let entries = victims
                .iter()
                .filter_map(|(_, entry)| match entry.location {
                    Location::Pack { entry: at, .. } => Some((at, entry.size_bytes)),
                    Location::File => None,
                });
            let entries: Vec<_> = entries.collect();
            if let Err(error) = self.remove_from_pack(number, &entries) {
                self.restore(victims);
                outcome = outcome.and(Err(error));
            }
        }
        outcome
    }

    fn remove_files(&self, victims: Vec<Victim>) -> Result<(), StoreError> {
        if victims.is_empty() {
            return Ok(());
        }
        let mut outcome = Ok(());
        for victim in victims {
            if let Err(error) = self.blobs.remove(&content_name(&victim.0)) {
                self.restore(vec![victim]);
                outcome = outcome.and(Err(error));
                continue;
            }
            // Without its content the file means nothing, and goes when the store is next opened.
            let _ = self.blobs.remove(&hashes_name(&victim.0));
        }
        outcome.and(self.blobs.flush())
    }

    fn restore(&self, victims: Vec<Victim>) {
        let mut index = self.index();
        for (id, entry) in victims {
            index.insert(id, entry);
        }
    }

    /// Removes blobs, as entries and sizes in bytes, from a pack. Durable when it returns. Called
    /// while publishing is locked.
    pub(super) fn remove_from_pack(
        &self,
        number: u64,
        victims: &[(u32, u64)],
    ) -> Result<(), StoreError> {
        let info = self.index().packs.get(&number).cloned();
        let Some(mut info) = info else {
            return Ok(());
        };
        let before = info.dead.clone();
        for &(entry, len_bytes) in victims {
            info.kill(entry as usize, len_bytes);
        }
        if info.live == 0 {
            self.packs.remove(&pack_name(number))?;
            self.forget_removals(number)?;
            // Not before the removal is on the disk: it is tried again after a failure.
            self.index().packs.remove(&number);
            return Ok(());
        }
        self.mark_dead(number, &before, &info.dead, victims)?;
        let sparse = info.is_sparse();
        self.index().packs.insert(number, info);
        if sparse {
            // Saves space and nothing else. After a failure the next removal tries again.
            let _ = self.rewrite_pack(number);
        }
        Ok(())
    }

    fn mark_dead(
        &self,
        number: u64,
        before: &Dead,
        after: &Dead,
        victims: &[(u32, u64)],
    ) -> Result<(), StoreError> {
        let name = dead_name(number);
        let path = self.packs.join(&name);
        let expected = dead_len(before.len());
        let file = match self.packs.file(&name, Mode::Write) {
            Ok(file) if file.len().is_ok_and(|len| len == expected) => file,
            // It was lost. Its replacement does need space.
            _ => {
                self.packs.write(&name, &after.encode())?;
                return self.packs.flush();
            }
        };
        for &(entry, _) in victims {
            let marked = file.write(&[REMOVED], dead_offset(entry));
            marked.map_err(io_error("writing", &path))?;
        }
        file.sync().map_err(io_error("flushing", &path))
    }

    /// Makes the end of a pack durable, then deletes its file of removals. In this order: without
    /// its removals a pack shows all its blobs.
    fn forget_removals(&self, number: u64) -> Result<(), StoreError> {
        self.packs.flush()?;
        // What cannot be deleted now is deleted when the store is next opened.
        let _ = self.packs.remove(&dead_name(number));
        Ok(())
    }

    /// Copies what is left of a pack into a new one.
    pub(super) fn rewrite_pack(&self, number: u64) -> Result<(), StoreError> {
        let path = self.packs.join(&pack_name(number));
        let file = self.packs.file(&pack_name(number), Mode::Read)?;
        let read = PackIndex::read(&*file).map_err(io_error("reading", &path))?;
        let dead = self
            .index()
            .packs
            .get(&number)
            .map(|info| info.dead.clone());
        let (Some(old), Some(dead)) = (read, dead) else {
            return Ok(());
        };
        let mut writer = PackWriter::new(self.packs.temporary()?);
        for (at, entry) in old.entries().iter().enumerate() {
            if !dead.contains(at) {
                let mut content = Vec::new();
                let read = file.read(&mut content, entry.len_bytes as usize, entry.offset);
                read.map_err(io_error("reading", &path))?;
                // What is damaged stays damaged, and is found where it is read.
                content.resize(entry.len_bytes as usize, 0);
                writer.push(entry.id, &content)?;
            }
        }
        let (temporary, new) = writer.end()?;
        let new_number = self.index().next_pack();
        let none = Dead::none(new.len());
        let published = (self.packs.write(&dead_name(new_number), &none.encode()))
            .and_then(|()| temporary.publish(&self.packs, &pack_name(new_number)))
            .and_then(|()| self.packs.flush());
        if let Err(error) = published {
            // Or it would show what is removed from the old one when the store is next opened.
            self.retract([new_number], &[]);
            return Err(error);
        }

        let mut index = self.index();
        for entry in new.entries() {
            index.take(&entry.id, false);
        }
        index.insert_pack(new_number, &new, &none);
        index.packs.remove(&number);
        drop(index);
        self.retract([number], &[]);
        Ok(())
    }

    /// Removes an entry of a pack in memory. It is marked on the disk before the next removal.
    pub(super) fn mark_later(&self, number: u64, entry: u32, size_bytes: u64) {
        let mut index = self.index();
        if let Some(info) = index.packs.get_mut(&number) {
            info.kill(entry as usize, size_bytes);
            index.unmarked.push((number, entry));
        }
    }

    /// Marks on the disk what was removed in memory alone. Called while publishing is locked.
    pub(super) fn mark_unmarked(&self) -> Result<(), StoreError> {
        loop {
            let index = self.index();
            let Some(&(number, entry)) = index.unmarked.last() else {
                return Ok(());
            };
            let info = index.packs.get(&number).cloned();
            drop(index);
            match info {
                Some(info) if info.live == 0 => {
                    self.packs.remove(&pack_name(number))?;
                    self.forget_removals(number)?;
                    self.index().packs.remove(&number);
                }
                Some(info) => self.mark_dead(number, &info.dead, &info.dead, &[(entry, 0)])?,
                // The pack was rewritten without it, or removed.
                None => {}
            }
            self.index().unmarked.pop();
        }
    }

    /// Takes back what was published and is not to be shown, after a failure: packs, and blobs in
    /// files that are new. Called while publishing is locked.
    pub(super) fn retract(
        &self,
        packs: impl IntoIterator<Item = u64>,
        files: &[(BlobId, u64, bool)],
    ) {
        let mut index = self.index();
        index.orphans.extend(packs);
        let files = files.iter().filter(|(.., is_new)| *is_new);
        index.orphan_files.extend(files.map(|(id, ..)| *id));
        drop(index);
        // What fails now is tried again before the next change.
        let _ = self.retract_orphans();
    }

    /// Deletes what was published and is not shown. Called while publishing is locked, before
    /// anything is published or removed: a removal that is acknowledged must not be undone by them.
    pub(super) fn retract_orphans(&self) -> Result<(), StoreError> {
        self.mark_unmarked()?;
        let index = self.index();
        let packs: Vec<u64> = index.orphans.iter().copied().collect();
        let files: Vec<BlobId> = index.orphan_files.iter().copied().collect();
        drop(index);
        if !packs.is_empty() {
            for number in &packs {
                self.packs.remove(&pack_name(*number))?;
            }
            // In this order: without its removals a pack shows all its blobs.
            self.packs.flush()?;
            for number in &packs {
                let _ = self.packs.remove(&dead_name(*number));
                self.index().orphans.remove(number);
            }
        }
        if !files.is_empty() {
            for id in &files {
                let shown = self.index().entries.get(id).copied();
                if shown.is_none_or(|shown| shown.location != Location::File) {
                    self.blobs.remove(&content_name(id))?;
                    let _ = self.blobs.remove(&hashes_name(id));
                }
            }
            self.blobs.flush()?;
            let mut index = self.index();
            files.iter().for_each(|id| {
                index.orphan_files.remove(id);
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
