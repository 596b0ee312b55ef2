//! The store on tokio: each call runs on a thread that may block.

use std::{
    ops::Range,
    sync::{Arc, Mutex},
};

use bytes::Bytes;

use super::{FsBlobStore, FsPartial, FsReader, FsWriter, lock};
use crate::{
    BlobId, ChunkList,
    store::{
        BlobReader, BlobStore, BlobWriter, Hold, PartialBlob, StoreError, StoreFuture, Stored,
        StoredBatch, Usage, Verification, blocking::blocking,
    },
};

impl BlobStore for FsBlobStore {
    fn usage(&self) -> Option<Usage> {
        Some(FsBlobStore::usage(self))
    }

    fn size(&self, id: BlobId) -> StoreFuture<Option<u64>> {
        let size = FsBlobStore::size(self, &id);
        Box::pin(std::future::ready(Ok(size)))
    }

    fn is_public(&self, _: BlobId) -> StoreFuture<bool> {
        let public = self.shared.public;
        Box::pin(std::future::ready(Ok(public)))
    }

    fn reader(&self, id: BlobId) -> StoreFuture<Option<Arc<dyn BlobReader>>> {
        let store = self.clone();
        blocking(move || {
            let reader = FsBlobStore::reader(&store, &id)?;
            Ok(reader.map(|reader| Arc::new(reader) as Arc<dyn BlobReader>))
        })
    }

    fn hold(&self, id: BlobId) -> Hold {
        FsBlobStore::hold(self, id)
    }

    fn address(&self) -> Option<usize> {
        Some(Arc::as_ptr(&self.shared).addr())
    }

    fn verify(&self, id: BlobId, repair: bool) -> StoreFuture<Verification> {
        let store = self.clone();
        blocking(move || store.check(&id, repair))
    }

    fn withdraw(&self, id: BlobId) -> StoreFuture<bool> {
        let store = self.clone();
        blocking(move || FsBlobStore::withdraw(&store, &id))
    }

    fn writer(&self) -> StoreFuture<Box<dyn BlobWriter>> {
        let store = self.clone();
        blocking(move || {
            let writer = FsBlobStore::writer(&store)?;
            let writer = Arc::new(Mutex::new(Some(writer)));
            Ok(Box::new(SharedWriter { writer }) as Box<dyn BlobWriter>)
        })
    }

    fn partial(&self, list: ChunkList) -> StoreFuture<Arc<dyn PartialBlob>> {
        let store = self.clone();
        blocking(move || {
            let partial = Arc::new(FsBlobStore::partial(&store, list)?);
            Ok(Arc::new(SharedPartial { partial }) as Arc<dyn PartialBlob>)
        })
    }

    fn put_batch(&self, blobs: Vec<(Option<BlobId>, Bytes)>) -> StoreFuture<StoredBatch> {
        let store = self.clone();
        blocking(move || {
            let mut batch = store.batch();
            for (expected, content) in blobs {
                batch.add(expected, &content)?;
            }
            batch.commit()
        })
    }
}

impl BlobReader for FsReader {
    fn id(&self) -> BlobId {
        FsReader::id(self)
    }

    fn size_bytes(&self) -> u64 {
        FsReader::size_bytes(self)
    }

    fn list(&self) -> StoreFuture<ChunkList> {
        let reader = self.clone();
        blocking(move || FsReader::list(&reader))
    }

    fn stored_list(&self) -> StoreFuture<Option<ChunkList>> {
        let reader = self.clone();
        blocking(move || FsReader::stored_list(&reader))
    }

    fn read(&self, range: Range<u64>) -> StoreFuture<Bytes> {
        let reader = self.clone();
        blocking(move || FsReader::read(&reader, range))
    }
}

/// A writer whose writes may outlive their futures. It is `None` after it was
/// finished.
struct SharedWriter {
    writer: Arc<Mutex<Option<FsWriter>>>,
}

impl BlobWriter for SharedWriter {
    fn write(&mut self, piece: Bytes) -> StoreFuture<()> {
        let writer = Arc::clone(&self.writer);
        blocking(move || match &mut *lock(&writer) {
            Some(writer) => writer.write(&piece),
            None => Err(StoreError::Broken),
        })
    }

    fn finish(self: Box<Self>, expected: Option<BlobId>) -> StoreFuture<Stored> {
        blocking(move || {
            let writer = lock(&self.writer).take();
            writer.ok_or(StoreError::Broken)?.finish(expected)
        })
    }
}

/// A partial download that chunks being written keep open.
struct SharedPartial {
    partial: Arc<FsPartial>,
}

impl PartialBlob for SharedPartial {
    fn list(&self) -> &ChunkList {
        self.partial.list()
    }

    fn has(&self, index: usize) -> bool {
        self.partial.has(index)
    }

    fn missing(&self) -> usize {
        self.partial.missing()
    }

    fn write(&self, index: usize, chunk: Bytes) -> StoreFuture<()> {
        let partial = Arc::clone(&self.partial);
        blocking(move || partial.write(index, &chunk))
    }

    fn read(&self, index: usize) -> StoreFuture<Option<Bytes>> {
        let partial = Arc::clone(&self.partial);
        blocking(move || partial.read(index))
    }

    fn finish(&self) -> StoreFuture<Stored> {
        let partial = Arc::clone(&self.partial);
        blocking(move || partial.finish())
    }
}
