//! A blob whose content arrives in order.

use std::{
    fs::File,
    io::{Read, Write},
    path::Path,
    sync::Arc,
};

use super::{
    FsBlobStore, Holds, Reservation, Shared, content_name,
    dir::Temporary,
    hashes_name,
    index::{Entry, Place},
};
use crate::{
    BlobHasher, BlobId, ChunkList,
    store::{
        Stored,
        blocking::WriteBack,
        error::{StoreError, io_error},
    },
};

/// Bytes that are read at one time from what is stored: one chunk.
const PIECE_BYTES: usize = calimero_network_primitives::limits::BLOB_CHUNK_BYTES;

/// A blob being written. Dropping it leaves nothing behind.
#[derive(Debug)]
pub struct FsWriter {
    shared: Arc<Shared>,
    temporary: Temporary,
    hasher: BlobHasher,
    reservation: Reservation,
    write_back: WriteBack,
    broken: bool,
}

impl FsBlobStore {
    /// Begins a blob whose content arrives in order.
    ///
    /// # Errors
    ///
    /// What the system refuses.
    pub fn writer(&self) -> Result<FsWriter, StoreError> {
        Ok(FsWriter {
            shared: Arc::clone(&self.shared),
            temporary: self.shared.blobs.temporary()?,
            hasher: BlobHasher::new(),
            reservation: Reservation::none(&self.shared),
            write_back: WriteBack::default(),
            broken: false,
        })
    }

    /// Stores content that is at hand as a whole.
    ///
    /// # Errors
    ///
    /// As [`FsWriter::write`] and [`FsWriter::finish`].
    pub fn put(&self, content: &[u8]) -> Result<Stored, StoreError> {
        let mut writer = self.writer()?;
        writer.write(content)?;
        writer.finish(None)
    }

    /// Stores a file, in pieces of 1 MiB.
    ///
    /// # Errors
    ///
    /// As [`FsWriter::write`] and [`FsWriter::finish`], and where the file cannot be read.
    pub fn put_file(&self, path: impl AsRef<Path>) -> Result<Stored, StoreError> {
        let path = path.as_ref();
        let mut file = File::open(path).map_err(io_error("opening", path))?;
        let mut writer = self.writer()?;
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            match file.read(&mut piece) {
                Ok(0) => return writer.finish(None),
                Ok(len) => writer.write(&piece[..len])?,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(io_error("reading", path)(error)),
            }
        }
    }
}

impl FsWriter {
    /// Bytes written so far.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.hasher.size_bytes()
    }

    /// Hashes and writes the next piece of the content.
    ///
    /// # Errors
    ///
    /// [`StoreError::Quota`], [`StoreError::DiskFull`], [`StoreError::TooLarge`] and what else
    /// the system refuses; [`StoreError::Broken`] after any of them.
    pub fn write(&mut self, piece: &[u8]) -> Result<(), StoreError> {
        if self.broken {
            return Err(StoreError::Broken);
        }
        let result = self.take(piece);
        self.broken = result.is_err();
        result
    }

    fn take(&mut self, piece: &[u8]) -> Result<(), StoreError> {
        self.reservation.grow(piece.len() as u64)?;
        self.hasher.update(piece)?;
        let temporary = &mut self.temporary;
        let written = temporary.file.write_all(piece);
        written.map_err(io_error("writing", &temporary.path))?;
        let flushed = (self.write_back).wrote(&temporary.file, piece.len() as u64);
        flushed.map_err(io_error("flushing", &temporary.path))
    }

    /// Ends the content and makes it durable and visible.
    ///
    /// # Errors
    ///
    /// [`StoreError::Mismatch`] where it is not the blob that is `expected`, and what the system
    /// refuses. Nothing is visible then.
    pub fn finish(mut self, expected: Option<BlobId>) -> Result<Stored, StoreError> {
        if self.broken {
            return Err(StoreError::Broken);
        }
        let hashed = std::mem::take(&mut self.hasher).finish();
        let id = hashed.list.id();
        if let Some(expected) = expected.filter(|expected| *expected != id) {
            let actual = id;
            return Err(StoreError::Mismatch { expected, actual });
        }
        self.temporary.flush()?;
        let _publishing = self.shared.publishing();
        if !self.shared.index().entries.contains_key(&id) {
            self.shared.write_hashes(&hashed.list)?;
            let blobs = &self.shared.blobs;
            self.temporary.publish(blobs, &content_name(&id))?;
            blobs.flush()?;
        }
        let size_bytes = hashed.size_bytes;
        Ok(self.shared.show_file(id, size_bytes, &mut self.reservation))
    }
}

impl Shared {
    /// Writes the chunk hashes of a blob of several chunks, before it is published.
    pub(super) fn write_hashes(&self, list: &ChunkList) -> Result<(), StoreError> {
        if list.len() < 2 {
            return Ok(());
        }
        self.blobs.write(&hashes_name(&list.id()), list.digests())
    }

    /// Shows a blob that is durable in a file of its own, if it is not shown yet, and holds it.
    pub(super) fn show_file(
        self: &Arc<Self>,
        id: BlobId,
        size_bytes: u64,
        reservation: &mut Reservation,
    ) -> Stored {
        let mut index = self.index();
        reservation.settle(&mut index);
        let place = Place::File;
        index.insert(id, Entry { size_bytes, place });
        index.hold(id);
        drop(index);
        Stored {
            id,
            size_bytes,
            hold: Holds::of(self, vec![id]).into_hold(),
        }
    }
}
