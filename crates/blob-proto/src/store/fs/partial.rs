//! A blob whose chunks arrive in any order, over any number of tries.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use calimero_network_primitives::limits::BLOB_CHUNK_BYTES;

use super::{
    FsBlobStore, PartialState, Shared, content_name,
    dir::Dir,
    index::{Index, Location, MAX_PARTIALS, PartialInfo},
    lock, part_name,
    state::{MAX_STATE_BYTES, RECORD_BYTES, head, record},
    state_name,
};
use crate::{
    BlobId, ChunkList,
    clock::unix_seconds,
    id::CHUNK_BYTES,
    store::{
        Stored,
        disk::{DiskFile, Mode},
        error::{StoreError, io_error},
    },
};

/// Time without a new chunk after which a partial download is deleted: 7 days. A guess: an
/// interrupted download survives a weekend and a holiday.
///
/// Expired downloads are deleted when the store is opened, by garbage collection, and where a
/// write would exceed the limit.
pub const PARTIAL_MAX_AGE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A partial download, open to be continued. Dropping it keeps the chunks that are there, and
/// deletes it where there is none.
///
/// A chunk survives the end of the process once [`write`](Self::write) has returned. A loss of
/// power may lose what the system had not written yet: such chunks are missing again.
#[derive(Debug)]
pub struct FsPartial {
    shared: Arc<Shared>,
    list: ChunkList,
    content: Box<dyn DiskFile>,
    content_path: PathBuf,
    state_path: PathBuf,
    progress: Mutex<Progress>,
}

#[derive(Debug)]
struct Progress {
    state: Box<dyn DiskFile>,
    /// Offset of the next record.
    state_bytes: u64,
    have: Vec<bool>,
    missing: usize,
    /// Length of the last chunk, once it is there.
    last_len: usize,
    finished: bool,
}

impl Progress {
    fn mark(&mut self, index: usize, len: usize) {
        if let Some(have) = self.have.get_mut(index).filter(|have| !**have) {
            *have = true;
            self.missing -= 1;
            if index + 1 == self.have.len() {
                self.last_len = len;
            }
        }
    }
}

impl FsBlobStore {
    /// Begins a partial download, or resumes it: each chunk that its state names is hashed, and
    /// what does not verify is missing again. Space is taken as chunks are written.
    ///
    /// # Errors
    ///
    /// [`StoreError::Busy`] while another one of the same blob is open, [`StoreError::TooMany`]
    /// where [`MAX_PARTIALS`] are open, [`StoreError::Quota`] where the rest of the blob does not
    /// fit, and what the system refuses.
    pub fn partial(&self, list: ChunkList) -> Result<FsPartial, StoreError> {
        let id = list.id();
        let new = self.shared.claim_partial(&list)?;
        let opened = FsPartial::open(&self.shared, list);
        if opened.is_err() {
            self.shared.release_partial(&id, new);
        }
        opened
    }

    /// Deletes a partial download. `false` where there is none.
    ///
    /// # Errors
    ///
    /// [`StoreError::Busy`] while it is open, and what the system refuses.
    pub fn discard_partial(&self, id: &BlobId) -> Result<bool, StoreError> {
        let _publishing = self.shared.publishing();
        match self.shared.index().partials.get(id) {
            None => return Ok(false),
            Some(PartialInfo { open: true, .. }) => return Err(StoreError::Busy { id: *id }),
            Some(_) => {}
        }
        self.shared.delete_partial(id)?;
        Ok(true)
    }
}

impl Shared {
    /// Takes a partial download for one user. Returns `true` where it is new.
    fn claim_partial(&self, list: &ChunkList) -> Result<bool, StoreError> {
        let id = list.id();
        let _publishing = self.publishing();
        let (least_bytes, max_bytes) = list.size_bounds();
        let hashes_bytes = list.digests().len() as u64;
        let claim = |index: &mut Index| {
            if let Some(partial) = index.partials.get_mut(&id) {
                if partial.open {
                    return Err(StoreError::Busy { id });
                }
                partial.open = true;
                return Ok(false);
            }
            if index.partials.len() >= MAX_PARTIALS {
                return Err(StoreError::TooMany {
                    what: "partial downloads",
                    max: MAX_PARTIALS,
                });
            }
            // Better now than after most of it has arrived. Nothing is reserved for the claim.
            index.check(least_bytes + hashes_bytes)?;
            let partial = PartialInfo {
                used_bytes: hashes_bytes,
                max_bytes,
                written_s: unix_seconds(),
                open: true,
            };
            index.insert_partial(id, partial);
            Ok(true)
        };
        let claimed = claim(&mut self.index());
        match claimed {
            Err(StoreError::Quota { .. }) => {
                self.expire_partials()?;
                claim(&mut self.index())
            }
            Err(StoreError::TooMany { .. }) => {
                self.evict_partial()?;
                claim(&mut self.index())
            }
            claimed => claimed,
        }
    }

