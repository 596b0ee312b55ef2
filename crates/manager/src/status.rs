//! Snapshots of the manager: addresses, connections, peers.

use std::{
    fmt,
    sync::Arc,
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

#[cfg(feature = "upnp")]
use calimero_network_discovery::port_mapping;
use calimero_network_discovery::{
    behaviour::PeerStatus,
    machine::{
        AddressSource, BootNodeStatus, LastProbe, Namespace, OverlayStatus, Phase, Reachability,
        RegistrationStatus, ReservationStatus,
    },
};
use calimero_network_primitives::{Multiaddr, PeerId, addr::Circuit, resources::Usage};
use calimero_network_transport::{Link, MuxerKind, SecurityKind, TransportKind};
use libp2p::{StreamProtocol, core::ConnectedPoint, swarm::ConnectionId};
use serde::{Serialize, Serializer, ser::SerializeStruct as _};

use crate::{boot_list::BootListStatus, json, read_cache::Changes};

/// A provider of a blob, as the DHT names it.
#[cfg(feature = "blobs")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobProvider {
    /// The peer id of the provider.
    pub peer: PeerId,
    /// The size of the blob in bytes, if the provider has signed its record.
    pub size_bytes: Option<u64>,
}

/// A snapshot of the manager: addresses, discovery, connections.
///
/// Times are those of this process. `SystemTime::now() - changed_at.elapsed()` is the time of day.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// This node's peer id.
    pub peer: PeerId,
    /// Addresses listened on, without `/p2p`.
    pub listening: Vec<Multiaddr>,
    /// External addresses, at which other peers can reach this node.
    pub external: Vec<Multiaddr>,
    /// The sources of each external address.
    pub address_sources: Vec<(Multiaddr, Vec<AddressSource>)>,
    /// Phase of discovery.
    pub phase: Phase,
    /// Boot nodes, configured ones and those of lists, and why those that are not connected cannot be
    /// reached.
    pub boot_nodes: Vec<BootNodeStatus>,
    /// Lists of boot nodes in DNS, in the order of `discovery.boot`.
    pub boot_lists: Vec<BootListStatus>,
    /// Reachability of this node and how it is known.
    pub reachability: Reachability,
    /// Time at which the reachability changed last, or at which the node started.
    pub reachability_changed_at: Instant,
    /// Latest probe of an address of this node.
    pub last_probe: Option<LastProbe>,
    /// Latest probe of each address that may be an external one.
    pub probes: Vec<LastProbe>,
    /// Whether a peer connected directly that this node never sent a packet to, since the network
    /// last changed.
    pub admits_uncontacted_peers: bool,
    /// Registrations at rendezvous servers, ordered by server and overlay.
    pub registrations: Vec<RegistrationStatus>,
    /// Reservations at relays, ordered by relay.
    pub reservations: Vec<ReservationStatus>,
    /// Overlays that this node is a member of, with the counts of their members.
    pub overlays: Vec<(Namespace, OverlayStatus)>,
    /// The path to each connected peer, ordered by peer id.
    pub paths: Vec<PeerStatus>,
    /// Number of peers in the address book.
    pub known_peers: usize,
    /// Number of lost peers that are dialled again.
    pub lost_peers: usize,
    /// Number of dials of discovery under way.
    pub dials_in_flight: usize,
    /// Number of peers that wait to be dialled.
    pub queued_dials: usize,
    /// Number of DHT records that this node stores for itself and for others.
    pub records: usize,
    /// The ports that the router is asked to forward, if `discovery.port_mapping` is on.
    #[cfg(feature = "upnp")]
    pub port_mappings: Vec<PortMapping>,
    /// Established connections, oldest first.
    pub connections: Vec<Connection>,
    /// Number of outbound connections being set up.
    pub pending_outbound: u32,
    /// Number of inbound connections being set up.
    pub pending_inbound: u32,
    /// Number of messages dropped since the start because the reader of events was too slow.
    pub events_dropped: u64,
    /// What peers hold of each resource, and its limit.
    pub resources: Vec<Usage>,
    /// Number of inbound connections that were closed since the start to admit others.
    pub connections_evicted: u64,
}

impl Status {
    /// The connected peers, each of them once.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerId> {
        let mut peers: Vec<_> = self.connections.iter().map(|c| c.peer).collect();
        peers.sort_unstable();
        peers.dedup();
        peers
    }
}

