//! Discovery in Swarms of its own: a boot node with a rendezvous server, and two nodes that know
//! only the boot node and the name of an overlay. They find each other and connect over TCP on this
//! machine. The program ends when they are connected.
//!
//! `cargo run -p calimero-network-discovery --example meeting`

use std::{error::Error, time::Duration};

use calimero_network_discovery::{
    Behaviour, Event,
    behaviour::RefuseRecords,
    machine::{Namespace, Path},
    server,
};
use calimero_network_primitives::{
    Keypair, Multiaddr, PeerId,
    addr::DialPolicy,
    config::{DiscoveryConfig, PingConfig, ServerConfig, TransportConfig},
};
use calimero_network_transport::build;
use futures::StreamExt;
use libp2p_swarm::{Config, NetworkBehaviour, Swarm, SwarmEvent};

/// Within which it is all done, or has failed.
const DEADLINE: Duration = Duration::from_secs(60);

const OVERLAY: &str = "/example/meeting";

/// Both go into a Swarm like any other behaviour. An ordinary node has no use for the server.
#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p_swarm::derive_prelude")]
struct Node {
    discovery: Behaviour,
    server: server::Behaviour,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tokio::time::timeout(DEADLINE, run()).await?
}

async fn run() -> Result<(), Box<dyn Error>> {
    let boot = Keypair::generate_ed25519();
    let mut serving = ServerConfig::default();
    serving.rendezvous.enabled = true;
    let mut boot = node(&boot, Vec::new(), &serving)?;
    let boot_address = listen(&mut boot).await?;
    tokio::spawn(async move {
        loop {
            boot.select_next_some().await;
        }
    });

    let (ada, bob) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let mut members = Vec::new();
    for identity in [&ada, &bob] {
        let mut member = node(
            identity,
            vec![boot_address.clone()],
            &ServerConfig::default(),
        )?;
        listen(&mut member).await?;
        let overlay = Namespace::new(OVERLAY)?;
        member.behaviour_mut().discovery.follow(overlay);
        members.push(member);
    }
    let [to_bob, to_ada] = [&bob, &ada].map(|key| key.public().to_peer_id());
    let mut members = members.into_iter().zip([to_bob, to_ada]);
    let (Some(ada), Some(bob)) = (members.next(), members.next()) else {
        return Err("there are two members".into());
    };
    let (ada, bob) = tokio::join!(meets(ada), meets(bob));
    // Kept until here, so that neither hangs up before the other has seen it.
    println!("{} and {} met", ada.local_peer_id(), bob.local_peer_id());
    Ok(())
}

/// Drives a node until it has a direct connection with `other`.
async fn meets((mut node, other): (Swarm<Node>, PeerId)) -> Swarm<Node> {
    loop {
        if let SwarmEvent::Behaviour(NodeEvent::Discovery(event)) = node.select_next_some().await {
            match event {
                Event::Discovered {
                    namespace, members, ..
                } => println!("{namespace} has {members} members"),
                Event::PathChanged {
                    peer,
                    to: Some(Path::Direct),
                    ..
                } if peer == other => return node,
                _ => {}
            }
        }
    }
}

fn node(
    identity: &Keypair,
    boot: Vec<Multiaddr>,
    serving: &ServerConfig,
) -> Result<Swarm<Node>, Box<dyn Error>> {
    let config = DiscoveryConfig {
        boot,
        local_network: true, // addresses of this machine are worth a dial, and are told to others
        ..DiscoveryConfig::default()
    };
    let peer = identity.public().to_peer_id();
    let transport = build(
        identity,
        &TransportConfig::default(),
        DialPolicy::Local.into(),
    )?;
    let discovery = Behaviour::new(
        identity,
        &config,
        &PingConfig::default(),
        "example/1",
        transport.relay_client,
        RefuseRecords,
        rand::random(),
    )?;
    let server = server::Behaviour::new(peer, serving, rand::random())?;
    let behaviour = Node { discovery, server };
    let config = Config::with_tokio_executor().with_idle_connection_timeout(DEADLINE);
    Ok(Swarm::new(transport.boxed, behaviour, peer, config))
}

/// Listens on loopback, and gives the address with the peer id in it.
async fn listen(node: &mut Swarm<Node>) -> Result<Multiaddr, Box<dyn Error>> {
    node.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
    let peer = *node.local_peer_id();
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = node.select_next_some().await {
            return address
                .with_p2p(peer)
                .map_err(|_| "another peer's address".into());
        }
    }
}
