//! Peers that never read, and the end in the middle of everything.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a surprise ends the test"
)]

mod common;

use std::time::Duration;

use bytes::Bytes;
use calimero_network::{
    DialError, FrameError, FrameReceiver, FrameStream, OpenError, Stopped, Substream,
};
use common::{BOTH, GENERAL, Node, assert_works, pair, within};

const FRAME: Bytes = Bytes::from_static(&[7; 64 << 10]);

/// Sends until the deadline of a frame passes.
async fn send_until_stalled(stream: &mut FrameStream<Substream>) -> u64 {
    let mut sent = 0;
    loop {
        match stream.send_within(FRAME, Duration::from_millis(300)).await {
            Ok(()) => sent += 1,
            Err(FrameError::Deadline { .. }) => return sent,
            Err(other) => panic!("after {sent} frames: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_peer_that_never_reads_stops_its_stream_and_nothing_else() {
    for over in BOTH {
        let (a, mut b) = pair(over).await;
        let mut stream = within(a.client.open_stream(b.peer())).await.unwrap();
        let (sent, unread) = within(futures::future::join(
            send_until_stalled(&mut stream),
            b.inbound(),
        ))
        .await;
        // The windows bound the unread data, not the deadline of the sender: 32 MiB is far above them.
        assert!(sent < 512, "{over:?}: {sent} frames of 64 KiB were taken");
        assert_works(&a, &mut b).await;
        drop(unread);
    }
}

#[tokio::test]
async fn both_sides_may_write_without_reading() {
    for over in BOTH {
        let (a, mut b) = pair(over).await;
        let mut ours = within(a.client.open_stream(b.peer())).await.unwrap();
        within(ours.send(FRAME)).await.unwrap();
        let mut theirs = b.inbound().await;
        let stalled = futures::future::join(
            send_until_stalled(&mut ours),
            send_until_stalled(&mut theirs),
        );
        let (sent, returned) = within(stalled).await;
        assert_works(&a, &mut b).await;
        // As soon as both read, everything comes out and the frames on their way follow.
        let (_send_ours, mut read_ours) = ours.split();
        let (_send_theirs, mut read_theirs) = theirs.split();
        let read = async |stream: &mut FrameReceiver<_>, count: u64| {
            for _ in 0..count {
                assert_eq!(stream.next().await.unwrap().unwrap(), FRAME);
            }
        };
        let both = futures::future::join(
            read(&mut read_ours, returned),
            read(&mut read_theirs, sent + 1),
        );
        within(both).await;
    }
}

#[tokio::test]
async fn reading_goes_on_while_writing_waits() {
    const ROUNDS: u64 = 400;
    for over in BOTH {
        let (a, mut b) = pair(over).await;
        let mut ours = within(a.client.open_stream(b.peer())).await.unwrap();
        within(ours.send(FRAME)).await.unwrap();
        let theirs = b.inbound().await;
        // 25 MiB each way at once, far more than the windows hold.
        let run = |stream: FrameStream<Substream>, expected: u64| async move {
            let (mut sender, mut receiver) = stream.split();
            let send = async {
                for _ in 0..ROUNDS {
                    sender.send(FRAME).await.unwrap();
                }
                sender.close().await.unwrap();
            };
            let receive = async {
                let mut count = 0;
                while let Some(frame) = receiver.next().await {
                    assert_eq!(frame.unwrap(), FRAME);
                    count += 1;
                }
                assert_eq!(count, expected);
            };
            futures::future::join(send, receive).await;
        };
        let both = futures::future::join(run(ours, ROUNDS), run(theirs, ROUNDS + 1));
        within(both).await;
    }
}

#[tokio::test]
async fn shutdown_in_the_middle_of_everything_is_acknowledged() {
    for over in BOTH {
        let (a, mut b) = pair(over).await;
        let mut stalled = within(a.client.open_stream(b.peer())).await.unwrap();
        let opening = {
            let (client, peer) = (a.client.clone(), b.peer());
            tokio::spawn(async move {
                let mut opened = Vec::new();
                loop {
                    match client.open_raw_stream(peer, GENERAL).await {
                        Ok(stream) if opened.len() < 100 => opened.push(stream),
                        Ok(_) => tokio::task::yield_now().await,
                        Err(error) => return error,
                    }
                }
            })
        };
        let sending = tokio::spawn(async move {
            loop {
                if let Err(error) = stalled.send(FRAME).await {
                    return error;
                }
            }
        });
        let unread = b.inbound().await;
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = silent.local_addr().unwrap().port();
        let dialling = {
            let client = a.client.clone();
            let address = format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
            tokio::spawn(async move { client.dial(address).await })
        };
        let accepted = tokio::task::spawn_blocking(move || silent.accept());
        let _silent = within(accepted).await.unwrap().unwrap();

        within(a.client.shutdown()).await.unwrap();

        assert_eq!(a.client.shutdown().await, Err(Stopped));
        assert_eq!(a.client.peer_count(), Err(Stopped));
        assert_eq!(a.client.status().await.err(), Some(Stopped));
        let dialled = within(dialling).await.unwrap();
        assert!(matches!(dialled, Err(DialError::Stopped(_))), "{dialled:?}");
        let error = within(opening).await.unwrap();
        assert!(
            matches!(
                error,
                OpenError::Stopped | OpenError::ConnectionClosed { .. } | OpenError::Io { .. }
            ),
            "{error:?}"
        );
        let error = within(sending).await.unwrap();
        assert!(matches!(error, FrameError::Io(_)), "{error:?}");
        drop(unread);
        all_events_end(a).await;
        // The other side receives an error and goes on.
        while b.client.peer_count().unwrap() > 0 {
            within(b.events.next()).await.expect("running");
        }
    }
}

async fn all_events_end(mut node: Node) {
    while within(node.events.next()).await.is_some() {}
}
