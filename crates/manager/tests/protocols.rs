//! The protocols that a node announces to an unmodified libp2p peer through identify are exactly
//! those that `docs/protocol.md` lists for its role.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what broke by panicking"
)]

mod common;

use std::{collections::BTreeSet, process::Command, sync::Arc};

use calimero_network::{
    Keypair, Multiaddr, NetworkClient, NetworkConfig, NetworkManager, PeerId, ProtocolId,
    blob::store::{FsBlobStore, FsConfig},
    multiaddr::Protocol,
};
use common::{BOTH, Over, config, loopback, relay::start_relay, within};
use futures::StreamExt;
use libp2p::{
    SwarmBuilder, gossipsub, identify, noise,
    swarm::{NetworkBehaviour, SwarmEvent},
    tcp, yamux,
};

const WIRE: &str = include_str!("../../../docs/protocol.md");

/// Roles of nodes, as written in the table.
const ALWAYS: &str = "every node";
const BLOBS: &str = "nodes that serve blobs";
const RENDEZVOUS: &str = "rendezvous servers";
const RELAY: &str = "relays";
const REACHABLE: &str = "reachable nodes";
const DIRECT: &str = "every node, on direct connections";
const RELAYED: &str = "the dialler of a relayed connection";

/// The names that the table gives to `roles`.
fn listed(roles: &[&str]) -> BTreeSet<String> {
    let table = WIRE.split("## Protocols").nth(1).unwrap();
    let table = table.split("\n## ").next().unwrap();
    let rows = table.lines().filter_map(|line| {
        let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
        let (_, name, role) = (cells.next()?, cells.next()?, cells.next()?);
        let name = name.strip_prefix('`')?.strip_suffix('`')?;
        Some((name.to_owned(), role))
    });
    let rows: Vec<_> = rows.collect();
    for (name, role) in &rows {
        let known = [ALWAYS, DIRECT, RELAYED, BLOBS, RENDEZVOUS, RELAY, REACHABLE].contains(role);
        assert!(known, "{name} is announced by {role:?}");
    }
    let rows = rows.into_iter().filter(|(_, role)| roles.contains(role));
    rows.map(|(name, _)| name).collect()
}

/// An unmodified libp2p peer. It supports gossipsub, because a node withdraws its gossipsub protocols otherwise.
#[derive(NetworkBehaviour)]
struct Stock {
    identify: identify::Behaviour,
    gossip: gossipsub::Behaviour,
}

/// Returns the protocol version and the protocols that the node at `address` announces.
async fn announced_by(address: Multiaddr) -> (String, BTreeSet<String>) {
    let mut stock = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            tcp::Config::default(),
            noise::Config::new,
            yamux::Config::default,
        )
        .unwrap()
        .with_behaviour(|key| Stock {
            identify: identify::Behaviour::new(identify::Config::new(
                "/stock/1".to_owned(),
                key.public(),
            )),
            gossip: gossipsub::Behaviour::new(
                gossipsub::MessageAuthenticity::Signed(key.clone()),
                gossipsub::Config::default(),
            )
            .unwrap(),
        })
        .unwrap()
        .build();
    stock.dial(address).unwrap();
    within(async {
        loop {
            if let SwarmEvent::Behaviour(StockEvent::Identify(identify::Event::Received {
                info,
                ..
            })) = stock.select_next_some().await
            {
                let protocols: Vec<_> = info.protocols.iter().map(ToString::to_string).collect();
                let each_once: BTreeSet<_> = protocols.iter().cloned().collect();
                assert_eq!(each_once.len(), protocols.len(), "{protocols:?}");
                return (info.protocol_version, each_once);
            }
        }
    })
    .await
}

async fn assert_announces(client: &NetworkClient, roles: &[&str]) {
    let (_, address) = client.listen_on(loopback(Over::Tcp)).await.unwrap();
    let (version, protocols) = announced_by(address).await;
    assert_eq!(protocols, listed(roles), "{roles:?}");
    assert!(version.starts_with("/calimero-network/"), "{version}");
}

async fn start(config: NetworkConfig) -> NetworkClient {
    let identity = Keypair::generate_ed25519();
    NetworkManager::start(identity, config).await.unwrap().0
}

/// Returns the protocols that another node of this crate announces.
async fn identified(client: &NetworkClient, peer: PeerId) -> BTreeSet<String> {
    let info = within(client.identified(peer)).await.unwrap().unwrap();
    info.protocols.iter().map(ToString::to_string).collect()
}

