//! The limits of connections: how many there may be for the node, an origin and a peer, and which
//! inbound connection is closed to make room for another one.
//!
//! [`Behaviour`] replaces libp2p-connection-limits, whose one total lets peers that connect take
//! the connections that this node needs for its own dials. It counts in the
//! [`Resources`] of the node, so that each direction has a budget of its own, one address gets a
//! part, and a reserve stays for boot nodes, configured peers and members of overlays.

mod table;

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    task::{Context, Poll, Waker},
};

use calimero_network_primitives::{
    Multiaddr, PeerId,
    resources::{Origin, Permit, Refused, Resource, Resources},
};
use libp2p_core::{Endpoint, transport::PortUse};
use libp2p_swarm::{
    CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm, dummy,
};

use self::table::Table;
use crate::server::now;

/// Admits connections within the limits of a [`Resources`].
///
/// A refused connection is denied with [`Refused`] as its cause. It belongs before all behaviours
/// that hold anything for a connection, so that a refused one does not reach them.
#[derive(Debug)]
pub struct Behaviour {
    resources: Resources,
    pending: HashMap<ConnectionId, Permit>,
    table: Table,
    closing: VecDeque<(PeerId, ConnectionId)>,
    evicted: u64,
    waker: Option<Waker>,
}

impl Behaviour {
    /// A behaviour that counts in `resources`.
    #[must_use]
    pub fn new(resources: Resources) -> Self {
        Self {
            resources,
            pending: HashMap::new(),
            table: Table::default(),
            closing: VecDeque::new(),
            evicted: 0,
            waker: None,
        }
    }

    /// The accounting that connections are counted in.
    #[must_use]
    pub fn resources(&self) -> &Resources {
        &self.resources
    }

    /// Inbound connections that were closed to make room for others, since the start.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Takes a permit for an established connection; closes others for it if need be.
    fn admit(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        origin: Option<Origin>,
        direction: Resource,
    ) -> Result<(), Refused> {
        let now = now();
        let holder = self.resources.holder(Some(peer), origin);
        let inbound = direction == Resource::InboundConnections;
        // One is not enough where protected peers use part of what the reserve leaves to others. The
        // table bounds the connections that close at one time, and with it this loop.
        let permit = loop {
            let refused = match holder.take(direction, 1) {
                Ok(permit) => break permit,
                Err(refused) => refused,
            };
            let victim = inbound.then(|| self.table.victim(&holder, refused.scope, now));
            let Some((peer, victim)) = victim.flatten() else {
                return Err(refused);
            };
            self.table.evict(victim);
            self.evicted += 1;
            self.closing.push_back((peer, victim));
            if let Some(waker) = self.waker.take() {
                waker.wake();
            }
        };
        self.table.insert(id, permit, direction, now);
        Ok(())
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let holder = self
            .resources
            .holder(None, Origin::of_inbound(local, remote));
        let permit = holder.take(Resource::PendingInbound, 1);
        self.pending
            .insert(id, permit.map_err(ConnectionDenied::new)?);
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.pending.remove(&id);
        let origin = Origin::of_inbound(local, remote);
        self.admit(id, peer, origin, Resource::InboundConnections)
            .map_err(ConnectionDenied::new)?;
        Ok(dummy::ConnectionHandler)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        let holder = self.resources.holder(peer, None);
        let permit = holder.take(Resource::PendingOutbound, 1);
        self.pending
            .insert(id, permit.map_err(ConnectionDenied::new)?);
        Ok(Vec::new())
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.pending.remove(&id);
        self.admit(
            id,
            peer,
            Origin::of_addr(address),
            Resource::OutboundConnections,
        )
        .map_err(ConnectionDenied::new)?;
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionClosed(closed) => self.table.remove(closed.connection_id),
            // A connection that another behaviour refused after this one admitted it ends here too.
            FromSwarm::DialFailure(failure) => {
                self.pending.remove(&failure.connection_id);
                self.table.remove(failure.connection_id);
            }
            FromSwarm::ListenFailure(failure) => {
                self.pending.remove(&failure.connection_id);
                self.table.remove(failure.connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        match self.closing.pop_front() {
            Some((peer_id, connection)) => Poll::Ready(ToSwarm::CloseConnection {
                peer_id,
                connection: CloseConnection::One(connection),
            }),
            None => {
                self.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}
