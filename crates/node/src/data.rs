//! The data folder: what a node keeps between two runs.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use calimero_network::{
    BlobId, NetworkConfig, blob::store::FsBlobStore, config::BlobStoreConfig,
    discovery::cache::FileCache,
};

use crate::{
    boot,
    error::CommandError,
    lock::{Lock, LockError},
    origins::Origins,
};

/// Mode of the folder: its owner alone reads, writes and enters it.
const FOLDER_MODE: u32 = 0o700;

/// An empty file in the data folder of a boot node.
const BOOT_MARK: &str = "boot";

/// Permissions of a folder that others share: they may write to it, or it has one of the bits for set
/// identifiers and for restricted deletion, as `/tmp` has.
const SHARED_MODE: u32 = 0o7002;

/// Entries of which a data folder has one at least, once it was used or prepared.
const OWN_ENTRIES: [&str; 4] = ["lock", "identity", "node.toml", "control"];

/// A folder that exists and that its owner alone can enter.
#[derive(Debug)]
pub(crate) struct DataFolder {
    path: PathBuf,
}

impl DataFolder {
    /// Creates the folder if it does not exist, and takes the rights of others away if it does.
    pub(crate) fn open(path: &Path) -> Result<Self, CommandError> {
        restrict(path).map_err(|source| CommandError::DataFolder {
            path: path.to_owned(),
            source,
        })?;
        let path = path.to_owned();
        Ok(Self { path })
    }

    /// A folder that exists. Creates nothing.
    ///
    /// # Errors
    ///
    /// [`CommandError::DataFolder`] if it does not exist or is not a folder.
    pub(crate) fn existing(path: &Path) -> Result<Self, CommandError> {
        let failed = |source| CommandError::DataFolder {
            path: path.to_owned(),
            source,
        };
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => Ok(Self::of_running(path)),
            Ok(_) => Err(failed(not_a_folder())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(failed(io::Error::new(error.kind(), "it does not exist")))
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// The folder of a node that is expected to run. Creates nothing.
    pub(crate) fn of_running(path: &Path) -> Self {
        let path = path.to_owned();
        Self { path }
    }

    /// Locks the folder for this process.
    pub(crate) fn lock(&self) -> Result<Lock, LockError> {
        Lock::folder(&self.path)
    }

    /// Path of the identity file.
    pub(crate) fn identity(&self) -> PathBuf {
        self.path.join("identity")
    }

    /// Path of the file that holds the secret of the ticket of a blob. Creates its folder.
    pub(crate) fn ticket_secret(&self, id: &BlobId) -> Result<PathBuf, CommandError> {
        let folder = self.path.join("tickets");
        restrict(&folder).map_err(|source| CommandError::DataFolder {
            path: folder.clone(),
            source,
        })?;
        Ok(folder.join(hex::encode(id.as_bytes())))
    }

    /// Opens the blob store with the limits of the configuration file.
    pub(crate) fn configured_blobs(&self) -> Result<FsBlobStore, CommandError> {
        let file = self.existing_config();
        let (config, _) = Origins::read(file.as_deref(), &NetworkConfig::default())?;
        self.blobs(&config.blob.store)
    }

    /// Opens the blob store.
    pub(crate) fn blobs(&self, config: &BlobStoreConfig) -> Result<FsBlobStore, CommandError> {
        Ok(FsBlobStore::open(self.path.join("blobs"), config)?)
    }

    /// The Unix socket of the API of the node that runs on the folder.
    pub(crate) fn socket(&self) -> PathBuf {
        self.path.join("control").join("socket")
    }

    /// The token of requests over TCP.
    pub(crate) fn token(&self) -> PathBuf {
        self.path.join("control").join("token")
    }

    /// Path of the configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        self.path.join("node.toml")
    }

    /// The configuration file, if it exists.
    pub(crate) fn existing_config(&self) -> Option<PathBuf> {
        Some(self.config()).filter(|path| path.exists())
    }

    /// Remembers which command runs on the folder, for commands that read its configuration while no
    /// node runs.
    pub(crate) fn remember_role(&self, is_boot: bool) -> Result<(), CommandError> {
        let path = self.path.join(BOOT_MARK);
        let done = match is_boot {
            true => fs::write(&path, ""),
            false => match fs::remove_file(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                removed => removed,
            },
        };
        done.map_err(|source| CommandError::DataFolder { path, source })
    }

    /// The configuration of the command that last ran on the folder, where its file names no keys.
    pub(crate) fn defaults(&self) -> NetworkConfig {
        match self.path.join(BOOT_MARK).exists() {
            true => boot::defaults(),
            false => NetworkConfig::default(),
        }
    }

    /// Opens the peer cache file.
    pub(crate) fn peers(&self) -> FileCache {
        FileCache::new(self.path.join("peers"))
    }
}

fn not_a_folder() -> io::Error {
    io::Error::new(io::ErrorKind::NotADirectory, "it is not a folder")
}

fn restrict(path: &Path) -> io::Result<()> {
    let created = DirBuilder::new()
        .recursive(true)
        .mode(FOLDER_MODE)
        .create(path);
    created.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => not_a_folder(),
        _ => error,
    })?;
    let mode = fs::metadata(path)?.permissions().mode() & 0o7777;
    if mode & !FOLDER_MODE != 0 {
        if mode & SHARED_MODE != 0 && is_foreign(path)? {
            let message = format!(
                "it is not a data folder: it holds other files, and others can write to it or share it \
                 (mode {mode:04o}); name an empty folder, or take the rights of others away"
            );
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
        }
        fs::set_permissions(path, Permissions::from_mode(FOLDER_MODE))?;
    }
    Ok(())
}

/// Returns `true` if the folder has content, and none of it is a file of a data folder.
fn is_foreign(path: &Path) -> io::Result<bool> {
    if OWN_ENTRIES.iter().any(|name| path.join(name).exists()) {
        return Ok(false);
    }
    for entry in fs::read_dir(path)? {
        // The root of a new file system has this folder.
        if entry?.file_name() != "lost+found" {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let made = folder.path().join("a").join("b");
        DataFolder::open(&made).unwrap();
        assert_eq!(mode(&made), 0o700);
        fs::set_permissions(&made, Permissions::from_mode(0o755)).unwrap();
        DataFolder::open(&made).unwrap();
        assert_eq!(mode(&made), 0o700);
    }

    #[test]
    fn a_folder_of_others_keeps_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let mode = || fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        let set = |mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        let widen = || set(0o1777);
        fs::write(path.join("other"), "").unwrap();
        for (shared, text) in [
            (0o1777, "mode 1777"),
            (0o757, "mode 0757"),
            (0o2755, "mode 2755"),
        ] {
            set(shared);
            let error = DataFolder::open(path).unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
            assert_eq!(error.code(), crate::error::Code::Refused);
            assert_eq!(mode(), shared);
        }
        // One that others can only read was made for the node, with its configuration under another name.
        set(0o755);
        DataFolder::open(path).unwrap();
        assert_eq!(mode(), 0o700);
        widen();
        // A data folder that was widened by mistake, and one that was prepared.
        for own in OWN_ENTRIES {
            fs::write(path.join(own), "").unwrap();
            DataFolder::open(path).unwrap();
            assert_eq!(mode(), 0o700);
            fs::remove_file(path.join(own)).unwrap();
            widen();
        }
        fs::remove_file(path.join("other")).unwrap();
        fs::create_dir(path.join("lost+found")).unwrap();
        DataFolder::open(path).unwrap();
        assert_eq!(mode(), 0o700);
    }
}
