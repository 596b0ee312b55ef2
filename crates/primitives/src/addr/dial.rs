//! The decision whether an address may be dialled.

use std::{fmt, net::IpAddr, ops::Deref};

use libp2p_identity::PeerId;
use multiaddr::{Multiaddr, Protocol};

use super::{
    ip::{IpScope, ip_scope},
    peer::without_peer,
    scope_of,
    shape::{self, AddressTransport, Host, Shape},
};

/// Longest address that is dialled or stored, 512 bytes. A circuit address through a relay with
/// the longest DNS name (253 bytes) and two peer ids is shorter.
pub const MAX_ADDRESS_BYTES: usize = 512;

/// Which addresses may be dialled on the network that a node belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DialPolicy {
    /// Global addresses and names.
    Global,
    /// Private addresses too. Peers of one site or one carrier may be nearer that way.
    #[default]
    Private,
    /// Every address that can be dialled: loopback, link-local, memory and testing addresses too.
    /// For a network that is itself local, and for addresses that the operator names.
    Local,
}

impl DialPolicy {
    /// The policy for a network that is local (`true`), or for the internet (`false`).
    #[must_use]
    pub const fn for_network(local: bool) -> Self {
        if local { Self::Local } else { Self::Private }
    }

    const fn includes(self, scope: IpScope) -> bool {
        match scope {
            IpScope::Global => true,
            IpScope::Private => !matches!(self, Self::Global),
            IpScope::Loopback | IpScope::LinkLocal | IpScope::Testing => {
                matches!(self, Self::Local)
            }
            IpScope::Unspecified | IpScope::Multicast | IpScope::Reserved => false,
        }
    }
}

impl fmt::Display for DialPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Global => "global",
            Self::Private => "private",
            Self::Local => "local",
        })
    }
}

/// The addresses that a node dials: those of a policy and, in a laboratory, testing addresses.
///
/// A laboratory is a network that uses the ranges set aside for benchmarks and examples as its
/// public addresses. No host of the internet has such an address, so an operator who names one runs
/// a laboratory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DialScopes {
    /// The policy.
    pub policy: DialPolicy,
    /// Whether testing addresses ([`IpScope::Testing`]) are dialled under every policy.
    pub laboratory: bool,
}

impl DialScopes {
    /// Returns the scopes of a node whose operator names these addresses: its boot nodes and its
    /// external addresses.
    #[must_use]
    pub fn of_node<'a>(policy: DialPolicy, named: impl IntoIterator<Item = &'a Multiaddr>) -> Self {
        let is_testing = |addr| scope_of(addr) == Some(IpScope::Testing);
        Self {
            policy,
            laboratory: named.into_iter().any(is_testing),
        }
    }

    fn includes(self, scope: IpScope) -> bool {
        self.policy.includes(scope) || (self.laboratory && scope == IpScope::Testing)
    }
}

impl From<DialPolicy> for DialScopes {
    fn from(policy: DialPolicy) -> Self {
        Self {
            policy,
            laboratory: false,
        }
    }
}

/// Why an address is not dialled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DialRefusal {
    /// The address is longer than [`MAX_ADDRESS_BYTES`].
    #[error("the address has {len} bytes; the limit is {MAX_ADDRESS_BYTES}")]
    TooLong {
        /// Length of the address in bytes.
        len: usize,
    },
    /// The address names more than one host.
    #[error("the address names more than one host")]
    TwoHosts,
    /// The address has a component that no transport of this network understands at its position.
    #[error("no transport understands the whole address")]
    Shape,
    /// The port of the address is 0.
    #[error("the port is 0")]
    Port,
    /// The address has a path for WebSocket other than `/`, and the policy is not local: a peer
    /// could have any HTTP request sent to a server in the network of this node.
    #[error("the address has a path, and only the operator of this node can name one")]
    Path,
    /// The address leads through a relay and does not name the peer behind the relay.
    #[error("the address does not name the peer behind the relay")]
    Target,
    /// The IP address is outside of the policy.
    #[error("{ip} is a {scope} address; the policy of this node is {policy}")]
    Scope {
        /// The IP address in the address, or the one that its name resolved to.
        ip: IpAddr,
        /// Scope of the IP address.
        scope: IpScope,
        /// The policy that refused the address.
        policy: DialPolicy,
    },
    /// The name is that of this host (`localhost`, RFC 6761) and the policy is not local.
    #[error("{name} is this host; the policy of this node is {policy}")]
    LocalName {
        /// The name in the address.
        name: String,
        /// The policy that refused the address.
        policy: DialPolicy,
    },
    /// The address is inside this process and the policy is not local.
    #[error("a memory address; the policy of this node is {policy}")]
    Memory {
        /// The policy that refused the address.
        policy: DialPolicy,
    },
    /// The address leads to another peer than the one to be dialled.
    #[error("the address leads to {named}, not to {expected}")]
    OtherPeer {
        /// Peer to be dialled.
        expected: PeerId,
        /// Peer at the end of the address.
        named: PeerId,
    },
    /// The relay of the address is this node, or the peer to be dialled.
    #[error("the relay {relay} is this node or the peer to be dialled")]
    Relay {
        /// Relay that the address names.
        relay: PeerId,
    },
}

/// An address that may be dialled.
///
/// Only this module makes one, so a value proves that the decision was made. It dereferences to
/// the [`Multiaddr`].
///
/// ```
/// use calimero_network_primitives::addr::{DialAddr, DialPolicy, DialRefusal};
///
/// let addr = "/ip4/10.0.0.7/tcp/2428".parse()?;
/// assert!(DialAddr::new(&addr, DialPolicy::Private).is_ok());
///
/// let two_hosts = "/ip4/8.8.8.8/tcp/1/ip4/127.0.0.1/tcp/2428".parse()?;
/// let refused = DialAddr::new(&two_hosts, DialPolicy::Private);
/// assert_eq!(refused, Err(DialRefusal::TwoHosts));
/// # Ok::<(), calimero_network_primitives::multiaddr::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DialAddr(Multiaddr);

