//! Anything may happen to the discovery machine, in any order, at any time, also with a clock that
//! goes back or a day ahead. The first two bytes choose its configuration and its chances; each eight
//! after them are a step. What must hold is what its own property tests hold it to.
#![no_main]
#![allow(missing_docs, reason = "the entry point is made by a macro")]

use std::time::Instant;

use calimero_network_discovery::machine;
use libfuzzer_sys::fuzz_target;

use self::check::{
    Checked,
    script::{STEP, Step, config},
};

#[path = "../../crates/discovery/src/machine/tests/check/mod.rs"]
mod check;

/// Steps taken of one input: enough for every part to have met every other.
const MAX_STEPS: usize = 256;

fuzz_target!(|data: &[u8]| {
    let Some(([variant, seed], rest)) = data.split_first_chunk() else {
        return;
    };
    let mut checked = Checked::new(config(*variant), u64::from(*seed), Instant::now());
    let (steps, _) = rest.as_chunks::<STEP>();
    for step in steps.iter().take(MAX_STEPS) {
        checked.step(&Step::of(*step));
    }
    checked.settle();
});
