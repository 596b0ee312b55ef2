//! Content that arrives in order.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use bytes::Bytes;

use super::{beside, publish, remove_chunks};
use crate::{
    BlobHasher, BlobId,
    fetch::target::{check_id, lock},
    store::{
        BlobWriter, Hold, StoreError, StoreFuture, Stored,
        blocking::blocking,
        disk::{Disk, DiskFile, Mode, WriteBack},
        error::io_error,
    },
};

/// A file that grows. Deleted when dropped, unless it was finished.
pub(super) struct Whole {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    part: PathBuf,
    file: Box<dyn DiskFile>,
    hasher: BlobHasher,
    write_back: WriteBack,
    published: bool,
}

impl Whole {
    pub(super) fn create(disk: Arc<dyn Disk>, path: PathBuf) -> Result<Self, StoreError> {
        // Another name than chunks have that an earlier try may have left.
        let part = beside(&path, ".whole.part");
        match disk.remove(&part) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("removing", &part)(error));
            }
            _ => {}
        }
        let file = disk.open(&part, Mode::New);
        let file = file.map_err(io_error("creating", &part))?;
        Ok(Self {
            disk,
            path,
            part,
            file,
            hasher: BlobHasher::new(),
            write_back: WriteBack::default(),
            published: false,
        })
    }

    pub(super) fn write(&mut self, piece: &[u8]) -> Result<(), StoreError> {
        let at = self.hasher.size_bytes();
        self.hasher.update(piece)?;
        let written = self.file.write(piece, at);
        written.map_err(io_error("writing", &self.part))?;
        let flushed = self.write_back.wrote(&*self.file, piece.len() as u64);
        flushed.map_err(io_error("flushing", &self.part))
    }

    pub(super) fn finish(mut self, expected: Option<BlobId>) -> Result<Stored, StoreError> {
        let hashed = std::mem::take(&mut self.hasher).finish();
        let actual = hashed.list.id();
        check_id(expected, actual)?;
        let flushed = self.file.sync();
        flushed.map_err(io_error("flushing", &self.part))?;
        publish(&*self.disk, &self.part, &self.path)?;
        self.published = true;
        remove_chunks(&*self.disk, &self.path);
        Ok(Stored {
            id: actual,
            size_bytes: hashed.size_bytes,
            hold: Hold::default(),
        })
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        if !self.published {
            // What stays is overwritten by the next try.
            let _ = self.disk.remove(&self.part);
        }
    }
}

/// A writer whose writes may outlive the futures that asked for them.
pub(super) struct SharedWhole {
    whole: Arc<Mutex<Option<Whole>>>,
}

impl SharedWhole {
    pub(super) fn new(whole: Whole) -> Self {
        let whole = Arc::new(Mutex::new(Some(whole)));
        Self { whole }
    }
}

impl BlobWriter for SharedWhole {
    fn write(&mut self, piece: Bytes) -> StoreFuture<()> {
        let whole = Arc::clone(&self.whole);
        blocking(move || match &mut *lock(&whole) {
            Some(whole) => whole.write(&piece),
            None => Err(StoreError::Broken),
        })
    }

    fn finish(self: Box<Self>, expected: Option<BlobId>) -> StoreFuture<Stored> {
        blocking(move || {
            let whole = lock(&self.whole).take();
            whole.ok_or(StoreError::Broken)?.finish(expected)
        })
    }
}
