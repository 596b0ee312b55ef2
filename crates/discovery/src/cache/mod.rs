//! Peers remembered over a restart.
//!
//! A node that was connected yesterday knows whom to dial today, even while every boot node is
//! away. [`PeerCache`] is where it keeps them, [`FileCache`] keeps them in a file; the machine
//! decides [who is worth keeping](crate::machine::Machine::cache).
//!
//! What comes back is trusted no more than what a peer says: the machine filters it.
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

/// Where peers are remembered over a restart.
///
/// Both methods may block on a disk, so they are called on a thread that may. Ages are as of
/// `now`, the wall clock: what is stored has to outlive the monotonic clock of the process.
pub trait PeerCache: Send + Sync + 'static {
    /// Reads what was saved last, the peer heard of last first. Nothing saved yet: nothing.
    ///
    /// # Errors
    ///
    /// [`CacheError`] where it could not be read. The node starts without it.
    fn load(&self, now: SystemTime) -> Result<Loaded, CacheError>;

    /// Puts `entries`, the best first, in place of what was saved before: after a crash there is
    /// one or the other. What is over a bound of the store is left out from the end.
    ///
    /// # Errors
    ///
    /// [`CacheError`] where they could not be saved. What was saved before is still there.
    fn save(&self, entries: &[CacheEntry], now: SystemTime) -> Result<(), CacheError>;
}

/// What a cache held.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Peers, the one heard of last first.
    pub entries: Vec<CacheEntry>,
    /// Why there are none although something was there: the caller says so and goes on.
    pub damage: Option<Damage>,
}

/// A file that holds no cache, or half of one.
#[derive(Debug, thiserror::Error)]
#[error("{} holds no peers: {reason}", path.display())]
pub struct Damage {
    /// Where it was found.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub reason: FormatError,
    /// Where it was put aside, in place of one put aside before; or why it is still where it was,
    /// where the next save overwrites it.
    pub put_aside: io::Result<PathBuf>,
}

/// Why peers could not be loaded or saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// The file system refused.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// What was tried, such as `reading`.
        doing: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another store failed in its own way.
    #[error("the store of peers: {0}")]
    Store(#[source] Box<dyn Error + Send + Sync>),
}
