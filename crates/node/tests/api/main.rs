//! The HTTP API of a running node, on its Unix socket and over TCP.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a surprise ends the test"
)]

mod access;
mod blobs;
mod node;
mod requests;
mod streams;
#[path = "../support/mod.rs"]
mod support;
