//! Who may have what.

use std::{future::ready, pin::Pin, sync::Arc};

use calimero_network_primitives::{ContextId, PeerId};

use crate::{BlobId, store::BlobStore};

/// A request for a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Who asks, proven by the connection.
    pub requester: PeerId,
    /// On whose behalf, by the word of the requester.
    pub context_id: ContextId,
    /// The id of the blob.
    pub blob_id: BlobId,
    /// The Ed25519 key that the request is signed with, if it is: proven, and recent.
    pub public_key: Option<[u8; 32]>,
}

/// The word on one request, some time later.
pub type Authorized = Pin<Box<dyn Future<Output = bool> + Send>>;

/// Decides who may have what. A refusal looks to the requester as if the blob were not here.
pub trait Authorizer: Send + Sync + 'static {
    /// Whether the request is to be answered. Asked once for each blob of a stream, and again when
    /// the stream turns to another one.
    fn authorize(&self, access: Access) -> Authorized;
}

impl<F: Fn(Access) -> bool + Send + Sync + 'static> Authorizer for F {
    fn authorize(&self, access: Access) -> Authorized {
        Box::pin(ready(self(access)))
    }
}

/// Allows every peer the blobs that the store calls public.
pub struct Public {
    store: Arc<dyn BlobStore>,
}

impl Public {
    /// Returns an authorizer that asks `store`.
    #[must_use]
    pub fn new(store: Arc<dyn BlobStore>) -> Self {
        Self { store }
    }
}

impl std::fmt::Debug for Public {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Public")
    }
}

impl Authorizer for Public {
    fn authorize(&self, access: Access) -> Authorized {
        let public = self.store.is_public(access.blob_id);
        Box::pin(async move { public.await.unwrap_or(false) })
    }
}
