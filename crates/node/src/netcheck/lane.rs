//! The test of one protocol with one version of IP.
//!
//! A node listens on the protocol and dials the first server from its listening port. The server
//! reports the address that it sees, and dials it from another port (AutoNAT v2). If it gets
//! through, the second server tries, to which the node is connected over the other protocol only:
//! the filter has seen no packet to its address. Then the node dials the second server from the
//! listening port, which reports the address that it sees.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use calimero_network::{
    Connection, Keypair, Multiaddr, NetworkClient, NetworkManager, PeerId,
    addr::with_peer,
    discovery::{
        machine::ProbeOutcome,
        netcheck::{Attempt, DialBack, Family, Sighting, Transport, endpoint_of},
    },
    multiaddr::Protocol,
};
use tokio::time::timeout;

use super::servers::LOOK_INTERVAL;
use crate::{error::CommandError, one_shot};

/// Time for a dial, 5 s: a handshake takes three round trips, and one lost packet 1 s.
const DIAL_TIME: Duration = Duration::from_secs(5);

/// Time for a server to dial back, 20 s: its dial of an address that a filter drops takes 10 s.
const PROBE_TIME: Duration = Duration::from_secs(20);

/// Time for a dial of the own public address, 3 s.
const HAIRPIN_TIME: Duration = Duration::from_secs(3);

/// A protocol and a version of IP, with the servers that test it.
#[derive(Clone, Debug)]
pub(super) struct Lane {
    pub(super) transport: Transport,
    pub(super) family: Family,
    /// Port to listen on; 0 for one that the system chooses.
    pub(super) port: u16,
    pub(super) first: (PeerId, Multiaddr),
    /// A server at another IP address.
    pub(super) second: Option<(PeerId, Multiaddr)>,
    /// Address of the second server over the other protocol.
    pub(super) aside: Option<Multiaddr>,
}

/// What a test has found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) own: Vec<IpAddr>,
    pub(super) attempts: Vec<Attempt>,
    pub(super) sightings: Vec<Sighting>,
    pub(super) dial_backs: Vec<DialBack>,
    pub(super) hairpin: Option<bool>,
    pub(super) path_mtu: Vec<(PeerId, u16)>,
}

/// A test that is under way.
struct Test {
    lane: Lane,
    client: NetworkClient,
    found: Findings,
}

/// Tests a lane.
pub(super) async fn test(lane: Lane) -> Result<Findings, CommandError> {
    let host = match lane.family {
        Family::V4 => Protocol::Ip4(Ipv4Addr::UNSPECIFIED),
        Family::V6 => Protocol::Ip6(Ipv6Addr::UNSPECIFIED),
    };
    let listen = Multiaddr::from(host);
    let listen = match lane.transport {
        Transport::Udp => listen.with(Protocol::Udp(lane.port)).with(Protocol::QuicV1),
        Transport::Tcp => listen.with(Protocol::Tcp(lane.port)),
    };
    let mut config = one_shot::config(vec![lane.first.1.clone()], false);
    config.listen = vec![listen];
    config.discovery.relays = 0;
    let (client, _) = NetworkManager::start(Keypair::generate_ed25519(), config).await?;
    let mut test = Test {
        lane,
        client,
        found: Findings::default(),
    };
    let outcome = test.run().await;
    // The result of the check does not depend on it.
    let _ = test.client.shutdown().await;
    outcome.map(|()| test.found)
}

impl Test {
    async fn run(&mut self) -> Result<(), CommandError> {
        let endpoints = self.client.status().await?.listening;
        let endpoints = endpoints.iter().filter_map(endpoint_of);
        self.found.own = endpoints.map(|(_, at)| at.ip()).collect();
        let (first, address) = self.lane.first.clone();
        if let Some(seen) = self.look(first, address).await? {
            if self.dialled_back(first, &seen, true).await? == Some(true) {
                self.let_second_dial_back(first, &seen).await?;
            }
            self.turn_back(&seen).await?;
        }
        if let Some((second, address)) = self.lane.second.clone() {
            self.look(second, address).await?;
        }
        let connections = self.client.status().await?.connections;
        let mtu = |one: &Connection| Some((one.peer, one.link.path_mtu_bytes()?));
        self.found.path_mtu = connections.iter().filter_map(mtu).collect();
        Ok(())
    }

