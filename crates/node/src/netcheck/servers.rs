//! The boot nodes of a check: their addresses, their latency, and which of them test which protocol.

use std::{net::IpAddr, time::Duration};

use calimero_network::{
    DiscoveryEvent, Events, Keypair, Multiaddr, NetworkClient, NetworkEvent, NetworkManager,
    PeerId,
    addr::{is_global, is_relayed, peer_of, without_peer},
    discovery::netcheck::{Family, PortMapping, Transport, endpoint_of},
    multiaddr::Protocol,
};
use futures::future::join_all;
use tokio::{net::lookup_host, time::timeout};

use super::protocol_test::{ProtocolTest, Target};
use crate::{error::CommandError, one_shot, perf::ping::Pinger};

/// Most boot nodes of a check. Two distinguish the kinds of NAT.
const MAX_SERVERS: usize = 8;

/// Most addresses of one boot node, its own and those that it reports.
const MAX_ADDRESSES: usize = 16;

/// Time for the names of boot nodes to be resolved, 5 s, the first wait of a resolver for an answer.
const RESOLVE_TIME: Duration = Duration::from_secs(5);

/// Time for the connection with one boot node, its identify message and a ping.
const SURVEY_TIME: Duration = Duration::from_secs(15);

/// Time for the router to grant a port mapping: PCP and NAT-PMP repeat a request for some seconds.
const MAPPING_TIME: Duration = Duration::from_secs(8);

/// The protocol that relays serve.
const RELAY_PROTOCOL: &str = "/libp2p/circuit/relay/0.2.0/hop";

/// A boot node.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) peer: PeerId,
    /// Without names and without `/p2p/<peer>`.
    pub(super) addresses: Vec<Multiaddr>,
    /// Why there is no connection with it; `None` if there is one.
    pub(super) failure: Option<CommandError>,
    /// Whether it offers to relay; `None` if it did not say so.
    pub(super) relay: Option<bool>,
    pub(super) round_trip: Option<Duration>,
}

impl Server {
    /// A boot node that has not been asked yet.
    fn new(peer: PeerId) -> Self {
        Self {
            peer,
            addresses: Vec::new(),
            failure: Some(unanswered()),
            relay: None,
            round_trip: None,
        }
    }

    /// Adds addresses up to [`MAX_ADDRESSES`].
    fn add(&mut self, addresses: impl IntoIterator<Item = Multiaddr>) {
        for address in addresses {
            if self.addresses.len() < MAX_ADDRESSES && !self.addresses.contains(&address) {
                self.addresses.push(address);
            }
        }
    }

    /// The address for one protocol and version of IP, and its IP.
    fn at(&self, transport: Transport, family: Family) -> Option<(Target, IpAddr)> {
        self.addresses.iter().find_map(|address| {
            let (over, at) = endpoint_of(address)?;
            let target = Target {
                peer: self.peer,
                address: address.clone(),
            };
            let fits = over == transport && Family::of(at.ip()) == family;
            fits.then_some((target, at.ip()))
        })
    }
}

/// The boot nodes, and the node that asked them for their addresses.
pub(super) struct Survey {
    pub(super) servers: Vec<Server>,
    client: NetworkClient,
    events: Events,
    maps_ports: bool,
}

impl Survey {
    /// Connects to the boot nodes.
    pub(super) async fn take(boot: &[Multiaddr], maps_ports: bool) -> Result<Self, CommandError> {
        let mut servers = named(boot);
        if servers.is_empty() {
            let message = "--boot: netcheck needs a boot node with /p2p/<peer> at its end";
            return Err(CommandError::Usage(message.to_owned()));
        }
        let resolved = join_all(servers.iter().map(|server| {
            let addresses = addresses_of(boot, server.peer);
            join_all(addresses.map(|address| resolve(without_peer(address))))
        }));
        // A name without addresses shows as a boot node that is not reached.
        let resolved = timeout(RESOLVE_TIME, resolved).await.unwrap_or_default();
        for (server, addresses) in servers.iter_mut().zip(resolved) {
            server.add(addresses.into_iter().flatten());
        }
        let mut config = one_shot::quiet_config();
        config.listen = one_shot::config(Vec::new(), false).listen;
        config.discovery.port_mapping = maps_ports;
        let (client, events) = NetworkManager::start(Keypair::generate_ed25519(), config).await?;
        let asked = servers.iter_mut().map(|server| ask(&client, boot, server));
        join_all(asked).await;
        Ok(Self {
            servers,
            client,
            events,
            maps_ports,
        })
    }

