//! An invite request against Borsh's own reader: whole, in pieces, and back to bytes.
//!
//! The first two bytes of an input choose the largest message, the third how many bytes a read
//! brings; the rest is what the peer sends.
#![no_main]

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use calimero_network_specialized::{
    DecodeError, Message, SpecializedNodeInviteRequest as Request,
    codec::{PREFIX_BYTES, Receiver},
};
use libfuzzer_sys::fuzz_target;

/// The message as Borsh derives it.
#[derive(BorshDeserialize, BorshSerialize)]
enum Plain {
    TeeAttestation {
        nonce: [u8; 32],
        quote_bytes: Vec<u8>,
        public_key: [u8; 32],
    },
}

fn check(message: &Request, plain: &Plain, body: &Bytes) {
    let Plain::TeeAttestation {
        nonce,
        quote_bytes,
        public_key,
    } = plain;
    let Request::TeeAttestation {
        nonce: read_nonce,
        quote_bytes: read_quote,
        public_key: read_key,
    } = message
    else {
        panic!("another variant");
    };
    assert_eq!((read_nonce, read_key), (nonce, public_key));
    assert_eq!(read_quote, quote_bytes);
    assert!(lies_in(read_quote, body));
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

fn lies_in(slice: &[u8], buffer: &[u8]) -> bool {
    slice.is_empty() || buffer.as_ptr_range().contains(&slice.as_ptr())
}

fuzz_target!(|input: &[u8]| {
    let [limit, limit_low, piece, wire @ ..] = input else {
        return;
    };
    let limit = usize::from(u16::from_be_bytes([*limit, *limit_low]));
    let piece = usize::from(*piece) + 1;

    // The bytes as a body, whatever they claim to be.
    let body = Bytes::copy_from_slice(wire);
    let decoded = Request::decode_body(body.clone());
    let plain = Plain::try_from_slice(wire);
    assert_eq!(decoded.is_ok(), plain.is_ok());
    if let (Ok(message), Ok(plain)) = (decoded, plain) {
        check(&message, &plain, &body);
        let again = borsh::to_vec(&plain).expect("memory takes it");
        assert_eq!(again, wire);
        match message.encode(limit) {
            Ok(encoded) => {
                assert_eq!(encoded[PREFIX_BYTES..], *wire);
                assert_eq!(Request::decode(encoded, limit), Ok(message));
            }
            Err(_) => assert!(wire.len() > limit),
        }
    }

    // The bytes as they come from a stream.
    let whole = Request::decode(body, limit);
    match piecewise(wire, limit, piece) {
        Ok(first) => {
            let behind = wire.len() - PREFIX_BYTES - first.len();
            match behind {
                0 => assert_eq!(Request::decode_body(first), whole),
                bytes => assert_eq!(whole, Err(DecodeError::Trailing { bytes })),
            }
        }
        Err(Some(error)) => assert_eq!(whole, Err(error)),
        Err(None) => assert!(wire.is_empty() && whole.is_err()),
    }
});
