//! What the manager knows of itself at one moment.

use std::{
    sync::Arc,
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use calimero_network_discovery as discovery;
use calimero_network_primitives::{Multiaddr, PeerId, addr::Circuit};
use calimero_network_transport::{Link, MuxerKind, SecurityKind, TransportKind};
use libp2p::{StreamProtocol, core::ConnectedPoint, swarm::ConnectionId};

use crate::memo::Changes;

/// A peer that is said to have a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobProvider {
    /// The peer.
    pub peer: PeerId,
    /// The size of the blob in bytes, where the peer has signed that it has it.
    pub size_bytes: Option<u64>,
}

/// A snapshot of the manager.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// This node's peer id.
    pub peer: PeerId,
    /// Addresses listened on, without `/p2p`.
    pub listening: Vec<Multiaddr>,
    /// Addresses under which others are known to reach this node.
    pub external: Vec<Multiaddr>,
    /// How discovery stands: phase, reachability and why, registrations, reservations, overlays,
    /// and the way to each peer.
    pub discovery: discovery::Status,
    /// Established connections, oldest first.
    pub connections: Vec<Connection>,
    /// Connections being set up, outbound.
    pub pending_outbound: u32,
    /// Connections being set up, inbound.
    pub pending_inbound: u32,
    /// Messages of topics that nobody read in time and that were dropped, since the start.
    pub events_dropped: u64,
}

impl Status {
    /// Connected peers, each once.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerId> {
        let mut peers: Vec<_> = self.connections.iter().map(|c| c.peer).collect();
        peers.sort_unstable();
        peers.dedup();
        peers
    }
}

/// One established connection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Connection {
    /// The peer at its other end.
    pub peer: PeerId,
    /// Its number in this process.
    pub id: ConnectionId,
    /// Who dialled.
    pub direction: Direction,
    /// The other end's address: the one dialled, or the one it came from.
    pub address: Multiaddr,
    /// Direct or through a relay.
    pub path: Path,
    /// Age, since the handshake ended.
    pub age: Duration,
    /// The last round-trip time measured by ping, if any yet.
    pub rtt: Option<Duration>,
    /// What the peer said of itself, once identify has run.
    pub info: Option<Arc<PeerInfo>>,
    /// The link beneath, with its byte counters.
    pub link: Arc<Link>,
}

impl Connection {
    /// What carries it.
    #[must_use]
    pub fn transport(&self) -> TransportKind {
        self.link.transport()
    }

    /// What secures it.
    #[must_use]
    pub fn security(&self) -> SecurityKind {
        self.link.security()
    }

    /// What multiplexes it.
    #[must_use]
    pub fn muxer(&self) -> MuxerKind {
        self.link.muxer()
    }
}

/// Who dialled a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The peer did.
    Inbound,
    /// This node did.
    Outbound,
}

/// How a connection reaches its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Without anybody between.
    Direct,
    /// Through a relay, which carries a bounded number of bytes for a bounded time.
    Relayed {
        /// The relay, where the address names it.
        relay: Option<PeerId>,
    },
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

/// What a peer says of itself through identify. Nothing of it is verified but the peer id.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerInfo {
    /// Version of the protocol family, such as `/calimero-network/0.1.0`.
    pub protocol_version: String,
    /// Name and version of the program.
    pub agent_version: String,
    /// Addresses it listens on.
    pub listening: Vec<Multiaddr>,
    /// Protocols it accepts streams for.
    pub protocols: Vec<StreamProtocol>,
    /// The address under which it sees this node.
    pub observed: Multiaddr,
}

/// What clients read without asking the actor: one writer, the actor; any number of readers.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Changes that were told.
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
