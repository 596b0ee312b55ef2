//! Which addresses are worth keeping, and the one place where circuit addresses are built.

use std::net::{Ipv4Addr, Ipv6Addr};

use calimero_network_primitives::{Multiaddr, PeerId, multiaddr::Protocol};

/// Longest address kept, in bytes: a circuit through a relay with the longest DNS name (255)
/// and both peer ids is below it.
pub const MAX_ADDRESS_BYTES: usize = 512;

/// Completes the address at which a peer behind `relay` is reached.
///
/// A circuit address without its `/p2p/<relay>` makes a reservation fail without a reason, so it
/// is always there.
#[must_use]
pub fn circuit_address(relay_address: &Multiaddr, relay: PeerId) -> Multiaddr {
    let mut address = without_peer(relay_address);
    address.push(Protocol::P2p(relay));
    address.push(Protocol::P2pCircuit);
    address
}

/// `address` without a `/p2p/<peer>` at its end.
pub(super) fn without_peer(address: &Multiaddr) -> Multiaddr {
    let mut address = address.clone();
    if matches!(address.iter().last(), Some(Protocol::P2p(_))) {
        address.pop();
    }
    address
}

/// The peer at the end of `address`, if it names one.
pub(super) fn peer_of(address: &Multiaddr) -> Option<PeerId> {
    match address.iter().last() {
        Some(Protocol::P2p(peer)) => Some(peer),
        _ => None,
    }
}

/// Whether `address` leads through a relay.
#[must_use]
pub fn is_circuit(address: &Multiaddr) -> bool {
    address
        .iter()
        .any(|protocol| matches!(protocol, Protocol::P2pCircuit))
}

/// Decides which advertised addresses are kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct AddressFilter {
    /// Us: nobody is reached through ourselves.
    pub(super) local: PeerId,
    /// Whether the network itself is local, so that local addresses lead somewhere.
    pub(super) local_network: bool,
}

impl AddressFilter {
    /// The form in which `address` of `peer` is kept, without the peer at its end; `None` if it
    /// cannot lead to `peer`.
    pub(super) fn accept(&self, peer: &PeerId, address: &Multiaddr) -> Option<Multiaddr> {
        if address.len() > MAX_ADDRESS_BYTES {
            return None;
        }
        let mut parts = address.iter();
        let host = parts.next().filter(|host| self.host_is_kept(host))?;
        let mut route = Route::default();
        if matches!(host, Protocol::Memory(_)) {
            route.has_port = true;
        }
        parts.try_for_each(|part| route.take(&part))?;
        let relay_is_kept = match (route.circuit, route.relay) {
            (false, None) => true,
            (true, Some(relay)) => relay != self.local && relay != *peer,
            _ => false,
        };
        let names_another = route.ends_at.is_some_and(|named| named != *peer);
        if !route.has_port || !relay_is_kept || names_another {
            return None;
        }
        Some(match route.ends_at {
            Some(_) => without_peer(address),
            None => address.clone(),
        })
    }

    fn host_is_kept(&self, host: &Protocol<'_>) -> bool {
        match host {
            Protocol::Ip4(ip) => self.ip4_is_kept(*ip),
            Protocol::Ip6(ip) => self.ip6_is_kept(*ip),
            Protocol::Dns(name)
            | Protocol::Dns4(name)
            | Protocol::Dns6(name)
            | Protocol::Dnsaddr(name) => {
                !name.is_empty() && (self.local_network || !is_local_name(name))
            }
            Protocol::Memory(_) => self.local_network,
            _ => false,
        }
    }

    fn ip4_is_kept(&self, ip: Ipv4Addr) -> bool {
        // Private ranges stay: members of one network often share a site.
        let nowhere = ip.octets()[0] == 0 || ip.is_multicast() || ip.is_broadcast();
        let local = ip.is_loopback() || ip.is_link_local();
        !nowhere && (self.local_network || !local)
    }

    fn ip6_is_kept(&self, ip: Ipv6Addr) -> bool {
        if let Some(ip) = ip.to_ipv4_mapped() {
            return self.ip4_is_kept(ip);
        }
        let local = ip.is_loopback() || ip.is_unicast_link_local();
        !ip.is_unspecified() && !ip.is_multicast() && (self.local_network || !local)
    }
}

/// What an address says after its host, read part by part.
#[derive(Default)]
struct Route {
    has_port: bool,
    /// The relay that a circuit leads through. It is named, and there is one circuit at most.
    relay: Option<PeerId>,
    circuit: bool,
    /// The peer named at the end.
    ends_at: Option<PeerId>,
}

