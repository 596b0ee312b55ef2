#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod error;
#[cfg(feature = "transfer")]
pub mod fetch;
mod id;
#[cfg(feature = "peers")]
pub mod plan;
#[cfg(feature = "transfer")]
pub mod serve;
pub mod store;
#[cfg(feature = "transfer")]
pub mod transfer;
pub mod v1;
pub mod wire;

pub use self::id::{
    BlobHasher, BlobId, CHUNK_HASH_BYTES, ChunkHash, ChunkList, Hashed, MAX_BLOB_BYTES,
    MAX_BLOB_CHUNKS, blob_id, chunk_count,
};
