//! Metrics of discovery.

use calimero_network_discovery::{
    Event, Status,
    behaviour::HolePunch,
    machine::{
        BootNode, Phase, Reachability, Registration, RegistrationStatus, Reservation,
        ReservationStatus,
    },
};
use calimero_network_primitives::UnreachableCause;
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};

#[cfg(feature = "upnp")]
use calimero_network_discovery::port_mapping::Protocol;

use super::{Counters, Gauges, Labels, Registries, counter, counters, gauge, gauges, level};
#[cfg(feature = "upnp")]
use crate::status::PortMapping;

const PHASES: [(Phase, &str); 6] = [
    (Phase::Boot, "boot"),
    (Phase::Register, "register"),
    (Phase::Discover, "discover"),
    (Phase::Connect, "connect"),
    (Phase::Joined, "joined"),
    (Phase::Stopped, "stopped"),
];

const REACHABILITIES: [&str; 3] = ["unknown", "reachable", "unreachable"];

/// States of what this node holds at other nodes.
const HELD: [Labels<1>; 2] = [[("state", "held")], [("state", "wanted")]];

#[derive(Debug)]
pub(super) struct Discovery {
    phase: Gauges<1>,
    boot_nodes: Gauges<2>,
    reachability: Gauges<1>,
    external_addresses: Gauge,
    registrations: Gauges<1>,
    reservations: Gauges<1>,
    overlays: Gauge,
    known_peers: Gauge,
    lost_peers: Gauge,
    dials: Gauges<1>,
    records: Gauge,
    registered: Counters<1>,
    answers: Counter,
    members: Counter,
    hole_punches: Counters<1>,
    #[cfg(feature = "upnp")]
    port_mappings: Gauges<1>,
}

#[cfg(feature = "upnp")]
fn port_protocols() -> impl Iterator<Item = Option<Protocol>> {
    Protocol::ALL.map(Some).into_iter().chain([None])
}

#[cfg(feature = "upnp")]
fn protocol_name(protocol: Option<Protocol>) -> &'static str {
    protocol.map_or("none", Protocol::name)
}

impl Discovery {
    pub(super) fn new(registry: &mut Registries<'_>) -> Self {
        Self {
            phase: gauges(
                registry,
                "discovery_phase",
                "Phase of discovery: 1 for the current phase",
                PHASES.map(|(_, name)| [("phase", name)]),
            ),
            boot_nodes: gauges(
                registry,
                "discovery_boot_nodes",
                "Boot nodes by state, and by cause if they cannot be reached",
                boot_node_states(),
            ),
            reachability: gauges(
                registry,
                "discovery_reachability",
                "Reachability of this node: 1 for the current state",
                REACHABILITIES.map(|name| [("is", name)]),
            ),
            external_addresses: gauge(
                registry,
                "discovery_external_addresses",
                "External addresses that this node announces",
            ),
            registrations: gauges(
                registry,
                "discovery_registrations",
                "Registrations of this node at rendezvous servers, by state",
                HELD,
            ),
            reservations: gauges(
                registry,
                "discovery_relay_reservations",
                "Reservations of this node at relays, by state",
                HELD,
            ),
            overlays: gauge(
                registry,
                "discovery_overlays",
                "Overlays that this node subscribes to",
            ),
            known_peers: gauge(
                registry,
                "discovery_known_peers",
                "Peers in the address book",
            ),
            lost_peers: gauge(
                registry,
                "discovery_lost_peers",
                "Lost peers that discovery dials again",
            ),
            dials: gauges(
                registry,
                "discovery_dials",
                "Dials of discovery, by state",
                ["under_way", "waiting"].map(|state| [("state", state)]),
            ),
            records: gauge(registry, "discovery_records", "Stored Kademlia records"),
            registered: counters(
                registry,
                "discovery_registration_attempts",
                "Registration requests of this node, by outcome",
                ["ok", "failed"].map(|outcome| [("outcome", outcome)]),
            ),
            answers: counter(
                registry,
                "discovery_answers",
                "Responses of rendezvous servers",
            ),
            members: counter(
                registry,
                "discovery_members_received",
                "Members that rendezvous servers returned",
            ),
            hole_punches: counters(
                registry,
                "discovery_hole_punches",
                "Attempts to replace a relayed connection by a direct one, by outcome",
                ["direct", "failed"].map(|outcome| [("outcome", outcome)]),
            ),
            #[cfg(feature = "upnp")]
            port_mappings: gauges(
                registry,
                "discovery_port_mappings",
                "Ports of this node, by the protocol that the router forwards them by, or none",
                port_protocols().map(|protocol| [("protocol", protocol_name(protocol))]),
            ),
        }
    }

