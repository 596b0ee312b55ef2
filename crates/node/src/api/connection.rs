//! A connection of a node, as JSON.

use std::{collections::HashMap, fmt, time::Instant};

use calimero_network::{CircuitLimit, Connection, Direction, Status};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::text::{Stack, bytes, millis};

/// The limit of a circuit, as its relay names it. The relay closes the circuit at either of them.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct CircuitLimitPage {
    /// Bytes that the circuit carries; `null` without a limit.
    bytes: Option<u64>,
    /// Seconds from the opening of the circuit to its end; `null` without a limit.
    seconds: Option<u64>,
}

impl From<CircuitLimit> for CircuitLimitPage {
    fn from(limit: CircuitLimit) -> Self {
        Self {
            bytes: limit.bytes,
            seconds: limit.duration.map(|duration| duration.as_secs()),
        }
    }
}

impl fmt::Display for CircuitLimitPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.bytes, self.seconds) {
            (None, None) => f.write_str("unlimited"),
            (Some(limit), None) => write!(f, "at most {}", bytes(limit)),
            (None, Some(seconds)) => write!(f, "at most {seconds} s"),
            (Some(limit), Some(seconds)) => write!(f, "at most {} and {seconds} s", bytes(limit)),
        }
    }
}

/// One established connection of the node.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename = "peer")]
pub(crate) struct ConnectionPage {
    pub(crate) peer: String,
    pub(crate) inbound: bool,
    pub(crate) address: String,
    #[serde(flatten)]
    pub(crate) stack: Stack,
    pub(crate) age_seconds: u64,
    pub(crate) round_trip_ms: Option<f64>,
    pub(crate) received_bytes: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) agent_version: Option<String>,
    /// For a relayed connection, why the peer has no direct one: `punching`, `failed`,
    /// `dialled_by_peer` or `untracked`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) relayed_code: Option<String>,
    /// The same in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) relayed_because: Option<String>,
    /// For a relayed connection: seconds until this node tries a direct one again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) direct_retry_in_seconds: Option<u64>,
    /// For a relayed connection: the limit of its circuit, once the relay has named one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) circuit_limit: Option<CircuitLimitPage>,
}

impl ConnectionPage {
    pub(crate) fn of(connection: &Connection) -> Self {
        let info = connection.info.as_ref();
        Self {
            peer: connection.peer.to_base58(),
            inbound: connection.direction == Direction::Inbound,
            address: connection.address.to_string(),
            stack: Stack::of(connection),
            age_seconds: connection.age.as_secs(),
            round_trip_ms: connection.rtt.map(millis),
            received_bytes: connection.link.bytes_in(),
            sent_bytes: connection.link.bytes_out(),
            agent_version: info.map(|info| info.agent_version.clone()),
            relayed_code: None,
            relayed_because: None,
            direct_retry_in_seconds: None,
            circuit_limit: None,
        }
    }

    /// The connections of a status, each relayed one with what discovery does about it.
    pub(crate) fn of_all<'a>(
        status: &Status,
        connections: impl Iterator<Item = &'a Connection>,
    ) -> Vec<Self> {
        let now = Instant::now();
        let peers = status.paths.iter();
        let relayed: HashMap<_, _> = peers
            .filter_map(|peer| Some((peer.peer, (peer.why_relayed?, peer.next_hole_punch))))
            .collect();
        let connections_of_peers = status.paths.iter().flat_map(|peer| &peer.connections);
        let limits: HashMap<_, _> = connections_of_peers
            .filter_map(|connection| Some((connection.id, connection.circuit_limit?)))
            .collect();
        let page = |connection: &Connection| {
            let mut page = Self::of(connection);
            let limit = limits.get(&connection.id);
            page.circuit_limit = limit.map(|limit| (*limit).into());
            if let Some((why, next)) = relayed.get(&connection.peer) {
                page.relayed_code = Some(why.code().to_owned());
                page.relayed_because = Some(why.to_string());
                let left = next.map(|at| at.saturating_duration_since(now));
                page.direct_retry_in_seconds = left.map(|left| left.as_secs());
            }
            page
        };
        connections.map(page).collect()
    }
}

impl fmt::Display for ConnectionPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} ({})", self.peer, self.address, self.stack)?;
        if let Some(why) = &self.relayed_because {
            write!(f, ": {why}")?;
        }
        if let Some(seconds) = self.direct_retry_in_seconds {
            write!(f, ", next hole punch round in {seconds} s")?;
        }
        match &self.circuit_limit {
            Some(limit) => write!(f, "; circuit: {limit}"),
            None => Ok(()),
        }
    }
}
