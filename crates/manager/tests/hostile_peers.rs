//! Peers that take what they can get, over TCP: other peers still get in.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a surprise ends the test"
)]

mod common;

use std::net::SocketAddr;

use calimero_network::{
    Keypair, Multiaddr, NetworkManager,
    multiaddr::Protocol,
    resources::{Resource, Usage},
};
use common::{Node, Over, assert_works, config, start, within};
use futures::StreamExt as _;
use libp2p::{
    Swarm, SwarmBuilder, noise,
    swarm::{NetworkBehaviour, dummy},
    tcp, yamux,
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpSocket},
    task::JoinSet,
};

/// Connections of the node under attack: 48 of each direction, 8 of them reserved.
const CONNECTIONS: u32 = 64;
const STRANGERS: u64 = 40;

/// A peer without protocols.
fn stranger() -> Swarm<impl NetworkBehaviour> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            tcp::Config::default(),
            noise::Config::new,
            yamux::Config::default,
        )
        .unwrap()
        .with_behaviour(|_| dummy::Behaviour)
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(common::LIMIT))
        .build()
}

/// Forwards TCP connections to `address` from `127.0.0.2`. Returns the address that accepts them.
async fn from_other_address(address: &Multiaddr) -> Multiaddr {
    let port = address.iter().find_map(|part| match part {
        Protocol::Tcp(port) => Some(port),
        _ => None,
    });
    let target = SocketAddr::from(([127, 0, 0, 1], port.unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 2], 0))).unwrap();
        let mut server = socket.connect(target).await.unwrap();
        // How either side ends the connection is of no interest here.
        let _ = copy_bidirectional(&mut client, &mut server).await;
    });
    let peer = address.iter().last().unwrap();
    let address: Multiaddr = format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
    address.with(peer)
}

async fn usage(node: &Node, resource: Resource) -> Usage {
    let status = node.client.status().await.unwrap();
    let mut usages = status.resources.into_iter();
    usages.find(|usage| usage.resource == resource).unwrap()
}

/// One address connects with three times as many identities as the node admits. A peer of another
/// address still gets in, a configured one of the same address too, and the node dials.
#[tokio::test]
async fn one_address_does_not_shut_others_out() {
    let boot = Keypair::generate_ed25519();
    let mut limited = config();
    limited.connections.max_established = CONNECTIONS;
    // Nothing listens there: the boot node is the one that connects.
    let dead: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
    limited.discovery.boot = vec![dead.with(Protocol::P2p(boot.public().to_peer_id()))];
    let mut victim = start(limited).await;
    let address = victim.listen(Over::Tcp).await;

    let mut attackers = JoinSet::new();
    for _ in 0..3 * STRANGERS {
        let mut attacker = stranger();
        attacker.dial(address.clone()).unwrap();
        attackers.spawn(attacker.for_each(|_| async {}));
    }
    let all = async {
        loop {
            let usage = usage(&victim, Resource::InboundConnections).await;
            let refused = usage.refused_node + usage.refused_origin + usage.refused_peer;
            if usage.used + refused == 3 * STRANGERS {
                return usage.used;
            }
        }
    };
    assert_eq!(within(all).await, STRANGERS);

    let other = start(config()).await;
    let forwarded = from_other_address(&address).await;
    within(other.client.dial(forwarded)).await.unwrap();
    assert_works(&other, &mut victim).await;

    let (client, events) = NetworkManager::start(boot, config()).await.unwrap();
    let boot = Node { client, events };
    within(boot.client.dial(address)).await.unwrap();
    assert_works(&boot, &mut victim).await;

    let mut third = start(config()).await;
    let address = third.listen(Over::Tcp).await;
    within(victim.client.dial(address)).await.unwrap();
    assert_works(&victim, &mut third).await;

    let status = victim.client.status().await.unwrap();
    assert_eq!(status.connections_evicted, 1);
    let usage = usage(&victim, Resource::InboundConnections).await;
    assert_eq!(
        (usage.used, usage.limit, usage.reserve),
        (STRANGERS + 1, 48, 8)
    );
    #[cfg(feature = "metrics")]
    let metrics = victim.client.metrics().await.unwrap();
    #[cfg(feature = "metrics")]
    for line in [
        "resource_used{resource=\"inbound_connections\"} 41",
        "resource_limit{resource=\"inbound_connections\"} 48",
        "connections_evicted_total 1",
    ] {
        let line = format!("calimero_network_{line}\n");
        assert!(metrics.contains(&line), "no {line:?} in {metrics}");
    }
}
