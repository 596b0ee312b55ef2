//! Configuration of this crate: the shared stream settings and the sizes of the
//! frame codec.

#[cfg(feature = "libp2p")]
pub use calimero_network_primitives::config::{StreamsConfig, StreamsTuning};
use calimero_network_primitives::limits::{
    FRAME_READ_BUFFER_BYTES, FRAME_WRITE_BUFFER_BYTES, MAX_FRAME_PAYLOAD_BYTES,
};

/// Buffer and payload sizes of a [`FrameStream`](crate::FrameStream), all in
/// bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameConfig {
    /// Largest payload that is sent or accepted. Values above
    /// [`MAX_FRAME_PAYLOAD_BYTES`] are reduced to that limit.
    pub max_payload: usize,
    /// Largest read, in bytes. The receiver reaches this size when the peer
    /// sends enough data.
    pub read_buffer: usize,
    /// Number of bytes gathered from small frames before the sender writes them
    /// without a flush.
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

/// Returns the number of inbound streams that a connection must be allowed to
/// negotiate at one time. Pass it to
/// `libp2p_swarm::Config::with_max_negotiating_inbound_streams` (128 by
/// default).
///
/// The value is the limit of inbound streams of one peer, so that a peer that
/// opens all of them at once is served.
///
/// Above that number, streams wait in the muxer. It queues 256 of them
/// and resets the others without a notification.
#[must_use]
#[cfg(feature = "libp2p")]
pub fn max_negotiating_inbound_streams(config: &StreamsConfig) -> usize {
    config.max_inbound_per_peer
}
