//! Connections: their state and their events.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use calimero_network_discovery::{self as discovery, liveness};
use calimero_network_primitives::{Multiaddr, PeerId, addr::without_peer};
use calimero_network_transport::{CloseCause, Link};
use libp2p::{
    core::ConnectedPoint,
    identify,
    swarm::{ConnectionError, ConnectionId},
};
use tracing::{Span, field};

use super::Actor;
#[cfg(feature = "upnp")]
use crate::status::PortMapping;
use crate::{
    command::Reply,
    error::DialError,
    event::{CloseReason, ConnectionEvent},
    status::{Connection, Direction, Path, PeerInfo, Status},
};

/// The state of an established connection.
pub(super) struct Established {
    peer: PeerId,
    since: Instant,
    direction: Direction,
    address: Multiaddr,
    path: Path,
    link: Arc<Link>,
    rtt: Option<Duration>,
    info: Option<Arc<PeerInfo>>,
    unresponsive: bool,
    /// Whether this node is closing it; the swarm has not reported the end yet.
    closing: bool,
    /// A span from the start of the connection to its end, for tracing.
    span: Span,
}

impl Actor {
    pub(super) fn on_established(
        &mut self,
        peer: PeerId,
        id: ConnectionId,
        endpoint: &ConnectedPoint,
    ) {
        let Some(link) = self.links.claim(&peer, endpoint) else {
            // The connection has closed already, or too many came at once to keep their links.
            self.swarm.close_connection(id);
            for waiter in self.dials.connected(&peer, id) {
                let _ = waiter.send(Err(DialError::Aborted));
            }
            return;
        };
        let counted = Arc::clone(&link);
        let carried = move || liveness::Carried {
            received: counted.bytes_in(),
            sent: counted.bytes_out(),
        };
        let discovery = &mut self.swarm.behaviour_mut().discovery;
        discovery.meter(peer, id, carried);
        let direction = if endpoint.is_dialer() {
            Direction::Outbound
        } else {
            Direction::Inbound
        };
        let (address, path) = (endpoint.get_remote_address(), Path::of(endpoint));
        let span = tracing::info_span!(
            parent: None,
            "connection",
            %peer,
            connection = %id,
            %address,
            %direction,
            %path,
            transport = %link.transport(),
            close_reason = field::Empty,
            received_bytes = field::Empty,
            sent_bytes = field::Empty,
        );
        let established = Established {
            peer,
            since: Instant::now(),
            direction,
            address: address.clone(),
            path,
            link,
            rtt: None,
            info: self.info_of(&peer),
            unresponsive: false,
            closing: false,
            span,
        };
        let connection = established.snapshot(id);
        self.connections.insert(id, established);
        self.count_peers();
        self.answer_bootstrapping();
        for waiter in self.dials.connected(&peer, id) {
            self.return_connection(waiter, connection.clone());
        }
        self.events.send(ConnectionEvent::Connected(connection));
    }

    pub(super) fn on_closed(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        remaining: u32,
        cause: Option<ConnectionError>,
    ) {
        if remaining == 0 {
            self.answer_info(&peer, None);
        }
        // A connection without a link was never reported, and ends the same waits.
        if let Some(closed) = self.connections.remove(&connection) {
            self.count_peers();
            self.report_close(peer, connection, &closed, remaining, cause);
        }
        if remaining == 0 && self.swarm.behaviour().discovery.is_boot_node(&peer) {
            self.boot_lists.resolve_now();
        }
        if remaining == 0 && self.dials.is_waited_for(&peer) {
            self.try_addresses(peer);
        }
    }

