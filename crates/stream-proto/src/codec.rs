//! The frame format: a big-endian `u32` payload length followed by the payload.

use asynchronous_codec::{Decoder, Encoder};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use calimero_network_primitives::limits::{FRAME_PREFIX_BYTES, MAX_FRAME_PAYLOAD_BYTES};

use crate::error::{FrameError, FramePart};

/// Encodes and decodes frames for [`asynchronous_codec::Framed`].
///
/// Decoding allocates and reserves nothing. A decoded frame is a slice of the
/// buffer in which it arrived, and a claimed length does not change the buffer.
/// [`FrameStream`](crate::FrameStream) does the same with fewer copies.
///
/// ```
/// use asynchronous_codec::{Decoder, Encoder};
/// use bytes::{Bytes, BytesMut};
/// use calimero_network_stream::FrameCodec;
///
/// let mut codec = FrameCodec::default();
/// let mut wire = BytesMut::new();
/// codec.encode(Bytes::from_static(b"hello"), &mut wire)?;
/// assert_eq!(wire, &b"\0\0\0\x05hello"[..]);
/// assert_eq!(codec.decode(&mut wire)?, Some(Bytes::from_static(b"hello")));
/// # Ok::<_, calimero_network_stream::FrameError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameCodec {
    max_payload: usize,
}

impl FrameCodec {
    /// Creates a codec that refuses payloads above `max_payload` bytes. Values
    /// above [`MAX_FRAME_PAYLOAD_BYTES`] are reduced to that limit.
    #[must_use]
    pub fn new(max_payload: usize) -> Self {
        Self {
            max_payload: max_payload.min(MAX_FRAME_PAYLOAD_BYTES),
        }
    }

    /// Returns the largest payload that the codec accepts, in bytes.
    #[must_use]
    pub fn max_payload(&self) -> usize {
        self.max_payload
    }

    /// Returns the payload length at the start of `wire`, or `None` while the
    /// prefix is incomplete.
    pub(crate) fn claim(&self, wire: &[u8]) -> Result<Option<usize>, FrameError> {
        let Some(prefix) = wire.first_chunk::<FRAME_PREFIX_BYTES>() else {
            return Ok(None);
        };
        let claimed = u32::from_be_bytes(*prefix) as usize;
        if claimed > self.max_payload {
            return Err(FrameError::TooLarge {
                limit: self.max_payload,
                claimed,
            });
        }
        Ok(Some(claimed))
    }

    /// Returns the length prefix of a payload of `len` bytes.
    pub(crate) fn prefix(&self, len: usize) -> Result<[u8; FRAME_PREFIX_BYTES], FrameError> {
        match u32::try_from(len) {
            Ok(prefix) if len <= self.max_payload => Ok(prefix.to_be_bytes()),
            _ => Err(FrameError::PayloadTooLarge {
                limit: self.max_payload,
                len,
            }),
        }
    }

    /// Checks whether the stream may end after `rest`, which contains no
    /// complete frame.
    pub(crate) fn end(&self, rest: &[u8]) -> Result<(), FrameError> {
        let (part, arrived, whole) = match self.claim(rest)? {
            _ if rest.is_empty() => return Ok(()),
            None => (FramePart::Prefix, rest.len(), FRAME_PREFIX_BYTES),
            Some(len) => (FramePart::Payload, rest.len() - FRAME_PREFIX_BYTES, len),
        };
        Err(FrameError::Cut {
            part,
            arrived,
            missing: whole.saturating_sub(arrived),
        })
    }
}

impl Default for FrameCodec {
    fn default() -> Self {
        Self::new(MAX_FRAME_PAYLOAD_BYTES)
    }
}

impl Encoder for FrameCodec {
    type Item<'a> = Bytes;
    type Error = FrameError;

    fn encode(&mut self, payload: Bytes, wire: &mut BytesMut) -> Result<(), FrameError> {
        let prefix = self.prefix(payload.len())?;
        wire.reserve(prefix.len() + payload.len());
        wire.put_slice(&prefix);
        wire.put_slice(&payload);
        Ok(())
    }
}

impl Decoder for FrameCodec {
    type Item = Bytes;
    type Error = FrameError;

    fn decode(&mut self, wire: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
        match self.claim(wire)? {
            Some(len) if wire.len() - FRAME_PREFIX_BYTES >= len => {
                wire.advance(FRAME_PREFIX_BYTES);
                Ok(Some(wire.split_to(len).freeze()))
            }
            _ => Ok(None),
        }
    }

    fn decode_eof(&mut self, wire: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
        if let Some(frame) = self.decode(wire)? {
            return Ok(Some(frame));
        }
        self.end(wire)?;
        Ok(None)
    }
}
