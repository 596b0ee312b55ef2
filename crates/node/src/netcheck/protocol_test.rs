//! The test of one protocol with one version of IP.
//!
//! A node listens on the protocol and dials the first server from its listening port. The server
//! reports the address that it sees, and dials it from another port (AutoNAT v2). If it gets
//! through, the second server tries, to which the node is connected over the other protocol only:
//! the filter has seen no packet to its address. Then the node dials the second server from the
//! listening port, which reports the address that it sees.
//!
//! Each packet to a server can open the filter for it and make another mapping. The second server is
//! therefore blocked until its turn: Kademlia finds it through the first one, and dials it at every
//! address that it has, those of the other protocol included. In its turn its addresses are dialled
//! without a peer id, because a dial of a peer returns any connection with it that exists.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use calimero_network::{
    Connection, ConnectionEvent, DiscoveryEvent, Events, Keypair, ListenerEvent, Multiaddr,
    NetworkClient, NetworkEvent, NetworkManager, PeerId, PeerInfo, Stopped,
    addr::without_peer,
    discovery::netcheck::{Attempt, DialBack, Family, ObservedAddress, Transport, endpoint_of},
    multiaddr::Protocol,
};
use tokio::{net::TcpSocket, time::timeout};

use crate::{error::CommandError, one_shot};

/// Time until an interface has an address of the version of IP, 2 s. Interfaces are read within
/// milliseconds on an idle host.
const LISTEN_TIME: Duration = Duration::from_secs(2);

/// Time for a dial, and for the end of a connection, 10 s: a handshake takes three round trips, a
/// lost packet 1 s, and a busy host some seconds.
const DIAL_TIME: Duration = Duration::from_secs(10);

/// Time for the report of a server that is connected, 10 s, the same as for a dial.
const IDENTIFY_TIME: Duration = Duration::from_secs(10);

/// Time for a whole test, 60 s. A test in which everything answers takes up to 40 s.
const TEST_TIME: Duration = Duration::from_secs(60);

/// Time for a server to dial back, 15 s: its dial of an address that a filter drops takes 10 s.
const PROBE_TIME: Duration = Duration::from_secs(15);

/// Times that a server is waited for, 2: it gives up a request after 25 s.
const PROBES: u32 = 2;

/// The protocol by which a server is asked to dial back (AutoNAT v2).
const PROBE_PROTOCOL: &str = "/libp2p/autonat/2/dial-request";

/// Time until a refused request for a dial back is repeated, 2 s.
const REPEAT_TIME: Duration = Duration::from_secs(2);

/// Time for a dial of the own public address, 3 s.
const HAIRPIN_TIME: Duration = Duration::from_secs(3);

/// A server and its address for the protocol.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) peer: PeerId,
    /// With its IP address, not a name.
    pub(super) address: Multiaddr,
}

impl Target {
    fn with_peer(&self) -> Multiaddr {
        without_peer(&self.address).with(Protocol::P2p(self.peer))
    }
}

/// A protocol and a version of IP, with the servers that test it.
#[derive(Clone, Debug)]
pub(super) struct ProtocolTest {
    pub(super) transport: Transport,
    pub(super) family: Family,
    /// Port to listen on; 0 for one that the system chooses.
    pub(super) port: u16,
    pub(super) first: Target,
    /// A server at another IP address.
    pub(super) second: Option<Target>,
    /// Address of the second server over the other protocol.
    pub(super) aside: Option<Multiaddr>,
}

/// What a test has found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) own: Vec<IpAddr>,
    pub(super) attempts: Vec<Attempt>,
    pub(super) observed: Vec<ObservedAddress>,
    pub(super) dial_backs: Vec<DialBack>,
    pub(super) hairpin: Option<bool>,
    pub(super) path_mtu: Vec<(PeerId, u16)>,
}

/// A test that is under way.
struct Test {
    test: ProtocolTest,
    client: NetworkClient,
    events: Events,
    found: Findings,
}

