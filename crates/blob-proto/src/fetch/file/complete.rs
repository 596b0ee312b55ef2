//! A file that is the blob already.

use std::{
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
        Hold, PartialBlob, StoreError, StoreFuture, Stored,
        blocking::blocking,
        disk::{Disk, DiskFile, Mode},
        error::io_error,
    },
};

/// A file of which nothing is missing. It may not be durable: the process that renamed it may have
/// ended before it flushed the folder.
#[derive(Clone)]
pub(super) struct CompleteFile {
    disk: Arc<dyn Disk>,
    list: ChunkList,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    size_bytes: u64,
}

impl CompleteFile {
    /// The file at `path`, if its content is that of `list`. `None` for one that cannot be
    /// read: the fetch that replaces it reports what is wrong with it.
    pub(super) fn find(disk: &Arc<dyn Disk>, path: &Path, list: &ChunkList) -> Option<Self> {
        let file = disk.open(path, Mode::Write).ok()?;
        let size_bytes = file.len().ok()?;
        let regular = disk.is_regular(path).ok()?;
        if !regular || size_bytes.div_ceil(CHUNK_BYTES) != list.len() as u64 {
            return None;
        }
        let mut chunk = Vec::with_capacity(BLOB_CHUNK_BYTES);
        for index in 0..list.len() {
            chunk.clear();
            let start = index as u64 * CHUNK_BYTES;
            file.read(&mut chunk, BLOB_CHUNK_BYTES, start).ok()?;
            list.verify(index, &chunk).ok()?;
        }
        Some(Self {
            disk: Arc::clone(disk),
            list: list.clone(),
            path: path.to_owned(),
            file: file.into(),
            size_bytes,
        })
    }

    /// Makes the file durable.
    pub(super) fn settle(&self) -> Result<Stored, StoreError> {
        self.file.sync().map_err(io_error("flushing", &self.path))?;
        flush_folder_of(&*self.disk, &self.path)?;
        remove_chunks(&*self.disk, &self.path);
        Ok(Stored {
            id: self.list.id(),
            size_bytes: self.size_bytes,
            hold: Hold::default(),
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
        let file = self.clone();
        blocking(move || file.settle())
    }
}
