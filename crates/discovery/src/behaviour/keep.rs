//! Keeps connections with boot nodes and members of overlays alive, used or not, except for spares.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    convert::Infallible,
    task::{Context, Poll},
};

use calimero_network_primitives::{
    Multiaddr, PeerId,
    resources::{Protection, Resources},
};
use libp2p_core::{Endpoint, transport::PortUse, upgrade::DeniedUpgrade};
use libp2p_swarm::{
    ConnectionClosed, ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId,
    FromSwarm, NetworkBehaviour, NotifyHandler, SubstreamProtocol, THandlerInEvent, ToSwarm,
    behaviour::ConnectionEstablished, handler::ConnectionEvent,
};

/// One entry for each connection.
#[derive(Default)]
pub struct Keeper {
    kept: HashSet<PeerId>,
    /// The accounting in which the peers that are kept are protected.
    resources: Option<Resources>,
    connections: HashMap<PeerId, Vec<ConnectionId>>,
    /// Connections that are not kept although their peer is.
    spares: HashSet<ConnectionId>,
    waiting: VecDeque<ToSwarm<Infallible, bool>>,
}

impl Keeper {
    /// Sets the peers whose connections are kept alive.
    pub(super) fn keep(&mut self, peers: HashSet<PeerId>) {
        let changed = self.kept.symmetric_difference(&peers);
        for peer in changed {
            match &self.resources {
                Some(resources) if peers.contains(peer) => {
                    resources.protect(*peer, Protection::Member);
                }
                Some(resources) => resources.unprotect(*peer, Protection::Member),
                None => {}
            }
            let connections = self.connections.get(peer).into_iter().flatten();
            let connections = connections.filter(|connection| !self.spares.contains(connection));
            self.waiting
                .extend(connections.map(|connection| ToSwarm::NotifyHandler {
                    peer_id: *peer,
                    handler: NotifyHandler::One(*connection),
                    event: peers.contains(peer),
                }));
        }
        self.kept = peers;
    }

    /// Sets whether `connection` is a spare, which is not kept alive.
    pub(super) fn set_spare(&mut self, peer: PeerId, connection: ConnectionId, spare: bool) {
        let changes = match spare {
            true => self.spares.insert(connection),
            false => self.spares.remove(&connection),
        };
        if changes && self.kept.contains(&peer) {
            self.waiting.push_back(ToSwarm::NotifyHandler {
                peer_id: peer,
                handler: NotifyHandler::One(connection),
                event: !spare,
            });
        }
    }

    /// Protects the peers that are kept in `resources`, from now on.
    pub(super) fn protect_in(&mut self, resources: Resources) {
        for peer in &self.kept {
            resources.protect(*peer, Protection::Member);
        }
        self.resources = Some(resources);
    }

    fn handler(&self, peer: &PeerId) -> Handler {
        Handler {
            keep: self.kept.contains(peer),
        }
    }
}

impl NetworkBehaviour for Keeper {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(self.handler(&peer))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(self.handler(&peer))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id,
                ..
            }) => self
                .connections
                .entry(peer_id)
                .or_default()
                .push(connection_id),
            FromSwarm::ConnectionClosed(ConnectionClosed {
                peer_id,
                connection_id,
                ..
            }) => {
                self.spares.remove(&connection_id);
                if let Some(connections) = self.connections.get_mut(&peer_id) {
                    connections.retain(|id| *id != connection_id);
                    if connections.is_empty() {
                        self.connections.remove(&peer_id);
                    }
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, never: Infallible) {
        match never {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        self.waiting.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

/// The handler of one connection, which keeps it alive or not.
pub struct Handler {
    keep: bool,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = bool;
    type ToBehaviour = Infallible;
    type InboundProtocol = DeniedUpgrade;
    type OutboundProtocol = DeniedUpgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<DeniedUpgrade> {
        SubstreamProtocol::new(DeniedUpgrade, ())
    }

    fn connection_keep_alive(&self) -> bool {
        self.keep
    }

    fn on_behaviour_event(&mut self, keep: bool) {
        self.keep = keep;
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<DeniedUpgrade, (), Infallible>> {
        Poll::Pending
    }

    fn on_connection_event(&mut self, _: ConnectionEvent<'_, DeniedUpgrade, DeniedUpgrade>) {}
}

#[cfg(test)]
mod tests;
