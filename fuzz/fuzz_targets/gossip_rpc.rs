//! An RPC of gossip as it arrives: in pieces, taken apart, its messages read and verified.
//!
//! The first byte of an input chooses how many bytes a read brings; the rest is what the peer sends.
#![no_main]

use bytes::BytesMut;
use calimero_network_pubsub::rpc::{MAX_MESSAGES, Published, next_frame, split};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 4096;

fuzz_target!(|input: &[u8]| {
    let Some((step, sent)) = input.split_first() else {
        return;
    };
    let mut arrived = BytesMut::new();
    for piece in sent.chunks(usize::from(*step).max(1)) {
        arrived.extend_from_slice(piece);
        loop {
            let frame = match next_frame(&mut arrived, LIMIT) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(_) => return,
            };
            assert!(frame.len() <= LIMIT);
            let Ok((messages, mut left)) = split(&frame) else {
                return;
            };
            assert!(messages.len() <= MAX_MESSAGES);
            // What is left is one whole RPC, and holds no message.
            let rest = next_frame(&mut left, LIMIT).unwrap().unwrap();
            assert!(left.is_empty());
            assert!(split(&rest).unwrap().0.is_empty());
            for message in &messages {
                if let Ok(Some(published)) = Published::parse(message)
                    && let Some(key) = published.public_key()
                {
                    // Nobody signs what a fuzzer writes; it must not panic.
                    let _ = published.verify(&key);
                }
            }
        }
    }
});
