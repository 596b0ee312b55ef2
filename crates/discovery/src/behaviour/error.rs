//! Errors of the discovery behaviour.

#[cfg(feature = "mdns")]
use std::io;

use calimero_network_primitives::{PeerId, config::ConfigError};
use libp2p_kad::store;

/// The behaviour cannot be created.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A value of the configuration is out of range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The network interfaces cannot be watched for mDNS.
    #[cfg(feature = "mdns")]
    #[error("mDNS cannot start: {0}")]
    Mdns(#[source] io::Error),
}

/// A query for a record was not started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The limit of concurrent queries is reached.
    #[error("{limit} queries run already, the most that may")]
    TooManyQueries {
        /// Largest number of concurrent queries.
        limit: usize,
    },
    /// The validator refuses the record; every node that runs the same one would.
    #[error(transparent)]
    Refused(#[from] RecordRefused),
    /// The local store did not accept the record.
    #[error("the local store does not take the record: {0}")]
    Store(#[from] store::Error),
}

/// The validator refused a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the record is refused: {reason}")]
pub struct RecordRefused {
    /// The reason, as text for a log.
    pub reason: &'static str,
}

/// A dial that a relayed peer caused was denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HolePunchRefused {
    /// The peer names too many addresses.
    #[error("a hole punch with {peer} has {count} addresses, of at most {max}")]
    Addresses {
        /// Id of the relayed peer.
        peer: PeerId,
        /// Number of addresses.
        count: usize,
        /// Largest number of addresses, 32.
        max: usize,
    },
    /// Relayed peers have caused too many dials in the last minute.
    #[error("a hole punch with {peer} would be more than {max} dials of hole punches in a minute")]
    Rate {
        /// Id of the relayed peer.
        peer: PeerId,
        /// Largest number of dials in a minute: 60, with the first ones of each relay 120, or 240
        /// for boot nodes and members that are kept alive.
        max: u32,
    },
    /// Peers behind one relay have caused too many dials in the last minute.
    #[error(
        "a hole punch with {peer} would be more than {max} dials of hole punches in a minute for \
         peers behind {}",
        relay_name(.relay.as_ref())
    )]
    RelayRate {
        /// Id of the relayed peer.
        peer: PeerId,
        /// Relay of its latest connection, if it is known.
        relay: Option<PeerId>,
        /// Largest number of dials in a minute, 30.
        max: u32,
    },
}

fn relay_name(relay: Option<&PeerId>) -> String {
    relay.map_or_else(
        || "unknown relays".to_owned(),
        |relay| format!("the relay {relay}"),
    )
}

/// A connection was denied because its peer is blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{peer} is blocked")]
pub struct Blocked {
    /// Id of the blocked peer.
    pub peer: PeerId,
}
