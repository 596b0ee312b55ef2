//! Configuration of the specialized node invite protocol.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ConfigError, check, check_duration, check_queue};
use crate::limits::MAX_INVITE_MESSAGE_BYTES;

/// Least `max_message_bytes`: a response with neither invitation nor error takes 34 bytes, and
/// what is left carries the reason of a refusal.
const MIN_MESSAGE_BYTES: usize = 128;

/// How many invite requests are served and sent at one time, how large they are and how long
/// they may take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpecializedConfig {
    /// Requests of one connection that are being received or answered at one time. Default 8,
    /// by the wire format; what is over it is refused at once.
    pub max_inbound_per_connection: usize,
    /// Requests of all connections that are being received or answered at one time. Default
    /// 128: a request and its answer take at most 1 MiB each, so strangers fill at most 256 MiB.
    pub max_inbound: usize,
    /// Requests that wait for an answer on one connection; further ones wait in line within
    /// their deadline. Default 8, as many as the peer serves.
    pub max_outbound_per_connection: usize,
    /// Requests that wait for a connection, in line or for an answer, of all peers. Default
    /// 256; what is over it fails at once.
    pub max_outbound: usize,
    /// Largest message sent or accepted, in bytes. Default and most:
    /// [`MAX_INVITE_MESSAGE_BYTES`]. At least 128.
    pub max_message_bytes: usize,
    /// Time from sending a request to its answer, in milliseconds: dialling, negotiation, and the
    /// peer's work. Default 30 s: the answer time below, and 10 s for a handshake.
    #[serde(rename = "request_timeout_ms", with = "super::duration")]
    pub request_timeout: Duration,
    /// Time for an inbound request to arrive whole, in milliseconds. Default 10 s: 1 MiB at
    /// 100 KiB/s. A slower peer loses its turn.
    #[serde(rename = "receive_timeout_ms", with = "super::duration")]
    pub receive_timeout: Duration,
    /// Time from the arrival of a request to its answer, in milliseconds, and as long again for
    /// the peer to take what is written. Default 20 s: below `request_timeout_ms`, so that a
    /// requester hears that there is no answer before it gives up by itself.
    #[serde(rename = "answer_timeout_ms", with = "super::duration")]
    pub answer_timeout: Duration,
}

impl Default for SpecializedConfig {
    fn default() -> Self {
        Self {
            max_inbound_per_connection: 8,
            max_inbound: 128,
            max_outbound_per_connection: 8,
            max_outbound: 256,
            max_message_bytes: MAX_INVITE_MESSAGE_BYTES,
            request_timeout: Duration::from_secs(30),
            receive_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(20),
        }
    }
}

impl SpecializedConfig {
    /// Refuses contradictions, naming the key below `prefix` (empty, or ending in a dot).
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] with the first key that cannot hold.
    pub fn validate(&self, prefix: &str) -> Result<(), ConfigError> {
        let key = |name: &str| format!("{prefix}{name}");
        for (name, value) in [
            (
                "max_inbound_per_connection",
                self.max_inbound_per_connection,
            ),
            ("max_inbound", self.max_inbound),
            (
                "max_outbound_per_connection",
                self.max_outbound_per_connection,
            ),
            ("max_outbound", self.max_outbound),
        ] {
            check_queue(value, || key(name))?;
        }
        check(self.max_inbound_per_connection <= self.max_inbound, || {
            (
                key("max_inbound_per_connection"),
                "must not exceed max_inbound",
            )
        })?;
        check(
            (MIN_MESSAGE_BYTES..=MAX_INVITE_MESSAGE_BYTES).contains(&self.max_message_bytes),
            || {
                (
                    key("max_message_bytes"),
                    "must be from 128 to 1048576, the bound of the wire format",
                )
            },
        )?;
        for (name, value) in [
            ("request_timeout_ms", self.request_timeout),
            ("receive_timeout_ms", self.receive_timeout),
            ("answer_timeout_ms", self.answer_timeout),
        ] {
            check_duration(value, || key(name))?;
        }
        Ok(())
    }
}