    /// Whether the router forwards a port, once that is known.
    pub(super) async fn port_mapping(&mut self) -> PortMapping {
        if !self.maps_ports {
            return PortMapping::Off;
        }
        let mapped = async {
            while let Some(event) = self.events.next().await {
                if let NetworkEvent::Discovery(DiscoveryEvent::PortMapped { .. }) = event {
                    return true;
                }
            }
            false
        };
        match timeout(MAPPING_TIME, mapped).await {
            Ok(true) => PortMapping::Mapped,
            Ok(false) | Err(_) => PortMapping::NotMapped,
        }
    }

    /// Ends the node, which withdraws its port mappings.
    pub(super) async fn end(self) {
        // The result of the check does not depend on it.
        let _ = self.client.shutdown().await;
    }
}

/// The boot nodes that addresses name, at most [`MAX_SERVERS`].
fn named(boot: &[Multiaddr]) -> Vec<Server> {
    let mut servers: Vec<Server> = Vec::new();
    for peer in boot.iter().filter_map(peer_of) {
        if servers.len() < MAX_SERVERS && servers.iter().all(|server| server.peer != peer) {
            servers.push(Server::new(peer));
        }
    }
    servers
}

/// The addresses that name a peer.
fn addresses_of(boot: &[Multiaddr], peer: PeerId) -> impl Iterator<Item = &Multiaddr> {
    boot.iter()
        .filter(move |address| peer_of(address) == Some(peer))
}

fn unanswered() -> CommandError {
    CommandError::Deadline {
        what: "the connection",
        after: SURVEY_TIME,
    }
}

/// Connects to a boot node, and adds what it reports. One that is not reached stays as it is.
async fn ask(client: &NetworkClient, boot: &[Multiaddr], server: &mut Server) {
    let peer = server.peer;
    let named: Vec<_> = addresses_of(boot, peer).cloned().collect();
    let asked = async {
        match client.dial_peer(peer, named).await {
            Ok(_) => server.failure = None,
            Err(error) => {
                server.failure = Some(error.into());
                return;
            }
        }
        server.round_trip = Pinger::once(client, peer).await.ok();
        if let Ok(Some(info)) = client.identified(peer).await {
            let mut protocols = info.protocols.iter();
            server.relay = Some(protocols.any(|protocol| protocol.as_ref() == RELAY_PROTOCOL));
            server.add(reported(&info.listening));
        }
    };
    // What is known by then counts.
    let _ = timeout(SURVEY_TIME, asked).await;
}

/// The addresses of a report that are of use: public ones of known shapes. Those that the user named
/// come first, so that a boot node can add addresses and replace none.
fn reported(listening: &[Multiaddr]) -> impl Iterator<Item = Multiaddr> {
    let addresses = listening.iter().map(without_peer);
    addresses.filter(|one| is_global(one) && endpoint_of(one).is_some() && !is_relayed(one))
}

/// The addresses of a name. An address without a name is its own.
async fn resolve(address: Multiaddr) -> Vec<Multiaddr> {
    let mut parts = address.iter();
    let (name, wanted): (_, fn(&IpAddr) -> bool) = match parts.next() {
        Some(Protocol::Dns(name)) => (name, |_| true),
        Some(Protocol::Dns4(name)) => (name, IpAddr::is_ipv4),
        Some(Protocol::Dns6(name)) => (name, IpAddr::is_ipv6),
        _ => return vec![address],
    };
    let rest: Multiaddr = parts.collect();
    let found = lookup_host((&*name, 0)).await;
    let found = found.into_iter().flatten().map(|at| at.ip());
    found
        .filter(wanted)
        .take(MAX_ADDRESSES)
        .map(|ip| std::iter::once(Protocol::from(ip)).chain(&rest).collect())
        .collect()
}

