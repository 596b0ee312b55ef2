//! Configuration of the stream crate.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ConfigError, check, check_duration, check_queue};
use crate::limits::{FRAME_READ_BUFFER_BYTES, FRAME_WRITE_BUFFER_BYTES, MAX_FRAME_PAYLOAD_BYTES};

/// How many streams are opened and accepted, and how frames are read and written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StreamsConfig {
    /// Inbound streams of one peer that are open or wait to be accepted. Default 512: the
    /// requests of one busy peer; what is over it is refused one by one.
    pub max_inbound_per_peer: usize,
    /// Inbound streams of all peers that are open or wait to be accepted. Default 8192: at a
    /// window of 256 KiB each, the 2 GiB that a large host may lend to its peers.
    pub max_inbound: usize,
    /// Inbound streams that wait to be accepted, of one protocol. Default 1024.
    pub accept_queue: usize,
    /// Outbound streams being negotiated at one time on one connection. Default 256, the number
    /// of unacknowledged streams that Yamux allows; further ones wait in line.
    pub max_negotiating_per_connection: usize,
    /// Outbound streams open or being negotiated on one connection; further requests wait in
    /// line. Default 384: a stock libp2p-yamux peer (0.48) ends the connection above 512 streams
    /// of both sides, and 128 of them are left to it and to other protocols. Must stay below
    /// `transport.yamux.max_streams`, for the same reason on this side.
    pub max_outbound_per_connection: usize,
    /// Outbound requests that wait for a connection or in line, of one peer. Default 4096.
    pub max_waiting_per_peer: usize,
    /// Time for a stream to open, in milliseconds: dialling, if no connection stands, and
    /// negotiation. Default 30 s, the deadline of a dial.
    #[serde(rename = "open_timeout_ms", with = "super::duration")]
    pub open_timeout: Duration,
    /// Largest payload sent or accepted in one frame, in bytes. Default and most:
    /// [`MAX_FRAME_PAYLOAD_BYTES`].
    pub max_frame_bytes: usize,
    /// Bytes of small frames gathered before they are written without being asked to, in bytes.
    /// Default [`FRAME_WRITE_BUFFER_BYTES`]. At most [`MAX_FRAME_PAYLOAD_BYTES`].
    pub write_buffer_bytes: usize,
    /// Bytes read from a stream at one time, in bytes. Default [`FRAME_READ_BUFFER_BYTES`]. A
    /// buffer grows beyond it only with what has arrived of the frame it holds. At most
    /// [`MAX_FRAME_PAYLOAD_BYTES`].
    pub read_buffer_bytes: usize,
}

impl Default for StreamsConfig {
    fn default() -> Self {
        Self {
            max_inbound_per_peer: 512,
            max_inbound: 8192,
            accept_queue: 1024,
            max_negotiating_per_connection: 256,
            max_outbound_per_connection: 384,
            max_waiting_per_peer: 4096,
            open_timeout: Duration::from_secs(30),
            max_frame_bytes: MAX_FRAME_PAYLOAD_BYTES,
            write_buffer_bytes: FRAME_WRITE_BUFFER_BYTES,
            read_buffer_bytes: FRAME_READ_BUFFER_BYTES,
        }
    }
}

impl StreamsConfig {
    /// Refuses contradictions, naming the key below `prefix` (empty, or ending in a dot).
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] with the first key that cannot hold.
    pub fn validate(&self, prefix: &str) -> Result<(), ConfigError> {
        let key = |name: &str| format!("{prefix}{name}");
        for (name, value) in [
            ("max_inbound_per_peer", self.max_inbound_per_peer),
            ("max_inbound", self.max_inbound),
            ("accept_queue", self.accept_queue),
            (
                "max_negotiating_per_connection",
                self.max_negotiating_per_connection,
            ),
            (
                "max_outbound_per_connection",
                self.max_outbound_per_connection,
            ),
            ("max_waiting_per_peer", self.max_waiting_per_peer),
        ] {
            check_queue(value, || key(name))?;
        }
        for (name, value) in [
            ("max_frame_bytes", self.max_frame_bytes),
            ("write_buffer_bytes", self.write_buffer_bytes),
            ("read_buffer_bytes", self.read_buffer_bytes),
        ] {
            check(value > 0, || (key(name), "must be above 0"))?;
            check(value <= MAX_FRAME_PAYLOAD_BYTES, || {
                (
                    key(name),
                    "must be at most 8388608, the largest frame of the wire format",
                )
            })?;
        }
        check(self.max_inbound_per_peer <= self.max_inbound, || {
            (key("max_inbound_per_peer"), "must not exceed max_inbound")
        })?;
        check_duration(self.open_timeout, || key("open_timeout_ms"))
    }
}
