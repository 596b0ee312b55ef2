//! The wire format: a 4-byte big-endian length of at most 1 MiB, followed by
//! Borsh.
//!
//! [`Message::encode`] and [`Message::decode`] convert complete messages.
//! [`Receiver`] buffers a message that is still arriving. Decoded byte fields
//! are slices of the receive buffer.

use std::io;

use borsh::BorshSerialize;
use bytes::{Buf, BufMut, Bytes, BytesMut};

#[cfg(feature = "libp2p")]
use crate::message::NONCE_BYTES;
use crate::{
    error::{DecodeError, EncodeError, Part},
    message::{SpecializedNodeInviteRequest, SpecializedNodeInviteResponse},
};

/// Largest message, in bytes, without its prefix: 1 MiB. Part of the wire
/// format.
pub const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

/// Length of the prefix of a message, in bytes: one big-endian `u32`.
pub const PREFIX_BYTES: usize = 4;

/// Initial size of a receive buffer, in bytes. It holds most of an attestation
/// quote (4 to 5 KiB for Intel TDX) in one or two reads, and costs one page if
/// a peer claims a length and sends nothing.
const FIRST_BUFFER_BYTES: usize = 4 * 1024;

/// Size of a Borsh length, a little-endian `u32`, in bytes.
const BORSH_LEN_BYTES: usize = 4;

mod sealed {
    pub trait Sealed: borsh::BorshSerialize {
        fn body_len(&self) -> usize;
    }
}
use sealed::Sealed;

/// A message of this protocol. The trait is sealed and implemented by both
/// message types.
pub trait Message: Sealed + Sized {
    /// Decodes a message from its complete Borsh form.
    ///
    /// Byte fields are not copied. A text field allocates at most the bytes
    /// that are present.
    ///
    /// # Errors
    ///
    /// Any [`DecodeError`] except [`TooLarge`](DecodeError::TooLarge).
    fn decode_body(body: Bytes) -> Result<Self, DecodeError>;

    /// Encodes the message with its length prefix.
    ///
    /// # Errors
    ///
    /// [`EncodeError::TooLarge`] if its Borsh form exceeds `limit` or [`MAX_MESSAGE_BYTES`].
    fn encode(&self, limit: usize) -> Result<Bytes, EncodeError> {
        let limit = limit.min(MAX_MESSAGE_BYTES);
        let claimed = self.body_len();
        let too_large = EncodeError::TooLarge { limit, claimed };
        if claimed > limit {
            return Err(too_large);
        }
        let prefix = u32::try_from(claimed).map_err(|_| too_large)?;
        let mut wire = BytesMut::with_capacity(PREFIX_BYTES + claimed).writer();
        wire.get_mut().put_u32(prefix);
        // Writing to memory cannot fail, and no field exceeds the limit.
        BorshSerialize::serialize(self, &mut wire).map_err(|_: io::Error| too_large)?;
        Ok(wire.into_inner().freeze())
    }

    /// Decodes one message with its length prefix. No bytes may follow it.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the claimed length is above `limit` or
    /// [`MAX_MESSAGE_BYTES`], or if the bytes are truncated, followed by
    /// others, or not a message of this type.
    fn decode(mut wire: Bytes, limit: usize) -> Result<Self, DecodeError> {
        let claimed = match claim(&wire, limit)? {
            Ok(claimed) => claimed,
            Err(missing) => {
                let part = Part::Prefix;
                return Err(DecodeError::Cut { part, missing });
            }
        };
        wire.advance(PREFIX_BYTES);
        match wire.len().checked_sub(claimed) {
            None => Err(DecodeError::Cut {
                part: Part::Body,
                missing: claimed - wire.len(),
            }),
            Some(0) => Self::decode_body(wire),
            Some(bytes) => Err(DecodeError::Trailing { bytes }),
        }
    }
}

