//! The peers and relays in addresses.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use calimero_network_primitives::{
    Keypair, Multiaddr, PeerId,
    addr::{
        AddressTransport, Circuit, CircuitError, DialPolicy, circuit_addr, is_dialable, is_dns,
        is_global, is_relayed, peer_of, scope_of, transport_of, with_peer, without_peer,
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

#[test]
fn peers_are_found_added_and_taken_away() {
    let bare = addr("/ip4/8.8.8.8/tcp/1");
    let full = addr("/ip4/8.8.8.8/tcp/1/p2p/{A}");
    assert_eq!(peer_of(&bare), None);
    assert_eq!(peer_of(&full), Some(peer(1)));
    assert_eq!(with_peer(&bare, peer(1)), Ok(full.clone()));
    assert_eq!(with_peer(&full, peer(1)), Ok(full.clone()));
    assert_eq!(without_peer(&full), bare);
    assert_eq!(without_peer(&bare), bare);

    let error = with_peer(&full, peer(2)).unwrap_err();
    assert_eq!((&error.addr, error.expected), (&full, peer(2)));
    assert_eq!(
        error.to_string(),
        format!("{full} does not lead to {}", peer(2))
    );
    // A contradiction further in is one as well.
    assert!(with_peer(&addr("/ip4/8.8.8.8/tcp/1/p2p/{A}/p2p/{B}"), peer(2)).is_err());
}

#[test]
fn the_peer_of_a_relayed_address_is_its_target() {
    let relayed = addr("/ip4/8.8.8.8/tcp/1/p2p/{A}/p2p-circuit/p2p/{B}");
    let listening = addr("/ip4/8.8.8.8/tcp/1/p2p/{A}/p2p-circuit");
    assert_eq!(peer_of(&relayed), Some(peer(2)));
    assert_eq!(peer_of(&listening), None);
    assert_eq!(with_peer(&listening, peer(2)), Ok(relayed.clone()));
    assert_eq!(without_peer(&relayed), listening);
    assert!(is_relayed(&relayed) && is_relayed(&listening));
    assert!(!is_relayed(&addr("/ip4/8.8.8.8/tcp/1")));
}

#[test]
fn circuits_are_complete_whatever_they_are_built_from() {
    let whole = addr("/ip4/8.8.8.8/tcp/1/p2p/{A}/p2p-circuit/p2p/{B}");
    for relay in ["/ip4/8.8.8.8/tcp/1", "/ip4/8.8.8.8/tcp/1/p2p/{A}"] {
        assert_eq!(
            circuit_addr(&addr(relay), peer(1), Some(peer(2))),
            Ok(whole.clone())
        );
        assert_eq!(
            circuit_addr(&addr(relay), peer(1), None),
            Ok(addr("/ip4/8.8.8.8/tcp/1/p2p/{A}/p2p-circuit"))
        );
    }
    let circuit = Circuit::parse(&whole).unwrap();
    assert_eq!(circuit.relay_addr(), &addr("/ip4/8.8.8.8/tcp/1"));
    assert_eq!(
        (circuit.relay(), circuit.target()),
        (peer(1), Some(peer(2)))
    );
}

#[test]
fn circuits_that_cannot_be_are_refused_by_reason() {
    let direct = addr("/ip4/8.8.8.8/tcp/1/p2p/{A}");
    let relayed = addr("/ip4/8.8.8.8/tcp/1/p2p/{A}/p2p-circuit/p2p/{B}");
    let build = |relay_addr: &Multiaddr, relay| circuit_addr(relay_addr, relay, Some(peer(3)));
    assert_eq!(
        build(&relayed, peer(1)),
        Err(CircuitError::Nested(relayed.clone()))
    );
    assert!(matches!(
        build(&direct, peer(2)),
        Err(CircuitError::OtherRelay(error)) if error.addr == direct
    ));
    for nowhere in ["/p2p/{A}", "/tcp/1"] {
        let nowhere = addr(nowhere);
        assert_eq!(
            build(&nowhere, peer(1)),
            Err(CircuitError::MissingHost(nowhere.clone()))
        );
    }
    assert_eq!(
        circuit_addr(&direct, peer(1), Some(peer(1))),
        Err(CircuitError::RelayIsTarget(peer(1)))
    );

    type Refusal = fn(Multiaddr) -> CircuitError;
    for (text, refusal) in [
        ("/ip4/8.8.8.8/tcp/1", CircuitError::NotRelayed as Refusal),
        ("/ip4/8.8.8.8/tcp/1/p2p-circuit", CircuitError::MissingRelay),
        (
            "/ip4/8.8.8.8/tcp/1/p2p/{A}/p2p-circuit/p2p/{B}/p2p-circuit",
            CircuitError::Nested,
        ),
        (
            "/ip4/8.8.8.8/tcp/1/p2p/{A}/p2p-circuit/tcp/1/p2p/{B}",
            CircuitError::Trailing,
        ),
        (
            "/ip4/8.8.8.8/tcp/1/p2p/{A}/p2p-circuit/tcp/1",
            CircuitError::Trailing,
        ),
    ] {
        let addr = addr(text);
        assert_eq!(Circuit::parse(&addr), Err(refusal(addr.clone())), "{text}");
    }
}

fn component() -> impl Strategy<Value = Protocol<'static>> {
    prop_oneof![
        any::<u32>().prop_map(|ip| Protocol::Ip4(ip.into())),
        any::<u128>().prop_map(|ip| Protocol::Ip6(ip.into())),
        any::<u16>().prop_map(Protocol::Tcp),
        any::<u16>().prop_map(Protocol::Udp),
        Just(Protocol::QuicV1),
        Just(Protocol::Tls),
        Just(Protocol::Ws("/".into())),
        Just(Protocol::P2pCircuit),
        (1_u8..4).prop_map(|seed| Protocol::P2p(peer(seed))),
        any::<u64>().prop_map(Protocol::Memory),
        any::<String>().prop_map(|name| Protocol::Dns(name.into())),
        any::<String>().prop_map(|name| Protocol::Dnsaddr(name.into())),
    ]
}

