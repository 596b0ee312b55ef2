//! Addresses as peers send them: bytes, and text. Nothing panics, and what is told of one address
//! agrees with itself.
#![no_main]

use calimero_network_primitives::{
    Multiaddr, PeerId,
    addr::{
        AddressTransport, Circuit, CircuitError, DialAddr, DialGate, DialPolicy, IpScope,
        MAX_ADDRESS_BYTES, circuit_addr, is_dialable, is_dns, is_global, is_link_local,
        is_loopback, is_private, is_relayed, is_unspecified, peer_of, scope_of, transport_of,
        with_peer, without_peer,
    },
};
use libfuzzer_sys::fuzz_target;

/// Two peers that no input is likely to name: identity multihashes of four bytes.
fn peers() -> [PeerId; 2] {
    [b"\x00\x04peer", b"\x00\x04else"]
        .map(|bytes| PeerId::from_bytes(bytes).expect("an identity multihash is a peer id"))
}

fn check_predicates(addr: &Multiaddr) {
    let scope = scope_of(addr);
    assert_eq!(is_global(addr), scope == Some(IpScope::Global));
    assert_eq!(is_private(addr), scope == Some(IpScope::Private));
    assert_eq!(is_link_local(addr), scope == Some(IpScope::LinkLocal));
    assert_eq!(is_loopback(addr), scope == Some(IpScope::Loopback));
    assert_eq!(is_unspecified(addr), scope == Some(IpScope::Unspecified));
    assert!(scope.is_none() || !is_dns(addr));

    let [global, private, local] = [DialPolicy::Global, DialPolicy::Private, DialPolicy::Local]
        .map(|policy| is_dialable(addr, policy));
    assert!((!global || private) && (!private || local));
    assert!(!local || transport_of(addr).is_some());
    assert!(!global || is_global(addr) || is_dns(addr));
    assert!(!local || !is_unspecified(addr));
    if local {
        // What is dialled says the same to whoever reads its text.
        let text = addr.to_string();
        assert_eq!(text.parse().ok().as_ref(), Some(addr), "{text}");
    }
}

/// Every form of the decision agrees, and a grant opens one address alone.
fn check_dial(addr: &Multiaddr) {
    let policy = DialPolicy::Private;
    let gate = DialGate::from(policy);
    let decided = DialAddr::new(addr, policy);
    assert_eq!(gate.check(addr), decided);
    assert_eq!(decided.is_ok(), is_dialable(addr, policy));
    if decided.is_ok() {
        assert!(addr.len() <= MAX_ADDRESS_BYTES);
        assert!(matches!(
            scope_of(addr),
            None | Some(IpScope::Global | IpScope::Private)
        ));
    }
    let granted = gate.grant(addr).is_ok();
    assert_eq!(granted, is_dialable(addr, DialPolicy::Local));
    assert_eq!(gate.check(addr).is_ok(), granted);
    let other = "/ip4/127.0.0.1/tcp/39022".parse().expect("an address");
    assert!(gate.check(&other).is_err() || without_peer(addr) == other);
    let [peer, _] = peers();
    if let Ok(of_peer) = DialAddr::of_peer(&peer, addr, policy) {
        assert_eq!(peer_of(&of_peer), None);
        let whole = with_peer(&of_peer, peer).expect("it leads to this peer");
        assert!(is_dialable(&whole, policy));
    }
}

fn check_peer(addr: &Multiaddr) {
    let [peer, other] = peers();
    let bare = without_peer(addr);
    assert_eq!(peer_of(&bare), None);
    let named = with_peer(&bare, peer).expect("a bare address contradicts nobody");
    assert_eq!(peer_of(&named), Some(peer));
    assert_eq!(without_peer(&named), bare);
    assert_eq!(with_peer(&named, peer).as_ref(), Ok(&named));
    assert!(with_peer(&named, other).is_err());
    assert_eq!(scope_of(&named), scope_of(addr));
}

fn check_circuit(addr: &Multiaddr) {
    let [relay, target] = peers();
    match Circuit::parse(addr) {
        Ok(circuit) => {
            assert!(is_relayed(addr));
            assert_eq!(peer_of(addr), circuit.target());
            let whole = circuit.to_multiaddr();
            assert_eq!(Circuit::parse(&whole).as_ref(), Ok(&circuit));
        }
        Err(CircuitError::NotRelayed(_)) => assert!(!is_relayed(addr)),
        Err(_) => assert_ne!(transport_of(addr), Some(AddressTransport::Circuit)),
    }
    for target in [None, Some(target)] {
        if let Ok(whole) = circuit_addr(addr, relay, target) {
            let circuit = Circuit::parse(&whole).expect("what is built is parsed again");
            assert_eq!((circuit.relay(), circuit.target()), (relay, target));
            assert_eq!(circuit.relay_addr(), &without_peer(addr));
            assert_eq!(scope_of(&whole), scope_of(addr));
        }
    }
    assert!(circuit_addr(addr, relay, Some(relay)).is_err());
}

fuzz_target!(|input: &[u8]| {
    let binary = Multiaddr::try_from(input.to_vec()).ok();
    let text = std::str::from_utf8(input)
        .ok()
        .and_then(|text| text.parse().ok());
    for addr in binary.iter().chain(&text) {
        check_predicates(addr);
        check_dial(addr);
        check_peer(addr);
        check_circuit(addr);
    }
});
