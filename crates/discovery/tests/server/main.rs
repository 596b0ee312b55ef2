//! What boot nodes serve, on real sockets: against stock clients and hostile ones.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "in a test a surprise ends the test"
)]

mod common;
#[path = "../forward/mod.rs"]
mod forward;
mod hostile;
mod interop;
mod load;
mod relay;