    pub(super) fn record(&mut self, event: &Event) {
        match event {
            Event::Registered { .. } => {
                self.registered.get_or_create(&[("outcome", "ok")]).inc();
            }
            Event::RegisterFailed { .. } => {
                let failed = self.registered.get_or_create(&[("outcome", "failed")]);
                failed.inc();
            }
            Event::Discovered { members, .. } => {
                self.answers.inc();
                self.members.inc_by(*members as u64);
            }
            Event::HolePunch { outcome, .. } => {
                let outcome = match outcome {
                    HolePunch::Direct => "direct",
                    HolePunch::Failed => "failed",
                };
                let labels = [("outcome", outcome)];
                self.hole_punches.get_or_create(&labels).inc();
            }
            _ => {}
        }
    }

    #[cfg(feature = "upnp")]
    pub(super) fn refresh_port_mappings(&mut self, mappings: &[PortMapping]) {
        for protocol in port_protocols() {
            let count = mappings.iter().filter(|of| of.protocol == protocol).count();
            let labels = [("protocol", protocol_name(protocol))];
            self.port_mappings.get_or_create(&labels).set(level(count));
        }
    }

    pub(super) fn refresh(&mut self, status: &Status) {
        let discovery = &status.discovery;
        for (phase, name) in PHASES {
            let is = i64::from(phase == discovery.phase);
            self.phase.get_or_create(&[("phase", name)]).set(is);
        }
        for labels in boot_node_states() {
            self.boot_nodes.get_or_create(&labels).set(0);
        }
        for boot_node in &discovery.boot_nodes {
            let (state, cause) = match boot_node.state {
                BootNode::Connecting => ("connecting", ""),
                BootNode::Connected => ("connected", ""),
                BootNode::Unreachable { cause, .. } => ("unreachable", cause.name()),
            };
            let labels = [("state", state), ("cause", cause)];
            self.boot_nodes.get_or_create(&labels).inc();
        }
        let reachability = match discovery.reachability {
            Reachability::Unknown => "unknown",
            Reachability::Reachable { .. } => "reachable",
            Reachability::Unreachable => "unreachable",
        };
        for name in REACHABILITIES {
            let gauge = self.reachability.get_or_create(&[("is", name)]);
            gauge.set(i64::from(name == reachability));
        }
        self.external_addresses
            .set(level(discovery.external_addresses.len()));
        let held = |one: &&RegistrationStatus| matches!(one.state, Registration::Registered { .. });
        let registered = discovery.registrations.iter().filter(held).count();
        split(
            &self.registrations,
            registered,
            discovery.registrations.len(),
        );
        let held = |one: &&ReservationStatus| matches!(one.state, Reservation::Held { .. });
        let reserved = discovery.reservations.iter().filter(held).count();
        split(&self.reservations, reserved, discovery.reservations.len());
        self.overlays.set(level(discovery.overlays.len()));
        self.known_peers.set(level(discovery.known_peers));
        self.lost_peers.set(level(discovery.lost_peers));
        for (state, count) in [
            ("under_way", discovery.dials_in_flight),
            ("waiting", discovery.queued_dials),
        ] {
            let dials = self.dials.get_or_create(&[("state", state)]);
            dials.set(level(count));
        }
        self.records.set(level(status.records));
    }
}

/// Labels of all states of a boot node.
fn boot_node_states() -> impl Iterator<Item = Labels<2>> {
    let reached = ["connecting", "connected"].map(|state| [("state", state), ("cause", "")]);
    let unreachable =
        UnreachableCause::NAMES.map(|cause| [("state", "unreachable"), ("cause", cause)]);
    reached.into_iter().chain(unreachable)
}

/// Of `all` wanted things, `held` exist and the others are still requested.
fn split(gauges: &Gauges<1>, held: usize, all: usize) {
    for (state, count) in [("held", held), ("wanted", all.saturating_sub(held))] {
        gauges.get_or_create(&[("state", state)]).set(level(count));
    }
}
