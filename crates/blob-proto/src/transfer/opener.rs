//! Who opens streams to providers.

use std::{error::Error, pin::Pin, sync::Arc};

use calimero_network_primitives::{PeerId, ProtocolId};
use futures::{AsyncRead, AsyncWrite, FutureExt, future::BoxFuture};

use super::BoxDuplex;

/// A version of the transfer protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// `/calimero/blob/1.0.0`: verified chunk by chunk, from many providers, resumable.
    V1,
    /// `/calimero/blob/0.0.2`: all of a blob in order, verified at its end.
    V0,
}

/// The versions in the order in which they are offered.
pub const PROTOCOLS: [Version; 2] = [Version::V1, Version::V0];

impl Version {
    /// The name under which it is negotiated.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::V1 => crate::v1::PROTOCOL,
            Self::V0 => ProtocolId::Blob.as_str(),
        }
    }
}

/// A stream to a provider.
#[derive(Debug)]
pub struct Opened<S> {
    /// The stream.
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

    /// Opens a stream to a peer, of the first of [`PROTOCOLS`] that it speaks. Cancelled by
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
