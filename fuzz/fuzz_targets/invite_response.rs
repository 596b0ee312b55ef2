//! An invite response against Borsh's own reader: whole, in pieces, and back to bytes.
#![no_main]

#[path = "../shared/invite.rs"]
mod invite;

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use calimero_network_specialized::SpecializedNodeInviteResponse as Response;
use libfuzzer_sys::fuzz_target;

/// The message as Borsh derives it.
#[derive(BorshDeserialize, BorshSerialize)]
struct Plain {
    nonce: [u8; 32],
    invitation_bytes: Option<Vec<u8>>,
    error: Option<String>,
}

fn check(message: &Response, plain: &Plain, body: &Bytes) {
    assert_eq!(message.nonce, plain.nonce);
    assert_eq!(message.error, plain.error);
    assert_eq!(
        message.invitation_bytes.as_deref(),
        plain.invitation_bytes.as_deref()
    );
    let bytes = message.invitation_bytes.as_deref().unwrap_or_default();
    assert!(invite::lies_in(bytes, body));
    if message.as_refusal().is_some() {
        assert!(message.invitation_bytes.is_none());
    }
}

fuzz_target!(|input: &[u8]| invite::exercise(input, check));
