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
        disk::{Disk, DiskFile, Lock, Mode, WriteBack},
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
    /// Held until `part` has its name or is deleted: two writers would mix their content.
    _lock: Lock,
}

impl Whole {
    pub(super) fn create(disk: Arc<dyn Disk>, path: PathBuf) -> Result<Self, StoreError> {
        // Another name than chunks have that an earlier try may have left.
        let part = beside(&path, ".whole.part");
        let lock = disk.lock(&part).and_then(|lock| {
            let busy = || {
                io::Error::new(
                    io::ErrorKind::ResourceBusy,
                    "another transfer is writing this file",
                )
            };
            lock.ok_or_else(busy)
        });
        let lock = lock.map_err(io_error("locking", &part))?;
        let file = disk.open(&part, Mode::Write);
        let file = file.map_err(io_error("opening", &part))?;
        // What an earlier try left.
        file.set_len(0).map_err(io_error("emptying", &part))?;
        Ok(Self {
            disk,
            path,
            part,
            file,
            hasher: BlobHasher::new(),
            write_back: WriteBack::default(),
            published: false,
            _lock: lock,
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

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;
    use crate::store::disk::RealDisk;

    fn create(path: PathBuf) -> Result<Whole, StoreError> {
        Whole::create(Arc::new(RealDisk::DEFAULT), path)
    }

    #[test]
    fn a_second_writer_of_one_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut first = create(path.clone()).unwrap();
        first.write(b"the first half, ").unwrap();
        let refused = create(path.clone()).err().unwrap().to_string();
        assert!(
            refused.contains("another transfer is writing this file"),
            "{refused}"
        );
        first.write(b"the second half").unwrap();
        first.finish(None).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"the first half, the second half");

        let mut next = create(path.clone()).unwrap();
        next.write(b"next").unwrap();
        drop(next);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let mut last = create(path.clone()).unwrap();
        last.write(b"last").unwrap();
        last.finish(None).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"last");
    }

    #[test]
    fn a_link_in_place_of_the_part_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("file"), dir.path().join("other"));
        fs::write(&other, "kept").unwrap();
        symlink(&other, beside(&path, ".whole.part")).unwrap();
        assert!(create(path).is_err());
        assert_eq!(fs::read(&other).unwrap(), b"kept");
    }
}
