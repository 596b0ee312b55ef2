//! The frame codec against a decoder that could not be simpler: however the bytes are cut, both
//! say the same.
//!
//! The first byte of an input chooses the largest payload, the second how many of the bytes that
//! follow it say where the rest is cut.
#![no_main]

use asynchronous_codec::{Decoder, Encoder};
use bytes::{Bytes, BytesMut};
use calimero_network_stream::{FrameCodec, FrameError};
use libfuzzer_sys::fuzz_target;

/// How a run of bytes ends.
#[derive(Debug, PartialEq)]
enum End {
    Clean,
    Cut { arrived: usize, missing: usize },
    TooLarge { claimed: usize },
}

/// Reads the whole at once, a copy for each payload.
fn naive(mut wire: &[u8], limit: usize) -> (Vec<Vec<u8>>, End) {
    let mut frames = Vec::new();
    loop {
        if wire.is_empty() {
            return (frames, End::Clean);
        }
        if wire.len() < 4 {
            let (arrived, missing) = (wire.len(), 4 - wire.len());
            return (frames, End::Cut { arrived, missing });
        }
        let claimed = wire[..4]
            .iter()
            .fold(0, |sum, &byte| sum << 8 | usize::from(byte));
        if claimed > limit {
            return (frames, End::TooLarge { claimed });
        }
        if wire.len() < 4 + claimed {
            let (arrived, missing) = (wire.len() - 4, 4 + claimed - wire.len());
            return (frames, End::Cut { arrived, missing });
        }
        frames.push(wire[4..4 + claimed].to_vec());
        wire = &wire[4 + claimed..];
    }
}

fn end(error: &FrameError, limit: usize) -> End {
    match *error {
        FrameError::TooLarge {
            claimed,
            limit: told,
        } => {
            assert_eq!(told, limit);
            End::TooLarge { claimed }
        }
        FrameError::Cut {
            arrived, missing, ..
        } => End::Cut { arrived, missing },
        ref other => panic!("decoding failed to encode: {other}"),
    }
}

/// Reads the bytes as they arrive, in the lengths that `cuts` names in turn.
fn piecewise(wire: &[u8], cuts: &[u8], limit: usize) -> (Vec<Bytes>, End) {
    let mut codec = FrameCodec::new(limit);
    let mut buffer = BytesMut::new();
    let mut frames = Vec::new();
    let mut rest = wire;
    let mut cuts = cuts.iter().cycle();
    while !rest.is_empty() {
        let len = cuts
            .next()
            .map_or(rest.len(), |&cut| usize::from(cut).max(1))
            .min(rest.len());
        let (piece, behind) = rest.split_at(len);
        buffer.extend_from_slice(piece);
        rest = behind;
        let held = buffer.capacity();
        loop {
            match codec.decode(&mut buffer) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, end(&error, limit)),
            }
        }
        assert!(buffer.capacity() <= held, "a claim made the buffer grow");
    }
    loop {
        match codec.decode_eof(&mut buffer) {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => return (frames, End::Clean),
            Err(error) => return (frames, end(&error, limit)),
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let [limit, cuts, rest @ ..] = input else {
        return;
    };
    let limit = usize::from(*limit);
    let (cuts, wire) = rest.split_at(usize::from(*cuts).min(rest.len()));

    let (expected, expected_end) = naive(wire, limit);
    let (frames, end) = piecewise(wire, cuts, limit);
    assert_eq!(frames, expected);
    assert_eq!(end, expected_end);

    let mut codec = FrameCodec::new(limit);
    let mut again = BytesMut::new();
    for frame in frames {
        codec
            .encode(frame, &mut again)
            .expect("what was decoded can be encoded");
    }
    assert_eq!(again, wire[..again.len()]);

    // A payload of any length is refused by its length alone, or written whole.
    let mut whole = BytesMut::new();
    match codec.encode(Bytes::copy_from_slice(wire), &mut whole) {
        Ok(()) => assert_eq!(
            codec.decode(&mut whole).expect("a whole frame").as_deref(),
            Some(wire)
        ),
        Err(_) => assert!(wire.len() > limit && whole.is_empty()),
    }
});
