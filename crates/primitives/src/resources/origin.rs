//! Where a connection comes from, as far as many identities of one host share it.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use libp2p_identity::PeerId;
use multiaddr::{Multiaddr, Protocol};

use crate::addr::{IpScope, ip_scope};

/// The IP prefix or the relay that a connection comes from.
///
/// Identities cost nothing and addresses of one host are many, so limits for a single peer bound
/// little. An IPv4 address is one origin. The 2^64 addresses of an IPv6 `/64`, which is what one
/// host gets, are one origin too. An IPv6 address that a translator made of an IPv4 address (NAT64
/// `64:ff9b::/96`, RFC 6052; 6to4 `2002::/16`, RFC 3056) has the origin of the IPv4 address.
/// Connections through a relay count by that relay, whose address is the only one that is known of
/// them.
///
/// ```
/// use calimero_network_primitives::resources::Origin;
///
/// let origin = |ip: &str| ip.parse().map(Origin::of_ip);
/// assert_eq!(origin("2001:db8::1")?, origin("2001:db8::ffff:1")?);
/// assert_ne!(origin("2001:db8::1")?, origin("2001:db8:0:1::1")?);
/// assert_eq!(origin("::ffff:192.0.2.1")?, origin("192.0.2.1")?);
/// assert_eq!(origin("64:ff9b::9.9.9.9")?, origin("9.9.9.9")?);
/// assert_eq!(origin("192.0.2.1")?.to_string(), "192.0.2.1/32");
/// assert_eq!(origin("2001:db8::1")?.to_string(), "2001:db8::/64");
/// assert!(origin("::1")?.is_local() && origin("192.168.0.7")?.is_local());
/// assert!(!origin("192.0.2.1")?.is_local() && !origin("2001:db8::1")?.is_local());
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Origin {
    /// One IPv4 address. IPv4-mapped and translated IPv6 addresses are IPv4 addresses.
    Ipv4([u8; 4]),
    /// The first 64 bits of an IPv6 address.
    Ipv6([u8; 8]),
    /// The relay that the connection goes through.
    Relay(PeerId),
}

impl Origin {
    /// The prefix that `ip` belongs to.
    #[must_use]
    pub fn of_ip(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self::Ipv4(ip.octets()),
            IpAddr::V6(ip) => match (ip.segments(), ip_scope(ip.into())) {
                // One host with an IPv4 address has a 6to4 `/48`, and all hosts behind a NAT64
                // share one `/64`.
                (
                    [0x0064, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..],
                    IpScope::Global,
                ) => {
                    let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
                    Self::Ipv4([a, b, c, d])
                }
                // RFC 3056 forbids 6to4 addresses of other IPv4 addresses. They are one origin,
                // which is not local although the IPv4 address can be private.
                ([0x2002, ..], _) => Self::Ipv6([0x20, 0x02, 0, 0, 0, 0, 0, 0]),
                _ => {
                    let [a, b, c, d, e, f, g, h, ..] = ip.octets();
                    Self::Ipv6([a, b, c, d, e, f, g, h])
                }
            },
        }
    }

    /// The origin of a remote address: its relay, or the prefix of its IP address.
    ///
    /// `None` for names that are not resolved and for addresses without a host, such as those of
    /// the memory transport.
    #[must_use]
    pub fn of_addr(addr: &Multiaddr) -> Option<Self> {
        relay_of(addr).or_else(|| match addr.iter().next()? {
            Protocol::Ip4(ip) => Some(Self::of_ip(ip.into())),
            Protocol::Ip6(ip) => Some(Self::of_ip(ip.into())),
            // The zone of a link-local address comes first.
            Protocol::Ip6zone(_) => match addr.iter().nth(1)? {
                Protocol::Ip6(ip) => Some(Self::of_ip(ip.into())),
                _ => None,
            },
            _ => None,
        })
    }

    /// The origin of an inbound connection.
    ///
    /// A connection that arrived through a relay names the relay in the `local` address on which it
    /// was accepted. Its `remote` address is the peer id alone.
    #[must_use]
    pub fn of_inbound(local: &Multiaddr, remote: &Multiaddr) -> Option<Self> {
        relay_of(local).or_else(|| Self::of_addr(remote))
    }

    /// Returns `true` for loopback, private and link-local prefixes: `127.0.0.0/8`, `10.0.0.0/8`,
    /// `172.16.0.0/12`, `192.168.0.0/16`, `169.254.0.0/16`, the `/64` of `::1`, `fc00::/7` and
    /// `fe80::/10`.
    ///
    /// Many honest nodes can share one: nodes of one host, and nodes behind a gateway that replaces
    /// their addresses. A stranger from the internet does not arrive from one unless such a gateway
    /// is in between. [`Limit::for_local`](super::Limit::for_local) is therefore larger.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Ipv4(octets) => {
                let ip = Ipv4Addr::from(*octets);
                ip.is_loopback() || ip.is_private() || ip.is_link_local()
            }
            Self::Ipv6(prefix @ [first, second, ..]) => {
                *prefix == [0; 8]
                    || first & 0xfe == 0xfc
                    || (*first == 0xfe && second & 0xc0 == 0x80)
            }
            Self::Relay(_) => false,
        }
    }
}

/// The peer before `p2p-circuit`.
fn relay_of(addr: &Multiaddr) -> Option<Origin> {
    let mut last = None;
    for part in addr {
        match part {
            Protocol::P2p(peer) => last = Some(peer),
            Protocol::P2pCircuit => return last.map(Origin::Relay),
            _ => {}
        }
    }
    None
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ipv4(octets) => write!(f, "{}/32", IpAddr::from(*octets)),
            Self::Ipv6([a, b, c, d, e, g, h, i]) => {
                let ip = [*a, *b, *c, *d, *e, *g, *h, *i, 0, 0, 0, 0, 0, 0, 0, 0];
                write!(f, "{}/64", IpAddr::from(ip))
            }
            Self::Relay(peer) => write!(f, "relay {peer}"),
        }
    }
}
