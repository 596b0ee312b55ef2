//! The decision whether an address may be dialled: every refusal has its reason, and the gate lets
//! pass what the policy or the operator allows, and nothing else.
#![allow(
    clippy::unwrap_used,
    reason = "an unwrap that fails is a test that fails"
)]

use calimero_network_primitives::{
    Multiaddr, PeerId,
    addr::{
        DialAddr, DialGate, DialPolicy, DialRefusal, DialRules, DialScopes, IpScope,
        MAX_ADDRESS_BYTES, MAX_GRANTS, is_dialable, peer_of, scope_of,
    },
    multiaddr::Protocol,
};
use proptest::prelude::*;

fn addr(text: &str) -> Multiaddr {
    text.parse().unwrap()
}

fn peer(seed: u8) -> PeerId {
    PeerId::from_bytes(&[0, 4, b'p', b'e', b'e', seed]).unwrap()
}

fn refusal(text: &str) -> Option<DialRefusal> {
    DialAddr::new(&addr(text), DialPolicy::Private).err()
}

#[test]
fn an_address_that_is_refused_says_why() {
    for (text, reason) in [
        (
            "/ip4/8.8.8.8/tcp/1/ip4/127.0.0.1/tcp/39022",
            "more than one host",
        ),
        (
            "/ip4/8.8.8.8/tcp/1/p2p-circuit/ip4/8.8.4.4/tcp/1",
            "more than one host",
        ),
        ("/ip4/240.0.0.1/tcp/1", "reserved address"),
        ("/ip4/192.0.2.1/tcp/1", "testing address"),
        ("/ip4/127.0.0.1/tcp/1", "loopback address"),
        ("/ip4/169.254.169.254/tcp/80", "link-local address"),
        ("/ip4/224.0.0.251/udp/5353/quic-v1", "multicast address"),
        ("/ip4/0.0.0.0/tcp/1", "unspecified address"),
        ("/ip6/::127.0.0.1/tcp/1", "reserved address"),
        ("/ip6/64:ff9b::7f00:1/tcp/1", "reserved address"),
        ("/ip6/::ffff:127.0.0.1/tcp/1", "loopback address"),
        ("/ip4/8.8.8.8/udp/1", "no transport"),
        (
            "/ip4/8.8.8.8/tcp/1/tls/sni/example.com/http",
            "no transport",
        ),
        ("/ip4/8.8.8.8", "no transport"),
        ("/unix/tmp", "no transport"),
        ("/ip4/8.8.8.8/tcp/0", "port is 0"),
        ("/ip4/10.0.0.7/tcp/80/x-parity-ws/%2Fset%3Fa=1", "a path"),
        ("/dns4/vault.example/tcp/1/x-parity-wss/%2Fv1", "a path"),
        ("/dns/localhost/tcp/1", "localhost is this host"),
        ("/memory/7", "memory address"),
    ] {
        let refusal = refusal(text).unwrap_or_else(|| panic!("{text} is accepted"));
        assert!(refusal.to_string().contains(reason), "{text}: {refusal}");
    }
    let with_path = addr("/ip4/8.8.8.8/tcp/80/x-parity-ws/%2Fp2p");
    assert!(is_dialable(&with_path, DialPolicy::Local));
    assert!(is_dialable(
        &addr("/ip4/8.8.8.8/tcp/80/ws"),
        DialPolicy::Private
    ));
    let relayed = format!("/ip4/8.8.8.8/tcp/1/p2p/{}/p2p-circuit", peer(1));
    assert_eq!(refusal(&relayed), Some(DialRefusal::Target));
}

#[test]
fn testing_addresses_are_dialled_in_a_laboratory_only() {
    let testing = addr("/ip4/203.0.113.9/tcp/1");
    assert!(!is_dialable(&testing, DialPolicy::Private));
    assert!(is_dialable(&testing, DialPolicy::Local));
    let global = addr("/ip4/8.8.8.8/tcp/1");
    let loopback = addr("/ip4/127.0.0.1/tcp/1");
    let named = |addr| DialScopes::of_node(DialPolicy::Private, [&global, addr]);
    // An operator who names one runs a laboratory, in which the others are dialled too.
    let laboratory = named(&testing);
    assert!(laboratory.laboratory);
    assert!(is_dialable(&testing, laboratory) && !is_dialable(&loopback, laboratory));
    assert_eq!(named(&loopback), DialPolicy::Private.into());
    let gate = DialGate::new(laboratory, []);
    assert!(gate.check(&testing).is_ok() && gate.check(&loopback).is_err());
    assert_eq!(DialPolicy::for_network(true), DialPolicy::Local);
    assert_eq!(DialPolicy::for_network(false), DialPolicy::Private);
}

#[test]
fn a_long_address_is_refused_whatever_it_says() {
    let long = Multiaddr::empty()
        .with(Protocol::Dns4("a".repeat(200).into()))
        .with(Protocol::Tcp(1))
        .with(Protocol::Sni("b".repeat(400).into()));
    let expected = DialRefusal::TooLong { len: long.len() };
    assert!(long.len() > MAX_ADDRESS_BYTES);
    assert_eq!(DialAddr::new(&long, DialPolicy::Local), Err(expected));
    // The longest honest address is within the limit.
    let longest = Multiaddr::empty()
        .with(Protocol::Dns4("a".repeat(253).into()))
        .with(Protocol::Tcp(1))
        .with(Protocol::P2p(peer(1)))
        .with(Protocol::P2pCircuit)
        .with(Protocol::P2p(peer(2)));
    assert!(is_dialable(&longest, DialPolicy::Global));
}

