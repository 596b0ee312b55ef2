//! Who opens streams to providers.

use std::{error::Error, pin::Pin, sync::Arc};

use calimero_network_primitives::PeerId;
pub use calimero_network_primitives::config::BlobVersion as Version;
use futures::{AsyncRead, AsyncWrite, FutureExt, future::BoxFuture};

use super::BoxDuplex;

/// The versions in the order in which they are offered.
pub const PROTOCOLS: [Version; 3] = [Version::V1_1, Version::V1, Version::V0];

/// A stream to a provider.
#[derive(Debug)]
pub struct Opened<S> {
    /// The stream that was opened.
    pub stream: S,
    /// What was negotiated on it.
    pub version: Version,
    /// Whether it goes through a relay, which carries little.
    pub relayed: bool,
}

/// Opens streams to providers: a swarm, a manager, or sockets in a test.
pub trait Opener: Send + Sync + 'static {
    /// What carries the bytes.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// Why a stream was not opened.
    type Error: Error + Send + Sync + 'static;

    /// Opens a stream to a peer, of the first version of the protocol that it speaks. Cancelled by
    /// dropping, which happens at the deadline of the configuration.
    fn open(
        &self,
        peer: PeerId,
    ) -> impl Future<Output = Result<Opened<Self::Stream>, Self::Error>> + Send;
}

impl<O: Opener> Opener for Arc<O> {
    type Stream = O::Stream;
    type Error = O::Error;

    fn open(
        &self,
        peer: PeerId,
    ) -> impl Future<Output = Result<Opened<O::Stream>, O::Error>> + Send {
        O::open(self, peer)
    }
}

/// Why a stream was not opened, in the opener's own words.
pub(crate) type OpenFailure = Arc<dyn Error + Send + Sync>;

/// An [`Opener`] of any kind.
pub(crate) trait DynOpener: Send + Sync {
    fn open_boxed(&self, peer: PeerId) -> BoxFuture<'_, Result<Opened<BoxDuplex>, OpenFailure>>;
}

impl<O: Opener> DynOpener for O {
    fn open_boxed(&self, peer: PeerId) -> BoxFuture<'_, Result<Opened<BoxDuplex>, OpenFailure>> {
        let opened = Opener::open(self, peer).map(|opened| match opened {
            Ok(opened) => Ok(Opened {
                stream: Box::new(opened.stream) as BoxDuplex,
                version: opened.version,
                relayed: opened.relayed,
            }),
            Err(error) => Err(Arc::new(error) as OpenFailure),
        });
        Pin::from(Box::new(opened))
    }
}
