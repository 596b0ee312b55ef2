//! A blob that goes to a file of its own.

mod chunks;
mod complete;
mod whole;

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;

use self::{
    chunks::{FilePartial, SharedPartial},
    complete::CompleteFile,
    whole::{SharedWhole, Whole},
};
use super::target::{no_reader, no_size};
use crate::{
    BlobId, ChunkList,
    store::{
        BlobReader, BlobStore, BlobWriter, Hold, PartialBlob, StoreError, StoreFuture, StoredBatch,
        blocking::blocking, error::io_error,
    },
};

/// A file as a place for one blob.
///
/// Chunks that have arrived are in a second file, at their offsets. No state is stored: each is
/// hashed when the download is resumed. A file that is the blob already, because a
/// process ended between giving it its name and saying so, stays as it is.
pub(super) struct FileTarget {
    path: PathBuf,
}

impl FileTarget {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
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
        let path = self.path.clone();
        blocking(move || {
            let whole = SharedWhole::new(Whole::create(path)?);
            Ok(Box::new(whole) as Box<dyn BlobWriter>)
        })
    }

    fn partial(&self, list: ChunkList) -> StoreFuture<Arc<dyn PartialBlob>> {
        let path = self.path.clone();
        blocking(move || {
            if let Some(file) = CompleteFile::find(&path, &list) {
                return Ok(Arc::new(file) as Arc<dyn PartialBlob>);
            }
            let partial = SharedPartial::new(FilePartial::open(path, list)?);
            Ok(Arc::new(partial) as Arc<dyn PartialBlob>)
        })
    }

    fn put_batch(&self, blobs: Vec<(Option<BlobId>, Bytes)>) -> StoreFuture<StoredBatch> {
        let path = self.path.clone();
        blocking(move || {
            let mut ids = Vec::with_capacity(blobs.len());
            for (expected, content) in blobs {
                let mut whole = Whole::create(path.clone())?;
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

fn open(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(io_error("opening", path))
}

/// Gives a flushed file its name, durably.
fn publish(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to).map_err(io_error("renaming", from))?;
    flush_folder_of(to)
}

fn flush_folder_of(path: &Path) -> Result<(), StoreError> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let flushed = File::open(folder).and_then(|folder| folder.sync_all());
    flushed.map_err(io_error("flushing", folder))
}

/// Removes the chunks of an earlier attempt, which are not needed once the file is complete.
fn remove_chunks(path: &Path) {
    match fs::remove_file(beside(path, ".part")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::debug!(%error, "chunks of an earlier try stay beside a complete file");
        }
        _ => {}
    }
}
