//! A folder whose files appear whole and durable, or not at all.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::store::{
    disk::{Disk, DiskFile, Mode},
    error::{StoreError, io_error},
};

/// Ending of files that are not whole yet, after a number.
const TEMPORARY: &str = ".tmp";

/// Files that are written together, at most: 256, since each holds a descriptor until it is
/// published.
const MAX_OPEN: usize = 256;

/// Returns `true` for the name of a file that a process did not finish. Such files are deleted when
/// the store is opened.
pub(super) fn is_temporary(name: &str) -> bool {
    name.strip_suffix(TEMPORARY)
        .is_some_and(|number| number.parse::<u64>().is_ok())
}

/// A folder of the store.
#[derive(Clone, Debug)]
pub(super) struct Dir {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    temporaries: Arc<AtomicU64>,
}

impl Dir {
    /// Opens a folder, creating it where it does not exist. Returns the folders above that are to be
    /// flushed to make its name durable.
    pub(super) fn open(
        disk: &Arc<dyn Disk>,
        path: PathBuf,
    ) -> Result<(Self, Vec<PathBuf>), StoreError> {
        let parents = disk.create_dir(&path);
        let parents = parents.map_err(io_error("creating", &path))?;
        let dir = Self {
            disk: Arc::clone(disk),
            path,
            temporaries: Arc::default(),
        };
        Ok((dir, parents))
    }

    /// Opens a folder of this folder, creating it where it does not exist. Its name is durable once
    /// this folder is [flushed](Self::flush).
    pub(super) fn subfolder(&self, name: &str) -> Result<Self, StoreError> {
        Ok(Self::open(&self.disk, self.join(name))?.0)
    }

    pub(super) fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Makes the folder accessible to its owner alone.
    pub(super) fn make_private(&self) {
        self.disk.make_private(&self.path);
    }

    /// Returns the names of the regular files, after temporary files of a former process are
    /// deleted.
    pub(super) fn sweep(&self) -> Result<Vec<String>, StoreError> {
        let files = self.disk.files(&self.path);
        let mut names = files.map_err(io_error("listing", &self.path))?;
        let temporaries: Vec<_> = names.extract_if(.., |name| is_temporary(name)).collect();
        for name in temporaries {
            self.remove(&name)?;
        }
        Ok(names)
    }

    /// Opens a file of the folder.
    pub(super) fn file(&self, name: &str, mode: Mode) -> Result<Box<dyn DiskFile>, StoreError> {
        let path = self.join(name);
        let opened = self.disk.open(&path, mode);
        opened.map_err(io_error("opening", &path))
    }

    /// Reads a small file. `None` where it does not exist or is longer than `max_bytes`.
    pub(super) fn read(&self, name: &str, max_bytes: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.join(name);
        let content = self.disk.read(&path, max_bytes);
        content.map_err(io_error("reading", &path))
    }

    /// Creates a file that is not visible until it is published.
    pub(super) fn temporary(&self) -> Result<Temporary, StoreError> {
        let number = self.temporaries.fetch_add(1, Ordering::Relaxed);
        let path = self.path.join(format!("{number}{TEMPORARY}"));
        let opened = self.disk.open(&path, Mode::New);
        Ok(Temporary {
            disk: Arc::clone(&self.disk),
            file: opened.map_err(io_error("creating", &path))?,
            path,
            len_bytes: 0,
            published: false,
        })
    }

    /// Writes a small file that appears whole. Durable once [`flush`](Self::flush) returns.
    pub(super) fn write(&self, name: &str, content: &[u8]) -> Result<(), StoreError> {
        let mut temporary = self.temporary()?;
        temporary.append(content)?;
        temporary.flush()?;
        temporary.publish(self, name)
    }

    /// Writes small files as [`write`](Self::write) does, with one flush of their content for many.
    pub(super) fn write_all(
        &self,
        files: impl IntoIterator<Item = (String, Vec<u8>)>,
    ) -> Result<(), StoreError> {
        let mut files = files.into_iter().peekable();
        while files.peek().is_some() {
            let mut group = Vec::new();
            for (name, content) in files.by_ref().take(MAX_OPEN) {
                let mut temporary = self.temporary()?;
                temporary.append(&content)?;
                group.push((name, temporary));
            }
            let paths: Vec<&Path> = group.iter().map(|(_, file)| file.path.as_path()).collect();
            let flushed = self.disk.sync_files(&self.path, &paths);
            flushed.map_err(io_error("flushing", &self.path))?;
            for (name, temporary) in group {
                temporary.publish(self, &name)?;
            }
        }
        Ok(())
    }

    /// Renames a file within the folder. Durable once [`flush`](Self::flush) returns.
    pub(super) fn rename(&self, from: &str, to: &str) -> Result<(), StoreError> {
        let from = self.join(from);
        let renamed = self.disk.rename(&from, &self.join(to));
        renamed.map_err(io_error("renaming", &from))
    }

    /// Deletes a file if it exists. Durable once [`flush`](Self::flush) returns.
    pub(super) fn remove(&self, name: &str) -> Result<(), StoreError> {
        let path = self.join(name);
        match self.disk.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(io_error("deleting", &path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Makes what was published, renamed and removed durable.
    pub(super) fn flush(&self) -> Result<(), StoreError> {
        let flushed = self.disk.sync_dir(&self.path);
        flushed.map_err(io_error("flushing", &self.path))
    }
}

/// A file that is deleted when dropped, unless it was published.
#[derive(Debug)]
pub(super) struct Temporary {
    disk: Arc<dyn Disk>,
    pub(super) file: Box<dyn DiskFile>,
    pub(super) path: PathBuf,
    len_bytes: u64,
    published: bool,
}

impl Temporary {
    /// Writes the next piece of the content.
    pub(super) fn append(&mut self, piece: &[u8]) -> Result<(), StoreError> {
        let written = self.file.write(piece, self.len_bytes);
        written.map_err(io_error("writing", &self.path))?;
        self.len_bytes += piece.len() as u64;
        Ok(())
    }

    /// Makes the content durable.
    pub(super) fn flush(&self) -> Result<(), StoreError> {
        let flushed = self.file.sync();
        flushed.map_err(io_error("flushing", &self.path))
    }

    /// Gives the file its name, in place of what had it. Its content must be flushed before, and
    /// its name is durable once the folder is flushed after.
    pub(super) fn publish(mut self, dir: &Dir, name: &str) -> Result<(), StoreError> {
        let renamed = self.disk.rename(&self.path, &dir.join(name));
        renamed.map_err(io_error("renaming", &self.path))?;
        self.published = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.published {
            // What cannot be deleted now is deleted when the store is next opened.
            let _ = self.disk.remove(&self.path);
        }
    }
}
