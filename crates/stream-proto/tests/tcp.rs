//! The behaviour over real TCP with Noise and Yamux.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "tests"
)]

mod nodes;

use std::time::Duration;

use bytes::Bytes;
use calimero_network_primitives::limits::KIB;
use calimero_network_stream::{
    Event, FrameError, FrameReceiver, FrameStream, OpenError, RefuseReason, StreamProtocol,
    Substream,
    config::{StreamsConfig, StreamsTuning},
};
use futures::{
    AsyncReadExt, AsyncWriteExt, FutureExt, StreamExt,
    future::{join, join_all},
};
use nodes::{Node, soon};

const A: StreamProtocol = StreamProtocol::new("/test/a");
const TCP: &str = "/ip4/127.0.0.1/tcp/0";

/// Starts two nodes and opens a stream between them.
async fn stream_between() -> (Node, Node, Substream, Substream) {
    let a = Node::memory(StreamsConfig::default());
    let b = Node::listening_on(TCP, StreamsConfig::default()).await;
    a.knows(&b).await;
    let mut incoming = b.control.accept(A).unwrap();
    let (one, other) = soon(join(a.control.open(b.peer, A), incoming.next())).await;
    (a, b, one.unwrap(), other.unwrap().stream)
}

/// Both sides send more than the windows hold and receive at the same time. The
/// test would deadlock if reads waited for writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_write_while_reading() {
    const FRAMES: u8 = 100;
    const LEN: usize = 200 * KIB;
    let (_a, _b, one, other) = stream_between().await;
    let side = |stream| async move {
        let (mut sender, mut receiver) = FrameStream::new(stream).split();
        let send = async move {
            for i in 0..FRAMES {
                sender.send(Bytes::from(vec![i; LEN])).await.unwrap();
            }
            sender.close().await.unwrap();
            sender
        };
        let receive = async move {
            let mut count = 0;
            while let Some(frame) = receiver.next().await {
                let frame = frame.unwrap();
                assert_eq!((frame.len(), frame[0], frame[LEN - 1]), (LEN, count, count));
                count += 1;
            }
            count
        };
        join(send, receive).await.1
    };
    let counts = soon(join(tokio::spawn(side(one)), tokio::spawn(side(other)))).await;
    assert_eq!((counts.0.unwrap(), counts.1.unwrap()), (FRAMES, FRAMES));
}

