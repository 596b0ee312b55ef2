//! Configuration of connections: how many, how long, and with which peers.

use std::time::Duration;

use libp2p_identity::PeerId;
use serde::{Deserialize, Serialize};

use super::{ConfigError, check, check_durations};
use crate::limits::{MAX_CONNECTIONS, MAX_CONNECTIONS_PER_PEER, MAX_PENDING_CONNECTIONS};

/// How many connections are held, for how long, and with which peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConnectionsConfig {
    /// Established connections with all peers.
    ///
    /// - Default: 1024.
    /// - Range: at least 8, the share of one peer, and below `discovery.max_peers`.
    /// - Reason: each connection takes a file descriptor and memory, of which hosts differ.
    pub max_established: u32,
    /// Time without any stream after which a connection is closed, in milliseconds.
    ///
    /// - Default: 5 minutes. Reaching a peer behind a NAT again takes seconds, a silent connection
    ///   costs one ping every `ping.interval_ms`.
    /// - Range: 1 to 31536000000.
    /// - Reason: a metered or battery-powered host closes silent connections earlier.
    #[serde(rename = "idle_timeout_ms", with = "super::duration")]
    pub idle_timeout: Duration,
    /// The liveness check of every connection.
    #[serde(deserialize_with = "super::table::deserialize")]
    pub ping: PingConfig,
    /// Peers that may connect; all others are refused.
    ///
    /// - Default: empty, which allows every peer.
    /// - Range: ids that `block` does not contain.
    /// - Reason: a private network lists its members.
    #[serde(with = "super::peers")]
    pub allow: Vec<PeerId>,
    /// Peers that may not connect.
    ///
    /// - Default: empty.
    /// - Range: ids that `allow` does not contain.
    /// - Reason: an operator shuts out a peer that misbehaves.
    #[serde(with = "super::peers")]
    pub block: Vec<PeerId>,
    /// Limits and timers that tests vary. Not a key.
    #[serde(skip)]
    pub tuning: ConnectionsTuning,
}

/// Limits and timers of connections: values that no file sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionsTuning {
    /// Inbound connections in their handshake. Default [`MAX_PENDING_CONNECTIONS`].
    pub max_pending_inbound: u32,
    /// Outbound connections in their handshake. Default [`MAX_PENDING_CONNECTIONS`].
    pub max_pending_outbound: u32,
    /// Established connections with one peer. Default [`MAX_CONNECTIONS_PER_PEER`].
    pub max_per_peer: u32,
    /// Time for a dial to end, all its addresses together. Default 30 s: three staggered addresses,
    /// each with its handshake deadline of 10 s.
    pub dial_timeout: Duration,
}

impl Default for ConnectionsConfig {
    fn default() -> Self {
        Self {
            max_established: MAX_CONNECTIONS,
            idle_timeout: Duration::from_secs(300),
            ping: PingConfig::default(),
            allow: Vec::new(),
            block: Vec::new(),
            tuning: ConnectionsTuning::default(),
        }
    }
}

impl Default for ConnectionsTuning {
    fn default() -> Self {
        Self {
            max_pending_inbound: MAX_PENDING_CONNECTIONS,
            max_pending_outbound: MAX_PENDING_CONNECTIONS,
            max_per_peer: MAX_CONNECTIONS_PER_PEER,
            dial_timeout: Duration::from_secs(30),
        }
    }
}

impl ConnectionsConfig {
    pub(super) fn validate(&self, prefix: &str) -> Result<(), ConfigError> {
        let key = |name: &str| format!("{prefix}{name}");
        let tuning = &self.tuning;
        for (name, value) in [
            ("max_established", self.max_established),
            ("ping.max_failures", self.ping.max_failures),
            ("tuning.max_pending_inbound", tuning.max_pending_inbound),
            ("tuning.max_pending_outbound", tuning.max_pending_outbound),
            ("tuning.max_per_peer", tuning.max_per_peer),
        ] {
            check(value > 0, || (key(name), "must be above 0"))?;
        }
        check(tuning.max_per_peer <= self.max_established, || {
            (
                key("max_established"),
                "must be at least the share of one peer, 8 by default",
            )
        })?;
        check_durations(
            prefix,
            &[
                ("idle_timeout_ms", self.idle_timeout),
                ("ping.interval_ms", self.ping.interval),
                ("ping.timeout_ms", self.ping.timeout),
                ("tuning.dial_timeout", tuning.dial_timeout),
            ],
        )?;
        check(
            !self.allow.iter().any(|peer| self.block.contains(peer)),
            || (key("block"), "contains a peer that allow contains too"),
        )
    }
}

/// The liveness check: a ping on every connection, which closes those that stop answering.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PingConfig {
    /// Time between two pings, in milliseconds.
    ///
    /// - Default: 15 s.
    /// - Range: 1 to 31536000000.
    /// - Reason: shorter finds dead peers earlier, longer saves traffic on a metered link.
    #[serde(rename = "interval_ms", with = "super::duration")]
    pub interval: Duration,
    /// Time for the answer to a ping, in milliseconds.
    ///
    /// - Default: 20 s, the value of libp2p-ping.
    /// - Range: 1 to 31536000000.
    /// - Reason: shorter finds dead peers earlier, longer suits links that stall.
    #[serde(rename = "timeout_ms", with = "super::duration")]
    pub timeout: Duration,
    /// Pings in a row without an answer after which a connection is closed.
    ///
    /// - Default: 3.
    /// - Range: 1 to 4294967295.
    /// - Reason: fewer finds dead peers earlier, more suits links that stall.
    pub max_failures: u32,
}

impl Default for PingConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(15),
            timeout: Duration::from_secs(20),
            max_failures: 3,
        }
    }
}
