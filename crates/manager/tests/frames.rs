//! Frames of peers that lie, stop and dawdle.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a surprise ends the test"
)]

mod common;

use std::time::Duration;

use calimero_network::FrameError;
use common::{BOTH, GENERAL, assert_works, pair, within};
use futures::{AsyncReadExt as _, AsyncWriteExt as _};

#[tokio::test]
async fn a_claim_above_the_limit_ends_the_stream_and_nothing_else() {
    const LIMIT: usize = 8 << 20;
    for over in BOTH {
        let (liar, mut node) = pair(over).await;
        for claimed in [LIMIT as u32 + 1, u32::MAX] {
            let mut raw = within(liar.client.open_raw_stream(node.peer(), GENERAL))
                .await
                .unwrap();
            raw.write_all(&claimed.to_be_bytes()).await.unwrap();
            raw.flush().await.unwrap();
            let mut stream = node.inbound().await;
            match within(stream.next()).await {
                Some(Err(FrameError::TooLarge {
                    limit,
                    claimed: said,
                })) => {
                    assert_eq!((limit, said), (LIMIT, claimed as usize));
                }
                other => panic!("{other:?}"),
            }
            assert!(within(stream.next()).await.is_none());
        }
        assert_works(&liar, &mut node).await;
    }
}

#[tokio::test]
async fn a_cut_is_told_from_an_end() {
    // What is sent, and how many bytes are missing then; none for a clean end.
    let cases: [(&[u8], Option<usize>); 4] = [
        (b"", None),
        (b"\0\0", Some(2)),
        (b"\0\0\0\x05hel", Some(2)),
        (b"\0\0\0\x02hi\0\0\0\x01", Some(1)),
    ];
    for over in BOTH {
        let (peer, mut node) = pair(over).await;
        for (wire, missing) in cases {
            let mut raw = within(peer.client.open_raw_stream(node.peer(), GENERAL))
                .await
                .unwrap();
            raw.write_all(wire).await.unwrap();
            raw.close().await.unwrap();
            let mut stream = node.inbound().await;
            let end = loop {
                match within(stream.next()).await {
                    Some(Ok(_)) => {}
                    other => break other,
                }
            };
            match (end, missing) {
                (None, None) => {}
                (Some(Err(FrameError::Cut { missing, .. })), Some(expected)) => {
                    assert_eq!(missing, expected);
                }
                other => panic!("{wire:?}: {other:?}"),
            }
        }
        assert_works(&peer, &mut node).await;
    }
}

#[tokio::test]
async fn a_reset_is_an_error_wherever_it_comes() {
    for over in BOTH {
        let (peer, mut node) = pair(over).await;
        // Inside a frame, and between two, where only the reset distinguishes it from an end.
        for wire in [&b"\0\0\0\x05hel"[..], b"\0\0\0\x02hi"] {
            let mut raw = within(peer.client.open_raw_stream(node.peer(), GENERAL))
                .await
                .unwrap();
            raw.write_all(wire).await.unwrap();
            raw.flush().await.unwrap();
            let mut stream = node.inbound().await;
            if wire.ends_with(b"hi") {
                assert_eq!(within(stream.next()).await.unwrap().unwrap(), "hi");
            }
            drop(raw);
            let end = within(stream.next()).await;
            assert!(matches!(end, Some(Err(_))), "{over:?} {wire:?}: {end:?}");
        }
        assert_works(&peer, &mut node).await;
    }
}

