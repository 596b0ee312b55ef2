//! `FrameStream` over a pipe that splits writes, blocks, ends and fails.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "tests"
)]

mod support;

use std::time::Duration;

use bytes::Bytes;
use calimero_network_primitives::limits::KIB;
use calimero_network_stream::{FrameConfig, FrameError, FramePart, FrameReceiver, FrameStream};
use futures::{
    AsyncWriteExt, FutureExt, SinkExt, StreamExt, executor::block_on, future::join, io::Cursor,
    stream::FusedStream,
};
use proptest::prelude::*;
use support::pipe;

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(20);

fn payload(len: usize, seed: u8) -> Bytes {
    (0..len)
        .map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed))
        .collect()
}

#[test]
fn ends_cleanly_between_frames_and_is_cut_within() {
    block_on(async {
        for (wire, frames, cut) in [
            (&b""[..], 0, None),
            (&b"\0\0\0\x01a"[..], 1, None),
            (&b"\0\0\0\x01a\0\0"[..], 1, Some((FramePart::Prefix, 2, 2))),
            (&b"\0\0\0\x03ab"[..], 0, Some((FramePart::Payload, 2, 1))),
            (&b"\0\0\0\x03"[..], 0, Some((FramePart::Payload, 0, 3))),
        ] {
            let mut stream = FrameReceiver::new(Cursor::new(wire));
            for _ in 0..frames {
                assert_eq!(stream.next().await.unwrap().unwrap(), &b"a"[..]);
            }
            if let Some((want_part, want_arrived, want_missing)) = cut {
                let Some(Err(FrameError::Cut {
                    part,
                    arrived,
                    missing,
                })) = stream.next().await
                else {
                    panic!("not cut: {wire:?}")
                };
                assert_eq!(
                    (part, arrived, missing),
                    (want_part, want_arrived, want_missing)
                );
            }
            assert!(stream.next().await.is_none());
            assert!(stream.is_terminated());
        }
    });
}

#[test]
fn a_claim_above_the_limit_ends_the_stream() {
    block_on(async {
        for claim in [8 * 1024 * 1024 + 1, u32::MAX] {
            let (mut raw, io) = pipe(64, &[]);
            raw.write_all(&claim.to_be_bytes()).await.unwrap();
            let mut receiver = FrameReceiver::new(io);
            let error = receiver.next_within(LONG).await.unwrap().unwrap_err();
            assert!(
                matches!(error, FrameError::TooLarge { limit: 8_388_608, claimed } if claimed == claim as usize)
            );
            assert!(receiver.next().await.is_none());
            assert!(receiver.capacity() <= 4 * KIB);
        }
    });
}

#[test]
fn frames_fed_are_gathered_until_flushed() {
    block_on(async {
        let (a, b) = pipe(1 << 20, &[]);
        let (mut a, mut b) = (FrameStream::new(a), FrameStream::new(b));
        for i in 0..10 {
            a.feed(payload(100, i)).await.unwrap();
        }
        assert!(b.next().now_or_never().is_none(), "nothing is written yet");
        a.flush().await.unwrap();
        for i in 0..10 {
            assert_eq!(
                b.next().now_or_never().unwrap().unwrap().unwrap(),
                payload(100, i)
            );
        }
    });
}

#[test]
fn more_than_the_write_buffer_leaves_without_a_flush() {
    block_on(async {
        let (a, b) = pipe(1 << 20, &[]);
        let (mut a, mut b) = (FrameStream::new(a), FrameStream::new(b));
        for i in 0..65 {
            a.feed(payload(1020, i)).await.unwrap();
        }
        for i in 0..64 {
            assert_eq!(
                b.next().now_or_never().unwrap().unwrap().unwrap(),
                payload(1020, i)
            );
        }
        assert!(b.next().now_or_never().is_none());
    });
}

#[test]
fn a_peer_that_does_not_read_stops_the_sender_within_its_buffer() {
    let (a, b) = pipe(1000, &[]);
    let mut sender = FrameStream::with_config(
        a,
        FrameConfig {
            write_buffer: 2000,
            ..FrameConfig::default()
        },
    );
    let mut taken = 0;
    while sender.feed(payload(96, 0)).now_or_never().is_some() {
        taken += 1;
        assert!(taken < 100, "no back-pressure");
    }
    assert!(taken * 100 <= 1000 + 2000 + 100, "{taken} frames taken");
    drop(b);
    let end = block_on(sender.flush());
    assert!(matches!(end, Err(FrameError::Io(_))));
    assert!(matches!(
        block_on(sender.send(Bytes::new())),
        Err(FrameError::Closed)
    ));
}

#[test]
fn both_sides_write_more_than_the_carrier_holds_while_reading() {
    let (a, b) = pipe(512, &[100, 7, 4096]);
    let side = |io, seed| async move {
        let (mut sender, mut receiver) = FrameStream::new(io).split();
        let send = async {
            for i in 0..20u8 {
                sender.send(payload(40_000, seed + i)).await.unwrap();
            }
            sender.close().await.unwrap();
            sender
        };
        let receive = async {
            let mut frames = 0;
            while let Some(frame) = receiver.next().await {
                assert_eq!(frame.unwrap().len(), 40_000);
                frames += 1;
            }
            (frames, receiver)
        };
        let (sender, (frames, receiver)) = join(send, receive).await;
        assert!(FrameStream::reunite(sender, receiver).is_ok());
        frames
    };
    assert_eq!(block_on(join(side(a, 0), side(b, 100))), (20, 20));
}

