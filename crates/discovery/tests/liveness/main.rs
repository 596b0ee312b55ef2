//! The liveness behaviour over memory, TCP and QUIC, against itself, against libp2p's own ping, and
//! against peers that do only what a test says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says so"
)]

mod answering;
mod asking;
mod common;
mod interop;
mod stock;
