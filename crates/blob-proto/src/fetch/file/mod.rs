//! A blob that goes to a file of its own.

mod chunks;
mod complete;
#[cfg(all(test, feature = "fs"))]
mod power_cut;
mod whole;

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;

use self::{
    chunks::{FilePartial, SharedPartial},
    complete::CompleteFile,
    whole::{Parts, SharedWhole},
};
use super::target::{no_reader, no_size};
use crate::{
    BlobId, ChunkList,
    store::{
        BlobReader, BlobStore, BlobWriter, Hold, PartialBlob, StoreError, StoreFuture, StoredBatch,
        blocking::blocking,
        disk::{Disk, RealDisk},
        error::io_error,
    },
};

/// A file as a place for one blob.
///
/// Chunks that have arrived are in a second file, at their offsets. No state is stored: each is
/// hashed when the download is resumed. A file that is the blob already, because a
/// process ended between giving it its name and saying so, stays as it is.
pub(super) struct FileTarget {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    /// The files of providers that send all of the content in order.
    parts: Arc<Parts>,
}

impl FileTarget {
    pub(super) fn new(path: PathBuf) -> Self {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::DEFAULT);
        let parts = Parts::new(Arc::clone(&disk), path.clone());
        Self { disk, path, parts }
    }
}

impl BlobStore for FileTarget {
    fn size(&self, _: BlobId) -> StoreFuture<Option<u64>> {
        no_size()
    }

    fn reader(&self, _: BlobId) -> StoreFuture<Option<Arc<dyn BlobReader>>> {
        no_reader()
    }

    fn writer(&self) -> StoreFuture<Box<dyn BlobWriter>> {
        let parts = Arc::clone(&self.parts);
        blocking(move || {
            let whole = SharedWhole::new(parts.create()?);
            Ok(Box::new(whole) as Box<dyn BlobWriter>)
        })
    }

    fn partial(&self, list: ChunkList) -> StoreFuture<Arc<dyn PartialBlob>> {
        let (disk, path) = (Arc::clone(&self.disk), self.path.clone());
        blocking(move || {
            if let Some(file) = CompleteFile::find(&disk, &path, &list) {
                return Ok(Arc::new(file) as Arc<dyn PartialBlob>);
            }
            let partial = SharedPartial::new(FilePartial::open(disk, path, list)?);
            Ok(Arc::new(partial) as Arc<dyn PartialBlob>)
        })
    }

    fn put_batch(&self, blobs: Vec<(Option<BlobId>, Bytes)>) -> StoreFuture<StoredBatch> {
        let parts = Arc::clone(&self.parts);
        blocking(move || {
            let mut ids = Vec::with_capacity(blobs.len());
            for (expected, content) in blobs {
                let mut whole = parts.create()?;
                whole.write(&content)?;
                ids.push(whole.finish(expected)?.id);
            }
            let hold = Hold::default();
            Ok(StoredBatch { ids, hold })
        })
    }
}

/// The path with something behind its name.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}

/// Gives a flushed file its name, durably.
fn publish(disk: &dyn Disk, from: &Path, to: &Path) -> Result<(), StoreError> {
    disk.rename(from, to).map_err(io_error("renaming", from))?;
    flush_folder_of(disk, to)
}

fn flush_folder_of(disk: &dyn Disk, path: &Path) -> Result<(), StoreError> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    disk.sync_dir(folder).map_err(io_error("flushing", folder))
}

/// Removes the chunks of an earlier attempt, which are not needed once the file is complete.
fn remove_chunks(disk: &dyn Disk, path: &Path) {
    match disk.remove(&beside(path, ".part")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::debug!(%error, "chunks of an earlier try stay beside a complete file");
        }
        _ => {}
    }
}
