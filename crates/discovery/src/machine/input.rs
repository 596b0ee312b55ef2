//! What the machine hears.

use std::time::Duration;

use calimero_network_primitives::{Multiaddr, PeerId};

use super::{
    boot_nodes::UnreachableCause,
    connections::Path,
    direct_path::{AttemptId, HolePunch},
    namespace::{Cookie, Namespace},
    reachability::ProbeOutcome,
    relays::RelayListener,
};

/// What the driver tells the machine. Nothing in it is trusted: addresses are filtered, answers
/// nobody asked for are ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Nothing but the time: [`Machine::next_timeout`](super::Machine::next_timeout) is reached.
    Timeout,
    /// Be a member of an overlay: register and discover at once.
    Follow(Namespace),
    /// Be one no more: unregister.
    Unfollow(Namespace),
    /// Have nothing to do with a peer.
    Block(PeerId),
    /// Have to do with it again.
    Unblock(PeerId),
    /// Peers remembered from an earlier run, dialled first.
    CacheLoaded(Vec<CacheEntry>),
    /// Interfaces or routes have changed: whatever is waiting is tried now.
    NetworkChanged,
    /// The end: registrations are taken back, slots given up. Nothing is asked for afterwards.
    Stop,

    /// The driver is about to open its listeners. Dials wait until this node listens, for a second at
    /// most: an earlier one leaves from a port on which nothing comes in.
    ListenersPending,

    /// A connection is up.
    ConnectionOpened {
        /// With whom.
        peer: PeerId,
        /// By which way.
        path: Path,
        /// The address we dialled; `None` where the peer dialled us.
        dialled: Option<Multiaddr>,
    },
    /// A connection is gone.
    ConnectionClosed {
        /// With whom.
        peer: PeerId,
        /// By which way it went.
        path: Path,
    },
    /// A dial of ours has failed, or was not made.
    DialFailed {
        /// Of whom.
        peer: PeerId,
        /// The addresses that were tried. Empty where none was, for instance for a limit of
        /// ours: then no address is to blame.
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

    /// A part of a refresh of the routing table ended, whoever began it.
    RoutingRefreshed {
        /// Peers that answered in this part.
        answers: u32,
        /// Whether this was the last part of the refresh.
        last: bool,
    },

    /// A peer has told of itself by identify.
    Identified {
        /// Who.
        peer: PeerId,
        /// Where it says it is.
        addresses: Vec<Multiaddr>,
    },
    /// A peer was met on the local link.
    LocalPeer {
        /// Who.
        peer: PeerId,
        /// Where it says it is.
        addresses: Vec<Multiaddr>,
    },
    /// A peer has shown itself a member of an overlay, for instance by its subscription.
    MemberSeen {
        /// Of which.
        namespace: Namespace,
        /// Who.
        peer: PeerId,
    },
    /// A peer has left an overlay.
    MemberGone {
        /// Which.
        namespace: Namespace,
        /// Who.
        peer: PeerId,
    },

    /// One of our addresses, as seen by a peer or by ourselves.
    AddressCandidate(Multiaddr),
    /// We listen at an address of one of our interfaces. On a local network everybody reaches us
    /// there; elsewhere it may be ours as others see it.
    Listening(Multiaddr),
    /// One of our addresses is gone.
    AddressGone(Multiaddr),
    /// A probe has ended.
    Probed {
        /// Of which address.
        address: Multiaddr,
        /// Made by whom.
        server: PeerId,
        /// How.
        outcome: ProbeOutcome,
    },

    /// A server holds our registration.
    Registered {
        /// Which.
        server: PeerId,
        /// As a member of which overlay.
        namespace: Namespace,
        /// For how long.
        ttl: Duration,
    },
    /// A server does not.
    RegisterFailed {
        /// Which.
        server: PeerId,
        /// For which overlay.
        namespace: Namespace,
        /// Why.
        why: RendezvousFailure,
    },
    /// A server has told members of an overlay.
    Discovered {
        /// Which.
        server: PeerId,
        /// Of which overlay.
        namespace: Namespace,
        /// Members and their addresses, verified to be their own.
        members: Vec<(PeerId, Vec<Multiaddr>)>,
        /// Where the answer ended.
        cookie: Option<Cookie>,
    },
    /// A server has not.
    DiscoverFailed {
        /// Which.
        server: PeerId,
        /// Of which overlay.
        namespace: Namespace,
        /// Why.
        why: RendezvousFailure,
    },

    /// A relay has granted or renewed our slot.
    ReservationAccepted {
        /// On which listener.
        listener: RelayListener,
    },
    /// We do not listen through a relay (any more): refused, expired, disconnected or closed.
    RelayListenerClosed {
        /// Which listener.
        listener: RelayListener,
    },
}

/// Why a rendezvous server did not do as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RendezvousFailure {
    /// It does not know the cookie, or not for this namespace.
    InvalidCookie,
    /// It has no room, for us or at all, or did not answer.
    Unavailable,
    /// It refuses for another reason.
    Refused,
}

/// A peer remembered over a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheEntry {
    /// Who.
    pub peer: PeerId,
    /// Where it was, the best first.
    pub addresses: Vec<Multiaddr>,
    /// How long ago it was last heard of.
    pub age: Duration,
}