    fn report_close(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        closed: &Established,
        remaining: u32,
        cause: Option<ConnectionError>,
    ) {
        let reason = match cause {
            _ if closed.unresponsive => CloseReason::Unresponsive,
            None => CloseReason::Local,
            Some(ConnectionError::KeepAliveTimeout) => CloseReason::Idle,
            Some(ConnectionError::IO(error)) => CloseReason::Remote {
                cause: CloseCause::of(&error),
            },
        };
        let timed_out = CloseReason::Remote {
            cause: CloseCause::TimedOut,
        };
        if reason == timed_out {
            let discovery = &mut self.swarm.behaviour_mut().discovery;
            discovery.connection_timed_out();
        }
        if remaining == 0 && has_left(closed.path, &reason) {
            self.swarm.behaviour_mut().pubsub.on_left(peer);
        }
        (closed.span)
            .record("close_reason", field::display(&reason))
            .record("received_bytes", closed.link.bytes_in())
            .record("sent_bytes", closed.link.bytes_out());
        self.events.send(ConnectionEvent::Disconnected {
            peer,
            connection,
            reason,
            remaining,
        });
    }

    /// Closes every connection with `peer` and cancels its dial. Returns whether it was connected.
    pub(super) fn disconnect(&mut self, peer: PeerId) -> bool {
        self.closing(peer);
        for waiter in self.dials.give_up(&peer) {
            let _ = waiter.send(Err(DialError::Aborted));
        }
        self.swarm.disconnect_peer_id(peer).is_ok()
    }

    /// Marks the connections with `peer` as closing, so that no caller receives one of them.
    pub(super) fn closing(&mut self, peer: PeerId) {
        let connections = self.connections.values_mut();
        for connection in connections.filter(|connection| connection.peer == peer) {
            connection.closing = true;
        }
    }

    pub(super) fn on_identified(&mut self, peer: PeerId, info: identify::Info) {
        let info = Arc::new(PeerInfo {
            protocol_version: info.protocol_version,
            agent_version: info.agent_version,
            listening: info.listen_addrs,
            protocols: info.protocols,
            observed: info.observed_addr,
        });
        let mut news = false;
        for connection in self.connections.values_mut().filter(|c| c.peer == peer) {
            if connection.info.as_ref() != Some(&info) {
                connection.info = Some(info.clone());
                news = true;
            }
        }
        self.answer_info(&peer, Some(&info));
        if news {
            self.events.send(ConnectionEvent::Identified { peer, info });
        }
    }

    pub(super) fn wait_for_info(&mut self, peer: PeerId, reply: Reply<Option<Arc<PeerInfo>>>) {
        let info = self.info_of(&peer);
        if info.is_some() || !self.swarm.is_connected(&peer) {
            let _ = reply.send(info);
            return;
        }
        let waiters = self.identifying.entry(peer).or_default();
        waiters.retain(|waiter| !waiter.is_closed());
        waiters.push(reply);
    }

    pub(super) fn answer_info(&mut self, peer: &PeerId, info: Option<&Arc<PeerInfo>>) {
        for waiter in self.identifying.remove(peer).into_iter().flatten() {
            let _ = waiter.send(info.cloned());
        }
    }

    pub(super) fn on_liveness(&mut self, event: liveness::Event) {
        let Some(connection) = self.connections.get_mut(&event.connection) else {
            return;
        };
        let (peer, id) = (event.peer, event.connection);
        let behaviour = self.swarm.behaviour_mut();
        match event.outcome {
            liveness::Outcome::Rtt(rtt) => {
                connection.rtt = Some(rtt);
                behaviour.streams.on_round_trip(peer, id, rtt);
            }
            // None in a row where the peer does not support ping.
            liveness::Outcome::Failed { in_a_row: 1.., .. } => {
                behaviour.streams.on_ping_unanswered(peer, id);
                behaviour.pubsub.on_ping_unanswered(peer, id);
            }
            liveness::Outcome::Failed { .. } => {}
            liveness::Outcome::GivenUp { .. } => connection.unresponsive = true,
        }
    }

