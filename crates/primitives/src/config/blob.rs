//! Configuration of the blob crate.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ConfigError, check, check_duration, check_queue, table};
use crate::ProtocolId;

/// Most chunks that a requester or provider may be told to hold: 1 GiB of them.
const MAX_HELD_CHUNKS: usize = 1024;

/// Most blobs that one node announces at one time.
const MAX_ANNOUNCED: usize = 4096;

/// A version of the protocol by which blobs move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BlobVersion {
    /// `/calimero/blob/1.0.0`: verified chunk by chunk, from many providers, resumable.
    #[serde(rename = "1.0.0")]
    V1,
    /// `/calimero/blob/0.0.2`: all of a blob in order, verified at its end.
    #[serde(rename = "0.0.2")]
    V0,
}

impl BlobVersion {
    /// The name under which it is negotiated.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::V1 => "/calimero/blob/1.0.0",
            Self::V0 => ProtocolId::Blob.as_str(),
        }
    }
}

/// How blobs are found, fetched, served and kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BlobConfig {
    /// Versions of the protocol that are spoken: offered when fetching, in this order, and accepted
    /// when serving. Default `["1.0.0", "0.0.2"]`; `["0.0.2"]` for a node that offers no more than
    /// its elders. At least one, each once.
    pub versions: Vec<BlobVersion>,
    /// Have this node held as a provider of what it announces, and ask for providers, beside the
    /// signed records. Default on: one record hides another, providers do not hide each other. Off
    /// for a node that does no more than its elders.
    pub dht_providers: bool,
    /// Read and write the older provider records as well, which prove nothing: anybody can say
    /// in anybody's name that it has a blob. Default off; for networks that still run them.
    pub unsigned_records: bool,
    /// Blobs of one node that are announced at one time. Default and most 4,096, the
    /// keys under which a node holds providers.
    pub max_announced: usize,
    /// Getting blobs from others.
    #[serde(deserialize_with = "table::deserialize")]
    pub fetch: BlobFetchConfig,
    /// Giving blobs to others.
    #[serde(deserialize_with = "table::deserialize")]
    pub serve: BlobServeConfig,
    /// Where blobs are kept.
    #[serde(deserialize_with = "table::deserialize")]
    pub store: BlobStoreConfig,
}

/// How a blob is fetched from its providers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BlobFetchConfig {
    /// Chunks asked for and not yet verified, of all providers of a blob, at 1 MiB each. Default
    /// 16. At most 1024.
    pub window_chunks: usize,
    /// The same of one provider. Default 8: 80 ms of a 100 MiB/s link, above the round trip of
    /// most. Must not exceed `window_chunks`.
    pub provider_window_chunks: usize,
    /// Chunks that have arrived and are being hashed and written, or wait for it. Default 4: two
    /// in work and two behind them, on a host of two cores. What is in the window beyond them
    /// stays with the network. Must not exceed `window_chunks`.
    pub verify_chunks: usize,
    /// Providers of one blob that are remembered. Default 64; what is found beyond is ignored.
    pub max_providers: usize,
    /// Time for a stream to a provider to open, in milliseconds. Default 30 s, the deadline of a
    /// dial.
    #[serde(rename = "open_timeout_ms", with = "super::duration")]
    pub open_timeout: Duration,
    /// Time without a byte after which a provider rests, in milliseconds. Default 10 s.
    #[serde(rename = "stall_timeout_ms", with = "super::duration")]
    pub stall_timeout: Duration,
    /// Least rate of a provider, in bytes a second. Default 16 KiB: a chunk a minute. A guess.
    /// At most 2^32 - 1.
    pub floor_bytes_per_s: u64,
    /// Span over which the least rate is measured, in milliseconds. Default 20 s.
    #[serde(rename = "floor_span_ms", with = "super::duration")]
    pub floor_span: Duration,
    /// Rest of a provider after the first failure in a row, doubled with each, in milliseconds.
    /// Default 1 s.
    #[serde(rename = "rest_initial_ms", with = "super::duration")]
    pub rest_initial: Duration,
    /// Longest rest, in milliseconds. Default 60 s.
    #[serde(rename = "rest_max_ms", with = "super::duration")]
    pub rest_max: Duration,
    /// Failures in a row after which a provider is not asked again. Default 5.
    pub max_failures: u32,
    /// Time that a provider reached through a relay is given to become reachable directly before
    /// content is asked of it, in milliseconds. Default 30 s. A circuit carries 128 KiB by the
    /// defaults of relays, so larger blobs do not pass through one.
    #[serde(rename = "direct_timeout_ms", with = "super::duration")]
    pub direct_timeout: Duration,
    /// Ask for content through relays without waiting for a direct path. Default off; for relays
    /// that are known to carry it.
    pub through_relays: bool,
    /// Time without any provider that could be asked after which a fetch fails, in milliseconds.
    /// Default 60 s, a minute for a search to find one.
    #[serde(rename = "search_timeout_ms", with = "super::duration")]
    pub search_timeout: Duration,
}

