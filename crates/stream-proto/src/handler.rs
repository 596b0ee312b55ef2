//! The handler of one connection: requests the substreams that the router
//! assigned to the connection, announces the accepted protocols and passes
//! negotiated streams to the shared state. It also removes protocols from an
//! offer that the peer does not announce.

use std::{
    cell::RefCell,
    collections::HashSet,
    convert::Infallible,
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use calimero_network_primitives::resources::Origin;
use libp2p_core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p_identity::PeerId;
use libp2p_swarm::{
    ConnectionHandler, ConnectionHandlerEvent, ConnectionId, Stream, StreamProtocol,
    StreamUpgradeError, SubstreamProtocol,
    handler::{
        ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
        ProtocolsChange,
    },
};

use crate::{
    budget::FrameBudget,
    router::RequestId,
    shared::{Mailbox, Negotiated, Shared},
};

/// The connection handler of [`Behaviour`](crate::Behaviour).
#[derive(Debug)]
pub struct Handler {
    peer: PeerId,
    connection: ConnectionId,
    shared: Arc<Shared>,
    budget: FrameBudget,
    mailbox: Arc<Mailbox>,
    /// The list is refreshed when it is read. The swarm asks for it after a
    /// stream has arrived, so a protocol is negotiable from the moment that
    /// `accept` returns, whether or not this handler was polled in between.
    accepted: RefCell<Accepted>,
    /// Protocols that the peer announced. Identify bounds the set: its message
    /// is limited to 4 KiB.
    announced: HashSet<StreamProtocol>,
    timeout: Duration,
}

/// The protocols that the node accepts, as of one version of the shared list.
#[derive(Debug, Default)]
struct Accepted {
    protocols: Arc<[StreamProtocol]>,
    version: Option<u64>,
}

impl Handler {
    pub(crate) fn new(
        peer: PeerId,
        connection: ConnectionId,
        origin: Option<Origin>,
        shared: Arc<Shared>,
    ) -> Self {
        let holder = shared.resources.holder(Some(peer), origin);
        Self {
            peer,
            connection,
            budget: FrameBudget::new(holder),
            mailbox: shared.mailbox(connection),
            timeout: shared.open_timeout(),
            shared,
            accepted: RefCell::default(),
            announced: HashSet::new(),
        }
    }

    fn negotiated(&self, id: RequestId, result: Negotiated) {
        self.shared
            .negotiated(self.peer, self.connection, id, result, &self.budget);
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = AnyOf;
    type OutboundProtocol = AnyOf;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = RequestId;

    fn listen_protocol(&self) -> SubstreamProtocol<AnyOf> {
        let mut accepted = self.accepted.borrow_mut();
        if let Some(protocols) = self.shared.protocols_since(&mut accepted.version) {
            accepted.protocols = protocols;
        }
        SubstreamProtocol::new(AnyOf(accepted.protocols.clone()), ())
    }

    /// Keeps the connection alive while a request is assigned to it. Open
    /// streams keep it alive automatically.
    fn connection_keep_alive(&self) -> bool {
        !self.mailbox.is_empty()
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<AnyOf, RequestId, Infallible>> {
        // Registered before the check below, so that a command that arrives
        // after it wakes this task again.
        self.mailbox.handler.register(cx.waker());
        while let Some(command) = self.mailbox.pop() {
            if !self.shared.is_wanted(command.id) {
                self.negotiated(command.id, Negotiated::Skipped);
                continue;
            }
            let offer = offer(command.wanted, &command.fallbacks, &self.announced);
            let protocol =
                SubstreamProtocol::new(AnyOf(offer), command.id).with_timeout(self.timeout);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, AnyOf, AnyOf, (), RequestId>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (stream, protocol),
                ..
            }) => {
                self.shared
                    .on_inbound(self.peer, self.connection, protocol, stream, &self.budget)
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: (stream, protocol),
                info: id,
            }) => self.negotiated(id, Negotiated::Opened(stream, protocol)),
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info: id, error }) => {
                self.negotiated(id, negotiation_error(error));
            }
            ConnectionEvent::RemoteProtocolsChange(ProtocolsChange::Added(added)) => {
                self.announced.extend(added.cloned());
            }
            ConnectionEvent::RemoteProtocolsChange(ProtocolsChange::Removed(removed)) => {
                for protocol in removed {
                    self.announced.remove(protocol);
                }
            }
            _ => {}
        }
    }
}

/// Selects the protocols to offer: those that the peer has announced, or all of
/// them if it has announced none. The negotiation thus never depends on
/// announcements alone.
fn offer(
    wanted: StreamProtocol,
    fallbacks: &[StreamProtocol],
    announced: &HashSet<StreamProtocol>,
) -> Arc<[StreamProtocol]> {
    let all = || std::iter::once(&wanted).chain(fallbacks);
    let known: Arc<[_]> = (all().filter(|one| announced.contains(*one)).cloned()).collect();
    if known.is_empty() {
        return all().cloned().collect();
    }
    known
}

fn negotiation_error(error: StreamUpgradeError<Infallible>) -> Negotiated {
    match error {
        StreamUpgradeError::NegotiationFailed => Negotiated::Unsupported,
        StreamUpgradeError::Timeout => Negotiated::TimedOut,
        StreamUpgradeError::Io(error) => Negotiated::Broken(error),
        StreamUpgradeError::Apply(never) => match never {},
    }
}

/// An upgrade that negotiates one of several protocols in order of preference.
#[derive(Clone, Debug)]
pub struct AnyOf(Arc<[StreamProtocol]>);

impl UpgradeInfo for AnyOf {
    type Info = StreamProtocol;
    type InfoIter = Names;

    fn protocol_info(&self) -> Names {
        Names {
            protocols: self.0.clone(),
            next: 0,
        }
    }
}

/// Iterator over the names of the protocols of an [`AnyOf`].
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

impl InboundUpgrade<Stream> for AnyOf {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Self::Error>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}

impl OutboundUpgrade<Stream> for AnyOf {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Self::Error>>;

    fn upgrade_outbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}
