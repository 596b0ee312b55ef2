//! Configuration: one type per concern, joined in [`NetworkConfig`].
//!
//! A `…Config` holds the keys of a configuration file. Each key has a reason for which an operator or
//! an embedding program sets it; its documentation gives the unit, the default, the range and that
//! reason. A `…Tuning` holds limits and timers that no file sets: tests shorten them, and everywhere
//! else the defaults apply. Both are validated together, and a protocol crate takes both as one value.
//!
//! In files, durations and sizes have their unit in the key (`_ms`, `_bytes`). Unknown keys are
//! refused with their path, keys of earlier versions with their replacement, and contradictions
//! before anything is built.

mod blob;
mod compiled;
mod connections;
mod discovery;
mod duration;
mod file;
mod handle;
mod import;
mod peers;
mod preset;
mod pubsub;
mod removed;
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

use self::compiled::check_feature;
pub use self::{
    blob::{
        BlobConfig, BlobFetchConfig, BlobFetchTuning, BlobServeConfig, BlobServeTuning,
        BlobStoreConfig, BlobTuning, BlobVersion,
    },
    connections::{ConnectionsConfig, ConnectionsTuning, PingConfig},
    discovery::{
        BookTuning, CacheTuning, DialsTuning, DiscoveryConfig, ReachabilityTuning, RecordsTuning,
        RedialTuning, RelayTuning, RendezvousTuning, is_boot_list,
    },
    handle::{HandleConfig, HandleTuning, RuntimeKind},
    import::import_0_11,
    preset::Preset,
    pubsub::{
        GossipMemoryTuning, GossipPeersTuning, GossipVersion, KeepTuning, MeshConfig, PubsubConfig,
    },
    server::{
        RateTuning, RelayServerConfig, RelayServerTuning, RendezvousServerConfig,
        RendezvousServerTuning, ServerConfig,
    },
    specialized::{SpecializedConfig, SpecializedTuning},
    streams::{StreamsConfig, StreamsTuning},
    transport::{
        QuicConfig, QuicTuning, Security, TcpConfig, TcpTuning, TransportConfig, TransportTuning,
        YamuxTuning,
    },
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
        /// Number of the line, counted from 1.
        line: usize,
        /// Message of the parser.
        reason: String,
    },
    /// A key is unknown, or its value has another type.
    #[error("{key}: {reason}")]
    Parse {
        /// Path of the key, with dots between its parts.
        key: String,
        /// Message of the parser.
        reason: String,
    },
    /// The file belongs to the published 0.11 node.
    #[error("this is a file of calimero-network 0.11; convert it with `calnet config import`")]
    Published,
    /// The file to import does not belong to the published 0.11 node.
    #[error("this is no file of calimero-network 0.11: it has neither [swarm] nor [bootstrap]")]
    NotPublished,
    /// The key was removed after an earlier version.
    #[error("{key}: {now}")]
    Removed {
        /// Path of the key, with dots between its parts.
        key: &'static str,
        /// The replacement of the key, or the value that is fixed now.
        now: &'static str,
    },
    /// A value is refused, alone or together with others.
    #[error("{key}: {reason}")]
    Invalid {
        /// Path of the key, with dots between its parts.
        key: String,
        /// The rule that the value breaks.
        reason: &'static str,
    },
    /// The program was built without the part that the value configures.
    #[error("{key}: needs the Cargo feature `{feature}`, which this program was built without")]
    MissingFeature {
        /// Path of the key, with dots between its parts.
        key: String,
        /// Name of the feature in the crate `calimero-network`.
        feature: &'static str,
    },
    /// A value cannot be written to a file. No valid configuration contains such a value.
    #[error("cannot be written as TOML: {reason}")]
    Unwritable {
        /// Message of the serializer.
        reason: String,
    },
}

/// Returns `Ok` if `holds`, otherwise the key and the rule that `otherwise` names.
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

/// Refuses a duration that is zero, or so long that adding it to a clock may overflow.
fn check_duration(value: Duration, key: impl Fn() -> String) -> Result<(), ConfigError> {
    check(!value.is_zero(), || (key(), "must be above 0"))?;
    check(value <= MAX_CONFIGURED_DURATION, || {
        (key(), "must be at most 31536000000, a year")
    })
}

/// [`check_duration`] for several values, named below `prefix`.
fn check_durations(prefix: &str, values: &[(&str, Duration)]) -> Result<(), ConfigError> {
    (values.iter())
        .try_for_each(|(name, value)| check_duration(*value, || format!("{prefix}{name}")))
}

/// [`check_queue`] for several values, named below `prefix`.
fn check_queues(prefix: &str, values: &[(&str, usize)]) -> Result<(), ConfigError> {
    (values.iter()).try_for_each(|(name, value)| check_queue(*value, || format!("{prefix}{name}")))
}

/// Refuses the length 0 of a queue or table, and lengths for which no host has the memory.
fn check_queue(value: usize, key: impl Fn() -> String) -> Result<(), ConfigError> {
    check(value > 0, || (key(), "must be above 0"))?;
    check(value <= MAX_CONFIGURED_QUEUE, || {
        (key(), "must be at most 1048576")
    })
}

