//! What an AutoNAT v1 server reads.
#![no_main]

use calimero_network_discovery::wire::autonat_v1::{Answer, decode_request, encode_answer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Ok(request) = decode_request(input) {
        // Each address takes at least two bytes of the request.
        assert!(request.addresses.len() <= input.len() / 2);
        for address in request.addresses {
            let length = address.len();
            assert!(encode_answer(&Answer::Reached(address)).len() <= length + 32);
        }
    }
});
