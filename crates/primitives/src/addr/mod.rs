//! What an address says: its scope, its transport, the peer it leads to, and whether it may be
//! dialled.
//!
//! Addresses come from peers and are not trusted. An address of an unknown shape has no transport
//! and is not dialable. An address with two hosts has no scope.
//!
//! # One decision
//!
//! [`DialAddr`] is an address that may be dialled. Only this module makes one, from an address and
//! a [`DialPolicy`], and [`DialRefusal`] names the reason where it does not. Address books hold
//! `DialAddr`s. The transport asks a [`DialGate`] before it opens a socket, so an address that
//! reached a dial in another way, for example inside a libp2p behaviour, is decided in the same
//! way. The gate also knows the addresses that the operator configured or dialled, which may be
//! local.

mod circuit;
mod dial;
mod gate;
mod ip;
mod peer;
mod shape;

use multiaddr::{Multiaddr, Protocol};

use self::shape::Host;
pub use self::{
    circuit::{Circuit, CircuitError, circuit_addr},
    dial::{
        DialAddr, DialPolicy, DialRefusal, DialRules, DialScopes, MAX_ADDRESS_BYTES, is_dialable,
    },
    gate::{DialGate, MAX_GRANTS},
    ip::{IpScope, ip_scope},
    peer::{PeerMismatch, peer_of, with_peer, without_peer},
    shape::{AddressTransport, transport_of},
};

/// The scope of the IP address that packets to `addr` go to: of the relay, if it is relayed.
///
/// `None` where that is not known: a DNS name can resolve to anything, a memory address has no
/// IP address, and an address with two hosts can be read both ways.
#[must_use]
pub fn scope_of(addr: &Multiaddr) -> Option<IpScope> {
    match shape::host(addr)? {
        Host::Ip(ip) => Some(ip_scope(ip)),
        Host::Name(_) | Host::Memory => None,
    }
}

/// Whether packets to `addr` go over the internet: [`IpScope::Global`].
#[must_use]
pub fn is_global(addr: &Multiaddr) -> bool {
    scope_of(addr) == Some(IpScope::Global)
}

/// Whether packets to `addr` stay in a private network: [`IpScope::Private`].
#[must_use]
pub fn is_private(addr: &Multiaddr) -> bool {
    scope_of(addr) == Some(IpScope::Private)
}

/// Whether packets to `addr` stay on the link: [`IpScope::LinkLocal`].
#[must_use]
pub fn is_link_local(addr: &Multiaddr) -> bool {
    scope_of(addr) == Some(IpScope::LinkLocal)
}

/// Whether packets to `addr` stay on this host: [`IpScope::Loopback`].
#[must_use]
pub fn is_loopback(addr: &Multiaddr) -> bool {
    scope_of(addr) == Some(IpScope::Loopback)
}

/// Whether `addr` names every interface rather than one host: [`IpScope::Unspecified`].
#[must_use]
pub fn is_unspecified(addr: &Multiaddr) -> bool {
    scope_of(addr) == Some(IpScope::Unspecified)
}

/// Whether `addr` leads through a relay, complete or not.
#[must_use]
pub fn is_relayed(addr: &Multiaddr) -> bool {
    addr.iter().any(|part| part == Protocol::P2pCircuit)
}

/// Whether `addr` begins with a DNS name, so that what it reaches is known only once resolved.
#[must_use]
pub fn is_dns(addr: &Multiaddr) -> bool {
    matches!(shape::host(addr), Some(Host::Name(_)))
}
