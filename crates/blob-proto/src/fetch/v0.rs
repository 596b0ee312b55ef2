//! A transfer of 0.0.2: all of a blob from one provider, in order.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use calimero_network_primitives::limits::BLOB_CHUNK_BYTES;
use calimero_network_stream::{FrameConfig, FrameStream};
use futures::future;
use tokio::time::timeout;

use super::{
    ProviderError,
    session::{Context, End, EventKind, Meter, SessionId},
};
use crate::{
    clock::unix_seconds,
    store::{BlobStore, PartialBlob, StoreError, StoreFuture, Stored},
    transfer::{BoxDuplex, Counted, Opened},
    v0::{BlobAuth, BlobChunk, BlobRequest, BlobResponse, CHUNK_PREFIX_BYTES},
};

/// Where the content goes.
pub(super) enum Keep {
    /// To a writer of the store, which hashes it: the chunk hashes are not known.
    Whole(Arc<dyn BlobStore>),
    /// Chunk by chunk to where some are missing: the chunk hashes are known.
    Missing(Arc<dyn PartialBlob>),
}

pub(super) struct V0Fetch {
    pub(super) context: Arc<Context>,
    pub(super) id: SessionId,
    pub(super) meter: Meter,
}

type Frames = FrameStream<Counted<BoxDuplex>>;

impl V0Fetch {
    /// Fetches over a stream that is open already, if there is one.
    pub(super) async fn run(self, opened: Option<Opened<BoxDuplex>>, into: Keep) -> End {
        match self.fetch(opened, into).await {
            Ok(None) => End::Fine,
            Ok(Some(stored)) => End::Stored(stored),
            Err(end) => end,
        }
    }

    async fn fetch(
        &self,
        opened: Option<Opened<BoxDuplex>>,
        into: Keep,
    ) -> Result<Option<Stored>, End> {
        let opened = match opened.filter(|opened| !self.context.must_wait(opened, true)) {
            Some(opened) => {
                self.meter.on_open();
                opened
            }
            None => self.context.open(self.id.peer, true, &self.meter).await?,
        };
        let io = Counted::new(opened.stream, Arc::clone(&self.meter.arrived.bytes));
        // No frame of a provider is larger than a chunk.
        let config = FrameConfig {
            max_payload: BLOB_CHUNK_BYTES + CHUNK_PREFIX_BYTES,
            ..FrameConfig::default()
        };
        let mut frames = FrameStream::with_config(io, config);
        let size_bytes = self.shake_hands(&mut frames).await?;
        let content = Content {
            said_bytes: size_bytes,
            max_bytes: self.context.request.max_bytes,
            received_bytes: 0,
        };
        let stored = match into {
            Keep::Whole(store) => self.whole(&mut frames, content, &*store).await.map(Some),
            Keep::Missing(partial) => self
                .missing(&mut frames, content, partial)
                .await
                .map(|()| None),
        };
        // The provider may wait for it; whether it arrives is its concern. The result does not wait:
        // another session could be given what is stored already.
        let limit = self.context.config.tuning.stall_timeout;
        tokio::spawn(async move { timeout(limit, frames.close()).await.is_ok() });
        stored
    }

    async fn shake_hands(&self, frames: &mut Frames) -> Result<Option<u64>, ProviderError> {
        let request = &self.context.request;
        let timestamp = unix_seconds();
        let message = BlobAuth::message(&request.blob_id, &request.context_id, timestamp);
        let signed = self
            .context
            .sign(Some(request.blob_id), self.id.peer, message);
        let auth = signed.await?.map(|signed| BlobAuth {
            public_key: signed.public_key,
            signature: signed.signature,
            timestamp,
        });
        let request = BlobRequest {
            blob_id: request.blob_id,
            context_id: request.context_id,
            auth,
        };
        let request = request.encode().map_err(ProviderError::Handshake)?;
        frames.send(request).await?;
        let Some(response) = frames.next().await.transpose()? else {
            return Err(ProviderError::Closed { received_bytes: 0 });
        };
        let response = BlobResponse::decode(&response).map_err(ProviderError::Handshake)?;
        if !response.found {
            return Err(ProviderError::NotFound);
        }
        if let Some(size_bytes) = response.size {
            let max_bytes = self.context.request.max_bytes;
            if size_bytes > max_bytes {
                return Err(ProviderError::TooLarge {
                    size_bytes,
                    max_bytes,
                });
            }
            let size = EventKind::Size(size_bytes);
            self.context.report(self.id, size).await;
        }
        Ok(response.size)
    }

