//! A provider of 0.0.2.

use std::{sync::Arc, time::Duration};

use calimero_network_primitives::{limits::FRAME_PREFIX_BYTES, resources::Resource};
use calimero_network_stream::{FrameConfig, FrameReceiver};
use futures::{AsyncReadExt, AsyncWrite, future};
use tokio::time::timeout;

use super::{Requester, ServeError, Served, totals::Tally};
use crate::{
    BlobId, ChunkList,
    bandwidth::Turn,
    chunk_count,
    clock::unix_seconds,
    error::AuthError,
    store::BlobReader,
    transfer::{BoxDuplex, MessageWriter},
    v0::{
        AUTH_MAX_AGE_S, AUTH_MAX_AHEAD_S, BlobRequest, BlobResponse, CHUNK_PREFIX_BYTES,
        MAX_HANDSHAKE_BYTES, chunk_prefix,
    },
};

/// Longest wait for a turn at the upload limit: 8 s. Requesters give up a provider that sends
/// nothing for 10 s, and would leave when their turn has begun.
const TURN_PATIENCE: Duration = Duration::from_secs(8);

pub(super) async fn serve(requester: &Requester, stream: BoxDuplex) -> Result<Served, ServeError> {
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
    let mut tally = Tally::new(&requester.shared.totals);
    tally.requests(1);
    let opened = open(requester, &request).await;
    let outcome = match opened {
        Ok(Some((reader, list))) => send(requester, &mut writer, &*reader, &list, &mut tally).await,
        // "Not found" would make it look elsewhere.
        Err(error @ ServeError::Busy { .. }) => Err(error),
        refused => {
            tally.refused();
            respond(&mut writer, BlobResponse::NOT_FOUND).await?;
            refused.map(|_| ())
        }
    };
    if let Err(ServeError::Store(error)) = &outcome {
        requester.on_store_error(request.blob_id, error).await;
    }
    outcome?;
    writer.close().await?;
    // The requester closes as well. What else it sends is ignored.
    let _ = timeout(after, frames.next()).await;
    Ok(tally.served())
}

type Opened = (Arc<dyn BlobReader>, ChunkList);

/// Opens the blob if the requester may have it.
async fn open(requester: &Requester, request: &BlobRequest) -> Result<Option<Opened>, ServeError> {
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
    let Some(reader) = requester.open(*context_id, *blob_id, public_key).await? else {
        return Ok(None);
    };
    // A blob that is given without a signature needs no guard against replay. Otherwise many
    // throw-away keys could fill the memory of the guard by requests for public blobs.
    if let Some(auth) = auth
        && !requester
            .authorize(*context_id, *blob_id, None)
            .await
            .unwrap_or(false)
    {
        let permit = || {
            let permit = requester.holder.take(Resource::BlobNonces, 1);
            let permit = permit.map_err(|refused| AuthError::Busy {
                capacity: usize::try_from(refused.limit).unwrap_or(usize::MAX),
                max_age_s: AUTH_MAX_AGE_S + AUTH_MAX_AHEAD_S,
            });
            permit.map(Some)
        };
        let (peer, mut replays) = (requester.peer, requester.replays());
        replays.admit_with(auth, blob_id, context_id, peer, now, permit)?;
    }
    let list = requester.list(&*reader).await?;
    Ok(Some((reader, list)))
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

/// Waits for a turn at the upload limit, which lasts for all of the blob: what a requester has
/// received of a part is of no use to it. One that is too slow to use its share gives the turn up,
/// and receives the rest beside the others.
async fn turn(requester: &Requester, blob_id: BlobId) -> Result<Option<Turn>, ServeError> {
    let Some(turns) = requester.shared.bandwidth.blob_turns() else {
        return Ok(None);
    };
    let after = TURN_PATIENCE.min(requester.config().tuning.request_timeout);
    let turn = requester.turn(turns, blob_id, after).await;
    turn.map(Some).map_err(|_| ServeError::Busy { after })
}

/// Sends all of a blob.
async fn send<W: AsyncWrite + Unpin>(
    requester: &Requester,
    writer: &mut MessageWriter<W>,
    reader: &dyn BlobReader,
    list: &ChunkList,
    tally: &mut Tally,
) -> Result<(), ServeError> {
    // Where it has to wait for too long the stream is cut.
    let mut turn = turn(requester, list.id()).await?;
    let _transfer = requester.acquire(Resource::BlobTransfers, 1).await?;
    let size_bytes = reader.size_bytes();
    let found = respond(writer, BlobResponse::found(size_bytes));
    requester.in_time(found).await?;
    let chunks = chunk_count(size_bytes);
    let mut next = requester.read(reader, list, 0).await?;
    for index in 1..=chunks {
        let Some((chunk, place)) = next.take() else {
            break;
        };
        tally.sent(chunk.len());
        let bytes = chunk.len() as u64;
        let measure = turn.as_ref().map(Turn::sending);
        let sending = async {
            let sent = requester.in_time(send_chunk(writer, &chunk)).await;
            drop((chunk, place));
            sent
        };
        let reading = async { Ok(requester.read(reader, list, index).await) };
        let ((), read) = future::try_join(sending, reading).await?;
        next = read?;
        if measure.is_some_and(|measure| measure.is_slow(bytes)) {
            turn = None;
        }
    }
    let end = async {
        send_chunk(writer, &[]).await?;
        Ok::<_, ServeError>(writer.flush().await?)
    };
    requester.in_time(end).await
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