#[test]
fn an_address_of_a_peer_leads_to_that_peer_and_not_through_this_node() {
    let rules = DialRules {
        local: peer(9),
        scopes: DialPolicy::Private.into(),
    };
    let base = addr("/ip4/8.8.8.8/tcp/1");
    let named = |peer| base.clone().with(Protocol::P2p(peer));
    let through = |relay| named(relay).with(Protocol::P2pCircuit);

    assert_eq!(*rules.check(&peer(1), &base).unwrap(), base);
    assert_eq!(*rules.check(&peer(1), &named(peer(1))).unwrap(), base);
    let other = rules.check(&peer(1), &named(peer(2)));
    let (expected, named_peer) = (peer(1), peer(2));
    assert_eq!(
        other,
        Err(DialRefusal::OtherPeer {
            expected,
            named: named_peer
        })
    );

    let circuit = through(peer(2));
    let whole = circuit.clone().with(Protocol::P2p(peer(1)));
    assert_eq!(*rules.check(&peer(1), &circuit).unwrap(), circuit);
    assert_eq!(*rules.check(&peer(1), &whole).unwrap(), circuit);
    for relay in [peer(1), peer(9)] {
        let refused = rules.check(&peer(1), &through(relay));
        assert_eq!(refused, Err(DialRefusal::Relay { relay }));
    }
    let blank = base.clone().with(Protocol::P2pCircuit);
    assert_eq!(rules.check(&peer(1), &blank), Err(DialRefusal::Shape));
}

#[test]
fn a_grant_opens_one_address_and_what_its_name_resolves_to() {
    let [configured, dialled, other] =
        [1, 2, 3].map(|port| addr(&format!("/ip4/127.0.0.1/tcp/{port}")));
    let gate = DialGate::new(DialPolicy::Private, [&configured]);
    assert!(gate.check(&configured).is_ok());
    assert!(gate.check(&dialled).is_err());
    let with_peer = dialled.clone().with(Protocol::P2p(peer(1)));
    gate.clone().grant(&with_peer).unwrap();
    assert!(gate.check(&dialled).is_ok());
    assert!(gate.check(&with_peer).is_ok());
    let beyond = with_peer
        .with(Protocol::P2pCircuit)
        .with(Protocol::P2p(peer(2)));
    assert!(gate.check(&beyond).is_ok(), "through a granted relay");
    assert!(gate.check(&other).is_err());
    assert!(gate.grant(&addr("/ip4/0.0.0.0/tcp/1")).is_err());

    let [name, strange] = ["/dns4/a.example/tcp/3", "/dns4/b.example/tcp/3"].map(addr);
    gate.grant(&name).unwrap();
    assert!(gate.check_resolved(&name, &other).is_ok());
    assert!(gate.check_resolved(&strange, &other).is_err());
    let records = addr("/dnsaddr/a.example");
    gate.grant(&records).unwrap();
    assert!(gate.check_resolved(&records, &other).is_err());
    assert!(
        gate.check_resolved(&records, &addr("/ip4/8.8.8.8/tcp/1"))
            .is_ok()
    );
}

#[test]
fn grants_are_bounded_and_those_of_the_configuration_stay() {
    let at = |port: usize| addr(&format!("/ip4/127.0.0.1/tcp/{port}"));
    let configured = at(60_000);
    let gate = DialGate::new(DialPolicy::Private, [&configured]);
    for port in 1..=MAX_GRANTS + 1 {
        gate.grant(&at(port)).unwrap();
        // An address within the policy takes no room.
        gate.grant(&addr("/ip4/8.8.8.8/tcp/1")).unwrap();
    }
    assert!(gate.check(&at(1)).is_err());
    assert!(gate.check(&at(2)).is_ok());
    assert!(gate.check(&at(MAX_GRANTS + 1)).is_ok());
    assert!(gate.check(&configured).is_ok());
}

fn any_component() -> impl Strategy<Value = Protocol<'static>> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(|ip| Protocol::Ip4(ip.into())),
        Just(Protocol::Ip4([127, 0, 0, 1].into())),
        any::<u128>().prop_map(|ip| Protocol::Ip6(ip.into())),
        (0..3_u16).prop_map(Protocol::Tcp),
        (0..3_u16).prop_map(Protocol::Udp),
        Just(Protocol::QuicV1),
        Just(Protocol::P2pCircuit),
        (1_u8..4).prop_map(|seed| Protocol::P2p(peer(seed))),
        Just(Protocol::Dns4("example.com".into())),
        Just(Protocol::Dns4("localhost".into())),
        Just(Protocol::Tls),
        Just(Protocol::Http),
    ]
}

proptest! {
    #[test]
    fn every_form_of_the_decision_agrees(parts in prop::collection::vec(any_component(), 0..8)) {
        let addr: Multiaddr = parts.into_iter().collect();
        let policy = DialPolicy::Private;
        let whole = DialAddr::new(&addr, policy);
        let gate = DialGate::new(policy, []);
        prop_assert_eq!(gate.check(&addr), whole.clone());
        prop_assert_eq!(is_dialable(&addr, policy), whole.is_ok());
        if whole.is_ok() {
            let scope = scope_of(&addr);
            prop_assert!(matches!(scope, None | Some(IpScope::Global | IpScope::Private)));
        }
        let target = peer_of(&addr).unwrap_or_else(|| peer(7));
        if let Ok(of_peer) = DialAddr::of_peer(&target, &addr, policy) {
            prop_assert_eq!(peer_of(&of_peer), None);
            let dialled = of_peer.into_multiaddr().with(Protocol::P2p(target));
            prop_assert!(is_dialable(&dialled, policy));
        }
    }
}
