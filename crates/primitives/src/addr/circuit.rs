//! Addresses through a relay: `<relay address>/p2p/<relay>/p2p-circuit[/p2p/<target>]`.

use libp2p_identity::PeerId;
use multiaddr::{Multiaddr, Protocol};

use super::{
    peer::{PeerMismatch, peer_of, with_peer, without_peer},
    shape,
};

/// Why an address is not one through a relay, or cannot be made one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CircuitError {
    /// The address does not lead through a relay.
    #[error("{0} does not lead through a relay")]
    NotRelayed(Multiaddr),
    /// The address leads through two relays, or its relay is itself behind one.
    #[error("{0} leads through more than one relay")]
    Nested(Multiaddr),
    /// The address does not say which peer the relay is.
    #[error("{0} does not name its relay")]
    MissingRelay(Multiaddr),
    /// The relay's address has no host, or two.
    #[error("{0} does not say where the relay is")]
    MissingHost(Multiaddr),
    /// The relay's address names another peer.
    #[error(transparent)]
    OtherRelay(#[from] PeerMismatch),
    /// Something other than one peer follows the relay.
    #[error("{0} has more than a target behind its relay")]
    Trailing(Multiaddr),
    /// The relay is asked to relay to itself.
    #[error("{0} is both relay and target")]
    RelayIsTarget(PeerId),
}

/// A way through a relay. Complete by construction: the relay has an address and a peer id.
///
/// ```
/// use calimero_network_primitives::{PeerId, addr::Circuit};
///
/// let relay: PeerId = "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5".parse()?;
/// let target: PeerId = "12D3KooWJWoaqZhDaoEFshF7Rh1bpY9ohihFhzcW6d69Lr2NASuq".parse()?;
/// let circuit = Circuit::new(&"/ip4/192.0.2.1/tcp/2428".parse()?, relay, Some(target))?;
/// let addr = circuit.to_multiaddr();
/// assert_eq!(
///     addr.to_string(),
///     format!("/ip4/192.0.2.1/tcp/2428/p2p/{relay}/p2p-circuit/p2p/{target}"),
/// );
/// assert_eq!(Circuit::parse(&addr)?, circuit);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Circuit {
    relay_addr: Multiaddr,
    relay: PeerId,
    target: Option<PeerId>,
}

impl Circuit {
    /// Creates the address of a circuit through `relay` at `relay_addr`, which
    /// may end in `/p2p/<relay>`, to `target`. Without a target it is a listen
    /// address.
    ///
    /// # Errors
    ///
    /// [`CircuitError`] if `relay_addr` is relayed, contains another peer id or
    /// has no host, or if `target` is the relay.
    pub fn new(
        relay_addr: &Multiaddr,
        relay: PeerId,
        target: Option<PeerId>,
    ) -> Result<Self, CircuitError> {
        if super::is_relayed(relay_addr) {
            return Err(CircuitError::Nested(relay_addr.clone()));
        }
        if shape::host(relay_addr).is_none() {
            return Err(CircuitError::MissingHost(relay_addr.clone()));
        }
        if target == Some(relay) {
            return Err(CircuitError::RelayIsTarget(relay));
        }
        let relay_addr = without_peer(&with_peer(relay_addr, relay)?);
        Ok(Self {
            relay_addr,
            relay,
            target,
        })
    }

    /// Takes an address through a relay apart.
    ///
    /// # Errors
    ///
    /// [`CircuitError`] where it is not relayed, or not once and completely.
    pub fn parse(addr: &Multiaddr) -> Result<Self, CircuitError> {
        let mut parts = addr.iter();
        let relay_addr: Multiaddr = parts
            .by_ref()
            .take_while(|part| *part != Protocol::P2pCircuit)
            .collect();
        if relay_addr.len() == addr.len() {
            return Err(CircuitError::NotRelayed(addr.clone()));
        }
        let behind: Multiaddr = parts.collect();
        if super::is_relayed(&behind) {
            return Err(CircuitError::Nested(addr.clone()));
        }
        let target = peer_of(&behind);
        if behind.iter().count() > usize::from(target.is_some()) {
            return Err(CircuitError::Trailing(addr.clone()));
        }
        let relay = peer_of(&relay_addr).ok_or_else(|| CircuitError::MissingRelay(addr.clone()))?;
        Self::new(&relay_addr, relay, target)
    }

    /// Address of the relay, without its peer id.
    #[must_use]
    pub const fn relay_addr(&self) -> &Multiaddr {
        &self.relay_addr
    }

    /// Peer id of the relay.
    #[must_use]
    pub const fn relay(&self) -> PeerId {
        self.relay
    }

    /// The peer behind the relay, if one is named.
    #[must_use]
    pub const fn target(&self) -> Option<PeerId> {
        self.target
    }

    /// Returns the complete circuit address.
    #[must_use]
    pub fn to_multiaddr(&self) -> Multiaddr {
        let addr = self
            .relay_addr
            .clone()
            .with(Protocol::P2p(self.relay))
            .with(Protocol::P2pCircuit);
        match self.target {
            None => addr,
            Some(target) => addr.with(Protocol::P2p(target)),
        }
    }
}

/// The address of `target` behind `relay`, or of the relay to be listened on: short for
/// [`Circuit::new`] and [`Circuit::to_multiaddr`].
///
/// # Errors
///
/// As [`Circuit::new`].
pub fn circuit_addr(
    relay_addr: &Multiaddr,
    relay: PeerId,
    target: Option<PeerId>,
) -> Result<Multiaddr, CircuitError> {
    Circuit::new(relay_addr, relay, target).map(|circuit| circuit.to_multiaddr())
}
