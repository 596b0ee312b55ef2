//! The file system of the host.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use rustix::{
    buffer::spare_capacity,
    fs::{FlockOperation, OFlags, flock},
    io::{Errno, pread},
};

use super::{ChunkFile, Disk, DiskFile, Lock, Mode};

/// Permissions of folders: their owner alone.
const FOLDER_MODE: u32 = 0o700;

/// Files that are flushed one by one. More of them are flushed with their file system at once: 64,
/// a guess. The flush of the file system also writes what other programs have changed.
#[cfg(target_os = "linux")]
const SINGLE_FLUSHES: usize = 64;

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
    fn create_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let missing = path.ancestors().take_while(|folder| !folder.exists());
        let parents = missing.filter_map(Path::parent).map(|parent| {
            // The parent of a relative path of one component.
            let parent = Some(parent).filter(|parent| !parent.as_os_str().is_empty());
            parent.unwrap_or(Path::new(".")).to_owned()
        });
        let parents = parents.collect();
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(FOLDER_MODE).create(path)?;
        Ok(parents)
    }

    fn make_private(&self, path: &Path) {
        // A folder of an earlier version, or one that was made for the store. Another owner's
        // folder keeps its permissions.
        let _ = fs::set_permissions(path, fs::Permissions::from_mode(FOLDER_MODE));
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

    fn sync_files(&self, dir: &Path, files: &[&Path]) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        if files.len() > SINGLE_FLUSHES {
            return Ok(rustix::fs::syncfs(File::open(dir)?)?);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = dir;
        (files.iter()).try_for_each(|path| File::open(path)?.sync_all())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Lock>> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        // In a folder that others may write to, a link would lead to a file of this user.
        let no_links = OFlags::NOFOLLOW.bits().cast_signed();
        options.mode(self.file_mode).custom_flags(no_links);
        loop {
            let file = options.open(path)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // Between the two calls the holder before may have renamed or removed the file. Its
                // name is then that of another file, which is not locked.
                Ok(()) if is_at(&file, path)? => return Ok(Some(Lock::new(file))),
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Returns whether `path` is the name of the open `file`.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let open = file.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (open.dev(), open.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
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

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, AtomicU32, Ordering},
        thread,
    };

    use super::*;

    /// As two programs that write one file do: the holder gives the locked file another name.
    #[test]
    fn a_lock_is_held_by_one_although_its_file_is_renamed() {
        let dir = tempfile::tempdir().unwrap();
        let (part, whole) = (dir.path().join("part"), dir.path().join("whole"));
        let (held, times) = (AtomicBool::new(false), AtomicU32::new(0));
        let hold = || {
            while times.load(Ordering::Relaxed) < 2000 {
                if let Some(_lock) = RealDisk::PRIVATE.lock(&part).unwrap() {
                    assert!(!held.swap(true, Ordering::SeqCst), "two hold the lock");
                    times.fetch_add(1, Ordering::Relaxed);
                    held.store(false, Ordering::SeqCst);
                    // From here on another thread may create the file and lock it.
                    RealDisk::PRIVATE.rename(&part, &whole).unwrap();
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(hold);
            }
        });
    }
}
