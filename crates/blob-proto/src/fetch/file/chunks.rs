//! Content whose chunks arrive in any order.

use std::{
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use calimero_network_primitives::limits::BLOB_CHUNK_BYTES;
use rustix::fs::{FlockOperation, flock};

use super::{beside, open, publish};
use crate::{
    ChunkList,
    fetch::target::lock,
    id::CHUNK_BYTES,
    store::{
        Hold, PartialBlob, StoreError, StoreFuture, Stored, blocking::blocking, disk::ChunkFile,
        error::io_error,
    },
};

/// What has arrived, in `part`, until all of it gets the name `path`.
pub(super) struct FilePartial {
    list: ChunkList,
    content: ChunkFile,
    part: PathBuf,
    path: PathBuf,
    have: Mutex<Have>,
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
    pub(super) fn open(path: PathBuf, list: ChunkList) -> Result<Self, StoreError> {
        let part = beside(&path, ".part");
        let content = open(&part)?;
        match flock(&content, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let id = list.id();
                return Err(StoreError::Busy { id });
            }
            Err(error) => return Err(io_error("locking", &part)(error.into())),
        }
        let mut have = Have {
            chunks: vec![false; list.len()],
            missing: list.len(),
            last_len: 0,
        };
        let len_bytes = content
            .metadata()
            .map_err(io_error("reading", &part))?
            .len();
        let mut buffer = vec![0; BLOB_CHUNK_BYTES];
        for index in 0..list.len() {
            let start = index as u64 * CHUNK_BYTES;
            let Some(rest) = len_bytes.checked_sub(start).filter(|rest| *rest > 0) else {
                break;
            };
            let len = rest.min(CHUNK_BYTES) as usize;
            // What cannot be read is fetched again.
            if content.read_exact_at(&mut buffer[..len], start).is_ok()
                && list.verify(index, &buffer[..len]).is_ok()
            {
                have.mark(index, len);
            }
        }
        Ok(Self {
            list,
            content: ChunkFile::new(content, &part, 0),
            part,
            path,
            have: Mutex::new(have),
        })
    }

    fn write(&self, index: usize, chunk: &[u8]) -> Result<(), StoreError> {
        self.list.verify(index, chunk)?;
        if lock(&self.have).chunks.get(index) == Some(&true) {
            return Ok(());
        }
        let written = self.content.write(index, chunk);
        written.map_err(io_error("writing", &self.part))?;
        lock(&self.have).mark(index, chunk.len());
        Ok(())
    }

    fn finish(&self) -> Result<Stored, StoreError> {
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
        let fitted = self.content.file().set_len(size_bytes);
        fitted.map_err(io_error("fitting", &self.part))?;
        let flushed = self.content.file().sync_all();
        flushed.map_err(io_error("flushing", &self.part))?;
        publish(&self.part, &self.path)?;
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
