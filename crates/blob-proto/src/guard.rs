//! Code of the embedding program under a deadline: stores, authorizers and signers. A panic or a
//! hang of one is a typed error of the operation that called it, and of nothing else.

use std::{ops::Range, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::FutureExt;
use tokio::time::timeout;

use crate::{
    BlobId, ChunkList,
    error::CallbackError,
    store::{
        BlobReader, BlobStore, BlobWriter, Hold, PartialBlob, StoreError, StoreFuture, Stored,
        StoredBatch, Usage, Verification,
    },
    swarm::store_number,
};

/// Time for a store to answer where the work does not depend on the size of a blob: 60 s. A guess:
/// a disk that is waking up, or a network file system that reconnects, takes less.
pub(crate) const STORE_TIMEOUT: Duration = Duration::from_secs(60);

/// Time for an authorizer or a signer to answer: 10 s, the time that a requester is given to send
/// its request.
pub(crate) const CALLBACK_TIMEOUT: Duration = Duration::from_secs(10);

/// Content that a store is expected to read, hash or flush in one second, in bytes: 8 MiB. A guess
/// well below any disk.
const LEAST_BYTES_PER_S: u64 = 8 * 1024 * 1024;

/// Runs a callback. Its panic and its silence are errors.
pub(crate) async fn guarded<T, F: Future<Output = T>>(
    what: &'static str,
    after: Duration,
    call: impl FnOnce() -> F,
) -> Result<T, CallbackError> {
    // The call itself may panic as well as the future it returns. What the embedder left
    // inconsistent is its own: nothing of ours is shared with it.
    let call = AssertUnwindSafe(async move { call().await }).catch_unwind();
    match timeout(after, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => Err(CallbackError::Panicked { what }),
        Err(_) => Err(CallbackError::TimedOut { what, after }),
    }
}

/// A store whose panics and hangs are errors.
pub(crate) struct GuardedStore {
    store: Arc<dyn BlobStore>,
    after: Duration,
}

impl GuardedStore {
    pub(crate) fn wrap(store: Arc<dyn BlobStore>, after: Duration) -> Arc<dyn BlobStore> {
        Arc::new(Self { store, after })
    }
}

/// Deadline of work that depends on the size of a blob.
fn scaled(after: Duration, size_bytes: u64) -> Duration {
    after + Duration::from_secs(size_bytes / LEAST_BYTES_PER_S)
}

fn call<T: Send + 'static>(
    what: &'static str,
    after: Duration,
    work: impl FnOnce() -> StoreFuture<T> + Send + 'static,
) -> StoreFuture<T> {
    Box::pin(async move { guarded(what, after, work).await? })
}

impl BlobStore for GuardedStore {
    fn address(&self) -> Option<usize> {
        // Of a store without an address, that of its `Arc`, which is not the one around this.
        Some(store_number(&self.store))
    }

    fn hold(&self, id: BlobId) -> Hold {
        let hold = AssertUnwindSafe(|| self.store.hold(id));
        // Without it the blob may be collected, as in a store that has no holds.
        std::panic::catch_unwind(hold).unwrap_or_default()
    }

    fn usage(&self) -> Option<Usage> {
        let usage = AssertUnwindSafe(|| self.store.usage());
        std::panic::catch_unwind(usage).unwrap_or_default()
    }

    fn size(&self, id: BlobId) -> StoreFuture<Option<u64>> {
        let store = Arc::clone(&self.store);
        call("BlobStore::size", self.after, move || store.size(id))
    }

    fn reader(&self, id: BlobId) -> StoreFuture<Option<Arc<dyn BlobReader>>> {
        let (store, after) = (Arc::clone(&self.store), self.after);
        let opened = call("BlobStore::reader", after, move || {
            Box::pin(async move {
                let reader = store.reader(id).await?;
                Ok(reader.map(|reader| (reader.id(), reader.size_bytes(), reader)))
            })
        });
        Box::pin(async move {
            let reader = opened.await?.map(|(id, size_bytes, reader)| GuardedReader {
                id,
                size_bytes,
                reader,
                after,
            });
            Ok(reader.map(|reader| Arc::new(reader) as Arc<dyn BlobReader>))
        })
    }

    fn is_public(&self, id: BlobId) -> StoreFuture<bool> {
        let store = Arc::clone(&self.store);
        call("BlobStore::is_public", self.after, move || {
            store.is_public(id)
        })
    }

    fn verify(&self, id: BlobId, repair: bool) -> StoreFuture<Verification> {
        let (store, size, after) = (Arc::clone(&self.store), self.size(id), self.after);
        Box::pin(async move {
            let after = scaled(after, size.await?.unwrap_or_default());
            let verify = move || store.verify(id, repair);
            call("BlobStore::verify", after, verify).await
        })
    }

    fn withdraw(&self, id: BlobId) -> StoreFuture<bool> {
        let (store, size, after) = (Arc::clone(&self.store), self.size(id), self.after);
        Box::pin(async move {
            let after = scaled(after, size.await?.unwrap_or_default());
            call("BlobStore::withdraw", after, move || store.withdraw(id)).await
        })
    }

