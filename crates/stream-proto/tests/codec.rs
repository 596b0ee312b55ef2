//! The codec and the pure decoder: pinned bytes, round trips, refused claims.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "tests"
)]

mod support;

use asynchronous_codec::{Decoder, Encoder};
use bytes::{Bytes, BytesMut};
use calimero_network_primitives::limits::{KIB, MAX_FRAME_PAYLOAD_BYTES, MIB};
use calimero_network_stream::{FrameCodec, FrameConfig, FrameDecoder, FrameError, FramePart};
use proptest::prelude::*;
use support::{NaiveEnd, naive};

fn config(max_payload: usize, read_buffer: usize) -> FrameConfig {
    FrameConfig {
        max_payload,
        read_buffer,
        ..FrameConfig::default()
    }
}

fn end_of(error: &FrameError) -> NaiveEnd {
    match *error {
        FrameError::TooLarge { claimed, .. } => NaiveEnd::TooLarge(claimed),
        FrameError::Cut {
            part,
            arrived,
            missing,
        } => match part {
            FramePart::Prefix => NaiveEnd::CutPrefix(arrived, missing),
            FramePart::Payload => NaiveEnd::CutPayload(arrived, missing),
        },
        ref other => panic!("{other:?}"),
    }
}

/// Decodes `wire`, which arrives in chunks of the sizes in `chunks`, repeated
/// cyclically. With `hold`, the frames stay alive, so that the buffer cannot be
/// reused.
fn decode(
    decoder: &mut FrameDecoder,
    mut wire: &[u8],
    chunks: &[usize],
    hold: bool,
) -> (Vec<Vec<u8>>, NaiveEnd) {
    let mut chunks = chunks.iter().cycle();
    let (mut frames, mut held) = (Vec::new(), Vec::new());
    loop {
        match decoder.next_frame() {
            Ok(Some(frame)) => {
                frames.push(frame.to_vec());
                if hold {
                    held.push(frame);
                }
                continue;
            }
            Ok(None) => {}
            Err(error) => return (frames, end_of(&error)),
        }
        if wire.is_empty() {
            let end = decoder
                .end()
                .map_or_else(|e| end_of(&e), |()| NaiveEnd::Clean);
            assert!(
                !hold
                    || held
                        .iter()
                        .map(|frame| frame.to_vec())
                        .eq(frames.iter().cloned())
            );
            return (frames, end);
        }
        let space = decoder.space();
        assert!(!space.is_empty());
        let n = space.len().min(wire.len()).min(*chunks.next().unwrap());
        space[..n].copy_from_slice(&wire[..n]);
        decoder.arrived(n);
        wire = &wire[n..];
    }
}

fn encode(frames: &[Vec<u8>]) -> BytesMut {
    let mut wire = BytesMut::new();
    for frame in frames {
        FrameCodec::default()
            .encode(Bytes::copy_from_slice(frame), &mut wire)
            .unwrap();
    }
    wire
}

#[test]
fn vectors_of_the_published_implementation() {
    let vectors: serde_json::Value =
        serde_json::from_str(include_str!("../../../testdata/vectors.json")).unwrap();
    let frames = vectors["stream_frames"]["frames"].as_array().unwrap();
    assert!(!frames.is_empty());
    for frame in frames {
        let payload = hex::decode(frame["payload_hex"].as_str().unwrap()).unwrap();
        let wire = hex::decode(frame["wire_hex"].as_str().unwrap()).unwrap();
        assert_eq!(encode(std::slice::from_ref(&payload)), wire);
        let mut received = BytesMut::from(&wire[..]);
        let decoded = FrameCodec::default().decode(&mut received).unwrap();
        assert_eq!(decoded.unwrap(), payload);
        assert!(received.is_empty());
        let mut decoder = FrameDecoder::new(FrameConfig::default());
        let got = decode(&mut decoder, &wire, &[usize::MAX], false);
        assert_eq!(got, (vec![payload], NaiveEnd::Clean));
    }
}

#[test]
fn the_largest_frame_passes_and_one_byte_more_does_not() {
    let largest = vec![7; MAX_FRAME_PAYLOAD_BYTES];
    let wire = encode(std::slice::from_ref(&largest));
    let mut decoder = FrameDecoder::new(FrameConfig::default());
    let got = decode(&mut decoder, &wire, &[64 * KIB], false);
    assert_eq!(got, (vec![largest], NaiveEnd::Clean));

    let over = Bytes::from(vec![7; MAX_FRAME_PAYLOAD_BYTES + 1]);
    let mut wire = BytesMut::new();
    assert!(matches!(
        FrameCodec::default().encode(over, &mut wire),
        Err(FrameError::PayloadTooLarge { limit: MAX_FRAME_PAYLOAD_BYTES, len })
            if len == MAX_FRAME_PAYLOAD_BYTES + 1
    ));
    assert!(wire.is_empty());
}

