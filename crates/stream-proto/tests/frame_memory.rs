//! Memory of incomplete frames over real TCP. The test has its own binary
//! because it measures the memory of the process.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "tests"
)]

mod nodes;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use calimero_network_primitives::{
    limits::{KIB, MAX_FRAME_PAYLOAD_BYTES, MIB},
    resources::Resource,
};
use calimero_network_stream::{
    FrameConfig, FrameError, StreamProtocol, Substream, config::StreamsConfig,
};
use futures::{AsyncWriteExt, StreamExt, future::join_all};
use nodes::{Node, soon};
use tokio::task::JoinHandle;

const A: StreamProtocol = StreamProtocol::new("/test/a");
const TCP: &str = "/ip4/127.0.0.1/tcp/0";

/// Number of attacking peers. With the streams of each, they send 200
/// incomplete frames of 8 MiB.
const PEERS: usize = 5;
const STREAMS: usize = 40;

/// Limit of memory growth of the process, attackers and victim together: 64 MiB
/// that one loopback address may hold, 200 receive windows of 256 KiB at the victim, the
/// same amount in the send buffers of the attackers, and memory retained by the
/// allocator. Without a budget the frames alone take 1.6 GiB.
const MAX_GROWTH: u64 = 300 * MIB as u64;

/// Returns the resident memory of this process, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib: u64 = line
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    kib * KIB as u64
}

/// Sends all but the last byte of a frame, as far as the peer reads it, and
/// keeps the stream open.
async fn half_send(mut stream: Substream) {
    let frame = MAX_FRAME_PAYLOAD_BYTES as u32;
    let piece = vec![0; 64 * KIB];
    let sent = async {
        stream.write_all(&frame.to_be_bytes()).await?;
        let mut left = MAX_FRAME_PAYLOAD_BYTES - 1;
        while left > 0 {
            let len = left.min(piece.len());
            stream.write_all(&piece[..len]).await?;
            left -= len;
        }
        stream.flush().await
    };
    if sent.await.is_ok() {
        std::future::pending::<()>().await;
    }
}

async fn attacker(victim: &Node) -> (Node, JoinHandle<()>) {
    let node = Node::memory(StreamsConfig::default());
    node.knows(victim).await;
    let streams = join_all((0..STREAMS).map(|_| node.control.open(victim.peer, A))).await;
    let task = tokio::spawn(async move {
        join_all(streams.into_iter().map(|stream| half_send(stream.unwrap()))).await;
    });
    (node, task)
}

/// 200 incomplete frames of 8 MiB use bounded memory, a frame of an honest peer
/// with the same address arrives, and all memory is released when the attackers
/// disconnect.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_sent_frames_take_no_more_than_their_budget() {
    let victim = Node::listening_on(TCP, StreamsConfig::default()).await;
    let resources = victim.resources.clone();
    let mut incoming = victim.control.accept(A).unwrap();
    let revoked = Arc::new(AtomicUsize::new(0));
    let counted = revoked.clone();
    let server = tokio::spawn(async move {
        while let Some(inbound) = incoming.next().await {
            let revoked = counted.clone();
            tokio::spawn(async move {
                let mut frames = inbound.stream.into_frames(FrameConfig::default());
                while let Some(frame) = frames.next().await {
                    match frame {
                        Ok(frame) => frames.send(frame.slice(..1)).await.unwrap(),
                        Err(FrameError::Revoked { .. }) => {
                            revoked.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(_) => return,
                    }
                }
            });
        }
    });
    let before = resident();
    let peak = Arc::new(AtomicU64::new(before));
    let measured = peak.clone();
    let sampler = tokio::spawn(async move {
        let mut every = tokio::time::interval(Duration::from_millis(20));
        loop {
            every.tick().await;
            measured.fetch_max(resident(), Ordering::Relaxed);
        }
    });

    let attackers = soon(join_all((0..PEERS).map(|_| attacker(&victim)))).await;
    let origin = resources.limit(Resource::FrameBytes).for_local().origin;
    let limit = resources.limit(Resource::FrameBytes).peer;
    soon(async {
        while resources.used(Resource::FrameBytes) + limit / 2 <= origin {
            tokio::task::yield_now().await;
        }
    })
    .await;

    let honest = Node::memory(StreamsConfig::default());
    honest.knows(&victim).await;
    let stream = soon(honest.control.open(victim.peer, A)).await.unwrap();
    let mut frames = stream.into_frames(FrameConfig::default());
    let answer = soon(async {
        frames
            .send(Bytes::from(vec![7; MAX_FRAME_PAYLOAD_BYTES]))
            .await
            .unwrap();
        frames.next().await.unwrap().unwrap()
    });
    assert_eq!(answer.await, &[7][..]);
    assert!(revoked.load(Ordering::Relaxed) > 0, "no frame was revoked");
    assert!(resources.used(Resource::FrameBytes) <= origin);

    let growth = peak.load(Ordering::Relaxed) - before;
    assert!(growth <= MAX_GROWTH, "grew by {} MiB", growth / MIB as u64);

    sampler.abort();
    for (node, task) in attackers {
        task.abort();
        drop(node);
    }
    drop((frames, honest));
    soon(async {
        while resources.used(Resource::FrameBytes) + resources.used(Resource::InboundStreams) > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    server.abort();
}
