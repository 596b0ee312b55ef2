//! `calnet perf`, and the server that answers it.
//!
//! Throughput is measured by libp2p's perf protocol, `/perf/1.0.0`, so that other
//! implementations can be measured and can measure: the client writes how many bytes it wants as
//! a big-endian `u64`, then its upload, and closes its side; the server reads all of it and sends as
//! many bytes as were wanted. Round trips are libp2p's ping, `/ipfs/ping/1.0.0`.

mod client;
pub(crate) mod ping;
mod server;

use calimero_network::StreamProtocol;

pub(crate) use self::{client::execute, server::serve};

/// Name of the perf protocol.
pub(crate) const PROTOCOL: StreamProtocol = StreamProtocol::new("/perf/1.0.0");

/// Bytes written or read at one time: the size that the reference figures of the transport use.
const BLOCK_BYTES: usize = 1 << 20;

/// Length of the number that begins a request, in bytes.
const WANTED_BYTES_LEN: usize = 8;