    pub(super) fn status(&mut self) -> Status {
        let discovery::Status {
            discovery,
            peers: paths,
            records,
            ..
        } = self.swarm.behaviour_mut().discovery.status();
        let info = self.swarm.network_info();
        let counters = info.connection_counters();
        let mut connections: Vec<_> = self
            .connections
            .iter()
            .map(|(id, connection)| connection.snapshot(*id))
            .collect();
        connections.sort_by_key(|connection| std::cmp::Reverse(connection.age));
        #[cfg(feature = "upnp")]
        let port_mappings = self.port_mappings();
        let limits = &self.swarm.behaviour().limits;
        Status {
            peer: *self.swarm.local_peer_id(),
            listening: self.swarm.listeners().cloned().collect(),
            external: self.swarm.external_addresses().cloned().collect(),
            address_sources: discovery.external_addresses,
            phase: discovery.phase,
            boot_nodes: discovery.boot_nodes,
            boot_lists: self.boot_lists.status(),
            reachability: discovery.reachability,
            reachability_changed_at: discovery.reachability_changed_at,
            last_probe: discovery.last_probe,
            probes: discovery.probes,
            admits_uncontacted_peers: discovery.admits_uncontacted_peers,
            registrations: discovery.registrations,
            reservations: discovery.reservations,
            overlays: discovery.overlays,
            paths,
            known_peers: discovery.known_peers,
            lost_peers: discovery.lost_peers,
            dials_in_flight: discovery.dials_in_flight,
            queued_dials: discovery.queued_dials,
            records,
            #[cfg(feature = "upnp")]
            port_mappings,
            connections,
            pending_outbound: counters.num_pending_outgoing(),
            pending_inbound: counters.num_pending_incoming(),
            events_dropped: self.shared.events_dropped.load(Ordering::Relaxed),
            resources: limits.resources().snapshot(),
            connections_evicted: limits.evicted(),
        }
    }

    /// The ports that the router is asked to forward.
    #[cfg(feature = "upnp")]
    pub(super) fn port_mappings(&self) -> Vec<PortMapping> {
        let mapping = self.swarm.behaviour().port_mapping.as_ref();
        let mappings = mapping.into_iter().flat_map(|mapping| mapping.mappings());
        mappings
            .map(|(port, mapping)| PortMapping {
                local: port.local(),
                external: mapping.map(|mapping| port.address_at(mapping.external)),
                protocol: mapping.map(|mapping| mapping.protocol),
            })
            .collect()
    }

    pub(super) fn info_of(&self, peer: &PeerId) -> Option<Arc<PeerInfo>> {
        let mut connections = self.connections.values();
        connections.find_map(|c| (c.peer == *peer).then(|| c.info.clone()).flatten())
    }

    /// The best connection with a peer: a direct one before a relayed one.
    pub(super) fn best_connection(&self, peer: &PeerId) -> Option<Connection> {
        self.connections
            .iter()
            .filter(|(_, connection)| connection.peer == *peer && !connection.closing)
            .min_by_key(|(_, connection)| connection.path != Path::Direct)
            .map(|(id, connection)| connection.snapshot(*id))
    }

    /// The outbound connection to an address.
    pub(super) fn dialled_connection(&self, address: &Multiaddr) -> Option<Connection> {
        self.connections
            .iter()
            .filter(|(_, connection)| !connection.closing)
            .filter(|(_, connection)| connection.direction == Direction::Outbound)
            .find(|(_, connection)| without_peer(&connection.address) == *address)
            .map(|(id, connection)| connection.snapshot(*id))
    }

    pub(super) fn count_peers(&self) {
        let peers: HashSet<_> = self.connections.values().map(|c| c.peer).collect();
        self.shared.peers.store(peers.len(), Ordering::Release);
    }
}

impl Established {
    fn snapshot(&self, id: ConnectionId) -> Connection {
        Connection {
            peer: self.peer,
            id,
            direction: self.direction,
            address: self.address.clone(),
            path: self.path,
            age: self.since.elapsed(),
            rtt: self.rtt,
            info: self.info.clone(),
            link: self.link.clone(),
        }
    }
}

/// Returns whether a peer ended its last connection itself, rather than losing it.
///
/// A relay that loses the other side of a circuit ends it in order, and a NAT without a mapping
/// answers with a reset: neither comes from the peer.
const fn has_left(path: Path, reason: &CloseReason) -> bool {
    let is_closed = matches!(
        reason,
        CloseReason::Remote {
            cause: CloseCause::Closed
        }
    );
    is_closed && matches!(path, Path::Direct)
}

#[cfg(test)]
mod tests;
