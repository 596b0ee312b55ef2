//! Configuration of the blob crate.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ConfigError, check, check_durations, check_queues, table};
use crate::ProtocolId;

/// Largest number of chunks that serving may hold in memory: 1 GiB of them.
const MAX_HELD_CHUNKS: usize = 1024;

/// Smallest limit of the bytes per second of blob transfers: 64 KiB, four times the rate below which
/// a provider is given up.
const MIN_BYTES_PER_S: u64 = 64 << 10;

/// Largest limit: TOML has no larger integers.
const MAX_BYTES_PER_S: u64 = i64::MAX as u64;

/// A version of the protocol that transfers blobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BlobVersion {
    /// `/calimero/blob/1.1.0`: as 1.0.0; nodes also serve what they have verified of a blob that they
    /// still fetch.
    #[serde(rename = "1.1.0")]
    V1_1,
    /// `/calimero/blob/1.0.0`: verified chunk by chunk, from many providers, resumable.
    #[serde(rename = "1.0.0")]
    V1,
    /// `/calimero/blob/0.0.2`: a whole blob in order, verified at its end.
    #[serde(rename = "0.0.2")]
    V0,
}

impl BlobVersion {
    /// Returns the protocol name that is negotiated.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::V1_1 => "/calimero/blob/1.1.0",
            Self::V1 => "/calimero/blob/1.0.0",
            Self::V0 => ProtocolId::Blob.as_str(),
        }
    }
}

/// How blobs are announced, fetched, served and stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BlobConfig {
    /// Protocol versions that are offered when fetching, in this order, and accepted when serving.
    ///
    /// - Default: all versions, the newest one first.
    /// - Range: at least one version, each at most once.
    /// - Reason: a network that must behave exactly like published 0.11 nodes offers `0.0.2` alone.
    pub versions: Vec<BlobVersion>,
    /// Whether unsigned provider records are written and read in addition to signed ones.
    ///
    /// - Default: off, because an unsigned record proves nothing: any peer can write one in the name
    ///   of another.
    /// - Reason: published 0.11 nodes write and read only unsigned records. The preset
    ///   `published-0.11` turns this on.
    pub unsigned_records: bool,
    /// Bytes per second that all blob transfers together may send.
    ///
    /// - Default: 0, no limit.
    /// - Range: 0, or 65536 to 9223372036854775807. Requesters take turns, so that each of those
    ///   that are sent to at the same time gets 32768: one gives up a provider below 16384. With
    ///   requesters of `0.0.2` at the same time each gets two thirds of it. More have a turn where
    ///   these are too slow to use the limit.
    /// - Reason: a host shares its uplink with other programs.
    pub max_upload_bytes_per_s: u64,
    /// Bytes per second that all blob transfers together may receive.
    ///
    /// - Default: 0, no limit.
    /// - Range: 0, or 65536 to 9223372036854775807. A fetch gives up a provider below 16384.
    /// - Reason: a host shares its downlink with other programs.
    pub max_download_bytes_per_s: u64,
    /// How blobs are fetched from providers.
    #[serde(deserialize_with = "table::deserialize")]
    pub fetch: BlobFetchConfig,
    /// How blobs are served to requesters.
    #[serde(deserialize_with = "table::deserialize")]
    pub serve: BlobServeConfig,
    /// Limits and visibility of the blob store.
    #[serde(deserialize_with = "table::deserialize")]
    pub store: BlobStoreConfig,
    /// Values that tests vary. Not a key.
    #[serde(skip)]
    pub tuning: BlobTuning,
}

/// How blobs are announced: values that no file sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobTuning {
    /// Whether Kademlia provider records are written and read in addition to the node's own records.
    /// Default on: one record hides another at a storing peer, provider records do not. A test turns
    /// it off to act as a published 0.11 node.
    pub dht_providers: bool,
}

impl Default for BlobTuning {
    fn default() -> Self {
        Self {
            dht_providers: true,
        }
    }
}

/// How a blob is fetched from its providers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BlobFetchConfig {
    /// Whether content is requested over relayed connections without waiting for a direct one.
    ///
    /// - Default: off, because a circuit carries 128 KiB by the defaults of libp2p relays.
    /// - Reason: an operator whose own relays carry bulk traffic turns it on.
    pub through_relays: bool,
    /// Timers that tests shorten. Not a key.
    #[serde(skip)]
    pub tuning: BlobFetchTuning,
}

