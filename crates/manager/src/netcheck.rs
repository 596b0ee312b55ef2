//! What a running node knows about its network, for [`netcheck::judge`].

use std::{collections::HashMap, net::SocketAddr};

use calimero_network_discovery::{
    machine::{LastProbe, ProbeOutcome, Reachability, ReachableBecause},
    netcheck::{self, DialBack, Family, Observations, ObservedAddress, Transport, endpoint_of},
};
use calimero_network_transport::TransportKind;
use libp2p::swarm::ConnectionId;

#[cfg(feature = "upnp")]
use crate::status::PortMapping;
use crate::status::{Connection, Direction, Path, Status};

impl Status {
    /// Returns what this node knows about its network, for [`netcheck::judge`]. It tries nothing: a
    /// protocol that no connection uses is missing.
    #[must_use]
    pub fn observations(&self) -> Observations {
        let from_listening_port: HashMap<ConnectionId, bool> = self
            .paths
            .iter()
            .flat_map(|peer| &peer.connections)
            .map(|connection| (connection.id, connection.from_listening_port))
            .collect();
        let dialled = self.connections.iter().filter(|connection| {
            let is_from_it = from_listening_port.get(&connection.id) == Some(&true);
            is_from_it && connection.direction == Direction::Outbound
        });
        let endpoints = self.listening.iter().filter_map(endpoint_of);
        Observations {
            own: endpoints.map(|(_, at)| at.ip()).collect(),
            observed: dialled.filter_map(observed_address).collect(),
            dial_backs: self
                .probes
                .iter()
                .filter_map(|probe| self.dial_back(probe))
                .collect(),
            attempts: Vec::new(),
            admits_uncontacted_peers: self.admits_uncontacted_peers,
            configured: matches!(
                self.reachability,
                Reachability::Reachable {
                    why: ReachableBecause::Configured | ReachableBecause::LocalNetwork
                }
            ),
            port_mapping: self.port_mapping(),
        }
    }

    /// The result of a probe. A server that this node is connected with over the probed protocol was
    /// sent packets. One that reached this node without counts as sent to as well, because a
    /// connection that has ended may have opened the filter.
    fn dial_back(&self, probe: &LastProbe) -> Option<DialBack> {
        let (transport, at) = endpoint_of(&probe.address)?;
        let reached = match probe.outcome {
            ProbeOutcome::Reached => true,
            ProbeOutcome::NotReached => false,
            ProbeOutcome::NotTried => return None,
        };
        let is_of_server = |connection: &&Connection| {
            let other = endpoint_of(&connection.address);
            let is_same = |(over, other): (Transport, SocketAddr)| {
                over == transport && Family::of(other.ip()) == Family::of(at.ip())
            };
            // A connection by a name may have either version of IP.
            connection.peer == probe.server
                && other.map_or(protocol_of(connection) == Some(transport), is_same)
        };
        Some(DialBack {
            transport,
            family: Family::of(at.ip()),
            reached,
            contacted: reached || self.connections.iter().any(|one| is_of_server(&one)),
        })
    }

    #[cfg(feature = "upnp")]
    fn port_mapping(&self) -> netcheck::PortMapping {
        let is_mapped = |mapping: &PortMapping| mapping.external.is_some();
        match self.port_mappings.as_slice() {
            [] => netcheck::PortMapping::Off,
            mappings if mappings.iter().any(is_mapped) => netcheck::PortMapping::Mapped,
            _ => netcheck::PortMapping::NotMapped,
        }
    }

    #[cfg(not(feature = "upnp"))]
    fn port_mapping(&self) -> netcheck::PortMapping {
        netcheck::PortMapping::Off
    }
}

/// The protocol below a direct connection.
fn protocol_of(connection: &Connection) -> Option<Transport> {
    match connection.transport() {
        TransportKind::Tcp => Some(Transport::Tcp),
        TransportKind::Quic => Some(Transport::Udp),
        // WebSocket never dials from the listening port.
        TransportKind::WebSocket | TransportKind::Memory | TransportKind::Relay => None,
    }
}

/// The address at which the peer of a connection sees this node.
fn observed_address(connection: &Connection) -> Option<ObservedAddress> {
    let info = connection.info.as_ref()?;
    // Identify reports one address for all connections with the peer.
    let (transport, observed) = endpoint_of(&info.observed)?;
    if connection.path != Path::Direct || protocol_of(connection) != Some(transport) {
        return None;
    }
    // An address that was dialled by its name does not contain the IP of the peer.
    let is_same_family = |at: &SocketAddr| Family::of(at.ip()) == Family::of(observed.ip());
    let dialled = std::iter::once(&connection.address);
    let mut addresses = dialled.chain(&info.listening).filter_map(endpoint_of);
    let server = addresses.find_map(|(_, at)| is_same_family(&at).then_some(at.ip()))?;
    Some(ObservedAddress {
        transport,
        server,
        observed,
    })
}
