//! The peer cache, which keeps peers over a restart.
//!
//! A restarted node dials the peers of its cache, even while every boot node is unreachable.
//! [`PeerCache`] is the store, [`FileCache`] is one in a file, and the machine decides [which peers
//! to keep](crate::machine::Machine::cache).
//!
//! The machine filters loaded peers like those that other peers report.
//!
//! ```
//! use std::time::{Duration, SystemTime};
//!
//! use calimero_network_discovery::{cache::{FileCache, PeerCache}, machine::CacheEntry};
//! use calimero_network_primitives::PeerId;
//!
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("peers");
//! let cache = FileCache::new(path);
//! let entry = CacheEntry {
//!     peer: PeerId::random(),
//!     addresses: vec!["/ip4/192.0.2.1/tcp/2428".parse()?],
//!     age: Duration::from_secs(60),
//! };
//! let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
//! cache.save(&[entry.clone()], now)?;
//!
//! let loaded = cache.load(now + Duration::from_secs(3600))?;
//! assert_eq!(loaded.entries[0].peer, entry.peer);
//! assert_eq!(loaded.entries[0].age, Duration::from_secs(3660));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod file;
mod text;

use std::{error::Error, io, path::PathBuf, time::SystemTime};

pub use self::{
    file::FileCache,
    text::{
        FormatError, LineError, MAX_CACHE_BYTES, MAX_CACHED_ADDRESSES_PER_PEER, MAX_CACHED_PEERS,
        decode, encode,
    },
};
use crate::machine::CacheEntry;

/// A store of peers that survives a restart.
///
/// Both methods may block on a disk, so they are called on a thread that may block. Ages are
/// relative to `now` by the wall clock, because the monotonic clock of the process ends with it.
pub trait PeerCache: Send + Sync + 'static {
    /// Loads the peers of the last save, the latest seen first. Without a save there are none.
    ///
    /// # Errors
    ///
    /// [`CacheError`] if the peers could not be read. The node then starts without them.
    fn load(&self, now: SystemTime) -> Result<Loaded, CacheError>;

    /// Replaces the saved peers by `entries`, the best first. After a crash the store holds the old
    /// or the new ones. Entries above a limit of the store are left out from the end.
    ///
    /// # Errors
    ///
    /// [`CacheError`] if the peers could not be saved. The earlier ones are kept.
    fn save(&self, entries: &[CacheEntry], now: SystemTime) -> Result<(), CacheError>;
}

/// The result of loading a peer cache.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Loaded peers, the latest seen first.
    pub entries: Vec<CacheEntry>,
    /// Damage of the file, if it could not be read as a cache. The caller reports it and continues
    /// without peers.
    pub damage: Option<Damage>,
}

/// A file that is not a cache, or a part of one.
#[derive(Debug, thiserror::Error)]
#[error("{} holds no peers: {reason}", path.display())]
pub struct Damage {
    /// Path of the damaged file.
    pub path: PathBuf,
    /// Defect that was found first.
    #[source]
    pub reason: FormatError,
    /// Path that the file was renamed to, replacing an earlier one; or the error of the rename,
    /// after which the next save overwrites the file.
    pub put_aside: io::Result<PathBuf>,
}

/// The error of loading or saving peers.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// An operation of the file system failed.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// Operation that failed, such as `reading`.
        doing: &'static str,
        /// File or folder of the operation.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// Error of another implementation of [`PeerCache`].
    #[error("the store of peers: {0}")]
    Store(#[source] Box<dyn Error + Send + Sync>),
}
