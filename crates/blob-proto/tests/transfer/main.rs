//! Fetching and serving over TCP sockets on loopback.

#![cfg(unix)]
#![allow(
    clippy::single_range_in_vec_init,
    reason = "chunks are asked for in ranges, often in one"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test says what broke by panicking, and lives by the clock of its machine"
)]

mod ahead;
mod batches;
mod busy;
mod cancelled;
mod captured;
mod cut;
mod endless;
mod fetch;
mod hostile;
#[cfg(target_os = "linux")]
mod links;
mod net;
mod patience;
mod permits;
mod pipes;
mod relayed;
mod repair;
mod server;
mod shared;
mod slow_disk;
mod swarm;
mod upload;
