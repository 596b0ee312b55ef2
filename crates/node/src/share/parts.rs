//! Content that has arrived and does not have its place yet.

use std::{
    collections::{BTreeSet, HashSet},
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use calimero_network::{
    BlobId,
    blob::{
        collection::{Collection, Entry},
        store::FsBlobStore,
    },
    config::BlobStoreConfig,
};

use super::place::failed;
use crate::{
    error::CommandError,
    lock::{LOCK_FILE, Lock},
};

/// Mode of the folder of parts: its owner alone reads, writes and enters it.
const PARTS_MODE: u32 = 0o700;

/// The folder of parts. When dropped, it is removed if nothing has arrived.
#[derive(Debug)]
pub(super) struct Parts {
    folder: PathBuf,
    /// The small files of a folder, once all of them have arrived.
    small: OnceLock<FsBlobStore>,
    _lock: Lock,
}

impl Parts {
    /// Opens a folder of parts, creating it where it does not exist.
    pub(super) fn open(folder: PathBuf) -> Result<Self, CommandError> {
        make_folder(&folder)?;
        let lock = Lock::folder(&folder)?;
        make_folder(&folder.join("blobs"))?;
        Ok(Self {
            folder,
            small: OnceLock::new(),
            _lock: lock,
        })
    }

    /// Returns the file of a blob that has a file of its own.
    pub(super) fn file(&self, id: &BlobId) -> PathBuf {
        self.folder.join("blobs").join(hex::encode(id.as_bytes()))
    }

    /// Returns the folder of the store of small files.
    pub(super) fn small_path(&self) -> PathBuf {
        self.folder.join("small")
    }

    /// Opens the store of small files, for blobs of these sizes in bytes. Any other blob, which an
    /// earlier ticket may have left, is removed.
    pub(super) fn open_small(
        path: &Path,
        blobs: &[(BlobId, u64)],
    ) -> Result<FsBlobStore, CommandError> {
        let config = BlobStoreConfig {
            // A peer cannot send more than the collection says. A blob that arrives alone takes
            // space for its one chunk hash as well while it is incomplete.
            max_bytes: blobs
                .iter()
                .map(|(_, size_bytes)| size_bytes + HASH_BYTES)
                .sum(),
            ..BlobStoreConfig::default()
        };
        let store = FsBlobStore::open(path, &config)?;
        let wanted: HashSet<_> = blobs.iter().map(|(id, _)| *id).collect();
        for (id, _) in store.list() {
            if !wanted.contains(&id) {
                store.remove(&id)?;
            }
        }
        Ok(store)
    }

    /// Sets the store of small files, once all of them are in it.
    pub(super) fn set_small(&self, store: FsBlobStore) {
        let _ = self.small.set(store);
    }

    /// Removes the folder of parts.
    pub(super) fn remove(&self) -> Result<(), CommandError> {
        fs::remove_dir_all(&self.folder).map_err(failed("remove", &self.folder))
    }

    /// Builds a folder from the parts, and makes its files and folders durable. The parts are kept until the
    /// folder is at its destination. Returns the path of the folder.
    pub(super) fn build(&self, collection: &Collection) -> Result<PathBuf, CommandError> {
        let tree = self.folder.join("tree");
        let tree = tree.as_path();
        match fs::remove_dir_all(tree) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", tree)(error));
            }
            _ => {}
        }
        fs::create_dir(tree).map_err(failed("write", tree))?;
        let (mut written, mut folders) = (Vec::new(), BTreeSet::from([tree.to_owned()]));
        for entry in collection.entries() {
            let to = entry.path.below(tree);
            if let Some(folder) = to.parent() {
                fs::create_dir_all(folder).map_err(failed("write", folder))?;
                let created = folder.ancestors().take_while(|folder| *folder != tree);
                folders.extend(created.map(Path::to_owned));
            }
            if self.place(entry, &to)? {
                written.push(to.clone());
            }
            if entry.executable {
                let mode = fs::metadata(&to).map_err(failed("read", &to))?;
                let mode = mode.permissions().mode();
                // Every user that may read it may run it.
                let mode = Permissions::from_mode(mode | (mode & 0o444) >> 2);
                fs::set_permissions(&to, mode).map_err(failed("write", &to))?;
            }
        }
        // The entries of a folder are durable by a flush of the folder.
        written.extend(folders);
        sync_all(tree, &written)?;
        Ok(tree.to_owned())
    }

    /// Puts the content of a file at a path. Returns `true` where it has to be flushed.
    fn place(&self, entry: &Entry, to: &Path) -> Result<bool, CommandError> {
        // The names of a collection differ, and each file has one of them.
        if fs::symlink_metadata(to).is_ok() {
            return Err(failed("write", to)(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "this file system takes its name for that of another file of the folder",
            )));
        }
        let small = self.small.get().map(|store| store.reader(&entry.id));
        if let Some(reader) = small.transpose()?.flatten() {
            let content = reader.read(0..reader.size_bytes())?;
            fs::write(to, content).map_err(failed("write", to))?;
            return Ok(true);
        }
        let from = self.file(&entry.id);
        // Two files with one content need two files: the second one, and one that is a program, are
        // copied.
        if entry.executable || fs::hard_link(&from, to).is_err() || is_shared(&from) {
            let _ = fs::remove_file(to);
            fs::copy(&from, to).map_err(failed("write", to))?;
            return Ok(true);
        }
        Ok(false)
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        // Fails where a part has arrived.
        if fs::remove_dir(self.folder.join("blobs")).is_err() {
            return;
        }
        let others = fs::read_dir(&self.folder).map(|entries| {
            let names = entries.flatten().map(|entry| entry.file_name());
            names.filter(|name| name != LOCK_FILE).count()
        });
        if let Ok(0) = others {
            let _ = fs::remove_file(self.folder.join(LOCK_FILE));
            let _ = fs::remove_dir(&self.folder);
        }
    }
}