#[tokio::test]
async fn a_dawdling_peer_meets_the_deadline_and_holds_nobody_up() {
    for over in BOTH {
        let (peer, mut node) = pair(over).await;
        let mut raw = within(peer.client.open_raw_stream(node.peer(), GENERAL))
            .await
            .unwrap();
        // One byte at a time, without end: a claim of 1 MiB that would take days.
        let dawdling = tokio::spawn(async move {
            raw.write_all(&(1u32 << 20).to_be_bytes()).await?;
            loop {
                raw.write_all(b".").await?;
                raw.flush().await?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            #[expect(unreachable_code, reason = "names the error of the writes above")]
            Ok::<(), std::io::Error>(())
        });
        let mut stream = node.inbound().await;
        let after = Duration::from_millis(500);
        match within(stream.next_within(after)).await {
            Some(Err(FrameError::Deadline { after: said })) => assert_eq!(said, after),
            other => panic!("{other:?}"),
        }
        assert_works(&peer, &mut node).await;
        drop(stream);
        // The reset reaches the one who dawdles.
        assert!(within(dawdling).await.unwrap().is_err());
    }
}

#[tokio::test]
async fn every_size_of_frame_arrives_unchanged() {
    let sizes = [
        0,
        1,
        3,
        4,
        1 << 10,
        (64 << 10) - 1,
        64 << 10,
        1 << 20,
        8 << 20,
    ];
    for over in BOTH {
        let (a, mut b) = pair(over).await;
        let mut sender = within(a.client.open_stream(b.peer())).await.unwrap();
        let sent: Vec<bytes::Bytes> = sizes
            .iter()
            .map(|size| (0..*size).map(|i| (i % 251) as u8).collect())
            .collect();
        let frames = sent.clone();
        let sending = tokio::spawn(async move {
            for frame in frames {
                sender.send(frame).await?;
            }
            sender.close().await
        });
        let mut receiver = b.inbound().await;
        for expected in sent {
            assert!(within(receiver.next()).await.unwrap().unwrap() == expected);
        }
        assert!(within(receiver.next()).await.is_none());
        within(sending).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_payload_above_the_limit_is_refused_before_it_is_sent() {
    let (a, mut b) = pair(BOTH[0]).await;
    let mut stream = within(a.client.open_stream(b.peer())).await.unwrap();
    let long = bytes::Bytes::from(vec![0; (8 << 20) + 1]);
    match stream.send(long).await {
        Err(FrameError::PayloadTooLarge { limit, len }) => {
            assert_eq!((limit, len), (8 << 20, (8 << 20) + 1));
        }
        other => panic!("{other:?}"),
    }
    within(stream.send("short".into())).await.unwrap();
    let mut served = b.inbound().await;
    assert_eq!(within(served.next()).await.unwrap().unwrap(), "short");
}

#[tokio::test]
async fn a_stream_of_an_unknown_protocol_is_refused_by_name() {
    for over in BOTH {
        let (a, mut b) = pair(over).await;
        let protocol = calimero_network::StreamProtocol::new("/nobody/speaks/this");
        let error = within(a.client.open_raw_stream(b.peer(), protocol)).await;
        let error = error.expect_err("an error");
        assert!(
            matches!(
                error,
                calimero_network::OpenError::UnsupportedProtocol { .. }
            ),
            "{error:?}"
        );
        assert!(error.to_string().contains("/nobody/speaks/this"), "{error}");
        assert_works(&a, &mut b).await;
    }
}

#[tokio::test]
async fn a_protocol_of_ones_own_is_accepted_until_it_is_dropped() {
    use futures::StreamExt as _;
    let (a, b) = pair(BOTH[0]).await;
    let protocol = calimero_network::StreamProtocol::new("/ones/own/1");
    let mut inbound = b.client.accept(protocol.clone()).unwrap();
    assert!(b.client.accept(protocol.clone()).is_err());
    let mut opened = within(a.client.open_raw_stream(b.peer(), protocol.clone()))
        .await
        .unwrap();
    opened.write_all(b"hi").await.unwrap();
    opened.close().await.unwrap();
    let mut served = within(inbound.next()).await.unwrap();
    assert_eq!(served.peer, a.peer());
    let mut text = String::new();
    within(served.stream.read_to_string(&mut text))
        .await
        .unwrap();
    assert_eq!(text, "hi");
    drop(inbound);
    // The protocol was confirmed on the connection: the refusal is read on the stream.
    let mut early = within(a.client.open_raw_stream(b.peer(), protocol.clone()))
        .await
        .unwrap();
    let refused = within(early.read_to_string(&mut text)).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::Unsupported);
    assert!(
        within(a.client.open_raw_stream(b.peer(), protocol))
            .await
            .is_err()
    );
}

/// Frames that `send` has accepted, before a stream is dropped without a close.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_before_a_drop_arrives_with_a_clean_end() {
    // From one packet to the largest frame, each as the last one of a stream.
    let sizes = [
        (10, 100),
        (16 << 10, 50),
        (100 << 10, 50),
        (1 << 20, 20),
        (8 << 20, 3),
    ];
    for over in BOTH {
        let (from, mut to) = pair(over).await;
        for (size, repetitions) in sizes {
            let payload = bytes::Bytes::from(vec![7; size]);
            for split in [false, true] {
                for round in 0..repetitions {
                    let (client, peer, sent) = (from.client.clone(), to.peer(), payload.clone());
                    let sending = tokio::spawn(async move {
                        let mut stream = client.open_stream(peer).await.unwrap();
                        stream.send("first".into()).await.unwrap();
                        if split {
                            let (mut sender, receiver) = stream.split();
                            sender.send(sent).await.unwrap();
                            drop(sender);
                            drop(receiver);
                        } else {
                            stream.send(sent).await.unwrap();
                        }
                    });
                    let mut received = to.inbound().await;
                    let mut next = async || within(received.next()).await;
                    let place = format!("{over:?}, {size} bytes, round {round}");
                    assert_eq!(next().await.expect(&place).expect(&place), "first");
                    let frame = next().await.expect(&place).expect(&place);
                    assert!(frame == payload, "{place}");
                    let end = next().await;
                    assert!(end.is_none(), "{place}: {end:?}");
                    sending.await.unwrap();
                }
            }
        }
        assert_works(&from, &mut to).await;
    }
}

#[tokio::test]
async fn a_drop_within_a_frame_is_a_cut_after_the_frames_before_it() {
    for over in BOTH {
        let (from, mut to) = pair(over).await;
        let mut stream = within(from.client.open_stream(to.peer())).await.unwrap();
        within(stream.send("first".into())).await.unwrap();
        let mut received = to.inbound().await;
        // Frames of 8 MiB are sent until the windows are full, which they are within one of them:
        // no peer reads.
        let frame = bytes::Bytes::from(vec![7; 8 << 20]);
        let mut whole = 0;
        while let Ok(sent) = stream
            .send_within(frame.clone(), Duration::from_secs(1))
            .await
        {
            let () = sent;
            whole += 1;
        }
        drop(stream);
        assert_eq!(within(received.next()).await.unwrap().unwrap(), "first");
        for _ in 0..whole {
            assert!(within(received.next()).await.unwrap().unwrap() == frame);
        }
        let end = within(received.next()).await;
        assert!(
            matches!(end, Some(Err(FrameError::Cut { .. }))),
            "{over:?}, {whole} whole frames: {end:?}"
        );
        assert_works(&from, &mut to).await;
    }
}

#[tokio::test]
async fn a_stream_that_is_taken_out_of_its_frames_is_reset_by_a_drop() {
    for over in BOTH {
        let (from, mut to) = pair(over).await;
        let mut stream = within(from.client.open_stream(to.peer())).await.unwrap();
        within(stream.send("first".into())).await.unwrap();
        let mut received = to.inbound().await;
        assert_eq!(within(received.next()).await.unwrap().unwrap(), "first");
        drop(stream.into_inner());
        let end = within(received.next()).await;
        assert!(matches!(end, Some(Err(_))), "{over:?}: {end:?}");
    }
}
