//! The peer cache in a file.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use super::{
    CacheError, Damage, Loaded, PeerCache,
    text::{FormatError, MAX_CACHE_BYTES, decode, encode},
};
use crate::machine::CacheEntry;

/// A [`PeerCache`] in one file, readable by its owner alone.
///
/// A save writes a new file (`<name>.new`), flushes it to the disk and renames it, so that after a
/// crash the file holds the old or the new content as a whole. A file that is not a cache is
/// renamed to `<name>.broken`, and no peers are loaded.
///
/// A file belongs to one process at a time. Two processes that share it overwrite each other's
/// peers.
#[derive(Debug)]
pub struct FileCache {
    path: PathBuf,
    /// Held during a save, because all saves use one name for the new file.
    saving: Mutex<()>,
}

impl FileCache {
    /// Creates the cache at `path`. The file is read and written later; its folder has to exist
    /// when peers are saved.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            saving: Mutex::new(()),
        }
    }

    /// Returns the path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path with `suffix` appended to its name.
    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = OsString::from(&self.path);
        name.push(suffix);
        name.into()
    }

    /// Reads the content, at most one byte more than a cache may have; `None` if there is no file.
    fn read(&self) -> io::Result<Option<Vec<u8>>> {
        // Only a regular file is opened: opening a pipe would block until another process writes to
        // it.
        match fs::metadata(&self.path) {
            Ok(metadata) if !metadata.is_file() => {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "is not a file"));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
        let mut bytes = Vec::new();
        let limit = MAX_CACHE_BYTES as u64 + 1;
        File::open(&self.path)?
            .take(limit)
            .read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    fn put_aside(&self, reason: FormatError) -> Damage {
        let aside = self.beside(".broken");
        Damage {
            path: self.path.clone(),
            reason,
            put_aside: fs::rename(&self.path, &aside).map(|()| aside),
        }
    }
}

impl PeerCache for FileCache {
    fn load(&self, now: SystemTime) -> Result<Loaded, CacheError> {
        let read = self.read();
        let Some(bytes) = read.map_err(|source| io_error("reading", &self.path, source))? else {
            return Ok(Loaded::default());
        };
        Ok(match decode(&bytes, now) {
            Ok(entries) => Loaded {
                entries,
                damage: None,
            },
            Err(reason) => Loaded {
                entries: Vec::new(),
                damage: Some(self.put_aside(reason)),
            },
        })
    }

    fn save(&self, entries: &[CacheEntry], now: SystemTime) -> Result<(), CacheError> {
        let text = encode(entries, now);
        let new = self.beside(".new");
        let _one_at_a_time = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        write_for_owner(&new, text.as_bytes())
            .map_err(|source| io_error("writing", &new, source))?;
        fs::rename(&new, &self.path)
            .map_err(|source| io_error("renaming to", &self.path, source))?;
        flush_folder(&self.path)
    }
}

fn write_for_owner(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A file that a crash left behind may have other permissions.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    write_durable(options.open(path)?, bytes)
}

fn write_durable(mut file: File, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes the rename durable. On systems other than Unix a folder cannot be opened as a file, so
/// durability depends on the journal of the file system.
#[cfg(unix)]
fn flush_folder(path: &Path) -> Result<(), CacheError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| io_error("flushing", folder, source))
}

#[cfg(not(unix))]
fn flush_folder(_: &Path) -> Result<(), CacheError> {
    Ok(())
}

fn io_error(doing: &'static str, path: &Path, source: io::Error) -> CacheError {
    CacheError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests;
