//! Two or three nodes of gossip against each other, on connections that fail. The first two bytes of an
//! input choose the configuration and the chances, each three after them are a step: a connection
//! more or less, a subscription, a message, a broken stream, a restart, and time that passes.
#![no_main]
#![allow(missing_docs, reason = "the entry point is made by a macro")]

use libfuzzer_sys::fuzz_target;

use self::net::script::{STEP, Script};

#[path = "../../crates/pubsub/tests/net/mod.rs"]
mod net;

/// Steps taken of one input: enough for several lives of each node.
const MAX_STEPS: usize = 128;

fuzz_target!(|data: &[u8]| {
    let Some(([variant, seed], rest)) = data.split_first_chunk() else {
        return;
    };
    let mut script = Script::new(*variant, u64::from(*seed));
    let (steps, _) = rest.as_chunks::<STEP>();
    for step in steps.iter().take(MAX_STEPS) {
        script.step(*step);
    }
    script.settle();
});
