//! Locks that keep two processes from using one data folder or one identity.
//!
//! The operating system releases a lock however its process ends, so none has to be removed.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

/// The name of the file by which a folder is locked.
pub(crate) const LOCK_FILE: &str = "lock";

/// Longest process id that is read from a lock file, in digits.
const MAX_ID_DIGITS: u64 = 20;

/// Why a lock was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    #[error("{} is in use by process {}", path.display(), Id(*process))]
    Held { path: PathBuf, process: Option<u32> },
    #[error("cannot lock {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// A process id, where it could be read.
struct Id(Option<u32>);

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(id) => id.fmt(f),
            None => f.write_str("(unknown id)"),
        }
    }
}

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Locks a folder by the file `lock` in it, which then holds the id of this process.
    pub(crate) fn folder(folder: &Path) -> Result<Self, LockError> {
        let path = folder.join(LOCK_FILE);
        let failed = |source| LockError::Io {
            path: path.clone(),
            source,
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.mode(0o600).open(&path).map_err(failed)?;
        if !take(&file).map_err(failed)? {
            let path = folder.to_owned();
            let process = id_in(&mut file);
            return Err(LockError::Held { path, process });
        }
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        write(&mut file).map_err(failed)?;
        Ok(Self { _file: file })
    }

    /// Returns the lock of a folder whose process has ended, or `None` if a process holds the lock or
    /// the folder was never locked.
    pub(crate) fn stale_folder(folder: &Path) -> Option<Self> {
        Self::file(&folder.join(LOCK_FILE)).ok()
    }

    /// Locks a file that is only read, such as an identity.
    pub(crate) fn file(path: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Io {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(failed)?;
        if !take(&file).map_err(failed)? {
            return Err(LockError::Held {
                path: path.to_owned(),
                process: holder_of(&file),
            });
        }
        Ok(Self { _file: file })
    }
}

/// Takes the lock of an open file, if no other process has it.
fn take(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The process id that the holder of a lock has written.
fn id_in(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(MAX_ID_DIGITS).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// The process that holds the lock of an open file, as the system lists it. `None` on systems and
/// file systems without such a list.
fn holder_of(file: &File) -> Option<u32> {
    let stat = rustix::fs::fstat(file).ok()?;
    let (major, minor) = (
        rustix::fs::major(stat.st_dev),
        rustix::fs::minor(stat.st_dev),
    );
    let id = format!("{major:02x}:{minor:02x}:{}", stat.st_ino);
    holder_in(&std::fs::read_to_string("/proc/locks").ok()?, &id)
}

/// The process that holds the lock of the file with an id, `major:minor:inode`, in the text of
/// `/proc/locks`.
fn holder_in(locks: &str, id: &str) -> Option<u32> {
    locks.lines().find_map(|line| {
        // 1: FLOCK  ADVISORY  WRITE 4242 fd:00:1311 0 EOF. A waiter has `->` in the second column.
        let fields: Vec<_> = line.split_whitespace().collect();
        match fields[..] {
            [_, "FLOCK", _, _, process, file, ..] if file == id => process.parse().ok(),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_locked_once_and_the_error_names_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let first = Lock::folder(folder.path()).unwrap();
        let error = Lock::folder(folder.path()).unwrap_err().to_string();
        let expected = format!("in use by process {}", std::process::id());
        assert!(error.contains(&expected), "{error}");
        drop(first);
        Lock::folder(folder.path()).unwrap();
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_file_is_locked_once_and_the_error_names_the_process() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let first = Lock::file(file.path()).unwrap();
        let error = Lock::file(file.path()).unwrap_err().to_string();
        let expected = format!("in use by process {}", std::process::id());
        assert!(error.contains(&expected), "{error}");
        drop(first);
        Lock::file(file.path()).unwrap();
    }

    #[test]
    fn the_holder_of_a_lock_is_found_among_others() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 fd:00:1311 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 8 fd:00:1312 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 9 fd:00:1311 0 EOF\n\
                     3: -> FLOCK  ADVISORY  WRITE 10 fd:00:1311 0 EOF\n";
        assert_eq!(holder_in(locks, "fd:00:1311"), Some(9));
        assert_eq!(holder_in(locks, "fd:01:1311"), None);
    }
}