/// Fails if a connection of an earlier run still holds the TCP port. Dials would then leave from
/// other ports, and a NAT would look like a symmetric one. Without `SO_REUSEADDR`, which this socket
/// lacks, `bind` fails while such a connection is in `TIME_WAIT`. To be called before any test starts.
pub(super) fn check_port(test: &ProtocolTest) -> Result<(), CommandError> {
    if test.transport != Transport::Tcp || test.port == 0 {
        return Ok(());
    }
    let bound = match test.family {
        Family::V4 => TcpSocket::new_v4()
            .and_then(|socket| socket.bind((Ipv4Addr::UNSPECIFIED, test.port).into())),
        Family::V6 => TcpSocket::new_v6()
            .and_then(|socket| socket.bind((Ipv6Addr::UNSPECIFIED, test.port).into())),
    };
    match bound {
        Err(source) if source.kind() == io::ErrorKind::AddrInUse => Err(CommandError::Io {
            what: "the TCP port is in use, or a connection used it within the last minute",
            source,
        }),
        // The node reports every other error.
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Tests one protocol with one version of IP.
pub(super) async fn run(test: ProtocolTest) -> Result<Findings, CommandError> {
    let host = match test.family {
        Family::V4 => Protocol::Ip4(Ipv4Addr::UNSPECIFIED),
        Family::V6 => Protocol::Ip6(Ipv6Addr::UNSPECIFIED),
    };
    let listen = Multiaddr::from(host);
    let listen = match test.transport {
        Transport::Udp => listen.with(Protocol::Udp(test.port)).with(Protocol::QuicV1),
        Transport::Tcp => listen.with(Protocol::Tcp(test.port)),
    };
    let mut config = one_shot::quiet_config();
    config.listen = vec![listen];
    // The node dials it as soon as it listens.
    config.discovery.boot = vec![test.first.with_peer()];
    config.discovery.reachability.min_backoff = REPEAT_TIME;
    let (client, events) = NetworkManager::start(Keypair::generate_ed25519(), config).await?;
    let mut test = Test {
        test,
        client,
        events,
        found: Findings::default(),
    };
    // What was found by then counts.
    let outcome = timeout(TEST_TIME, test.run()).await.unwrap_or(Ok(()));
    // The result of the check does not depend on it.
    let _ = test.client.shutdown().await;
    outcome.map(|()| test.found)
}

impl Test {
    async fn run(&mut self) -> Result<(), CommandError> {
        let ProtocolTest { first, second, .. } = self.test.clone();
        if let Some(second) = &second {
            self.client.block(second.peer).await?;
        }
        self.listen().await?;
        let seen = self.dial_and_observe(&first, first.with_peer()).await?;
        if let Some(seen) = seen
            && self.dialled_back(first.peer, seen, true).await? == Some(true)
        {
            self.probe_by_second(&first, seen).await?;
        }
        if let Some(seen) = seen {
            self.test_hairpin(seen).await?;
        }
        if let Some(second) = second {
            self.client.unblock(second.peer).await?;
            let alone = without_peer(&second.address);
            self.dial_and_observe(&second, alone).await?;
        }
        self.read_path_mtu().await
    }

    /// Waits for an event that `choose` returns something for, at most for `time`.
    async fn wait<T>(
        &mut self,
        time: Duration,
        mut choose: impl FnMut(NetworkEvent) -> Option<T>,
    ) -> Result<Option<T>, CommandError> {
        let chosen = async {
            loop {
                match self.events.next().await {
                    Some(event) => {
                        if let Some(chosen) = choose(event) {
                            return Ok(chosen);
                        }
                    }
                    None => return Err(Stopped.into()),
                }
            }
        };
        timeout(time, chosen).await.ok().transpose()
    }

    /// Waits until the node listens on an address that other hosts can see. A host that has none of
    /// the version of IP shows it by failed dials.
    async fn listen(&mut self) -> Result<(), CommandError> {
        let is_visible = |event| match event {
            NetworkEvent::Listener(ListenerEvent::Listening { address, .. }) => {
                let (_, at) = endpoint_of(&address)?;
                (!at.ip().is_loopback()).then_some(())
            }
            _ => None,
        };
        self.wait(LISTEN_TIME, is_visible).await?;
        Ok(())
    }

    /// Dials an address. `None` if another peer answers there.
    async fn dial(&self, peer: PeerId, address: Multiaddr) -> Option<bool> {
        match timeout(DIAL_TIME, self.client.dial(address)).await {
            Ok(Ok(connection)) => (connection.peer == peer).then_some(true),
            Ok(Err(_)) | Err(_) => Some(false),
        }
    }

    /// What a server reports of itself. `None` if it does not do so in time.
    async fn identified(&self, server: PeerId) -> Result<Option<Arc<PeerInfo>>, Stopped> {
        let identified = timeout(IDENTIFY_TIME, self.client.identified(server)).await;
        identified.unwrap_or(Ok(None))
    }

    /// Dials a server at `address` from the listening port, and returns the address that it sees.
    async fn dial_and_observe(
        &mut self,
        server: &Target,
        address: Multiaddr,
    ) -> Result<Option<SocketAddr>, CommandError> {
        let connected = self.dial(server.peer, address).await;
        self.found
            .attempts
            .extend(connected.map(|connected| Attempt {
                transport: self.test.transport,
                family: self.test.family,
                connected,
            }));
        if connected != Some(true) || self.identified(server.peer).await?.is_none() {
            return Ok(None);
        }
        let status = self.client.status().await?;
        let observations = status.observations();
        self.found.own = observations.own;
        let at = endpoint_of(&server.address).map(|(_, at)| at.ip());
        let observed_address = observations.observed.into_iter().find(|one| {
            Some(one.server) == at
                && one.transport == self.test.transport
                && one.is_plausible(&self.found.own)
        });
        self.found.observed.extend(observed_address);
        self.read_path_mtu().await?;
        Ok(observed_address.map(|one| one.observed))
    }

    /// Waits until `server` has dialled this node at `seen`. `contacted` says whether the node has
    /// sent packets to it over this protocol. `None` if the server does not dial back for others, or
    /// does not try in time.
    async fn dialled_back(
        &mut self,
        server: PeerId,
        seen: SocketAddr,
        contacted: bool,
    ) -> Result<Option<bool>, CommandError> {
        let info = self.identified(server).await?;
        let mut protocols = info.iter().flat_map(|info| &info.protocols);
        if !protocols.any(|protocol| protocol.as_ref() == PROBE_PROTOCOL) {
            return Ok(None);
        }
        let transport = self.test.transport;
        let ended = |event| match event {
            NetworkEvent::Discovery(DiscoveryEvent::AddressProbed {
                address,
                server: by,
                reached,
            }) => {
                let is_it = by == server && endpoint_of(&address) == Some((transport, seen));
                is_it.then_some(reached)
            }
            _ => None,
        };
        let mut reached = None;
        for nth in 0..PROBES {
            // The first server is asked as soon as it reports an address. Otherwise candidates are
            // probed again at once, unless a probe is under way. It does not fail while there is a
            // connection.
            if !contacted || nth > 0 {
                let _ = self.client.bootstrap().await;
            }
            reached = self.wait(PROBE_TIME, ended).await?;
            if reached.is_some() {
                break;
            }
        }
        self.found
            .dial_backs
            .extend(reached.map(|reached| DialBack {
                transport,
                family: self.test.family,
                reached,
                contacted,
            }));
        Ok(reached)
    }

    /// Has the second server dial back, to whose address this protocol has sent no packet.
    async fn probe_by_second(
        &mut self,
        first: &Target,
        seen: SocketAddr,
    ) -> Result<(), CommandError> {
        let (Some(second), Some(aside)) = (self.test.second.clone(), self.test.aside.clone())
        else {
            return Ok(());
        };
        // The second one is then the only server that is connected. While a connection with the first
        // one closes, the first one still answers requests.
        self.client.block(first.peer).await?;
        self.wait_until_closed(first.peer).await?;
        self.client.unblock(second.peer).await?;
        if self.dial(second.peer, without_peer(&aside)).await == Some(true) {
            self.identified(second.peer).await?;
            let mut connections = self.client.status().await?.connections.into_iter();
            // Kademlia may have dialled it as well, so that the filter has seen a packet to it.
            let is_contacted = connections.any(|one| {
                let over = endpoint_of(&one.address).map(|(over, _)| over);
                one.peer == second.peer && over == Some(self.test.transport)
            });
            if !is_contacted {
                self.dialled_back(second.peer, seen, false).await?;
            }
        }
        if self.client.disconnect(second.peer).await? {
            self.wait_until_closed(second.peer).await?;
        }
        Ok(())
    }

    /// Waits until no connection with a peer is left.
    async fn wait_until_closed(&mut self, server: PeerId) -> Result<(), CommandError> {
        let left = |event| match event {
            NetworkEvent::Connection(ConnectionEvent::Disconnected {
                peer, remaining, ..
            }) => (peer == server && remaining == 0).then_some(()),
            _ => None,
        };
        self.wait(DIAL_TIME, left).await?;
        Ok(())
    }

    /// Dials the own public address from another node, if it is not one of this host.
    async fn test_hairpin(&mut self, seen: SocketAddr) -> Result<(), CommandError> {
        if self.found.own.contains(&seen.ip()) {
            return Ok(());
        }
        let address = Multiaddr::from(seen.ip());
        let address = match self.test.transport {
            Transport::Udp => address
                .with(Protocol::Udp(seen.port()))
                .with(Protocol::QuicV1),
            Transport::Tcp => address.with(Protocol::Tcp(seen.port())),
        };
        let config = one_shot::quiet_config();
        let (other, _) = NetworkManager::start(Keypair::generate_ed25519(), config).await?;
        let dialled = timeout(HAIRPIN_TIME, other.dial(address)).await;
        let own = self.client.peer_id();
        self.found.hairpin = Some(matches!(dialled, Ok(Ok(connection)) if connection.peer == own));
        let _ = other.shutdown().await;
        Ok(())
    }

    /// Notes the path MTU of the connections with servers.
    async fn read_path_mtu(&mut self) -> Result<(), CommandError> {
        let connections = self.client.status().await?.connections;
        let mtu = |one: &Connection| Some((one.peer, one.link.path_mtu_bytes()?));
        self.found
            .path_mtu
            .extend(connections.iter().filter_map(mtu));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_tcp_port_in_use_is_refused() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let test = |transport, port| ProtocolTest {
            transport,
            family: Family::V4,
            port,
            first: Target {
                peer: PeerId::random(),
                address: "/ip4/198.51.100.1/tcp/1".parse().unwrap(),
            },
            second: None,
            aside: None,
        };
        let refused = check_port(&test(Transport::Tcp, port)).unwrap_err();
        assert_eq!(refused.code(), crate::error::Code::Refused);
        check_port(&test(Transport::Tcp, 0)).unwrap();
        check_port(&test(Transport::Udp, port)).unwrap();
    }
}
