//! The result of a check of the network, as JSON and as text.

use std::fmt;

use calimero_network::{
    PeerId, Status,
    discovery::{
        machine::{BootNode, Reservation},
        netcheck::{Observations, PortMapping, ProtocolVerdict, Verdict, judge},
    },
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    error::CommandError,
    printable::Printable,
    text::{millis, short_text},
};

/// What a network is like, and which direct connections it permits.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename = "netcheck")]
pub(crate) struct NetcheckPage {
    /// `node` for what a running node has seen, `probe` for tests that were made for the command.
    pub(crate) source: String,
    #[serde(flatten)]
    pub(crate) network: NetworkPage,
    /// Whether a dial of the own public address reached this host (hairpinning); `null` if that was not
    /// tested.
    pub(crate) hairpin: Option<bool>,
    /// Boot nodes and relays, with the latency to each.
    pub(crate) servers: Vec<ServerPage>,
}

/// The judgement of a network.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct NetworkPage {
    /// Peers with which direct connections are possible: `no_peers`, `unknown`, `few`, `most`, `all` by
    /// hole punching, or `reachable`.
    direct: String,
    /// The value of `direct` as a sentence.
    summary: String,
    /// What would help, the most useful first.
    advice: Vec<AdvicePage>,
    /// Whether UDP connections work; `null` if that is not known.
    udp: Option<bool>,
    /// Whether IPv6 connections work; `null` if that is not known.
    ipv6: Option<bool>,
    /// `off`, `mapped` or `not_mapped`.
    port_mapping: String,
    /// The judgement by protocol and version of IP.
    protocols: Vec<ProtocolPage>,
}

/// A change that would help.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
struct AdvicePage {
    /// Name of the change, such as `port_mapping`.
    name: String,
    /// The change as a sentence.
    text: String,
}

/// The NAT or firewall for one protocol and one version of IP, in the terms of RFC 4787.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
struct ProtocolPage {
    /// `udp` or `tcp`.
    transport: String,
    /// `ipv4` or `ipv6`.
    family: String,
    /// Whether outbound connections work; `null` if none was tried.
    usable: Option<bool>,
    /// `none`, `endpoint_independent`, `endpoint_dependent` or `unknown`.
    mapping: String,
    /// `endpoint_independent`, `address_dependent`, `address_dependent_at_most`,
    /// `address_and_port_dependent` or `unknown`.
    filtering: String,
    /// Addresses at which peers see this host.
    public_addresses: Vec<String>,
}

/// A boot node or relay.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct ServerPage {
    pub(crate) peer: String,
    /// Whether it is a boot node of the configuration, of a list or of the command.
    pub(crate) boot_node: bool,
    /// Whether it relays for this node, or offers to; `null` if that is not known.
    pub(crate) relay: Option<bool>,
    pub(crate) connected: bool,
    /// Why there is no connection, if that is known.
    pub(crate) error: Option<String>,
    pub(crate) round_trip_ms: Option<f64>,
    /// Largest UDP payload that QUIC found to pass on the path, in bytes; `null` if it is not known,
    /// as over TCP.
    pub(crate) path_mtu_bytes: Option<u16>,
}

/// How the facts of a page were found.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    /// A running node has seen them.
    Node,
    /// Tests were made for the command.
    Probe,
}

impl Source {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Probe => "probe",
        }
    }
}

impl NetworkPage {
    pub(crate) fn of(observations: &Observations) -> Self {
        let Verdict {
            protocols,
            udp,
            ipv6,
            direct,
            advice,
        } = judge(observations);
        let advice = advice.into_iter().map(|one| AdvicePage {
            name: one.name().to_owned(),
            text: one.to_string(),
        });
        Self {
            direct: direct.name().to_owned(),
            summary: direct.to_string(),
            advice: advice.collect(),
            udp,
            ipv6,
            port_mapping: match observations.port_mapping {
                PortMapping::Off => "off",
                PortMapping::Mapped => "mapped",
                PortMapping::NotMapped => "not_mapped",
            }
            .to_owned(),
            protocols: protocols.iter().map(ProtocolPage::of).collect(),
        }
    }
}

impl ProtocolPage {
    fn of(protocol: &ProtocolVerdict) -> Self {
        Self {
            transport: protocol.transport.name().to_owned(),
            family: protocol.family.name().to_owned(),
            usable: protocol.usable,
            mapping: protocol.mapping.name().to_owned(),
            filtering: protocol.filtering.name().to_owned(),
            public_addresses: protocol
                .public_addresses
                .iter()
                .map(ToString::to_string)
                .collect(),
        }
    }
}