/// How blobs are served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BlobServeConfig {
    /// Requests for content of one peer that are answered at one time. Default 16; the peer is
    /// told to come again with what is over it.
    pub max_transfers_per_peer: usize,
    /// The same of all peers. Default 256.
    pub max_transfers: usize,
    /// Chunks held in memory for one peer, at 1 MiB each. Default 4: one being sent and one read
    /// ahead, of two transfers. At most 1024.
    pub max_chunks_per_peer: usize,
    /// Chunks held in memory for all peers. Default 24: with it, what serving holds stays below
    /// 32 MiB. At most 1024. Who waits for one is served in turn.
    pub max_chunks: usize,
    /// Time for the first request of a stream to arrive, and for a transfer to get its turn, in
    /// milliseconds. Default 10 s.
    #[serde(rename = "request_timeout_ms", with = "super::duration")]
    pub request_timeout: Duration,
    /// Time without a further request after which a stream is closed, in milliseconds. Default
    /// 60 s.
    #[serde(rename = "idle_timeout_ms", with = "super::duration")]
    pub idle_timeout: Duration,
    /// Time for a requester to take 64 KiB, in milliseconds. Default 20 s.
    #[serde(rename = "stall_timeout_ms", with = "super::duration")]
    pub stall_timeout: Duration,
    /// Time for a requester to take a chunk of 1 MiB, in milliseconds. Default 64 s: 16 KiB/s, the
    /// floor below which a requester gives a provider up (`blob.fetch.floor_bytes_per_s`). Who
    /// takes a little now and then does not hold the place of a chunk for longer.
    #[serde(rename = "chunk_timeout_ms", with = "super::duration")]
    pub chunk_timeout: Duration,
    /// Authentications of the older protocol that are remembered, so that nobody presents those
    /// of others. Default 65,536: 1,600 new ones a second, 10 MiB.
    pub max_remembered_auths: usize,
}

/// How the blobs of a folder are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BlobStoreConfig {
    /// Content that the store may hold, partial downloads at their full size, in bytes. Default
    /// 64 GiB, a guess at what the disk of a small host spares.
    pub max_bytes: u64,
    /// Whether blobs are public: given to whoever knows their id where no authorizer says
    /// otherwise. Default on.
    pub public: bool,
}

impl Default for BlobConfig {
    fn default() -> Self {
        Self {
            versions: vec![BlobVersion::V1, BlobVersion::V0],
            dht_providers: true,
            unsigned_records: false,
            max_announced: MAX_ANNOUNCED,
            fetch: BlobFetchConfig::default(),
            serve: BlobServeConfig::default(),
            store: BlobStoreConfig::default(),
        }
    }
}

impl Default for BlobFetchConfig {
    fn default() -> Self {
        Self {
            window_chunks: 16,
            provider_window_chunks: 8,
            verify_chunks: 4,
            max_providers: 64,
            open_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(10),
            floor_bytes_per_s: 16 * 1024,
            floor_span: Duration::from_secs(20),
            rest_initial: Duration::from_secs(1),
            rest_max: Duration::from_secs(60),
            max_failures: 5,
            direct_timeout: Duration::from_secs(30),
            through_relays: false,
            search_timeout: Duration::from_secs(60),
        }
    }
}

impl Default for BlobServeConfig {
    fn default() -> Self {
        Self {
            max_transfers_per_peer: 16,
            max_transfers: 256,
            max_chunks_per_peer: 4,
            max_chunks: 24,
            request_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(20),
            chunk_timeout: Duration::from_secs(64),
            max_remembered_auths: 65_536,
        }
    }
}

impl Default for BlobStoreConfig {
    fn default() -> Self {
        Self {
            max_bytes: 64 << 30,
            public: true,
        }
    }
}

impl BlobConfig {
    /// Refuses contradictions, naming the key below `prefix` (empty, or ending in a dot).
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] with the first key that cannot hold.
    pub fn validate(&self, prefix: &str) -> Result<(), ConfigError> {
        let key = |name: &str| format!("{prefix}{name}");
        check(!self.versions.is_empty(), || {
            (key("versions"), "must name at least one")
        })?;
        let twice =
            (self.versions.iter().enumerate()).any(|(at, one)| self.versions[..at].contains(one));
        check(!twice, || (key("versions"), "must name each once"))?;
        check_queue(self.max_announced, || key("max_announced"))?;
        check(self.max_announced <= MAX_ANNOUNCED, || {
            (key("max_announced"), "must be at most 4096")
        })?;
        self.fetch.validate(&key("fetch."))?;
        self.serve.validate(&key("serve."))?;
        self.store.validate(&key("store."))
    }
}

