//! What an operator asks.

use std::time::Instant;

use calimero_network_primitives::{Multiaddr, PeerId, addr::AddressTransport};
use libp2p_swarm::ConnectionId;

use super::event::HolePunch;
use crate::machine::{self, Path};

/// How discovery stands, and by which ways peers are connected.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Phase, reachability, addresses, registrations, reservations, overlays, numbers.
    pub discovery: machine::Status,
    /// Connected peers, by their ids.
    pub peers: Vec<PeerStatus>,
    /// Records held for others and ourselves.
    pub records: usize,
}

/// How a peer is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerStatus {
    /// Who.
    pub peer: PeerId,
    /// The best way to it.
    pub path: Path,
    /// Every connection with it, the oldest first.
    pub connections: Vec<ConnectionStatus>,
    /// What the last attempt to connect directly came to, while it has been connected.
    pub last_hole_punch: Option<HolePunch>,
    /// When this node tries again to connect directly; `None` for a peer that is direct, and for
    /// one that has reached us, whose task that is.
    pub next_hole_punch: Option<Instant>,
}

/// A connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionStatus {
    /// Its number in this process.
    pub id: ConnectionId,
    /// Its way.
    pub path: Path,
    /// What carries it; `None` where the address tells nothing known.
    pub transport: Option<AddressTransport>,
    /// The other end's address: the one dialled, or the one it came from.
    pub address: Multiaddr,
    /// Whether we dialled.
    pub dialled: bool,
}
