//! The muxer with a peer that the test controls frame by frame.

mod unread;

use std::{future::Future, sync::Arc, task::Poll, time::Duration};

use calimero_network_primitives::{
    config::YamuxTuning,
    resources::{Limit, Limits, Resource, Resources},
};
use futures::{
    AsyncRead, AsyncReadExt, AsyncWriteExt,
    future::{join, poll_fn},
};
use libp2p_core::muxing::StreamMuxer;
use libp2p_identity::PeerId;
use std::pin::Pin;

use super::{Connections, Muxer, io::Io, muxer::Stream, unread::Unread};
use crate::{
    close::CloseCause,
    executor::{FairExecutor, is_turn_over},
    link::{Links, MuxerKind, SecurityKind, TransportKind},
    pipe::{Pipe, pipe},
};

const DATA: u8 = 0;
const WINDOW_UPDATE: u8 = 1;
const PING: u8 = 2;
const GO_AWAY: u8 = 3;
const SYN: u16 = 1;
const ACK: u16 = 2;
const FIN: u16 = 4;
const RST: u16 = 8;
const INITIAL_WINDOW: u32 = 256 * 1024;

/// The header of a received frame.
#[derive(Debug)]
struct Header {
    kind: u8,
    flags: u16,
    stream: u32,
    length: u32,
}

/// The dialling side, which writes raw frames.
struct Raw(Pipe);

impl Raw {
    async fn send(&mut self, kind: u8, flags: u16, stream: u32, length: u32, body: &[u8]) {
        let mut header = vec![0, kind];
        header.extend(flags.to_be_bytes());
        header.extend(stream.to_be_bytes());
        header.extend(length.to_be_bytes());
        self.0.write_all(&header).await.unwrap();
        self.0.write_all(body).await.unwrap();
    }

    async fn data(&mut self, flags: u16, stream: u32, body: &[u8]) {
        let length = u32::try_from(body.len()).unwrap();
        self.send(DATA, flags, stream, length, body).await;
    }

    /// Reads the next header and skips its body.
    async fn header(&mut self) -> Header {
        let mut bytes = [0; 12];
        self.0.read_exact(&mut bytes).await.unwrap();
        let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        let header = Header {
            kind: bytes[1],
            flags: u16::from_be_bytes([bytes[2], bytes[3]]),
            stream: word(4),
            length: word(8),
        };
        if header.kind == DATA {
            let mut body = vec![0; header.length as usize];
            self.0.read_exact(&mut body).await.unwrap();
        }
        header
    }
}

fn muxer(config: &YamuxTuning) -> (Raw, Muxer<Pipe>) {
    muxer_of(config, &Resources::default())
}

fn muxer_of(config: &YamuxTuning, resources: &Resources) -> (Raw, Muxer<Pipe>) {
    muxer_among(config, resources, 64 * 1024 * 1024, &Arc::default())
}

/// A muxer over a pipe with a capacity in bytes, whose unread data is compared with that of others.
fn muxer_among(
    config: &YamuxTuning,
    resources: &Resources,
    capacity: usize,
    connections: &Arc<Connections>,
) -> (Raw, Muxer<Pipe>) {
    let (a, b) = pipe(capacity, &[usize::MAX]);
    let meter = Links::default().meter(TransportKind::Memory, None);
    let link = meter.link(SecurityKind::Noise, MuxerKind::Yamux);
    let holder = resources.holder(Some(PeerId::random()), None);
    let mode = ::yamux::Mode::Server;
    let muxer = Muxer::new(b, config, mode, link, holder, connections);
    (Raw(a), muxer)
}

async fn inbound(muxer: &mut Muxer<Pipe>) -> Stream {
    poll_fn(|cx| Pin::new(&mut *muxer).poll_inbound(cx))
        .await
        .unwrap()
}

