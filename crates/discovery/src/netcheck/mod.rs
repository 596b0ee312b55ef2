//! A judgement of the network of this node: which NAT it is behind, and which peers it can connect
//! with directly.
//!
//! [`judge`] is pure: observations in, [`Verdict`] out. The observations come from other peers:
//! identify reports the address at which a peer sees this node, and AutoNAT v2 reports whether a
//! peer reached it there from another port. The terms are those of RFC 4787, section 4 (mapping) and
//! section 5 (filtering).
//!
//! ```
//! use calimero_network_discovery::netcheck::{
//!     Direct, Mapping, Observations, ObservedAddress, Transport, judge,
//! };
//!
//! let seen = |server: &str, observed: &str| ObservedAddress {
//!     transport: Transport::Udp,
//!     server: server.parse().unwrap(),
//!     observed: observed.parse().unwrap(),
//! };
//! let observations = Observations {
//!     own: vec!["192.168.1.2".parse().unwrap()],
//!     observed: vec![seen("192.0.2.1", "198.51.100.1:4001"), seen("192.0.2.2", "198.51.100.1:4002")],
//!     ..Observations::default()
//! };
//! let verdict = judge(&observations);
//! assert_eq!(verdict.protocols[0].mapping, Mapping::EndpointDependent);
//! assert_eq!(verdict.direct, Direct::Few);
//! ```

mod judge;
#[cfg(test)]
mod tests;
mod words;

use std::net::{IpAddr, SocketAddr};

use calimero_network_primitives::{
    Multiaddr,
    addr::{AddressTransport, IpScope, ip_scope, transport_of, without_peer},
    multiaddr::Protocol,
};

pub use self::judge::judge;

/// Most addresses in [`ProtocolVerdict::public_addresses`]: 8. A symmetric NAT shows another one to
/// each peer.
pub const MAX_PUBLIC_ADDRESSES: usize = 8;

/// The protocol below a connection, as a NAT distinguishes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// UDP, which carries QUIC connections.
    Udp,
    /// TCP, which carries all other connections.
    Tcp,
}

/// Returns the protocol and the socket address at the beginning of a multiaddress: `/ip4` or `/ip6`,
/// then `/tcp` or `/udp`. `None` for addresses of other shapes.
#[must_use]
pub fn endpoint_of(address: &Multiaddr) -> Option<(Transport, SocketAddr)> {
    let mut parts = address.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => IpAddr::from(ip),
        Protocol::Ip6(ip) => IpAddr::from(ip).to_canonical(),
        _ => return None,
    };
    match (parts.next()?, transport_of(&without_peer(address))?) {
        (Protocol::Tcp(port), AddressTransport::Tcp) => Some((Transport::Tcp, (ip, port).into())),
        (Protocol::Udp(port), AddressTransport::Quic) => Some((Transport::Udp, (ip, port).into())),
        _ => None,
    }
}

/// The version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IP version 4, with addresses of 32 bits.
    V4,
    /// IP version 6, with addresses of 128 bits.
    V6,
}

impl Family {
    /// Returns the version of an address.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// The address at which a peer sees a connection that this node dialled from its listening port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObservedAddress {
    /// Protocol of the connection.
    pub transport: Transport,
    /// Address of the peer that was dialled.
    pub server: IpAddr,
    /// Source address of the connection, as that peer sees it.
    pub observed: SocketAddr,
}

impl ObservedAddress {
    /// Returns `true` if it is an address of this host, other than a loopback address.
    pub(super) fn is_of(&self, own: &[IpAddr]) -> bool {
        let ip = self.observed.ip().to_canonical();
        !ip.is_loopback() && own.iter().any(|own| own.to_canonical() == ip)
    }

    /// Returns `true` if a NAT can show this address to the server. A peer can report any address:
    /// one of no host, or a private one from across the internet, is not counted. `own` are the
    /// addresses of the interfaces of this host.
    #[must_use]
    pub fn is_plausible(&self, own: &[IpAddr]) -> bool {
        let ip = self.observed.ip().to_canonical();
        if self.observed.port() == 0 {
            return false;
        }
        if self.is_of(own) {
            return true;
        }
        match ip_scope(ip) {
            IpScope::Global | IpScope::Testing => true,
            IpScope::Private => ip_scope(self.server) == IpScope::Private,
            _ => false,
        }
    }
}

