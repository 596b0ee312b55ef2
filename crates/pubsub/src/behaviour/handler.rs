//! Gossipsub's connection handler, and whether its streams keep a connection alive.
//!
//! Gossipsub 0.50 greets every peer, so that each connection carries a stream of it for as long as
//! it stands, and no connection would ever be idle. Here they count only for peers with which
//! something is exchanged: a mesh, a common topic, messages.

use std::task::{Context, Poll};

use futures::future::Either;
use libp2p_swarm::{
    ConnectionHandler, ConnectionHandlerEvent, SubstreamProtocol, THandler, THandlerInEvent,
    handler::{ConnectionEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound},
};

use super::Gossipsub;

type Inner = THandler<Gossipsub>;

/// What the behaviour tells a connection.
#[derive(Debug)]
pub enum ToHandler {
    /// What gossipsub tells it.
    Gossipsub(THandlerInEvent<Gossipsub>),
    /// Whether the peer is worth a connection that carries nothing else.
    Keep(bool),
}

/// Gossipsub's handler.
pub struct Handler {
    inner: Inner,
    keep: bool,
}

impl Handler {
    pub(super) fn new(inner: Inner, keep: bool) -> Self {
        Self { inner, keep }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = ToHandler;
    type ToBehaviour = <Inner as ConnectionHandler>::ToBehaviour;
    type InboundProtocol = <Inner as ConnectionHandler>::InboundProtocol;
    type OutboundProtocol = <Inner as ConnectionHandler>::OutboundProtocol;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        self.inner.listen_protocol()
    }

    fn on_behaviour_event(&mut self, event: ToHandler) {
        match event {
            ToHandler::Gossipsub(event) => self.inner.on_behaviour_event(event),
            ToHandler::Keep(keep) => self.keep = keep,
        }
    }

    fn connection_keep_alive(&self) -> bool {
        self.keep || self.inner.connection_keep_alive()
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Self::ToBehaviour>> {
        self.inner.poll(cx)
    }

    fn on_connection_event(
        &mut self,
        mut event: ConnectionEvent<Self::InboundProtocol, Self::OutboundProtocol>,
    ) {
        match &mut event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: Either::Left((stream, _)),
                ..
            })
            | ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: (stream, _),
                ..
            }) => stream.ignore_for_keep_alive(),
            _ => {}
        }
        self.inner.on_connection_event(event);
    }
}
