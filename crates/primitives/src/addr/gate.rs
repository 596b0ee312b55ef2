//! The gate that every dial passes on its way to a socket.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, PoisonError, RwLock},
};

use multiaddr::Multiaddr;

use super::{
    Circuit, DialAddr, DialPolicy, DialRefusal, DialScopes, is_dns,
    peer::without_peer,
    shape::{AddressTransport, transport_of},
};

/// Most addresses that calls of [`DialGate::grant`] open at one time, 1,024. At the limit, the
/// oldest grant is forgotten. A node dials a few addresses by command, a test some dozens.
pub const MAX_GRANTS: usize = 1_024;

/// Decides about every dial of a node, whichever part of the node asks for it.
///
/// Addresses within the policy pass. An address outside of it passes only if the operator named
/// exactly this address, or that of its relay, in the configuration ([`DialGate::new`]) or by a
/// call ([`DialGate::grant`]). So an operator can dial a peer on loopback, and the loopback address that
/// a peer names is refused.
///
/// Clones share the grants.
///
/// ```
/// use calimero_network_primitives::addr::{DialGate, DialPolicy};
///
/// let own = "/ip4/127.0.0.1/tcp/2428".parse()?;
/// let other = "/ip4/127.0.0.1/tcp/2429".parse()?;
/// let gate = DialGate::new(DialPolicy::Private, []);
/// assert!(gate.check(&own).is_err());
/// gate.grant(&own)?;
/// assert!(gate.check(&own).is_ok());
/// assert!(gate.check(&other).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct DialGate {
    scopes: DialScopes,
    configured: Arc<HashSet<Multiaddr>>,
    granted: Arc<RwLock<Granted>>,
}

#[derive(Debug, Default)]
struct Granted {
    addrs: HashSet<Multiaddr>,
    /// The oldest grant first.
    order: VecDeque<Multiaddr>,
}

impl DialGate {
    /// A gate for `policy` that also lets pass the addresses in `configured` that can be dialled
    /// at all. These are never forgotten.
    pub fn new<'a>(
        scopes: impl Into<DialScopes>,
        configured: impl IntoIterator<Item = &'a Multiaddr>,
    ) -> Self {
        let configured = configured.into_iter();
        let configured = configured.filter(|addr| DialAddr::new(addr, DialPolicy::Local).is_ok());
        Self {
            scopes: scopes.into(),
            configured: Arc::new(configured.map(without_peer).collect()),
            granted: Arc::default(),
        }
    }

    /// Policy for addresses without a grant.
    #[must_use]
    pub const fn policy(&self) -> DialPolicy {
        self.scopes.policy
    }

    /// Lets `addr` pass from now on, because the operator of this node names it. Addresses within
    /// the policy need no grant and are not stored; see [`MAX_GRANTS`] for the bound.
    ///
    /// # Errors
    ///
    /// [`DialRefusal`] for an address that can never be dialled.
    pub fn grant(&self, addr: &Multiaddr) -> Result<DialAddr, DialRefusal> {
        let allowed = DialAddr::new(addr, DialPolicy::Local)?;
        // A name is stored although it is within the policy: what it resolves to may not be.
        if is_dns(addr) || DialAddr::new(addr, self.scopes).is_err() {
            let mut granted = self.granted.write().unwrap_or_else(PoisonError::into_inner);
            granted.insert(without_peer(addr));
            // The relay of a circuit is dialled first, by its own address.
            if let Ok(circuit) = Circuit::parse(addr) {
                granted.insert(circuit.relay_addr().clone());
            }
        }
        Ok(allowed)
    }

    /// Decides whether `addr` may be dialled.
    ///
    /// # Errors
    ///
    /// [`DialRefusal`] with the first reason found.
    pub fn check(&self, addr: &Multiaddr) -> Result<DialAddr, DialRefusal> {
        DialAddr::new(addr, self.scopes).or_else(|refusal| {
            if self.is_granted(addr) {
                DialAddr::new(addr, DialPolicy::Local)
            } else {
                Err(refusal)
            }
        })
    }

    /// Decides whether `resolved`, which a lookup of `name` returned, may be dialled.
    ///
    /// A name that the operator gave may resolve to a local address. The records of a `/dnsaddr`
    /// name are whole addresses that its owner chose, so they are decided like those of any peer.
    ///
    /// # Errors
    ///
    /// [`DialRefusal`] with the first reason found.
    pub fn check_resolved(
        &self,
        name: &Multiaddr,
        resolved: &Multiaddr,
    ) -> Result<DialAddr, DialRefusal> {
        let by_operator =
            self.is_granted(name) && transport_of(name) != Some(AddressTransport::Dnsaddr);
        if by_operator {
            DialAddr::new(resolved, DialPolicy::Local)
        } else {
            self.check(resolved)
        }
    }

    /// Whether the operator named `addr`, or the address of its relay.
    fn is_granted(&self, addr: &Multiaddr) -> bool {
        let relay = Circuit::parse(addr).ok();
        let relay = relay.as_ref().map(Circuit::relay_addr);
        let whole = without_peer(addr);
        let granted = self.granted.read().unwrap_or_else(PoisonError::into_inner);
        let is_named =
            |addr: &Multiaddr| self.configured.contains(addr) || granted.addrs.contains(addr);
        is_named(&whole) || relay.is_some_and(is_named)
    }
}

impl From<DialPolicy> for DialGate {
    /// A gate without addresses of the operator.
    fn from(policy: DialPolicy) -> Self {
        Self::new(policy, [])
    }
}

impl Granted {
    fn insert(&mut self, addr: Multiaddr) {
        if !self.addrs.insert(addr.clone()) {
            return;
        }
        self.order.push_back(addr);
        if self.order.len() > MAX_GRANTS
            && let Some(oldest) = self.order.pop_front()
        {
            self.addrs.remove(&oldest);
        }
    }
}
