//! Traffic between the nodes. The first frame of a stream says what its server does with
//! the others: send each one back, or count their bytes and send the count at the end.

use std::time::{Duration, Instant};

use bytes::Bytes;
use calimero_network::{FrameError, FrameStream, NetworkClient, PeerId, Substream};

use crate::error::CommandError;

const ECHO: &[u8] = b"echo";
const COUNT: &[u8] = b"count";

/// Sizes of the echoed payloads in bytes: both bounds of the frame format, and what is usual
/// between.
const ECHO_SIZES: [usize; 5] = [0, 1, 1 << 10, 64 << 10, 8 << 20];

/// The one-way transfer: 48 frames of 1 MiB.
const BULK_FRAMES: u64 = 48;
const BULK_FRAME_BYTES: usize = 1 << 20;

/// What was moved over one connection and what became of it.
#[derive(Clone, Debug)]
pub(super) struct Traffic {
    pub(super) streams: u64,
    pub(super) frames: u64,
    pub(super) bytes: u64,
    pub(super) bulk_bytes: u64,
    pub(super) bulk_time: Duration,
    pub(super) echoes_equal: bool,
    pub(super) all_counted: bool,
}

/// The client's side: one stream of echoes, one of bulk.
pub(super) async fn run(client: NetworkClient, to: PeerId) -> Result<Traffic, CommandError> {
    let (echoed, echoes_equal) = echo(client.open_stream(to).await?).await.map_err(frames)?;
    let bulk_bytes = BULK_FRAMES * BULK_FRAME_BYTES as u64;
    let stream = client.open_stream(to).await?;
    let (counted, bulk_time) = bulk(stream).await.map_err(frames)?;
    Ok(Traffic {
        streams: 2,
        frames: 2 * ECHO_SIZES.len() as u64 + BULK_FRAMES,
        bytes: 2 * echoed + bulk_bytes,
        bulk_bytes,
        bulk_time,
        echoes_equal,
        all_counted: counted == Some(bulk_bytes),
    })
}

/// The server's side of either.
pub(super) async fn answer(mut stream: FrameStream<Substream>) -> Result<(), FrameError> {
    let Some(what) = stream.next().await.transpose()? else {
        return Ok(());
    };
    if what == ECHO {
        while let Some(frame) = stream.next().await.transpose()? {
            stream.send(frame).await?;
        }
    } else if what == COUNT {
        let mut count = 0u64;
        while let Some(frame) = stream.next().await.transpose()? {
            count += frame.len() as u64;
        }
        stream
            .send(Bytes::copy_from_slice(&count.to_be_bytes()))
            .await?;
    }
    stream.close().await
}

async fn echo(mut stream: FrameStream<Substream>) -> Result<(u64, bool), FrameError> {
    stream.send(Bytes::from_static(ECHO)).await?;
    let (mut bytes, mut equal) = (0, true);
    for size in ECHO_SIZES {
        let payload = pattern(size);
        stream.send(payload.clone()).await?;
        equal &= stream.next().await.transpose()? == Some(payload);
        bytes += size as u64;
    }
    stream.close().await?;
    let ended = stream.next().await.transpose()?.is_none();
    Ok((bytes, equal && ended))
}

async fn bulk(mut stream: FrameStream<Substream>) -> Result<(Option<u64>, Duration), FrameError> {
    let payload = pattern(BULK_FRAME_BYTES);
    stream.send(Bytes::from_static(COUNT)).await?;
    let started = Instant::now();
    for _ in 0..BULK_FRAMES {
        stream.feed(payload.clone()).await?;
    }
    stream.close().await?;
    let count = stream.next().await.transpose()?;
    let time = started.elapsed();
    let count = count.and_then(|count| count.as_ref().try_into().ok());
    Ok((count.map(u64::from_be_bytes), time))
}

/// Bytes in which every position differs from its neighbours and no block repeats the last.
fn pattern(size: usize) -> Bytes {
    (0..size)
        .map(|i| (i % 251) as u8 ^ (i >> 10) as u8)
        .collect()
}

fn frames(source: FrameError) -> CommandError {
    CommandError::Io {
        what: "frames",
        source: std::io::Error::other(source),
    }
}
