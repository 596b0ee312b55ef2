//! A provider of 0.0.2.

use std::sync::Arc;

use bytes::Bytes;
use calimero_network_primitives::limits::FRAME_PREFIX_BYTES;
use calimero_network_stream::{FrameConfig, FrameReceiver};
use futures::{AsyncReadExt, AsyncWrite, future};
use tokio::time::timeout;

use super::{Requester, ServeError, Served, slots::Chunk};
use crate::{
    chunk_count,
    id::CHUNK_BYTES,
    store::{BlobReader, StoreError},
    transfer::{BoxDuplex, MessageWriter, unix_seconds},
    wire::{BlobRequest, BlobResponse, CHUNK_PREFIX_BYTES, MAX_HANDSHAKE_BYTES, chunk_prefix},
};

pub(super) async fn serve(requester: Requester, stream: BoxDuplex) -> Result<Served, ServeError> {
    let (reader, writer) = stream.split();
    // A requester sends a handshake and nothing else.
    let config = FrameConfig {
        max_payload: MAX_HANDSHAKE_BYTES,
        read_buffer: MAX_HANDSHAKE_BYTES,
        ..FrameConfig::default()
    };
    let mut frames = FrameReceiver::with_config(reader, config);
    let mut writer = MessageWriter::new(writer, requester.config().tuning.stall_timeout);
    let after = requester.config().tuning.request_timeout;
    let request = match timeout(after, frames.next()).await {
        Ok(request) => request.transpose()?.ok_or(ServeError::Closed)?,
        Err(_) => return Err(ServeError::NoRequest { after }),
    };
    let request = BlobRequest::decode(&request)?;
    let mut served = Served {
        requests: 1,
        ..Served::default()
    };
    let opened = open(&requester, &request).await;
    let outcome = match opened {
        Ok(Some(reader)) => send(&requester, &mut writer, &*reader).await,
        refused => {
            served.refused = 1;
            respond(&mut writer, BlobResponse::NOT_FOUND).await?;
            refused.map(|_| 0)
        }
    };
    served.sent_bytes = outcome?;
    writer.close().await?;
    // The requester closes as well, or sends what nobody waits for.
    let _ = timeout(after, frames.next()).await;
    Ok(served)
}

/// Opens the blob if the requester may have it.
async fn open(
    requester: &Requester,
    request: &BlobRequest,
) -> Result<Option<Arc<dyn BlobReader>>, ServeError> {
    let BlobRequest {
        blob_id,
        context_id,
        auth,
    } = request;
    let now = unix_seconds();
    if let Some(auth) = auth {
        auth.verify(blob_id, context_id, now)?;
    }
    let public_key = auth.as_ref().map(|auth| auth.public_key);
    let opened = requester.open(*context_id, *blob_id, public_key).await?;
    // Remembered only for who may have something, so that strangers cannot fill the memory.
    if let (Some(auth), Some(_)) = (auth, &opened) {
        let peer = requester.peer;
        requester
            .replays()
            .admit(auth, blob_id, context_id, peer, now)?;
    }
    Ok(opened)
}

async fn respond<W: AsyncWrite + Unpin>(
    writer: &mut MessageWriter<W>,
    response: BlobResponse,
) -> Result<(), ServeError> {
    let response = response.encode()?;
    // At most a hundred bytes.
    let prefix = (response.len() as u32).to_be_bytes();
    writer.feed(&prefix, &response).await?;
    Ok(writer.flush().await?)
}

/// Sends all of a blob, and says how many bytes that were.
async fn send<W: AsyncWrite + Unpin>(
    requester: &Requester,
    writer: &mut MessageWriter<W>,
    reader: &dyn BlobReader,
) -> Result<u64, ServeError> {
    let after = requester.config().tuning.request_timeout;
    // Not told that there is nothing here: who is cut off tries again.
    let _transfer = requester.slots.transfer(after).await;
    let _transfer = _transfer.ok_or(ServeError::Busy { after })?;
    let size_bytes = reader.size_bytes();
    respond(writer, BlobResponse::found(size_bytes)).await?;
    let chunks = chunk_count(size_bytes);
    let mut next = read(requester, reader, 0).await?;
    for index in 1..=chunks {
        let Some((chunk, place)) = next.take() else {
            break;
        };
        let sending = async {
            let sent = requester.in_time(send_chunk(writer, &chunk)).await;
            drop((chunk, place));
            sent
        };
        let reading = async { Ok(read(requester, reader, index).await) };
        let ((), read) = future::try_join(sending, reading).await?;
        next = read?;
    }
    send_chunk(writer, &[]).await?;
    writer.flush().await?;
    Ok(size_bytes)
}

/// Reads a chunk once there is a place for it; `None` beyond the end.
pub(super) async fn read(
    requester: &Requester,
    reader: &dyn BlobReader,
    index: u64,
) -> Result<Option<(Bytes, Chunk)>, StoreError> {
    let size_bytes = reader.size_bytes();
    let start = index.saturating_mul(CHUNK_BYTES);
    if start >= size_bytes {
        return Ok(None);
    }
    let place = requester.slots.chunk().await.ok_or(StoreError::Stopped)?;
    let end = start.saturating_add(CHUNK_BYTES).min(size_bytes);
    let chunk = reader.read(start..end).await?;
    Ok(Some((chunk, place)))
}

async fn send_chunk<W: AsyncWrite + Unpin>(
    writer: &mut MessageWriter<W>,
    data: &[u8],
) -> Result<(), ServeError> {
    let inner = chunk_prefix(data.len())?;
    let mut head = [0; FRAME_PREFIX_BYTES + CHUNK_PREFIX_BYTES];
    let frame_len = (CHUNK_PREFIX_BYTES + data.len()) as u32;
    head[..FRAME_PREFIX_BYTES].copy_from_slice(&frame_len.to_be_bytes());
    head[FRAME_PREFIX_BYTES..].copy_from_slice(&inner);
    Ok(writer.feed(&head, data).await?)
}
