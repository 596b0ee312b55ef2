//! What a rendezvous client reads: the answer to a registration and that to a discovery.
#![no_main]

use bytes::Bytes;
use calimero_network_discovery::{
    machine::{MAX_COOKIE_BYTES, Namespace},
    wire::rendezvous::{decode_discovered, decode_registered},
};
use libfuzzer_sys::fuzz_target;

const LIMIT: u32 = 3;

fuzz_target!(|input: &[u8]| {
    let input = Bytes::copy_from_slice(input);
    let _ = decode_registered(&input);
    let namespace = Namespace::new("ns1").expect("3 bytes are a namespace");
    if let Ok(page) = decode_discovered(&input, &namespace, LIMIT) {
        assert!(page.records.len() <= LIMIT as usize);
        let bytes: usize = page.records.iter().map(Bytes::len).sum();
        assert!(bytes <= input.len());
        assert!(
            page.cookie
                .is_none_or(|cookie| cookie.as_bytes().len() <= MAX_COOKIE_BYTES)
        );
    }
});
