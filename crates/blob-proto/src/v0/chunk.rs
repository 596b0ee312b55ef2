//! One piece of content in one frame: a little-endian `u32` length, then the bytes.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use calimero_network_primitives::limits::{BLOB_CHUNK_BYTES, MAX_FRAME_PAYLOAD_BYTES};

use crate::error::ChunkFrameError;

/// Length of the prefix inside a chunk's frame, in bytes: one little-endian `u32`.
pub const CHUNK_PREFIX_BYTES: usize = 4;

/// One chunk of a transfer. An empty one ends it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlobChunk {
    /// The content of the chunk.
    pub data: Bytes,
}

impl BlobChunk {
    /// Reads the payload of a frame. The data is a slice of it: nothing is copied, and nothing is
    /// allocated for what the prefix claims.
    ///
    /// # Errors
    ///
    /// [`ChunkFrameError`] where the prefix is missing, disagrees with the frame's length, or the
    /// data exceeds [`BLOB_CHUNK_BYTES`].
    pub fn decode(frame: Bytes) -> Result<Self, ChunkFrameError> {
        Self::decode_within(frame, BLOB_CHUNK_BYTES)
    }

    /// As [`decode`](Self::decode) with another bound on the data, for peers that send larger
    /// pieces than the format says. Bounded by the frame in any case.
    ///
    /// # Errors
    ///
    /// As [`decode`](Self::decode), with `max_bytes` in place of [`BLOB_CHUNK_BYTES`].
    pub fn decode_within(mut frame: Bytes, max_bytes: usize) -> Result<Self, ChunkFrameError> {
        let max_bytes = max_bytes.min(MAX_FRAME_PAYLOAD_BYTES - CHUNK_PREFIX_BYTES);
        let frame_bytes = frame.len();
        let claimed_bytes = frame
            .try_get_u32_le()
            .map_err(|_| ChunkFrameError::NoLength { frame_bytes })?;
        let claim = usize::try_from(claimed_bytes).unwrap_or(usize::MAX);
        if claim > max_bytes {
            return Err(ChunkFrameError::TooLong {
                len_bytes: claim,
                max_bytes,
            });
        }
        if claim != frame.len() {
            return Err(ChunkFrameError::LengthMismatch {
                claimed_bytes,
                actual_bytes: frame.len(),
            });
        }
        Ok(Self { data: frame })
    }

    /// Writes the payload of a frame, which copies the data once. Where the data is read from a
    /// file, write it after [`chunk_prefix`] instead.
    ///
    /// # Errors
    ///
    /// [`ChunkFrameError::TooLong`] where the data exceeds [`BLOB_CHUNK_BYTES`].
    pub fn encode(&self) -> Result<Bytes, ChunkFrameError> {
        let prefix = chunk_prefix(self.data.len())?;
        let mut frame = BytesMut::with_capacity(CHUNK_PREFIX_BYTES + self.data.len());
        frame.put_slice(&prefix);
        frame.put_slice(&self.data);
        Ok(frame.freeze())
    }
}

/// What precedes `len_bytes` of data in a chunk's frame.
///
/// # Errors
///
/// [`ChunkFrameError::TooLong`] above [`BLOB_CHUNK_BYTES`].
pub fn chunk_prefix(len_bytes: usize) -> Result<[u8; CHUNK_PREFIX_BYTES], ChunkFrameError> {
    u32::try_from(len_bytes)
        .ok()
        .filter(|_| len_bytes <= BLOB_CHUNK_BYTES)
        .map(u32::to_le_bytes)
        .ok_or(ChunkFrameError::TooLong {
            len_bytes,
            max_bytes: BLOB_CHUNK_BYTES,
        })
}
