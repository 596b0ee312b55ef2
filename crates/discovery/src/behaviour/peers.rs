//! The connections of each peer, their paths, and the results of hole punches.

use std::{collections::HashMap, net::IpAddr};

use calimero_network_primitives::{
    Multiaddr, PeerId,
    addr::{AddressTransport, Circuit, transport_of},
};
use libp2p_core::ConnectedPoint;
use libp2p_swarm::ConnectionId;

use super::{
    circuits::Circuits,
    local_ip::local_ip_of,
    status::{ConnectionStatus, PeerStatus},
};
use crate::machine::{CircuitLimit, HolePunch, Machine, Path};

#[derive(Clone, Debug)]
struct Connection {
    id: ConnectionId,
    path: Path,
    address: Multiaddr,
    /// Local address, as far as it is known.
    local_ip: Option<IpAddr>,
    dialled: bool,
    /// Whether the connection was dialled from a listening port.
    from_listening_port: bool,
    /// Whether the peer has reported an address at which it observes this node.
    observes: bool,
    /// Relay of the connection, as far as it is known.
    relay: Option<PeerId>,
    /// Limit of the circuit, once the relay named it.
    limit: Option<CircuitLimit>,
}

impl Connection {
    /// The relay through which this node dialled the connection.
    fn dialled_through(&self) -> Option<PeerId> {
        self.relay.filter(|_| self.dialled)
    }

    const fn is_accepted_circuit(&self) -> bool {
        !self.dialled && matches!(self.path, Path::Relayed)
    }
}

#[derive(Clone, Debug, Default)]
struct Peer {
    connections: Vec<Connection>,
    hole_punch: Option<HolePunch>,
}

impl Peer {
    fn path(&self) -> Option<Path> {
        let mut paths = self.connections.iter().map(|c| c.path);
        let first = paths.next()?;
        Some(
            if first == Path::Direct || paths.any(|path| path == Path::Direct) {
                Path::Direct
            } else {
                Path::Relayed
            },
        )
    }
}

/// A connection that may use a local address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Affected {
    pub(super) peer: PeerId,
    pub(super) connection: ConnectionId,
    /// Whether it uses the address. Otherwise its local address is not known.
    pub(super) is_certain: bool,
}

/// The best path to a peer before and after a change.
pub(super) type PathChange = (Option<Path>, Option<Path>);

/// The connected peers. The Swarm limits their number.
#[derive(Debug, Default)]
pub(super) struct Peers {
    peers: HashMap<PeerId, Peer>,
    circuits: Circuits,
}

impl Peers {
    /// A connection was established, from a port that this node listens on if `from_listening_port`.
    pub(super) fn opened(
        &mut self,
        peer: PeerId,
        id: ConnectionId,
        endpoint: &ConnectedPoint,
        from_listening_port: bool,
    ) -> PathChange {
        let mut connection = Connection {
            id,
            path: path_of(endpoint),
            address: endpoint.get_remote_address().clone(),
            local_ip: local_ip_of(endpoint),
            dialled: endpoint.is_dialer(),
            from_listening_port,
            observes: false,
            relay: relay_of(endpoint),
            limit: None,
        };
        connection.limit = match connection.dialled_through() {
            Some(relay) => self.circuits.limit_of_dialled(&relay),
            None if connection.is_accepted_circuit() => self.circuits.take_limit_of_accepted(&peer),
            None => None,
        };
        let peer = self.peers.entry(peer).or_default();
        let before = peer.path();
        peer.connections.push(connection);
        (before, peer.path())
    }

    /// `relay` opened a circuit for this node. Its connection may be established already.
    pub(super) fn on_circuit_dialled(&mut self, relay: PeerId, limit: CircuitLimit) {
        self.circuits.on_dialled(relay, limit);
        let connections = self
            .peers
            .values_mut()
            .flat_map(|peer| &mut peer.connections);
        let unknown = connections.filter(|c| c.limit.is_none());
        for connection in unknown.filter(|c| c.dialled_through() == Some(relay)) {
            connection.limit = Some(limit);
        }
    }

    /// `peer` opened a circuit to this node. Its connection may be established already.
    pub(super) fn on_circuit_accepted(&mut self, peer: PeerId, limit: CircuitLimit) {
        let of_peer = self.peers.get_mut(&peer).into_iter();
        let mut connections = of_peer.flat_map(|peer| &mut peer.connections);
        match connections.find(|c| c.limit.is_none() && c.is_accepted_circuit()) {
            Some(connection) => connection.limit = Some(limit),
            None => self.circuits.on_accepted(peer, limit),
        }
    }

    pub(super) fn closed(&mut self, id: PeerId, connection: ConnectionId) -> PathChange {
        let Some(peer) = self.peers.get_mut(&id) else {
            return (None, None);
        };
        let before = peer.path();
        peer.connections.retain(|c| c.id != connection);
        let after = peer.path();
        if after.is_none() {
            self.peers.remove(&id);
        }
        (before, after)
    }