impl Route {
    /// `None` where no address we keep goes on like that.
    fn take(&mut self, part: &Protocol<'_>) -> Option<()> {
        if !self.has_port {
            self.has_port = matches!(part, Protocol::Tcp(port) | Protocol::Udp(port) if *port > 0);
            return self.has_port.then_some(());
        }
        match part {
            Protocol::P2pCircuit if self.circuit => None,
            Protocol::P2pCircuit => {
                self.relay = self.ends_at.take();
                self.circuit = true;
                Some(())
            }
            // Nothing but a circuit follows a peer.
            _ if self.ends_at.is_some() => None,
            Protocol::P2p(peer) => {
                self.ends_at = Some(*peer);
                Some(())
            }
            _ => Some(()),
        }
    }
}

fn is_local_name(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    name.eq_ignore_ascii_case("localhost") || name.to_ascii_lowercase().ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(local_network: bool) -> (AddressFilter, PeerId) {
        let local = PeerId::random();
        let filter = AddressFilter {
            local,
            local_network,
        };
        (filter, PeerId::random())
    }

    #[test]
    fn addresses_that_lead_to_somebody_else_are_filtered_unless_the_network_is_local() {
        for (address, kept, kept_locally) in [
            ("/ip4/198.51.100.7/tcp/2428", true, true),
            ("/ip4/198.51.100.7/udp/2428/quic-v1", true, true),
            ("/ip4/10.1.2.3/tcp/2428", true, true),
            ("/ip4/192.168.1.9/tcp/2428", true, true),
            ("/ip6/fd00::1/tcp/2428", true, true),
            ("/dns4/boot.example.org/tcp/2428", true, true),
            ("/ip4/127.0.0.1/tcp/2428", false, true),
            ("/ip4/169.254.3.4/tcp/2428", false, true),
            ("/ip6/::1/tcp/2428", false, true),
            ("/ip6/fe80::1/tcp/2428", false, true),
            ("/ip6/::ffff:127.0.0.1/tcp/2428", false, true),
            ("/dns/localhost/tcp/2428", false, true),
            ("/memory/7", false, true),
            ("/ip4/0.0.0.0/tcp/2428", false, false),
            ("/ip4/255.255.255.255/tcp/2428", false, false),
            ("/ip4/224.0.0.251/udp/5353/quic-v1", false, false),
            ("/ip6/::/tcp/2428", false, false),
            ("/ip4/198.51.100.7/tcp/0", false, false),
            ("/ip4/198.51.100.7", false, false),
            ("/unix/tmp", false, false),
            ("", false, false),
        ] {
            let address: Multiaddr = address.parse().unwrap();
            for (local_network, kept) in [(false, kept), (true, kept_locally)] {
                let (filter, peer) = filter(local_network);
                let accepted = filter.accept(&peer, &address);
                assert_eq!(accepted.is_some(), kept, "{address} local {local_network}");
            }
        }
    }

    #[test]
    fn circuits_are_complete_and_never_through_ourselves() {
        let (filter, peer) = filter(false);
        let relay = PeerId::random();
        let base: Multiaddr = "/ip4/198.51.100.7/tcp/2428".parse().unwrap();
        let whole = circuit_address(&base, relay);
        assert_eq!(whole.to_string(), format!("{base}/p2p/{relay}/p2p-circuit"));
        let named = base.clone().with(Protocol::P2p(relay));
        assert_eq!(circuit_address(&named, relay), whole);

        let ended = whole.clone().with(Protocol::P2p(peer));
        assert_eq!(filter.accept(&peer, &ended), Some(whole.clone()));
        assert_eq!(filter.accept(&relay, &whole), None);
        let through_us = circuit_address(&base, filter.local);
        assert_eq!(filter.accept(&peer, &through_us), None);
        let blank = base.with(Protocol::P2pCircuit);
        assert_eq!(filter.accept(&peer, &blank), None);
        let twice = circuit_address(&whole, relay);
        assert_eq!(filter.accept(&peer, &twice), None);
    }

    #[test]
    fn an_address_that_names_another_peer_is_refused() {
        let (filter, peer) = filter(false);
        let base: Multiaddr = "/ip4/198.51.100.7/tcp/2428".parse().unwrap();
        let own = base.clone().with(Protocol::P2p(peer));
        assert_eq!(filter.accept(&peer, &own), Some(base.clone()));
        let other = base.with(Protocol::P2p(PeerId::random()));
        assert_eq!(filter.accept(&peer, &other), None);
    }
}
