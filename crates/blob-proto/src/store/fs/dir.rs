//! A folder whose files appear whole and durable, or not at all.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::store::error::{StoreError, io_error};

/// Ending of files that are not whole yet, after a number.
const TEMPORARY: &str = ".tmp";

/// Whether a file is one that a process did not finish. Such are deleted when the store is
/// opened.
pub(super) fn is_temporary(name: &str) -> bool {
    name.strip_suffix(TEMPORARY)
        .is_some_and(|number| number.parse::<u64>().is_ok())
}

/// A folder of the store.
#[derive(Clone, Debug)]
pub(super) struct Dir {
    path: PathBuf,
    /// Open for as long as the store is, to flush the folder's own entries.
    handle: Arc<File>,
    temporaries: Arc<AtomicU64>,
}

impl Dir {
    /// Opens a folder, creating it where it does not exist.
    pub(super) fn open(path: PathBuf) -> Result<Self, StoreError> {
        fs::create_dir_all(&path).map_err(io_error("creating", &path))?;
        let handle = File::open(&path).map_err(io_error("opening", &path))?;
        Ok(Self {
            path,
            handle: Arc::new(handle),
            temporaries: Arc::default(),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Names of the regular files here, after those of a former process that never became whole
    /// are deleted.
    pub(super) fn sweep(&self) -> Result<Vec<String>, StoreError> {
        let failed = || io_error("listing", &self.path);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed())? {
            let entry = entry.map_err(failed())?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if is_temporary(&name) {
                self.remove(&name)?;
            } else if entry.file_type().map_err(failed())?.is_file() {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// A new file that nobody sees until it is published.
    pub(super) fn temporary(&self) -> Result<Temporary, StoreError> {
        let number = self.temporaries.fetch_add(1, Ordering::Relaxed);
        let path = self.path.join(format!("{number}{TEMPORARY}"));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(io_error("creating", &path))?;
        Ok(Temporary {
            file,
            path,
            published: false,
        })
    }

    /// Writes a small file that appears whole. Durable once [`flush`](Self::flush) returns.
    pub(super) fn write(&self, name: &str, content: &[u8]) -> Result<(), StoreError> {
        let mut temporary = self.temporary()?;
        let result = temporary.file.write_all(content);
        result.map_err(io_error("writing", &temporary.path))?;
        temporary.flush()?;
        temporary.publish(self, name)
    }

    /// Renames a file within the folder. Durable once [`flush`](Self::flush) returns.
    pub(super) fn rename(&self, from: &str, to: &str) -> Result<(), StoreError> {
        let from = self.join(from);
        fs::rename(&from, self.join(to)).map_err(io_error("renaming", &from))
    }

    /// Deletes a file if it is there. Durable once [`flush`](Self::flush) returns.
    pub(super) fn remove(&self, name: &str) -> Result<(), StoreError> {
        let path = self.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(io_error("deleting", &path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Makes what was published, renamed and removed durable.
    pub(super) fn flush(&self) -> Result<(), StoreError> {
        let flushed = self.handle.sync_all();
        flushed.map_err(io_error("flushing", &self.path))
    }
}

/// A file that is deleted when dropped, unless it was published.
#[derive(Debug)]
pub(super) struct Temporary {
    pub(super) file: File,
    pub(super) path: PathBuf,
    published: bool,
}

impl Temporary {
    /// Makes the content durable.
    pub(super) fn flush(&self) -> Result<(), StoreError> {
        let flushed = self.file.sync_all();
        flushed.map_err(io_error("flushing", &self.path))
    }

    /// Gives the file its name, in place of whatever had it. Its content must be flushed before,
    /// and its name is durable once the folder is flushed after.
    pub(super) fn publish(mut self, dir: &Dir, name: &str) -> Result<(), StoreError> {
        fs::rename(&self.path, dir.join(name)).map_err(io_error("renaming", &self.path))?;
        self.published = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.published {
            // What cannot be deleted now is swept when the store is next opened.
            let _ = fs::remove_file(&self.path);
        }
    }
}