/// A port that the router is asked to forward.
#[cfg(feature = "upnp")]
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PortMapping {
    /// The address that this node listens on.
    pub local: Multiaddr,
    /// The address at the router, if it forwards the port. The node announces it after another peer
    /// has reached it; see [`Status::external`].
    pub external: Option<Multiaddr>,
    /// The protocol by which the router granted the mapping.
    pub protocol: Option<port_mapping::Protocol>,
}

/// An established connection to a peer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Connection {
    /// The id of the remote peer.
    pub peer: PeerId,
    /// The number of the connection in this process.
    pub id: ConnectionId,
    /// The side that dialled the connection.
    pub direction: Direction,
    /// The remote address: the one that was dialled, or the one the connection came from.
    pub address: Multiaddr,
    /// Direct or through a relay.
    pub path: Path,
    /// Time since the end of the handshake.
    pub age: Duration,
    /// The last round-trip time that ping measured.
    pub rtt: Option<Duration>,
    /// The identify information of the peer, once received.
    pub info: Option<Arc<PeerInfo>>,
    /// The link below the connection, with its byte counters.
    pub link: Arc<Link>,
}

impl Serialize for Connection {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let relay = match self.path {
            Path::Direct => None,
            Path::Relayed { relay } => relay,
        };
        let mut fields = to.serialize_struct("Connection", 10)?;
        fields.serialize_field("peer", &self.peer.to_base58())?;
        fields.serialize_field("connection", &self.id.to_string())?;
        fields.serialize_field("address", &self.address)?;
        fields.serialize_field("inbound", &(self.direction == Direction::Inbound))?;
        fields.serialize_field("transport", &self.transport().to_string())?;
        fields.serialize_field("security", &self.security().to_string())?;
        fields.serialize_field("muxer", &self.muxer().to_string())?;
        fields.serialize_field("path", &self.path.to_string())?;
        fields.serialize_field("relay", &relay.map(|relay| relay.to_base58()))?;
        fields.serialize_field("rtt_ms", &self.rtt.map(|rtt| rtt.as_secs_f64() * 1e3))?;
        fields.end()
    }
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = match self.direction {
            Direction::Inbound => "from",
            Direction::Outbound => "to",
        };
        write!(
            f,
            "{} ({way} {}; {}, {}, {}, {})",
            self.peer,
            self.address,
            self.transport(),
            self.security(),
            self.muxer(),
            self.path
        )
    }
}

impl Connection {
    /// The transport of the connection.
    #[must_use]
    pub fn transport(&self) -> TransportKind {
        self.link.transport()
    }

    /// The security protocol of the connection.
    #[must_use]
    pub fn security(&self) -> SecurityKind {
        self.link.security()
    }

    /// The stream multiplexer of the connection.
    #[must_use]
    pub fn muxer(&self) -> MuxerKind {
        self.link.muxer()
    }
}

/// The side that dialled a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The remote peer dialled.
    Inbound,
    /// This node dialled the peer.
    Outbound,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        })
    }
}

/// How a connection reaches its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// A direct connection, without a relay.
    Direct,
    /// Through a relay, which carries a bounded number of bytes for a bounded time.
    Relayed {
        /// The relay, if the address names it.
        relay: Option<PeerId>,
    },
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::Relayed { .. } => "relayed",
        })
    }
}

impl Path {
    pub(crate) fn of(endpoint: &ConnectedPoint) -> Self {
        if !endpoint.is_relayed() {
            return Self::Direct;
        }
        let address = match endpoint {
            ConnectedPoint::Dialer { address, .. } => address,
            ConnectedPoint::Listener { local_addr, .. } => local_addr,
        };
        let relay = Circuit::parse(address).ok().map(|circuit| circuit.relay());
        Self::Relayed { relay }
    }
}

/// The identify information of a peer. Only the peer id is verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PeerInfo {
    /// The version of the protocol family, such as `/calimero-network/0.12.0`.
    pub protocol_version: String,
    /// Name and version of the program.
    pub agent_version: String,
    /// The addresses that the peer listens on.
    pub listening: Vec<Multiaddr>,
    /// The protocols that the peer accepts streams of.
    #[serde(serialize_with = "json::texts")]
    pub protocols: Vec<StreamProtocol>,
    /// The address of this node that the peer observes.
    pub observed: Multiaddr,
}

/// What clients read without asking the actor: one writer, the actor; any number of readers.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Changes that the actor emitted.
    pub(crate) changes: Changes,
    pub(crate) peers: AtomicUsize,
    pub(crate) events_dropped: AtomicU64,
    stopped: AtomicBool,
}

impl Shared {
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
    }
}
