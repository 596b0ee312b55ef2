//! The requester of the blob protocol. The node serves blobs itself, by streams that it accepts, and
//! signs each request with the identity of its context.

use std::time::{Duration, Instant};

use calimero_network_primitives::{blob_types::BlobAuth, messages::RequestBlob};
use eyre::{Result, WrapErr as _, bail, ensure, eyre};
use futures_timer::Delay;
use network::{
    BlobId, FrameConfig, FrameStream, NetworkClient, StreamProtocol, Substream,
    blob::{BlobHasher, v0},
    bytes::Bytes,
    limits::MAX_FRAME_PAYLOAD_BYTES,
};

use crate::convert::peer_to_ours;

/// The protocol by which nodes serve blobs.
pub(crate) const BLOB_PROTOCOL: StreamProtocol = StreamProtocol::new("/calimero/blob/0.0.2");

/// Time for the answer of the provider, and for each chunk after it: 30 s, as in the published crate.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);

/// Time for the whole transfer: 60 s, as in the published crate, and what the bytes that have arrived
/// need at [`MIN_BYTES_PER_S`]. There a large blob over a slow link fails.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(60);

/// Lowest speed of a transfer that goes on for longer than [`TRANSFER_TIMEOUT`]: 16 KiB/s, at which a
/// chunk of 1 MiB takes 64 s. A guess.
const MIN_BYTES_PER_S: u32 = 16 * 1024;

/// Most bytes of a blob: 1 GiB. The node holds the whole blob in memory, once here and once more in
/// the event. A guess.
const MAX_BLOB_BYTES: usize = 1 << 30;

/// Fetches a blob from one provider. Returns `None` if the provider does not have it.
pub(crate) async fn request(
    client: &NetworkClient,
    request: &RequestBlob,
) -> Result<Option<Vec<u8>>> {
    let peer = peer_to_ours(&request.peer_id)?;
    let blob_id = BlobId::from(*request.blob_id.digest());
    let stream = client.open_raw_stream(peer, BLOB_PROTOCOL).await;
    let stream = stream.wrap_err("failed to open stream to peer")?;
    let mut stream = stream.into_frames(FrameConfig::default());

    let asked = v0::BlobRequest {
        blob_id,
        context_id: (*request.context_id.digest()).into(),
        auth: request.auth.map(auth),
    };
    let sent = stream.send_within(asked.encode()?, STEP_TIMEOUT).await;
    sent.wrap_err("failed to send blob request")?;
    let answer = next(&mut stream, STEP_TIMEOUT).await?;
    let answer = answer.ok_or_else(|| eyre!("stream closed without response"))?;
    let answer = v0::BlobResponse::decode(&answer).wrap_err("failed to read blob response")?;
    if !answer.found {
        return Ok(None);
    }
    if let Some(size) = answer.size {
        ensure!(
            size <= MAX_BLOB_BYTES as u64,
            "blob of {size} bytes, the limit is {MAX_BLOB_BYTES}"
        );
    }
    let content = receive(&mut stream, answer.size, blob_id).await?;
    // The provider has closed its direction already. A failure here changes nothing.
    let _ = within(stream.close()).await;
    Ok(Some(content))
}

/// Receives the chunks and verifies that they are the blob.
async fn receive(
    stream: &mut FrameStream<Substream>,
    size: Option<u64>,
    blob_id: BlobId,
) -> Result<Vec<u8>> {
    let limit = size.map_or(MAX_BLOB_BYTES, |size| size as usize);
    let mut hasher = BlobHasher::new();
    let mut content = Vec::new();
    let begun = Instant::now();
    loop {
        let left = time_left(begun.elapsed(), content.len());
        let left = left.ok_or_else(|| {
            eyre!("the provider sends less than {MIN_BYTES_PER_S} bytes per second")
        })?;
        let Some(frame) = next(stream, left.min(STEP_TIMEOUT)).await? else {
            break;
        };
        let chunk = v0::BlobChunk::decode_within(frame, MAX_FRAME_PAYLOAD_BYTES)
            .wrap_err("failed to parse blob chunk")?;
        if chunk.data.is_empty() {
            break;
        }
        ensure!(
            content.len() + chunk.data.len() <= limit,
            "the provider sends more than the {limit} bytes of the blob"
        );
        hasher.update(&chunk.data)?;
        content.extend_from_slice(&chunk.data);
    }
    let received = hasher.finish().list.id();
    if received != blob_id {
        bail!(
            "the provider sent {} bytes that are blob {received}, not {blob_id}",
            content.len()
        );
    }
    Ok(content)
}

/// Time left for a transfer after `elapsed`, in which `received_bytes` have arrived.
fn time_left(elapsed: Duration, received_bytes: usize) -> Option<Duration> {
    let earned = Duration::from_secs(received_bytes as u64) / MIN_BYTES_PER_S;
    (TRANSFER_TIMEOUT + earned).checked_sub(elapsed)
}

/// The next frame within the limit; `None` at the end of the stream.
async fn next(stream: &mut FrameStream<Substream>, limit: Duration) -> Result<Option<Bytes>> {
    let frame = stream.next_within(limit).await.transpose();
    frame.wrap_err("failed to receive from the provider")
}

async fn within(close: impl Future<Output = Result<(), network::FrameError>>) -> Option<()> {
    tokio::select! {
        closed = close => closed.ok(),
        () = Delay::new(STEP_TIMEOUT) => None,
    }
}

fn auth(auth: BlobAuth) -> v0::BlobAuth {
    v0::BlobAuth {
        public_key: *auth.public_key.digest(),
        signature: auth.signature,
        timestamp: auth.timestamp,
    }
}

#[cfg(test)]
mod tests;
