//! Configuration: one serde type per concern, joined in [`NetworkConfig`].
//!
//! In files, durations and sizes carry their unit in the key (`_ms`, `_bytes`). Unknown keys are
//! refused with their path, and contradictions before anything is built.

mod blob;
mod connections;
mod discovery;
mod duration;
mod handle;
mod peers;
mod pubsub;
mod server;
mod specialized;
mod streams;
mod table;
mod transport;

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use multiaddr::{Multiaddr, Protocol};
use serde::{Deserialize, Serialize};
use serde_path_to_error::{Path, Segment};

pub use self::{
    blob::{BlobConfig, BlobFetchConfig, BlobServeConfig, BlobStoreConfig, BlobVersion},
    connections::{ConnectionsConfig, PingConfig},
    discovery::{
        BookConfig, CacheConfig, DialsConfig, DiscoveryConfig, ReachabilityConfig, RecordsConfig,
        RedialConfig, RelayConfig, RendezvousConfig,
    },
    handle::{HandleConfig, RuntimeKind},
    pubsub::{
        GossipMemoryConfig, GossipPeersConfig, GossipVersion, KeepConfig, MeshConfig, PubsubConfig,
        RepairConfig,
    },
    server::{RateConfig, RelayServerConfig, RendezvousServerConfig, ServerConfig},
    specialized::SpecializedConfig,
    streams::StreamsConfig,
    transport::{QuicConfig, Security, TcpConfig, TransportConfig, YamuxConfig},
};
use crate::{
    addr::{AddressTransport, is_dns, transport_of},
    limits::{DEFAULT_PORT, MAX_CONFIGURED_DURATION, MAX_CONFIGURED_QUEUE},
};

/// Why a configuration was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The text is not TOML.
    #[error("line {line}: {reason}")]
    Syntax {
        /// The line, counted from 1.
        line: usize,
        /// What the parser says.
        reason: String,
    },
    /// A key is unknown, or its value is of another type.
    #[error("{key}: {reason}")]
    Parse {
        /// Path of the key, dots between its parts.
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
    /// A value has no form in a file. No valid configuration holds such a value.
    #[error("cannot be written as TOML: {reason}")]
    Unwritable {
        /// What the writer says.
        reason: String,
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

/// Refuses a duration that would end before it starts, or so late that a clock cannot say when.
fn check_duration(value: Duration, key: impl Fn() -> String) -> Result<(), ConfigError> {
    check(!value.is_zero(), || (key(), "must be above 0"))?;
    check(value <= MAX_CONFIGURED_DURATION, || {
        (key(), "must be at most 31536000000, a year")
    })
}

/// Refuses a queue or table that holds nothing, or that no host has the memory for.
fn check_queue(value: usize, key: impl Fn() -> String) -> Result<(), ConfigError> {
    check(value > 0, || (key(), "must be above 0"))?;
    check(value <= MAX_CONFIGURED_QUEUE, || {
        (key(), "must be at most 1048576")
    })
}

/// Everything a node of the network is configured by, but its identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkConfig {
    /// Addresses to listen on. Default: port [`DEFAULT_PORT`] on every interface, TCP and QUIC,
    /// IPv4 and IPv6. Empty: no inbound connections. Each must be of a transport that is on, so
    /// whoever turns TCP or QUIC off says here what is left.
    pub listen: Vec<Multiaddr>,
    /// Name and version of the program, told to peers by identify. Default
    /// `calimero-network/<version>`. At most 255 bytes.
    pub agent_version: String,
    /// What carries bytes.
    #[serde(deserialize_with = "table::deserialize")]
    pub transport: TransportConfig,
    /// How many connections, how long, with whom.
    #[serde(deserialize_with = "table::deserialize")]
    pub connections: ConnectionsConfig,
    /// Streams and frames.
    #[serde(deserialize_with = "table::deserialize")]
    pub streams: StreamsConfig,
    /// Finding peers and keeping them.
    #[serde(deserialize_with = "table::deserialize")]
    pub discovery: DiscoveryConfig,
    /// What is served to others: meeting points and relayed circuits.
    #[serde(deserialize_with = "table::deserialize")]
    pub server: ServerConfig,
    /// Topics: meshes, memory, what peers may do.
    #[serde(deserialize_with = "table::deserialize")]
    pub pubsub: PubsubConfig,
    /// Specialized node invites.
    #[serde(deserialize_with = "table::deserialize")]
    pub specialized: SpecializedConfig,
    /// Blobs: how they are found, fetched, served and kept.
    #[serde(deserialize_with = "table::deserialize")]
    pub blob: BlobConfig,
    /// Queues between the manager and its users, and its end.
    #[serde(deserialize_with = "table::deserialize")]
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
            discovery: DiscoveryConfig::default(),
            server: ServerConfig::default(),
            pubsub: PubsubConfig::default(),
            specialized: SpecializedConfig::default(),
            blob: BlobConfig::default(),
            handle: HandleConfig::default(),
        }
    }
}

