//! The inputs of the machine.

use std::{net::IpAddr, time::Duration};

use calimero_network_primitives::{Multiaddr, PeerId, UnreachableCause};

use super::{
    circuit_limit::CircuitLimit,
    connections::Path,
    effect::{AttemptId, HolePunch, RelayListener},
    namespace::{Cookie, Namespace},
    reachability::ProbeOutcome,
};

/// An input of the machine: a command of the application, an event of the network, or the time.
///
/// The machine trusts none of them. It filters addresses and ignores answers to requests that it
/// did not make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The time of [`Machine::next_timeout`](super::Machine::next_timeout) is reached.
    Timeout,
    /// Joins an overlay: registers and discovers at once.
    Follow(Namespace),
    /// Leaves an overlay: unregisters.
    Unfollow(Namespace),
    /// Blocks a peer: closes its connections and refuses new ones.
    Block(PeerId),
    /// Allows connections with a blocked peer again.
    Unblock(PeerId),
    /// The peer cache of an earlier run. Its first peers are dialled.
    CacheLoaded(Vec<CacheEntry>),
    /// The boot nodes of all lists, each address with its `/p2p/<peer>`. They replace those of the
    /// lists before, and do not replace configured boot nodes.
    BootList(Vec<Multiaddr>),
    /// The network of this host changed: an address that connections use disappeared, the process
    /// was stopped for a while, or the application learned of it. Everything that waits is tried
    /// now. The machine decides by itself whether a new address is such a change.
    NetworkChanged,
    /// Stops the machine: unregisters and ends reservations. No effect follows afterwards.
    Stop,

    /// The driver is about to open its listeners. Dials wait until this node listens, for one
    /// second at most. A dial before that leaves from a port that accepts no connections.
    ListenersPending,

    /// A connection was established.
    ConnectionOpened {
        /// Id of the remote peer.
        peer: PeerId,
        /// Path of the connection.
        path: Path,
        /// Address that this node dialled; `None` if the peer dialled.
        dialled: Option<Multiaddr>,
        /// IP address of the remote host; `None` if it is not known, as that of a relayed
        /// connection.
        remote_ip: Option<IpAddr>,
        /// Whether the peer dialled from a loopback, link-local or private address, or over
        /// WebSocket, maybe through a reverse proxy: this shows nothing about the NAT.
        is_local: bool,
    },
    /// A connection was closed.
    ConnectionClosed {
        /// Id of the remote peer.
        peer: PeerId,
        /// Path of the closed connection.
        path: Path,
    },
    /// A dial begins, whichever part of the node makes it. The NAT of this node may let in
    /// connections from its addresses from now on.
    Dialled {
        /// Id of the peer that is dialled, if it is known.
        peer: Option<PeerId>,
        /// Addresses that are dialled.
        addresses: Vec<Multiaddr>,
    },
    /// A dial of this node failed or was not made.
    DialFailed {
        /// Id of the peer that was dialled.
        peer: PeerId,
        /// Addresses that were tried. Empty if the dial failed for a reason on this node, such as a
        /// limit. The failure then counts against no address.
        tried: Vec<Multiaddr>,
    },

    /// A dial of a peer failed, whichever part of the node made it.
    Unreachable {
        /// Id of the peer.
        peer: PeerId,
        /// Cause of the failure.
        cause: UnreachableCause,
    },
    /// An address of a peer is known to be of no use: the relay of a circuit has no reservation for
    /// it.
    AddressDead {
        /// Id of the peer.
        peer: PeerId,
        /// Address that is of no use.
        address: Multiaddr,
    },

    /// The dial of an [`Effect::Attempt`](super::Effect::Attempt) made a connection.
    /// [`ConnectionOpened`](Self::ConnectionOpened) follows.
    AttemptConnected {
        /// Id of the attempt.
        id: AttemptId,
        /// Path of the connection.
        path: Path,
    },
    /// The dial of an [`Effect::Attempt`](super::Effect::Attempt) made no connection.
    AttemptFailed {
        /// Id of the attempt.
        id: AttemptId,
    },
    /// DCUtR ended its attempts to reach a relayed peer directly.
    HolePunchEnded {
        /// Id of the relayed peer.
        peer: PeerId,
        /// Result of the attempts.
        outcome: HolePunch,
    },
    /// DCUtR began a hole punch in which this node waits for the peer to come in.
    HolePunchAwaited {
        /// Id of the relayed peer.
        peer: PeerId,
        /// Addresses that the peer dials from.
        addresses: Vec<Multiaddr>,
    },
    /// A peer that connected to this node through a relay reported its addresses, by
    /// [`Identified`](Self::Identified) before.
    ReachedThroughRelay {
        /// Id of the relayed peer.
        peer: PeerId,
    },

    /// A part of a refresh of the routing table ended. libp2p-kad begins refreshes too.
    RoutingRefreshed {
        /// Peers that answered in this part.
        answers: u32,
        /// Whether this was the last part of the refresh.
        last: bool,
    },

    /// A peer reported its addresses by identify.
    Identified {
        /// Id of the remote peer.
        peer: PeerId,
        /// Addresses that the peer listens on.
        addresses: Vec<Multiaddr>,
    },
    /// A peer was found on the local link.
    LocalPeer {
        /// Id of the peer that was found.
        peer: PeerId,
        /// Addresses that the peer listens on.
        addresses: Vec<Multiaddr>,
    },
    /// A peer is known to be a member of an overlay, for example by its subscription.
    MemberSeen {
        /// Namespace of the overlay.
        namespace: Namespace,
        /// Id of the member.
        peer: PeerId,
    },
    /// A peer left an overlay.
    MemberGone {
        /// Namespace of the overlay.
        namespace: Namespace,
        /// Id of the former member.
        peer: PeerId,
    },

    /// An address of this node, as the application or another protocol names it.
    AddressCandidate(Multiaddr),
    /// A peer observes this node at an address: the first address that it reports on a connection
    /// that this node dialled from a listening port.
    AddressObserved {
        /// Id of the peer that observes the address.
        observer: PeerId,
        /// Address of this node, without `/p2p`.
        address: Multiaddr,
    },
    /// This node listens on an address of one of its interfaces. On a local network every peer
    /// reaches the node there. Elsewhere the address may be an external one.
    Listening {
        /// The address, without `/p2p`.
        address: Multiaddr,
        /// Time for which its listener has been open. Since then dials leave from its port.
        open_for: Duration,
    },
    /// This node no longer listens on an address.
    AddressGone(Multiaddr),
    /// A probe of an address of this node ended.
    Probed {
        /// Address that was probed.
        address: Multiaddr,
        /// Id of the peer that made the probe.
        server: PeerId,
        /// Result of the probe.
        outcome: ProbeOutcome,
    },

    /// A rendezvous server accepted a registration.
    Registered {
        /// Id of the rendezvous server.
        server: PeerId,
        /// Namespace of the overlay.
        namespace: Namespace,
        /// Time after which the registration expires.
        ttl: Duration,
    },
    /// A registration at a rendezvous server failed.
    RegisterFailed {
        /// Id of the rendezvous server.
        server: PeerId,
        /// Namespace of the overlay.
        namespace: Namespace,
        /// Reason of the failure.
        why: RendezvousFailure,
    },
    /// A rendezvous server returned members of an overlay.
    Discovered {
        /// Id of the rendezvous server.
        server: PeerId,
        /// Namespace of the overlay.
        namespace: Namespace,
        /// Members and their addresses, each signed by its member.
        members: Vec<(PeerId, Vec<Multiaddr>)>,
        /// Position at which the answer ended.
        cookie: Option<Cookie>,
    },
    /// A rendezvous server did not return members of an overlay.
    DiscoverFailed {
        /// Id of the rendezvous server.
        server: PeerId,
        /// Namespace of the overlay.
        namespace: Namespace,
        /// Reason of the failure.
        why: RendezvousFailure,
    },

    /// A relay granted or renewed a reservation.
    ReservationAccepted {
        /// Listener that the reservation belongs to.
        listener: RelayListener,
        /// Limit of circuits to this node, as the relay names it.
        limit: CircuitLimit,
    },
    /// This node does not listen through a relay: the reservation was refused, it expired, or the
    /// connection or the listener was closed.
    RelayListenerClosed {
        /// Listener that was closed.
        listener: RelayListener,
    },
}

/// Why a request to a rendezvous server failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RendezvousFailure {
    /// The server does not know the cookie, or not for this namespace.
    InvalidCookie,
    /// A limit of the server is reached, or the server did not answer.
    Unavailable,
    /// The server refuses for another reason.
    Refused,
}

/// A peer in the peer cache, which a node keeps over a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheEntry {
    /// Id of the peer.
    pub peer: PeerId,
    /// Addresses of the peer, the best first.
    pub addresses: Vec<Multiaddr>,
    /// Time since the peer was last seen.
    pub age: Duration,
}
