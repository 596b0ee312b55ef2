//! What every room of the house shares: identifiers, protocol names, limits, topics, addresses
//! and configuration. No IO, no clock, no libp2p umbrella crate.

pub mod config;
pub mod limits;
mod protocol;

pub use libp2p_identity::{self as identity, Keypair, PeerId};
pub use multiaddr::{self, Multiaddr};

pub use self::{
    config::{ConfigError, NetworkConfig},
    protocol::{IDENTIFY_PROTOCOL_VERSION, ProtocolId},
};
