//! Configuration of the specialized node invite protocol.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ConfigError, check, check_durations, check_queues};
use crate::limits::MAX_INVITE_MESSAGE_BYTES;

/// Smallest limit of a message: a response with neither invitation nor error takes 34 bytes, the
/// rest carries the reason of a refusal.
const MIN_MESSAGE_BYTES: usize = 128;

/// How long invite requests may take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpecializedConfig {
    /// Time from sending a request to its answer, in milliseconds, dialling included.
    ///
    /// - Default: 30 s, the answer time of the peer and 10 s for a handshake.
    /// - Range: 1 to 31536000000.
    /// - Reason: a peer that verifies an attestation with a remote service needs longer.
    #[serde(rename = "request_timeout_ms", with = "super::duration")]
    pub request_timeout: Duration,
    /// Time from the arrival of a request to its answer by this node, in milliseconds.
    ///
    /// - Default: 20 s, less than `request_timeout_ms`, so that a requester learns of a missing
    ///   answer before its own deadline. The peer has as long again to read the answer.
    /// - Range: 1 to 31536000000.
    /// - Reason: a program that verifies an attestation with a remote service needs longer.
    #[serde(rename = "answer_timeout_ms", with = "super::duration")]
    pub answer_timeout: Duration,
    /// Limits that tests vary. Not a key.
    #[serde(skip)]
    pub tuning: SpecializedTuning,
}

/// Limits of invite requests: values that no file sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecializedTuning {
    /// Requests of one peer that are received or answered at the same time. Default 8, by the wire
    /// format; a further one is refused at once.
    pub max_inbound_per_peer: usize,
    /// Requests of all peers that are received or answered at the same time. Default 128: a
    /// request and its answer take at most 1 MiB each, 256 MiB in all.
    pub max_inbound: usize,
    /// Requests that wait for an answer on one connection. Default 8, as many as the peer serves;
    /// further ones are queued within their deadline.
    pub max_outbound_per_connection: usize,
    /// Requests of all peers that are queued or wait for a connection or an answer. Default 256; a
    /// further one fails at once.
    pub max_outbound: usize,
    /// Largest message that is sent or accepted, in bytes, from 128 to
    /// [`MAX_INVITE_MESSAGE_BYTES`], the default.
    pub max_message_bytes: usize,
    /// Time for an inbound request to arrive completely. Default 10 s: 1 MiB at 100 KiB/s.
    pub receive_timeout: Duration,
}

impl Default for SpecializedConfig {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(30),
            answer_timeout: Duration::from_secs(20),
            tuning: SpecializedTuning::default(),
        }
    }
}

impl Default for SpecializedTuning {
    fn default() -> Self {
        Self {
            max_inbound_per_peer: 8,
            max_inbound: 128,
            max_outbound_per_connection: 8,
            max_outbound: 256,
            max_message_bytes: MAX_INVITE_MESSAGE_BYTES,
            receive_timeout: Duration::from_secs(10),
        }
    }
}

impl SpecializedConfig {
    /// Checks every value. Keys are named below `prefix`, which is empty or ends in a dot.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] with the first key whose value is refused.
    pub fn validate(&self, prefix: &str) -> Result<(), ConfigError> {
        let tuning = &self.tuning;
        let key = |name: &str| format!("{prefix}tuning.{name}");
        check_durations(
            prefix,
            &[
                ("request_timeout_ms", self.request_timeout),
                ("answer_timeout_ms", self.answer_timeout),
                ("tuning.receive_timeout", tuning.receive_timeout),
            ],
        )?;
        check_queues(
            &key(""),
            &[
                ("max_inbound_per_peer", tuning.max_inbound_per_peer),
                ("max_inbound", tuning.max_inbound),
                (
                    "max_outbound_per_connection",
                    tuning.max_outbound_per_connection,
                ),
                ("max_outbound", tuning.max_outbound),
            ],
        )?;
        check(tuning.max_inbound_per_peer <= tuning.max_inbound, || {
            (key("max_inbound_per_peer"), "must not exceed max_inbound")
        })?;
        check(
            (MIN_MESSAGE_BYTES..=MAX_INVITE_MESSAGE_BYTES).contains(&tuning.max_message_bytes),
            || {
                (
                    key("max_message_bytes"),
                    "must be from 128 to 1048576, the bound of the wire format",
                )
            },
        )
    }
}
