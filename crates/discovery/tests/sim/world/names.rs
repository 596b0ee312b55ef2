//! Who is who: numbers as peers, addresses and overlays.

use std::net::Ipv4Addr;

use calimero_network_discovery::machine::Namespace;
use calimero_network_primitives::{Multiaddr, PeerId, multiaddr::Protocol};

/// Number of a boot node (from 1) or of a node (from [`FIRST_NODE`]).
pub(crate) type Id = u32;

pub(crate) const FIRST_NODE: Id = 1000;

/// A peer id as long as that of an Ed25519 key.
pub(crate) fn peer(id: Id) -> PeerId {
    let mut bytes = [0; 38];
    bytes[..6].copy_from_slice(&[0, 36, 8, 1, 18, 32]);
    bytes[6..10].copy_from_slice(&id.to_be_bytes());
    PeerId::from_bytes(&bytes).unwrap()
}

pub(super) fn id(peer: &PeerId) -> Id {
    let digest = peer.as_ref().digest();
    u32::from_be_bytes(digest[4..8].try_into().unwrap())
}

pub(super) fn address(id: Id) -> Multiaddr {
    let [_, a, b, c] = id.to_be_bytes();
    Multiaddr::from(Ipv4Addr::new(45, a, b, c)).with(Protocol::Tcp(2428))
}

pub(super) fn namespace(overlay: u32) -> Namespace {
    Namespace::new(&format!("/calimero/ctx/{overlay}")).unwrap()
}

/// The relay an address leads through, if any.
pub(super) fn relay_of(address: &Multiaddr) -> Option<Id> {
    let mut relay = None;
    for protocol in address {
        match protocol {
            Protocol::P2p(peer) => relay = Some(id(&peer)),
            Protocol::P2pCircuit => return relay,
            _ => {}
        }
    }
    None
}

/// A number that looks like chance: the finalizer of SplitMix64 (Steele, Lea, Flood, 2014).
pub(super) fn scrambled(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
