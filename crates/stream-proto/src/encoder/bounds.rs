//! What is queued, and what is copied.

use super::*;

fn encoder(write_buffer: usize) -> FrameEncoder {
    FrameEncoder::new(FrameConfig {
        max_payload: 100_000,
        write_buffer,
        ..FrameConfig::default()
    })
}

fn payload(len: usize) -> Bytes {
    vec![7; len].into()
}

fn lens(encoder: &FrameEncoder) -> [usize; 2] {
    encoder.slices().map(|slice| slice.len())
}

#[test]
fn frames_are_accepted_until_the_write_buffer_is_full() {
    let mut encoder = encoder(100);
    assert!(encoder.is_empty());
    for _ in 0..2 {
        assert!(encoder.has_capacity());
        encoder.push(payload(46)).unwrap();
    }
    assert_eq!(lens(&encoder), [100, 0]);
    assert!(!encoder.has_capacity() && !encoder.is_empty());
    assert!(!encoder.has_written());
    encoder.written(1);
    assert!(encoder.has_written() && encoder.has_capacity());
}

#[test]
fn a_payload_above_the_limit_is_refused_and_leaves_nothing() {
    let mut encoder = encoder(100);
    encoder.push(payload(100_000)).unwrap();
    let before = lens(&encoder);
    let refused = encoder.push(payload(100_001));
    assert!(matches!(
        refused,
        Err(FrameError::PayloadTooLarge {
            limit: 100_000,
            len: 100_001
        })
    ));
    assert_eq!(lens(&encoder), before);
}

#[test]
fn a_large_payload_is_written_from_its_own_memory_and_before_what_follows() {
    let mut encoder = encoder(1 << 20);
    encoder.push(payload(GATHER_BYTES)).unwrap();
    assert_eq!(lens(&encoder), [GATHER_BYTES + 4, 0]);
    encoder.written(GATHER_BYTES + 4);
    assert!(encoder.is_empty());
    encoder.push(payload(GATHER_BYTES + 1)).unwrap();
    assert_eq!(
        lens(&encoder),
        [HEAD_BYTES, GATHER_BYTES + 1 + 4 - HEAD_BYTES]
    );
    assert!(!encoder.has_capacity());
    // The caller did not check: the order is that of the frames.
    encoder.push(vec![8; 3].into()).unwrap();
    let rest = encoder.into_rest();
    assert_eq!(rest.len(), 4 + GATHER_BYTES + 1 + 4 + 3);
    assert_eq!(rest[..4], (GATHER_BYTES as u32 + 1).to_be_bytes());
    assert!(rest[4..4 + GATHER_BYTES + 1].iter().all(|byte| *byte == 7));
    assert_eq!(rest[4 + GATHER_BYTES + 1..], [0, 0, 0, 3, 8, 8, 8]);
}

#[test]
fn the_rest_after_a_part_was_written_begins_where_it_ended() {
    let mut encoder = encoder(1 << 20);
    encoder.push(payload(GATHER_BYTES * 2)).unwrap();
    encoder.written(HEAD_BYTES + 10);
    assert_eq!(lens(&encoder), [0, 4 + GATHER_BYTES * 2 - HEAD_BYTES - 10]);
    assert!(encoder.is_within_frame() && !encoder.is_empty());
    let rest = encoder.into_rest();
    assert_eq!(rest.len(), 4 + GATHER_BYTES * 2 - HEAD_BYTES - 10);
}
