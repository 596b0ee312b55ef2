//! Who asks for a blob: a signature over the blob, the context and the time.

#[cfg(feature = "peers")]
use calimero_network_primitives::{BlobId, ContextId, identity::ed25519};
use serde::{Deserialize, Serialize};
#[cfg(feature = "peers")]
use sha2::{Digest, Sha256};

use super::text::{self, SIGNATURE_BYTES};
#[cfg(feature = "peers")]
use crate::error::AuthError;

/// Oldest authentication that is accepted, in seconds. Part of the protocol.
pub const AUTH_MAX_AGE_S: u64 = 30;

/// Furthest in the future that an authentication is accepted, in seconds: the difference of
/// clocks that is forgiven. Part of the protocol.
pub const AUTH_MAX_AHEAD_S: u64 = 10;

/// Blob id, context id and timestamp, in bytes.
#[cfg(feature = "peers")]
const PAYLOAD_BYTES: usize = 32 + 32 + 8;

/// Proof that the holder of a key asks for a blob now.
///
/// It names neither requester nor provider, so a provider that receives it could present it to
/// another one while it is valid. A provider bounds that with a [`ReplayGuard`](super::ReplayGuard).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobAuth {
    /// The Ed25519 key that signs.
    #[serde(with = "text::base58")]
    pub public_key: [u8; 32],
    /// Its signature over blob id, context id and timestamp.
    #[serde(with = "text::signature")]
    pub signature: [u8; SIGNATURE_BYTES],
    /// When it was signed, in seconds since the Unix epoch.
    pub timestamp: u64,
}

#[cfg(feature = "peers")]
impl BlobAuth {
    /// Signs a request for a blob at a time, in seconds since the Unix epoch.
    ///
    /// # Errors
    ///
    /// [`AuthError::Signature`] where the keypair does not yield a signature of 64 bytes, which
    /// an Ed25519 keypair always does.
    pub fn sign(
        keypair: &ed25519::Keypair,
        blob_id: &BlobId,
        context_id: &ContextId,
        timestamp: u64,
    ) -> Result<Self, AuthError> {
        let signature = keypair.sign(&Self::message(blob_id, context_id, timestamp));
        Ok(Self {
            public_key: keypair.public().to_bytes(),
            signature: signature.try_into().map_err(|_| AuthError::Signature)?,
            timestamp,
        })
    }

    /// Returns the bytes that are signed for a request at a time, in seconds since the Unix epoch.
    #[must_use]
    pub fn message(blob_id: &BlobId, context_id: &ContextId, timestamp: u64) -> Vec<u8> {
        payload(blob_id, context_id, timestamp).to_vec()
    }

    /// Verifies that the key asks for this blob, and that it did so from [`AUTH_MAX_AGE_S`]
    /// before to [`AUTH_MAX_AHEAD_S`] after `now`, in seconds since the Unix epoch.
    ///
    /// Says nothing about what the key may have: that is for an authorizer to decide.
    ///
    /// # Errors
    ///
    /// [`AuthError`] with what is wrong, the cheap checks first.
    pub fn verify(
        &self,
        blob_id: &BlobId,
        context_id: &ContextId,
        now: u64,
    ) -> Result<(), AuthError> {
        let age_s = now.saturating_sub(self.timestamp);
        if age_s > AUTH_MAX_AGE_S {
            return Err(AuthError::Expired {
                age_s,
                max_age_s: AUTH_MAX_AGE_S,
            });
        }
        let ahead_s = self.timestamp.saturating_sub(now);
        if ahead_s > AUTH_MAX_AHEAD_S {
            return Err(AuthError::Future {
                ahead_s,
                max_ahead_s: AUTH_MAX_AHEAD_S,
            });
        }
        let key = ed25519::PublicKey::try_from_bytes(&self.public_key)
            .map_err(|_| AuthError::PublicKey)?;
        let payload = payload(blob_id, context_id, self.timestamp);
        if !key.verify(&payload, &self.signature) {
            return Err(AuthError::Signature);
        }
        Ok(())
    }

    /// A digest of the key and of what is signed, without the signature: two signatures of one
    /// key over one request are the same authentication.
    pub(super) fn digest(&self, blob_id: &BlobId, context_id: &ContextId) -> [u8; 32] {
        Sha256::new()
            .chain_update(self.public_key)
            .chain_update(payload(blob_id, context_id, self.timestamp))
            .finalize()
            .into()
    }
}

/// What is signed: Borsh of `{ blob_id: [u8; 32], context_id: [u8; 32], timestamp: u64 }`.
#[cfg(feature = "peers")]
fn payload(blob_id: &BlobId, context_id: &ContextId, timestamp: u64) -> [u8; PAYLOAD_BYTES] {
    let mut payload = [0; PAYLOAD_BYTES];
    payload[..32].copy_from_slice(blob_id.as_bytes());
    payload[32..64].copy_from_slice(context_id.as_bytes());
    payload[64..].copy_from_slice(&timestamp.to_le_bytes());
    payload
}

#[cfg(all(test, feature = "peers"))]
mod tests {
    use super::payload;

    #[test]
    fn the_signed_payload_is_the_captured_one() {
        let expected = [
            [0x22; 32].as_slice(),
            &[0x11; 32],
            &[0x00, 0xf1, 0x53, 0x65, 0, 0, 0, 0],
        ]
        .concat();
        let payload = payload(&[0x22; 32].into(), &[0x11; 32].into(), 1_700_000_000);
        assert_eq!(payload.as_slice(), expected);
    }
}