fn any_addr() -> impl Strategy<Value = Multiaddr> {
    prop::collection::vec(component(), 0..8).prop_map(|parts| parts.into_iter().collect())
}

/// What has to hold of every address there is.
fn check(addr: &Multiaddr) -> Result<(), TestCaseError> {
    let narrow = is_dialable(addr, DialPolicy::Global);
    let wide = is_dialable(addr, DialPolicy::Local);
    prop_assert!(!narrow || is_dialable(addr, DialPolicy::Private));
    prop_assert!(!is_dialable(addr, DialPolicy::Private) || wide);
    prop_assert!(!wide || transport_of(addr).is_some());
    prop_assert!(!narrow || is_global(addr) || is_dns(addr));

    let bare = without_peer(addr);
    prop_assert_eq!(peer_of(&bare), None);
    prop_assert_eq!(without_peer(&bare), bare.clone());
    let named = with_peer(&bare, peer(9)).unwrap();
    prop_assert_eq!(peer_of(&named), Some(peer(9)));
    prop_assert_eq!(without_peer(&named), bare);

    if let Ok(circuit) = Circuit::parse(addr) {
        let whole = circuit.to_multiaddr();
        prop_assert_eq!(Circuit::parse(&whole), Ok(circuit.clone()));
        prop_assert_eq!(scope_of(circuit.relay_addr()), scope_of(addr));
        prop_assert_eq!(peer_of(addr), circuit.target());
    } else {
        prop_assert_ne!(transport_of(addr), Some(AddressTransport::Circuit));
    }
    Ok(())
}

proptest! {
    #[test]
    fn invariants_hold_of_any_components(addr in any_addr()) {
        check(&addr)?;
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        if let Ok(addr) = Multiaddr::try_from(bytes) {
            check(&addr)?;
        }
    }

    #[test]
    fn no_text_panics(text in "(/(ip4/127.0.0.1|ip6/::1|dns/[a-z/.]{0,5}|tcp/1|udp/1|quic-v1|p2p-circuit|ws|wss|memory/1|[a-z]{0,4})){0,6}") {
        if let Ok(addr) = text.parse::<Multiaddr>() {
            check(&addr)?;
        }
    }

    #[test]
    fn what_is_built_is_parsed_again(addr in any_addr(), relay in 1_u8..4, target in prop::option::of(1_u8..4)) {
        let (relay, target) = (peer(relay), target.map(peer));
        match circuit_addr(&addr, relay, target) {
            Ok(whole) => {
                let circuit = Circuit::parse(&whole).unwrap();
                prop_assert_eq!(circuit.relay(), relay);
                prop_assert_eq!(circuit.target(), target);
                prop_assert_eq!(circuit.relay_addr(), &without_peer(&addr));
                check(&whole)?;
            }
            Err(CircuitError::Nested(_)) => prop_assert!(is_relayed(&addr)),
            Err(CircuitError::RelayIsTarget(_)) => prop_assert_eq!(target, Some(relay)),
            Err(CircuitError::OtherRelay(_)) => prop_assert!(peer_of(&addr).is_some()),
            Err(CircuitError::MissingHost(_)) => prop_assert_eq!(scope_of(&addr), None),
            Err(other) => return Err(TestCaseError::fail(other.to_string())),
        }
    }
}