/// Runs `future` while the muxer makes progress. Panics if the connection ends.
async fn drive<F: Future>(muxer: &mut Muxer<Pipe>, future: F) -> F::Output {
    futures::pin_mut!(future);
    let driven = poll_fn(|cx| {
        if let std::task::Poll::Ready(end) = Pin::new(&mut *muxer).poll(cx) {
            panic!("the connection ended: {end:?}");
        }
        future.as_mut().poll(cx)
    });
    tokio::time::timeout(Duration::from_secs(60), driven)
        .await
        .unwrap()
}

async fn read(stream: &mut (impl AsyncRead + Unpin), length: usize) {
    let mut piece = vec![0; 100_000];
    let mut left = length;
    while left > 0 {
        let most = left.min(piece.len());
        let count = stream.read(&mut piece[..most]).await.unwrap();
        assert!(count > 0);
        left -= count;
    }
}

#[tokio::test]
async fn a_frame_of_the_initial_window_is_accepted() {
    let (mut raw, mut muxer) = muxer(&YamuxTuning::default());
    let body = vec![1; INITIAL_WINDOW as usize];
    raw.data(SYN | FIN, 1, &body).await;
    let mut stream = inbound(&mut muxer).await;
    let mut received = Vec::new();
    drive(&mut muxer, stream.read_to_end(&mut received))
        .await
        .unwrap();
    assert!(received == body);
}

#[tokio::test]
async fn frames_of_the_whole_window_are_accepted_above_one_mebibyte() {
    let (mut raw, mut muxer) = muxer(&YamuxTuning::default());
    raw.data(SYN, 1, b"!").await;
    let mut stream = inbound(&mut muxer).await;
    let mut largest = 0;
    let mut total = 1usize;
    let (sent, received) = futures::channel::oneshot::channel::<usize>();
    let peer = async {
        let mut window = INITIAL_WINDOW - 1;
        while largest < 2 * 1024 * 1024 {
            if window > 0 {
                raw.data(0, 1, &vec![2; window as usize]).await;
                largest = largest.max(window);
                total += window as usize;
                window = 0;
            }
            let header = raw.header().await;
            match header.kind {
                WINDOW_UPDATE => window += header.length,
                PING if header.flags & ACK == 0 => {
                    // Simulates a long path: the muxer grows the window to the
                    // bandwidth-delay product.
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    raw.send(PING, ACK, 0, header.length, &[]).await;
                }
                _ => panic!("{header:?}"),
            }
        }
        raw.data(FIN, 1, &[]).await;
        sent.send(total).unwrap();
        raw
    };
    let reading = async {
        let mut seen = 0;
        let mut piece = vec![0; 100_000];
        loop {
            match stream.read(&mut piece).await.unwrap() {
                0 => return seen,
                count => seen += count,
            }
        }
    };
    let (_raw, seen) = drive(&mut muxer, join(peer, reading)).await;
    assert_eq!(seen, received.await.unwrap());
    assert!(largest > 1024 * 1024);
}

/// Sends frames that violate the protocol. The peer must be sent code 1, a protocol error in the
/// specification, and the connection must end, although the peer does not.
async fn ends_the_connection(frames: &[(u8, u16, u32, usize)]) {
    let (mut raw, mut muxer) = muxer(&YamuxTuning::default());
    for &(kind, flags, stream, length) in frames {
        let body = vec![1; if kind == DATA { length } else { 0 }];
        raw.send(kind, flags, stream, length as u32, &body).await;
    }
    let mut streams = Vec::new();
    let end = poll_fn(|cx| {
        while let Poll::Ready(stream) = Pin::new(&mut muxer).poll_inbound(cx) {
            match stream {
                Ok(stream) => streams.push(stream),
                Err(end) => return Poll::Ready(end),
            }
        }
        Poll::Pending
    });
    let end = tokio::time::timeout(Duration::from_secs(60), end).await;
    let end = std::io::Error::other(end.unwrap());
    assert!(
        matches!(CloseCause::of(&end), CloseCause::Protocol(_)),
        "{end:?}"
    );
    drop((muxer, streams));
    loop {
        let header = raw.header().await;
        if header.kind == GO_AWAY {
            return assert_eq!(header.length, 1);
        }
    }
}

