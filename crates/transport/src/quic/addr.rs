//! QUIC multiaddresses and socket addresses.

use std::net::{IpAddr, SocketAddr};

use libp2p_core::multiaddr::{Multiaddr, Protocol};
use libp2p_identity::PeerId;

/// What a `/ip…/udp/…/quic-v1[/p2p/…]` address names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) socket: SocketAddr,
    pub(super) peer: Option<PeerId>,
}

/// Reads an address; `None` if it is not one of QUIC version 1 on an IP address.
pub(super) fn parse(address: &Multiaddr) -> Option<Target> {
    let mut parts = address.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => IpAddr::V4(ip),
        Protocol::Ip6(ip) => IpAddr::V6(ip),
        _ => return None,
    };
    let Protocol::Udp(port) = parts.next()? else {
        return None;
    };
    let Protocol::QuicV1 = parts.next()? else {
        return None;
    };
    let peer = match parts.next() {
        None => None,
        Some(Protocol::P2p(peer)) => Some(peer),
        Some(_) => return None,
    };
    let socket = SocketAddr::new(ip, port);
    parts.next().is_none().then_some(Target { socket, peer })
}

/// As [`parse`], for an address that packets can be sent to.
pub(super) fn parse_remote(address: &Multiaddr) -> Option<Target> {
    parse(address).filter(|to| to.socket.port() != 0 && !to.socket.ip().is_unspecified())
}

/// Writes a socket address as a multiaddress.
pub(super) fn multiaddr(socket: SocketAddr) -> Multiaddr {
    Multiaddr::from(socket.ip())
        .with(Protocol::Udp(socket.port()))
        .with(Protocol::QuicV1)
}

/// Whether both addresses are of one family, and a socket bound to one can send to the other.
pub(super) fn same_family(a: IpAddr, b: IpAddr) -> bool {
    a.is_ipv4() == b.is_ipv4()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PEER: &str = "12D3KooW9xk7Zp1gejwfwNpfm6L9zH5NL4Bx5rm94LRYJJHJuARZ";

    fn read(text: &str) -> Option<Target> {
        parse(&text.parse().expect("a multiaddress"))
    }

    #[test]
    fn only_version_1_on_ip_addresses() {
        for text in [
            "/ip4/127.0.0.1/udp/1234",
            "/ip4/127.0.0.1/udp/1234/quic",
            "/ip4/127.0.0.1/tcp/1234",
            "/dns4/example.org/udp/1234/quic-v1",
            "/ip4/127.0.0.1/udp/1234/quic-v1/webtransport",
            "/udp/1234/quic-v1",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        let twice = format!("/ip4/127.0.0.1/udp/1/quic-v1/p2p/{PEER}/p2p/{PEER}");
        assert_eq!(read(&twice), None);
        let circuit = format!("/ip4/127.0.0.1/udp/1/quic-v1/p2p/{PEER}/p2p-circuit");
        assert_eq!(read(&circuit), None);
    }

    #[test]
    fn the_peer_is_kept() {
        let target = read(&format!("/ip6/::1/udp/7/quic-v1/p2p/{PEER}")).expect("reads");
        assert_eq!(target.socket, "[::1]:7".parse().expect("an address"));
        assert_eq!(target.peer, PEER.parse().ok());
    }

    #[test]
    fn nothing_can_be_sent_to_an_unspecified_address_or_port() {
        for text in [
            "/ip4/0.0.0.0/udp/1/quic-v1",
            "/ip4/127.0.0.1/udp/0/quic-v1",
            "/ip6/::/udp/1/quic-v1",
        ] {
            let address: Multiaddr = text.parse().expect("a multiaddress");
            assert!(parse(&address).is_some(), "{text}");
            assert_eq!(parse_remote(&address), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(ip: IpAddr, port: u16) {
            let socket = SocketAddr::new(ip, port);
            prop_assert_eq!(parse(&multiaddr(socket)), Some(Target { socket, peer: None }));
        }
    }
}
