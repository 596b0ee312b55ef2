//! The wire format of `/calimero/blob/0.0.2`, byte for byte. Pure: bytes in, values out, no IO, no
//! clock.
//!
//! On the length-prefixed frames of the stream crate:
//!
//! 1. The requester sends one [`BlobRequest`] as JSON.
//! 2. The provider answers one [`BlobResponse`] as JSON.
//! 3. If it has the blob, it sends [`BlobChunk`]s in order, one a frame, [`BLOB_CHUNK_BYTES`] of
//!    data each but the last, then an empty one, and closes.
//!
//! [`BLOB_CHUNK_BYTES`]: calimero_network_primitives::limits::BLOB_CHUNK_BYTES

mod auth;
mod chunk;
mod handshake;
#[cfg(feature = "peers")]
mod replay;
mod text;

#[cfg(feature = "peers")]
pub use self::replay::{REPLAY_GUARD_CAPACITY, ReplayGuard};
pub use self::{
    auth::{AUTH_MAX_AGE_S, AUTH_MAX_AHEAD_S, BlobAuth},
    chunk::{BlobChunk, CHUNK_PREFIX_BYTES, chunk_prefix},
    handshake::{BlobRequest, BlobResponse, MAX_HANDSHAKE_BYTES},
};
