//! Where addresses reach: every range of the registries, every shape, what might be smuggled in.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use calimero_network_primitives::{
    Keypair, Multiaddr, PeerId,
    addr::{
        AddressTransport, DialPolicy, IpScope, ip_scope, is_dialable, is_dns, is_global,
        is_link_local, is_loopback, is_private, is_unspecified, scope_of, transport_of,
    },
    multiaddr::Protocol,
};
use proptest::prelude::*;

fn peer(seed: u8) -> PeerId {
    let keypair = Keypair::ed25519_from_bytes([seed; 32]).unwrap();
    PeerId::from_public_key(&keypair.public())
}

fn addr(text: &str) -> Multiaddr {
    let named = text
        .replace("{A}", &peer(1).to_base58())
        .replace("{B}", &peer(2).to_base58());
    named.parse().unwrap()
}

/// First and last address of each range, and its scope.
const RANGES: &[(&str, &str, IpScope)] = &[
    ("0.0.0.0", "0.0.0.0", IpScope::Unspecified),
    ("0.0.0.1", "0.255.255.255", IpScope::Reserved),
    ("1.0.0.0", "9.255.255.255", IpScope::Global),
    ("10.0.0.0", "10.255.255.255", IpScope::Private),
    ("11.0.0.0", "100.63.255.255", IpScope::Global),
    ("100.64.0.0", "100.127.255.255", IpScope::Private),
    ("100.128.0.0", "126.255.255.255", IpScope::Global),
    ("127.0.0.0", "127.255.255.255", IpScope::Loopback),
    ("128.0.0.0", "169.253.255.255", IpScope::Global),
    ("169.254.0.0", "169.254.255.255", IpScope::LinkLocal),
    ("169.255.0.0", "172.15.255.255", IpScope::Global),
    ("172.16.0.0", "172.31.255.255", IpScope::Private),
    ("172.32.0.0", "191.255.255.255", IpScope::Global),
    ("192.0.0.0", "192.0.0.255", IpScope::Reserved),
    ("192.0.1.0", "192.0.1.255", IpScope::Global),
    ("192.0.2.0", "192.0.2.255", IpScope::Testing),
    ("192.0.3.0", "192.88.98.255", IpScope::Global),
    ("192.88.99.0", "192.88.99.255", IpScope::Reserved),
    ("192.88.100.0", "192.167.255.255", IpScope::Global),
    ("192.168.0.0", "192.168.255.255", IpScope::Private),
    ("192.169.0.0", "198.17.255.255", IpScope::Global),
    ("198.18.0.0", "198.19.255.255", IpScope::Testing),
    ("198.20.0.0", "198.51.99.255", IpScope::Global),
    ("198.51.100.0", "198.51.100.255", IpScope::Testing),
    ("198.51.101.0", "203.0.112.255", IpScope::Global),
    ("203.0.113.0", "203.0.113.255", IpScope::Testing),
    ("203.0.114.0", "223.255.255.255", IpScope::Global),
    ("224.0.0.0", "239.255.255.255", IpScope::Multicast),
    ("240.0.0.0", "255.255.255.254", IpScope::Reserved),
    ("255.255.255.255", "255.255.255.255", IpScope::Multicast),
    ("::", "::", IpScope::Unspecified),
    ("::1", "::1", IpScope::Loopback),
    ("::2", "::fffe:ffff:ffff", IpScope::Reserved),
    (
        "::1:0:0:0",
        "64:ff9a:ffff:ffff:ffff:ffff:ffff:ffff",
        IpScope::Reserved,
    ),
    ("64:ff9b::a00:0", "64:ff9b::aff:ffff", IpScope::Reserved),
    ("64:ff9b::800:0", "64:ff9b::808:808", IpScope::Global),
    (
        "64:ff9b:1::",
        "64:ff9b:1:ffff:ffff:ffff:ffff:ffff",
        IpScope::Reserved,
    ),
    ("100::", "100::ffff:ffff:ffff:ffff", IpScope::Reserved),
    (
        "2000::",
        "2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        IpScope::Global,
    ),
    (
        "2001::",
        "2001:1:ffff:ffff:ffff:ffff:ffff:ffff",
        IpScope::Reserved,
    ),
    (
        "2001:2::",
        "2001:2:0:ffff:ffff:ffff:ffff:ffff",
        IpScope::Testing,
    ),
    (
        "2001:2:1::",
        "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff",
        IpScope::Reserved,
    ),
    (
        "2001:200::",
        "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff",
        IpScope::Global,
    ),
    (
        "2001:db8::",
        "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
        IpScope::Testing,
    ),
    (
        "2001:db9::",
        "2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        IpScope::Global,
    ),
    (
        "2002:808:808::",
        "2002:808:808:ffff:ffff:ffff:ffff:ffff",
        IpScope::Global,
    ),
    (
        "2002:c0a8::",
        "2002:c0a8:ffff:ffff:ffff:ffff:ffff:ffff",
        IpScope::Reserved,
    ),
    (
        "2003::",
        "3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        IpScope::Global,
    ),
    (
        "3fff::",
        "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff",
        IpScope::Testing,
    ),
    (
        "3fff:1000::",
        "3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        IpScope::Global,
    ),
    (
        "4000::",
        "fbff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        IpScope::Reserved,
    ),
    (
        "fc00::",
        "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        IpScope::Private,
    ),
    (
        "fe00::",
        "fe7f:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        IpScope::Reserved,
    ),
    (
        "fe80::",
        "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        IpScope::LinkLocal,
    ),
    (
        "fec0::",
        "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        IpScope::Reserved,
    ),
    (
        "ff00::",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        IpScope::Multicast,
    ),
];