/// Bytes of one chunk hash.
const HASH_BYTES: u64 = 32;

/// Files and folders beyond which the whole file system is flushed once instead of each of them: 64,
/// a guess. The flush of the file system also writes what other programs have changed.
#[cfg(target_os = "linux")]
const SINGLE_FLUSHES: usize = 64;

/// Makes files and folders of a tree durable.
pub(super) fn sync_all(tree: &Path, paths: &[PathBuf]) -> Result<(), CommandError> {
    #[cfg(target_os = "linux")]
    if paths.len() > SINGLE_FLUSHES {
        let folder = fs::File::open(tree).map_err(failed("write", tree))?;
        let synced = rustix::fs::syncfs(&folder).map_err(io::Error::from);
        return synced.map_err(failed("write", tree));
    }
    #[cfg(not(target_os = "linux"))]
    let _ = tree;
    paths.iter().try_for_each(|path| {
        let synced = fs::File::open(path).and_then(|file| file.sync_all());
        synced.map_err(failed("write", path))
    })
}

/// Whether a part is in the tree more than once.
fn is_shared(part: &Path) -> bool {
    fs::metadata(part).is_ok_and(|metadata| metadata.nlink() > 2)
}

/// Creates a folder, or takes one that exists. A link is refused, because it leads elsewhere.
fn make_folder(path: &Path) -> Result<(), CommandError> {
    match DirBuilder::new().mode(PARTS_MODE).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let metadata = fs::symlink_metadata(path).map_err(failed("write", path))?;
            let refuse = |kind| {
                let path = path.to_owned();
                let doing = "write";
                Err(CommandError::FileKind { doing, path, kind })
            };
            // Another user who can write to it can put links into it.
            let is_own = metadata.uid() == rustix::process::geteuid().as_raw();
            match (metadata.is_dir(), is_own && metadata.mode() & 0o022 == 0) {
                (true, true) => Ok(()),
                (true, false) => refuse("a folder that other users can change"),
                (false, _) => refuse("not a folder"),
            }
        }
        made => made.map_err(failed("write", path)),
    }
}

#[cfg(test)]
mod tests;