#[test]
fn deadlines_leave_the_stream_usable() {
    block_on(async {
        let (a, mut raw) = pipe(100, &[]);
        let mut stream = FrameStream::new(a);
        raw.write_all(b"\0\0\0\x05he").await.unwrap();
        let late = stream.next_within(SHORT).await;
        assert!(matches!(
            late,
            Some(Err(FrameError::Deadline { after: SHORT }))
        ));
        raw.write_all(b"llo").await.unwrap();
        let hello = stream.next_within(Duration::MAX).await;
        assert_eq!(hello.unwrap().unwrap(), &b"hello"[..]);

        let late = stream.send_within(payload(200, 1), SHORT).await;
        assert!(matches!(late, Err(FrameError::Deadline { after: SHORT })));
        // The frame was accepted: it is sent completely before the next one.
        let mut peer = FrameStream::new(raw);
        let (sent, first) = join(stream.send_within(payload(3, 2), LONG), peer.next()).await;
        sent.unwrap();
        assert_eq!(first.unwrap().unwrap(), payload(200, 1));
        assert_eq!(peer.next().await.unwrap().unwrap(), payload(3, 2));
    });
}

#[test]
fn a_dropped_feed_takes_nothing_of_its_frame() {
    block_on(async {
        let (a, b) = pipe(10, &[]);
        let config = FrameConfig {
            write_buffer: 1,
            ..FrameConfig::default()
        };
        let mut sender = FrameStream::with_config(a, config);
        let mut receiver = FrameStream::new(b);
        sender.feed(payload(50, 1)).now_or_never().unwrap().unwrap();
        assert!(sender.feed(payload(50, 2)).now_or_never().is_none());
        let (sent, got) = join(sender.send(payload(50, 3)), async {
            [
                receiver.next().await.unwrap().unwrap(),
                receiver.next().await.unwrap().unwrap(),
            ]
        })
        .await;
        sent.unwrap();
        assert_eq!(got, [payload(50, 1), payload(50, 3)]);
    });
}

#[test]
fn a_payload_above_the_limit_is_refused_and_the_stream_goes_on() {
    block_on(async {
        let (a, b) = pipe(1000, &[]);
        let config = FrameConfig {
            max_payload: 10,
            ..FrameConfig::default()
        };
        let (mut a, mut b) = (FrameStream::with_config(a, config), FrameStream::new(b));
        let refused = a.send(payload(11, 0)).await;
        assert!(matches!(
            refused,
            Err(FrameError::PayloadTooLarge { limit: 10, len: 11 })
        ));
        a.send(payload(10, 0)).await.unwrap();
        a.close().await.unwrap();
        a.close().await.unwrap();
        assert!(matches!(
            a.send(Bytes::new()).await,
            Err(FrameError::Closed)
        ));
        assert_eq!(b.next().await.unwrap().unwrap(), payload(10, 0));
        assert!(b.next().await.is_none());
        // The other direction is still open.
        b.send(payload(3, 9)).await.unwrap();
        assert_eq!(a.next().await.unwrap().unwrap(), payload(3, 9));
    });
}

#[test]
fn parts_hold_what_is_in_the_buffers() {
    block_on(async {
        let (a, mut raw) = pipe(1000, &[]);
        let mut stream = FrameStream::new(a);
        raw.write_all(b"\0\0\0\x01a\0\0\0\x01b\0\0\0\x02c")
            .await
            .unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap(), &b"a"[..]);
        stream.feed(Bytes::from_static(b"out")).await.unwrap();
        let parts = stream.into_parts();
        assert_eq!(parts.received, &b"\0\0\0\x01b\0\0\0\x02c"[..]);
        assert_eq!(parts.unsent, &b"\0\0\0\x03out"[..]);
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_sent_is_received(
        frames in prop::collection::vec(
            (prop_oneof![0..10usize, 10..2000usize, 30_000..70_000usize], any::<bool>()), 0..12),
        script in prop::collection::vec(prop_oneof![1..10usize, 10..100_000usize], 0..6),
        capacity in 1..100_000usize,
        write_buffer in 1..50_000usize,
        read_buffer in 1..50_000usize,
    ) {
        let capacity = capacity.max(1000);
        let config = FrameConfig { write_buffer, read_buffer, ..FrameConfig::default() };
        let (a, b) = pipe(capacity, &script);
        let mut sender = FrameStream::with_config(a, config);
        let receiver = FrameStream::with_config(b, config);
        let payloads: Vec<_> =
            frames.iter().enumerate().map(|(i, &(len, _))| payload(len, i as u8)).collect();
        let send = async {
            for (payload, (_, flush)) in payloads.iter().zip(&frames) {
                if *flush {
                    sender.send(payload.clone()).await.unwrap();
                } else {
                    SinkExt::feed(&mut sender, payload.clone()).await.unwrap();
                }
            }
            SinkExt::close(&mut sender).await.unwrap();
        };
        let receive = receiver.map(Result::unwrap).collect::<Vec<_>>();
        let ((), received) = block_on(join(send, receive));
        prop_assert_eq!(received, payloads);
    }
}
