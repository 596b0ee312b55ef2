//! One connection's part: asks for the substreams that were assigned to it, announces the accepted
//! protocols and hands over what was negotiated. Decides nothing.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    io,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use libp2p_core::upgrade::{InboundUpgrade, ReadyUpgrade, UpgradeInfo};
use libp2p_identity::PeerId;
use libp2p_swarm::{
    ConnectionHandler, ConnectionHandlerEvent, ConnectionId, Stream, StreamProtocol,
    StreamUpgradeError, SubstreamProtocol,
    handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound},
};

use crate::{
    router::RequestId,
    shared::{Mailbox, Negotiated, Shared},
};

/// The handler of one connection.
#[derive(Debug)]
pub struct Handler {
    peer: PeerId,
    connection: ConnectionId,
    shared: Arc<Shared>,
    mailbox: Arc<Mailbox>,
    protocols: Arc<[StreamProtocol]>,
    protocols_version: Option<u64>,
    timeout: Duration,
}

impl Handler {
    pub(crate) fn new(peer: PeerId, connection: ConnectionId, shared: Arc<Shared>) -> Self {
        let mut protocols_version = None;
        let protocols = shared
            .protocols_since(&mut protocols_version)
            .unwrap_or_else(|| Arc::from([]));
        Self {
            peer,
            connection,
            mailbox: shared.mailbox(connection),
            timeout: shared.open_timeout(),
            shared,
            protocols,
            protocols_version,
        }
    }

    fn negotiated(&self, id: RequestId, result: Negotiated) {
        self.shared
            .negotiated(self.peer, self.connection, id, result);
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = Accepted;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = RequestId;

    fn listen_protocol(&self) -> SubstreamProtocol<Accepted> {
        SubstreamProtocol::new(Accepted(self.protocols.clone()), ())
    }

    /// A request that was just assigned keeps the connection; open streams do so by themselves.
    fn connection_keep_alive(&self) -> bool {
        !self.mailbox.is_empty()
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<ReadyUpgrade<StreamProtocol>, RequestId, Infallible>> {
        self.mailbox.handler.register(cx.waker());
        if let Some(protocols) = self.shared.protocols_since(&mut self.protocols_version) {
            self.protocols = protocols;
        }
        while let Some(command) = self.mailbox.pop() {
            if !self.shared.is_wanted(command.id) {
                self.negotiated(command.id, Negotiated::Skipped);
                continue;
            }
            let protocol = SubstreamProtocol::new(ReadyUpgrade::new(command.protocol), command.id)
                .with_timeout(self.timeout);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Accepted, ReadyUpgrade<StreamProtocol>, (), RequestId>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (stream, protocol),
                ..
            }) => self
                .shared
                .arrived(self.peer, self.connection, protocol, stream),
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: stream,
                info: id,
            }) => self.negotiated(id, Negotiated::Opened(stream)),
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info: id, error }) => {
                self.negotiated(id, why(error));
            }
            _ => {}
        }
    }
}

fn why(error: StreamUpgradeError<Infallible>) -> Negotiated {
    match error {
        StreamUpgradeError::NegotiationFailed => Negotiated::Unsupported,
        StreamUpgradeError::Timeout => Negotiated::TimedOut,
        StreamUpgradeError::Io(error) => Negotiated::Broken(error),
        StreamUpgradeError::Apply(never) => match never {},
    }
}

/// Accepts any of the protocols, and says which it was.
#[derive(Clone, Debug)]
pub struct Accepted(Arc<[StreamProtocol]>);

impl UpgradeInfo for Accepted {
    type Info = StreamProtocol;
    type InfoIter = Names;

    fn protocol_info(&self) -> Names {
        Names {
            protocols: self.0.clone(),
            next: 0,
        }
    }
}

/// The names of the accepted protocols.
#[derive(Clone, Debug)]
pub struct Names {
    protocols: Arc<[StreamProtocol]>,
    next: usize,
}

impl Iterator for Names {
    type Item = StreamProtocol;

    fn next(&mut self) -> Option<StreamProtocol> {
        let name = self.protocols.get(self.next).cloned();
        self.next += 1;
        name
    }
}

impl InboundUpgrade<Stream> for Accepted {
    type Output = (Stream, StreamProtocol);
    type Error = io::Error;
    type Future = Ready<Result<Self::Output, Self::Error>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}
