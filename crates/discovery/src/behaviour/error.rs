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

/// A dial that a relayed peer caused was denied: the peer names more than 32 addresses, or relayed
/// peers have caused 60 dials in the last minute, or 240 if they are boot nodes and members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a dial of a hole punch with {peer} was denied: more than 32 addresses, or too many such dials \
     in the last minute"
)]
pub struct HolePunchRefused {
    /// Id of the relayed peer.
    pub peer: PeerId,
}

/// A connection was denied because its peer is blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{peer} is blocked")]
pub struct Blocked {
    /// Id of the blocked peer.
    pub peer: PeerId,
}
