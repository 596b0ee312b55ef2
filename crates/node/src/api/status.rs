//! The status of a node, as JSON.

use std::fmt;

use calimero_network::{
    BootNode, BootNodeStatus, Phase, Reachability, ReachableBecause, Registration, Reservation,
    Status, resources::Usage,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ConnectionPage, connection::CircuitLimitPage};
use crate::{netcheck::NetworkPage, printable::Printable};

/// Connections that are listed, the oldest first. All are counted.
const MAX_LISTED: usize = 256;

/// The status of a node.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename = "status")]
pub(crate) struct StatusPage {
    peer: String,
    listening: Vec<String>,
    external: Vec<String>,
    peers: usize,
    connections: usize,
    connections_pending_inbound: u32,
    connections_pending_outbound: u32,
    events_dropped: u64,
    connections_evicted: u64,
    discovery: DiscoveryPage,
    /// The NAT of the node, and the direct connections that it permits.
    network: NetworkPage,
    /// What peers hold of each resource, and its limit.
    resources: Vec<ResourcePage>,
    /// The oldest connections, at most 256.
    pub(crate) oldest_connections: Vec<ConnectionPage>,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
struct DiscoveryPage {
    phase: String,
    boot_nodes: Vec<BootNodePage>,
    /// The lists of boot nodes in DNS.
    boot_lists: Vec<BootListPage>,
    reachability: String,
    reachable_because: Option<String>,
    known_peers: usize,
    lost_peers: usize,
    dials_under_way: usize,
    dials_waiting: usize,
    records: usize,
    overlays: Vec<OverlayPage>,
    registrations: Vec<HeldPage>,
    relay_reservations: Vec<HeldPage>,
}

/// A boot node, of the configuration or of a list.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
struct BootNodePage {
    peer: String,
    /// `connected`, `connecting` or `unreachable`.
    state: String,
    /// Cause of the latest failure, such as `refused`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
    /// The cause in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Dials that failed in a row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failures: Option<u32>,
}

/// A list of boot nodes: a `/dnsaddr` name of the configuration.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
struct BootListPage {
    list: String,
    addresses: usize,
    /// Why the latest lookup, or a part of it, failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
struct OverlayPage {
    namespace: String,
    members_known: usize,
    members_connected: usize,
}

/// A registration at a rendezvous server or a reservation at a relay.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
struct HeldPage {
    at: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    held: bool,
    /// For a reservation: `idle`, `requested`, `held` or `resting` until the next attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state: Option<String>,
    /// For a reservation: the limit of circuits to this node, as the relay named it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    circuit_limit: Option<CircuitLimitPage>,
}

/// The use of one resource, in items or bytes.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
struct ResourcePage {
    resource: String,
    used: u64,
    limit: u64,
    /// Part of the limit for boot nodes, configured peers and members.
    reserve: u64,
    waiting: usize,
    refused_node: u64,
    refused_origin: u64,
    refused_peer: u64,
}

impl StatusPage {
    pub(crate) fn of(status: &Status) -> Self {
        let texts = |addresses: &[calimero_network::Multiaddr]| {
            addresses.iter().map(ToString::to_string).collect()
        };
        let listed = status.connections.iter().take(MAX_LISTED);
        Self {
            peer: status.peer.to_base58(),
            listening: texts(&status.listening),
            external: texts(&status.external),
            peers: status.peers().len(),
            connections: status.connections.len(),
            connections_pending_inbound: status.pending_inbound,
            connections_pending_outbound: status.pending_outbound,
            events_dropped: status.events_dropped,
            connections_evicted: status.connections_evicted,
            discovery: DiscoveryPage::of(status),
            network: NetworkPage::of(&status.observations()),
            resources: status.resources.iter().map(ResourcePage::of).collect(),
            oldest_connections: ConnectionPage::of_all(status, listed),
        }
    }
}

impl DiscoveryPage {
    fn of(status: &Status) -> Self {
        let (reachability, reachable_because) = match &status.reachability {
            Reachability::Unknown => ("unknown", None),
            Reachability::Unreachable => ("unreachable", None),
            Reachability::Reachable { why } => ("reachable", Some(because(why))),
        };
        let boot_nodes = status.boot_nodes.iter().map(BootNodePage::of);
        let boot_lists = status.boot_lists.iter().map(|one| BootListPage {
            list: one.list.to_string(),
            addresses: one.addresses,
            error: one.error.clone(),
        });
        let overlays = status
            .overlays
            .iter()
            .map(|(namespace, overlay)| OverlayPage {
                namespace: namespace.to_string(),
                // The machine counts the members that are known and not connected.
                members_known: overlay.known + overlay.connected,
                members_connected: overlay.connected,
            });
        let registrations = status.registrations.iter();
        let registrations = registrations.map(|one| HeldPage {
            at: one.server.to_base58(),
            namespace: Some(one.namespace.to_string()),
            held: matches!(one.state, Registration::Registered { .. }),
            state: None,
            circuit_limit: None,
        });
        let reservations = status.reservations.iter().map(|one| HeldPage {
            at: one.relay.to_base58(),
            namespace: None,
            held: matches!(one.state, Reservation::Held { .. }),
            state: Some(reservation_text(&one.state).to_owned()),
            circuit_limit: one.circuit_limit.map(Into::into),
        });
        Self {
            phase: match status.phase {
                Phase::Boot => "boot",
                Phase::Register => "register",
                Phase::Discover => "discover",
                Phase::Connect => "connect",
                Phase::Joined => "joined",
                Phase::Stopped => "stopped",
            }
            .to_owned(),
            boot_nodes: boot_nodes.collect(),
            boot_lists: boot_lists.collect(),
            reachability: reachability.to_owned(),
            reachable_because,
            known_peers: status.known_peers,
            lost_peers: status.lost_peers,
            dials_under_way: status.dials_in_flight,
            dials_waiting: status.queued_dials,
            records: status.records,
            overlays: overlays.collect(),
            registrations: registrations.collect(),
            relay_reservations: reservations.collect(),
        }
    }
}

impl BootNodePage {
    fn of(boot_node: &BootNodeStatus) -> Self {
        let (name, failure) = match &boot_node.state {
            BootNode::Connecting => ("connecting", None),
            BootNode::Connected => ("connected", None),
            BootNode::Unreachable {
                cause, failures, ..
            } => ("unreachable", Some((cause, *failures))),
        };
        Self {
            peer: boot_node.peer.to_base58(),
            state: name.to_owned(),
            cause: failure.map(|(cause, _)| cause.name().to_owned()),
            reason: failure.map(|(cause, _)| cause.to_string()),
            failures: failure.map(|(_, failures)| failures),
        }
    }
}

fn reservation_text(state: &Reservation) -> &'static str {
    match state {
        Reservation::Idle => "idle",
        Reservation::Requested { .. } => "requested",
        Reservation::Held { .. } => "held",
        Reservation::Resting { .. } => "resting",
    }
}

fn because(why: &ReachableBecause) -> String {
    match why {
        ReachableBecause::Configured => "configured".to_owned(),
        ReachableBecause::LocalNetwork => "the network is local".to_owned(),
        ReachableBecause::Probed { address, server } => {
            format!("reached at {address} by {server}")
        }
    }
}

impl ResourcePage {
    fn of(usage: &Usage) -> Self {
        Self {
            resource: usage.resource.name().to_owned(),
            used: usage.used,
            limit: usage.limit,
            reserve: usage.reserve,
            waiting: usage.waiting,
            refused_node: usage.refused_node,
            refused_origin: usage.refused_origin,
            refused_peer: usage.refused_peer,
        }
    }