    /// Writes all of the content, each piece while the next one arrives.
    async fn whole(
        &self,
        frames: &mut Frames,
        mut content: Content,
        store: &dyn BlobStore,
    ) -> Result<Stored, End> {
        if let Some(error) = content.exceeds(store) {
            return Err(End::Provider(error));
        }
        let mut writer = store.writer().await.map_err(store_error)?;
        let mut writing: StoreFuture<()> = Box::pin(future::ready(Ok(())));
        loop {
            let (piece, written) = future::join(content.next(frames), writing).await;
            written.map_err(store_error)?;
            match piece? {
                Some(piece) => writing = writer.write(piece),
                None => break,
            }
        }
        let expected = self.context.request.blob_id;
        writer.finish(Some(expected)).await.map_err(store_error)
    }

    /// Hands on the chunks that are missing.
    async fn missing(
        &self,
        frames: &mut Frames,
        mut content: Content,
        partial: Arc<dyn PartialBlob>,
    ) -> Result<(), End> {
        let mut index = 0;
        let mut gathered = BytesMut::new();
        while let Some(piece) = content.next(frames).await? {
            // Each piece is a chunk. A provider that cuts pieces of another length is read as well.
            if gathered.is_empty() && piece.len() == BLOB_CHUNK_BYTES {
                self.hand_on(&*partial, index, piece).await?;
                index += 1;
                continue;
            }
            gathered.extend_from_slice(&piece);
            if gathered.len() >= BLOB_CHUNK_BYTES {
                let chunk = gathered.split_to(BLOB_CHUNK_BYTES).freeze();
                self.hand_on(&*partial, index, chunk).await?;
                index += 1;
            }
        }
        if !gathered.is_empty() {
            self.hand_on(&*partial, index, gathered.freeze()).await?;
        }
        let (least_bytes, _) = partial.list().size_bounds();
        if content.received_bytes < least_bytes {
            return Err(End::Provider(ProviderError::Fewer {
                said_bytes: least_bytes,
                received_bytes: content.received_bytes,
            }));
        }
        Ok(())
    }

    async fn hand_on(
        &self,
        partial: &dyn PartialBlob,
        index: u64,
        data: Bytes,
    ) -> Result<(), ProviderError> {
        if usize::try_from(index).is_ok_and(|index| partial.has(index)) {
            return Ok(());
        }
        self.context.report_chunk(self.id, index, data).await
    }
}

/// Returns what an error of the store means while the content is not verified: a provider that sends
/// more than there is space for is no fault of the store.
fn store_error(error: StoreError) -> End {
    match error {
        StoreError::Mismatch { actual, .. } => ProviderError::Content { actual }.into(),
        StoreError::Quota { .. } | StoreError::DiskFull { .. } => {
            let source = Arc::new(error);
            ProviderError::NoSpace { source }.into()
        }
        error => End::Store(error),
    }
}

/// The pieces of the content, counted against what was announced.
struct Content {
    said_bytes: Option<u64>,
    /// Most that is accepted of a provider that announced no size.
    max_bytes: u64,
    received_bytes: u64,
}

impl Content {
    /// Returns the reason to refuse content that the store has no space for, before any of it comes.
    /// What partial downloads use counts as free, because expired ones are deleted.
    fn exceeds(&self, store: &dyn BlobStore) -> Option<ProviderError> {
        let (wanted_bytes, usage) = (self.said_bytes?, store.usage()?);
        let used_bytes = usage.used_bytes.saturating_add(usage.reserved_bytes);
        if wanted_bytes <= usage.limit_bytes.saturating_sub(used_bytes) {
            return None;
        }
        let source = Arc::new(StoreError::Quota {
            limit_bytes: usage.limit_bytes,
            used_bytes: used_bytes.saturating_add(usage.partial_bytes),
            partial_bytes: usage.partial_bytes,
            reserved_bytes: usage.reserved_bytes,
            wanted_bytes,
        });
        Some(ProviderError::NoSpace { source })
    }

    /// The next piece; `None` at the empty chunk, or at the close where all is there.
    async fn next(&mut self, frames: &mut Frames) -> Result<Option<Bytes>, ProviderError> {
        let received_bytes = self.received_bytes;
        let Some(frame) = frames.next().await.transpose()? else {
            return match self.said_bytes {
                Some(said_bytes) if received_bytes < said_bytes => {
                    Err(ProviderError::Closed { received_bytes })
                }
                _ => Ok(None),
            };
        };
        let data = BlobChunk::decode(frame)
            .map_err(ProviderError::ChunkFrame)?
            .data;
        if data.is_empty() {
            return match self.said_bytes {
                Some(said_bytes) if received_bytes < said_bytes => Err(ProviderError::Fewer {
                    said_bytes,
                    received_bytes,
                }),
                _ => Ok(None),
            };
        }
        self.received_bytes += data.len() as u64;
        let said_bytes = self.said_bytes.unwrap_or(self.max_bytes);
        if self.received_bytes > said_bytes {
            return Err(ProviderError::More { said_bytes });
        }
        Ok(Some(data))
    }
}