impl BlobFetchConfig {
    /// Refuses contradictions, naming the key below `prefix` (empty, or ending in a dot).
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] with the first key that cannot hold.
    pub fn validate(&self, prefix: &str) -> Result<(), ConfigError> {
        let key = |name: &str| format!("{prefix}{name}");
        check_chunks(self.window_chunks, || key("window_chunks"))?;
        for (name, value) in [
            ("provider_window_chunks", self.provider_window_chunks),
            ("verify_chunks", self.verify_chunks),
        ] {
            check_chunks(value, || key(name))?;
            check(value <= self.window_chunks, || {
                (key(name), "must not exceed window_chunks")
            })?;
        }
        check_queue(self.max_providers, || key("max_providers"))?;
        check(self.max_failures > 0, || {
            (key("max_failures"), "must be above 0")
        })?;
        check(self.floor_bytes_per_s <= u64::from(u32::MAX), || {
            (key("floor_bytes_per_s"), "must be at most 4294967295")
        })?;
        for (name, value) in [
            ("open_timeout_ms", self.open_timeout),
            ("stall_timeout_ms", self.stall_timeout),
            ("floor_span_ms", self.floor_span),
            ("rest_initial_ms", self.rest_initial),
            ("rest_max_ms", self.rest_max),
            ("direct_timeout_ms", self.direct_timeout),
            ("search_timeout_ms", self.search_timeout),
        ] {
            check_duration(value, || key(name))?;
        }
        check(self.rest_initial <= self.rest_max, || {
            (key("rest_initial_ms"), "must not exceed rest_max_ms")
        })
    }
}

impl BlobServeConfig {
    /// Refuses contradictions, naming the key below `prefix` (empty, or ending in a dot).
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] with the first key that cannot hold.
    pub fn validate(&self, prefix: &str) -> Result<(), ConfigError> {
        let key = |name: &str| format!("{prefix}{name}");
        for (name, value) in [
            ("max_transfers_per_peer", self.max_transfers_per_peer),
            ("max_transfers", self.max_transfers),
            ("max_remembered_auths", self.max_remembered_auths),
        ] {
            check_queue(value, || key(name))?;
        }
        check_chunks(self.max_chunks_per_peer, || key("max_chunks_per_peer"))?;
        check_chunks(self.max_chunks, || key("max_chunks"))?;
        for (name, one, all) in [
            (
                "max_transfers_per_peer",
                self.max_transfers_per_peer,
                self.max_transfers,
            ),
            (
                "max_chunks_per_peer",
                self.max_chunks_per_peer,
                self.max_chunks,
            ),
        ] {
            check(one <= all, || {
                (key(name), "must not exceed what all peers have together")
            })?;
        }
        // A transfer holds the chunk it sends while it waits for the next one.
        check(self.max_chunks_per_peer >= 2, || {
            (key("max_chunks_per_peer"), "must be at least 2")
        })?;
        for (name, value) in [
            ("request_timeout_ms", self.request_timeout),
            ("idle_timeout_ms", self.idle_timeout),
            ("stall_timeout_ms", self.stall_timeout),
            ("chunk_timeout_ms", self.chunk_timeout),
        ] {
            check_duration(value, || key(name))?;
        }
        Ok(())
    }
}

impl BlobStoreConfig {
    /// Refuses contradictions, naming the key below `prefix` (empty, or ending in a dot).
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] with the first key that cannot hold.
    pub fn validate(&self, prefix: &str) -> Result<(), ConfigError> {
        check(self.max_bytes > 0, || {
            (format!("{prefix}max_bytes"), "must be above 0")
        })?;
        // TOML has no larger integers.
        check(self.max_bytes <= i64::MAX as u64, || {
            (
                format!("{prefix}max_bytes"),
                "must be at most 9223372036854775807",
            )
        })
    }
}

/// Refuses numbers of chunks that hold nothing, or more than a host can.
fn check_chunks(value: usize, key: impl Fn() -> String) -> Result<(), ConfigError> {
    check(value > 0, || (key(), "must be above 0"))?;
    check(value <= MAX_HELD_CHUNKS, || {
        (key(), "must be at most 1024, 1 GiB of chunks")
    })
}
