#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "peers")]
pub mod announce;
#[cfg(feature = "transfer")]
pub mod bandwidth;
#[cfg(any(feature = "fs", feature = "transfer"))]
mod clock;
pub mod collection;
pub mod error;
#[cfg(feature = "transfer")]
pub mod fetch;
#[cfg(feature = "transfer")]
mod guard;
mod id;
#[cfg(feature = "peers")]
pub mod plan;
#[cfg(feature = "peers")]
pub mod record;
#[cfg(feature = "transfer")]
pub mod serve;
pub mod store;
#[cfg(feature = "transfer")]
mod swarm;
#[cfg(feature = "peers")]
pub mod ticket;
#[cfg(feature = "transfer")]
pub mod transfer;
pub mod v0;
pub mod v1;
mod varint;

pub use self::id::{
    BlobHasher, BlobId, CHUNK_HASH_BYTES, ChunkHash, ChunkList, Hashed, MAX_BLOB_BYTES,
    MAX_BLOB_CHUNKS, blob_id, chunk_count,
};

/// The crate of ids, and of peers and keys, in the version that is used.
pub use calimero_network_primitives as primitives;
/// Crates whose types occur in what is public here, in the versions that are used.
pub use {asynchronous_codec, bytes};
/// Crates whose types occur in what is public here, in the versions that are used: those of transfers.
#[cfg(feature = "transfer")]
pub use {futures, tokio};