    fn writer(&self) -> StoreFuture<Box<dyn BlobWriter>> {
        let (store, after) = (Arc::clone(&self.store), self.after);
        Box::pin(async move {
            let writer = call("BlobStore::writer", after, move || store.writer()).await?;
            let guarded = GuardedWriter {
                writer: Some(writer),
                written_bytes: 0,
                after,
            };
            Ok(Box::new(guarded) as Box<dyn BlobWriter>)
        })
    }

    fn partial(&self, list: ChunkList) -> StoreFuture<Arc<dyn PartialBlob>> {
        let (store, after) = (Arc::clone(&self.store), self.after);
        // What is there already is hashed.
        let long = scaled(after, list.size_bounds().1);
        Box::pin(async move {
            let wanted = list.clone();
            let partial = call("BlobStore::partial", long, move || store.partial(wanted)).await?;
            let guarded = GuardedPartial {
                partial,
                list,
                after,
            };
            Ok(Arc::new(guarded) as Arc<dyn PartialBlob>)
        })
    }

    fn put_batch(&self, blobs: Vec<(Option<BlobId>, Bytes)>) -> StoreFuture<StoredBatch> {
        let store = Arc::clone(&self.store);
        let size_bytes = blobs.iter().map(|(_, content)| content.len() as u64).sum();
        let after = scaled(self.after, size_bytes);
        call("BlobStore::put_batch", after, move || {
            store.put_batch(blobs)
        })
    }
}

struct GuardedReader {
    reader: Arc<dyn BlobReader>,
    id: BlobId,
    size_bytes: u64,
    after: Duration,
}

impl BlobReader for GuardedReader {
    fn id(&self) -> BlobId {
        self.id
    }

    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn list(&self) -> StoreFuture<ChunkList> {
        let reader = Arc::clone(&self.reader);
        // Where the hashes are not stored, all of the blob is read.
        let after = scaled(self.after, self.size_bytes);
        call("BlobReader::list", after, move || reader.list())
    }

    fn stored_list(&self) -> StoreFuture<Option<ChunkList>> {
        let reader = Arc::clone(&self.reader);
        call("BlobReader::stored_list", self.after, move || {
            reader.stored_list()
        })
    }

    fn read(&self, range: Range<u64>) -> StoreFuture<Bytes> {
        let reader = Arc::clone(&self.reader);
        call("BlobReader::read", self.after, move || reader.read(range))
    }
}

struct GuardedWriter {
    /// Absent while a call runs, and after one that failed.
    writer: Option<Box<dyn BlobWriter>>,
    written_bytes: u64,
    after: Duration,
}

impl BlobWriter for GuardedWriter {
    fn write(&mut self, piece: Bytes) -> StoreFuture<()> {
        self.written_bytes += piece.len() as u64;
        let Some(writer) = &mut self.writer else {
            return Box::pin(std::future::ready(Err(StoreError::Broken)));
        };
        // The call borrows the writer, so it runs here and its future under the deadline.
        let begun = std::panic::catch_unwind(AssertUnwindSafe(|| writer.write(piece)));
        match begun {
            Ok(writing) => call("BlobWriter::write", self.after, move || writing),
            Err(_) => {
                self.writer = None;
                let what = "BlobWriter::write";
                Box::pin(std::future::ready(Err(
                    CallbackError::Panicked { what }.into()
                )))
            }
        }
    }

    fn finish(self: Box<Self>, expected: Option<BlobId>) -> StoreFuture<Stored> {
        let after = scaled(self.after, self.written_bytes);
        match self.writer {
            Some(writer) => call("BlobWriter::finish", after, move || writer.finish(expected)),
            None => Box::pin(std::future::ready(Err(StoreError::Broken))),
        }
    }
}

struct GuardedPartial {
    partial: Arc<dyn PartialBlob>,
    list: ChunkList,
    after: Duration,
}

impl PartialBlob for GuardedPartial {
    fn list(&self) -> &ChunkList {
        &self.list
    }

    fn has(&self, index: usize) -> bool {
        let has = AssertUnwindSafe(|| self.partial.has(index));
        // A chunk that is asked for once more does no harm.
        std::panic::catch_unwind(has).unwrap_or(false)
    }

    fn missing(&self) -> usize {
        let missing = AssertUnwindSafe(|| self.partial.missing());
        std::panic::catch_unwind(missing).unwrap_or(self.list.len())
    }

    fn write(&self, index: usize, chunk: Bytes) -> StoreFuture<()> {
        let partial = Arc::clone(&self.partial);
        call("PartialBlob::write", self.after, move || {
            partial.write(index, chunk)
        })
    }

    fn read(&self, index: usize) -> StoreFuture<Option<Bytes>> {
        let partial = Arc::clone(&self.partial);
        call("PartialBlob::read", self.after, move || partial.read(index))
    }

    fn finish(&self) -> StoreFuture<Stored> {
        let partial = Arc::clone(&self.partial);
        let after = scaled(self.after, self.list.size_bounds().1);
        call("PartialBlob::finish", after, move || partial.finish())
    }
}
