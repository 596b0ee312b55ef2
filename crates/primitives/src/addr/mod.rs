//! What can be told from an address alone: where it reaches, what carries it, whom it leads to,
//! and whether it is worth a dial.
//!
//! Addresses come from peers, so none is trusted: an address of an unknown shape has no transport
//! and is not dialable, and one with two hosts has no scope, whichever of them comes first.

mod circuit;
mod ip;
mod peer;
mod shape;

use multiaddr::{Multiaddr, Protocol};

use self::shape::Host;
pub use self::{
    circuit::{Circuit, CircuitError, circuit_addr},
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

/// Which addresses are worth a dial on the network that a node belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DialPolicy {
    /// Global addresses and names.
    Global,
    /// Private addresses too: peers of one site or one carrier may be nearer that way.
    #[default]
    Private,
    /// Every address that can be dialled at all: loopback, link-local, memory and laboratory
    /// addresses too. For a network that is itself local.
    Local,
}

/// Whether `addr` is complete, of a known shape, and within `policy`.
///
/// Complete means that its port is not 0 and that a relayed address names its relay and its
/// target. Names are within every policy (`localhost` within [`DialPolicy::Local`] alone, RFC
/// 6761): what they resolve to has to be looked at again. Unspecified, multicast and reserved
/// addresses are within none.
#[must_use]
pub fn is_dialable(addr: &Multiaddr, policy: DialPolicy) -> bool {
    let Some(shape) = shape::shape(addr) else {
        return false;
    };
    shape.complete
        && match shape.host {
            Host::Ip(ip) => is_within(ip_scope(ip), policy),
            Host::Name(name) => policy == DialPolicy::Local || !is_localhost(&name),
            Host::Memory => policy == DialPolicy::Local,
        }
}

fn is_within(scope: IpScope, policy: DialPolicy) -> bool {
    match scope {
        IpScope::Global => true,
        IpScope::Private => policy != DialPolicy::Global,
        IpScope::Loopback | IpScope::LinkLocal | IpScope::Testing => policy == DialPolicy::Local,
        IpScope::Unspecified | IpScope::Multicast | IpScope::Reserved => false,
    }
}

fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let last = name.rsplit('.').next().unwrap_or(name);
    last.eq_ignore_ascii_case("localhost")
}
