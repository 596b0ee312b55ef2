//! Configuration of this crate: the shared type, and the part of it that frames need.

pub use calimero_network_primitives::config::StreamsConfig;
use calimero_network_primitives::limits::MAX_FRAME_PAYLOAD_BYTES;

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

impl From<&StreamsConfig> for FrameConfig {
    fn from(config: &StreamsConfig) -> Self {
        Self {
            max_payload: config.max_frame_bytes.min(MAX_FRAME_PAYLOAD_BYTES),
            read_buffer: config.read_buffer_bytes,
            write_buffer: config.write_buffer_bytes,
        }
    }
}

impl Default for FrameConfig {
    fn default() -> Self {
        Self::from(&StreamsConfig::default())
    }
}
