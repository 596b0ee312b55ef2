//! A file of remembered peers: what is read is within bounds, and is written as it was read.
#![no_main]

use std::time::{Duration, UNIX_EPOCH};

use calimero_network_discovery::cache::{
    MAX_CACHED_ADDRESSES_PER_PEER, MAX_CACHED_PEERS, decode, encode,
};
use calimero_network_primitives::addr::MAX_ADDRESS_BYTES;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let now = UNIX_EPOCH + Duration::from_secs(1_750_000_000);
    let Ok(entries) = decode(input, now) else {
        return;
    };
    assert!(entries.len() <= MAX_CACHED_PEERS);
    for entry in &entries {
        assert!((1..=MAX_CACHED_ADDRESSES_PER_PEER).contains(&entry.addresses.len()));
        assert!(entry.addresses.iter().all(|a| a.len() <= MAX_ADDRESS_BYTES));
    }
    let text = encode(&entries, now);
    assert_eq!(decode(text.as_bytes(), now), Ok(entries));
    // Where nobody was heard of in the future, there is one text for it.
    let future = |line: &str| {
        let heard = line.split(' ').next().and_then(|time| time.parse().ok());
        heard.is_some_and(|heard: u64| heard > 1_750_000_000)
    };
    if !text.is_empty() && !String::from_utf8_lossy(input).lines().any(future) {
        assert_eq!(text.as_bytes(), input);
    }
});