    /// Deletes a partial download where there are [`MAX_PARTIALS`]: one without chunks if there is one,
    /// otherwise the one that was written to longest ago. Those that are open stay. Called while
    /// publishing is locked.
    pub(super) fn evict_partial(&self) -> Result<(), StoreError> {
        let index = self.index();
        if index.partials.len() < MAX_PARTIALS {
            return Ok(());
        }
        let closed = index.partials.iter().filter(|(_, partial)| !partial.open);
        let order =
            |(id, partial): (&BlobId, &PartialInfo)| (partial.has_chunks(), partial.written_s, *id);
        let least = closed.map(order).min();
        drop(index);
        match least {
            Some((.., id)) => self.delete_partial(&id),
            None => Ok(()),
        }
    }

    /// Releases a partial download, or forgets it.
    fn release_partial(&self, id: &BlobId, forget: bool) {
        let mut index = self.index();
        if forget {
            index.remove_partial(id);
        } else if let Some(partial) = index.partials.get_mut(id) {
            partial.open = false;
        }
    }

    /// Takes space by `take`. Where the limit refuses it, expired partial downloads are deleted and
    /// it is tried again. Must not be called while publishing is locked.
    pub(super) fn with_space<T>(
        &self,
        take: impl Fn(&mut Index) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let taken = take(&mut self.index());
        match taken {
            Err(StoreError::Quota { .. }) => {
                let publishing = self.publishing();
                self.expire_partials()?;
                drop(publishing);
                take(&mut self.index())
            }
            taken => taken,
        }
    }

    /// Deletes partial downloads that no transfer has open and that are too old. Called while
    /// publishing is locked.
    pub(super) fn expire_partials(&self) -> Result<(), StoreError> {
        let now_s = unix_seconds();
        let expired = |partial: &PartialInfo| !partial.open && is_expired(partial.written_s, now_s);
        let index = self.index();
        let old = index
            .partials
            .iter()
            .filter(|(_, partial)| expired(partial));
        let old: Vec<BlobId> = old.map(|(id, _)| *id).collect();
        drop(index);
        old.into_iter().try_for_each(|id| self.delete_partial(&id))
    }

    /// Deletes a partial download that no transfer has open. Called while publishing is locked.
    fn delete_partial(&self, id: &BlobId) -> Result<(), StoreError> {
        self.remove_partial(id)?;
        self.blobs.flush()?;
        self.release_partial(id, true);
        Ok(())
    }

    /// Removes the files of a partial download. They may return with a loss of power before the
    /// folder is flushed.
    fn remove_partial(&self, id: &BlobId) -> Result<(), StoreError> {
        // The state first: without it the content means nothing.
        self.blobs.remove(&state_name(id))?;
        self.blobs.remove(&part_name(id))
    }
}

/// Returns `true` where nothing was written to a partial download for too long.
pub(super) fn is_expired(written_s: u64, now_s: u64) -> bool {
    now_s.saturating_sub(written_s) > PARTIAL_MAX_AGE.as_secs()
}

