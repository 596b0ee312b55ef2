//! The boot nodes of a check: their addresses, their latency, and which of them test which protocol.

use std::{net::IpAddr, time::Duration};

use calimero_network::{
    Keypair, Multiaddr, NetworkClient, NetworkManager, PeerId,
    addr::{peer_of, with_peer, without_peer},
    discovery::netcheck::{Family, PortMapping, Transport, endpoint_of},
    multiaddr::Protocol,
};
use tokio::{net::lookup_host, time::timeout};

use super::lane::Lane;
use crate::{error::CommandError, one_shot, perf::ping::Pinger};

/// Most boot nodes of a check. Two distinguish the kinds of NAT.
const MAX_SERVERS: usize = 8;

/// Most addresses of one boot node, its own and those that it reports.
const MAX_ADDRESSES: usize = 16;

/// Time for the connection with one boot node, its identify message and a ping.
const SURVEY_TIME: Duration = Duration::from_secs(10);

/// Time for the router to grant a port mapping: PCP and NAT-PMP repeat a request for some seconds.
const MAPPING_TIME: Duration = Duration::from_secs(8);

/// Time between two looks at a node.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// A boot node.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) peer: PeerId,
    /// Without names and without `/p2p/<peer>`.
    pub(super) addresses: Vec<Multiaddr>,
    pub(super) connected: bool,
    pub(super) relay: bool,
    pub(super) round_trip: Option<Duration>,
}

impl Server {
    /// The address for one protocol and version of IP, with `/p2p/<peer>`, and its IP.
    pub(super) fn at(&self, transport: Transport, family: Family) -> Option<(Multiaddr, IpAddr)> {
        self.addresses.iter().find_map(|address| {
            let (over, at) = endpoint_of(address)?;
            let fits = over == transport && Family::of(at.ip()) == family;
            let whole = with_peer(address, self.peer).ok()?;
            fits.then_some((whole, at.ip()))
        })
    }
}

/// The boot nodes, and the node that asked them for their addresses.
pub(super) struct Survey {
    pub(super) servers: Vec<Server>,
    client: NetworkClient,
    maps_ports: bool,
}

impl Survey {
    /// Connects to the boot nodes.
    pub(super) async fn take(boot: &[Multiaddr], maps_ports: bool) -> Result<Self, CommandError> {
        let mut config = one_shot::config(boot.to_vec(), false);
        config.discovery.port_mapping = maps_ports;
        let (client, _) = NetworkManager::start(Keypair::generate_ed25519(), config).await?;
        let mut servers: Vec<Server> = Vec::new();
        for address in boot {
            let Some(peer) = peer_of(address) else {
                continue;
            };
            let resolved = resolve(&without_peer(address)).await;
            let is_full = servers.len() >= MAX_SERVERS;
            match servers.iter_mut().find(|server| server.peer == peer) {
                Some(server) => server.addresses.extend(resolved),
                None if !is_full => servers.push(Server {
                    peer,
                    addresses: resolved,
                    connected: false,
                    relay: false,
                    round_trip: None,
                }),
                None => {}
            }
        }
        if servers.is_empty() {
            let message = "--boot: netcheck needs a boot node with /p2p/<peer> at its end";
            return Err(CommandError::Usage(message.to_owned()));
        }
        let asked = servers.iter_mut().map(|server| ask(&client, boot, server));
        futures::future::join_all(asked).await;
        Ok(Self {
            servers,
            client,
            maps_ports,
        })
    }

    /// Whether the router forwards a port, once that is known.
    pub(super) async fn port_mapping(&self) -> Result<PortMapping, CommandError> {
        if !self.maps_ports {
            return Ok(PortMapping::Off);
        }
        let mapped = async {
            while self.client.status().await?.observations().port_mapping != PortMapping::Mapped {
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
            Ok(PortMapping::Mapped)
        };
        let waited = timeout(MAPPING_TIME, mapped).await;
        waited.unwrap_or(Ok(PortMapping::NotMapped))
    }

    /// Ends the node, which withdraws its port mappings.
    pub(super) async fn end(self) {
        // The result of the check does not depend on it.
        let _ = self.client.shutdown().await;
    }
}

/// Connects to a boot node, and adds what it reports. One that is not reached stays as it is.
async fn ask(client: &NetworkClient, boot: &[Multiaddr], server: &mut Server) {
    let peer = server.peer;
    let named: Vec<_> = boot
        .iter()
        .filter(|address| peer_of(address) == Some(peer))
        .cloned()
        .collect();
    let asked = async {
        client.dial_peer(peer, named).await.ok()?;
        server.connected = true;
        let info = client.identified(peer).await.ok()??;
        server.relay = info
            .protocols
            .iter()
            .any(|protocol| protocol.as_ref() == "/libp2p/circuit/relay/0.2.0/hop");
        // Those that the user named come first. Only public ones are of use here.
        let reported = info.listening.iter().map(without_peer);
        let reported = reported.filter(|one| calimero_network::addr::is_global(one));
        for address in reported {
            if server.addresses.len() < MAX_ADDRESSES && !server.addresses.contains(&address) {
                server.addresses.push(address);
            }
        }
        server.round_trip = Pinger::once(client, peer).await.ok();
        Some(())
    };
    let _ = timeout(SURVEY_TIME, asked).await;
}

/// The addresses of a name. An address without a name is its own.
async fn resolve(address: &Multiaddr) -> Vec<Multiaddr> {
    let mut parts = address.iter();
    let (name, wanted): (_, fn(&IpAddr) -> bool) = match parts.next() {
        Some(Protocol::Dns(name)) => (name, |_| true),
        Some(Protocol::Dns4(name)) => (name, IpAddr::is_ipv4),
        Some(Protocol::Dns6(name)) => (name, IpAddr::is_ipv6),
        _ => return vec![address.clone()],
    };
    let rest: Multiaddr = parts.collect();
    // A name without addresses shows as a boot node that is not reached.
    let found = lookup_host((&*name, 0)).await;
    let found = found.into_iter().flatten().map(|at| at.ip());
    found
        .filter(wanted)
        .take(MAX_ADDRESSES)
        .map(|ip| std::iter::once(Protocol::from(ip)).chain(&rest).collect())
        .collect()
}

/// The protocols and versions of IP that boot nodes have, each with the servers that test it.
pub(super) fn lanes_of(servers: &[Server], port: u16) -> Vec<Lane> {
    let all = [Family::V4, Family::V6]
        .into_iter()
        .flat_map(|family| [Transport::Udp, Transport::Tcp].map(|transport| (transport, family)));
    let lane = |(transport, family)| {
        let mut able = servers
            .iter()
            .filter_map(|server| Some((server.at(transport, family)?, server)));
        let ((first, ip), one) = able.next()?;
        // Two servers at one IP address do not distinguish the kinds of NAT.
        let second = able.find(|((_, other), _)| *other != ip);
        let over = match transport {
            Transport::Udp => Transport::Tcp,
            Transport::Tcp => Transport::Udp,
        };
        let aside = second
            .as_ref()
            .and_then(|(_, other)| other.at(over, family));
        Some(Lane {
            transport,
            family,
            port,
            first: (one.peer, first),
            second: second.map(|((address, _), other)| (other.peer, address)),
            aside: aside.map(|(address, _)| address),
        })
    };
    all.filter_map(lane).collect()
}
