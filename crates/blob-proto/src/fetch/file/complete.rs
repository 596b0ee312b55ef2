//! A file that is the blob already.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use calimero_network_primitives::limits::BLOB_CHUNK_BYTES;

use super::{flush_folder_of, remove_chunks};
use crate::{
    ChunkList,
    id::CHUNK_BYTES,
    store::{
        Hold, PartialBlob, StoreError, StoreFuture, Stored, blocking::blocking, error::io_error,
    },
};

/// A file of which nothing is missing. It may not be durable: the process that renamed it may have
/// ended before it flushed the folder.
pub(super) struct CompleteFile {
    list: ChunkList,
    path: PathBuf,
    file: Arc<File>,
    size_bytes: u64,
}

impl CompleteFile {
    /// The file at `path`, if its content is that of `list`. `None` for one that cannot be
    /// read: the fetch that replaces it reports what is wrong with it.
    pub(super) fn find(path: &Path, list: &ChunkList) -> Option<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path).ok()?;
        let metadata = file.metadata().ok()?;
        let size_bytes = metadata.len();
        if !metadata.is_file() || size_bytes.div_ceil(CHUNK_BYTES) != list.len() as u64 {
            return None;
        }
        let mut buffer = vec![0; BLOB_CHUNK_BYTES];
        for index in 0..list.len() {
            let start = index as u64 * CHUNK_BYTES;
            let chunk = &mut buffer[..(size_bytes - start).min(CHUNK_BYTES) as usize];
            file.read_exact_at(chunk, start).ok()?;
            list.verify(index, chunk).ok()?;
        }
        Some(Self {
            list: list.clone(),
            path: path.to_owned(),
            file: Arc::new(file),
            size_bytes,
        })
    }
}

impl PartialBlob for CompleteFile {
    fn list(&self) -> &ChunkList {
        &self.list
    }

    fn has(&self, index: usize) -> bool {
        index < self.list.len()
    }

    fn missing(&self) -> usize {
        0
    }

    fn write(&self, index: usize, chunk: Bytes) -> StoreFuture<()> {
        let verified = self.list.verify(index, &chunk);
        Box::pin(std::future::ready(verified.map_err(StoreError::from)))
    }

    fn finish(&self) -> StoreFuture<Stored> {
        let (id, size_bytes) = (self.list.id(), self.size_bytes);
        let (path, file) = (self.path.clone(), Arc::clone(&self.file));
        blocking(move || {
            file.sync_all().map_err(io_error("flushing", &path))?;
            flush_folder_of(&path)?;
            remove_chunks(&path);
            let hold = Hold::default();
            Ok(Stored {
                id,
                size_bytes,
                hold,
            })
        })
    }
}