    /// Dials a server from the listening port, and returns the address that it sees.
    async fn look(
        &mut self,
        peer: PeerId,
        address: Multiaddr,
    ) -> Result<Option<Multiaddr>, CommandError> {
        let dialled = timeout(DIAL_TIME, self.client.dial(address.clone())).await;
        let connected = matches!(dialled, Ok(Ok(_)));
        self.found.attempts.push(Attempt {
            transport: self.lane.transport,
            family: self.lane.family,
            connected,
        });
        if !connected {
            return Ok(None);
        }
        let Some(info) = self.client.identified(peer).await? else {
            return Ok(None);
        };
        if let (Some((_, server)), Some((transport, observed))) =
            (endpoint_of(&address), endpoint_of(&info.observed))
        {
            self.found.sightings.push(Sighting {
                transport,
                server: server.ip(),
                observed,
            });
        }
        Ok(Some(info.observed.clone()))
    }

    /// Waits until `server` has dialled this node at `seen`. `contacted` says whether the node has
    /// sent packets to it over this protocol.
    async fn dialled_back(
        &mut self,
        server: PeerId,
        seen: &Multiaddr,
        contacted: bool,
    ) -> Result<Option<bool>, CommandError> {
        let at = endpoint_of(seen);
        let ended = async {
            loop {
                let probes = self.client.status().await?.discovery.discovery.probes;
                let probe = probes.into_iter().find(|probe| {
                    probe.server == server && at.is_some() && endpoint_of(&probe.address) == at
                });
                match probe.map(|probe| probe.outcome) {
                    Some(ProbeOutcome::Reached) => return Ok::<_, CommandError>(true),
                    Some(ProbeOutcome::NotReached) => return Ok(false),
                    // A server that refuses is asked again.
                    Some(ProbeOutcome::NotTried) | None => {}
                }
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        };
        let Ok(reached) = timeout(PROBE_TIME, ended).await else {
            return Ok(None);
        };
        let reached = reached?;
        self.found.dial_backs.push(DialBack {
            transport: self.lane.transport,
            family: self.lane.family,
            reached,
            contacted,
        });
        Ok(Some(reached))
    }

    /// Has the second server dial back, to whose address this protocol has sent no packet.
    async fn let_second_dial_back(
        &mut self,
        first: PeerId,
        seen: &Multiaddr,
    ) -> Result<(), CommandError> {
        let (Some((second, _)), Some(aside)) = (self.lane.second.clone(), self.lane.aside.clone())
        else {
            return Ok(());
        };
        let dialled = timeout(DIAL_TIME, self.client.dial(aside)).await;
        if matches!(dialled, Ok(Ok(_))) {
            // The second one is the only server that is left.
            self.client.block(first).await?;
            self.client.identified(second).await?;
            // Candidates are probed again at once.
            let _ = self.client.bootstrap().await;
            self.dialled_back(second, seen, false).await?;
        }
        self.client.disconnect(second).await?;
        let is_left = async {
            while (self.client.status().await?.connections.iter()).any(|one| one.peer == second) {
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
            Ok::<_, CommandError>(())
        };
        timeout(DIAL_TIME, is_left).await.unwrap_or(Ok(()))
    }

    /// Dials the own public address, if it is not one of this host.
    async fn turn_back(&mut self, seen: &Multiaddr) -> Result<(), CommandError> {
        let is_own = |ip: IpAddr| self.found.own.contains(&ip);
        if endpoint_of(seen).is_none_or(|(_, at)| is_own(at.ip())) {
            return Ok(());
        }
        let Ok(address) = with_peer(seen, self.client.peer_id()) else {
            return Ok(());
        };
        let mut config = one_shot::config(vec![address.clone()], false);
        config.listen = Vec::new();
        config.discovery.relays = 0;
        let (other, _) = NetworkManager::start(Keypair::generate_ed25519(), config).await?;
        let dialled = timeout(HAIRPIN_TIME, other.dial(address)).await;
        self.found.hairpin = Some(matches!(dialled, Ok(Ok(_))));
        let _ = other.shutdown().await;
        Ok(())
    }
}
