//! Configuration of the stream crate.

use serde::{Deserialize, Serialize};

use super::{ConfigError, check, check_queues};

/// How many streams peers may open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StreamsConfig {
    /// Inbound streams of one peer that are open or wait to be accepted.
    ///
    /// - Default: 512, the requests of one busy peer; a further stream is refused.
    /// - Range: 1 to `max_inbound`. With the 384 outbound streams of a connection it must not exceed
    ///   2048, at which Yamux closes the connection.
    /// - Reason: a program with other request patterns needs more, or grants strangers less.
    pub max_inbound_per_peer: usize,
    /// Inbound streams of all peers that are open or wait to be accepted.
    ///
    /// - Default: 8192, with a receive window of 256 KiB each at most 2 GiB.
    /// - Range: 1 to 1048576.
    /// - Reason: it bounds the memory that peers can claim.
    pub max_inbound: usize,
    /// Limits of queues, which tests vary. Not a key.
    #[serde(skip)]
    pub tuning: StreamsTuning,
}

/// Limits of stream queues: values that no file sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamsTuning {
    /// Inbound streams of one protocol that wait to be accepted. Default 1024, of which a peer gets
    /// three eighths, the peers of one origin a half, and a sixteenth is reserved for protected peers.
    pub accept_queue: usize,
    /// Outbound streams that negotiate at the same time on one connection. Default 256, the number
    /// of unacknowledged streams that Yamux allows; further ones are queued.
    pub max_negotiating_per_connection: usize,
    /// Outbound streams that are open or negotiate on one connection; further requests are queued.
    /// Default 384: a peer with stock libp2p-yamux (0.48) closes the connection above 512 streams of
    /// both sides, and 128 of them are left to that peer and to other protocols. Must stay below
    /// `transport.yamux.max_streams` for the same reason.
    pub max_outbound_per_connection: usize,
    /// Outbound requests of one peer that are queued or wait for a connection. Default 4096.
    pub max_waiting_per_peer: usize,
}

impl Default for StreamsConfig {
    fn default() -> Self {
        Self {
            max_inbound_per_peer: 512,
            max_inbound: 8192,
            tuning: StreamsTuning::default(),
        }
    }
}

impl Default for StreamsTuning {
    fn default() -> Self {
        Self {
            accept_queue: 1024,
            max_negotiating_per_connection: 256,
            max_outbound_per_connection: 384,
            max_waiting_per_peer: 4096,
        }
    }
}

impl StreamsConfig {
    /// Checks every value. Keys are named below `prefix`, which is empty or ends in a dot.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] with the first key whose value is refused.
    pub fn validate(&self, prefix: &str) -> Result<(), ConfigError> {
        let tuning = &self.tuning;
        check_queues(
            prefix,
            &[
                ("max_inbound_per_peer", self.max_inbound_per_peer),
                ("max_inbound", self.max_inbound),
                ("tuning.accept_queue", tuning.accept_queue),
                (
                    "tuning.max_negotiating_per_connection",
                    tuning.max_negotiating_per_connection,
                ),
                (
                    "tuning.max_outbound_per_connection",
                    tuning.max_outbound_per_connection,
                ),
                ("tuning.max_waiting_per_peer", tuning.max_waiting_per_peer),
            ],
        )?;
        check(self.max_inbound_per_peer <= self.max_inbound, || {
            (
                format!("{prefix}max_inbound_per_peer"),
                "must not exceed max_inbound",
            )
        })
    }
}