/// The result of a dial of this node by another peer, from a port that this node never sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DialBack {
    /// Protocol that was dialled over.
    pub transport: Transport,
    /// Version of IP that was dialled over.
    pub family: Family,
    /// Whether the peer reached this node.
    pub reached: bool,
    /// Whether this node sent packets from the probed port to the address of that peer before.
    pub contacted: bool,
}

/// Whether dials with one protocol and one version of IP connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Protocol that was dialled over.
    pub transport: Transport,
    /// Version of IP that was dialled over.
    pub family: Family,
    /// Whether a connection was established.
    pub connected: bool,
}

/// The state of port mapping at the router.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PortMapping {
    /// The router is not asked.
    #[default]
    Off,
    /// The router forwards a port.
    Mapped,
    /// The router is asked, and forwards no port.
    NotMapped,
}

/// What a node knows about its network. Empty parts are not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observations {
    /// IP addresses of the interfaces of this host.
    pub own: Vec<IpAddr>,
    /// Addresses at which peers see this node. Those that are not
    /// [plausible](ObservedAddress::is_plausible) do not count.
    pub observed: Vec<ObservedAddress>,
    /// Results of dials of this node by other peers.
    pub dial_backs: Vec<DialBack>,
    /// Results of dials of other peers by this node.
    pub attempts: Vec<Attempt>,
    /// Whether a peer connected directly that this node never sent a packet to.
    pub admits_uncontacted_peers: bool,
    /// Whether the operator vouches for a public address.
    pub configured: bool,
    /// State of port mapping at the router.
    pub port_mapping: PortMapping,
}

/// How the NAT chooses the outer port of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mapping {
    /// Fewer than two servers at different addresses see this node.
    #[default]
    Unknown,
    /// There is no translation: peers see an address of this host.
    None,
    /// All peers see the same address and port.
    EndpointIndependent,
    /// Peers see different addresses or ports: a symmetric NAT.
    EndpointDependent,
}

/// The senders whose packets the NAT or firewall admits to a port that is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Filtering {
    /// No peer dialled this node.
    #[default]
    Unknown,
    /// From every address.
    EndpointIndependent,
    /// From every address, or from every port of addresses that this node sent to.
    AddressDependentAtMost,
    /// From every port of addresses that this node sent to.
    AddressDependent,
    /// From addresses and ports that this node sent to.
    AddressAndPortDependent,
}

/// The judgement of one protocol with one version of IP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtocolVerdict {
    /// Protocol that the NAT distinguishes.
    pub transport: Transport,
    /// Version of IP that is judged.
    pub family: Family,
    /// Whether outbound connections work; `None` if none was tried.
    pub usable: Option<bool>,
    /// How the NAT maps ports.
    pub mapping: Mapping,
    /// Filtering of the NAT or firewall.
    pub filtering: Filtering,
    /// Addresses at which peers see this node, each once, at most [`MAX_PUBLIC_ADDRESSES`] of them.
    pub public_addresses: Vec<SocketAddr>,
}

/// Peers with which direct connections are possible, from the fewest to all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direct {
    /// No connection works.
    NoPeers,
    /// Not enough is known.
    #[default]
    Unknown,
    /// With reachable peers, and by hole punching with peers whose NAT does not filter by port.
    Few,
    /// By hole punching with most peers, and not with those behind symmetric NATs.
    Most,
    /// By hole punching with all peers, those behind symmetric NATs included.
    All,
    /// Every peer reaches this node without hole punching.
    Reachable,
}

/// A change that would make more direct connections possible, or more known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Advice {
    /// No boot node could be reached.
    CheckBootNodes,
    /// Boot nodes at two IP addresses are needed to distinguish the kinds of NAT.
    SecondBootNode,
    /// `discovery.port_mapping` is off and may make this node reachable.
    PortMapping,
    /// The listening port has to be forwarded by hand.
    ForwardPort,
    /// A firewall has to admit the listening port.
    OpenFirewall,
    /// The network lets no UDP out.
    AllowUdp,
    /// A relay is needed, since direct connections fail with many peers.
    Relay,
}

/// The judgement of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The judgement by protocol and version of IP, for those that something is known about.
    pub protocols: Vec<ProtocolVerdict>,
    /// Whether UDP connections work; `None` if none was tried.
    pub udp: Option<bool>,
    /// Whether IPv6 connections work; `None` if none was tried.
    pub ipv6: Option<bool>,
    /// Peers with which direct connections are possible, by the best protocol.
    pub direct: Direct,
    /// What would help, the most useful first.
    pub advice: Vec<Advice>,
}
