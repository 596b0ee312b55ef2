//! What an operator asks: how discovery stands.

use std::time::Instant;

use calimero_network_primitives::{Multiaddr, PeerId};

use super::{
    boot_nodes::BootNode,
    externals::AddressSource,
    namespace::Namespace,
    overlays::OverlayStatus,
    reachability::{LastProbe, Reachability},
    registrations::Registration,
    relays::Reservation,
};

/// How far discovery has come. Derived from what the parts know, so it cannot disagree with
/// them: every loss moves it back by itself.
///
/// | phase | is left for | when |
/// |---|---|---|
/// | `Boot` | `Register` | the first boot node is connected (its dials: `redial`) |
/// | `Boot` | `Connect` | the cache, the local link or an application tells of a member |
/// | `Register` | `Discover` | one boot node holds a registration in each overlay without members |
/// | `Discover` | `Connect` | a member of an overlay without connected members is known |
/// | `Connect` | `Joined` | every overlay has a connected member |
/// | any | one before | the last boot node, registration, known or connected member is lost |
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// No boot node is connected, and nobody else is known.
    Boot,
    /// Some overlay has no members known and no registration.
    Register,
    /// Some overlay has no members known.
    Discover,
    /// Some overlay has members known and none connected.
    Connect,
    /// Every overlay followed has a connected member.
    Joined,
    /// Nothing is looked for any more.
    Stopped,
}

/// What the phase is derived from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub(super) stopped: bool,
    pub(super) boot_connected: bool,
    pub(super) anybody_connected: bool,
}

impl Phase {
    /// The phase of the overlay that is furthest behind.
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

/// How discovery stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// How far it has come.
    pub phase: Phase,
    /// Configured boot nodes, and why those that are not connected cannot be reached.
    pub boot_nodes: Vec<(PeerId, BootNode)>,
    /// Whether others can reach us, and why.
    pub reachability: Reachability,
    /// Our external addresses and why they are ours.
    pub external_addresses: Vec<(Multiaddr, Vec<AddressSource>)>,
    /// Our registrations, by server and overlay.
    pub registrations: Vec<(PeerId, Namespace, Registration)>,
    /// Our slots, by relay.
    pub reservations: Vec<(PeerId, Reservation)>,
    /// The overlays followed.
    pub overlays: Vec<(Namespace, OverlayStatus)>,
    /// The last probe of one of our addresses.
    pub last_probe: Option<LastProbe>,
    /// Peers connected.
    pub connected_peers: usize,
    /// Peers in the address book.
    pub known_peers: usize,
    /// Peers waiting to be dialled.
    pub queued_dials: usize,
    /// Dials under way.
    pub dials_in_flight: usize,
    /// Lost peers that are dialled again.
    pub lost_peers: usize,
    /// When the machine next wants to be woken.
    pub next_timeout: Option<Instant>,
}