impl NetworkConfig {
    /// Reads a configuration from TOML and validates it. What is not named has its default.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Syntax`] with the line that is not TOML, [`ConfigError::Parse`] with the
    /// path of the key that is unknown or of another type, [`ConfigError::Invalid`] with the key
    /// whose value cannot hold.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        let document =
            toml::de::Deserializer::parse(text).map_err(|error| syntax_error(text, &error))?;
        let config: Self =
            serde_path_to_error::deserialize(document).map_err(|error| ConfigError::Parse {
                key: key_of(error.path()),
                reason: error.inner().message().to_owned(),
            })?;
        config.validate()?;
        Ok(config)
    }

    /// As [`from_toml`](Self::from_toml), but what is not named is as in `base`: for programs whose
    /// nodes are not like most.
    ///
    /// # Errors
    ///
    /// As [`from_toml`](Self::from_toml). What is validated is the whole.
    pub fn from_toml_over(text: &str, base: &Self) -> Result<Self, ConfigError> {
        // Read alone for its errors: lines and keys are those of the text.
        let document =
            toml::de::Deserializer::parse(text).map_err(|error| syntax_error(text, &error))?;
        let parse_error = |error: serde_path_to_error::Error<toml::de::Error>| ConfigError::Parse {
            key: key_of(error.path()),
            reason: error.inner().message().to_owned(),
        };
        let _: Self = serde_path_to_error::deserialize(document).map_err(parse_error)?;
        let over: toml::Table = text.parse().map_err(|error| syntax_error(text, &error))?;
        let whole = base.to_toml()?;
        let mut whole: toml::Table =
            (whole.parse()).map_err(|error| syntax_error(&whole, &error))?;
        lay_over(&mut whole, over);
        let config: Self = serde_path_to_error::deserialize(whole).map_err(parse_error)?;
        config.validate()?;
        Ok(config)
    }

    /// Writes the configuration as TOML, every key present.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Unwritable`] where a duration exceeds 2^64 - 1 milliseconds, which
    /// [`validate`](Self::validate) refuses.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        toml::to_string_pretty(self).map_err(|error| ConfigError::Unwritable {
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
        for (index, addr) in self.listen.iter().enumerate() {
            self.listen_refusal(addr).map_or(Ok(()), |reason| {
                check(false, || (format!("listen[{index}]"), reason))
            })?;
        }
        self.connections.validate("connections.")?;
        self.streams.validate("streams.")?;
        let both_ways = (self.streams.max_outbound_per_connection)
            .checked_add(self.streams.max_inbound_per_peer);
        let fit = both_ways.is_some_and(|streams| streams <= self.transport.yamux.max_streams);
        check(fit, || {
            (
                "streams.max_inbound_per_peer".to_owned(),
                "must not exceed transport.yamux.max_streams together with \
                 streams.max_outbound_per_connection: Yamux ends the connection there",
            )
        })?;
        self.discovery.validate_under("discovery.")?;
        let room = self.discovery.book.max_peers > self.connections.max_established;
        check(room, || {
            (
                "discovery.book.max_peers".to_owned(),
                "must exceed connections.max_established: connected peers are never forgotten",
            )
        })?;
        self.server.validate("server.")?;
        self.pubsub.validate("pubsub.")?;
        self.specialized.validate("specialized.")?;
        self.blob.validate("blob.")?;
        self.handle.validate("handle.")?;
        let holds_one = self.handle.event_queue_bytes >= self.pubsub.max_message_bytes;
        check(holds_one, || {
            (
                "handle.event_queue_bytes".to_owned(),
                "must be at least pubsub.max_message_bytes",
            )
        })
    }

    /// Why `addr` cannot be listened on with these transports, if it cannot.
    fn listen_refusal(&self, addr: &Multiaddr) -> Option<&'static str> {
        let transport = &self.transport;
        match transport_of(addr) {
            Some(AddressTransport::Circuit) if !transport.relay_client => {
                Some("is relayed, which transport.relay_client turns off")
            }
            Some(AddressTransport::Circuit) if is_dns(addr) && !transport.dns => {
                Some("holds a name, which transport.dns turns off")
            }
            Some(AddressTransport::Circuit) => None,
            Some(_) if is_dns(addr) => Some("holds a name; only IP addresses can be listened on"),
            Some(AddressTransport::Tcp) if !transport.tcp.enabled => {
                Some("is TCP, which transport.tcp.enabled turns off")
            }
            Some(AddressTransport::Quic) if !transport.quic.enabled => {
                Some("is QUIC, which transport.quic.enabled turns off")
            }
            Some(AddressTransport::Tcp | AddressTransport::Quic | AddressTransport::Memory) => None,
            Some(AddressTransport::WebSocket | AddressTransport::Dnsaddr) | None => {
                Some("is not an address of TCP, QUIC, memory or a relay")
            }
        }
    }
}

fn syntax_error(text: &str, error: &toml::de::Error) -> ConfigError {
    ConfigError::Syntax {
        line: line_of(text, error.span().map_or(0, |span| span.start)),
        reason: error.message().to_owned(),
    }
}

/// Puts the values of `over` in place of those of `under`, key by key in tables of both.
fn lay_over(under: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(toml::Value::Table(under)), toml::Value::Table(over)) => lay_over(under, over),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

/// A path as TOML would write it: keys that are not bare are quoted, so that an empty one, or one
/// with a dot in it, shows as what it is.
fn key_of(path: &Path) -> String {
    let bare = |key: &str| {
        let is_bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        !key.is_empty() && key.chars().all(is_bare)
    };
    let mut text = String::new();
    for segment in path {
        let key = match segment {
            Segment::Seq { index } => {
                text.push_str(&format!("[{index}]"));
                continue;
            }
            Segment::Map { key } | Segment::Enum { variant: key } => key.as_str(),
            Segment::Unknown => "?",
        };
        if !text.is_empty() {
            text.push('.');
        }
        if bare(key) {
            text.push_str(key);
        } else {
            text.push_str(&format!("{key:?}"));
        }
    }
    text
}

/// The line of the byte at `offset`, counted from 1.
fn line_of(text: &str, offset: usize) -> usize {
    let before = text.bytes().take(offset);
    1 + before.filter(|&byte| byte == b'\n').count()
}
