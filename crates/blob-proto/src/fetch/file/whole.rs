//! Content that arrives in order.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
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
        disk::{Disk, DiskFile, Lock, Mode, WriteBack},
        error::io_error,
    },
};

/// Ending of the file that a transfer locks. Chunks that an earlier attempt may have left have
/// another one.
const LOCK: &str = ".whole.part";

/// Files that sessions of one transfer write at the same time, at most: 16. Two providers are asked
/// at a time, and a third one may send a small blob as a whole.
const MAX_PARTS: usize = 16;

/// The files of one transfer: one for each session that writes all of the content. The first one
/// that is complete gets the name of the destination.
pub(super) struct Parts {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    locked: Mutex<Locked>,
}

#[derive(Default)]
struct Locked {
    /// Held until the transfer has ended: two transfers would mix their content. `None` before the
    /// first session, and once a file is complete.
    lock: Option<Lock>,
    finished: bool,
    /// Numbers of the files that exist.
    used: BTreeSet<usize>,
}

impl Parts {
    pub(super) fn new(disk: Arc<dyn Disk>, path: PathBuf) -> Arc<Self> {
        Arc::new(Self {
            disk,
            path,
            locked: Mutex::default(),
        })
    }

    fn name(&self, number: usize) -> PathBuf {
        beside(&self.path, &format!(".whole.{number}.part"))
    }

    fn remove(&self, part: &Path) -> Result<(), StoreError> {
        match self.disk.remove(part) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(io_error("deleting", part)(error))
            }
            _ => Ok(()),
        }
    }

    /// Locks the destination for this transfer, and deletes what an earlier process left.
    fn lock(&self) -> Result<Lock, StoreError> {
        let path = beside(&self.path, LOCK);
        let lock = self.disk.lock(&path).and_then(|lock| {
            let busy = || {
                io::Error::new(
                    io::ErrorKind::ResourceBusy,
                    "another transfer is writing this file",
                )
            };
            lock.ok_or_else(busy)
        });
        let lock = lock.map_err(io_error("locking", &path))?;
        (0..MAX_PARTS).try_for_each(|number| self.remove(&self.name(number)))?;
        Ok(lock)
    }

    /// Begins a file for one session.
    pub(super) fn create(self: &Arc<Self>) -> Result<Whole, StoreError> {
        let mut locked = lock(&self.locked);
        if locked.finished {
            return Err(StoreError::Broken);
        }
        if locked.lock.is_none() {
            locked.lock = Some(self.lock()?);
        }
        let number = (0..MAX_PARTS).find(|number| !locked.used.contains(number));
        let number = number.ok_or(StoreError::TooMany {
            what: "files of one transfer",
            max: MAX_PARTS,
        })?;
        let part = self.name(number);
        let file = self.disk.open(&part, Mode::New);
        let file = file.map_err(io_error("creating", &part))?;
        locked.used.insert(number);
        drop(locked);
        Ok(Whole {
            parts: Arc::clone(self),
            number,
            part,
            file,
            hasher: BlobHasher::new(),
            write_back: WriteBack::default(),
        })
    }

    /// Gives a complete file its name, deletes the others, and releases the lock. Returns `false` if
    /// another session was faster: its file has the same content, and the names belong to the next
    /// transfer.
    fn publish(&self, number: usize, part: &Path) -> Result<bool, StoreError> {
        let mut locked = lock(&self.locked);
        if locked.finished {
            return Ok(false);
        }
        publish(&*self.disk, part, &self.path)?;
        locked.finished = true;
        locked.used.remove(&number);
        for other in std::mem::take(&mut locked.used) {
            // What cannot be deleted now is deleted by the next transfer into this file.
            let _ = self.remove(&self.name(other));
        }
        self.unlock(&mut locked);
        Ok(true)
    }

    fn unlock(&self, locked: &mut Locked) {
        if let Some(held) = locked.lock.take() {
            let _ = self.remove(&beside(&self.path, LOCK));
            drop(held);
        }
    }

    /// Deletes the file of a session, unless another transfer may own the name by now.
    fn discard(&self, number: usize) {
        let mut locked = lock(&self.locked);
        if locked.used.remove(&number) {
            let _ = self.remove(&self.name(number));
        }
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        let mut locked = std::mem::take(&mut *lock(&self.locked));
        self.unlock(&mut locked);
    }
}

/// A file that grows. Deleted when dropped, unless it was finished.
pub(super) struct Whole {
    parts: Arc<Parts>,
    number: usize,
    part: PathBuf,
    file: Box<dyn DiskFile>,
    hasher: BlobHasher,
    write_back: WriteBack,
}

impl Whole {
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
        if self.parts.publish(self.number, &self.part)? {
            remove_chunks(&*self.parts.disk, &self.parts.path);
        }
        Ok(Stored {
            id: actual,
            size_bytes: hashed.size_bytes,
            hold: Hold::default(),
        })
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        self.parts.discard(self.number);
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

#[cfg(test)]
mod tests;