impl NetcheckPage {
    /// What a running node knows.
    pub(crate) fn of_node(status: &Status) -> Self {
        let reservations = status.reservations.iter();
        let held = reservations.filter(|one| matches!(one.state, Reservation::Held { .. }));
        let relays: Vec<_> = held.map(|one| one.relay).collect();
        let boot_nodes = status.boot_nodes.iter();
        let boot_nodes: Vec<_> = boot_nodes
            .map(|one| (one.peer, one.state == BootNode::Connected))
            .collect();
        let others = relays.iter().copied().map(|relay| (relay, true));
        let others = others.filter(|(relay, _)| boot_nodes.iter().all(|(boot, _)| boot != relay));
        let servers = boot_nodes.iter().copied().chain(others);
        let page = |(peer, connected): (PeerId, bool)| {
            let mut connections = status.connections.iter().filter(|one| one.peer == peer);
            ServerPage {
                peer: peer.to_base58(),
                boot_node: boot_nodes.iter().any(|(boot, _)| *boot == peer),
                relay: Some(relays.contains(&peer)),
                connected,
                error: None,
                round_trip_ms: connections.clone().find_map(|one| one.rtt).map(millis),
                path_mtu_bytes: connections.find_map(|one| one.link.path_mtu_bytes()),
            }
        };
        Self {
            source: Source::Node.name().to_owned(),
            network: NetworkPage::of(&status.observations()),
            hairpin: None,
            servers: servers.map(page).collect(),
        }
    }
}

impl NetcheckPage {
    /// Fails if tests were made and reached no boot node.
    pub(super) fn require_boot_node(&self) -> Result<(), CommandError> {
        let is_tested = self.source == Source::Probe.name();
        if !is_tested || self.servers.iter().any(|server| server.connected) {
            return Ok(());
        }
        let mut errors = self
            .servers
            .iter()
            .filter_map(|server| server.error.clone());
        Err(CommandError::NoBootNode {
            count: self.servers.len(),
            first: errors.next().unwrap_or_default(),
        })
    }
}

/// A fact that may not be known.
fn yes_or_no(fact: Option<bool>) -> &'static str {
    match fact {
        Some(true) => "yes",
        Some(false) => "no",
        None => "not known",
    }
}

impl fmt::Display for NetworkPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "network      {}", self.summary)?;
        for advice in &self.advice {
            write!(f, "\nwould help   {}", advice.text)?;
        }
        Ok(())
    }
}

impl fmt::Display for NetcheckPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let network = &self.network;
        writeln!(f, "{network}")?;
        writeln!(f, "udp          {}", yes_or_no(network.udp))?;
        writeln!(f, "ipv6         {}", yes_or_no(network.ipv6))?;
        writeln!(f, "port mapping {}", network.port_mapping.replace('_', " "))?;
        write!(f, "hairpin      {}", yes_or_no(self.hairpin))?;
        for one in &network.protocols {
            let ProtocolPage {
                transport,
                family,
                mapping,
                filtering,
                ..
            } = one;
            let [mapping, filtering] = [mapping, filtering].map(|name| name.replace('_', " "));
            let usable = match one.usable {
                Some(true) => "usable",
                Some(false) => "no connection",
                None => "not tried",
            };
            write!(
                f,
                "\n{:<12} {usable}, mapping {mapping}, filtering {filtering}",
                format!("{transport} {family}")
            )?;
            for address in &one.public_addresses {
                write!(f, "\n             seen at {}", Printable(address))?;
            }
        }
        for server in &self.servers {
            write!(f, "\n{server}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ServerPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.boot_node {
            true => "boot node",
            false => "relay",
        };
        write!(f, "{kind:<12} ..{}", short_text(&self.peer))?;
        if !self.connected {
            f.write_str(", not reached")?;
            return match &self.error {
                Some(error) => write!(f, ": {}", Printable(error)),
                None => Ok(()),
            };
        }
        if let Some(time) = self.round_trip_ms {
            write!(f, ", round trip {time:.1} ms")?;
        }
        if let Some(bytes) = self.path_mtu_bytes {
            write!(f, ", path MTU {bytes} bytes")?;
        }
        if self.boot_node && self.relay == Some(true) {
            f.write_str(", relay")?;
        }
        Ok(())
    }
}
