//! A blob whose chunks arrive in any order, over any number of tries.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use calimero_network_primitives::limits::BLOB_CHUNK_BYTES;

use super::{
    FsBlobStore, PartialState, Reservation, Shared, content_name,
    dir::Dir,
    index::{MAX_PARTIALS, PartialInfo},
    lock, part_name,
    state::{MAX_STATE_BYTES, RECORD_BYTES, head, record},
    state_name,
};
use crate::{
    BlobId, ChunkList,
    id::CHUNK_BYTES,
    store::{
        Stored,
        chunk_file::ChunkFile,
        error::{StoreError, io_error},
    },
};

/// A partial download, open to be continued. Dropping it keeps what is there.
///
/// A chunk survives the end of the process once [`write`](Self::write) has returned. A loss of
/// power may lose what the system had not written yet: such chunks are missing again.
#[derive(Debug)]
pub struct FsPartial {
    shared: Arc<Shared>,
    list: ChunkList,
    content: ChunkFile,
    content_path: PathBuf,
    state_path: PathBuf,
    progress: Mutex<Progress>,
}

#[derive(Debug)]
struct Progress {
    state: File,
    /// Where the next record belongs.
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
    /// Begins a partial download, or resumes it: each chunk that is said to be there is hashed,
    /// and what does not verify is missing again.
    ///
    /// # Errors
    ///
    /// [`StoreError::Busy`] while another one of the same blob is open, [`StoreError::TooMany`]
    /// beyond [`MAX_PARTIALS`], [`StoreError::Quota`] where the whole blob would exceed it, and
    /// what the system refuses.
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
        let blobs = &self.shared.blobs;
        blobs.remove(&state_name(id))?;
        blobs.remove(&part_name(id))?;
        blobs.flush()?;
        self.shared.release_partial(id, true);
        Ok(true)
    }
}

impl Shared {
    /// Takes a partial download for one user, with its full size of the quota. Says whether it
    /// is new.
    fn claim_partial(&self, list: &ChunkList) -> Result<bool, StoreError> {
        let id = list.id();
        let _publishing = self.publishing();
        let mut index = self.index();
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
        let (_, reserved_bytes) = list.size_bounds();
        index.reserve(reserved_bytes)?;
        let open = true;
        index.partials.insert(
            id,
            PartialInfo {
                reserved_bytes,
                open,
            },
        );
        Ok(true)
    }

    /// Gives a partial download back, or forgets it.
    fn release_partial(&self, id: &BlobId, forget: bool) {
        let mut index = self.index();
        if !forget {
            if let Some(partial) = index.partials.get_mut(id) {
                partial.open = false;
            }
        } else if let Some(partial) = index.partials.remove(id) {
            index.release(partial.reserved_bytes);
        }
    }
}

impl FsPartial {
    fn open(shared: &Arc<Shared>, list: ChunkList) -> Result<Self, StoreError> {
        let id = list.id();
        let blobs = &shared.blobs;
        let found = read_state(blobs, &id)?.filter(|state| state.list == list);
        if found.is_none() {
            blobs.remove(&part_name(&id))?;
        }
        let content_path = blobs.join(&part_name(&id));
        let content = open_file(&content_path, true)?;
        let claimed = found.map(|state| state.claimed);
        let verified = verified(&list, &content, claimed.as_deref().unwrap_or_default())?;
        // Written anew, it holds each chunk once and no torn record.
        let mut state = head(&list);
        let records = verified.iter().map(|&(index, _)| record(&id, index));
        state.extend(records.flatten());
        blobs.write(&state_name(&id), &state)?;
        blobs.flush()?;
        let state_path = blobs.join(&state_name(&id));
        let mut progress = Progress {
            state: open_file(&state_path, false)?,
            state_bytes: state.len() as u64,
            have: vec![false; list.len()],
            missing: list.len(),
            last_len: 0,
            finished: false,
        };
        for (index, len) in verified {
            progress.mark(index as usize, len);
        }
        let content = ChunkFile::new(content, &content_path);
        content.reserve(list.len());
        Ok(Self {
            shared: Arc::clone(shared),
            list,
            content,
            content_path,
            state_path,
            progress: Mutex::new(progress),
        })
    }

