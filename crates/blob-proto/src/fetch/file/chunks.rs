//! Content whose chunks arrive in any order.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use calimero_network_primitives::limits::BLOB_CHUNK_BYTES;

use super::{beside, publish};
use crate::{
    ChunkList,
    fetch::target::lock,
    id::CHUNK_BYTES,
    store::{
        Hold, PartialBlob, StoreError, StoreFuture, Stored,
        blocking::blocking,
        disk::{Disk, DiskFile, Lock, Mode},
        error::io_error,
    },
};

/// What has arrived, in `part`, until all of it gets the name `path`.
pub(super) struct FilePartial {
    disk: Arc<dyn Disk>,
    list: ChunkList,
    content: Box<dyn DiskFile>,
    part: PathBuf,
    path: PathBuf,
    have: Mutex<Have>,
    /// Held while the download is open.
    _lock: Lock,
}

struct Have {
    chunks: Vec<bool>,
    missing: usize,
    last_len: usize,
}

impl Have {
    fn mark(&mut self, index: usize, len: usize) {
        if let Some(have) = self.chunks.get_mut(index).filter(|have| !**have) {
            *have = true;
            self.missing -= 1;
            if index + 1 == self.chunks.len() {
                self.last_len = len;
            }
        }
    }
}

impl FilePartial {
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        path: PathBuf,
        list: ChunkList,
    ) -> Result<Self, StoreError> {
        let part = beside(&path, ".part");
        let lock = disk.lock(&part).map_err(io_error("locking", &part))?;
        let lock = lock.ok_or_else(|| StoreError::Busy { id: list.id() })?;
        let content = disk.open(&part, Mode::Chunks { limit_bytes: 0 });
        let content = content.map_err(io_error("opening", &part))?;
        let mut have = Have {
            chunks: vec![false; list.len()],
            missing: list.len(),
            last_len: 0,
        };
        let len_bytes = content.len().map_err(io_error("reading", &part))?;
        let mut buffer = Vec::with_capacity(BLOB_CHUNK_BYTES);
        for index in 0..list.len() {
            let start = index as u64 * CHUNK_BYTES;
            if start >= len_bytes {
                break;
            }
            buffer.clear();
            // What cannot be read is fetched again.
            if content.read(&mut buffer, BLOB_CHUNK_BYTES, start).is_ok()
                && list.verify(index, &buffer).is_ok()
            {
                have.mark(index, buffer.len());
            }
        }
        Ok(Self {
            disk,
            list,
            content,
            part,
            path,
            have: Mutex::new(have),
            _lock: lock,
        })
    }

    pub(super) fn write(&self, index: usize, chunk: &[u8]) -> Result<(), StoreError> {
        self.list.verify(index, chunk)?;
        if lock(&self.have).chunks.get(index) == Some(&true) {
            return Ok(());
        }
        let written = self.content.write(chunk, index as u64 * CHUNK_BYTES);
        written.map_err(io_error("writing", &self.part))?;
        lock(&self.have).mark(index, chunk.len());
        Ok(())
    }

    pub(super) fn finish(&self) -> Result<Stored, StoreError> {
        let id = self.list.id();
        let (missing_chunks, last_len) = {
            let have = lock(&self.have);
            (have.missing, have.last_len)
        };
        if missing_chunks > 0 {
            return Err(StoreError::Incomplete { id, missing_chunks });
        }
        let before = self.list.len().saturating_sub(1) as u64 * CHUNK_BYTES;
        let size_bytes = before + last_len as u64;
        let fitted = self.content.set_len(size_bytes);
        fitted.map_err(io_error("fitting", &self.part))?;
        let flushed = self.content.sync();
        flushed.map_err(io_error("flushing", &self.part))?;
        publish(&*self.disk, &self.part, &self.path)?;
        let hold = Hold::default();
        Ok(Stored {
            id,
            size_bytes,
            hold,
        })
    }
}

/// A partial download that chunks being written keep open.
pub(super) struct SharedPartial {
    partial: Arc<FilePartial>,
}

impl SharedPartial {
    pub(super) fn new(partial: FilePartial) -> Self {
        let partial = Arc::new(partial);
        Self { partial }
    }
}

impl PartialBlob for SharedPartial {
    fn list(&self) -> &ChunkList {
        &self.partial.list
    }

    fn has(&self, index: usize) -> bool {
        lock(&self.partial.have).chunks.get(index) == Some(&true)
    }

    fn missing(&self) -> usize {
        lock(&self.partial.have).missing
    }

    fn write(&self, index: usize, chunk: Bytes) -> StoreFuture<()> {
        let partial = Arc::clone(&self.partial);
        blocking(move || partial.write(index, &chunk))
    }

    fn finish(&self) -> StoreFuture<Stored> {
        let partial = Arc::clone(&self.partial);
        blocking(move || partial.finish())
    }
}

/// Checks that chunks which are there are those of the list.
#[cfg(all(test, feature = "fs"))]
pub(super) fn verify_all(partial: &FilePartial) -> Result<(), String> {
    let have = lock(&partial.have).chunks.clone();
    for (index, _) in have.iter().enumerate().filter(|(_, have)| **have) {
        let mut chunk = Vec::new();
        let start = index as u64 * CHUNK_BYTES;
        let read = partial.content.read(&mut chunk, BLOB_CHUNK_BYTES, start);
        read.map_err(|error| error.to_string())?;
        let verified = partial.list.verify(index, &chunk);
        verified.map_err(|error| format!("chunk {index}: {error}"))?;
    }
    Ok(())
}
