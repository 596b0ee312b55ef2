//! The send buffer: frames in, bytes out, no IO.

use std::io::IoSlice;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use calimero_network_primitives::limits::KIB;

use crate::{codec::FrameCodec, config::FrameConfig, error::FrameError};

/// Payloads above this many bytes are written from where they lie; smaller ones are gathered.
///
/// Gathering costs one copy within the cache, about a microsecond for this much; a write of its
/// own costs a frame of the muxer and a record of the cipher, about as much.
pub(crate) const GATHER_BYTES: usize = 32 * KIB;

/// Bytes that go with the prefix of a payload written from where it lies: a full TLS record,
/// and the data frame that Yamux sends by default.
///
/// A Yamux stream writes one slice of a vectored write at a time, as a frame of its own: a lone
/// prefix would cost 12 bytes of header and a TLS record for 4 bytes.
const HEAD_BYTES: usize = 16 * KIB;

/// Frames that wait to be written.
#[derive(Debug)]
pub(crate) struct FrameEncoder {
    codec: FrameCodec,
    /// Bytes gathered above which they are to be written before another frame is taken.
    limit: usize,
    /// Written first.
    gathered: BytesMut,
    /// The rest of a large payload, written after `gathered` and before anything else.
    direct: Bytes,
}

impl FrameEncoder {
    pub(crate) fn new(config: FrameConfig) -> Self {
        Self {
            codec: FrameCodec::new(config.max_payload),
            limit: config.write_buffer,
            gathered: BytesMut::new(),
            direct: Bytes::new(),
        }
    }

    /// Whether another frame may be taken before anything is written.
    pub(crate) fn has_room(&self) -> bool {
        self.direct.is_empty() && self.gathered.len() < self.limit
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.gathered.is_empty() && self.direct.is_empty()
    }

    /// Takes a frame. The caller sees to it that there is [room](Self::has_room).
    pub(crate) fn push(&mut self, mut payload: Bytes) -> Result<(), FrameError> {
        let prefix = self.codec.prefix(payload.len())?;
        if !self.direct.is_empty() {
            // Without room the order still holds, at the price of a copy.
            self.gathered.put(std::mem::take(&mut self.direct));
        }
        let head = if payload.len() <= GATHER_BYTES {
            payload.len()
        } else {
            HEAD_BYTES.saturating_sub(self.gathered.len() + prefix.len())
        };
        self.gathered.reserve(prefix.len() + head);
        self.gathered.put_slice(&prefix);
        self.gathered.put_slice(&payload[..head]);
        if head < payload.len() {
            self.direct = payload.split_off(head);
        }
        Ok(())
    }

    /// What is to be written, in order; either may be empty.
    pub(crate) fn slices(&self) -> [IoSlice<'_>; 2] {
        [IoSlice::new(&self.gathered), IoSlice::new(&self.direct)]
    }

    /// Says that the first `n` bytes have been written.
    pub(crate) fn written(&mut self, n: usize) {
        let gathered = n.min(self.gathered.len());
        self.gathered.advance(gathered);
        self.direct.advance((n - gathered).min(self.direct.len()));
        if self.direct.is_empty() {
            // An empty slice would still hold the payload.
            self.direct = Bytes::new();
        }
    }

    /// What has not been written.
    pub(crate) fn into_rest(mut self) -> Bytes {
        self.gathered.put(self.direct);
        self.gathered.freeze()
    }
}