/// The protocols and versions of IP that boot nodes have, each with the servers that test it. Those
/// that were reached come first.
pub(super) fn tests_of(servers: &[Server], port: u16) -> Vec<ProtocolTest> {
    let all = [Family::V4, Family::V6]
        .into_iter()
        .flat_map(|family| [Transport::Udp, Transport::Tcp].map(|transport| (transport, family)));
    let mut servers: Vec<_> = servers.iter().collect();
    servers.sort_by_key(|server| server.failure.is_some());
    let test = |(transport, family)| {
        let mut able = servers
            .iter()
            .filter_map(|server| Some((server.at(transport, family)?, server)));
        let ((first, ip), _) = able.next()?;
        // Two servers at one IP address do not distinguish the kinds of NAT.
        let second = able.find(|((_, other), _)| *other != ip);
        let over = match transport {
            Transport::Udp => Transport::Tcp,
            Transport::Tcp => Transport::Udp,
        };
        let aside = second
            .as_ref()
            .and_then(|(_, other)| other.at(over, family));
        Some(ProtocolTest {
            transport,
            family,
            port,
            first,
            second: second.map(|((target, _), _)| target),
            aside: aside.map(|(target, _)| target.address),
        })
    };
    all.filter_map(test).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    fn server(addresses: &[&str]) -> Server {
        let mut server = Server::new(PeerId::random());
        server.add(addresses.iter().map(|text| address(text)));
        server
    }

    #[test]
    fn a_boot_node_adds_few_addresses_and_only_public_ones() {
        let listening = [
            "/ip4/10.0.0.1/tcp/1",
            "/ip4/127.0.0.1/tcp/1",
            "/ip4/192.168.1.1/udp/1/quic-v1",
            "/ip4/169.254.1.1/tcp/1",
            "/ip4/224.0.0.1/tcp/1",
            "/ip6/::1/tcp/1",
            "/dns4/victim.example/tcp/1",
            "/ip4/8.8.8.8",
            "/memory/1",
        ];
        let circuit = format!("/ip4/8.8.8.8/tcp/1/p2p/{}/p2p-circuit", PeerId::random());
        let mut listening: Vec<_> = listening.iter().map(|text| address(text)).collect();
        listening.push(address(&circuit));
        assert_eq!(reported(&listening).count(), 0);
        listening.extend((1..=1000).map(|port| address(&format!("/ip4/8.8.8.8/tcp/{port}"))));
        let mut server = server(&["/ip4/198.51.100.1/tcp/2428"]);
        server.add(reported(&listening));
        assert_eq!(server.addresses.len(), MAX_ADDRESSES);
        // The address that the user named stays the one that is dialled.
        let (target, ip) = server.at(Transport::Tcp, Family::V4).unwrap();
        assert_eq!(target.address, address("/ip4/198.51.100.1/tcp/2428"));
        assert_eq!(ip.to_string(), "198.51.100.1");
    }

    #[test]
    fn many_boot_nodes_are_bounded_and_each_counts_once() {
        let of = |peer: PeerId| address(&format!("/ip4/198.51.100.1/tcp/1/p2p/{peer}"));
        let one = of(PeerId::random());
        assert_eq!(named(&[one.clone(), one]).len(), 1);
        let many: Vec<_> = (0..100).map(|_| of(PeerId::random())).collect();
        assert_eq!(named(&many).len(), MAX_SERVERS);
        assert!(named(&[address("/ip4/198.51.100.1/tcp/1")]).is_empty());
    }

    #[test]
    fn a_lane_is_tested_by_two_servers_at_different_addresses() {
        let mut servers = vec![
            server(&["/ip4/198.51.100.1/tcp/1", "/ip4/198.51.100.1/udp/1/quic-v1"]),
            server(&["/ip4/198.51.100.1/udp/2/quic-v1"]),
            server(&["/ip4/198.51.100.2/udp/1/quic-v1", "/ip4/198.51.100.2/tcp/3"]),
        ];
        let tests = tests_of(&servers, 7);
        let [udp, tcp] = tests.as_slice() else {
            panic!("{tests:?}");
        };
        assert_eq!(
            (udp.transport, tcp.transport),
            (Transport::Udp, Transport::Tcp)
        );
        assert_eq!((udp.first.peer, udp.port), (servers[0].peer, 7));
        assert_eq!(udp.second.as_ref().unwrap().peer, servers[2].peer);
        assert_eq!(udp.aside, Some(address("/ip4/198.51.100.2/tcp/3")));
        // Servers that answered come first.
        servers[2].failure = None;
        let tests = tests_of(&servers, 7);
        assert_eq!(tests[0].first.peer, servers[2].peer);
        // A single server does not show the mapping.
        assert!(tests_of(&servers[..1], 7)[0].second.is_none());
    }

    #[tokio::test]
    async fn an_address_without_a_name_is_not_resolved() {
        let one = address("/ip4/198.51.100.1/tcp/1");
        assert_eq!(resolve(one.clone()).await, [one]);
        let local = resolve(address("/dns4/localhost/tcp/1")).await;
        assert_eq!(local, [address("/ip4/127.0.0.1/tcp/1")]);
    }
}