/// The configuration of a node, without its identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkConfig {
    /// Addresses to listen on.
    ///
    /// - Default: port 2428 on all interfaces, TCP and QUIC, IPv4 and IPv6. A program without the
    ///   Cargo feature `quic` does not listen for QUIC.
    /// - Range: addresses of transports that are on. An empty list accepts no inbound connections.
    /// - Reason: hosts differ in ports and interfaces.
    pub listen: Vec<Multiaddr>,
    /// Name and version of the program, which identify sends to peers.
    ///
    /// - Default: `calimero-network/<version>`.
    /// - Range: at most 255 bytes.
    /// - Reason: an embedding program shows its own name to peers.
    pub agent_version: String,
    /// The transports that carry bytes.
    #[serde(deserialize_with = "table::deserialize")]
    pub transport: TransportConfig,
    /// Connections: how many, how long, with which peers.
    #[serde(deserialize_with = "table::deserialize")]
    pub connections: ConnectionsConfig,
    /// Streams and their limits.
    #[serde(deserialize_with = "table::deserialize")]
    pub streams: StreamsConfig,
    /// How peers are found and kept.
    #[serde(deserialize_with = "table::deserialize")]
    pub discovery: DiscoveryConfig,
    /// What the node serves to others: rendezvous and relay.
    #[serde(deserialize_with = "table::deserialize")]
    pub server: ServerConfig,
    /// Topics, their meshes and messages.
    #[serde(deserialize_with = "table::deserialize")]
    pub pubsub: PubsubConfig,
    /// Specialized node invites and their deadlines.
    #[serde(deserialize_with = "table::deserialize")]
    pub specialized: SpecializedConfig,
    /// Blobs: how they are announced, fetched, served and stored.
    #[serde(deserialize_with = "table::deserialize")]
    pub blob: BlobConfig,
    /// The event queue, the runtime and the shutdown of the manager.
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
        let mut listen = vec![tcp(&v4), quic(&v4), tcp(&v6), quic(&v6)];
        listen.retain(|addr| match transport_of(addr) {
            Some(AddressTransport::Tcp) => compiled::TCP,
            _ => compiled::QUIC,
        });
        Self {
            listen,
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
    /// Checks every value, alone and together with the others.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] with the first key whose value is refused, and
    /// [`ConfigError::MissingFeature`] with a key of a part that is not compiled in.
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
        let both_ways = (self.streams.tuning.max_outbound_per_connection)
            .checked_add(self.streams.max_inbound_per_peer);
        let fit = both_ways.is_some_and(|streams| streams <= self.transport.yamux.max_streams);
        check(fit, || {
            (
                "streams.max_inbound_per_peer".to_owned(),
                "must not exceed 2048, the streams of a Yamux connection, together with the 384 \
                 outbound streams of a connection",
            )
        })?;
        self.discovery.validate_under("discovery.")?;
        let room = self.discovery.max_peers > self.connections.max_established;
        check(room, || {
            (
                "discovery.max_peers".to_owned(),
                "must exceed connections.max_established, because connected peers are never forgotten",
            )
        })?;
        self.server.validate("server.")?;
        self.pubsub.validate("pubsub.")?;
        let invites = self.specialized != SpecializedConfig::default();
        check_feature(invites, compiled::INVITES, "invites", || {
            "specialized".to_owned()
        })?;
        self.specialized.validate("specialized.")?;
        let blobs = self.blob != BlobConfig::default();
        check_feature(blobs, compiled::BLOBS, "blobs", || "blob".to_owned())?;
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

    /// Takes the values that no file sets from `base`.
    fn copy_tuning(&mut self, base: &Self) {
        self.transport.tuning = base.transport.tuning.clone();
        self.transport.yamux = base.transport.yamux.clone();
        self.transport.tcp.tuning = base.transport.tcp.tuning.clone();
        self.transport.quic.tuning = base.transport.quic.tuning.clone();
        self.connections.tuning = base.connections.tuning.clone();
        self.streams.tuning = base.streams.tuning.clone();
        self.discovery.tick = base.discovery.tick;
        self.discovery.book = base.discovery.book;
        self.discovery.dials = base.discovery.dials;
        self.discovery.redial = base.discovery.redial;
        self.discovery.rendezvous = base.discovery.rendezvous;
        self.discovery.relay = base.discovery.relay;
        self.discovery.reachability = base.discovery.reachability;
        self.discovery.cache = base.discovery.cache;
        self.discovery.records = base.discovery.records;
        self.server.rendezvous.tuning = base.server.rendezvous.tuning.clone();
        self.server.relay.tuning = base.server.relay.tuning.clone();
        // A mesh that was set in Rust has no name of its own in files.
        if self.pubsub.mesh == MeshConfig::small() && base.pubsub.mesh != MeshConfig::large() {
            self.pubsub.mesh = base.pubsub.mesh.clone();
        }
        self.pubsub.memory = base.pubsub.memory.clone();
        self.pubsub.peers = base.pubsub.peers.clone();
        self.pubsub.keep = base.pubsub.keep.clone();
        self.specialized.tuning = base.specialized.tuning.clone();
        self.blob.tuning = base.blob.tuning.clone();
        self.blob.fetch.tuning = base.blob.fetch.tuning.clone();
        self.blob.serve.tuning = base.blob.serve.tuning.clone();
        self.handle.tuning = base.handle.tuning.clone();
    }

    /// Returns why `addr` cannot be listened on with these transports, if it cannot.
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
