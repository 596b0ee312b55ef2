//! Time from the start of a node to its first overlay peer: on loopback, with one boot node and
//! one member that is running already. Twenty nodes start one after another; the result is the median.
//!
//! `cargo run --release -p calimero-network --example first_peer`

use std::time::{Duration, Instant};

use calimero_network::{
    Events, GossipEvent, Keypair, Multiaddr, NetworkClient, NetworkConfig, NetworkEvent,
    NetworkManager, PeerId, Topic, addr,
};

type Failed = Box<dyn std::error::Error>;

/// Number of nodes that are measured.
const NODES: usize = 20;

/// Deadline of one measurement.
const LIMIT: Duration = Duration::from_secs(60);

fn local() -> Result<NetworkConfig, Failed> {
    let mut config = NetworkConfig {
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse()?],
        ..NetworkConfig::default()
    };
    config.discovery.local_network = true;
    Ok(config)
}

async fn member(boot: &Multiaddr, topic: &Topic) -> Result<(NetworkClient, Events), Failed> {
    let mut config = local()?;
    config.discovery.boot = vec![boot.clone()];
    let started = NetworkManager::start(Keypair::generate_ed25519(), config).await?;
    started.0.subscribe(topic).await?;
    Ok(started)
}

async fn met(events: &mut Events, peer: PeerId) -> Result<(), Failed> {
    while let Some(event) = events.next().await {
        if matches!(event, NetworkEvent::Gossip(GossipEvent::Subscribed { peer: of, .. }) if of == peer)
        {
            return Ok(());
        }
    }
    Err("the node stopped".into())
}

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let topic = Topic::free("first peer")?;
    let mut config = local()?;
    config.server.rendezvous.enabled = true;
    let (boot, _boot_events) = NetworkManager::start(Keypair::generate_ed25519(), config).await?;
    let address = boot.status().await?.listening.remove(0);
    let address = addr::with_peer(&address, boot.peer_id())?;
    let (resident, _resident_events) = member(&address, &topic).await?;
    resident.bootstrap().await?;

    let mut times = Vec::with_capacity(NODES);
    for _ in 0..NODES {
        let started = Instant::now();
        let (client, mut events) = member(&address, &topic).await?;
        tokio::time::timeout(LIMIT, met(&mut events, resident.peer_id())).await??;
        times.push(started.elapsed());
        client.shutdown().await?;
    }
    times.sort_unstable();
    println!(
        "first overlay peer after {:?} (median of {NODES}), {:?} to {:?}",
        times[NODES / 2],
        times[0],
        times[NODES - 1]
    );
    Ok(())
}
