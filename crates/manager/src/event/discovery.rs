//! Events of discovery.

use std::fmt;

use calimero_network_discovery::machine::{Namespace, Phase, Reachability, ReachableBecause};
#[cfg(feature = "upnp")]
use calimero_network_discovery::port_mapping;
use calimero_network_primitives::{Multiaddr, PeerId, UnreachableCause};
use serde::{Serialize, Serializer, ser::SerializeStruct as _};

use super::{Class, Key, NetworkEvent, Subject, queue::Unread};
use crate::json;

/// An event of discovery.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum DiscoveryEvent {
    /// Discovery reached another phase.
    #[serde(rename = "phase")]
    PhaseChanged {
        /// The phase that is reached.
        #[serde(serialize_with = "phase_name")]
        phase: Phase,
    },
    /// A boot node cannot be reached. Emitted at the first failure, and for each cause at most once in
    /// ten minutes. The node is dialled again all the same.
    BootNodeUnreachable {
        /// The id of the boot node.
        #[serde(serialize_with = "json::text")]
        peer: PeerId,
        /// The cause of the latest failure.
        #[serde(flatten, serialize_with = "cause_fields")]
        cause: UnreachableCause,
    },
    /// It changed whether other peers can reach this node, or how that is known.
    #[serde(rename = "reachability")]
    ReachabilityChanged {
        /// The reachability from now on.
        #[serde(flatten, serialize_with = "reachability_fields")]
        reachability: Reachability,
    },
    /// A peer tested whether it can connect to an address of this node (AutoNAT v2). Its dial comes
    /// from a port that this node never sent to. Tests that the peer refused emit no event.
    AddressProbed {
        /// The address that was tested.
        address: Multiaddr,
        /// The id of the peer that made the test.
        #[serde(rename = "peer", serialize_with = "json::text")]
        server: PeerId,
        /// Whether the peer connected.
        reached: bool,
    },
    /// An address became or ceased to be an external address, which this node announces to peers.
    #[serde(rename = "external")]
    ExternalAddress {
        /// The address; one that holds `/p2p-circuit` leads through a relay.
        address: Multiaddr,
        /// Whether it is announced now.
        confirmed: bool,
    },
    /// A relay granted a reservation, or a reservation was lost. A lost one is requested again from
    /// the same or from another relay.
    #[serde(rename = "relay")]
    RelayReservation {
        /// The peer id of the relay.
        #[serde(rename = "peer", serialize_with = "json::text")]
        relay: PeerId,
        /// Whether the relay holds a reservation for this node now.
        reserved: bool,
    },
    /// Discovery does not look for members of a subscribed topic, because
    /// `discovery.rendezvous.max_overlays` overlays are searched already.
    OverlayRefused {
        /// The rendezvous namespace of the topic.
        #[serde(serialize_with = "json::text")]
        namespace: Namespace,
    },
    /// The router forwards a port of this node, or forwards it from another address than before. The
    /// node announces the address after another peer has reached it.
    #[cfg(feature = "upnp")]
    PortMapped {
        /// The address that this node listens on.
        local: Multiaddr,
        /// The address at the router.
        external: Multiaddr,
        /// The protocol by which the router granted the mapping.
        #[serde(serialize_with = "protocol_name")]
        protocol: port_mapping::Protocol,
    },
    /// The router does not forward a port of this node. It is asked again after a wait.
    #[cfg(feature = "upnp")]
    PortNotMapped {
        /// The address that this node listens on.
        local: Multiaddr,
        /// The cause of the latest failure.
        #[serde(serialize_with = "json::error")]
        error: port_mapping::Failure,
    },
}

