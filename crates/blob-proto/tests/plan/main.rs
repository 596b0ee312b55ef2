//! The planner against simulated providers, in virtual time.

#![allow(
    clippy::single_range_in_vec_init,
    reason = "chunks are asked for in ranges, often in one"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what broke by panicking"
)]

mod deadlines;
mod failures;
mod horizon;
mod properties;
mod shared;
mod sim;
mod spread;
