//! Mappings of listening ports at the router, so that peers reach a node behind a NAT.
//!
//! [`Behaviour`] asks the router by PCP, NAT-PMP and UPnP IGD, in this order, for a mapping of each
//! port that the node listens on at a private IPv4 address. When to ask, renew and withdraw is
//! decided by [`machine::Machine`], without IO and clock. A mapped address is only a candidate:
//! it becomes an external address when a probe of another peer reaches it.
//!
//! The protocols are implemented by the crates `crab_nat` and `igd-next`; the search of UPnP and the
//! bounds on the answers of a router are in `upnp`. `libp2p-upnp` is not used:
//! it announces mapped addresses without a test and leaves mappings behind when the node stops.

mod behaviour;
mod gateway;
pub mod machine;
mod upnp;

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use calimero_network_primitives::Multiaddr;
use libp2p_core::multiaddr::Protocol as Part;

pub use self::{
    behaviour::{Behaviour, Event},
    gateway::Failure,
};

/// The transport protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP, which carries QUIC.
    Udp,
}

/// A port that the node listens on, at a local address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// The transport protocol.
    pub transport: Transport,
    /// The local address and port number.
    pub socket: SocketAddrV4,
}

impl Port {
    /// Returns the port of a listen address that a router can map: TCP or QUIC at a private IPv4
    /// address.
    #[must_use]
    pub fn of(address: &Multiaddr) -> Option<Self> {
        let mut parts = address.iter();
        let Some(Part::Ip4(ip)) = parts.next() else {
            return None;
        };
        let (transport, port) = match (parts.next(), parts.next(), parts.next()) {
            (Some(Part::Tcp(port)), None, None) => (Transport::Tcp, port),
            (Some(Part::Udp(port)), Some(Part::QuicV1), None) => (Transport::Udp, port),
            _ => return None,
        };
        (ip.is_private() || is_shared(ip)).then(|| Self {
            transport,
            socket: SocketAddrV4::new(ip, port),
        })
    }

    /// Returns the address at which a peer dials `socket`, an address of this port.
    #[must_use]
    pub fn address_at(&self, socket: SocketAddrV4) -> Multiaddr {
        let ip = Multiaddr::from(*socket.ip());
        match self.transport {
            Transport::Tcp => ip.with(Part::Tcp(socket.port())),
            Transport::Udp => ip.with(Part::Udp(socket.port())).with(Part::QuicV1),
        }
    }

    /// Returns the local listen address.
    #[must_use]
    pub fn local(&self) -> Multiaddr {
        self.address_at(self.socket)
    }
}

/// Returns `true` for a shared address (RFC 6598), which a router of a carrier has inside.
const fn is_shared(ip: Ipv4Addr) -> bool {
    ip.octets()[0] == 100 && ip.octets()[1] & 0b1100_0000 == 64
}

/// The protocol that a router granted a mapping by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Port Control Protocol (RFC 6887).
    Pcp,
    /// NAT Port Mapping Protocol (RFC 6886).
    NatPmp,
    /// Internet Gateway Device of UPnP.
    Upnp,
}

impl Protocol {
    /// All protocols, in the order in which they are tried.
    pub const ALL: [Self; 3] = [Self::Pcp, Self::NatPmp, Self::Upnp];

    /// Returns the name for metrics and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pcp => "pcp",
            Self::NatPmp => "nat_pmp",
            Self::Upnp => "upnp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pcp => "PCP",
            Self::NatPmp => "NAT-PMP",
            Self::Upnp => "UPnP",
        })
    }
}

/// A mapping that a router granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The address and port outside, which the router forwards. Only a probe shows whether it is
    /// public and forwarded.
    pub external: SocketAddrV4,
    /// The protocol that granted it.
    pub protocol: Protocol,
    /// The lifetime that the router granted.
    pub lifetime: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ports_at_private_addresses_of_tcp_and_quic_are_mapped() {
        for mapped in [
            "/ip4/192.168.1.2/tcp/2428",
            "/ip4/10.0.0.2/udp/2428/quic-v1",
            "/ip4/100.64.0.2/tcp/1",
        ] {
            let address: Multiaddr = mapped.parse().unwrap();
            assert_eq!(Port::of(&address).map(|port| port.local()), Some(address));
        }
        for other in [
            "/ip4/127.0.0.1/tcp/2428",
            "/ip4/8.8.8.8/tcp/2428",
            "/ip4/100.128.0.2/tcp/1",
            "/ip4/192.168.1.2/udp/2428",
            "/ip4/192.168.1.2/tcp/2428/ws",
            "/ip6/fd00::1/tcp/2428",
            "/memory/7",
        ] {
            assert_eq!(Port::of(&other.parse().unwrap()), None, "{other}");
        }
    }
}