    /// The remote address of a connection changed.
    pub(super) fn moved(&mut self, peer: &PeerId, connection: ConnectionId, to: &ConnectedPoint) {
        let connections = self.peers.get_mut(peer).map(|peer| &mut peer.connections);
        let mut connections = connections.into_iter().flatten();
        if let Some(moved) = connections.find(|c| c.id == connection) {
            moved.address = to.get_remote_address().clone();
            moved.local_ip = local_ip_of(to);
        }
    }

    /// Returns the connections that may use the local address `ip`, relayed ones included, because
    /// the connection with their relay may use it. Returns none if no direct connection does.
    pub(super) fn using(&self, ip: Option<IpAddr>) -> Vec<Affected> {
        let may_use = |c: &Connection| c.local_ip.is_none() || ip.is_none() || c.local_ip == ip;
        let all = (self.peers.iter())
            .flat_map(|(peer, of_peer)| of_peer.connections.iter().map(|c| (*peer, c)));
        let using: Vec<_> = all.filter(|(_, c)| may_use(c)).collect();
        if using.iter().all(|(_, c)| c.path == Path::Relayed) {
            return Vec::new();
        }
        let affected = using.into_iter().map(|(peer, c)| Affected {
            peer,
            connection: c.id,
            is_certain: c.local_ip.is_some() && c.local_ip == ip,
        });
        affected.collect()
    }

    pub(super) fn hole_punched(&mut self, peer: &PeerId, outcome: HolePunch) {
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.hole_punch = Some(outcome);
        }
    }

    /// Returns whether `peer` established `connection` through a relay.
    pub(super) fn came_through_relay(&self, peer: &PeerId, connection: ConnectionId) -> bool {
        let connections = self.peers.get(peer).map(|peer| &peer.connections);
        let mut connections = connections.into_iter().flatten();
        connections.any(|c| c.id == connection && !c.dialled && c.path == Path::Relayed)
    }

    /// Returns the relay of the latest relayed connection with `peer`, as far as it is known.
    pub(super) fn latest_relay(&self, peer: &PeerId) -> Option<PeerId> {
        let mut connections = self.peers.get(peer)?.connections.iter().rev();
        connections.find(|c| c.path == Path::Relayed)?.relay
    }

    /// `peer` reports an address at which it observes this node. Returns whether it is the first
    /// one on a connection that was dialled from a listening port.
    pub(super) fn observes_first(&mut self, peer: &PeerId, connection: ConnectionId) -> bool {
        let peer = self.peers.get_mut(peer);
        let mut connections = peer.into_iter().flat_map(|peer| &mut peer.connections);
        let connection = connections.find(|c| c.id == connection && c.from_listening_port);
        connection.is_some_and(|connection| !std::mem::replace(&mut connection.observes, true))
    }

    pub(super) fn status(&self, machine: &Machine) -> Vec<PeerStatus> {
        let mut status: Vec<_> = self
            .peers
            .iter()
            .filter_map(|(id, peer)| {
                Some(PeerStatus {
                    peer: *id,
                    path: peer.path()?,
                    connections: peer.connections.iter().map(connection_status).collect(),
                    last_hole_punch: peer.hole_punch,
                    why_relayed: machine.why_relayed(id),
                    next_hole_punch: machine.next_hole_punch(id),
                })
            })
            .collect();
        status.sort_unstable_by_key(|peer| peer.peer);
        status
    }
}

fn connection_status(connection: &Connection) -> ConnectionStatus {
    ConnectionStatus {
        id: connection.id,
        path: connection.path,
        // The address of a peer that connected through a relay is only its peer id.
        transport: match connection.path {
            Path::Relayed => Some(AddressTransport::Circuit),
            Path::Direct => transport_of(&connection.address),
        },
        address: connection.address.clone(),
        dialled: connection.dialled,
        from_listening_port: connection.from_listening_port,
        circuit_limit: connection.limit,
    }
}

/// Returns the relay of a connection. It is not known of a reservation that this node has over a
/// connection which the relay dialled.
fn relay_of(endpoint: &ConnectedPoint) -> Option<PeerId> {
    let address = match endpoint {
        ConnectedPoint::Dialer { address, .. } => address,
        ConnectedPoint::Listener { local_addr, .. } => local_addr,
    };
    let circuit = Circuit::parse(address).ok()?;
    Some(circuit.relay())
}

/// Returns the path of a connection.
pub(super) fn path_of(endpoint: &ConnectedPoint) -> Path {
    if endpoint.is_relayed() {
        Path::Relayed
    } else {
        Path::Direct
    }
}

#[cfg(test)]
mod tests;
