//! Names for programs and sentences for people.

use std::fmt;

use super::{Advice, Direct, Family, Filtering, Mapping, Transport};

impl Transport {
    /// Returns the name: `udp` or `tcp`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

impl Family {
    /// Returns the name: `ipv4` or `ipv6`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }
}

impl Mapping {
    /// Returns the name, such as `endpoint_independent`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::None => "none",
            Self::EndpointIndependent => "endpoint_independent",
            Self::EndpointDependent => "endpoint_dependent",
        }
    }
}

impl Filtering {
    /// Returns the name, such as `address_dependent`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::EndpointIndependent => "endpoint_independent",
            Self::AddressDependentAtMost => "address_dependent_at_most",
            Self::AddressDependent => "address_dependent",
            Self::AddressAndPortDependent => "address_and_port_dependent",
        }
    }
}

impl Direct {
    /// Returns the name, such as `most`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::NoPeers => "no_peers",
            Self::Few => "few",
            Self::Most => "most",
            Self::All => "all",
            Self::Reachable => "reachable",
        }
    }
}

impl fmt::Display for Direct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "not enough is known about direct connections",
            Self::NoPeers => "no connections: the boot nodes could not be reached",
            Self::Few => {
                "direct connections with reachable peers and with peers whose NAT does not filter \
                 by port; with others through a relay"
            }
            Self::Most => "direct connections with most peers; not with symmetric NATs",
            Self::All => "direct connections with all peers, by hole punching",
            Self::Reachable => "every peer reaches this node directly",
        })
    }
}

impl Advice {
    /// Returns the name, such as `port_mapping`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CheckBootNodes => "check_boot_nodes",
            Self::SecondBootNode => "second_boot_node",
            Self::PortMapping => "port_mapping",
            Self::ForwardPort => "forward_port",
            Self::OpenFirewall => "open_firewall",
            Self::AllowUdp => "allow_udp",
            Self::Relay => "relay",
        }
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CheckBootNodes => {
                "check the network of this host and the addresses of the boot nodes"
            }
            Self::SecondBootNode => {
                "name boot nodes at two IP addresses: one alone does not show the kind of NAT"
            }
            Self::PortMapping => {
                "set discovery.port_mapping = true, so that the router forwards the port"
            }
            Self::ForwardPort => {
                "forward the listening port at the router, and name the public address in \
                 discovery.external"
            }
            Self::OpenFirewall => "admit the listening port in the firewall, TCP and UDP",
            Self::AllowUdp => "let UDP out: hole punching over TCP fails more often",
            Self::Relay => "keep a relay: boot nodes with server.relay.enabled, discovery.relays",
        })
    }
}
