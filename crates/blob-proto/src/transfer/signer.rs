//! The keys that requests are signed with.

use std::{future::ready, pin::Pin};

use calimero_network_primitives::{ContextId, PeerId, identity::ed25519};

use crate::BlobId;

/// A request that is about to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignRequest {
    /// The blob that is asked for. `None` for a stream that asks for several blobs.
    pub blob_id: Option<BlobId>,
    /// The context on whose behalf it is asked for.
    pub context_id: ContextId,
    /// The provider that receives the request.
    pub provider: PeerId,
    /// The bytes to sign.
    pub message: Vec<u8>,
}

/// An Ed25519 signature and the key that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The public key of the signer.
    pub public_key: [u8; 32],
    /// The signature over [`SignRequest::message`].
    pub signature: [u8; 64],
}

/// The answer of a [`Signer`], some time later. `None` sends the request unsigned.
pub type Signing = Pin<Box<dyn Future<Output = Option<Signature>> + Send>>;

/// Signs requests for blobs: the counterpart of an [`Authorizer`](crate::serve::Authorizer).
///
/// A signer chooses the key by the context, the blob and the provider. It has 10 s to answer. Its
/// panic or silence fails the request to that provider.
pub trait Signer: Send + Sync + 'static {
    /// Signs one request, or declines to.
    fn sign(&self, request: SignRequest) -> Signing;
}

impl Signer for ed25519::Keypair {
    fn sign(&self, request: SignRequest) -> Signing {
        let signature = ed25519::Keypair::sign(self, &request.message).try_into();
        let public_key = self.public().to_bytes();
        Box::pin(ready(signature.ok().map(|signature| Signature {
            public_key,
            signature,
        })))
    }
}
