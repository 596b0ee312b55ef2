//! The behaviour in Swarms: against itself, libp2p's own servers, and servers that misbehave.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what is wrong by panicking"
)]

mod boot_nodes;
mod common;
mod dials;
#[path = "../forward/mod.rs"]
mod forward;
mod gate;
mod identify;
mod limits;
mod meeting;
mod neighbourhood;
mod probes;
mod probes_v1;
mod punches;
mod records;
mod relays;
mod rendezvous;
mod servers;
mod strangers;
