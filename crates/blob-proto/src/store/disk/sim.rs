//! A file system in memory that loses power.
//!
//! It counts operations. Once the power is off, every operation fails, and [`SimDisk::after_cut`]
//! returns one state that a disk could have then: of each file and each folder, what was flushed,
//! and of what came after the flush any part, each operation independent of the others. Writes are
//! torn as well. A folder whose name was not flushed may be lost with all that it holds. That is more
//! than real file systems lose: most of them keep more order.

#![expect(clippy::unwrap_used, reason = "this module is part of the tests")]

use std::{
    collections::{BTreeMap, HashSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use super::{Disk, DiskFile, Lock, Mode};
use crate::clock::unix_seconds;

/// Error of the system where a process has no descriptor left, on every Unix.
const EMFILE: i32 = 24;

#[derive(Clone, Debug)]
enum Write {
    At(u64, Vec<u8>),
    Len(u64),
}

impl Write {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::At(at, bytes) => {
                let at = usize::try_from(*at).unwrap();
                if to.len() < at + bytes.len() {
                    to.resize(at + bytes.len(), 0);
                }
                to[at..at + bytes.len()].copy_from_slice(bytes);
            }
            Self::Len(len) => to.resize(usize::try_from(*len).unwrap(), 0),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Inode {
    now: Vec<u8>,
    flushed: Vec<u8>,
    pending: Vec<Write>,
}

#[derive(Clone, Debug)]
enum Naming {
    Create(String, usize),
    Rename(String, String),
    Remove(String),
}

impl Naming {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Create(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            Self::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
            Self::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Folder {
    now: BTreeMap<String, usize>,
    flushed: BTreeMap<String, usize>,
    pending: Vec<Naming>,
}

#[derive(Debug, Default)]
struct State {
    inodes: Vec<Inode>,
    folders: BTreeMap<PathBuf, Folder>,
    /// Folders whose own names are flushed.
    named: HashSet<PathBuf>,
    locks: HashSet<PathBuf>,
    operations: u64,
    /// Operations after which the power is off.
    power: Option<u64>,
    /// For each flush, the number of operations with it.
    flushes: Vec<u64>,
    /// The flush that reports success and flushes nothing.
    lost_flush: Option<usize>,
    /// Time since the last write to every file.
    age: Duration,
    /// Most bytes that all files may have.
    space_bytes: Option<u64>,
    /// Number of the operation that fails, once.
    failing: Option<u64>,
    /// Whether the process has no descriptor left.
    no_descriptors: bool,
}

impl State {
    /// Counts an operation that changes something.
    fn operate(&mut self) -> io::Result<()> {
        if self.power.is_some_and(|power| self.operations >= power) {
            return Err(io::Error::other("the power is off"));
        }
        self.operations += 1;
        if self.failing == Some(self.operations - 1) {
            return Err(io::Error::other("the operation fails"));
        }
        Ok(())
    }

    /// Fails where the process has no descriptor left.
    fn take_descriptor(&self) -> io::Result<()> {
        match self.no_descriptors {
            true => Err(io::Error::from_raw_os_error(EMFILE)),
            false => Ok(()),
        }
    }

    /// Counts a flush. Returns `true` where it has to be carried out.
    fn flush(&mut self) -> io::Result<bool> {
        self.operate()?;
        self.flushes.push(self.operations);
        Ok(self
            .lost_flush
            .is_none_or(|lost| lost + 1 != self.flushes.len()))
    }

    fn folder(&mut self, path: &Path) -> io::Result<(&mut Folder, String)> {
        let dir = path.parent().unwrap();
        let folder = self.folders.get_mut(dir).ok_or(io::ErrorKind::NotFound)?;
        let name = path.file_name().unwrap().to_str().unwrap();
        Ok((folder, name.to_owned()))
    }

    fn inode(&mut self, path: &Path) -> io::Result<usize> {
        let (folder, name) = self.folder(path)?;
        let inode = folder.now.get(&name).copied();
        inode.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn rename_or(&mut self, path: &Path, naming: Naming) -> io::Result<()> {
        self.inode(path)?;
        self.operate()?;
        let (folder, _) = self.folder(path)?;
        naming.apply(&mut folder.now);
        folder.pending.push(naming);
        Ok(())
    }

    fn used_bytes(&self) -> u64 {
        let named: HashSet<usize> = (self.folders.values())
            .flat_map(|folder| folder.now.values().copied())
            .collect();
        named
            .iter()
            .map(|&at| self.inodes[at].now.len() as u64)
            .sum()
    }
}

/// A file system in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct SimDisk {
    state: Arc<Mutex<State>>,
}

impl SimDisk {
    /// A disk whose power fails after some operations.
    pub(crate) fn with_power(self, operations: u64) -> Self {
        self.state().power = Some(operations);
        self
    }

    /// A disk of which one operation, counted from 0, fails. Those after it succeed.
    pub(crate) fn with_failure(self, operation: u64) -> Self {
        self.state().failing = Some(operation);
        self
    }

    /// A disk that claims to have done one of its flushes, counted from 0, and has not.
    pub(crate) fn with_lost_flush(self, flush: usize) -> Self {
        self.state().lost_flush = Some(flush);
        self
    }

    pub(crate) fn with_age(self, age: Duration) -> Self {
        self.state().age = age;
        self
    }

    pub(crate) fn flushes(&self) -> Vec<u64> {
        self.state().flushes.clone()
    }

    /// Leaves that much free space, in bytes. `None` lifts the limit.
    pub(crate) fn leave_space(&self, free_bytes: Option<u64>) {
        let mut state = self.state();
        let used = state.used_bytes();
        state.space_bytes = free_bytes.map(|free| used + free);
    }

    /// Sets whether the process has no descriptor left: nothing can be opened, no folder flushed.
    pub(crate) fn set_no_descriptors(&self, no_descriptors: bool) {
        self.state().no_descriptors = no_descriptors;
    }

    pub(crate) fn operations(&self) -> u64 {
        self.state().operations
    }

    /// One state of the disk after a power cut now.
    pub(crate) fn after_cut(&self, seed: u64) -> Self {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = move || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        // The first two seeds are the extremes: nothing and everything that was not flushed.
        let mut kept = move || match seed {
            0 => false,
            1 => true,
            _ => next() >> 63 == 1,
        };
        let state = self.state();
        let inodes = state.inodes.iter().map(|inode| {
            let mut now = inode.flushed.clone();
            for write in &inode.pending {
                match write {
                    Write::At(at, bytes) if bytes.len() > 1 => {
                        let (first, second) = bytes.split_at(bytes.len() / 2);
                        let middle = at + first.len() as u64;
                        for (at, half) in [(*at, first), (middle, second)] {
                            if kept() {
                                Write::At(at, half.to_vec()).apply(&mut now);
                            }
                        }
                    }
                    write if kept() => write.apply(&mut now),
                    _ => {}
                }
            }
            Inode {
                flushed: now.clone(),
                now,
                pending: Vec::new(),
            }
        });
        let inodes = inodes.collect();
        let mut lost: HashSet<&Path> = HashSet::new();
        let folders = state.folders.iter().filter_map(|(path, folder)| {
            // The folders above come first.
            let above = path.parent().is_some_and(|above| lost.contains(above));
            if above || !(state.named.contains(path) || kept()) {
                lost.insert(path);
                return None;
            }
            let mut now = folder.flushed.clone();
            for naming in &folder.pending {
                if kept() {
                    naming.apply(&mut now);
                }
            }
            let flushed = now.clone();
            let folder = Folder {
                now,
                flushed,
                pending: Vec::new(),
            };
            Some((path.clone(), folder))
        });
        let folders: BTreeMap<_, _> = folders.collect();
        let after = State {
            inodes,
            named: folders.keys().cloned().collect(),
            folders,
            ..State::default()
        };
        Self {
            state: Arc::new(Mutex::new(after)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Disk for SimDisk {
    fn create_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let mut state = self.state();
        state.operate()?;
        let mut parents = Vec::new();
        for folder in path.ancestors() {
            if let Some(parent) = folder.parent()
                && !state.folders.contains_key(folder)
            {
                state.folders.insert(folder.to_owned(), Folder::default());
                parents.push(parent.to_owned());
            }
        }
        Ok(parents)
    }

    // Permissions are not simulated.
    fn make_private(&self, _: &Path) {}

    fn files(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        let folder = state.folders.get(dir).ok_or(io::ErrorKind::NotFound)?;
        Ok(folder.now.keys().cloned().collect())
    }

    fn is_regular(&self, path: &Path) -> io::Result<bool> {
        self.state().inode(path).map(|_| true)
    }

    fn open(&self, path: &Path, mode: Mode) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.take_descriptor()?;
        let inode = match (state.inode(path), mode) {
            (Ok(_), Mode::New) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Ok(inode), _) => inode,
            (Err(_), Mode::New | Mode::Chunks { .. }) => {
                state.operate()?;
                state.inodes.push(Inode::default());
                let inode = state.inodes.len() - 1;
                let (folder, name) = state.folder(path)?;
                let create = Naming::Create(name, inode);
                create.apply(&mut folder.now);
                folder.pending.push(create);
                inode
            }
            (Err(error), _) => return Err(error),
        };
        let state = Arc::clone(&self.state);
        Ok(Box::new(SimFile { state, inode }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let (_, from_name) = state.folder(from)?;
        let (_, to_name) = state.folder(to)?;
        state.rename_or(from, Naming::Rename(from_name, to_name))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let (_, name) = state.folder(path)?;
        state.rename_or(path, Naming::Remove(name))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.take_descriptor()?;
        let carried_out = state.flush()?;
        // The root holds folders alone.
        if dir != Path::new("/") {
            let folder = state.folders.get_mut(dir).ok_or(io::ErrorKind::NotFound)?;
            if carried_out {
                folder.flushed = folder.now.clone();
                folder.pending.clear();
            }
        }
        if carried_out {
            let below = |path: &&PathBuf| path.parent() == Some(dir);
            let named: Vec<_> = state.folders.keys().filter(below).cloned().collect();
            state.named.extend(named);
        }
        Ok(())
    }

    fn sync_files(&self, _: &Path, files: &[&Path]) -> io::Result<()> {
        let mut state = self.state();
        state.take_descriptor()?;
        let inodes: Result<Vec<_>, _> = files.iter().map(|path| state.inode(path)).collect();
        let inodes = inodes?;
        if state.flush()? {
            for inode in inodes {
                let inode = &mut state.inodes[inode];
                inode.flushed = inode.now.clone();
                inode.pending.clear();
            }
        }
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Lock>> {
        #[derive(Debug)]
        struct Release(Arc<Mutex<State>>, PathBuf);
        impl Drop for Release {
            fn drop(&mut self) {
                self.0.lock().unwrap().locks.remove(&self.1);
            }
        }
        if !self.state().locks.insert(path.to_owned()) {
            return Ok(None);
        }
        let lock = Lock::new(Release(Arc::clone(&self.state), path.to_owned()));
        self.open(path, Mode::Chunks { limit_bytes: 0 })?;
        Ok(Some(lock))
    }
}

#[derive(Debug)]
struct SimFile {
    state: Arc<Mutex<State>>,
    inode: usize,
}

impl SimFile {
    fn change(&self, write: Write, grows_to: u64) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        let grows = grows_to.saturating_sub(state.inodes[self.inode].now.len() as u64);
        let used = state.used_bytes();
        if grows > 0 && state.space_bytes.is_some_and(|space| used + grows > space) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.operate()?;
        let inode = &mut state.inodes[self.inode];
        write.apply(&mut inode.now);
        inode.pending.push(write);
        Ok(())
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        let state = self.state.lock().unwrap();
        Ok(state.inodes[self.inode].now.len() as u64)
    }

    fn modified(&self) -> io::Result<Duration> {
        let age = self.state.lock().unwrap().age;
        Ok(Duration::from_secs(unix_seconds()).saturating_sub(age))
    }

    fn read(&self, to: &mut Vec<u8>, len: usize, at: u64) -> io::Result<()> {
        let state = self.state.lock().unwrap();
        let content = &state.inodes[self.inode].now;
        let start = usize::try_from(at).unwrap().min(content.len());
        let end = (start + len).min(content.len());
        to.extend_from_slice(&content[start..end]);
        Ok(())
    }

    fn write(&self, from: &[u8], at: u64) -> io::Result<()> {
        self.change(Write::At(at, from.to_vec()), at + from.len() as u64)
    }

    fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        self.change(Write::Len(len_bytes), len_bytes)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        let carried_out = state.flush()?;
        let inode = &mut state.inodes[self.inode];
        if carried_out {
            inode.flushed = inode.now.clone();
            inode.pending.clear();
        }
        Ok(())
    }
}
