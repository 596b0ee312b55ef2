//! What the machine asks its driver to do.

use std::time::Duration;

use calimero_network_primitives::{Multiaddr, PeerId, addr::DialAddr};

use super::{
    boot_nodes::UnreachableCause,
    dials::DialReason,
    direct_path::{AttemptId, AttemptKind, HolePunch},
    namespace::{Cookie, Namespace},
    relays::RelayListener,
};

/// What the driver has to do, in the order given. Nothing is asked of ourselves, and nothing but
/// [`Effect::Disconnect`] of a blocked peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Dial `peer` at `addresses`, the best first, unless it is connected or being dialled.
    /// Ends with [`Input::ConnectionOpened`](super::Input::ConnectionOpened) or
    /// [`Input::DialFailed`](super::Input::DialFailed).
    Dial {
        /// Whom to dial.
        peer: PeerId,
        /// Where it may be; never empty. Circuits lack the `/p2p/<peer>` at their end.
        addresses: Vec<DialAddr>,
        /// Why.
        reason: DialReason,
    },
    /// Dial `peer`, which is connected through a relay, for the sake of a direct connection. Ends
    /// with [`Input::AttemptConnected`](super::Input::AttemptConnected) or
    /// [`Input::AttemptFailed`](super::Input::AttemptFailed).
    Attempt {
        /// Names the dial and its connection in all that follows; never used again.
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
    /// Close the relayed connections with `peer`: a direct one has been up long enough.
    CloseRelayed {
        /// Whom with.
        peer: PeerId,
    },
    /// Close every connection with `peer`, which is blocked now.
    Disconnect {
        /// Whom with.
        peer: PeerId,
    },
    /// Add an address of `peer` to the Kademlia routing table.
    AddRoutingAddress {
        /// Peer that the address leads to.
        peer: PeerId,
        /// Address to add, without the `/p2p/<peer>` at its end.
        address: DialAddr,
    },
    /// Tell the Kademlia routing table that `peer` is not there.
    RemoveRoutingAddress {
        /// Who.
        peer: PeerId,
        /// Where not.
        address: Multiaddr,
    },
    /// Register our external addresses at `server`. Ends with
    /// [`Input::Registered`](super::Input::Registered) or
    /// [`Input::RegisterFailed`](super::Input::RegisterFailed).
    Register {
        /// Where.
        server: PeerId,
        /// As a member of which overlay.
        namespace: Namespace,
        /// Life of the registration asked for.
        ttl: Duration,
    },
    /// Take our registration back.
    Unregister {
        /// Where.
        server: PeerId,
        /// Of which overlay.
        namespace: Namespace,
    },
    /// Ask `server` for members of an overlay. Ends with
    /// [`Input::Discovered`](super::Input::Discovered) or
    /// [`Input::DiscoverFailed`](super::Input::DiscoverFailed).
    Discover {
        /// Whom to ask.
        server: PeerId,
        /// For which overlay.
        namespace: Namespace,
        /// Where the last answer ended; `None` asks for all.
        cookie: Option<Cookie>,
        /// Registrations wanted at most.
        limit: u32,
    },
    /// Listen through a relay. Ends with
    /// [`Input::ReservationAccepted`](super::Input::ReservationAccepted), and at any time with
    /// [`Input::RelayListenerClosed`](super::Input::RelayListenerClosed).
    Reserve {
        /// Names this listener in all that follows; never used again.
        listener: RelayListener,
        /// The relay.
        relay: PeerId,
        /// The complete circuit address to listen on.
        address: Multiaddr,
    },
    /// Stop listening through a relay.
    StopListening {
        /// Which listener.
        listener: RelayListener,
    },
    /// Have `address` probed. Ends with [`Input::Probed`](super::Input::Probed).
    Probe {
        /// One of ours.
        address: Multiaddr,
    },
    /// Tell others that we are at `address`.
    AddExternalAddress {
        /// One of ours.
        address: Multiaddr,
    },
    /// Tell others no more that we are at `address`.
    RemoveExternalAddress {
        /// One that was ours.
        address: Multiaddr,
    },
    /// Serve probes of others (`true`), or do not (`false`): who cannot be reached is no judge.
    ServeProbes(bool),
    /// Say that an overlay is not followed: there are as many as may be.
    RefuseFollow {
        /// Which.
        namespace: Namespace,
    },
    /// Save [`Machine::cache`](super::Machine::cache).
    SaveCache,
}

impl Effect {
    /// The peer that the effect is about or asks something of.
    #[must_use]
    pub fn peer(&self) -> Option<PeerId> {
        match self {
            Self::Dial { peer, .. }
            | Self::Attempt { peer, .. }
            | Self::CloseAttempt { peer, .. }
            | Self::HolePunchEnded { peer, .. }
            | Self::BootNodeUnreachable { peer, .. }
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
            | Self::AddExternalAddress { .. }
            | Self::RemoveExternalAddress { .. }
            | Self::ServeProbes(_)
            | Self::RefuseFollow { .. }
            | Self::RefreshRouting
            | Self::SaveCache => None,
        }
    }
}