#[tokio::test]
async fn a_violation_ends_the_connection() {
    let window = INITIAL_WINDOW as usize;
    let beyond_the_window = [(DATA, SYN, 1, window + 1)];
    let beyond_the_window_later = [(DATA, SYN, 1, window), (DATA, 0, 1, 1)];
    let stream_of_this_side = [(DATA, SYN, 2, 1)];
    let stream_that_exists = [(DATA, SYN, 1, 1), (DATA, SYN, 1, 1)];
    let credit_that_overflows = [(WINDOW_UPDATE, SYN, 1, u32::MAX as usize)];
    ends_the_connection(&beyond_the_window).await;
    ends_the_connection(&beyond_the_window_later).await;
    ends_the_connection(&stream_of_this_side).await;
    ends_the_connection(&stream_that_exists).await;
    ends_the_connection(&credit_that_overflows).await;
}

#[tokio::test]
async fn a_claimed_length_allocates_nothing_and_a_truncated_frame_is_an_error() {
    let (mut raw, mut muxer) = muxer(&YamuxTuning::default());
    raw.send(DATA, SYN, 1, u32::MAX, b"only this").await;
    drop(raw);
    let end = poll_fn(|cx| Pin::new(&mut muxer).poll(cx)).await;
    assert!(end.is_err());
}

#[tokio::test]
async fn streams_beyond_the_limit_are_reset_one_by_one() {
    let config = YamuxTuning {
        max_streams: 10,
        ..YamuxTuning::default()
    };
    let (mut raw, mut muxer) = muxer(&config);
    for stream in 0..15 {
        raw.data(SYN, 2 * stream + 1, b"hello").await;
    }
    let mut kept = Vec::new();
    for _ in 0..10 {
        kept.push(inbound(&mut muxer).await);
    }
    let response = async {
        let mut refused = Vec::new();
        while refused.len() < 5 {
            let header = raw.header().await;
            if header.flags & RST != 0 {
                refused.push(header.stream);
            }
        }
        refused.sort_unstable();
        refused
    };
    assert_eq!(drive(&mut muxer, response).await, [21, 23, 25, 27, 29]);
    // The limit allows another stream after one was dropped.
    drop(kept.pop());
    raw.data(SYN, 31, b"hello").await;
    let mut stream = inbound(&mut muxer).await;
    drive(&mut muxer, read(&mut stream, 5)).await;
    for stream in &mut kept {
        drive(&mut muxer, read(stream, 5)).await;
    }
}

#[tokio::test]
async fn a_poll_after_one_without_a_read_reads() {
    let (executor, driver) = FairExecutor::new();
    let (mut far, near) = pipe(1024, &[usize::MAX]);
    let ping = [0, PING, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7];
    far.write_all(&ping).await.unwrap();
    let (sender, receiver) = futures::channel::oneshot::channel();
    executor.spawn(async move {
        let holder = Resources::default().holder(None, None);
        let mut io = Io::new(near, Unread::new(holder, &Arc::default()));
        let mut polls = 0;
        let read = poll_fn(|cx| {
            // As if writing took all the time of each poll.
            while !is_turn_over() {
                std::hint::spin_loop();
            }
            polls += 1;
            Pin::new(&mut io).poll_read(cx, &mut [0; 12])
        });
        let read = read.await.unwrap();
        let _ = sender.send((read, polls));
    });
    let driving = futures::future::select(driver, receiver);
    let driven = tokio::time::timeout(Duration::from_secs(60), driving).await;
    match driven.unwrap() {
        futures::future::Either::Right((read, _)) => assert_eq!(read, Ok((12, 2))),
        futures::future::Either::Left(_) => unreachable!("a driver does not end"),
    }
}
