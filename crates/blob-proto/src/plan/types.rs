//! What goes into the planner and what comes out.

use std::{ops::Range, time::Duration};

use calimero_network_primitives::{PeerId, config::BlobFetchConfig};

/// Chunks of 1 MiB that are requested from all providers of a blob and not yet verified: 16, the
/// memory of a download.
pub(crate) const WINDOW_CHUNKS: usize = 16;

/// Chunks of 1 MiB that are requested from one provider and not yet verified: 8. At 100 MiB/s this
/// is 80 ms, above most round-trip times.
pub(crate) const PROVIDER_WINDOW_CHUNKS: usize = 8;

/// Minimum rate of a provider, in bytes per second: 16 KiB, one chunk a minute. An estimate.
pub(crate) const FLOOR_BYTES_PER_S: u64 = 16 * 1024;

/// Attempts in a row to open a stream to a listed provider, at most.
const MAX_UNREACHABLE: u32 = 2;

/// How transfers are spread over providers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannerConfig {
    /// Chunks in flight in all. Default 16.
    pub window_chunks: usize,
    /// Chunks in flight at one provider. Default 8: 80 ms of a 100 MiB/s link, above the round
    /// trip of most.
    pub provider_window_chunks: usize,
    /// Time without a byte after which a provider rests. Default 10 s.
    pub stall_timeout: Duration,
    /// Time between two bursts of a provider that has begun to send, where it is above
    /// `stall_timeout`. Default zero. For providers that send a chunk at a time.
    pub burst: Duration,
    /// Least rate of a provider, in bytes a second. Default 16 KiB: a chunk a minute. A guess.
    pub floor_bytes_per_s: u64,
    /// Span over which the least rate is measured. Default 20 s.
    pub floor_span: Duration,
    /// Rest after the first failure in a row, doubled with each. Default 1 s.
    pub rest_initial: Duration,
    /// Longest rest. Default 60 s.
    pub rest_max: Duration,
    /// Failures in a row after which a provider is not asked again. Default 5. [`u32::MAX`] where
    /// the search for providers goes on, so that one that was away is asked again.
    pub max_failures: u32,
    /// Attempts in a row to open a stream after which a provider is not asked again. Default 2: one
    /// that restarts is found by the second. [`u32::MAX`] as for `max_failures`.
    pub max_unreachable: u32,
    /// Time after which a chunk that one provider owes is asked of an idle one as well, however
    /// much comes from the first. The next copy is asked for after twice that time more, and so on.
    /// `None`, the default, where what arrives can be verified chunk by chunk.
    pub copy_after: Option<Duration>,
    /// Varies rests, so that many requesters do not return together. Take a random number.
    pub seed: u64,
}

impl From<&BlobFetchConfig> for PlannerConfig {
    /// With a seed of 1. A program that plans for many requesters sets another one.
    fn from(config: &BlobFetchConfig) -> Self {
        Self {
            window_chunks: WINDOW_CHUNKS,
            provider_window_chunks: PROVIDER_WINDOW_CHUNKS,
            stall_timeout: config.tuning.stall_timeout,
            burst: Duration::ZERO,
            floor_bytes_per_s: FLOOR_BYTES_PER_S,
            floor_span: config.tuning.floor_span,
            rest_initial: config.tuning.rest_initial,
            rest_max: config.tuning.rest_max,
            max_failures: config.tuning.max_failures,
            max_unreachable: MAX_UNREACHABLE,
            copy_after: None,
            seed: 1,
        }
    }
}

impl Default for PlannerConfig {
    fn default() -> Self {
        Self::from(&BlobFetchConfig::default())
    }
}

/// What happened to a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A provider was found. Said again of one that is known, it changes nothing.
    Found(PeerId),
    /// A provider is not to be asked any more, as if it had never been found. Its chunks go to
    /// others.
    Forgotten(PeerId),
    /// Bytes of chunks came from a provider, verified or not yet. Other messages do not count: a
    /// provider must not delay a chunk by sending them.
    Received {
        /// The peer id of the provider.
        peer: PeerId,
        /// The number of bytes.
        bytes: u64,
    },
    /// A chunk of a provider is verified and kept, or was there already.
    Verified {
        /// The peer id of the provider.
        peer: PeerId,
        /// The index of the chunk.
        index: u64,
    },
    /// A provider has the blob: it sent the list of its chunks. Until this or a verified chunk, it
    /// may be busy for 5 min at most.
    Proven(PeerId),
    /// A provider does not answer what it was asked for.
    Failed {
        /// The peer id of the provider.
        peer: PeerId,
        /// What it did instead.
        failure: Failure,
    },
    /// A provider is still being reached: its deadlines do not run yet.
    Reaching(PeerId),
    /// A provider has these chunks, in addition to those of earlier inputs. Until the first one, it
    /// counts as having all of them.
    Has {
        /// The peer id of the provider.
        peer: PeerId,
        /// The indices of the chunks.
        chunks: Vec<Range<u64>>,
    },
    /// A provider does not send a chunk that it was asked for, and has not failed.
    Absent {
        /// The peer id of the provider.
        peer: PeerId,
        /// The index of the chunk.
        index: u64,
        /// `None` where the provider does not have the chunk. Otherwise other peers are about to
        /// have it, and this provider may be asked for it again after this time.
        retry_after: Option<Duration>,
    },
    /// Chunks from this one on are not to be asked for yet. Until it is said, all may be.
    Horizon(u64),
    /// Time has passed, and nothing else.
    Tick,
}

/// Why a provider does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It sent what does not verify. It is not asked again.
    Lied,
    /// It does not have the blob, or does not give it. It is not asked again before it is found
    /// again.
    Refused,
    /// No stream to it could be opened.
    Unreachable,
    /// It has too much to do, and says for how long. It is asked again after half of that time, or
    /// after 30 s, and later each time that it does not keep what it says. It has not failed before
    /// twice the time that it said at first and a minute are over, at most 5 min. One that has the
    /// blob has not failed before 2 h.
    Busy {
        /// The time to wait before.
        retry_after: Duration,
    },
    /// The stream to it broke.
    Broken,
}

/// What the driver has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Ask a provider for chunks, of one run.
    Read {
        /// The peer id of the provider.
        peer: PeerId,
        /// The indices of the chunks.
        chunks: Range<u64>,
    },
    /// Close the stream to a provider; nothing it still sends counts.
    Leave {
        /// The peer id of the provider.
        peer: PeerId,
        /// The reason to leave it.
        cause: Cause,
    },
    /// Close the stream to a provider that owes only chunks that another one sent first. It has not
    /// failed.
    Cancel {
        /// The peer id of the provider.
        peer: PeerId,
    },
    /// All chunks are there.
    Done,
    /// Chunks are missing, and no provider is left that will be asked again. Said once; finding
    /// another one goes on.
    NoProviders {
        /// Chunks that are missing.
        missing: u64,
    },
}

/// Why a provider is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The driver said that it failed.
    Failed(Failure),
    /// Nothing came for too long.
    Stalled,
    /// Too little came from it.
    TooSlow,
}