impl FsPartial {
    fn open(shared: &Arc<Shared>, list: ChunkList) -> Result<Self, StoreError> {
        let id = list.id();
        let blobs = &shared.blobs;
        let found = read_state(blobs, &id)?.filter(|(state, _)| state.list == list);
        if found.is_none() {
            blobs.remove(&part_name(&id))?;
        }
        let content_path = blobs.join(&part_name(&id));
        let limit_bytes = (list.len() as u64).saturating_sub(1) * CHUNK_BYTES;
        let content = blobs.file(&part_name(&id), Mode::Chunks { limit_bytes })?;
        let claimed = found.map(|(state, _)| state.claimed).unwrap_or_default();
        let verified = verified(&list, &*content, &claimed);
        // Rewritten, it holds each chunk once and no torn record.
        let chunks: Vec<u32> = verified.iter().map(|(index, _)| *index).collect();
        let state_bytes = write_state(blobs, &list, &chunks)?;
        blobs.flush()?;
        let mut progress = Progress {
            state: blobs.file(&state_name(&id), Mode::Write)?,
            state_bytes,
            have: vec![false; list.len()],
            missing: list.len(),
            last_len: 0,
            finished: false,
        };
        let mut used_bytes = list.digests().len() as u64;
        for (index, len) in verified {
            progress.mark(index as usize, len);
            used_bytes += len as u64;
        }
        shared.index().resize_partial(&id, used_bytes);
        Ok(Self {
            shared: Arc::clone(shared),
            list,
            content,
            content_path,
            state_path: blobs.join(&state_name(&id)),
            progress: Mutex::new(progress),
        })
    }

    /// Returns its chunk hashes.
    #[must_use]
    pub fn list(&self) -> &ChunkList {
        &self.list
    }

    /// Whether a chunk is there and verified. `false` beyond the end.
    #[must_use]
    pub fn has(&self, index: usize) -> bool {
        self.progress().have.get(index).is_some_and(|have| *have)
    }

    /// Chunks that are not there.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.progress().missing
    }

    /// Verifies a chunk, takes space for it and writes it. Several threads may write at the same
    /// time.
    ///
    /// # Errors
    ///
    /// [`StoreError::Quota`] where it does not fit, [`StoreError::Chunk`] where it is not the chunk that the list promises,
    /// [`StoreError::DiskFull`] and what else the system refuses. The chunk is missing then, and
    /// may be written again.
    pub fn write(&self, index: usize, chunk: &[u8]) -> Result<(), StoreError> {
        self.list.verify(index, chunk)?;
        if self.has(index) {
            return Ok(());
        }
        let (id, len_bytes) = (self.list.id(), chunk.len() as u64);
        let now_s = unix_seconds();
        self.shared
            .with_space(|index| index.grow_partial(&id, len_bytes, now_s))?;
        let kept = self.keep(index, chunk);
        if !matches!(kept, Ok(true)) {
            self.shared.index().shrink_partial(&id, len_bytes);
        }
        kept.map(|_| ())
    }

    /// Writes a chunk that is verified. `false` where another thread has written it.
    fn keep(&self, index: usize, chunk: &[u8]) -> Result<bool, StoreError> {
        let written = self.content.write(chunk, index as u64 * CHUNK_BYTES);
        written.map_err(io_error("writing", &self.content_path))?;
        let mut progress = self.progress();
        if progress.have[index] {
            return Ok(false);
        }
        // At most MAX_BLOB_CHUNKS. A torn record is overwritten by the next one.
        let record = record(&self.list.id(), index as u32);
        let written = progress.state.write(&record, progress.state_bytes);
        written.map_err(io_error("writing", &self.state_path))?;
        progress.state_bytes += RECORD_BYTES as u64;
        progress.mark(index, chunk.len());
        Ok(true)
    }

    /// Reads a chunk back. `None` where it is missing. Does not verify what the disk returns.
    ///
    /// # Errors
    ///
    /// What the system refuses.
    pub fn read(&self, index: usize) -> Result<Option<Bytes>, StoreError> {
        if !self.has(index) {
            return Ok(None);
        }
        let mut chunk = Vec::new();
        let start = index as u64 * CHUNK_BYTES;
        let read = self.content.read(&mut chunk, BLOB_CHUNK_BYTES, start);
        read.map_err(io_error("reading", &self.content_path))?;
        Ok(Some(chunk.into()))
    }

    /// Makes the blob durable and visible.
    ///
    /// # Errors
    ///
    /// [`StoreError::Incomplete`] while chunks are missing, [`StoreError::Busy`] where it is
    /// finished already, and what the system refuses. The chunks stay.
    pub fn finish(&self) -> Result<Stored, StoreError> {
        let id = self.list.id();
        let size_bytes = self.complete_size()?;
        let fitted = self.content.set_len(size_bytes);
        fitted.map_err(io_error("fitting", &self.content_path))?;
        let flushed = self.content.sync();
        flushed.map_err(io_error("flushing", &self.content_path))?;

        let _publishing = self.shared.publishing();
        let mut progress = self.progress();
        if progress.finished {
            return Err(StoreError::Busy { id });
        }
        let blobs = &self.shared.blobs;
        self.shared.write_hashes(&self.list)?;
        blobs.rename(&part_name(&id), &content_name(&id))?;
        if let Err(error) = blobs.flush() {
            let shown = self.shared.index().entries.get(&id).copied();
            // Or it would be shown when the store is next opened. The chunks stay.
            if shown.is_none_or(|shown| shown.location != Location::File)
                && blobs.rename(&content_name(&id), &part_name(&id)).is_err()
            {
                self.shared.retract([], &[(id, size_bytes, true)]);
            }
            return Err(error);
        }
        progress.finished = true;
        // The blob is safe. What cannot be deleted now is deleted when the store is next opened.
        let _ = blobs.remove(&state_name(&id));
        self.shared.release_partial(&id, true);
        self.shared.show_file(id, size_bytes, None)
    }

    /// Size of the content, in bytes, if no chunk is missing.
    fn complete_size(&self) -> Result<u64, StoreError> {
        let id = self.list.id();
        let progress = self.progress();
        if progress.finished {
            return Err(StoreError::Busy { id });
        }
        if progress.missing > 0 {
            let missing_chunks = progress.missing;
            return Err(StoreError::Incomplete { id, missing_chunks });
        }
        let before = self.list.len().saturating_sub(1) as u64 * CHUNK_BYTES;
        Ok(before + progress.last_len as u64)
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        lock(&self.progress)
    }
}

