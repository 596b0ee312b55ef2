#![doc = include_str!("../README.md")]

pub mod error;
mod id;
pub mod plan;
pub mod store;
pub mod v1;
pub mod wire;

pub use self::id::{
    BlobHasher, BlobId, CHUNK_HASH_BYTES, ChunkHash, ChunkList, Hashed, MAX_BLOB_BYTES,
    MAX_BLOB_CHUNKS, blob_id, chunk_count,
};