impl DialAddr {
    /// Decides whether `addr` may be dialled as it is. A relayed address must name its target.
    ///
    /// # Errors
    ///
    /// [`DialRefusal`] with the first reason found.
    pub fn new(addr: &Multiaddr, scopes: impl Into<DialScopes>) -> Result<Self, DialRefusal> {
        let shape = decide(addr, scopes.into())?;
        if shape.kind == AddressTransport::Circuit && shape.target.is_none() {
            return Err(DialRefusal::Target);
        }
        Ok(Self(addr.clone()))
    }

    /// Decides whether `addr` may be dialled to reach `peer`. The result is the form that address
    /// books store: without `/p2p/<peer>` at its end.
    ///
    /// # Errors
    ///
    /// [`DialRefusal`] with the first reason found.
    pub fn of_peer(
        peer: &PeerId,
        addr: &Multiaddr,
        scopes: impl Into<DialScopes>,
    ) -> Result<Self, DialRefusal> {
        let shape = decide(addr, scopes.into())?;
        match (shape.target, shape.relay) {
            (Some(named), _) if named != *peer => Err(DialRefusal::OtherPeer {
                expected: *peer,
                named,
            }),
            (_, Some(relay)) if relay == *peer => Err(DialRefusal::Relay { relay }),
            (Some(_), _) => Ok(Self(without_peer(addr))),
            (None, _) => Ok(Self(addr.clone())),
        }
    }

    /// Returns the address as a multiaddr.
    #[must_use]
    pub const fn as_multiaddr(&self) -> &Multiaddr {
        &self.0
    }

    /// The address itself, without a copy.
    #[must_use]
    pub fn into_multiaddr(self) -> Multiaddr {
        self.0
    }
}

impl Deref for DialAddr {
    type Target = Multiaddr;

    fn deref(&self) -> &Multiaddr {
        &self.0
    }
}

impl AsRef<Multiaddr> for DialAddr {
    fn as_ref(&self) -> &Multiaddr {
        &self.0
    }
}

impl From<DialAddr> for Multiaddr {
    fn from(addr: DialAddr) -> Self {
        addr.0
    }
}

impl fmt::Display for DialAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a node decides by: its own peer id and the addresses that it dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DialRules {
    /// Peer id of this node. No address through this node as a relay is dialled.
    pub local: PeerId,
    /// Addresses that are dialled where other peers name them.
    pub scopes: DialScopes,
}

impl DialRules {
    /// Decides whether `addr` may be dialled to reach `peer`, as [`DialAddr::of_peer`] does.
    ///
    /// # Errors
    ///
    /// [`DialRefusal`] with the first reason found.
    pub fn check(&self, peer: &PeerId, addr: &Multiaddr) -> Result<DialAddr, DialRefusal> {
        let addr_of_peer = DialAddr::of_peer(peer, addr, self.scopes)?;
        match shape::shape(addr).and_then(|shape| shape.relay) {
            Some(relay) if relay == self.local => Err(DialRefusal::Relay { relay }),
            _ => Ok(addr_of_peer),
        }
    }
}

/// Whether [`DialAddr::new`] accepts `addr`.
///
/// The address is complete (its port is not 0, and a relayed address names its relay and its
/// target), of a known shape, and within `scopes`. Names are within every policy, except that
/// `localhost` is within [`DialPolicy::Local`] alone (RFC 6761). What a name resolves to is decided
/// by [`DialGate::check_resolved`](super::DialGate::check_resolved). Unspecified, multicast and
/// reserved addresses are within none.
#[must_use]
pub fn is_dialable(addr: &Multiaddr, scopes: impl Into<DialScopes>) -> bool {
    DialAddr::new(addr, scopes).is_ok()
}

/// Everything but the peers that the address names.
fn decide(addr: &Multiaddr, scopes: DialScopes) -> Result<Shape<'_>, DialRefusal> {
    let policy = scopes.policy;
    // The length comes first: it bounds the work that the other checks do.
    if addr.len() > MAX_ADDRESS_BYTES {
        return Err(DialRefusal::TooLong { len: addr.len() });
    }
    let Some(shape) = shape::shape(addr) else {
        return Err(if shape::has_two_hosts(addr) {
            DialRefusal::TwoHosts
        } else {
            DialRefusal::Shape
        });
    };
    match &shape.host {
        Host::Ip(ip) => {
            let (ip, scope) = (*ip, ip_scope(*ip));
            if !scopes.includes(scope) {
                return Err(DialRefusal::Scope { ip, scope, policy });
            }
        }
        Host::Name(name) if policy != DialPolicy::Local && is_localhost(name) => {
            let name = name.to_string();
            return Err(DialRefusal::LocalName { name, policy });
        }
        Host::Memory if policy != DialPolicy::Local => {
            return Err(DialRefusal::Memory { policy });
        }
        Host::Name(_) | Host::Memory => {}
    }
    if !shape.ported {
        return Err(DialRefusal::Port);
    }
    if policy != DialPolicy::Local && has_path(addr) {
        return Err(DialRefusal::Path);
    }
    Ok(shape)
}

/// Whether a WebSocket request for another path than `/` would be sent.
fn has_path(addr: &Multiaddr) -> bool {
    addr.iter().any(|part| match part {
        Protocol::Ws(path) | Protocol::Wss(path) => path != "/",
        _ => false,
    })
}

fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let last = name.rsplit('.').next().unwrap_or(name);
    last.eq_ignore_ascii_case("localhost")
}
