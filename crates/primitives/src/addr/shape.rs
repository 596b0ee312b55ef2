//! The shapes of address that this network's transports understand.

use std::{borrow::Cow, iter::Peekable, net::IpAddr};

use libp2p_identity::PeerId;
use multiaddr::{Multiaddr, Protocol};

/// What carries bytes to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AddressTransport {
    /// `/tcp/<port>`, secured and multiplexed by negotiation.
    Tcp,
    /// `/udp/<port>/quic-v1`.
    Quic,
    /// `/tcp/<port>/ws`, `/wss` or `/tls/ws`.
    WebSocket,
    /// `/memory/<number>`: inside this process.
    Memory,
    /// `/dnsaddr/<name>`: the transport is known only after the name is resolved.
    Dnsaddr,
    /// Through a relay, over any transport that reaches the relay.
    Circuit,
}

/// The first component of an address: where its packets go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Host<'a> {
    Ip(IpAddr),
    Name(Cow<'a, str>),
    Memory,
}

/// An address of a known shape, taken apart.
pub(super) struct Shape<'a> {
    pub(super) host: Host<'a>,
    pub(super) kind: AddressTransport,
    /// Whether the address needs no port, or has one that is not 0.
    pub(super) ported: bool,
    /// Relay of a relayed address.
    pub(super) relay: Option<PeerId>,
    /// Peer at the end of the address.
    pub(super) target: Option<PeerId>,
}

/// What carries bytes to `addr`, if it has a shape that this network's transports understand
/// from its first component to its last.
///
/// ```
/// use calimero_network_primitives::addr::{AddressTransport, transport_of};
///
/// let addr = "/dns4/example.com/udp/2428/quic-v1".parse()?;
/// assert_eq!(transport_of(&addr), Some(AddressTransport::Quic));
/// # Ok::<(), multiaddr::Error>(())
/// ```
#[must_use]
pub fn transport_of(addr: &Multiaddr) -> Option<AddressTransport> {
    shape(addr).map(|shape| shape.kind)
}

/// The host of `addr`; `None` if a second host follows.
///
/// Some transports read an address from its start and some from its end. In an address with two
/// hosts, the host that is checked here need not be the host that is dialled.
pub(super) fn host(addr: &Multiaddr) -> Option<Host<'_>> {
    let mut parts = addr.iter().peekable();
    let host = next_host(&mut parts)?;
    (!parts.any(|part| is_host(&part))).then_some(host)
}

/// Whether `addr` names more than one host.
pub(super) fn has_two_hosts(addr: &Multiaddr) -> bool {
    let zone = |part: &Protocol<'_>| matches!(part, Protocol::Ip6zone(_));
    let hosts = addr.iter().filter(|part| is_host(part) && !zone(part));
    hosts.count() > 1
}

fn is_host(part: &Protocol<'_>) -> bool {
    matches!(
        part,
        Protocol::Ip4(_)
            | Protocol::Ip6(_)
            | Protocol::Ip6zone(_)
            | Protocol::Dns(_)
            | Protocol::Dns4(_)
            | Protocol::Dns6(_)
            | Protocol::Dnsaddr(_)
            | Protocol::Memory(_)
            | Protocol::Unix(_)
            | Protocol::Onion(..)
            | Protocol::Onion3(_)
    )
}

/// Takes `addr` apart; `None` if any component is not where a known shape has it.
pub(super) fn shape(addr: &Multiaddr) -> Option<Shape<'_>> {
    let mut parts = addr.iter().peekable();
    let dnsaddr = matches!(parts.peek(), Some(Protocol::Dnsaddr(_)));
    let host = next_host(&mut parts)?;
    let (kind, ported) = match (&host, parts.peek()) {
        (Host::Memory, _) => (AddressTransport::Memory, true),
        (_, None | Some(Protocol::P2p(_) | Protocol::P2pCircuit)) if dnsaddr => {
            (AddressTransport::Dnsaddr, true)
        }
        _ => next_transport(&mut parts)?,
    };
    let peer = take_peer(&mut parts);
    match parts.next() {
        None => Some(Shape {
            host,
            kind,
            ported,
            relay: None,
            target: peer,
        }),
        Some(Protocol::P2pCircuit) if peer.is_some() => {
            let target = take_peer(&mut parts);
            (parts.next().is_none() && target != peer).then_some(Shape {
                host,
                kind: AddressTransport::Circuit,
                ported,
                relay: peer,
                target,
            })
        }
        Some(_) => None,
    }
}

fn next_host<'a>(parts: &mut Peekable<impl Iterator<Item = Protocol<'a>>>) -> Option<Host<'a>> {
    let zoned = parts
        .next_if(|part| matches!(part, Protocol::Ip6zone(_)))
        .is_some();
    match parts.next()? {
        Protocol::Ip6(ip) => Some(Host::Ip(IpAddr::V6(ip))),
        _ if zoned => None,
        Protocol::Ip4(ip) => Some(Host::Ip(IpAddr::V4(ip))),
        Protocol::Dns(name)
        | Protocol::Dns4(name)
        | Protocol::Dns6(name)
        | Protocol::Dnsaddr(name) => is_host_name(&name).then_some(Host::Name(name)),
        Protocol::Memory(_) => Some(Host::Memory),
        _ => None,
    }
}

/// The transport over a host, and whether its port can be connected to.
fn next_transport<'a>(
    parts: &mut Peekable<impl Iterator<Item = Protocol<'a>>>,
) -> Option<(AddressTransport, bool)> {
    match parts.next()? {
        Protocol::Udp(port) => matches!(parts.next(), Some(Protocol::QuicV1))
            .then_some((AddressTransport::Quic, port != 0)),
        Protocol::Tcp(port) => {
            let tls = parts.next_if_eq(&Protocol::Tls).is_some();
            if tls {
                let _ = parts.next_if(|part| matches!(part, Protocol::Sni(_)));
            }
            let web = parts
                .next_if(|part| {
                    matches!(part, Protocol::Ws(_)) || (!tls && matches!(part, Protocol::Wss(_)))
                })
                .is_some();
            match (tls, web) {
                (_, true) => Some((AddressTransport::WebSocket, port != 0)),
                (false, false) => Some((AddressTransport::Tcp, port != 0)),
                (true, false) => None,
            }
        }
        _ => None,
    }
}

fn take_peer<'a>(parts: &mut Peekable<impl Iterator<Item = Protocol<'a>>>) -> Option<PeerId> {
    match parts.next_if(|part| matches!(part, Protocol::P2p(_)))? {
        Protocol::P2p(peer) => Some(peer),
        _ => None,
    }
}

/// Whether a name can be resolved and means what it says: 1 to 253 bytes (RFC 1035) of letters,
/// digits, hyphens, dots and underscores, and not an IP address in disguise.
fn is_host_name(name: &str) -> bool {
    (1..=253).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
        && name.parse::<IpAddr>().is_err()
}
