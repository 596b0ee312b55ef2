//! Configuration: one serde type per concern, joined in [`NetworkConfig`].
//!
//! In files, durations and sizes carry their unit in the key (`_ms`, `_bytes`). Unknown keys are
//! refused with their path, and contradictions before anything is built.

mod connections;
mod duration;
mod handle;
mod peers;
mod specialized;
mod streams;
mod transport;

use std::net::{Ipv4Addr, Ipv6Addr};

use multiaddr::{Multiaddr, Protocol};
use serde::{Deserialize, Serialize};

pub use self::{
    connections::{ConnectionsConfig, PingConfig},
    handle::{HandleConfig, RuntimeKind},
    specialized::SpecializedConfig,
    streams::StreamsConfig,
    transport::{QuicConfig, Security, TcpConfig, TransportConfig, YamuxConfig},
};
use crate::limits::DEFAULT_PORT;

/// Why a configuration was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The text is not TOML, or a key is unknown, missing or of another type.
    #[error("{key}: {reason}")]
    Parse {
        /// Path of the key, dots between its parts; empty where the text itself is broken.
        key: String,
        /// What the parser says.
        reason: String,
    },
    /// A value cannot hold, alone or beside the others.
    #[error("{key}: {reason}")]
    Invalid {
        /// Path of the key, dots between its parts.
        key: String,
        /// Which rule it breaks.
        reason: &'static str,
    },
}

/// `Ok` where `holds`, else the key and rule that `otherwise` names.
fn check(
    holds: bool,
    otherwise: impl FnOnce() -> (String, &'static str),
) -> Result<(), ConfigError> {
    if holds {
        return Ok(());
    }
    let (key, reason) = otherwise();
    Err(ConfigError::Invalid { key, reason })
}

/// Everything a node of the network is configured by, but its identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkConfig {
    /// Addresses to listen on. Default: port [`DEFAULT_PORT`] on every interface, TCP and QUIC,
    /// IPv4 and IPv6. Empty: no inbound connections.
    pub listen: Vec<Multiaddr>,
    /// Name and version of the program, told to peers by identify. Default
    /// `calimero-network/<version>`. At most 255 bytes.
    pub agent_version: String,
    /// What carries bytes.
    pub transport: TransportConfig,
    /// How many connections, how long, with whom.
    pub connections: ConnectionsConfig,
    /// Streams and frames.
    pub streams: StreamsConfig,
    /// The specialized node invite protocol.
    pub specialized: SpecializedConfig,
    /// Queues between the manager and its users, and its end.
    pub handle: HandleConfig,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        let v4 = Multiaddr::from(Ipv4Addr::UNSPECIFIED);
        let v6 = Multiaddr::from(Ipv6Addr::UNSPECIFIED);
        let tcp = |ip: &Multiaddr| ip.clone().with(Protocol::Tcp(DEFAULT_PORT));
        let quic = |ip: &Multiaddr| {
            ip.clone()
                .with(Protocol::Udp(DEFAULT_PORT))
                .with(Protocol::QuicV1)
        };
        Self {
            listen: vec![tcp(&v4), quic(&v4), tcp(&v6), quic(&v6)],
            agent_version: concat!("calimero-network/", env!("CARGO_PKG_VERSION")).to_owned(),
            transport: TransportConfig::default(),
            connections: ConnectionsConfig::default(),
            streams: StreamsConfig::default(),
            specialized: SpecializedConfig::default(),
            handle: HandleConfig::default(),
        }
    }
}

impl NetworkConfig {
    /// Reads a configuration from TOML and validates it. What is not named has its default.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Parse`] with the path of the key that is unknown or of another type,
    /// [`ConfigError::Invalid`] with the key whose value cannot hold.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        let parse = |key: String, error: &toml::de::Error| ConfigError::Parse {
            key,
            reason: error.message().to_owned(),
        };
        let document =
            toml::de::Deserializer::parse(text).map_err(|error| parse(String::new(), &error))?;
        let config: Self = serde_path_to_error::deserialize(document)
            .map_err(|error| parse(error.path().to_string(), error.inner()))?;
        config.validate()?;
        Ok(config)
    }

    /// Writes the configuration as TOML, every key present.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Parse`] where a value has no TOML form (a duration beyond 2^63
    /// milliseconds).
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        toml::to_string_pretty(self).map_err(|error| ConfigError::Parse {
            key: String::new(),
            reason: error.to_string(),
        })
    }

    /// Refuses contradictions.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] with the first key that cannot hold.
    pub fn validate(&self) -> Result<(), ConfigError> {
        check(self.agent_version.len() <= 255, || {
            ("agent_version".to_owned(), "must be at most 255 bytes")
        })?;
        self.transport.validate("transport.")?;
        self.connections.validate("connections.")?;
        self.streams.validate("streams.")?;
        self.specialized.validate("specialized.")?;
        self.handle.validate("handle.")
    }
}
