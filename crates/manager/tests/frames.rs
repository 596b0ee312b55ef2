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
    assert!(
        within(a.client.open_raw_stream(b.peer(), protocol))
            .await
            .is_err()
    );
}