#[test]
fn every_range_has_its_scope() {
    for &(first, last, scope) in RANGES {
        for text in [first, last] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(ip_scope(ip), scope, "{text}");
            let addr = Multiaddr::from(ip).with(Protocol::Tcp(1));
            assert_eq!(scope_of(&addr), Some(scope), "{addr}");
        }
    }
}

#[test]
fn a_mapped_address_has_the_scope_of_what_it_maps() {
    for &(first, last, scope) in RANGES {
        for text in [first, last] {
            if let Ok(ip) = text.parse::<Ipv4Addr>() {
                assert_eq!(ip_scope(ip.to_ipv6_mapped().into()), scope, "{ip}");
            }
        }
    }
}

#[test]
fn predicates_agree_with_the_scope() {
    for (text, predicate) in [
        ("/ip4/8.8.8.8/tcp/1", is_global as fn(&Multiaddr) -> bool),
        ("/ip6/fd00::1/tcp/1", is_private),
        ("/ip4/100.64.0.1/udp/1/quic-v1", is_private),
        ("/ip6/fe80::1/tcp/1", is_link_local),
        ("/ip6zone/eth0/ip6/fe80::1/tcp/1", is_link_local),
        ("/ip6/::ffff:127.0.0.1/tcp/1", is_loopback),
        ("/ip6/::/tcp/1", is_unspecified),
    ] {
        let addr = addr(text);
        let holding = [
            is_global(&addr),
            is_private(&addr),
            is_link_local(&addr),
            is_loopback(&addr),
            is_unspecified(&addr),
        ];
        assert!(predicate(&addr), "{text}");
        assert_eq!(holding.iter().filter(|&&holds| holds).count(), 1, "{text}");
    }
}

#[test]
fn names_and_memory_have_no_scope() {
    for text in [
        "/dns/example.com/tcp/1",
        "/dns4/example.com/tcp/1",
        "/dns6/example.com/udp/1/quic-v1",
        "/dnsaddr/example.com",
        "/memory/7",
        "/p2p-circuit",
        "/tcp/1",
        "/unix/tmp",
    ] {
        assert_eq!(scope_of(&addr(text)), None, "{text}");
    }
    assert_eq!(scope_of(&Multiaddr::empty()), None);
    assert!(is_dns(&addr("/dns/example.com/tcp/1")));
    assert!(!is_dns(&addr("/ip4/8.8.8.8/tcp/1")));
}

#[test]
fn a_second_host_hides_nothing() {
    for text in [
        "/ip4/8.8.8.8/tcp/1/ip4/127.0.0.1/tcp/80",
        "/dns4/example.com/tcp/1/ip4/127.0.0.1/tcp/80",
        "/ip4/8.8.8.8/tcp/1/p2p/{A}/p2p-circuit/ip4/10.0.0.1/tcp/80",
        "/ip4/8.8.8.8/udp/1/quic-v1/memory/1",
    ] {
        let addr = addr(text);
        assert_eq!(scope_of(&addr), None, "{text}");
        assert_eq!(transport_of(&addr), None, "{text}");
        assert!(!is_dns(&addr), "{text}");
        assert!(!is_dialable(&addr, DialPolicy::Local), "{text}");
    }
}

