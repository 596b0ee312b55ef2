//! Who asks, proven once for a whole stream.

#[cfg(feature = "peers")]
use calimero_network_primitives::{ContextId, PeerId, identity::ed25519};

#[cfg(feature = "peers")]
use crate::{
    error::AuthError,
    v0::{AUTH_MAX_AGE_S, AUTH_MAX_AHEAD_S},
};

/// What the signature begins with, so that it means nothing elsewhere.
#[cfg(feature = "peers")]
const DOMAIN: &[u8] = b"calimero:blob:session:v1";

/// Proof that the holder of a key asks for blobs of a context now, from one peer as another.
///
/// The signature names both ends of the connection, so it is valid nowhere else, and one
/// serves all requests of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionAuth {
    /// The Ed25519 key that signs.
    pub public_key: [u8; 32],
    /// Its signature over context, both peers and timestamp.
    pub signature: [u8; 64],
    /// When it was signed, in seconds since the Unix epoch.
    pub timestamp: u64,
}

#[cfg(feature = "peers")]
impl SessionAuth {
    /// Signs for one stream at a time, in seconds since the Unix epoch.
    ///
    /// # Errors
    ///
    /// [`AuthError::Signature`] where the keypair does not yield a signature of 64 bytes, which
    /// an Ed25519 keypair always does.
    pub fn sign(
        keypair: &ed25519::Keypair,
        context_id: &ContextId,
        requester: &PeerId,
        provider: &PeerId,
        timestamp: u64,
    ) -> Result<Self, AuthError> {
        let message = Self::message(context_id, requester, provider, timestamp);
        let signature = keypair.sign(&message);
        Ok(Self {
            public_key: keypair.public().to_bytes(),
            signature: signature.try_into().map_err(|_| AuthError::Signature)?,
            timestamp,
        })
    }

    /// Returns the bytes that are signed for a stream at a time, in seconds since the Unix epoch.
    #[must_use]
    pub fn message(
        context_id: &ContextId,
        requester: &PeerId,
        provider: &PeerId,
        timestamp: u64,
    ) -> Vec<u8> {
        message(context_id, requester, provider, timestamp)
    }

    /// Verifies that the key asks on this connection, within the window that
    /// [`BlobAuth`](crate::v0::BlobAuth) has. `now` is in seconds since the Unix epoch.
    ///
    /// # Errors
    ///
    /// [`AuthError`] with what is wrong, the cheap checks first.
    pub fn verify(
        &self,
        context_id: &ContextId,
        requester: &PeerId,
        provider: &PeerId,
        now: u64,
    ) -> Result<(), AuthError> {
        let age_s = now.saturating_sub(self.timestamp);
        if age_s > AUTH_MAX_AGE_S {
            let max_age_s = AUTH_MAX_AGE_S;
            return Err(AuthError::Expired { age_s, max_age_s });
        }
        let ahead_s = self.timestamp.saturating_sub(now);
        if ahead_s > AUTH_MAX_AHEAD_S {
            let max_ahead_s = AUTH_MAX_AHEAD_S;
            return Err(AuthError::Future {
                ahead_s,
                max_ahead_s,
            });
        }
        let key = ed25519::PublicKey::try_from_bytes(&self.public_key)
            .map_err(|_| AuthError::PublicKey)?;
        let message = message(context_id, requester, provider, self.timestamp);
        if !key.verify(&message, &self.signature) {
            return Err(AuthError::Signature);
        }
        Ok(())
    }
}

/// What is signed: the domain, the context id, each peer id after its length, the timestamp;
/// lengths and timestamp as little-endian `u64`.
#[cfg(feature = "peers")]
fn message(
    context_id: &ContextId,
    requester: &PeerId,
    provider: &PeerId,
    timestamp: u64,
) -> Vec<u8> {
    let (requester, provider) = (requester.to_bytes(), provider.to_bytes());
    [
        DOMAIN,
        context_id.as_bytes(),
        &(requester.len() as u64).to_le_bytes(),
        &requester,
        &(provider.len() as u64).to_le_bytes(),
        &provider,
        &timestamp.to_le_bytes(),
    ]
    .concat()
}
