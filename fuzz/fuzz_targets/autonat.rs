//! What an AutoNAT v2 client reads: the answer to a dial request, and a dial-back.
#![no_main]

use calimero_network_discovery::wire::autonat::{
    Answer, decode_answer, decode_dial_back, encode_data,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = decode_dial_back(input);
    if let Ok(Answer::DataRequested(bytes)) = decode_answer(input) {
        assert!((30_000..=100_000).contains(&bytes));
        assert!(encode_data(bytes).count() <= 25);
    }
});