#[test]
fn the_names_of_this_network_are_in_the_list() {
    let listed = listed(&[ALWAYS, BLOBS]);
    for protocol in [
        ProtocolId::Stream,
        ProtocolId::Blob,
        ProtocolId::Kademlia,
        ProtocolId::SpecializedNodeInvite,
    ] {
        assert!(listed.contains(protocol.as_str()), "{protocol}");
    }
}

#[tokio::test]
async fn a_node_announces_what_every_node_does() {
    assert_announces(&start(config()).await, &[ALWAYS, DIRECT]).await;
}

#[tokio::test]
async fn a_node_that_serves_blobs_announces_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = FsBlobStore::open(folder.path(), &FsConfig::default()).unwrap();
    let builder = NetworkManager::builder(Keypair::generate_ed25519(), config());
    let (client, _) = builder.blobs(Arc::new(store)).start().await.unwrap();
    assert_announces(&client, &[ALWAYS, DIRECT, BLOBS]).await;
}

#[tokio::test]
async fn a_boot_node_announces_what_it_serves() {
    let mut boot = config();
    boot.server.rendezvous.enabled = true;
    boot.server.relay.enabled = true;
    assert_announces(
        &start(boot.clone()).await,
        &[ALWAYS, DIRECT, RENDEZVOUS, RELAY],
    )
    .await;
    // Only a reachable node can probe others.
    boot.discovery.external = vec!["/ip4/192.0.2.1/tcp/2428".parse().unwrap()];
    let roles = [ALWAYS, DIRECT, RENDEZVOUS, RELAY, REACHABLE];
    assert_announces(&start(boot).await, &roles).await;
}

#[tokio::test]
async fn each_server_is_announced_separately() {
    let (mut rendezvous, mut relay) = (config(), config());
    rendezvous.server.rendezvous.enabled = true;
    relay.server.relay.enabled = true;
    assert_announces(&start(rendezvous).await, &[ALWAYS, DIRECT, RENDEZVOUS]).await;
    assert_announces(&start(relay).await, &[ALWAYS, DIRECT, RELAY]).await;
}

#[tokio::test]
async fn nodes_of_this_crate_announce_the_same() {
    for over in BOTH {
        let (a, b) = common::pair(over).await;
        let protocols = identified(&a.client, b.peer()).await;
        assert_eq!(protocols, listed(&[ALWAYS, DIRECT]), "{over:?}");
    }
}

#[tokio::test]
async fn dcutr_is_announced_on_relayed_connections() {
    let (_, relay) = within(start_relay()).await;
    let (a, b) = (start(config()).await, start(config()).await);
    let circuit = relay.with(Protocol::P2pCircuit);
    within(b.listen_on(circuit.clone())).await.unwrap();
    let to_b = circuit.with(Protocol::P2p(b.peer_id()));
    within(a.dial(to_b)).await.unwrap();
    // The dialled peer starts the hole punch, so only the dialler supports the protocol.
    assert_eq!(identified(&a, b.peer_id()).await, listed(&[ALWAYS]));
    let of_a = identified(&b, a.peer_id()).await;
    assert_eq!(of_a, listed(&[ALWAYS, RELAYED]));
}

/// mDNS sends to all hosts of the local network, so this test runs in a separate network
/// namespace.
#[test]
fn neighbours_are_found_without_a_protocol() {
    let program = std::env::current_exe().unwrap();
    let script = "ip link set lo up && exec \"$0\" --exact --ignored in_a_namespace_with_mdns";
    let inside = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "sh", "-c", script])
        .arg(program)
        .output();
    let said = match inside {
        Ok(output) if output.status.success() => output.stdout,
        Ok(output) if String::from_utf8_lossy(&output.stderr).contains("unshare: ") => {
            println!("skipped: {}", String::from_utf8_lossy(&output.stderr));
            return;
        }
        Ok(output) => panic!("{}", String::from_utf8_lossy(&output.stdout)),
        Err(error) => {
            println!("skipped: no unshare here: {error}");
            return;
        }
    };
    assert!(String::from_utf8_lossy(&said).contains("1 passed"));
}

#[tokio::test]
#[ignore = "run by another test, in a network namespace"]
async fn in_a_namespace_with_mdns() {
    let mut neighbour = config();
    neighbour.discovery.mdns = true;
    assert_announces(&start(neighbour).await, &[ALWAYS, DIRECT]).await;
}
