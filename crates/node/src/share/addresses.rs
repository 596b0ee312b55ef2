//! The addresses in a ticket: which of a node's own are written, and which of another are dialled.

use calimero_network::{
    Multiaddr, PeerId,
    addr::{Circuit, DialPolicy, DialScopes, is_dialable, is_relayed, with_peer, without_peer},
};

/// Addresses of each kind in one ticket: direct ones, through a relay, and of the local network.
/// More make a QR code that does not fit a terminal.
const MAX_OF_A_KIND: usize = 4;

/// The addresses of `peer` for a ticket, the best first: external ones, those through relays, those
/// of the local network. Without `/p2p/<peer>` at their end.
pub(crate) fn to_write(
    external: &[Multiaddr],
    listening: &[Multiaddr],
    peer: PeerId,
    scopes: DialScopes,
) -> Vec<Multiaddr> {
    let direct = external.iter().filter(|one| !is_relayed(one));
    let relayed = external.iter().filter(|one| is_relayed(one));
    let listening = listening.iter().filter(|one| !is_relayed(one));
    let kinds: [Vec<_>; 3] = [direct.collect(), relayed.collect(), listening.collect()];
    let mut chosen: Vec<Multiaddr> = Vec::new();
    for kind in kinds {
        let before = chosen.len();
        for address in kind {
            let bare = without_peer(address);
            let is_dialled = complete(address, peer, scopes).is_some();
            if is_dialled && chosen.len() < before + MAX_OF_A_KIND && !chosen.contains(&bare) {
                chosen.push(bare);
            }
        }
    }
    chosen
}

/// The addresses of a ticket, complete, as far as they are dialled from here.
pub(crate) fn to_dial(
    addresses: &[Multiaddr],
    peer: PeerId,
    local_network: bool,
) -> Vec<Multiaddr> {
    let policy = DialPolicy::for_network(local_network);
    // The user names these addresses with the ticket.
    let scopes = DialScopes::of_node(policy, addresses);
    let addresses = addresses.iter();
    addresses
        .filter_map(|address| complete(address, peer, scopes))
        .collect()
}

/// The address with `peer` at its end, if it is dialled.
fn complete(address: &Multiaddr, peer: PeerId, scopes: DialScopes) -> Option<Multiaddr> {
    let address = match Circuit::parse(address) {
        Ok(circuit) => Circuit::new(circuit.relay_addr(), circuit.relay(), Some(peer))
            .ok()?
            .to_multiaddr(),
        Err(_) => with_peer(address, peer).ok()?,
    };
    is_dialable(&address, scopes).then_some(address)
}

/// The relays that the addresses lead through. They serve as boot nodes: they observe the address of
/// this node, which a hole punch needs.
pub(super) fn relays(addresses: &[Multiaddr]) -> Vec<Multiaddr> {
    let circuits = addresses.iter().filter_map(|one| Circuit::parse(one).ok());
    let mut relays: Vec<Multiaddr> = circuits
        .filter_map(|circuit| with_peer(circuit.relay_addr(), circuit.relay()).ok())
        .collect();
    relays.sort_unstable_by_key(Multiaddr::to_string);
    relays.dedup();
    relays
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELAY: &str = "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5";

    fn all(texts: &[&str]) -> Vec<Multiaddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn scopes(local_network: bool) -> DialScopes {
        DialPolicy::for_network(local_network).into()
    }

    #[test]
    fn the_best_addresses_come_first_and_local_ones_only_if_asked_for() {
        let peer = PeerId::random();
        let circuit = format!("/ip4/8.8.4.4/tcp/2428/p2p/{RELAY}/p2p-circuit");
        let external = all(&[&circuit, &format!("/ip4/8.8.8.8/tcp/7/p2p/{peer}")]);
        let listening = all(&[
            "/ip4/127.0.0.1/tcp/7",
            "/ip4/192.168.1.2/tcp/7",
            "/ip4/8.8.8.8/tcp/7",
        ]);
        let chosen = to_write(&external, &listening, peer, scopes(false));
        let expected = ["/ip4/8.8.8.8/tcp/7", &circuit, "/ip4/192.168.1.2/tcp/7"];
        assert_eq!(chosen, all(&expected));
        let chosen = to_write(&external, &listening, peer, scopes(true));
        assert!(chosen.contains(&"/ip4/127.0.0.1/tcp/7".parse().unwrap()));
        let many: Vec<_> = (1..20).map(|n| format!("/ip4/8.8.8.8/tcp/{n}")).collect();
        let many: Vec<_> = many.iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(
            to_write(&many, &[], peer, scopes(false)).len(),
            MAX_OF_A_KIND
        );
    }

    #[test]
    fn a_ticket_does_not_lead_to_this_machine_unless_asked_for() {
        let peer = PeerId::random();
        let circuit = format!("/ip4/8.8.4.4/tcp/2428/p2p/{RELAY}/p2p-circuit");
        let addresses = all(&["/ip4/127.0.0.1/tcp/7", &circuit, "/ip4/192.168.1.2/tcp/7"]);
        let dialled = to_dial(&addresses, peer, false);
        let expected = [
            format!("{circuit}/p2p/{peer}"),
            format!("/ip4/192.168.1.2/tcp/7/p2p/{peer}"),
        ];
        assert_eq!(dialled, all(&expected.each_ref().map(String::as_str)));
        assert_eq!(to_dial(&addresses, peer, true).len(), 3);
        let relay = format!("/ip4/8.8.4.4/tcp/2428/p2p/{RELAY}");
        assert_eq!(relays(&addresses), all(&[&relay]));
    }
}