/// If neither side reads, both senders stop when the windows are full, no data
/// is lost, and reading resumes them. Other streams of the connection are not
/// affected.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_write_without_reading_and_then_read() {
    const LEN: usize = 64 * KIB;
    let (a, b, one, other) = stream_between().await;
    let echo = b.echo(StreamProtocol::new("/test/echo"));
    let fill = |stream| async move {
        let mut frames = FrameStream::new(stream);
        let mut taken = 0_usize;
        // The deadline leaves the frame queued, so it counts as sent.
        loop {
            let sent = frames.send_within(Bytes::from(vec![1; LEN]), Duration::from_millis(500));
            taken += 1;
            match sent.await {
                Ok(()) => assert!(taken < 1000, "no back-pressure"),
                Err(FrameError::Deadline { .. }) => return (frames, taken),
                Err(error) => panic!("{error}"),
            }
        }
    };
    let ((one, sent_one), (other, sent_other)) = soon(join(fill(one), fill(other))).await;

    let mut beside = FrameStream::new(
        soon(a.control.open(b.peer, StreamProtocol::new("/test/echo")))
            .await
            .unwrap(),
    );
    beside
        .send(Bytes::from_static(b"still here"))
        .await
        .unwrap();
    assert_eq!(
        soon(beside.next()).await.unwrap().unwrap(),
        &b"still here"[..]
    );
    echo.abort();

    let drain = |frames: FrameStream<Substream>, expected: usize| async move {
        let (mut sender, mut receiver) = frames.split();
        let receive = async {
            for _ in 0..expected {
                assert_eq!(receiver.next().await.unwrap().unwrap().len(), LEN);
            }
        };
        join(async { sender.flush().await.unwrap() }, receive).await;
    };
    soon(join(drain(one, sent_other), drain(other, sent_one))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_at_once_are_all_served() {
    let a = Node::memory(StreamsConfig::default());
    let b = Node::listening_on(TCP, StreamsConfig::default()).await;
    let echo = b.echo(A);
    a.knows(&b).await;
    let served = soon(join_all((0..200_u32).map(|i| {
        let open = a.control.open(b.peer, A);
        async move {
            let mut frames = FrameStream::new(open.await.unwrap());
            let payload = Bytes::copy_from_slice(&i.to_be_bytes());
            frames.send(payload.clone()).await.unwrap();
            assert_eq!(frames.next().await.unwrap().unwrap(), payload);
            frames
        }
    })))
    .await;
    assert_eq!(served.len(), 200);
    echo.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_at_once_are_served_to_the_limit_and_the_rest_refused() {
    const OPENED: usize = 2000;
    const LIMIT: usize = 512;
    let a = Node::memory(StreamsConfig {
        tuning: StreamsTuning {
            max_outbound_per_connection: OPENED,
            ..StreamsTuning::default()
        },
        ..StreamsConfig::default()
    });
    let mut b = Node::listening_on(TCP, StreamsConfig::default()).await;
    let echo = b.echo(A);
    a.knows(&b).await;
    let tries = soon(join_all((0..OPENED).map(|_| {
        let open = a.control.open(b.peer, A);
        async move {
            let mut stream = open.await.unwrap();
            let mut answer = [0; 5];
            let served = async {
                stream.write_all(b"\0\0\0\x01x").await?;
                stream.flush().await?;
                stream.read_exact(&mut answer).await
            };
            match served.await {
                Ok(()) => Some(stream),
                Err(_) => None,
            }
        }
    })))
    .await;
    let served: Vec<_> = tries.into_iter().flatten().collect();
    assert_eq!(served.len(), LIMIT);
    let mut refused = 0;
    let mut reports = 0;
    while refused < OPENED - LIMIT {
        let Event::Refused {
            peer,
            reason,
            count,
            ..
        } = soon(b.event()).await
        else {
            panic!("another event")
        };
        assert_eq!(
            (peer, reason),
            (a.peer, RefuseReason::PeerLimit { limit: LIMIT })
        );
        refused += usize::try_from(count).unwrap();
        reports += 1;
    }
    assert_eq!(refused, OPENED - LIMIT);
    assert!(reports < 30, "{reports} events for one flood");

    // The connection stays open and accepts streams after the others were
    // dropped.
    let connected = a.act(|swarm| swarm.connected_peers().count()).await;
    assert_eq!(connected, 1);
    drop(served);
    soon(async {
        while b.control.open_inbound() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut frames = FrameStream::new(soon(a.control.open(b.peer, A)).await.unwrap());
    frames.send(Bytes::from_static(b"again")).await.unwrap();
    assert_eq!(soon(frames.next()).await.unwrap().unwrap(), &b"again"[..]);
    echo.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_above_the_limit_of_a_connection_wait_and_are_served() {
    let a = Node::memory(StreamsConfig {
        tuning: StreamsTuning {
            max_outbound_per_connection: 10,
            ..StreamsTuning::default()
        },
        ..StreamsConfig::default()
    });
    let b = Node::listening_on(TCP, StreamsConfig::default()).await;
    let echo = b.echo(A);
    a.knows(&b).await;
    soon(join_all((0..500_u32).map(|i| {
        let open = a.control.open(b.peer, A);
        async move {
            let mut frames = FrameStream::new(open.await.unwrap());
            let payload = Bytes::copy_from_slice(&i.to_be_bytes());
            frames.send(payload.clone()).await.unwrap();
            assert_eq!(frames.next().await.unwrap().unwrap(), payload);
            frames.close().await.unwrap();
            assert!(frames.next().await.is_none());
        }
    })))
    .await;
    echo.abort();
}

#[tokio::test]
async fn a_dead_address_ends_with_its_cause_twice() {
    let a = Node::memory(StreamsConfig::default());
    let absent = libp2p_identity::PeerId::random();
    let unused = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let address = format!("/ip4/127.0.0.1/tcp/{}", unused.port());
    a.add_address(absent, address.parse().unwrap()).await;
    for _ in 0..2 {
        let error = soon(a.control.open(absent, A)).await.unwrap_err();
        let OpenError::Dial { cause, .. } = &error else {
            panic!("{error:?}")
        };
        assert!(cause.to_string().contains(&address), "{cause}");
        assert!(cause.to_string().contains("refused"), "{cause}");
    }
}

#[tokio::test]
async fn a_dial_of_another_behaviour_is_shared() {
    let a = Node::memory(StreamsConfig::default());
    let silent = nodes::silent_address();
    let absent = libp2p_identity::PeerId::random();
    // The swarm dials without the behaviour, and the dial hangs. Requests wait
    // for that dial.
    let to = silent.address.clone();
    a.act(move |swarm| {
        let opts = libp2p_swarm::dial_opts::DialOpts::peer_id(absent)
            .addresses(vec![to])
            .build();
        swarm.dial(opts).unwrap();
    })
    .await;
    let control = a.control.clone();
    let mut opening = Box::pin(control.open(absent, A));
    assert!((&mut opening).now_or_never().is_none());
    // At this point the behaviour has requested its own dial and learned of the
    // other one.
    a.act(|_| ()).await;
    drop(silent);
    let error = soon(opening).await.unwrap_err();
    assert!(matches!(error, OpenError::Dial { .. }), "{error:?}");
}

/// Each stream claims a frame of the largest size and sends none of its
/// payload.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_claims_cost_a_page_each() {
    const STREAMS: usize = 500;
    let a = Node::memory(StreamsConfig {
        tuning: StreamsTuning {
            max_outbound_per_connection: STREAMS,
            ..StreamsTuning::default()
        },
        ..StreamsConfig::default()
    });
    // All of them wait before the first is accepted.
    let waiting = StreamsConfig {
        tuning: StreamsTuning {
            accept_queue: 4 * STREAMS,
            ..StreamsTuning::default()
        },
        ..StreamsConfig::default()
    };
    let b = Node::listening_on(TCP, waiting).await;
    let mut incoming = b.control.accept(A).unwrap();
    a.knows(&b).await;
    let claims = soon(join_all((0..STREAMS).map(|_| {
        let open = a.control.open(b.peer, A);
        async move {
            let mut stream = open.await.unwrap();
            stream
                .write_all(&0x80_0000_u32.to_be_bytes())
                .await
                .unwrap();
            stream.flush().await.unwrap();
            stream
        }
    })))
    .await;
    let mut memory = 0;
    for _ in 0..STREAMS {
        let mut frames = FrameReceiver::new(soon(incoming.next()).await.unwrap().stream);
        let nothing = frames.next_within(Duration::from_millis(1)).await;
        assert!(matches!(nothing, Some(Err(FrameError::Deadline { .. }))));
        memory += frames.capacity();
    }
    assert!(memory <= STREAMS * 4 * KIB, "{memory}");
    drop(claims);
}
