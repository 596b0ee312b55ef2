//! What can go wrong.

use std::io;

use calimero_network_primitives::{PeerId, config::ConfigError};
use libp2p_kad::store;

/// The behaviour cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A value of the configuration cannot hold.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The interfaces of this machine cannot be watched for mDNS.
    #[error("mDNS cannot start: {0}")]
    Mdns(#[source] io::Error),
}

/// A record is not put or asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Too many queries run.
    #[error("{limit} queries run already, which is as many as may")]
    TooManyQueries {
        /// How many may run at one time.
        limit: usize,
    },
    /// The validator refuses the record; every node that runs the same one would.
    #[error(transparent)]
    Refused(#[from] RecordRefused),
    /// The local store does not take it.
    #[error("the local store does not take the record: {0}")]
    Store(#[from] store::Error),
}

/// A validator does not accept a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the record is refused: {reason}")]
pub struct RecordRefused {
    /// Why, for a log.
    pub reason: &'static str,
}

/// The peer is blocked: why a connection with it is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{peer} is blocked")]
pub struct Blocked {
    /// Who.
    pub peer: PeerId,
}
