//! Agreeing on the protocol, and whether a peer that did not agree has said so.

use std::{convert::Infallible, future, io};

use libp2p_core::upgrade::{OutboundUpgrade, ProtocolError, UpgradeInfo};
use libp2p_swarm::{Stream, StreamProtocol, StreamUpgradeError};

use super::handler::FailureKind;

/// The name of the protocol in multistream-select.
pub(super) const PROTOCOL: StreamProtocol = StreamProtocol::new(NAME);

const NAME: &str = "/ipfs/ping/1.0.0";

/// No name that multistream-select could propose: names begin with a slash.
const REFUSED: &str = "";

/// Asks for ping on a new stream.
///
/// To multistream-select 0.14 a stream that ends during the negotiation is the same failure as
/// `na`. They are not the same to a liveness check: the one peer does not speak ping and never
/// will, the other had a bad moment. So the list of names has a second entry that cannot be
/// proposed. It is arrived at only when the peer has said `na` to the first, nothing of it is
/// sent, and its error is another one.
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

/// In which way an [`Ask`] failed.
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
