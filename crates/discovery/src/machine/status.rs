//! The status of discovery, for operators.

use std::time::Instant;

use calimero_network_primitives::{Multiaddr, PeerId};

use super::{
    boot_nodes::BootNode,
    circuit_limit::CircuitLimit,
    externals::AddressSource,
    namespace::Namespace,
    overlays::OverlayStatus,
    reachability::{LastProbe, Reachability},
    registrations::Registration,
    relays::Reservation,
};

/// The phase of discovery. It is derived from the state of the parts, so it cannot contradict them:
/// every loss moves it back.
///
/// | phase | is left for | when |
/// |---|---|---|
/// | `Boot` | `Register` | the first boot node is connected (its dials: `redial`) |
/// | `Boot` | `Connect` | the cache, the local link or an application reports a member |
/// | `Register` | `Discover` | one boot node holds a registration in each overlay without members |
/// | `Discover` | `Connect` | a member of an overlay without connected members is known |
/// | `Connect` | `Joined` | every overlay has a connected member |
/// | any | one before | the last boot node, registration, known or connected member is lost |
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// No boot node is connected, and no other peer is known.
    Boot,
    /// An overlay has no known members and no registration.
    Register,
    /// An overlay has no known members.
    Discover,
    /// An overlay has known members, none of which is connected.
    Connect,
    /// Every followed overlay has a connected member.
    Joined,
    /// The machine is stopped.
    Stopped,
}

/// The facts that the phase is derived from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub(super) stopped: bool,
    pub(super) boot_connected: bool,
    pub(super) anybody_connected: bool,
}

impl Phase {
    /// Returns the phase of the overlay that is furthest behind.
    pub(super) fn derive(
        facts: Facts,
        overlays: impl Iterator<Item = (OverlayStatus, bool)>,
    ) -> Self {
        if facts.stopped {
            return Self::Stopped;
        }
        let furthest_behind = overlays
            .map(|(overlay, registered)| match overlay {
                OverlayStatus { connected: 1.., .. } => Self::Joined,
                OverlayStatus { known: 1.., .. } => Self::Connect,
                _ if !facts.boot_connected => Self::Boot,
                _ if registered => Self::Discover,
                _ => Self::Register,
            })
            .min();
        match furthest_behind {
            Some(phase) => phase,
            None if facts.anybody_connected => Self::Joined,
            None => Self::Boot,
        }
    }
}

/// The state of a boot node, of the configuration or of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BootNodeStatus {
    /// Id of the boot node.
    pub peer: PeerId,
    /// Whether it is connected, and why not.
    pub state: BootNode,
    /// Time at which the variant of `state` changed last, or at which the machine started.
    pub changed_at: Instant,
}

/// The state of a registration at a rendezvous server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegistrationStatus {
    /// Id of the rendezvous server.
    pub server: PeerId,
    /// Overlay that this node registers in.
    pub namespace: Namespace,
    /// State of the registration.
    pub state: Registration,
    /// Time at which the variant of `state` changed last. A refresh is requested and granted, which
    /// are two changes.
    pub changed_at: Instant,
}

/// The state of a reservation at a relay.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReservationStatus {
    /// Id of the relay.
    pub relay: PeerId,
    /// State of the reservation.
    pub state: Reservation,
    /// Time at which the variant of `state` changed last, or at which the machine learned of the
    /// relay. The renewal of a reservation is no change.
    pub changed_at: Instant,
    /// Limit of circuits to this node, as the relay named it with its latest grant; `None` before
    /// the first one.
    pub circuit_limit: Option<CircuitLimit>,
}

/// A snapshot of the state of discovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Phase that discovery is in.
    pub phase: Phase,
    /// Boot nodes, configured ones and those of lists, and why those that are not connected cannot be
    /// reached.
    pub boot_nodes: Vec<BootNodeStatus>,
    /// Reachability of this node and how it is known.
    pub reachability: Reachability,
    /// Time at which the reachability changed last, or at which the machine started.
    pub reachability_changed_at: Instant,
    /// External addresses of this node and their sources.
    pub external_addresses: Vec<(Multiaddr, Vec<AddressSource>)>,
    /// Registrations of this node, ordered by server and overlay.
    pub registrations: Vec<RegistrationStatus>,
    /// Reservations of this node, ordered by relay.
    pub reservations: Vec<ReservationStatus>,
    /// Followed overlays with the counts of their members.
    pub overlays: Vec<(Namespace, OverlayStatus)>,
    /// Latest probe of an address of this node.
    pub last_probe: Option<LastProbe>,
    /// Latest probe of each address that may be an external one.
    pub probes: Vec<LastProbe>,
    /// Whether a peer connected directly that this node never sent a packet to, since the network
    /// last changed.
    pub admits_uncontacted_peers: bool,
    /// Number of connected peers.
    pub connected_peers: usize,
    /// Number of peers in the address book.
    pub known_peers: usize,
    /// Number of peers that wait to be dialled.
    pub queued_dials: usize,
    /// Number of dials under way.
    pub dials_in_flight: usize,
    /// Number of peers that were lost, or not reached after a restart, and are dialled again.
    pub lost_peers: usize,
    /// Next time at which the machine has something to do.
    pub next_timeout: Option<Instant>,
}
