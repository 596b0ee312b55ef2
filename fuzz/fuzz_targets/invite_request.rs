//! An invite request against Borsh's own reader: whole, in pieces, and back to bytes.
#![no_main]

#[path = "../shared/invite.rs"]
mod invite;

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use calimero_network_specialized::SpecializedNodeInviteRequest as Request;
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
    assert!(invite::lies_in(read_quote, body));
}

fuzz_target!(|input: &[u8]| invite::exercise(input, check));
