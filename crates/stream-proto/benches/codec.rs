//! Frames through memory: this crate compared with `LengthDelimitedCodec` of
//! tokio-util and `LengthCodec` of asynchronous-codec, each with its own reader
//! and writer.
//!
//! Run it with `cargo bench -p calimero-network-stream --bench codec`. One item
//! is one frame. Compare only figures of the same run. Written bytes are copied
//! once into a buffer, as a socket does, and read bytes come from a slice.
//! Frames are dropped when they are received.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    reason = "a benchmark"
)]

use std::{
    hint::black_box,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use asynchronous_codec::LengthCodec;
use bytes::{Bytes, BytesMut};
use calimero_network_primitives::limits::{KIB, MIB};
use calimero_network_stream::{FrameCodec, FrameReceiver, FrameSender};
use divan::{
    Bencher,
    counter::{BytesCount, ItemsCount},
};
use futures::{AsyncWrite, SinkExt, StreamExt, executor::block_on};
use tokio_util::codec::LengthDelimitedCodec;

const SIZES: [usize; 4] = [64, KIB, 64 * KIB, MIB];

/// Payload bytes in one round.
const ROUND: usize = 8 * MIB;

fn main() {
    divan::main();
}

/// A sink that copies all writes into one buffer.
struct Socket(Vec<u8>);

impl Socket {
    fn new() -> Self {
        Self(vec![0; 256 * KIB])
    }

    fn take(&mut self, bytes: &[u8]) -> usize {
        let n = bytes.len().min(self.0.len());
        self.0[..n].copy_from_slice(&bytes[..n]);
        black_box(&self.0);
        n
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(self.take(bytes)))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl tokio::io::AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(self.take(bytes)))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Encodes the frames of one round, each with a prefix of 4 or 8 bytes.
fn wire(size: usize, prefix: usize) -> Vec<u8> {
    let mut frame = vec![0; prefix];
    frame[prefix - 4..].copy_from_slice(&u32::try_from(size).unwrap().to_be_bytes());
    frame.resize(prefix + size, 7);
    frame.repeat(ROUND / size)
}

fn counted<'a, 'b>(bencher: Bencher<'a, 'b>, size: usize) -> Bencher<'a, 'b> {
    bencher
        .counter(BytesCount::new(ROUND))
        .counter(ItemsCount::new(ROUND / size))
}

/// Feeds one round of frames and flushes once.
fn feed<E: std::fmt::Debug>(sink: impl futures::Sink<Bytes, Error = E>, size: usize) {
    let payload = Bytes::from(vec![7; size]);
    let mut sink = std::pin::pin!(sink);
    block_on(async {
        for _ in 0..ROUND / size {
            sink.feed(payload.clone()).await.unwrap();
        }
        sink.flush().await.unwrap();
    });
}

/// Receives all frames and checks their number.
fn drain<T, E>(stream: impl futures::Stream<Item = Result<T, E>>, size: usize) {
    let mut stream = std::pin::pin!(stream);
    let mut frames = 0;
    block_on(async {
        while let Some(frame) = stream.next().await {
            black_box(frame.ok().unwrap());
            frames += 1;
        }
    });
    assert_eq!(frames, ROUND / size);
}

#[divan::bench(args = SIZES)]
fn encode_this(bencher: Bencher<'_, '_>, size: usize) {
    counted(bencher, size).bench(|| feed(FrameSender::new(Socket::new()), size));
}

#[divan::bench(args = SIZES)]
fn encode_tokio_util(bencher: Bencher<'_, '_>, size: usize) {
    let codec = LengthDelimitedCodec::new;
    counted(bencher, size).bench(|| {
        feed(
            tokio_util::codec::FramedWrite::new(Socket::new(), codec()),
            size,
        )
    });
}

#[divan::bench(args = SIZES)]
fn encode_asynchronous_codec(bencher: Bencher<'_, '_>, size: usize) {
    counted(bencher, size).bench(|| {
        feed(
            asynchronous_codec::FramedWrite::new(Socket::new(), LengthCodec {}),
            size,
        );
    });
}

#[divan::bench(args = SIZES)]
fn decode_this(bencher: Bencher<'_, '_>, size: usize) {
    let wire = wire(size, 4);
    counted(bencher, size).bench(|| drain(FrameReceiver::new(&wire[..]), size));
}

#[divan::bench(args = SIZES)]
fn decode_tokio_util(bencher: Bencher<'_, '_>, size: usize) {
    let wire = wire(size, 4);
    let codec = LengthDelimitedCodec::new;
    counted(bencher, size)
        .bench(|| drain(tokio_util::codec::FramedRead::new(&wire[..], codec()), size));
}

#[divan::bench(args = SIZES)]
fn decode_asynchronous_codec(bencher: Bencher<'_, '_>, size: usize) {
    let wire = wire(size, 8);
    counted(bencher, size).bench(|| {
        drain(
            asynchronous_codec::FramedRead::new(&wire[..], LengthCodec {}),
            size,
        )
    });
}

/// The codec alone on a complete buffer, without a copy.
#[divan::bench(args = SIZES)]
fn decode_bare_this(bencher: Bencher<'_, '_>, size: usize) {
    use asynchronous_codec::Decoder;
    let wire = wire(size, 4);
    counted(bencher, size)
        .with_inputs(|| BytesMut::from(&wire[..]))
        .bench_values(|mut wire| {
            let mut codec = FrameCodec::default();
            while let Some(frame) = codec.decode(&mut wire).unwrap() {
                black_box(frame);
            }
        });
}

/// The codec of tokio-util alone on a complete buffer.
#[divan::bench(args = SIZES)]
fn decode_bare_tokio_util(bencher: Bencher<'_, '_>, size: usize) {
    use tokio_util::codec::Decoder;
    let wire = wire(size, 4);
    counted(bencher, size)
        .with_inputs(|| BytesMut::from(&wire[..]))
        .bench_values(|mut wire| {
            let mut codec = LengthDelimitedCodec::new();
            while let Some(frame) = codec.decode(&mut wire).unwrap() {
                black_box(frame);
            }
        });
}
