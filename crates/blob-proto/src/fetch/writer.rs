//! A blob that goes to a writer, in order.

use std::{
    collections::BTreeMap,
    io,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::{Bytes, BytesMut};
use calimero_network_primitives::limits::BLOB_CHUNK_BYTES;
use futures::{AsyncWrite, AsyncWriteExt, FutureExt, lock::Mutex as AsyncMutex};
use sha2::{Digest, Sha256};

use super::target::{check_id, lock, no_reader, no_size, ready};
use crate::{
    BlobId, ChunkHash, ChunkList,
    store::{
        BlobReader, BlobStore, BlobWriter, Hold, PartialBlob, StoreError, StoreFuture, Stored,
        StoredBatch, blocking::blocking,
    },
};

type Io = Box<dyn AsyncWrite + Send + Unpin>;

/// A writer as a place for one blob. What is written cannot be taken back, so what comes later
/// has to agree with it.
pub(super) struct WriterTarget {
    output: Arc<Output>,
}

struct Output {
    io: AsyncMutex<Io>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Hashes of the chunks that are written.
    written: Vec<ChunkHash>,
    written_bytes: u64,
    /// Whether a chunk may be written in part: its write was begun, and did not end.
    torn: bool,
    /// Chunks that wait for those before them. As many as the planner asks for ahead.
    early: BTreeMap<usize, Bytes>,
}

impl WriterTarget {
    pub(super) fn new(io: Io) -> Self {
        let output = Arc::new(Output {
            io: AsyncMutex::new(io),
            state: Mutex::default(),
        });
        Self { output }
    }
}

impl BlobStore for WriterTarget {
    fn size(&self, _: BlobId) -> StoreFuture<Option<u64>> {
        no_size()
    }

    fn reader(&self, _: BlobId) -> StoreFuture<Option<Arc<dyn BlobReader>>> {
        no_reader()
    }

    fn writer(&self) -> StoreFuture<Box<dyn BlobWriter>> {
        let whole = Whole {
            output: Arc::clone(&self.output),
            progress: Arc::default(),
        };
        ready(Ok(Box::new(whole) as Box<dyn BlobWriter>))
    }

    fn partial(&self, list: ChunkList) -> StoreFuture<Arc<dyn PartialBlob>> {
        let output = Arc::clone(&self.output);
        Box::pin(async move {
            let agrees = {
                let state = output.state();
                let mut written = (0..).zip(&state.written);
                written.all(|(index, hash)| list.get(index) == Some(*hash))
            };
            if !agrees {
                return Err(StoreError::Spoiled { id: list.id() });
            }
            Ok(Arc::new(Ordered { output, list }) as Arc<dyn PartialBlob>)
        })
    }

    fn put_batch(&self, blobs: Vec<(Option<BlobId>, Bytes)>) -> StoreFuture<StoredBatch> {
        let output = Arc::clone(&self.output);
        Box::pin(async move {
            let mut ids = Vec::with_capacity(blobs.len());
            for (expected, content) in blobs {
                let mut progress = Progress::default();
                progress.take(&output, content).await?;
                ids.push(progress.finish(&output, expected).await?.id);
            }
            let hold = Hold::default();
            Ok(StoredBatch { ids, hold })
        })
    }
}

impl Output {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Writes the early chunks whose turn it is.
    async fn advance(&self, list: &ChunkList) -> Result<(), StoreError> {
        let mut io = self.io.lock().await;
        loop {
            let (hash, chunk) = {
                let mut state = self.state();
                let next = state.written.len();
                match (list.get(next), state.early.remove(&next)) {
                    (Some(hash), Some(chunk)) => (hash, chunk),
                    _ => return Ok(()),
                }
            };
            self.write(&mut io, list.id(), hash, &chunk).await?;
        }
    }

    /// Writes a chunk of blob `id`. Where the call is dropped or fails, the writer may have taken a
    /// part of the chunk, so nothing can follow.
    async fn write(
        &self,
        to: &mut Io,
        id: BlobId,
        hash: ChunkHash,
        chunk: &[u8],
    ) -> Result<(), StoreError> {
        if std::mem::replace(&mut self.state().torn, true) {
            return Err(StoreError::Spoiled { id });
        }
        let written = AssertUnwindSafe(to.write_all(chunk)).catch_unwind().await;
        let written = written.unwrap_or_else(|_| Err(io::Error::other("the writer panicked")));
        written.map_err(|source| StoreError::Writer { source })?;
        let mut state = self.state();
        state.torn = false;
        state.written.push(hash);
        state.written_bytes += chunk.len() as u64;
        Ok(())
    }

    async fn flush(&self) -> Result<(), StoreError> {
        let mut output = self.io.lock().await;
        let flushed = AssertUnwindSafe(output.flush()).catch_unwind().await;
        let flushed = flushed.unwrap_or_else(|_| Err(io::Error::other("the writer panicked")));
        flushed.map_err(|source| StoreError::Writer { source })
    }
}

/// Chunks that are verified and put in order.
struct Ordered {
    output: Arc<Output>,
    list: ChunkList,
}

impl PartialBlob for Ordered {
    fn list(&self) -> &ChunkList {
        &self.list
    }

    fn has(&self, index: usize) -> bool {
        let state = self.output.state();
        index < state.written.len() || state.early.contains_key(&index)
    }

    fn missing(&self) -> usize {
        let state = self.output.state();
        self.list.len() - (state.written.len() + state.early.len()).min(self.list.len())
    }

    fn write(&self, index: usize, chunk: Bytes) -> StoreFuture<()> {
        let (output, list) = (Arc::clone(&self.output), self.list.clone());
        Box::pin(async move {
            let (proof, content) = (list.clone(), chunk.clone());
            blocking(move || Ok(proof.verify(index, &content)?)).await?;
            {
                let mut state = output.state();
                if index >= state.written.len() {
                    state.early.insert(index, chunk);
                }
            }
            output.advance(&list).await
        })
    }

    fn finish(&self) -> StoreFuture<Stored> {
        let (output, list) = (Arc::clone(&self.output), self.list.clone());
        Box::pin(async move {
            output.advance(&list).await?;
            let id = list.id();
            let (written, size_bytes) = {
                let state = output.state();
                (state.written.len(), state.written_bytes)
            };
            if written < list.len() {
                let missing_chunks = list.len() - written;
                return Err(StoreError::Incomplete { id, missing_chunks });
            }
            output.flush().await?;
            let hold = Hold::default();
            Ok(Stored {
                id,
                size_bytes,
                hold,
            })
        })
    }
}

/// Content that arrives in order, from its beginning with each try.
struct Whole {
    output: Arc<Output>,
    progress: Arc<AsyncMutex<Progress>>,
}

/// How far one try is.
#[derive(Default)]
struct Progress {
    hashes: Vec<ChunkHash>,
    gathered: BytesMut,
    size_bytes: u64,
}

impl BlobWriter for Whole {
    fn write(&mut self, piece: Bytes) -> StoreFuture<()> {
        let (output, progress) = (Arc::clone(&self.output), Arc::clone(&self.progress));
        Box::pin(async move { progress.lock().await.take(&output, piece).await })
    }

    fn finish(self: Box<Self>, expected: Option<BlobId>) -> StoreFuture<Stored> {
        Box::pin(async move {
            let mut progress = self.progress.lock().await;
            progress.finish(&self.output, expected).await
        })
    }
}

impl Progress {
    async fn take(&mut self, output: &Output, piece: Bytes) -> Result<(), StoreError> {
        self.size_bytes += piece.len() as u64;
        if self.gathered.is_empty() && piece.len() == BLOB_CHUNK_BYTES {
            return self.chunk(output, piece).await;
        }
        self.gathered.extend_from_slice(&piece);
        while self.gathered.len() >= BLOB_CHUNK_BYTES {
            let chunk = self.gathered.split_to(BLOB_CHUNK_BYTES).freeze();
            self.chunk(output, chunk).await?;
        }
        Ok(())
    }

    /// Hashes a chunk, and writes it unless an earlier try has written the same.
    async fn chunk(&mut self, output: &Output, chunk: Bytes) -> Result<(), StoreError> {
        let content = chunk.clone();
        let hash = blocking(move || Ok(ChunkHash::of(&content))).await?;
        // Another session may be writing the same chunk.
        let mut io = output.io.lock().await;
        let before = output.state().written.get(self.hashes.len()).copied();
        self.hashes.push(hash);
        match before {
            Some(before) if before == hash => Ok(()),
            Some(_) => Err(StoreError::Spoiled { id: self.id() }),
            None => output.write(&mut io, self.id(), hash, &chunk).await,
        }
    }

    fn id(&self) -> BlobId {
        let mut hasher = Sha256::new();
        self.hashes
            .iter()
            .for_each(|hash| hasher.update(hash.as_bytes()));
        BlobId::from(<[u8; 32]>::from(hasher.finalize()))
    }

    async fn finish(
        &mut self,
        output: &Output,
        expected: Option<BlobId>,
    ) -> Result<Stored, StoreError> {
        if !self.gathered.is_empty() {
            let chunk = self.gathered.split().freeze();
            self.chunk(output, chunk).await?;
        }
        let id = self.id();
        check_id(expected, id)?;
        if output.state().written.len() > self.hashes.len() {
            return Err(StoreError::Spoiled { id });
        }
        output.flush().await?;
        Ok(Stored {
            id,
            size_bytes: self.size_bytes,
            hold: Hold::default(),
        })
    }
}

#[cfg(test)]
mod tests;
