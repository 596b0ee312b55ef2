//! Frames at their limits.

use super::*;

/// A frame that claims that many bytes, of which none has arrived.
fn claim(bytes: usize) -> BytesMut {
    let mut prefix = encode::usize_buffer();
    BytesMut::from(encode::usize(bytes, &mut prefix))
}

#[test]
fn a_claim_is_refused_above_the_longest_message_of_its_direction() {
    for max_bytes in [MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES] {
        let mut fits = claim(max_bytes);
        assert_eq!(take_frame(&mut fits, max_bytes), Ok(None));
        let too_long = MessageError::TooLong {
            len_bytes: max_bytes as u64 + 1,
            max_bytes,
        };
        let refused = take_frame(&mut claim(max_bytes + 1), max_bytes);
        assert_eq!(refused, Err(too_long));
    }
}

#[test]
fn a_prefix_is_awaited_up_to_its_longest_length() {
    for arrived in 0..FRAME_PREFIX_MAX_BYTES {
        let prefix = vec![0xff; arrived];
        assert_eq!(frame_len(&prefix, usize::MAX), Ok(None), "{arrived}");
    }
    for arrived in FRAME_PREFIX_MAX_BYTES..6 {
        let prefix = vec![0xff; arrived];
        assert_eq!(frame_len(&prefix, usize::MAX), Err(MessageError::Number));
    }
    let longest = claim((1 << 21) - 1);
    assert_eq!(longest.len(), FRAME_PREFIX_MAX_BYTES);
    assert_eq!(
        frame_len(&longest, usize::MAX),
        Ok(Some((FRAME_PREFIX_MAX_BYTES, (1 << 21) - 1)))
    );
}

#[test]
fn a_frame_is_taken_when_it_is_whole_and_without_what_follows() {
    let mut wire = claim(3);
    wire.extend_from_slice(b"ab");
    assert_eq!(take_frame(&mut wire, 3), Ok(None));
    wire.extend_from_slice(b"cd");
    let frame = take_frame(&mut wire, 3).unwrap().unwrap();
    assert_eq!((&frame[..], &wire[..]), (&b"abc"[..], &b"d"[..]));
    let mut empty = claim(0);
    assert_eq!(take_frame(&mut empty, 3), Ok(Some(Bytes::new())));
}
