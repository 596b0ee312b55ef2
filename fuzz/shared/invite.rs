//! What both invite messages must do with any bytes: as Borsh's own reader says, whole and in
//! pieces, and back to the same bytes.
//!
//! The first two bytes of an input choose the largest message, the third how many bytes a read
//! brings; the rest is what the peer sends.

use std::fmt::Debug;

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use calimero_network_specialized::{
    DecodeError, Message,
    codec::{PREFIX_BYTES, Receiver},
};

/// Reads `input` as a message `M`, which Borsh derives as `Plain`; `check` compares the two, and
/// gets the bytes they were read from.
pub fn exercise<M, Plain>(input: &[u8], check: impl Fn(&M, &Plain, &Bytes))
where
    M: Message + PartialEq + Debug,
    Plain: BorshDeserialize + BorshSerialize,
{
    let [limit, limit_low, piece, wire @ ..] = input else {
        return;
    };
    let limit = usize::from(u16::from_be_bytes([*limit, *limit_low]));
    let piece = usize::from(*piece) + 1;
    let body = Bytes::copy_from_slice(wire);
    as_body(&body, limit, check);
    as_stream::<M>(body, limit, piece);
}

/// The bytes as a body, whatever they claim to be.
fn as_body<M, Plain>(body: &Bytes, limit: usize, check: impl Fn(&M, &Plain, &Bytes))
where
    M: Message + PartialEq + Debug,
    Plain: BorshDeserialize + BorshSerialize,
{
    let decoded = M::decode_body(body.clone());
    let plain = Plain::try_from_slice(body);
    assert_eq!(decoded.is_ok(), plain.is_ok());
    let (Ok(message), Ok(plain)) = (decoded, plain) else {
        return;
    };
    check(&message, &plain, body);
    let again = borsh::to_vec(&plain).expect("memory takes it");
    assert_eq!(again, body[..]);
    match message.encode(limit) {
        Ok(encoded) => {
            assert_eq!(encoded[PREFIX_BYTES..], body[..]);
            assert_eq!(M::decode(encoded, limit), Ok(message));
        }
        Err(_) => assert!(body.len() > limit),
    }
}

/// The bytes as they come from a stream.
fn as_stream<M: Message + PartialEq + Debug>(wire: Bytes, limit: usize, piece: usize) {
    let whole = M::decode(wire.clone(), limit);
    match piecewise(&wire, limit, piece) {
        Ok(first) => {
            let behind = wire.len() - PREFIX_BYTES - first.len();
            match behind {
                0 => assert_eq!(M::decode_body(first), whole),
                bytes => assert_eq!(whole, Err(DecodeError::Trailing { bytes })),
            }
        }
        Err(Some(error)) => assert_eq!(whole, Err(error)),
        Err(None) => assert!(wire.is_empty() && whole.is_err()),
    }
}

/// What a receiver makes of `wire` when it arrives `piece` bytes at a time.
fn piecewise(wire: &[u8], limit: usize, piece: usize) -> Result<Bytes, Option<DecodeError>> {
    let mut receiver = Receiver::new(limit);
    let mut rest = wire;
    while !rest.is_empty() {
        let space = receiver.space();
        let len = space.len().min(piece).min(rest.len());
        assert!(len > 0, "an unfinished message has room for more");
        space[..len].copy_from_slice(&rest[..len]);
        rest = &rest[len..];
        let arrived = wire.len() - rest.len();
        assert!(
            receiver.capacity() <= 4 * arrived.max(4096),
            "a claim made the buffer grow"
        );
        if let Some(body) = receiver.arrived(len).map_err(Some)? {
            return Ok(body);
        }
    }
    Err(receiver.cut())
}

/// Whether `slice` is a part of `buffer`, not a copy.
pub fn lies_in(slice: &[u8], buffer: &[u8]) -> bool {
    slice.is_empty() || buffer.as_ptr_range().contains(&slice.as_ptr())
}