#[test]
fn a_claim_above_the_limit_is_refused_permanently_and_allocates_nothing() {
    for claim in [MAX_FRAME_PAYLOAD_BYTES as u32 + 1, u32::MAX] {
        let mut wire = BytesMut::from(&claim.to_be_bytes()[..]);
        let before = wire.capacity();
        for _ in 0..2 {
            assert!(matches!(
                FrameCodec::default().decode(&mut wire),
                Err(FrameError::TooLarge { limit: MAX_FRAME_PAYLOAD_BYTES, claimed })
                    if claimed == claim as usize
            ));
        }
        assert_eq!(wire.capacity(), before);

        // Frames before the refused claim are still returned.
        let mut wire = encode(&[vec![1], vec![2, 3]]);
        wire.extend_from_slice(&claim.to_be_bytes());
        let mut decoder = FrameDecoder::new(FrameConfig::default());
        let got = decode(&mut decoder, &wire, &[usize::MAX], false);
        assert_eq!(
            got,
            (
                vec![vec![1], vec![2, 3]],
                NaiveEnd::TooLarge(claim as usize)
            )
        );
        assert!(decoder.next_frame().is_err());
        assert!(decoder.capacity() <= 4 * KIB);
    }
}

#[test]
fn a_claim_within_the_limit_allocates_as_its_bytes_arrive() {
    let mut decoder = FrameDecoder::new(FrameConfig::default());
    let wire = encode(&[vec![0; MAX_FRAME_PAYLOAD_BYTES]]);
    let mut arrived = 0;
    while arrived < wire.len() {
        assert_eq!(decoder.next_frame().unwrap(), None);
        assert!(
            decoder.capacity() <= (2 * arrived).max(4 * KIB),
            "{arrived}"
        );
        let space = decoder.space();
        let n = space.len().min(1500).min(wire.len() - arrived);
        space[..n].copy_from_slice(&wire[arrived..arrived + n]);
        decoder.arrived(n);
        arrived += n;
    }
    assert!(decoder.next_frame().unwrap().is_some());
}

#[test]
fn frames_are_slices_of_one_buffer_and_the_buffer_is_used_again() {
    let mut decoder = FrameDecoder::new(config(MIB, 64 * KIB));
    // Grow the buffer to its usual size first.
    decode(
        &mut decoder,
        &encode(&vec![vec![0; 1020]; 256]),
        &[usize::MAX],
        false,
    );
    let wire = encode(&vec![vec![9; 1020]; 64]);
    let fill = |decoder: &mut FrameDecoder| {
        let space = decoder.space();
        assert_eq!(space.len(), 64 * KIB);
        let start = space.as_ptr();
        space.copy_from_slice(&wire);
        decoder.arrived(64 * KIB);
        let frames: Vec<_> = std::iter::from_fn(|| decoder.next_frame().unwrap()).collect();
        assert_eq!(frames.len(), 64);
        for (i, frame) in frames.iter().enumerate() {
            assert_eq!(frame.as_ptr() as usize, start as usize + 1024 * i + 4);
        }
        (start, frames)
    };
    let (first, frames) = fill(&mut decoder);
    drop(frames);
    let (second, kept) = fill(&mut decoder);
    assert_eq!(
        first, second,
        "the frames were dropped, so the buffer is used again"
    );
    let (third, _) = fill(&mut decoder);
    assert_ne!(
        second, third,
        "the frames are held, so the buffer is theirs"
    );
    assert!(kept.iter().all(|frame| frame.iter().all(|&byte| byte == 9)));
}

#[test]
fn a_retained_small_frame_retains_no_large_buffer() {
    let mut decoder = FrameDecoder::new(FrameConfig::default());
    decode(
        &mut decoder,
        &encode(&vec![vec![0; 1020]; 256]),
        &[usize::MAX],
        false,
    );
    let wire = encode(&[vec![1; 10]]);
    let mut kept = Vec::new();
    let start = decoder.space().as_ptr();
    for _ in 0..1000 {
        let space = decoder.space();
        assert_eq!(space.as_ptr(), start, "no new buffer");
        space[..wire.len()].copy_from_slice(&wire);
        decoder.arrived(wire.len());
        kept.push(decoder.next_frame().unwrap().unwrap());
    }
    assert!(kept.iter().all(|frame| frame == &[1; 10][..]));
}

