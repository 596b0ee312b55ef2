//! The peer that an address leads to.

use libp2p_identity::PeerId;
use multiaddr::{Multiaddr, Protocol};

/// An address already leads to another peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{addr} does not lead to {expected}")]
pub struct PeerMismatch {
    /// The address, with the peer it leads to.
    pub addr: Multiaddr,
    /// The peer it was to lead to.
    pub expected: PeerId,
}

/// The peer that `addr` leads to: its last component, if that is `/p2p/<peer>`.
///
/// Of a relayed address this is the target; one that ends in `/p2p-circuit` names none.
#[must_use]
pub fn peer_of(addr: &Multiaddr) -> Option<PeerId> {
    match addr.iter().last() {
        Some(Protocol::P2p(peer)) => Some(peer),
        _ => None,
    }
}

/// `addr`, leading to `peer`: with `/p2p/<peer>` at its end, once.
///
/// # Errors
///
/// [`PeerMismatch`] where it already leads to another peer. Nothing is replaced silently: who
/// means to do so calls [`without_peer`] first.
pub fn with_peer(addr: &Multiaddr, peer: PeerId) -> Result<Multiaddr, PeerMismatch> {
    let mut contradicted = false;
    for part in addr {
        contradicted = match part {
            Protocol::P2p(found) => contradicted || found != peer,
            _ => false,
        };
    }
    if contradicted {
        return Err(PeerMismatch {
            addr: addr.clone(),
            expected: peer,
        });
    }
    Ok(without_peer(addr).with(Protocol::P2p(peer)))
}

/// `addr` without any `/p2p/<peer>` at its end. The relay of a relayed address stays.
#[must_use]
pub fn without_peer(addr: &Multiaddr) -> Multiaddr {
    let kept = addr
        .iter()
        .enumerate()
        .filter(|(_, part)| !matches!(part, Protocol::P2p(_)))
        .last()
        .map_or(0, |(last, _)| last + 1);
    addr.iter().take(kept).collect()
}
