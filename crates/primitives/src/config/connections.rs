//! Configuration of connections: how many, how long, with whom.

use std::time::Duration;

use libp2p_identity::PeerId;
use serde::{Deserialize, Serialize};

use super::{ConfigError, check, check_duration};
use crate::limits::{MAX_CONNECTIONS, MAX_CONNECTIONS_PER_PEER, MAX_PENDING_CONNECTIONS};

/// How many connections are kept, how long a silent one is, and with whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConnectionsConfig {
    /// Inbound connections being set up at one time. Default [`MAX_PENDING_CONNECTIONS`].
    pub max_pending_inbound: u32,
    /// Outbound connections being set up at one time. Default [`MAX_PENDING_CONNECTIONS`].
    pub max_pending_outbound: u32,
    /// Established connections with one peer. Default [`MAX_CONNECTIONS_PER_PEER`].
    pub max_per_peer: u32,
    /// Established connections in all. Default [`MAX_CONNECTIONS`].
    pub max_established: u32,
    /// Time for a dial to end, in milliseconds, all its addresses together. Default 30 s: three
    /// staggered addresses, each with its handshake deadline of 10 s.
    #[serde(rename = "dial_timeout_ms", with = "super::duration")]
    pub dial_timeout: Duration,
    /// Time for a listener to report its first address, in milliseconds. Default 5 s: binding is
    /// local, so this is reached only where no interface is up.
    #[serde(rename = "listen_timeout_ms", with = "super::duration")]
    pub listen_timeout: Duration,
    /// Time without any stream after which a connection is closed, in milliseconds. Default 5
    /// minutes: finding and reaching a peer behind a NAT again costs seconds, keeping a silent
    /// connection costs one ping every `ping.interval_ms`.
    #[serde(rename = "idle_timeout_ms", with = "super::duration")]
    pub idle_timeout: Duration,
    /// The liveness check.
    #[serde(deserialize_with = "super::table::deserialize")]
    pub ping: PingConfig,
    /// Peers that may connect; every other is refused. Empty, the default, allows everybody.
    #[serde(with = "super::peers")]
    pub allow: Vec<PeerId>,
    /// Peers that may not connect. Empty by default.
    #[serde(with = "super::peers")]
    pub block: Vec<PeerId>,
}

impl Default for ConnectionsConfig {
    fn default() -> Self {
        Self {
            max_pending_inbound: MAX_PENDING_CONNECTIONS,
            max_pending_outbound: MAX_PENDING_CONNECTIONS,
            max_per_peer: MAX_CONNECTIONS_PER_PEER,
            max_established: MAX_CONNECTIONS,
            dial_timeout: Duration::from_secs(30),
            listen_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(300),
            ping: PingConfig::default(),
            allow: Vec::new(),
            block: Vec::new(),
        }
    }
}

impl ConnectionsConfig {
    pub(super) fn validate(&self, prefix: &str) -> Result<(), ConfigError> {
        let key = |name: &str| format!("{prefix}{name}");
        for (name, value) in [
            ("max_pending_inbound", self.max_pending_inbound),
            ("max_pending_outbound", self.max_pending_outbound),
            ("max_per_peer", self.max_per_peer),
            ("max_established", self.max_established),
        ] {
            check(value > 0, || (key(name), "must be above 0"))?;
        }
        check(self.max_per_peer <= self.max_established, || {
            (key("max_per_peer"), "must not exceed max_established")
        })?;
        for (name, value) in [
            ("dial_timeout_ms", self.dial_timeout),
            ("listen_timeout_ms", self.listen_timeout),
            ("idle_timeout_ms", self.idle_timeout),
            ("ping.interval_ms", self.ping.interval),
            ("ping.timeout_ms", self.ping.timeout),
        ] {
            check_duration(value, || key(name))?;
        }
        check(self.ping.max_failures > 0, || {
            (key("ping.max_failures"), "must be above 0")
        })?;
        check(
            !self.allow.iter().any(|peer| self.block.contains(peer)),
            || (key("block"), "holds a peer that allow holds too"),
        )
    }
}

/// The liveness check: a ping on every connection, and the end of those that stop answering.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PingConfig {
    /// Time between two pings, in milliseconds. Default 15 s.
    #[serde(rename = "interval_ms", with = "super::duration")]
    pub interval: Duration,
    /// Time for an answer, in milliseconds. Default 20 s.
    #[serde(rename = "timeout_ms", with = "super::duration")]
    pub timeout: Duration,
    /// Failures in a row that close a connection. Default 3.
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