#[test]
fn shapes_have_their_transport() {
    for (text, kind) in [
        ("/ip4/8.8.8.8/tcp/1", Some(AddressTransport::Tcp)),
        ("/ip6/2003::1/tcp/1/p2p/{A}", Some(AddressTransport::Tcp)),
        ("/dns/example.com/tcp/1", Some(AddressTransport::Tcp)),
        ("/ip4/8.8.8.8/udp/1/quic-v1", Some(AddressTransport::Quic)),
        ("/ip4/8.8.8.8/tcp/1/ws", Some(AddressTransport::WebSocket)),
        (
            "/ip4/8.8.8.8/tcp/1/wss/p2p/{A}",
            Some(AddressTransport::WebSocket),
        ),
        (
            "/dns4/a.b/tcp/1/tls/sni/a.b/ws",
            Some(AddressTransport::WebSocket),
        ),
        (
            "/ip4/8.8.8.8/tcp/1/x-parity-ws/%2Fx",
            Some(AddressTransport::WebSocket),
        ),
        ("/memory/7", Some(AddressTransport::Memory)),
        (
            "/dnsaddr/example.com/p2p/{A}",
            Some(AddressTransport::Dnsaddr),
        ),
        ("/dnsaddr/example.com/tcp/1", Some(AddressTransport::Tcp)),
        (
            "/ip4/8.8.8.8/tcp/1/p2p/{A}/p2p-circuit",
            Some(AddressTransport::Circuit),
        ),
        (
            "/memory/7/p2p/{A}/p2p-circuit/p2p/{B}",
            Some(AddressTransport::Circuit),
        ),
        ("/ip4/8.8.8.8/tcp/1/p2p-circuit/p2p/{B}", None),
        ("/p2p/{A}/p2p-circuit/p2p/{B}", None),
        ("/ip4/8.8.8.8", None),
        ("/ip4/8.8.8.8/udp/1", None),
        ("/ip4/8.8.8.8/udp/1/quic", None),
        ("/ip4/8.8.8.8/udp/1/quic-v1/webtransport", None),
        ("/ip4/8.8.8.8/tcp/1/tls", None),
        ("/ip4/8.8.8.8/tcp/1/tls/wss", None),
        ("/ip4/8.8.8.8/tcp/1/http", None),
        ("/ip4/8.8.8.8/tcp/1/p2p/{A}/p2p/{B}", None),
        ("/ip6zone/eth0/ip4/8.8.8.8/tcp/1", None),
        ("/p2p/{A}", None),
        ("/ip4/8.8.8.8/tcp/1/p2p/{A}/p2p-circuit/p2p/{A}", None),
    ] {
        assert_eq!(transport_of(&addr(text)), kind, "{text}");
    }
}

#[test]
fn dialable_is_complete_known_and_within_the_policy() {
    use DialPolicy::{Global, Local, Private};

    for (text, widest) in [
        ("/ip4/8.8.8.8/tcp/2428", Some(Global)),
        ("/ip6/2003::1/udp/2428/quic-v1/p2p/{A}", Some(Global)),
        ("/dns4/example.com/tcp/2428", Some(Global)),
        ("/dnsaddr/example.com", Some(Global)),
        (
            "/ip4/8.8.8.8/tcp/1/p2p/{A}/p2p-circuit/p2p/{B}",
            Some(Global),
        ),
        ("/ip4/192.168.1.7/tcp/2428", Some(Private)),
        ("/ip6/::ffff:10.0.0.1/tcp/2428", Some(Private)),
        (
            "/ip4/10.0.0.1/tcp/1/p2p/{A}/p2p-circuit/p2p/{B}",
            Some(Private),
        ),
        ("/ip4/127.0.0.1/tcp/2428", Some(Local)),
        ("/ip4/169.254.7.7/tcp/2428", Some(Local)),
        ("/ip4/203.0.113.7/tcp/2428", Some(Local)),
        ("/memory/7", Some(Local)),
        ("/dns/localhost/tcp/2428", Some(Local)),
        ("/dns/a.LocalHost./tcp/2428", Some(Local)),
        ("/ip4/8.8.8.8/tcp/0", None),
        ("/ip4/8.8.8.8/udp/0/quic-v1", None),
        ("/ip4/8.8.8.8/tcp/0/p2p/{A}/p2p-circuit/p2p/{B}", None),
        ("/ip4/8.8.8.8/tcp/1/p2p/{A}/p2p-circuit", None),
        ("/ip4/8.8.8.8/tcp/1/p2p-circuit/p2p/{B}", None),
        ("/ip4/0.0.0.0/tcp/2428", None),
        ("/ip4/224.0.0.1/udp/1/quic-v1", None),
        ("/ip4/240.0.0.1/tcp/1", None),
        ("/ip6/64:ff9b::7f00:1/tcp/1", None),
        ("/dns4/127.0.0.1/tcp/2428", None),
        ("/dns4/a b/tcp/2428", None),
        ("/ip4/8.8.8.8/udp/1/webrtc-direct", None),
    ] {
        let addr = addr(text);
        let expected = match widest {
            Some(Global) => [true, true, true],
            Some(Private) => [false, true, true],
            Some(Local) => [false, false, true],
            None => [false, false, false],
        };
        assert_eq!(
            [Global, Private, Local].map(|policy| is_dialable(&addr, policy)),
            expected,
            "{text}"
        );
    }
}

#[test]
fn a_name_that_reads_as_more_than_a_name_is_not_dialable() {
    let long = "a".repeat(254);
    for name in ["example.com/tcp/1", "", "a\nb", "::1", long.as_str()] {
        let addr = Multiaddr::empty()
            .with(Protocol::Dns4(name.into()))
            .with(Protocol::Tcp(1));
        assert!(!is_dialable(&addr, DialPolicy::Local), "{name:?}");
    }
}

proptest! {
    #[test]
    fn every_ip_has_a_scope_and_mapping_keeps_it(v4: u32, v6: u128) {
        let v4 = Ipv4Addr::from(v4);
        prop_assert_eq!(ip_scope(v4.into()), ip_scope(v4.to_ipv6_mapped().into()));
        let v6 = Ipv6Addr::from(v6);
        let first = v6.segments()[0];
        prop_assert!(ip_scope(v6.into()) != IpScope::Global || first >> 13 == 1 || first == 0x64 || first == 0);
    }
}
