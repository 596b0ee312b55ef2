//! The file system of the host.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt},
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use rustix::{
    buffer::spare_capacity,
    fs::{FlockOperation, flock},
    io::{Errno, pread},
};

use super::{ChunkFile, Disk, DiskFile, Lock, Mode};

/// Permissions of folders: their owner alone.
const FOLDER_MODE: u32 = 0o700;

/// The file system of the host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RealDisk {
    /// Permissions of new files, from which the umask is taken.
    file_mode: u32,
}

impl RealDisk {
    /// For files that their owner alone reads and writes.
    pub(crate) const PRIVATE: Self = Self { file_mode: 0o600 };
    /// For files with the permissions that a program gives its files.
    pub(crate) const DEFAULT: Self = Self { file_mode: 0o666 };
}

impl Disk for RealDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(FOLDER_MODE).create(path)?;
        // A folder of an earlier version, or one that was made for the store. Another owner's
        // folder keeps its permissions.
        let _ = fs::set_permissions(path, fs::Permissions::from_mode(FOLDER_MODE));
        Ok(())
    }

    fn files(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string()
                && entry.file_type()?.is_file()
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn is_regular(&self, path: &Path) -> io::Result<bool> {
        Ok(fs::metadata(path)?.is_file())
    }

    fn open(&self, path: &Path, mode: Mode) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).mode(self.file_mode);
        match mode {
            Mode::Read => {}
            Mode::Write => {
                options.write(true);
            }
            Mode::Chunks { .. } => {
                options.write(true).create(true).truncate(false);
            }
            Mode::New => {
                options.write(true).create_new(true);
            }
        }
        let file = options.open(path)?;
        Ok(match mode {
            Mode::Chunks { limit_bytes } => Box::new(ChunkFile::new(file, path, limit_bytes)),
            _ => Box::new(file),
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Lock>> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        let file = options.mode(self.file_mode).open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock::new(file))),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl DiskFile for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn modified(&self) -> io::Result<Duration> {
        let modified = self.metadata()?.modified()?;
        Ok(modified.duration_since(UNIX_EPOCH).unwrap_or_default())
    }

    fn read(&self, to: &mut Vec<u8>, len: usize, at: u64) -> io::Result<()> {
        // Into memory that need not be cleared first. `pread` fills all spare capacity, so what
        // exceeds `len` is cut at the end.
        let end = to.len() + len;
        to.reserve_exact(len);
        let begin = to.len();
        while to.len() < end {
            let offset = at + (to.len() - begin) as u64;
            match pread(self, spare_capacity(to), offset) {
                Ok(0) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        to.truncate(end);
        Ok(())
    }

    fn write(&self, from: &[u8], at: u64) -> io::Result<()> {
        self.write_all_at(from, at)
    }

    fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        File::set_len(self, len_bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_all()
    }
}
