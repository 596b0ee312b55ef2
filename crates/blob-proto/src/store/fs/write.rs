//! A blob whose content arrives in order.

use std::{fs::File, io::Read, os::unix::fs::OpenOptionsExt, path::Path, sync::Arc};

use rustix::fs::OFlags;

use super::{
    FsBlobStore, Holds, Reservation, Shared, content_name,
    dir::Temporary,
    hashes_name,
    index::{Entry, Location},
};
use crate::{
    BlobHasher, BlobId, ChunkList,
    store::{
        Stored,
        disk::WriteBack,
        error::{StoreError, io_error},
    },
};

/// Bytes that are read at one time from a file that is stored: one chunk.
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

    /// Stores content that is in memory as a whole.
    ///
    /// # Errors
    ///
    /// As [`FsWriter::write`] and [`FsWriter::finish`].
    pub fn put(&self, content: &[u8]) -> Result<Stored, StoreError> {
        let mut writer = self.writer()?;
        writer.write(content)?;
        writer.finish(None)
    }

    /// Stores a regular file, in pieces of 1 MiB. The size that the file has when it is opened must
    /// fit into the store.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotRegular`] for a folder, a device, a pipe or a socket, as
    /// [`FsWriter::write`] and [`FsWriter::finish`], and where the file cannot be read.
    pub fn put_file(&self, path: impl AsRef<Path>) -> Result<Stored, StoreError> {
        let path = path.as_ref();
        let (mut file, size_bytes) = open_regular(path)?;
        self.shared.with_space(|index| index.check(size_bytes))?;
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

/// Opens a file that is to be stored, and returns its size in bytes.
pub(super) fn open_regular(path: &Path) -> Result<(File, u64), StoreError> {
    // Opening a pipe blocks until it has a writer.
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let mut options = File::options();
    let file = options.read(true).custom_flags(nonblocking).open(path);
    let file = file.map_err(io_error("opening", path))?;
    let metadata = file.metadata().map_err(io_error("reading", path))?;
    if !metadata.is_file() {
        return Err(StoreError::NotRegular {
            path: path.to_owned(),
        });
    }
    Ok((file, metadata.len()))
}

impl FsWriter {
    /// Returns the number of bytes written so far.
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
        temporary.append(piece)?;
        let flushed = (self.write_back).wrote(&*temporary.file, piece.len() as u64);
        flushed.map_err(io_error("flushing", &temporary.path))
    }

    /// Ends the content and makes it durable and visible. A copy that is stored already is
    /// replaced, so that damage to it is repaired.
    ///
    /// # Errors
    ///
    /// [`StoreError::Mismatch`] where it is not the blob that is `expected`, and what the system
    /// refuses. Nothing new is visible then.
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
        self.shared.write_hashes(&hashed.list)?;
        let blobs = &self.shared.blobs;
        let published = self.temporary.publish(blobs, &content_name(&id));
        if let Err(error) = published.and_then(|()| blobs.flush()) {
            self.shared.retract([], &[(id, hashed.size_bytes, true)]);
            return Err(error);
        }
        self.shared
            .show_file(id, hashed.size_bytes, Some(&mut self.reservation))
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

    /// Shows a blob that is durable in a file of its own, in place of an earlier copy, and holds
    /// it. Called while publishing is locked.
    pub(super) fn show_file(
        self: &Arc<Self>,
        id: BlobId,
        size_bytes: u64,
        reservation: Option<&mut Reservation>,
    ) -> Result<Stored, StoreError> {
        let mut index = self.index();
        if let Some(reservation) = reservation {
            reservation.settle(&mut index);
        }
        let before = index.replace(id, Entry::new(size_bytes, Location::File));
        index.hold(id);
        drop(index);
        let hold = Holds::of(self, vec![id]).into_hold();
        if let Some(Entry {
            location: Location::Pack { number, entry, .. },
            size_bytes,
            ..
        }) = before
        {
            // Or the copy in the pack would be shown again once the file is removed. The blob is stored
            // whether it can be marked now or not, and nothing is removed before it is.
            if self
                .remove_from_pack(number, &[(entry, size_bytes)])
                .is_err()
            {
                self.mark_later(number, entry, size_bytes);
            }
        }
        Ok(Stored {
            id,
            size_bytes,
            hold,
        })
    }
}