    /// Returns `true` if three quarters of what is not reserved are in use, or something waits.
    fn is_scarce(&self) -> bool {
        let open = self.limit.saturating_sub(self.reserve);
        self.waiting > 0 || self.used >= open - open / 4
    }
}

impl fmt::Display for ResourcePage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            used,
            limit,
            reserve,
            waiting,
            ..
        } = self;
        let name = self.resource.replace('_', " ");
        let refused = self.refused_node + self.refused_origin + self.refused_peer;
        write!(f, "{name}: {used} of {limit} ({reserve} reserved)")?;
        write!(f, ", {waiting} waiting, {refused} refused")
    }
}

impl fmt::Display for StatusPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            peer,
            listening,
            external,
            discovery,
            ..
        } = self;
        writeln!(f, "peer         {peer}")?;
        for address in listening {
            writeln!(f, "listens      {}", Printable(address))?;
        }
        for address in external {
            writeln!(f, "external     {}", Printable(address))?;
        }
        writeln!(f, "phase        {}", discovery.phase)?;
        for boot_node in &discovery.boot_nodes {
            let BootNodePage {
                peer,
                state,
                reason,
                ..
            } = boot_node;
            write!(f, "boot node    {peer} ({state}")?;
            reason
                .iter()
                .try_for_each(|why| write!(f, ": {}", Printable(why)))?;
            writeln!(f, ")")?;
        }
        for BootListPage {
            list,
            addresses,
            error,
        } in &discovery.boot_lists
        {
            write!(f, "boot list    {} ({addresses} addresses", Printable(list))?;
            error
                .iter()
                .try_for_each(|why| write!(f, "; {}", Printable(why)))?;
            writeln!(f, ")")?;
        }
        write!(f, "reachability {}", discovery.reachability)?;
        let because = discovery.reachable_because.iter();
        because
            .into_iter()
            .try_for_each(|why| write!(f, " ({})", Printable(why)))?;
        writeln!(f)?;
        writeln!(f, "{}", self.network)?;
        for overlay in &discovery.overlays {
            let OverlayPage {
                namespace,
                members_known,
                members_connected,
            } = overlay;
            writeln!(
                f,
                "overlay      {namespace} ({members_connected} of {members_known} known members connected)"
            )?;
        }
        for relay in &discovery.relay_reservations {
            let state = relay.state.as_deref().unwrap_or("unknown");
            write!(
                f,
                "relay        {} (reservation {state}",
                Printable(&relay.at)
            )?;
            if let Some(limit) = &relay.circuit_limit {
                write!(f, "; circuits: {limit}")?;
            }
            writeln!(f, ")")?;
        }
        writeln!(
            f,
            "known        {} peers, {} records",
            discovery.known_peers, discovery.records
        )?;
        write!(
            f,
            "connected    {} peers, {} connections",
            self.peers, self.connections
        )?;
        for resource in self
            .resources
            .iter()
            .filter(|resource| resource.is_scarce())
        {
            write!(f, "\nscarce       {resource}")?;
        }
        Ok(())
    }
}