impl DiscoveryEvent {
    pub(super) fn class(&mut self, unread: &mut Unread<'_>) -> Class {
        let key = match self {
            Self::PhaseChanged { .. } => Key::new("phase", Subject::Node),
            Self::BootNodeUnreachable { peer, .. } => Key::new("boot node", Subject::Peer(*peer)),
            Self::ReachabilityChanged { .. } => Key::new("reachability", Subject::Node),
            Self::AddressProbed { address, .. } => {
                Key::new("probe", Subject::Address(address.clone()))
            }
            Self::ExternalAddress { address, confirmed } => {
                let key = Key::new("external", Subject::Address(address.clone()));
                let undone = |event: &NetworkEvent| {
                    matches!(event, NetworkEvent::Discovery(Self::ExternalAddress {
                        confirmed: before, ..
                    }) if before != confirmed)
                };
                if unread.cancels(&key, undone) {
                    return Class::Void;
                }
                key
            }
            Self::RelayReservation { relay, .. } => Key::new("relay", Subject::Peer(*relay)),
            Self::OverlayRefused { namespace } => {
                Key::new("overlay", Subject::Overlay(namespace.clone()))
            }
            #[cfg(feature = "upnp")]
            Self::PortMapped { local, .. } | Self::PortNotMapped { local, .. } => {
                Key::new("port mapping", Subject::Address(local.clone()))
            }
        };
        Class::State(key)
    }
}

impl fmt::Display for DiscoveryEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PhaseChanged { phase } => write!(f, "phase {}", name_of(*phase)),
            Self::BootNodeUnreachable { peer, cause } => {
                write!(f, "boot node {peer} unreachable: {cause}")
            }
            Self::ReachabilityChanged { reachability } => {
                let (reachable, reason) = known(reachability);
                let word = match reachable {
                    Some(true) => "reachable",
                    Some(false) => "unreachable",
                    None => "reachability",
                };
                write!(f, "{word}: {reason}")
            }
            Self::AddressProbed {
                address,
                server,
                reached,
            } => {
                let end = if *reached { "reached" } else { "did not reach" };
                write!(f, "{server} {end} {address}")
            }
            Self::ExternalAddress { address, confirmed } => {
                let end = if *confirmed { "confirmed" } else { "expired" };
                write!(f, "external address {address}: {end}")
            }
            Self::RelayReservation { relay, reserved } => {
                let end = if *reserved { "granted" } else { "lost" };
                write!(f, "relay {relay}: reservation {end}")
            }
            Self::OverlayRefused { namespace } => {
                write!(f, "overlay {namespace}: no search, the limit is reached")
            }
            #[cfg(feature = "upnp")]
            Self::PortMapped {
                local,
                external,
                protocol,
            } => write!(f, "port {local} mapped to {external} by {protocol}"),
            #[cfg(feature = "upnp")]
            Self::PortNotMapped { local, error } => {
                write!(f, "port {local} not mapped: {error}")
            }
        }
    }
}

/// The name of a phase in JSON and text.
fn name_of(phase: Phase) -> &'static str {
    match phase {
        Phase::Boot => "boot",
        Phase::Register => "register",
        Phase::Discover => "discover",
        Phase::Connect => "connect",
        Phase::Joined => "joined",
        Phase::Stopped => "stopped",
    }
}

fn phase_name<S: Serializer>(phase: &Phase, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(name_of(*phase))
}

#[cfg(feature = "upnp")]
fn protocol_name<S: Serializer>(
    protocol: &port_mapping::Protocol,
    to: S,
) -> Result<S::Ok, S::Error> {
    to.serialize_str(protocol.name())
}

/// Whether this node is reachable, where that is known, and how it is known.
fn known(reachability: &Reachability) -> (Option<bool>, String) {
    match reachability {
        Reachability::Unknown => (None, "not known yet".to_owned()),
        Reachability::Reachable { why } => {
            let reason = match why {
                ReachableBecause::Configured => "a public address is configured".to_owned(),
                ReachableBecause::LocalNetwork => "the network is local".to_owned(),
                ReachableBecause::Probed { address, server } => {
                    format!("{server} reached {address}")
                }
            };
            (Some(true), reason)
        }
        Reachability::Unreachable => (Some(false), "no address was reached".to_owned()),
    }
}

fn cause_fields<S: Serializer>(cause: &UnreachableCause, to: S) -> Result<S::Ok, S::Error> {
    let mut fields = to.serialize_struct("Cause", 2)?;
    fields.serialize_field("cause", cause.name())?;
    fields.serialize_field("reason", &cause.to_string())?;
    fields.end()
}

fn reachability_fields<S: Serializer>(value: &Reachability, to: S) -> Result<S::Ok, S::Error> {
    let (reachable, reason) = known(value);
    let mut fields = to.serialize_struct("Reachability", 2)?;
    fields.serialize_field("reachable", &reachable)?;
    fields.serialize_field("reason", &reason)?;
    fields.end()
}