/// Returns the claimed length at the start of `wire`, or the number of missing
/// prefix bytes.
fn claim(wire: &[u8], limit: usize) -> Result<Result<usize, usize>, DecodeError> {
    let Some(prefix) = wire.first_chunk::<PREFIX_BYTES>() else {
        return Ok(Err(PREFIX_BYTES - wire.len()));
    };
    let claimed = u32::from_be_bytes(*prefix) as usize;
    let limit = limit.min(MAX_MESSAGE_BYTES);
    if claimed > limit {
        return Err(DecodeError::TooLarge { limit, claimed });
    }
    Ok(Ok(claimed))
}

impl Sealed for SpecializedNodeInviteRequest {
    fn body_len(&self) -> usize {
        match self {
            Self::TeeAttestation {
                nonce,
                quote_bytes,
                public_key,
            } => 1 + nonce.len() + BORSH_LEN_BYTES + quote_bytes.len() + public_key.len(),
        }
    }
}

impl Message for SpecializedNodeInviteRequest {
    fn decode_body(body: Bytes) -> Result<Self, DecodeError> {
        let mut fields = Fields(body);
        let request = match fields.byte(Part::Variant)? {
            0 => Self::TeeAttestation {
                nonce: fields.array(Part::Nonce)?,
                quote_bytes: fields.bytes(Part::QuoteBytes)?,
                public_key: fields.array(Part::PublicKey)?,
            },
            variant => return Err(DecodeError::UnknownVariant { variant }),
        };
        fields.end()?;
        Ok(request)
    }
}

impl Sealed for SpecializedNodeInviteResponse {
    fn body_len(&self) -> usize {
        let option = |len: Option<usize>| 1 + len.map_or(0, |len| BORSH_LEN_BYTES + len);
        self.nonce.len()
            + option(self.invitation_bytes.as_ref().map(Bytes::len))
            + option(self.error.as_ref().map(String::len))
    }
}

impl Message for SpecializedNodeInviteResponse {
    fn decode_body(body: Bytes) -> Result<Self, DecodeError> {
        let mut fields = Fields(body);
        let response = Self {
            nonce: fields.array(Part::Nonce)?,
            invitation_bytes: fields.option(Part::InvitationBytes, Fields::bytes)?,
            error: fields.option(Part::Error, Fields::text)?,
        };
        fields.end()?;
        Ok(response)
    }
}

/// Size of the variant number and the nonce at the start of a request, in
/// bytes.
#[cfg(feature = "libp2p")]
pub(crate) const REQUEST_HEAD_BYTES: usize = 1 + NONCE_BYTES;

/// Error for a stream that ended before the first byte of a message.
#[cfg(feature = "libp2p")]
pub(crate) const EMPTY: DecodeError = DecodeError::Cut {
    part: Part::Prefix,
    missing: PREFIX_BYTES,
};

/// Returns the nonce at the start of the body of a request. The rest of the
/// body may be missing or invalid.
#[cfg(feature = "libp2p")]
pub(crate) fn request_nonce(body: &[u8]) -> Option<[u8; NONCE_BYTES]> {
    match body.split_first()? {
        (0, rest) => rest.first_chunk().copied(),
        _ => None,
    }
}

/// Reader of the remaining fields of a Borsh body.
struct Fields(Bytes);

impl Fields {
    fn take(&mut self, len: usize, part: Part) -> Result<Bytes, DecodeError> {
        match len.checked_sub(self.0.len()) {
            Some(missing) if missing > 0 => Err(DecodeError::Cut { part, missing }),
            _ => Ok(self.0.split_to(len)),
        }
    }

    fn array<const N: usize>(&mut self, part: Part) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(&self.take(N, part)?);
        Ok(array)
    }

    fn byte(&mut self, part: Part) -> Result<u8, DecodeError> {
        self.array(part).map(|[byte]| byte)
    }

    fn bytes(&mut self, part: Part) -> Result<Bytes, DecodeError> {
        let len = u32::from_le_bytes(self.array(part)?) as usize;
        self.take(len, part)
    }

    fn text(&mut self, part: Part) -> Result<String, DecodeError> {
        let bytes = self.bytes(part)?;
        match str::from_utf8(&bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(error) => Err(DecodeError::NotUtf8 {
                part,
                valid_up_to: error.valid_up_to(),
            }),
        }
    }

    fn option<T>(
        &mut self,
        part: Part,
        read: impl FnOnce(&mut Self, Part) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        match self.byte(part)? {
            0 => Ok(None),
            1 => read(self, part).map(Some),
            tag => Err(DecodeError::BadOption { part, tag }),
        }
    }

    fn end(self) -> Result<(), DecodeError> {
        match self.0.len() {
            0 => Ok(()),
            bytes => Err(DecodeError::Trailing { bytes }),
        }
    }
}

