//! Removing blobs, one, many, or all that nobody needs.

use std::{
    collections::{BTreeMap, HashSet},
    fs::File,
    os::unix::fs::FileExt,
    sync::Arc,
};

use super::{
    FsBlobStore, Shared,
    batch::PackWriter,
    content_name, dead_name, hashes_name,
    index::{Entry, Place},
    pack::PackIndex,
    pack_name,
};
use crate::{
    BlobId,
    store::error::{StoreError, io_error},
};

/// A blob that is to be removed.
type Victim = (BlobId, Entry);

impl FsBlobStore {
    /// Removes a blob, tagged or held or not. Whoever has it open can still read it. `false`
    /// where it is not here.
    ///
    /// # Errors
    ///
    /// What the system refuses. The blob may be there again when the store is next opened.
    pub fn remove(&self, id: &BlobId) -> Result<bool, StoreError> {
        let _publishing = self.shared.publishing();
        let entry = self.shared.index().take(id, false);
        let victims: Vec<Victim> = entry.map(|entry| (*id, entry)).into_iter().collect();
        self.shared.remove(&victims)?;
        Ok(!victims.is_empty())
    }

    /// Removes all blobs that are neither tagged nor held, and says which.
    ///
    /// # Errors
    ///
    /// [`StoreError::DamagedTags`] where it is not known what is tagged, and what the system
    /// refuses.
    pub fn collect_garbage(&self) -> Result<Vec<BlobId>, StoreError> {
        let _publishing = self.shared.publishing();
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
        // Hidden at once, so that nobody counts on them while they go.
        let take = |id: BlobId| index.take(&id, true).map(|entry| (id, entry));
        let victims: Vec<Victim> = untagged.into_iter().filter_map(take).collect();
        drop(index);
        drop(tags);
        self.shared.remove(&victims)?;
        Ok(victims.into_iter().map(|(id, _)| id).collect())
    }
}

impl Shared {
    /// Deletes blobs that are hidden already. Called while publishing is locked.
    fn remove(self: &Arc<Self>, victims: &[Victim]) -> Result<(), StoreError> {
        let mut packs: BTreeMap<u64, Vec<(u32, u64)>> = BTreeMap::new();
        let mut files = false;
        for (id, entry) in victims {
            match entry.place {
                Place::File => {
                    self.blobs.remove(&content_name(id))?;
                    self.blobs.remove(&hashes_name(id))?;
                    files = true;
                }
                Place::Pack {
                    number, entry: at, ..
                } => {
                    packs
                        .entry(number)
                        .or_default()
                        .push((at, entry.size_bytes));
                }
            }
        }
        if files {
            self.blobs.flush()?;
        }
        for (number, entries) in packs {
            self.remove_from_pack(number, &entries)?;
        }
        Ok(())
    }

    fn remove_from_pack(&self, number: u64, victims: &[(u32, u64)]) -> Result<(), StoreError> {
        let mut index = self.index();
        let Some(info) = index.packs.get_mut(&number) else {
            return Ok(());
        };
        for &(entry, len_bytes) in victims {
            info.kill(entry as usize, len_bytes);
        }
        let (live, sparse, dead) = (info.live, info.is_sparse(), info.dead.encode());
        if live == 0 {
            index.packs.remove(&number);
        }
        drop(index);
        if live == 0 {
            return self.delete_pack(number);
        }
        self.packs.write(&dead_name(number), &dead)?;
        self.packs.flush()?;
        if sparse {
            self.rewrite_pack(number)?;
        }
        Ok(())
    }

    fn delete_pack(&self, number: u64) -> Result<(), StoreError> {
        // In this order, and each flushed: without its removals a pack shows all its blobs.
        self.packs.remove(&pack_name(number))?;
        self.packs.flush()?;
        self.packs.remove(&dead_name(number))
    }

    /// Copies what is left of a pack into a new one.
    fn rewrite_pack(&self, number: u64) -> Result<(), StoreError> {
        let path = self.packs.join(&pack_name(number));
        let file = File::open(&path).map_err(io_error("opening", &path))?;
        let Some(old) = PackIndex::read(&file).map_err(io_error("reading", &path))? else {
            return Ok(());
        };
        let Some(dead) = self
            .index()
            .packs
            .get(&number)
            .map(|info| info.dead.clone())
        else {
            return Ok(());
        };
        let mut writer = PackWriter::new(self.packs.temporary()?);
        let mut content = Vec::new();
        for (at, entry) in old.entries().iter().enumerate() {
            if !dead.contains(at) {
                content.resize(entry.len_bytes as usize, 0);
                let read = file.read_exact_at(&mut content, entry.offset);
                read.map_err(io_error("reading", &path))?;
                writer.push(entry.id, &content)?;
            }
        }
        let (temporary, new) = writer.end()?;
        let new_number = self.index().next_pack();
        temporary.publish(&self.packs, &pack_name(new_number))?;
        self.packs.flush()?;

        let mut index = self.index();
        for entry in new.entries() {
            index.take(&entry.id, false);
        }
        index.insert_pack(new_number, &new, None);
        index.packs.remove(&number);
        drop(index);
        self.delete_pack(number)
    }
}