/// Timers of a fetch: values that no file sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobFetchTuning {
    /// Time without a byte after which a provider is backed off. Default 10 s.
    pub stall_timeout: Duration,
    /// Period over which the minimum rate of a provider is measured. Default 20 s.
    pub floor_span: Duration,
    /// Back-off after the first of several failures in a row; it doubles with each. Default 1 s.
    pub rest_initial: Duration,
    /// Longest back-off of a provider. Default 60 s.
    pub rest_max: Duration,
    /// Failures in a row after which a provider is not used again. Default 5.
    pub max_failures: u32,
    /// Time for a relayed provider to become reachable directly before its content is requested.
    /// Default 30 s, the deadline of a dial.
    pub direct_timeout: Duration,
    /// Time without content and without a new provider after which a fetch fails. An attempt to
    /// reach a provider does not extend it. Default 60 s, one search.
    pub search_timeout: Duration,
}

impl Default for BlobFetchTuning {
    fn default() -> Self {
        Self {
            stall_timeout: Duration::from_secs(10),
            floor_span: Duration::from_secs(20),
            rest_initial: Duration::from_secs(1),
            rest_max: Duration::from_secs(60),
            max_failures: 5,
            direct_timeout: Duration::from_secs(30),
            search_timeout: Duration::from_secs(60),
        }
    }
}

/// How blobs are served to requesters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BlobServeConfig {
    /// Transfers to all requesters that run at the same time.
    ///
    /// - Default: 256.
    /// - Range: 16 to 1048576; 16 is the share of one peer.
    /// - Reason: it bounds the disk and network load that requesters can cause.
    pub max_transfers: usize,
    /// Chunks of 1 MiB held in memory for all requesters.
    ///
    /// - Default: 24, so that serving stays below 32 MiB.
    /// - Range: 4 to 1024; 4 is the share of one peer.
    /// - Reason: a host with much memory serves more requesters in parallel.
    pub max_chunks: usize,
    /// Shares of one peer and timers, which tests vary. Not a key.
    #[serde(skip)]
    pub tuning: BlobServeTuning,
}

/// Shares of one peer and timers of serving: values that no file sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobServeTuning {
    /// Transfers to one peer at the same time. Default 16; the peer is asked to retry the rest.
    pub max_transfers_per_peer: usize,
    /// Chunks of 1 MiB held in memory for one peer. Default 4: one that is sent and one that is read
    /// ahead, for two transfers.
    pub max_chunks_per_peer: usize,
    /// Time for the first request of a stream to arrive and for a transfer to get a permit. Default
    /// 10 s.
    pub request_timeout: Duration,
    /// Time without a further request after which a stream is closed. Default 60 s.
    pub idle_timeout: Duration,
    /// Time for a requester to read 64 KiB. Default 20 s.
    pub stall_timeout: Duration,
    /// Time for a requester to read one chunk of 1 MiB. Default 64 s: 16 KiB/s, the rate below which
    /// a requester gives up a provider.
    pub chunk_timeout: Duration,
    /// Authentications of protocol 0.0.2 that are remembered against replays. Default 65,536, which
    /// allows 1,600 new ones a second and takes 10 MiB.
    pub max_remembered_auths: usize,
}

impl Default for BlobServeTuning {
    fn default() -> Self {
        Self {
            max_transfers_per_peer: 16,
            max_chunks_per_peer: 4,
            request_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(20),
            chunk_timeout: Duration::from_secs(64),
            max_remembered_auths: 65_536,
        }
    }
}

/// How much the blob store may hold, and which peers may read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BlobStoreConfig {
    /// Content that the store may hold, in bytes.
    ///
    /// - Default: 64 GiB, an estimate of what the disk of a small host can spare.
    /// - Range: 1 to 9223372036854775807.
    /// - Reason: the space that the volume has for blobs differs from host to host.
    pub max_bytes: u64,
    /// Whether a blob is served to every peer that knows its id, unless an authorizer refuses.
    ///
    /// - Default: on.
    /// - Reason: a node with private blobs and no authorizer turns it off.
    pub public: bool,
}

impl Default for BlobConfig {
    fn default() -> Self {
        Self {
            versions: vec![BlobVersion::V1_1, BlobVersion::V1, BlobVersion::V0],
            unsigned_records: false,
            max_upload_bytes_per_s: 0,
            max_download_bytes_per_s: 0,
            fetch: BlobFetchConfig::default(),
            serve: BlobServeConfig::default(),
            store: BlobStoreConfig::default(),
            tuning: BlobTuning::default(),
        }
    }
}