/// Buffers one message while it arrives.
///
/// The caller reads into [`space`](Self::space) and reports the number of bytes
/// with [`arrived`](Self::arrived) until that returns the body. The space ends
/// with the message, so no later byte is read. It doubles with the received
/// bytes, so a claimed length alone allocates nothing.
///
/// ```
/// use calimero_network_specialized::codec::{MAX_MESSAGE_BYTES, Receiver};
///
/// let mut receiver = Receiver::new(MAX_MESSAGE_BYTES);
/// let mut wire = &b"\0\0\0\x02hi"[..];
/// let body = loop {
///     let n = std::io::Read::read(&mut wire, receiver.space())?;
///     assert!(n > 0, "the example holds a whole message");
///     if let Some(body) = receiver.arrived(n)? {
///         break body;
///     }
/// };
/// assert_eq!(body, &b"hi"[..]);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Receiver {
    limit: usize,
    /// Receive buffer. All of it is initialised, and the first `filled` bytes
    /// have arrived.
    buffer: BytesMut,
    filled: usize,
    /// Size of the message with its prefix, or of the prefix until it has
    /// arrived.
    whole: usize,
}

impl Receiver {
    /// Creates a receiver for a message of at most `limit` bytes. Values above
    /// [`MAX_MESSAGE_BYTES`] are reduced to that limit.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            buffer: BytesMut::new(),
            filled: 0,
            whole: PREFIX_BYTES,
        }
    }

    /// Returns the part of the buffer for the next bytes. It is empty after the
    /// message is complete or refused.
    pub fn space(&mut self) -> &mut [u8] {
        if self.filled == self.buffer.len() {
            let goal = self.filled.saturating_mul(2).max(FIRST_BUFFER_BYTES);
            let goal = goal.min(self.whole);
            self.buffer.resize(goal, 0);
        }
        &mut self.buffer[self.filled..]
    }

    /// Reports that the first `n` bytes of [`space`](Self::space) were filled.
    /// Returns the body without its prefix when it is complete; the receiver
    /// must not be used after that.
    ///
    /// # Errors
    ///
    /// [`DecodeError::TooLarge`] when the prefix has arrived, and on every
    /// later call.
    pub fn arrived(&mut self, n: usize) -> Result<Option<Bytes>, DecodeError> {
        self.filled = self.filled.saturating_add(n).min(self.buffer.len());
        match claim(&self.buffer[..self.filled], self.limit)? {
            Ok(claimed) => self.whole = PREFIX_BYTES + claimed,
            Err(_) => return Ok(None),
        }
        if self.filled < self.whole {
            return Ok(None);
        }
        let mut body = std::mem::take(&mut self.buffer).freeze();
        self.filled = 0;
        self.whole = 0;
        body.advance(PREFIX_BYTES);
        Ok(Some(body))
    }

    /// Returns the error for an end of stream at the current position, or
    /// `None` if no byte has arrived.
    #[must_use]
    pub fn cut(&self) -> Option<DecodeError> {
        let part = match self.filled {
            0 => return None,
            n if n < PREFIX_BYTES => Part::Prefix,
            _ => Part::Body,
        };
        let missing = self.whole.saturating_sub(self.filled);
        Some(DecodeError::Cut { part, missing })
    }

    /// Returns the number of bytes that have arrived.
    #[must_use]
    pub fn filled(&self) -> usize {
        self.filled
    }

    /// Returns the size of the buffer, in bytes.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.buffer.capacity()
    }
}
