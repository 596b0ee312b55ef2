//! The state of discovery, as an operator sees it.

use std::time::Instant;

use calimero_network_primitives::{Multiaddr, PeerId, addr::AddressTransport};
use libp2p_swarm::ConnectionId;

use crate::machine::{self, CircuitLimit, HolePunch, Path, WhyRelayed};

/// A snapshot of discovery: its state and its connections.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Phase, boot nodes, reachability, addresses, registrations, reservations, overlays, counts.
    pub discovery: machine::Status,
    /// Connected peers, ordered by peer id.
    pub peers: Vec<PeerStatus>,
    /// Number of records that this node stores for itself and for others.
    pub records: usize,
}

/// The connections with one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerStatus {
    /// Id of the peer.
    pub peer: PeerId,
    /// The best path to the peer.
    pub path: Path,
    /// Every connection with the peer, the oldest first.
    pub connections: Vec<ConnectionStatus>,
    /// Result of the latest attempts to connect directly, since the peer is connected.
    pub last_hole_punch: Option<HolePunch>,
    /// Why the peer has no direct connection; `None` if it has one.
    pub why_relayed: Option<WhyRelayed>,
    /// When this node begins the next hole punch round; `None` for a peer with a direct connection,
    /// and for a peer that connected to this node, because the rounds are the dialler's.
    pub next_hole_punch: Option<Instant>,
}

/// One established connection with a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionStatus {
    /// Id of the connection in this process.
    pub id: ConnectionId,
    /// Path of the connection.
    pub path: Path,
    /// Transport of the connection; `None` if the address has an unknown shape.
    pub transport: Option<AddressTransport>,
    /// Address of the remote end: the address that was dialled, or the one it came from.
    pub address: Multiaddr,
    /// Whether this node dialled the connection.
    pub dialled: bool,
    /// Whether this node dialled the connection from a port that it listens on, so that the remote
    /// end sees the address at which a NAT lets others in.
    pub from_listening_port: bool,
    /// Limit of the circuit, as the relay named it; `None` for a direct connection, and as long as
    /// the relay has named none.
    pub circuit_limit: Option<CircuitLimit>,
}
