//! The effects of the machine, which its driver carries out.

use std::time::Duration;

use calimero_network_primitives::{Multiaddr, PeerId, UnreachableCause, addr::DialAddr};

use super::{
    dials::DialReason,
    namespace::{Cookie, Namespace},
};

/// Names a dial of the direct path and the connection that it made. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId(pub u64);

/// What a dial of the direct path is for, which decides how it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptKind {
    /// Another connection through the relay, which begins a hole punch round.
    Round,
    /// A direct dial of a peer that connected through a relay. Leaves from a new port.
    DialBack,
    /// A direct dial through the hole that the peer has opened. Leaves from a new port, and is made
    /// even if another dial of the peer is under way.
    ThroughHole,
}

/// How the attempts to connect directly ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HolePunch {
    /// A direct connection was established.
    Direct,
    /// No direct connection was established.
    Failed,
}

/// Names an attempt to listen through a relay, and the listener that it becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelayListener(pub u64);

/// What the driver has to do, in the order of the effects.
///
/// No effect names this node as its peer, and only [`Effect::Disconnect`] names a blocked peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Dial `peer` at `addresses`, the best first, unless it is connected or being dialled. Ends
    /// with [`Input::ConnectionOpened`](super::Input::ConnectionOpened) or
    /// [`Input::DialFailed`](super::Input::DialFailed).
    Dial {
        /// Id of the peer to dial.
        peer: PeerId,
        /// Addresses to try; never empty. Circuits lack the `/p2p/<peer>` at their end.
        addresses: Vec<DialAddr>,
        /// Reason for the dial, which decides its priority.
        reason: DialReason,
    },
    /// Dial `peer` through the relay that has just returned, even if another dial of it is under way:
    /// that one may wait for an address that does not answer. Ends with
    /// [`Input::ConnectionOpened`](super::Input::ConnectionOpened) or with nothing.
    DialCircuits {
        /// Id of the peer to dial.
        peer: PeerId,
        /// Addresses through the relay; never empty.
        addresses: Vec<DialAddr>,
    },
    /// Dial `peer`, which is connected through a relay, to get a direct connection. Ends with
    /// [`Input::AttemptConnected`](super::Input::AttemptConnected) or
    /// [`Input::AttemptFailed`](super::Input::AttemptFailed).
    Attempt {
        /// Names the dial and its connection in later inputs and effects; never reused.
        id: AttemptId,
        /// Decides how the dial is made.
        kind: AttemptKind,
        /// Id of the peer to dial.
        peer: PeerId,
        /// Addresses to try, the best first; never empty.
        addresses: Vec<DialAddr>,
    },
    /// Close the connection that an attempt made; its round is over.
    CloseAttempt {
        /// Id of the attempt.
        id: AttemptId,
        /// Id of the remote peer.
        peer: PeerId,
    },
    /// Report that the attempts to reach `peer` directly ended.
    HolePunchEnded {
        /// Id of the remote peer.
        peer: PeerId,
        /// Result of the attempts.
        outcome: HolePunch,
    },
    /// Report that a boot node cannot be reached. Not repeated for one cause within ten minutes.
    BootNodeUnreachable {
        /// Id of the boot node.
        peer: PeerId,
        /// Cause of the latest failure.
        cause: UnreachableCause,
    },
    /// Refresh the routing table (a bootstrap query of Kademlia). Ends with
    /// [`Input::RoutingRefreshed`](super::Input::RoutingRefreshed).
    RefreshRouting,
    /// Close the relayed connections with `peer`: a direct connection has lasted long enough.
    CloseRelayed {
        /// Id of the remote peer.
        peer: PeerId,
    },
    /// Close every connection with `peer`, which is blocked.
    Disconnect {
        /// Id of the blocked peer.
        peer: PeerId,
    },
    /// Add an address of `peer` to the Kademlia routing table.
    AddRoutingAddress {
        /// Peer that the address leads to.
        peer: PeerId,
        /// Address to add, without the `/p2p/<peer>` at its end.
        address: DialAddr,
    },
    /// Remove an address of `peer` from the Kademlia routing table.
    RemoveRoutingAddress {
        /// Peer that the address no longer leads to.
        peer: PeerId,
        /// Address to remove, without the `/p2p/<peer>` at its end.
        address: Multiaddr,
    },
    /// Register the external addresses of this node at `server`. Ends with
    /// [`Input::Registered`](super::Input::Registered) or
    /// [`Input::RegisterFailed`](super::Input::RegisterFailed).
    Register {
        /// Id of the rendezvous server.
        server: PeerId,
        /// Namespace of the overlay.
        namespace: Namespace,
        /// Requested time until the registration expires.
        ttl: Duration,
    },
    /// Remove the registration of this node. The server does not answer.
    Unregister {
        /// Id of the rendezvous server.
        server: PeerId,
        /// Namespace of the overlay.
        namespace: Namespace,
    },
    /// Ask `server` for members of an overlay. Ends with
    /// [`Input::Discovered`](super::Input::Discovered) or
    /// [`Input::DiscoverFailed`](super::Input::DiscoverFailed).
    Discover {
        /// Id of the rendezvous server.
        server: PeerId,
        /// Namespace of the overlay.
        namespace: Namespace,
        /// Position at which the last answer ended; `None` asks for all registrations.
        cookie: Option<Cookie>,
        /// Largest number of registrations in the answer.
        limit: u32,
    },
    /// Listen through a relay. Followed by
    /// [`Input::ReservationAccepted`](super::Input::ReservationAccepted), and at the end by
    /// [`Input::RelayListenerClosed`](super::Input::RelayListenerClosed).
    Reserve {
        /// Names the listener in later inputs and effects; never reused.
        listener: RelayListener,
        /// Id of the relay.
        relay: PeerId,
        /// Complete circuit address to listen on.
        address: Multiaddr,
    },
    /// Stop listening through a relay.
    StopListening {
        /// Listener that is closed.
        listener: RelayListener,
    },
    /// Have a peer probe `address`. Ends with [`Input::Probed`](super::Input::Probed).
    Probe {
        /// Address of this node.
        address: Multiaddr,
    },
    /// Probe the connections that may use the local address `local`, which this node no longer has:
    /// those established at its IP address, and those whose local address is not known. Ends with
    /// [`Input::NetworkChanged`](super::Input::NetworkChanged) if a direct connection is among them,
    /// and with nothing otherwise.
    ProbeConnections {
        /// Former address of this node.
        local: Multiaddr,
    },
    /// Offer `address`, at which a peer observes this node, to the protocols that punch holes.
    OfferCandidate {
        /// Address of this node.
        address: Multiaddr,
    },
    /// Announce `address` as an external address of this node.
    AddExternalAddress {
        /// Address of this node.
        address: Multiaddr,
    },
    /// Stop announcing `address` to other peers.
    RemoveExternalAddress {
        /// Former address of this node.
        address: Multiaddr,
    },
    /// Serve probes of other peers (`true`) or do not (`false`). Only a reachable node serves them.
    ServeProbes(bool),
    /// Report that an overlay is not searched because the limit of overlays is reached.
    RefuseFollow {
        /// Namespace of the overlay.
        namespace: Namespace,
    },
    /// Save [`Machine::cache`](super::Machine::cache).
    SaveCache,
}

impl Effect {
    /// Returns the peer that the effect concerns, if it concerns one.
    #[must_use]
    pub fn peer(&self) -> Option<PeerId> {
        match self {
            Self::Dial { peer, .. }
            | Self::Attempt { peer, .. }
            | Self::CloseAttempt { peer, .. }
            | Self::HolePunchEnded { peer, .. }
            | Self::BootNodeUnreachable { peer, .. }
            | Self::DialCircuits { peer, .. }
            | Self::CloseRelayed { peer }
            | Self::Disconnect { peer }
            | Self::AddRoutingAddress { peer, .. }
            | Self::RemoveRoutingAddress { peer, .. } => Some(*peer),
            Self::Register { server, .. }
            | Self::Unregister { server, .. }
            | Self::Discover { server, .. } => Some(*server),
            Self::Reserve { relay, .. } => Some(*relay),
            Self::StopListening { .. }
            | Self::Probe { .. }
            | Self::ProbeConnections { .. }
            | Self::OfferCandidate { .. }
            | Self::AddExternalAddress { .. }
            | Self::RemoveExternalAddress { .. }
            | Self::ServeProbes(_)
            | Self::RefuseFollow { .. }
            | Self::RefreshRouting
            | Self::SaveCache => None,
        }
    }
}
