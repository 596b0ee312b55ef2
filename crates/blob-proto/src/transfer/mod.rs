//! What fetching and serving have in common: streams, who opens them, and messages over them.

mod io;
#[cfg(feature = "libp2p")]
mod libp2p;
mod opener;
mod signer;

use std::{fmt, sync::Arc};

use calimero_network_primitives::PeerId;

#[cfg(feature = "libp2p")]
pub use self::libp2p::StreamOpener;
pub(crate) use self::{
    io::{Arrived, Counted, MessageReader, MessageWriter},
    opener::DynOpener,
};
pub use self::{
    opener::{Opened, Opener, PROTOCOLS, Version},
    signer::{SignRequest, Signature, Signer, Signing},
};

/// A byte stream of any kind.
pub(crate) trait Duplex: futures::AsyncRead + futures::AsyncWrite + Unpin + Send {}

impl<S: futures::AsyncRead + futures::AsyncWrite + Unpin + Send> Duplex for S {}

pub(crate) type BoxDuplex = Box<dyn Duplex>;

/// The requester: its peer id, and the key that its requests are signed with.
#[derive(Clone)]
pub struct Identity {
    /// The peer id under which providers know the requester.
    pub peer: PeerId,
    /// Signs requests where a request has no signer of its own. Without it only public blobs can
    /// be fetched.
    pub signer: Option<Arc<dyn Signer>>,
}

impl Identity {
    /// Returns an identity that signs nothing.
    #[must_use]
    pub fn unsigned(peer: PeerId) -> Self {
        Self { peer, signer: None }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("peer", &self.peer)
            .field("signs", &self.signer.is_some())
            .finish()
    }
}
