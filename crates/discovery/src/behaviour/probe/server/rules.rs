//! Which address of a request is dialled.

use calimero_network_primitives::{
    Multiaddr,
    addr::{
        AddressTransport, DialAddr, DialPolicy, DialScopes, is_dns, is_private, is_relayed,
        transport_of,
    },
};

use crate::ip::ip_of;

/// Most addresses of one request that are looked at, 64. The address book stores fewer of one peer,
/// and the request has room for some hundred.
const MAX_ADDRESSES: usize = 64;

/// The address that is dialled.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Choice {
    /// Position in the request.
    pub(super) index: u32,
    pub(super) address: DialAddr,
    /// Whether it is at the IP from which the peer is connected.
    pub(super) is_own_ip: bool,
}

/// Chooses the first address of a request that may be dialled on behalf of a peer that is connected
/// from `observed`.
///
/// An address must be within `scopes`, and must not be private unless it is at the
/// peer's own IP: with a private one, a peer could probe the private network of this node. On a local
/// network, every address within its policy may be dialled. Names are never dialled, because what
/// they resolve to is known only later, and neither are circuits.
pub(super) fn choose(
    addresses: &[Multiaddr],
    observed: &Multiaddr,
    scopes: DialScopes,
) -> Option<Choice> {
    // Over WebSocket the peer may be a reverse proxy, whose network is not that of the peer.
    let is_proxied = transport_of(observed) == Some(AddressTransport::WebSocket);
    let own = ip_of(observed).filter(|_| !is_proxied);
    let candidates = (0_u32..).zip(addresses.iter().take(MAX_ADDRESSES));
    candidates
        .filter(|(_, address)| !is_dns(address) && !is_relayed(address))
        .find_map(|(index, address)| {
            let is_own_ip = own.is_some() && ip_of(address) == own;
            if scopes.policy != DialPolicy::Local && !is_own_ip && is_private(address) {
                return None;
            }
            let address = DialAddr::new(address, scopes).ok()?;
            Some(Choice {
                index,
                address,
                is_own_ip,
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<Multiaddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn chosen(
        texts: &[&str],
        observed: &str,
        scopes: impl Into<DialScopes>,
    ) -> Option<(u32, bool)> {
        let choice = choose(&addresses(texts), &observed.parse().unwrap(), scopes.into());
        choice.map(|choice| (choice.index, choice.is_own_ip))
    }

    #[test]
    fn a_stranger_gets_nothing_of_this_host_or_its_network_dialled() {
        for address in [
            "/ip4/127.0.0.1/tcp/22",
            "/ip6/::1/tcp/22",
            "/ip4/10.0.0.9/tcp/22",
            "/ip4/192.168.1.1/tcp/80",
            "/ip4/169.254.169.254/tcp/80",
            "/ip6/::ffff:10.0.0.9/tcp/22",
            "/dns4/intranet.example/tcp/80",
            "/ip4/8.8.4.4/tcp/1/ip4/127.0.0.1/tcp/22",
            "/ip4/8.8.4.4/tcp/0",
        ] {
            let found = chosen(&[address], "/ip4/8.8.8.8/tcp/4001", DialPolicy::Private);
            assert_eq!(found, None, "{address}");
        }
    }

    #[test]
    fn the_first_address_that_may_be_dialled_is_chosen() {
        let asked = [
            "/ip4/10.0.0.9/tcp/22",
            "/ip4/8.8.8.8/udp/4001/quic-v1",
            "/ip4/1.1.1.1/tcp/4001",
        ];
        let policy = DialPolicy::Private;
        assert_eq!(
            chosen(&asked, "/ip4/8.8.8.8/tcp/50000", policy),
            Some((1, true))
        );
        assert_eq!(
            chosen(&asked, "/ip4/8.8.4.4/tcp/50000", policy),
            Some((1, false))
        );
        // A peer in the same private network is dialled there.
        assert_eq!(
            chosen(&asked, "/ip4/10.0.0.9/tcp/50000", policy),
            Some((0, true))
        );
        let testing = ["/ip4/198.18.0.9/tcp/1"];
        for (laboratory, found) in [(false, None), (true, Some((0, false)))] {
            let scopes = DialScopes { policy, laboratory };
            assert_eq!(chosen(&testing, "/ip4/198.18.0.2/tcp/1", scopes), found);
        }
        assert_eq!(
            chosen(&["/memory/7"], "/memory/1", DialPolicy::Local),
            Some((0, false))
        );
    }

    #[test]
    fn no_more_addresses_are_looked_at_than_the_limit() {
        let mut asked = vec!["/ip4/127.0.0.1/tcp/1"; MAX_ADDRESSES];
        asked.push("/ip4/8.8.8.8/tcp/1");
        assert_eq!(
            chosen(&asked, "/ip4/8.8.8.8/tcp/2", DialPolicy::Private),
            None
        );
    }
}
