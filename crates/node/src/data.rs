//! The data folder: what a node keeps over a restart, each thing under its name.

use std::{
    fs,
    path::{Path, PathBuf},
};

use calimero_network::{
    blob::store::FsBlobStore, config::BlobStoreConfig, discovery::cache::FileCache,
};

use crate::error::CommandError;

/// A folder that exists.
#[derive(Debug)]
pub(crate) struct DataFolder {
    path: PathBuf,
}

impl DataFolder {
    /// Makes the folder if it does not exist.
    pub(crate) fn open(path: &Path) -> Result<Self, CommandError> {
        fs::create_dir_all(path).map_err(|source| CommandError::DataFolder {
            path: path.to_owned(),
            source,
        })?;
        let path = path.to_owned();
        Ok(Self { path })
    }

    /// Where the identity is.
    pub(crate) fn identity(&self) -> PathBuf {
        self.path.join("identity")
    }

    /// The blobs, opened.
    pub(crate) fn blobs(&self, config: &BlobStoreConfig) -> Result<FsBlobStore, CommandError> {
        Ok(FsBlobStore::open(self.path.join("blobs"), config)?)
    }

    /// Where a running node is asked.
    pub(crate) fn door(&self) -> PathBuf {
        self.path.join("door").join("socket")
    }

    /// Where the configuration is.
    pub(crate) fn config(&self) -> PathBuf {
        self.path.join("node.toml")
    }

    /// The configuration, if there is one.
    pub(crate) fn config_if_there(&self) -> Option<PathBuf> {
        Some(self.config()).filter(|path| path.exists())
    }

    /// Where peers are remembered.
    pub(crate) fn peers(&self) -> FileCache {
        FileCache::new(self.path.join("peers"))
    }
}
