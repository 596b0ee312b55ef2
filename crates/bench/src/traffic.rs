//! The exchange on one stream. The stream starts with a request that contains
//! the work as JSON.

use bytes::Bytes;
use calimero_network::{FrameStream, StreamProtocol};
use futures::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{Failure, plan::Work, stack::Duplex};

/// Name of the protocol of the measurements.
pub(crate) const PROTOCOL: StreamProtocol = StreamProtocol::new("/netbench/1.0.0");

const BLOCK_BYTES: usize = 1 << 20;
const ECHO_BYTES: usize = 64;

/// Length of the request at the start of a stream, in bytes. The JSON is padded
/// with spaces.
const REQUEST_BYTES: usize = 256;

/// Runs the client's side of one stream.
pub(crate) async fn ask(mut stream: impl Duplex, work: Work) -> Result<(), Failure> {
    let mut request = serde_json::to_vec(&work)?;
    request.resize(REQUEST_BYTES, b' ');
    stream.write_all(&request).await?;
    match work {
        Work::Transfer { down: false, .. } => {
            let stream = send(stream, work).await?;
            acknowledged(stream).await
        }
        Work::Transfer { bytes, framed, .. } => {
            stream.flush().await?;
            let (_, received) = receive(stream, framed).await?;
            expect(received, bytes)
        }
        Work::RoundTrips { count } => round_trips(stream, count).await,
        Work::Streams { .. } | Work::Connect { .. } => round_trips(stream, 1).await,
        Work::Idle => Ok(stream.close().await?),
    }
}

/// Runs the server's side of one stream.
pub(crate) async fn answer(mut stream: impl Duplex) -> Result<(), Failure> {
    let mut request = [0; REQUEST_BYTES];
    stream.read_exact(&mut request).await?;
    let work: Work = serde_json::from_slice(&request)?;
    match work {
        Work::Transfer { down: true, .. } => {
            send(stream, work).await?;
            Ok(())
        }
        Work::Transfer { bytes, framed, .. } => {
            let (mut stream, received) = receive(stream, framed).await?;
            expect(received, bytes)?;
            stream.write_all(b".").await?;
            Ok(stream.close().await?)
        }
        Work::RoundTrips { .. } | Work::Streams { .. } | Work::Connect { .. } => echo(stream).await,
        Work::Idle => Ok(()),
    }
}

fn expect(received: u64, bytes: u64) -> Result<(), Failure> {
    if received == bytes {
        return Ok(());
    }
    Err(format!("{received} of {bytes} bytes arrived").into())
}

/// Sends the data of a transfer and closes the sending direction.
async fn send<S: Duplex>(mut stream: S, work: Work) -> Result<S, Failure> {
    let Work::Transfer {
        bytes,
        size_bytes,
        framed,
        flush_each,
        ..
    } = work
    else {
        return Err("not a transfer".into());
    };
    let block = Bytes::from(vec![0xa5; size_bytes]);
    let count = bytes / size_bytes as u64;
    if !framed {
        for _ in 0..count {
            stream.write_all(&block).await?;
        }
        stream.close().await?;
        return Ok(stream);
    }
    let mut frames = FrameStream::new(stream);
    for _ in 0..count {
        frames.feed(block.clone()).await?;
        if flush_each {
            frames.flush().await?;
        }
    }
    frames.close().await?;
    Ok(frames.into_inner())
}

/// Counts received bytes until the other side closes the stream.
async fn receive<S: Duplex>(mut stream: S, framed: bool) -> Result<(S, u64), Failure> {
    let mut received = 0;
    if framed {
        let mut frames = FrameStream::new(stream);
        while let Some(frame) = frames.next().await.transpose()? {
            received += frame.len() as u64;
        }
        return Ok((frames.into_inner(), received));
    }
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        match stream.read(&mut block).await? {
            0 => return Ok((stream, received)),
            count => received += count as u64,
        }
    }
}

async fn acknowledged(mut stream: impl Duplex) -> Result<(), Failure> {
    let mut end = [0];
    stream.read_exact(&mut end).await?;
    Ok(())
}

async fn round_trips(stream: impl Duplex, count: u32) -> Result<(), Failure> {
    let mut frames = FrameStream::new(stream);
    let payload = Bytes::from_static(&[0x5a; ECHO_BYTES]);
    for _ in 0..count {
        frames.send(payload.clone()).await?;
        if frames.next().await.transpose()?.as_ref() != Some(&payload) {
            return Err("another frame came back".into());
        }
    }
    frames.close().await?;
    match frames.next().await.transpose()? {
        None => Ok(()),
        Some(_) => Err("a frame too many came back".into()),
    }
}

async fn echo(stream: impl Duplex) -> Result<(), Failure> {
    let mut frames = FrameStream::new(stream);
    while let Some(frame) = frames.next().await.transpose()? {
        frames.send(frame).await?;
    }
    Ok(frames.close().await?)
}
