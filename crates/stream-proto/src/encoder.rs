//! The send buffer: converts frames to bytes without IO.

use std::io::IoSlice;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use calimero_network_primitives::limits::{FRAME_PREFIX_BYTES, KIB};

use crate::{codec::FrameCodec, config::FrameConfig, error::FrameError};

/// Largest payload that is copied into the send buffer, in bytes. Larger
/// payloads are written from their own memory.
///
/// Copying 32 KiB within the cache takes about one microsecond. A separate
/// write costs a muxer frame and a cipher record, which takes about as long.
pub(crate) const GATHER_BYTES: usize = 32 * KIB;

/// Number of bytes that are sent together with the prefix of a large payload:
/// the size of a full TLS record and of the data frame that Yamux sends by
/// default.
///
/// A Yamux stream writes one slice of a vectored write at a time, each in its
/// own muxer frame. A separate prefix would cost a header of 12 bytes and a TLS
/// record for 4 bytes.
const HEAD_BYTES: usize = 16 * KIB;

/// Queue of encoded frames that were not written yet.
#[derive(Debug)]
pub(crate) struct FrameEncoder {
    codec: FrameCodec,
    /// Number of gathered bytes above which no further frame is accepted before
    /// a write.
    limit: usize,
    /// Bytes that are written first.
    gathered: BytesMut,
    /// Rest of a large payload. It is written after `gathered` and before any
    /// later frame.
    direct: Bytes,
    /// Number of bytes that are missing from the frame that was written last. 0
    /// between two frames.
    open: usize,
    has_written: bool,
}

impl FrameEncoder {
    pub(crate) fn new(config: FrameConfig) -> Self {
        Self {
            codec: FrameCodec::new(config.max_payload),
            limit: config.write_buffer,
            gathered: BytesMut::new(),
            direct: Bytes::new(),
            open: 0,
            has_written: false,
        }
    }

    /// Returns `true` if bytes of a frame were written.
    pub(crate) fn has_written(&self) -> bool {
        self.has_written
    }

    /// Returns `true` if a part of a frame was written and its rest was not.
    pub(crate) fn is_within_frame(&self) -> bool {
        self.open > 0
    }

    /// Returns `true` if another frame is accepted without a write.
    pub(crate) fn has_capacity(&self) -> bool {
        self.direct.is_empty() && self.gathered.len() < self.limit
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.gathered.is_empty() && self.direct.is_empty()
    }

    /// Appends a frame. The caller checks [`has_capacity`](Self::has_capacity) first.
    pub(crate) fn push(&mut self, mut payload: Bytes) -> Result<(), FrameError> {
        let prefix = self.codec.prefix(payload.len())?;
        if !self.direct.is_empty() {
            // The caller did not check. A copy preserves the order of the
            // bytes.
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

    /// Returns the bytes to write, in order. Either slice may be empty.
    pub(crate) fn slices(&self) -> [IoSlice<'_>; 2] {
        [IoSlice::new(&self.gathered), IoSlice::new(&self.direct)]
    }

    /// Removes the first `n` bytes, which were written.
    pub(crate) fn written(&mut self, n: usize) {
        self.has_written = true;
        let mut end = self.open;
        while end < n {
            // Each queued frame begins in `gathered`, with its prefix.
            let prefix = self.gathered.get(end..).and_then(<[u8]>::first_chunk);
            let Some(prefix) = prefix else { break };
            end += FRAME_PREFIX_BYTES + u32::from_be_bytes(*prefix) as usize;
        }
        self.open = end.saturating_sub(n);
        let gathered = n.min(self.gathered.len());
        self.gathered.advance(gathered);
        self.direct.advance((n - gathered).min(self.direct.len()));
        if self.direct.is_empty() {
            // An empty slice would keep the payload allocated.
            self.direct = Bytes::new();
        }
    }

    /// Returns the bytes that were not written.
    pub(crate) fn into_rest(mut self) -> Bytes {
        self.gathered.put(self.direct);
        self.gathered.freeze()
    }
}

#[cfg(test)]
mod bounds;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{FrameEncoder, GATHER_BYTES};
    use crate::config::FrameConfig;

    /// Writes frames of many sizes in pieces of many sizes, and compares the
    /// end of each piece with the ends of the frames.
    #[test]
    fn it_is_within_a_frame_between_its_first_and_its_last_byte() {
        let sizes = [0, 1, 500, GATHER_BYTES, GATHER_BYTES + 1, 3 * GATHER_BYTES];
        for step in [1, 3, 4, 5, 4096, 16 * 1024, 100_000] {
            let mut encoder = FrameEncoder::new(FrameConfig::default());
            let (mut total, mut ends) = (0, vec![0]);
            for size in sizes {
                encoder.push(Bytes::from(vec![0xff; size])).unwrap();
                total += 4 + size;
                ends.push(total);
            }
            let mut written = 0;
            while !encoder.is_empty() {
                let n = step.min(total - written);
                encoder.written(n);
                written += n;
                let between = ends.contains(&written);
                assert_eq!(encoder.is_within_frame(), !between, "{step} {written}");
            }
            assert_eq!(written, total);
        }
    }
}
