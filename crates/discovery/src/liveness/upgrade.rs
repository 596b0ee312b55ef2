//! The negotiation of the protocol, which distinguishes a refusal from a failed stream.

use std::{convert::Infallible, future, io};

use libp2p_core::upgrade::{OutboundUpgrade, ProtocolError, UpgradeInfo};
use libp2p_swarm::{Stream, StreamProtocol, StreamUpgradeError};

/// The kind of a failed ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureKind {
    /// No answer, or no stream for the ping, within the deadline.
    Timeout,
    /// The peer does not support ping. It is not pinged again on this connection, and the
    /// connection is not closed: the peer is alive.
    Unsupported,
    /// The stream was reset, or carried another answer.
    Stream,
}

/// The name of the protocol in multistream-select.
pub(super) const PROTOCOL: StreamProtocol = StreamProtocol::new(NAME);

const NAME: &str = "/ipfs/ping/1.0.0";

/// A name that multistream-select cannot propose, because names begin with a slash.
const REFUSED: &str = "";

/// The upgrade that negotiates ping on a new stream.
///
/// multistream-select 0.14 reports a stream that ends during the negotiation like `na`. For a
/// liveness check they differ: one peer does not support ping, the other lost a stream. So the list
/// of names has a second entry that cannot be proposed. It is reached only after the peer answered
/// `na` to the first, nothing of it is sent, and its error is a different one.
#[derive(Clone, Copy, Debug)]
pub struct Ask;

impl UpgradeInfo for Ask {
    type Info = &'static str;
    type InfoIter = [&'static str; 2];

    fn protocol_info(&self) -> Self::InfoIter {
        [NAME, REFUSED]
    }
}

impl OutboundUpgrade<Stream> for Ask {
    type Output = Stream;
    type Error = Infallible;
    type Future = future::Ready<Result<Stream, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, _: &'static str) -> Self::Future {
        future::ready(Ok(stream))
    }
}

/// The kind of a failed [`Ask`].
pub(super) fn failure(error: StreamUpgradeError<Infallible>) -> FailureKind {
    match error {
        StreamUpgradeError::Timeout => FailureKind::Timeout,
        StreamUpgradeError::Io(error) if is_refusal(&error) => FailureKind::Unsupported,
        StreamUpgradeError::Io(_) | StreamUpgradeError::NegotiationFailed => FailureKind::Stream,
        StreamUpgradeError::Apply(never) => match never {},
    }
}

fn is_refusal(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    matches!(inner, Some(ProtocolError::InvalidProtocol))
}
