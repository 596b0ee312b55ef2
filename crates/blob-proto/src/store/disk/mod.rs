//! The file system operations that the stores need, behind traits, so that tests can cut the power
//! between any two of them.

mod chunk_file;
#[cfg(all(test, target_os = "linux"))]
mod flushes;
mod real;
#[cfg(all(test, feature = "fs"))]
pub(crate) mod sim;
mod write_back;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};

pub(crate) use self::{chunk_file::ChunkFile, real::RealDisk, write_back::WriteBack};

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// To be read. The file must exist.
    Read,
    /// To be read and written. The file must exist.
    Write,
    /// To be read and written. The file must not exist.
    New,
    /// To be read and written in whole chunks. Created where it does not exist, never truncated.
    Chunks {
        /// Most that may be allocated ahead of what is written, in bytes.
        limit_bytes: u64,
    },
}

/// A lock that is held until it is dropped or the process ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _held: Box<dyn Held>,
}

impl Lock {
    fn new(held: impl Held + 'static) -> Self {
        Self {
            _held: Box::new(held),
        }
    }
}

/// What a [`Lock`] drops to release it.
trait Held: fmt::Debug + Send + Sync {}

impl<T: fmt::Debug + Send + Sync> Held for T {}

/// A file system. Folders are created for their owner alone (0700).
///
/// What [`DiskFile::write`], [`rename`](Disk::rename) and [`remove`](Disk::remove) did may be lost
/// or reordered by a power cut until [`DiskFile::sync`] or [`sync_dir`](Disk::sync_dir) returns.
pub(crate) trait Disk: fmt::Debug + Send + Sync {
    /// Creates a folder and those above it, where they do not exist. A folder that exists stays as it
    /// is. Returns the folders that have a new name, which is durable once they are flushed.
    fn create_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>>;

    /// Makes a folder accessible to its owner alone. That of another owner stays as it is.
    fn make_private(&self, path: &Path);

    /// Returns the names of the regular files in a folder. Names that are not UTF-8 are left out.
    fn files(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Returns `true` for a regular file, after symbolic links were followed.
    fn is_regular(&self, path: &Path) -> io::Result<bool>;

    /// Opens a file in one of the modes.
    fn open(&self, path: &Path, mode: Mode) -> io::Result<Box<dyn DiskFile>>;

    /// Renames a file within its folder, in place of what has the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes the name of a file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a folder durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Makes content and length of several files of one folder durable.
    fn sync_files(&self, dir: &Path, files: &[&Path]) -> io::Result<()>;

    /// Locks a file that is created where it does not exist. `None` while another process or
    /// another store of this process holds the lock. The holder may rename or remove the file.
    /// A symbolic link is refused.
    fn lock(&self, path: &Path) -> io::Result<Option<Lock>>;

    /// Reads a whole file of at most `max_bytes`. `None` where it does not exist or is longer.
    fn read(&self, path: &Path, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
        let file = match self.open(path, Mode::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let len_bytes = file.len()?;
        let mut content = Vec::new();
        match usize::try_from(len_bytes) {
            Ok(len) if len_bytes <= max_bytes => file.read(&mut content, len, 0)?,
            _ => return Ok(None),
        }
        Ok(Some(content))
    }
}

/// An open file of a disk.
pub(crate) trait DiskFile: fmt::Debug + Send + Sync {
    /// Length of the file, in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Time of the last write, since the Unix epoch.
    fn modified(&self) -> io::Result<Duration>;

    /// Appends up to `len` bytes of the file, from the offset `at`, to `to`. Fewer only at the end
    /// of the file.
    fn read(&self, to: &mut Vec<u8>, len: usize, at: u64) -> io::Result<()>;

    /// Writes all of `from` at the offset `at`. It survives the end of the process.
    fn write(&self, from: &[u8], at: u64) -> io::Result<()>;

    /// Sets the length of the file, in bytes.
    fn set_len(&self, len_bytes: u64) -> io::Result<()>;

    /// Makes content and length durable.
    fn sync(&self) -> io::Result<()>;
}
