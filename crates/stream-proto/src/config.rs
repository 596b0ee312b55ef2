//! Configuration of this crate: the shared type, and the part of it that frames need.

#[cfg(feature = "libp2p")]
pub use calimero_network_primitives::config::{StreamsConfig, StreamsTuning};
use calimero_network_primitives::limits::{
    FRAME_READ_BUFFER_BYTES, FRAME_WRITE_BUFFER_BYTES, MAX_FRAME_PAYLOAD_BYTES,
};

/// Sizes a [`FrameStream`](crate::FrameStream) works with, all in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameConfig {
    /// Largest payload sent or accepted. At most [`MAX_FRAME_PAYLOAD_BYTES`]; what is above is
    /// taken for it.
    pub max_payload: usize,
    /// Bytes asked of the stream in one read once a peer sends that much.
    pub read_buffer: usize,
    /// Bytes of small frames gathered before they are written without a flush.
    pub write_buffer: usize,
}

impl Default for FrameConfig {
    fn default() -> Self {
        Self {
            max_payload: MAX_FRAME_PAYLOAD_BYTES,
            read_buffer: FRAME_READ_BUFFER_BYTES,
            write_buffer: FRAME_WRITE_BUFFER_BYTES,
        }
    }
}

/// How many inbound streams a connection must be allowed to negotiate at one time
/// (`libp2p_swarm::Config::with_max_negotiating_inbound_streams`, 128 by default): as many as one
/// peer may have open, so that a peer which opens them all at once has every one served.
///
/// Above that number a connection leaves streams with its muxer, which keeps 256 of them
/// (libp2p-yamux 0.48) and resets the rest without anybody being told.
#[must_use]
#[cfg(feature = "libp2p")]
pub fn max_negotiating_inbound_streams(config: &StreamsConfig) -> usize {
    config.max_inbound_per_peer
}