impl Drop for FsPartial {
    fn drop(&mut self) {
        let (finished, is_empty) = {
            let progress = self.progress();
            (progress.finished, progress.missing == self.list.len())
        };
        if finished {
            return;
        }
        let id = self.list.id();
        // Not waited for, because a drop must not block for long. What stays is deleted when another
        // one needs its place.
        let publishing = is_empty.then(|| self.shared.publishing.try_lock());
        let deleted = matches!(publishing, Some(Ok(_))) && self.shared.remove_partial(&id).is_ok();
        self.shared.release_partial(&id, deleted);
    }
}

/// Returns the chunks of `claimed` that verify, with their lengths in bytes.
fn verified(list: &ChunkList, content: &dyn DiskFile, claimed: &[u32]) -> Vec<(u32, usize)> {
    let mut seen = vec![false; list.len()];
    let mut verified = Vec::new();
    let mut buffer = Vec::with_capacity(BLOB_CHUNK_BYTES);
    for &index in claimed {
        let at = index as usize;
        if at >= seen.len() || std::mem::replace(&mut seen[at], true) {
            continue;
        }
        buffer.clear();
        let read = content.read(
            &mut buffer,
            BLOB_CHUNK_BYTES,
            u64::from(index) * CHUNK_BYTES,
        );
        // What cannot be read is fetched again.
        if read.is_ok() && list.verify(at, &buffer).is_ok() {
            verified.push((index, buffer.len()));
        }
    }
    verified
}

/// Writes the state of a partial download that has some chunks. Returns its length in bytes.
/// Durable once the folder is flushed.
pub(super) fn write_state(
    blobs: &Dir,
    list: &ChunkList,
    chunks: &[u32],
) -> Result<u64, StoreError> {
    let mut state = head(list);
    let records = chunks.iter().map(|&index| record(&list.id(), index));
    state.extend(records.flatten());
    blobs.write(&state_name(&list.id()), &state)?;
    Ok(state.len() as u64)
}

/// Reads the state of a partial download, and when it was last written in seconds since the Unix
/// epoch. `None` where there is none that can be used.
pub(super) fn read_state(
    blobs: &Dir,
    id: &BlobId,
) -> Result<Option<(PartialState, u64)>, StoreError> {
    let name = state_name(id);
    let Some(content) = blobs.read(&name, MAX_STATE_BYTES)? else {
        return Ok(None);
    };
    let file = blobs.file(&name, Mode::Read)?;
    let modified = file
        .modified()
        .map_err(io_error("reading", &blobs.join(&name)))?;
    let state = PartialState::decode(&content.into()).filter(|state| state.list.id() == *id);
    Ok(state.map(|state| (state, modified.as_secs())))
}