    /// Its chunk hashes.
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

    /// Verifies a chunk and writes it. Several threads may write at the same time.
    ///
    /// # Errors
    ///
    /// [`StoreError::Chunk`] where it is not the chunk that the list promises,
    /// [`StoreError::DiskFull`] and what else the system refuses. The chunk is missing then, and
    /// may be written again.
    pub fn write(&self, index: usize, chunk: &[u8]) -> Result<(), StoreError> {
        self.list.verify(index, chunk)?;
        if self.has(index) {
            return Ok(());
        }
        let written = self.content.write(index, chunk);
        written.map_err(io_error("writing", &self.content_path))?;
        let mut progress = self.progress();
        if progress.have[index] {
            return Ok(());
        }
        // At most MAX_BLOB_CHUNKS. A torn record is overwritten by the next one.
        let record = record(&self.list.id(), index as u32);
        let written = progress.state.write_all_at(&record, progress.state_bytes);
        written.map_err(io_error("writing", &self.state_path))?;
        progress.state_bytes += RECORD_BYTES as u64;
        progress.mark(index, chunk.len());
        Ok(())
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
        let fitted = self.content.file().set_len(size_bytes);
        fitted.map_err(io_error("fitting", &self.content_path))?;
        let flushed = self.content.file().sync_all();
        flushed.map_err(io_error("flushing", &self.content_path))?;

        let _publishing = self.shared.publishing();
        let mut progress = self.progress();
        if progress.finished {
            return Err(StoreError::Busy { id });
        }
        let blobs = &self.shared.blobs;
        let shown = self.shared.index().entries.contains_key(&id);
        if !shown {
            self.shared.write_hashes(&self.list)?;
            blobs.rename(&part_name(&id), &content_name(&id))?;
            blobs.flush()?;
        }
        progress.finished = true;
        // The blob is safe. What cannot be deleted now goes when the store is next opened.
        let _ = blobs.remove(&part_name(&id));
        let _ = blobs.remove(&state_name(&id));
        self.shared.release_partial(&id, true);
        let mut reservation = Reservation::none(&self.shared);
        Ok(self.shared.show_file(id, size_bytes, &mut reservation))
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
        let finished = self.progress().finished;
        if !finished {
            self.shared.release_partial(&self.list.id(), false);
        }
    }
}

/// The chunks that are where `claimed` says, with their lengths.
fn verified(
    list: &ChunkList,
    content: &File,
    claimed: &[u32],
) -> Result<Vec<(u32, usize)>, StoreError> {
    let mut seen = vec![false; list.len()];
    let mut verified = Vec::new();
    let mut buffer = vec![0; BLOB_CHUNK_BYTES];
    for &index in claimed {
        let at = index as usize;
        if at >= seen.len() || std::mem::replace(&mut seen[at], true) {
            continue;
        }
        let len = read_up_to(content, &mut buffer, u64::from(index) * CHUNK_BYTES);
        // What cannot be read is fetched again.
        if let Ok(len) = len
            && list.verify(at, &buffer[..len]).is_ok()
        {
            verified.push((index, len));
        }
    }
    Ok(verified)
}

/// Fills the buffer from a place in a file, up to the end of either.
fn read_up_to(file: &File, buffer: &mut [u8], start: u64) -> io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match file.read_at(&mut buffer[len..], start + len as u64) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

/// The state of a partial download, or `None` where there is none that can be used.
pub(super) fn read_state(blobs: &Dir, id: &BlobId) -> Result<Option<PartialState>, StoreError> {
    let path = blobs.join(&state_name(id));
    match fs::metadata(&path) {
        Ok(metadata) if metadata.len() <= MAX_STATE_BYTES => {}
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("reading", &path)(error)),
    }
    let file = fs::read(&path).map_err(io_error("reading", &path))?;
    Ok(PartialState::decode(&Bytes::from(file)).filter(|state| state.list.id() == *id))
}

fn open_file(path: &PathBuf, create: bool) -> Result<File, StoreError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(create)
        .truncate(false)
        .open(path)
        .map_err(io_error("opening", path))
}