#[test]
fn a_large_buffer_is_dropped_when_idle_or_after_small_frames() {
    let mut decoder = FrameDecoder::new(FrameConfig::default());
    let large = encode(&[vec![1; 4 * MIB]]);
    decode(&mut decoder, &large, &[usize::MAX], false);
    assert!(decoder.capacity() >= 4 * MIB, "retained for the next frame");
    decoder.idle();
    assert!(decoder.capacity() <= 256 * KIB);

    decode(&mut decoder, &large, &[usize::MAX], false);
    decode(
        &mut decoder,
        &encode(&vec![vec![1; 1020]; 8192]),
        &[usize::MAX],
        false,
    );
    assert!(decoder.capacity() <= 256 * KIB, "{}", decoder.capacity());
}

fn frames() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let len = prop_oneof![
        4 => 0..8usize,
        4 => 8..300usize,
        2 => 300..5000usize,
        1 => 5000..40_000usize
    ];
    prop::collection::vec(
        (len, any::<u8>()).prop_map(|(len, byte)| vec![byte; len]),
        0..24,
    )
}

fn chunks() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![1..6usize, 6..200usize, 200..70_000usize], 1..12)
}

proptest! {
    #[test]
    fn any_chunking_decodes_like_the_naive_decoder(
        frames in frames(),
        tail in prop::collection::vec(any::<u8>(), 0..9),
        chunks in chunks(),
        read_buffer in 1..9000usize,
        hold in any::<bool>(),
    ) {
        let mut wire = encode(&frames);
        wire.extend_from_slice(&tail);
        let max = 40_000;
        let mut decoder = FrameDecoder::new(config(max, read_buffer));
        let got = decode(&mut decoder, &wire, &chunks, hold);
        prop_assert_eq!(&got, &naive(&wire, max));
        prop_assert_eq!(&got.0[..frames.len()], &frames[..]);

        // The codec decodes the same chunks.
        let mut codec = FrameCodec::new(max);
        let (mut buffer, mut seen, mut rest) = (BytesMut::new(), Vec::new(), &wire[..]);
        let mut sizes = chunks.iter().cycle();
        let end = loop {
            match codec.decode(&mut buffer) {
                Ok(Some(frame)) => { seen.push(frame.to_vec()); continue; }
                Ok(None) => {}
                Err(error) => break end_of(&error),
            }
            if rest.is_empty() {
                break codec.decode_eof(&mut buffer).map_or_else(|e| end_of(&e), |frame| {
                    assert_eq!(frame, None);
                    NaiveEnd::Clean
                });
            }
            let (now, later) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
            buffer.extend_from_slice(now);
            rest = later;
        };
        prop_assert_eq!(got, (seen, end));
    }

    #[test]
    fn hostile_bytes_decode_like_the_naive_decoder(
        wire in prop::collection::vec(prop_oneof![3 => Just(0u8), 1 => any::<u8>()], 0..400),
        chunks in chunks(),
        max in 0..300usize,
    ) {
        let mut decoder = FrameDecoder::new(config(max, 64));
        prop_assert_eq!(decode(&mut decoder, &wire, &chunks, true), naive(&wire, max));
    }

    #[test]
    fn capacity_is_bounded_by_what_arrived(
        claim in 0..=MAX_FRAME_PAYLOAD_BYTES,
        arriving in 0..300_000usize,
        chunk in 1..40_000usize,
    ) {
        let mut decoder = FrameDecoder::new(FrameConfig::default());
        let mut wire = (claim as u32).to_be_bytes().to_vec();
        wire.resize(4 + arriving.min(claim.saturating_sub(1)), 5);
        let mut at = 0;
        while at < wire.len() {
            prop_assert_eq!(decoder.next_frame().unwrap().is_some(), claim == 0 && at == 4);
            let space = decoder.space();
            let n = space.len().min(chunk).min(wire.len() - at);
            space[..n].copy_from_slice(&wire[at..at + n]);
            decoder.arrived(n);
            at += n;
            prop_assert!(decoder.capacity() <= (2 * at).max(64 * KIB));
        }
    }
}
