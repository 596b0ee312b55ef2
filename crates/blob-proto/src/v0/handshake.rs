//! The request and the answer, as JSON.

use bytes::Bytes;
use calimero_network_primitives::{BlobId, ContextId};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::BlobAuth;
use crate::error::HandshakeError;

/// Longest handshake message that is parsed, in bytes: 16 KiB.
///
/// The longest that this crate writes has about 600 bytes; the rest is room for keys that later
/// versions add. A longer one is refused unread, so a parser never sees more.
pub const MAX_HANDSHAKE_BYTES: usize = 16 * 1024;

/// The first message of a requester: which blob, from which context, and who asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRequest {
    /// The id of the blob.
    pub blob_id: BlobId,
    /// The context on whose behalf it is asked for.
    pub context_id: ContextId,
    /// Proof of who asks; without it only what is public can be had.
    #[serde(default)]
    pub auth: Option<BlobAuth>,
}

impl BlobRequest {
    /// Writes the payload of the frame.
    ///
    /// # Errors
    ///
    /// None in practice: every value has a JSON form. The type keeps the serializer's word.
    pub fn encode(&self) -> Result<Bytes, HandshakeError> {
        write(self)
    }

    /// Reads the payload of the frame. Unknown keys are ignored.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::TooLong`] above [`MAX_HANDSHAKE_BYTES`], [`HandshakeError::Json`] where
    /// it is no request.
    pub fn decode(payload: &[u8]) -> Result<Self, HandshakeError> {
        read(payload)
    }
}

/// The provider's answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobResponse {
    /// Whether chunks follow the answer.
    pub found: bool,
    /// Size of the blob in bytes, by the word of the provider. It is a claim: nothing is
    /// allocated for it.
    #[serde(default)]
    pub size: Option<u64>,
}

impl BlobResponse {
    /// The answer of a provider that does not have the blob, or does not give it.
    pub const NOT_FOUND: Self = Self {
        found: false,
        size: None,
    };

    /// The answer of a provider that has the blob.
    #[must_use]
    pub fn found(size_bytes: u64) -> Self {
        Self {
            found: true,
            size: Some(size_bytes),
        }
    }

    /// Writes the payload of the frame.
    ///
    /// # Errors
    ///
    /// None in practice: every value has a JSON form. The type keeps the serializer's word.
    pub fn encode(&self) -> Result<Bytes, HandshakeError> {
        write(self)
    }

    /// Reads the payload of the frame. Unknown keys are ignored.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::TooLong`] above [`MAX_HANDSHAKE_BYTES`], [`HandshakeError::Json`] where
    /// it is no response.
    pub fn decode(payload: &[u8]) -> Result<Self, HandshakeError> {
        read(payload)
    }
}

fn write(message: &impl Serialize) -> Result<Bytes, HandshakeError> {
    let message = serde_json::to_vec(message).map_err(|error| HandshakeError::json(&error))?;
    Ok(message.into())
}

fn read<T: DeserializeOwned>(payload: &[u8]) -> Result<T, HandshakeError> {
    if payload.len() > MAX_HANDSHAKE_BYTES {
        return Err(HandshakeError::TooLong {
            len_bytes: payload.len(),
            max_bytes: MAX_HANDSHAKE_BYTES,
        });
    }
    serde_json::from_slice(payload).map_err(|error| HandshakeError::json(&error))
}