impl Default for BlobServeConfig {
    fn default() -> Self {
        Self {
            max_transfers: 256,
            max_chunks: 24,
            tuning: BlobServeTuning::default(),
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
    /// Checks every value. Keys are named below `prefix`, which is empty or ends in a dot.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] with the first key whose value is refused.
    pub fn validate(&self, prefix: &str) -> Result<(), ConfigError> {
        let key = |name: &str| format!("{prefix}{name}");
        check(!self.versions.is_empty(), || {
            (key("versions"), "must name at least one")
        })?;
        let twice =
            (self.versions.iter().enumerate()).any(|(at, one)| self.versions[..at].contains(one));
        check(!twice, || (key("versions"), "must name each once"))?;
        for (name, bytes_per_s) in [
            ("max_upload_bytes_per_s", self.max_upload_bytes_per_s),
            ("max_download_bytes_per_s", self.max_download_bytes_per_s),
        ] {
            let allowed = MIN_BYTES_PER_S..=MAX_BYTES_PER_S;
            check(bytes_per_s == 0 || allowed.contains(&bytes_per_s), || {
                (key(name), "must be 0 or 65536 to 9223372036854775807")
            })?;
        }
        self.fetch.validate(&key("fetch."))?;
        self.serve.validate(&key("serve."))?;
        self.store.validate(&key("store."))
    }
}

impl BlobFetchConfig {
    /// Checks every value. Keys are named below `prefix`, which is empty or ends in a dot.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] with the first key whose value is refused.
    pub fn validate(&self, prefix: &str) -> Result<(), ConfigError> {
        let key = |name: &str| format!("{prefix}tuning.{name}");
        let tuning = &self.tuning;
        check(tuning.max_failures > 0, || {
            (key("max_failures"), "must be above 0")
        })?;
        check_durations(
            &key(""),
            &[
                ("stall_timeout", tuning.stall_timeout),
                ("floor_span", tuning.floor_span),
                ("rest_initial", tuning.rest_initial),
                ("rest_max", tuning.rest_max),
                ("direct_timeout", tuning.direct_timeout),
                ("search_timeout", tuning.search_timeout),
            ],
        )?;
        check(tuning.rest_initial <= tuning.rest_max, || {
            (key("rest_initial"), "must not exceed rest_max")
        })
    }
}

impl BlobServeConfig {
    /// Checks every value. Keys are named below `prefix`, which is empty or ends in a dot.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] with the first key whose value is refused.
    pub fn validate(&self, prefix: &str) -> Result<(), ConfigError> {
        let key = |name: &str| format!("{prefix}{name}");
        let tuning = &self.tuning;
        check_queues(
            prefix,
            &[
                ("max_transfers", self.max_transfers),
                ("max_chunks", self.max_chunks),
                (
                    "tuning.max_transfers_per_peer",
                    tuning.max_transfers_per_peer,
                ),
            ],
        )?;
        check(tuning.max_transfers_per_peer <= self.max_transfers, || {
            (
                key("max_transfers"),
                "must be at least the share of one peer, 16 by default",
            )
        })?;
        check(self.max_chunks <= MAX_HELD_CHUNKS, || {
            (key("max_chunks"), "must be at most 1024")
        })?;
        // One chunk is sent while the next one is read.
        check(tuning.max_chunks_per_peer >= 2, || {
            (key("tuning.max_chunks_per_peer"), "must be at least 2")
        })?;
        check(tuning.max_chunks_per_peer <= self.max_chunks, || {
            (
                key("max_chunks"),
                "must be at least the share of one peer, 4 by default",
            )
        })?;
        check_durations(
            &key("tuning."),
            &[
                ("request_timeout", tuning.request_timeout),
                ("idle_timeout", tuning.idle_timeout),
                ("stall_timeout", tuning.stall_timeout),
                ("chunk_timeout", tuning.chunk_timeout),
            ],
        )
    }
}

impl BlobStoreConfig {
    /// Checks every value. Keys are named below `prefix`, which is empty or ends in a dot.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] with the first key whose value is refused.
    pub fn validate(&self, prefix: &str) -> Result<(), ConfigError> {
        let key = || format!("{prefix}max_bytes");
        check(self.max_bytes > 0, || (key(), "must be above 0"))?;
        // TOML has no larger integers.
        check(i64::try_from(self.max_bytes).is_ok(), || {
            (key(), "must be at most 9223372036854775807")
        })
    }
}
