//! What an AutoNAT v2 client and server read.
#![no_main]

use calimero_network_discovery::wire::autonat::{
    Answer, decode_answer, decode_data, decode_dial_back, decode_dial_back_response,
    decode_request, encode_data,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = decode_dial_back(input);
    let _ = decode_dial_back_response(input);
    let _ = decode_request(input);
    let _ = decode_data(input);
    if let Ok(Answer::DataRequested(bytes)) = decode_answer(input) {
        assert!((30_000..=100_000).contains(&bytes));
        assert!(encode_data(bytes).count() <= 25);
    }
});
