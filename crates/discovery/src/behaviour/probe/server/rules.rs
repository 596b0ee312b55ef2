//! Which addresses of a request are dialled.

use calimero_network_primitives::{
    Multiaddr, PeerId,
    addr::{
        AddressTransport, DialAddr, DialPolicy, DialScopes, is_dns, is_private, is_relayed,
        transport_of,
    },
};

use crate::ip::ip_of;

/// Most addresses of one request that are looked at, 64. The address book stores fewer of one peer,
/// and the request has room for some hundred.
const MAX_ADDRESSES: usize = 64;

/// Most addresses of one request of AutoNAT v1 that are dialled, 4: TCP and QUIC over IPv4 and IPv6.
const MAX_DIALLED: usize = 4;

/// An address that may be dialled.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Choice {
    /// Position in the request.
    pub(super) index: u32,
    pub(super) address: DialAddr,
    /// Whether it is at the IP from which the peer is connected.
    pub(super) is_own_ip: bool,
}

/// Returns the addresses of a request that may be dialled on behalf of `peer`, which is connected
/// from `observed`.
///
/// An address must be within `scopes`, and must not be private unless it is at the peer's own IP:
/// with a private one, a peer could probe the private network of this node. On a local network,
/// every address within its policy may be dialled. Names are never dialled, because what they
/// resolve to is known only later, and neither are circuits.
fn dialable(
    peer: PeerId,
    addresses: &[Multiaddr],
    observed: &Multiaddr,
    scopes: DialScopes,
) -> impl Iterator<Item = Choice> {
    // Over WebSocket the peer may be a reverse proxy, and in a circuit it is a relay, whose network
    // is not that of the peer.
    let is_proxied = transport_of(observed) == Some(AddressTransport::WebSocket);
    let own = ip_of(observed).filter(|_| !is_proxied && !is_relayed(observed));
    let candidates = (0_u32..).zip(addresses.iter().take(MAX_ADDRESSES));
    candidates
        .filter(|(_, address)| !is_dns(address) && !is_relayed(address))
        .filter_map(move |(index, address)| {
            let is_own_ip = own.is_some() && ip_of(address) == own;
            if scopes.policy != DialPolicy::Local && !is_own_ip && is_private(address) {
                return None;
            }
            let address = DialAddr::of_peer(&peer, address, scopes).ok()?;
            Some(Choice {
                index,
                address,
                is_own_ip,
            })
        })
}

/// Chooses the address of a request of AutoNAT v2 that is dialled: the first one that may be.
pub(super) fn choose(
    peer: PeerId,
    addresses: &[Multiaddr],
    observed: &Multiaddr,
    scopes: DialScopes,
) -> Option<Choice> {
    dialable(peer, addresses, observed, scopes).next()
}

/// Chooses the addresses of a request of AutoNAT v1 that are dialled: at most [`MAX_DIALLED`]
/// different ones at the IP from which the peer is connected. The peer sends no data for them, so
/// another IP would let it have others dialled at no cost.
pub(super) fn choose_at_own_ip(
    peer: PeerId,
    addresses: &[Multiaddr],
    observed: &Multiaddr,
    scopes: DialScopes,
) -> Vec<DialAddr> {
    let mut chosen = Vec::new();
    for choice in dialable(peer, addresses, observed, scopes) {
        if choice.is_own_ip && chosen.len() < MAX_DIALLED && !chosen.contains(&choice.address) {
            chosen.push(choice.address);
        }
    }
    chosen
}

#[cfg(test)]
mod tests;
