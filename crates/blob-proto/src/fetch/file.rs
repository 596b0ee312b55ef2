//! A blob that goes to a file of its own.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use calimero_network_primitives::limits::BLOB_CHUNK_BYTES;
use rustix::fs::{FlockOperation, flock};

use crate::{
    BlobHasher, BlobId, ChunkList,
    id::CHUNK_BYTES,
    store::{
        BlobReader, BlobStore, BlobWriter, Hold, PartialBlob, StoreError, StoreFuture, Stored,
        StoredBatch,
        blocking::{WriteBack, blocking},
        chunk_file::ChunkFile,
        error::io_error,
    },
};

/// A file as a place for one blob.
///
/// What has arrived of it lies beside it, chunks in their places. Nothing says which are there:
/// each is hashed when the download is taken up again.
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
        Box::pin(std::future::ready(Ok(None)))
    }

    fn reader(&self, _: BlobId) -> StoreFuture<Option<Arc<dyn BlobReader>>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    fn writer(&self) -> StoreFuture<Box<dyn BlobWriter>> {
        let path = self.path.clone();
        blocking(move || {
            let whole = Whole::create(path)?;
            let whole = Arc::new(Mutex::new(Some(whole)));
            Ok(Box::new(SharedWhole { whole }) as Box<dyn BlobWriter>)
        })
    }

    fn partial(&self, list: ChunkList) -> StoreFuture<Arc<dyn PartialBlob>> {
        let path = self.path.clone();
        blocking(move || {
            let partial = Arc::new(FilePartial::open(path, list)?);
            Ok(Arc::new(SharedPartial { partial }) as Arc<dyn PartialBlob>)
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
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let flushed = File::open(folder).and_then(|folder| folder.sync_all());
    flushed.map_err(io_error("flushing", folder))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Content whose chunks arrive in any order.
struct FilePartial {
    list: ChunkList,
    content: ChunkFile,
    part: PathBuf,
    path: PathBuf,
    have: Mutex<Have>,
}

struct Have {
    chunks: Vec<bool>,
    missing: usize,
    last_len: usize,
}

impl Have {
    fn mark(&mut self, index: usize, len: usize) {
        if let Some(have) = self.chunks.get_mut(index).filter(|have| !**have) {
            *have = true;
            self.missing -= 1;
            if index + 1 == self.chunks.len() {
                self.last_len = len;
            }
        }
    }
}

impl FilePartial {
    fn open(path: PathBuf, list: ChunkList) -> Result<Self, StoreError> {
        let part = beside(&path, ".part");
        let content = open(&part)?;
        match flock(&content, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let id = list.id();
                return Err(StoreError::Busy { id });
            }
            Err(error) => return Err(io_error("locking", &part)(error.into())),
        }
        let mut have = Have {
            chunks: vec![false; list.len()],
            missing: list.len(),
            last_len: 0,
        };
        let len_bytes = content
            .metadata()
            .map_err(io_error("reading", &part))?
            .len();
        let mut buffer = vec![0; BLOB_CHUNK_BYTES];
        for index in 0..list.len() {
            let start = index as u64 * CHUNK_BYTES;
            let Some(rest) = len_bytes.checked_sub(start).filter(|rest| *rest > 0) else {
                break;
            };
            let len = rest.min(CHUNK_BYTES) as usize;
            // What cannot be read is fetched again.
            if content.read_exact_at(&mut buffer[..len], start).is_ok()
                && list.verify(index, &buffer[..len]).is_ok()
            {
                have.mark(index, len);
            }
        }
        Ok(Self {
            list,
            content: ChunkFile::new(content, &part),
            part,
            path,
            have: Mutex::new(have),
        })
    }

    fn write(&self, index: usize, chunk: &[u8]) -> Result<(), StoreError> {
        self.list.verify(index, chunk)?;
        if lock(&self.have).chunks.get(index) == Some(&true) {
            return Ok(());
        }
        let written = self.content.write(index, chunk);
        written.map_err(io_error("writing", &self.part))?;
        lock(&self.have).mark(index, chunk.len());
        Ok(())
    }

    fn finish(&self) -> Result<Stored, StoreError> {
        let id = self.list.id();
        let (missing_chunks, last_len) = {
            let have = lock(&self.have);
            (have.missing, have.last_len)
        };
        if missing_chunks > 0 {
            return Err(StoreError::Incomplete { id, missing_chunks });
        }
        let before = self.list.len().saturating_sub(1) as u64 * CHUNK_BYTES;
        let size_bytes = before + last_len as u64;
        let fitted = self.content.file().set_len(size_bytes);
        fitted.map_err(io_error("fitting", &self.part))?;
        let flushed = self.content.file().sync_all();
        flushed.map_err(io_error("flushing", &self.part))?;
        publish(&self.part, &self.path)?;
        let hold = Hold::default();
        Ok(Stored {
            id,
            size_bytes,
            hold,
        })
    }
}

/// A partial download that chunks being written keep open.
struct SharedPartial {
    partial: Arc<FilePartial>,
}

impl PartialBlob for SharedPartial {
    fn list(&self) -> &ChunkList {
        &self.partial.list
    }

    fn has(&self, index: usize) -> bool {
        lock(&self.partial.have).chunks.get(index) == Some(&true)
    }

    fn missing(&self) -> usize {
        lock(&self.partial.have).missing
    }

    fn write(&self, index: usize, chunk: Bytes) -> StoreFuture<()> {
        let partial = Arc::clone(&self.partial);
        blocking(move || partial.write(index, &chunk))
    }

    fn finish(&self) -> StoreFuture<Stored> {
        let partial = Arc::clone(&self.partial);
        blocking(move || partial.finish())
    }
}

/// Content that arrives in order. Deleted when dropped, unless it was finished.
struct Whole {
    path: PathBuf,
    part: PathBuf,
    file: File,
    hasher: BlobHasher,
    write_back: WriteBack,
    published: bool,
}

impl Whole {
    fn create(path: PathBuf) -> Result<Self, StoreError> {
        // Another name than chunks have that an earlier try may have left.
        let part = beside(&path, ".whole.part");
        let file = open(&part)?;
        file.set_len(0).map_err(io_error("emptying", &part))?;
        Ok(Self {
            path,
            part,
            file,
            hasher: BlobHasher::new(),
            write_back: WriteBack::default(),
            published: false,
        })
    }

    fn write(&mut self, piece: &[u8]) -> Result<(), StoreError> {
        self.hasher.update(piece)?;
        let written = self.file.write_all(piece);
        written.map_err(io_error("writing", &self.part))?;
        let flushed = self.write_back.wrote(&self.file, piece.len() as u64);
        flushed.map_err(io_error("flushing", &self.part))
    }

    fn finish(mut self, expected: Option<BlobId>) -> Result<Stored, StoreError> {
        let hashed = std::mem::take(&mut self.hasher).finish();
        let actual = hashed.list.id();
        if let Some(expected) = expected.filter(|expected| *expected != actual) {
            return Err(StoreError::Mismatch { expected, actual });
        }
        let flushed = self.file.sync_all();
        flushed.map_err(io_error("flushing", &self.part))?;
        publish(&self.part, &self.path)?;
        self.published = true;
        // Chunks of an earlier try, which nobody needs any more.
        match fs::remove_file(beside(&self.path, ".part")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::debug!(%error, "chunks of an earlier try stay beside a complete file");
            }
            _ => {}
        }
        Ok(Stored {
            id: actual,
            size_bytes: hashed.size_bytes,
            hold: Hold::default(),
        })
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        if !self.published {
            // What stays is overwritten by the next try.
            let _ = fs::remove_file(&self.part);
        }
    }
}

/// A writer whose writes may outlive the futures that asked for them.
struct SharedWhole {
    whole: Arc<Mutex<Option<Whole>>>,
}

impl BlobWriter for SharedWhole {
    fn write(&mut self, piece: Bytes) -> StoreFuture<()> {
        let whole = Arc::clone(&self.whole);
        blocking(move || match &mut *lock(&whole) {
            Some(whole) => whole.write(&piece),
            None => Err(StoreError::Broken),
        })
    }

    fn finish(self: Box<Self>, expected: Option<BlobId>) -> StoreFuture<Stored> {
        blocking(move || {
            let whole = lock(&self.whole).take();
            whole.ok_or(StoreError::Broken)?.finish(expected)
        })
    }
}
