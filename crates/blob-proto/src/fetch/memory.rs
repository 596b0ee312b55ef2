//! A blob that goes to memory.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use bytes::{Bytes, BytesMut};

use super::target::{check_id, lock, no_reader, no_size, ready};
use crate::{
    BlobHasher, BlobId, ChunkList,
    store::{
        BlobReader, BlobStore, BlobWriter, Hold, PartialBlob, StoreError, StoreFuture, Stored,
        StoredBatch, blocking::blocking,
    },
};

/// A buffer for one blob of a limited size.
#[derive(Clone)]
pub(super) struct MemoryTarget {
    limit_bytes: u64,
    content: Arc<Mutex<Option<Bytes>>>,
}

impl MemoryTarget {
    pub(super) fn new(limit_bytes: u64) -> Self {
        Self {
            limit_bytes,
            content: Arc::default(),
        }
    }

    /// The content, once the blob is complete.
    pub(super) fn take(&self) -> Option<Bytes> {
        lock(&self.content).take()
    }

    fn check(&self, used_bytes: u64, wanted_bytes: u64) -> Result<(), StoreError> {
        let limit_bytes = self.limit_bytes;
        if used_bytes + wanted_bytes > limit_bytes {
            return Err(StoreError::Quota {
                limit_bytes,
                used_bytes,
                partial_bytes: used_bytes,
                reserved_bytes: 0,
                wanted_bytes,
            });
        }
        Ok(())
    }

    fn finish(&self, id: BlobId, content: Bytes) -> Stored {
        let size_bytes = content.len() as u64;
        *lock(&self.content) = Some(content);
        let hold = Hold::default();
        Stored {
            id,
            size_bytes,
            hold,
        }
    }
}

impl BlobStore for MemoryTarget {
    fn size(&self, _: BlobId) -> StoreFuture<Option<u64>> {
        no_size()
    }

    fn reader(&self, _: BlobId) -> StoreFuture<Option<Arc<dyn BlobReader>>> {
        no_reader()
    }

    fn writer(&self) -> StoreFuture<Box<dyn BlobWriter>> {
        let whole = Whole {
            target: self.clone(),
            content: BytesMut::new(),
        };
        ready(Ok(Box::new(whole) as Box<dyn BlobWriter>))
    }

    fn partial(&self, list: ChunkList) -> StoreFuture<Arc<dyn PartialBlob>> {
        let fits = self.check(0, list.size_bounds().0);
        let chunks = Chunks {
            target: self.clone(),
            list,
            held: Arc::default(),
        };
        let partial = fits.map(|()| Arc::new(chunks) as Arc<dyn PartialBlob>);
        ready(partial)
    }

    fn put_batch(&self, blobs: Vec<(Option<BlobId>, Bytes)>) -> StoreFuture<StoredBatch> {
        let mut ids = Vec::with_capacity(blobs.len());
        for (expected, content) in blobs {
            if let Err(error) = self.check(0, content.len() as u64) {
                return ready(Err(error));
            }
            let id = expected.unwrap_or_else(|| crate::blob_id(&content));
            ids.push(self.finish(id, content).id);
        }
        let hold = Hold::default();
        ready(Ok(StoredBatch { ids, hold }))
    }
}

/// Content that arrives in order.
struct Whole {
    target: MemoryTarget,
    content: BytesMut,
}

impl BlobWriter for Whole {
    fn write(&mut self, piece: Bytes) -> StoreFuture<()> {
        let (used_bytes, wanted_bytes) = (self.content.len() as u64, piece.len() as u64);
        let fits = self.target.check(used_bytes, wanted_bytes);
        if fits.is_ok() {
            self.content.extend_from_slice(&piece);
        }
        ready(fits)
    }

    fn finish(self: Box<Self>, expected: Option<BlobId>) -> StoreFuture<Stored> {
        blocking(move || {
            let content = self.content.freeze();
            let mut hasher = BlobHasher::new();
            hasher.update(&content)?;
            let actual = hasher.finish().list.id();
            check_id(expected, actual)?;
            Ok(self.target.finish(actual, content))
        })
    }
}

/// Content whose chunks arrive in any order.
struct Chunks {
    target: MemoryTarget,
    list: ChunkList,
    held: Arc<Mutex<Held>>,
}

/// The chunks that have arrived, and the sum of their lengths in bytes.
#[derive(Default)]
struct Held {
    chunks: BTreeMap<usize, Bytes>,
    bytes: u64,
}

impl PartialBlob for Chunks {
    fn list(&self) -> &ChunkList {
        &self.list
    }

    fn has(&self, index: usize) -> bool {
        lock(&self.held).chunks.contains_key(&index)
    }

    fn missing(&self) -> usize {
        self.list.len() - lock(&self.held).chunks.len()
    }

    fn write(&self, index: usize, chunk: Bytes) -> StoreFuture<()> {
        let (target, list) = (self.target.clone(), self.list.clone());
        let held = Arc::clone(&self.held);
        blocking(move || {
            list.verify(index, &chunk)?;
            let mut held = lock(&held);
            // The copy of a chunk that two providers were asked for takes no space.
            if held.chunks.contains_key(&index) {
                return Ok(());
            }
            let len_bytes = chunk.len() as u64;
            target.check(held.bytes, len_bytes)?;
            held.bytes += len_bytes;
            held.chunks.insert(index, chunk);
            Ok(())
        })
    }

    fn finish(&self) -> StoreFuture<Stored> {
        let (target, id) = (self.target.clone(), self.list.id());
        let (expected, held) = (self.list.len(), Arc::clone(&self.held));
        blocking(move || {
            let Held { chunks, bytes } = &mut *lock(&held);
            if chunks.len() < expected {
                let missing_chunks = expected - chunks.len();
                return Err(StoreError::Incomplete { id, missing_chunks });
            }
            let len = chunks.values().map(Bytes::len).sum();
            *bytes = 0;
            let mut content = BytesMut::with_capacity(len);
            // Each chunk is freed once it is copied.
            while let Some((_, chunk)) = chunks.pop_first() {
                content.extend_from_slice(&chunk);
            }
            Ok(target.finish(id, content.freeze()))
        })
    }
}

#[cfg(test)]
mod tests;
