//! What fetching and serving have in common: streams, who opens them, and messages over them.

mod clock;
mod io;
#[cfg(feature = "libp2p")]
mod libp2p;
mod opener;

use calimero_network_primitives::{PeerId, identity::ed25519};

#[cfg(feature = "libp2p")]
pub use self::libp2p::StreamOpener;
pub use self::opener::{Opened, Opener, PROTOCOLS, Version};
pub(crate) use self::{
    clock::unix_seconds,
    io::{Counted, MessageReader, MessageWriter},
    opener::DynOpener,
};

/// A byte stream of any kind.
pub(crate) trait Duplex: futures::AsyncRead + futures::AsyncWrite + Unpin + Send {}

impl<S: futures::AsyncRead + futures::AsyncWrite + Unpin + Send> Duplex for S {}

pub(crate) type BoxDuplex = Box<dyn Duplex>;

/// Who this side is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The peer as which it is known to the other side.
    pub peer: PeerId,
    /// The key that requests are signed with. Without it only what is public can be had.
    pub signer: Option<ed25519::Keypair>,
}

impl Identity {
    /// A side that signs nothing.
    #[must_use]
    pub fn unsigned(peer: PeerId) -> Self {
        Self { peer, signer: None }
    }
}
