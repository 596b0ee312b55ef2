//! Nodes that know only a boot node find each other and stay connected.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::{collections::BTreeSet, time::Duration};

use calimero_network::{
    BootstrapError, DiscoveryEvent, GossipEvent, Keypair, Multiaddr, NetworkConfig, NetworkEvent,
    NetworkManager, PeerId, Topic,
    discovery::{
        cache::{FileCache, PeerCache as _},
        machine::{CacheEntry, Phase},
    },
};

use self::common::{BOTH, LIMIT, Node, Over, config, loopback, start};

/// A configuration for a network on one machine.
fn local() -> NetworkConfig {
    let mut config = config();
    config.listen = BOTH.map(loopback).to_vec();
    config.discovery.local_network = true;
    config
}

async fn boot_node() -> (Node, Multiaddr) {
    let mut config = local();
    config.server.rendezvous.enabled = true;
    config.server.relay.enabled = true;
    let node = start(config).await;
    let address = node.listen(Over::Tcp).await;
    (node, address)
}

fn knowing(boot: &[&Multiaddr]) -> NetworkConfig {
    let mut config = local();
    config.discovery.boot = boot.iter().map(|&address| address.clone()).collect();
    config
}

fn weather() -> Topic {
    Topic::free("weather").unwrap()
}

/// Starts a node that knows `boot` and follows the topic.
async fn member(boot: &[&Multiaddr]) -> Node {
    let node = start(knowing(boot)).await;
    node.client.subscribe(&weather()).await.unwrap();
    node
}

/// Waits until the subscription of `peer` is known.
async fn until_met(node: &mut Node, peer: PeerId) {
    let subscribed = node.client.subscribed_peers(&weather()).await.unwrap();
    if subscribed.contains(&peer) {
        return;
    }
    node.wait_for(|event| match event {
        NetworkEvent::Gossip(GossipEvent::Subscribed { peer: of, topic }) => {
            (of == peer && topic == weather()).then_some(())
        }
        _ => None,
    })
    .await;
}

/// Waits until every overlay has a connected member, that of all nodes too.
async fn until_joined(node: &mut Node) {
    let status = node.client.status().await.unwrap();
    if status.phase == Phase::Joined {
        return;
    }
    node.wait_for(|event| match event {
        NetworkEvent::Discovery(DiscoveryEvent::PhaseChanged { phase }) => {
            (phase == Phase::Joined).then_some(())
        }
        _ => None,
    })
    .await;
}

#[tokio::test]
async fn nodes_that_know_only_the_boot_node_meet_and_talk() {
    let (boot, address) = boot_node().await;
    let mut members = Vec::new();
    for _ in 0..3 {
        members.push(member(&[&address]).await);
    }
    let peers: Vec<_> = members.iter().map(Node::peer).collect();
    for node in &mut members {
        let own = node.peer();
        for peer in peers.iter().filter(|peer| **peer != own) {
            until_met(node, *peer).await;
        }
        until_joined(node).await;
    }
    let (speaker, listeners) = members.split_first_mut().unwrap();
    let sent = speaker
        .client
        .publish_or_keep(&weather(), "rain", LIMIT)
        .await
        .unwrap();
    for listener in listeners {
        let message = listener
            .wait_for(|event| match event {
                NetworkEvent::Gossip(GossipEvent::Message(message)) => Some(message),
                _ => None,
            })
            .await;
        assert_eq!((message.id, message.source), (sent.clone(), speaker.peer()));
    }
    drop(boot);
}

#[tokio::test]
async fn who_leaves_a_topic_is_registered_for_it_no_more() {
    let (boot, address) = boot_node().await;
    let node = member(&[&address]).await;
    let overlay = weather().rendezvous_namespace().unwrap();
    let registered = async |wanted: bool| {
        loop {
            let status = node.client.status().await.unwrap();
            let held = status
                .registrations
                .iter()
                .any(|one| one.server == boot.peer() && one.namespace.as_str() == overlay);
            if held == wanted {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, registered(true)).await.unwrap();
    assert!(node.client.unsubscribe(&weather()).await.unwrap());
    tokio::time::timeout(LIMIT, registered(false))
        .await
        .unwrap();
    let late = start(knowing(&[&address])).await;
    late.client.bootstrap().await.unwrap();
    assert_eq!(late.client.subscribed_peers(&weather()).await.unwrap(), []);
}

#[tokio::test]
async fn losing_one_of_two_boot_nodes_loses_nothing() {
    let (first, first_address) = boot_node().await;
    let (_second, second_address) = boot_node().await;
    let both = [&first_address, &second_address];
    let mut early = member(&both).await;
    let mut late = member(&both).await;
    until_met(&mut early, late.peer()).await;
    first.client.shutdown().await.unwrap();
    let mut newcomer = member(&both).await;
    until_met(&mut newcomer, early.peer()).await;
    until_met(&mut late, newcomer.peer()).await;
}

#[tokio::test]
async fn a_restarted_node_meets_remembered_peers_while_every_boot_node_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peers");
    let (boot, address) = boot_node().await;
    let mut stays = member(&[&address]).await;
    let identity = Keypair::generate_ed25519();
    let peer = identity.public().to_peer_id();

    let started = NetworkManager::builder(identity.clone(), knowing(&[&address]))
        .peer_cache(FileCache::new(&path))
        .start();
    let (client, _events) = started.await.unwrap();
    client.subscribe(&weather()).await.unwrap();
    until_met(&mut stays, peer).await;
    // Where the other listens is known once it has said so, and saved only then.
    client.identified(stays.peer()).await.unwrap().unwrap();
    client.shutdown().await.unwrap();
    let saved = FileCache::new(&path).load(std::time::SystemTime::now());
    let saved = saved.unwrap().entries;
    assert!(
        saved.iter().any(|entry| entry.peer == stays.peer()),
        "{saved:?}"
    );
    boot.client.shutdown().await.unwrap();

    let started = NetworkManager::builder(identity, knowing(&[&address]))
        .peer_cache(FileCache::new(&path))
        .start();
    let (client, events) = started.await.unwrap();
    client.subscribe(&weather()).await.unwrap();
    let mut again = Node { client, events };
    until_met(&mut again, stays.peer()).await;
}

/// The node stops before it has dialled anything, or after all its dials have failed.
#[tokio::test]
async fn a_run_without_a_network_keeps_the_peer_cache() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peers");
    let dead = |_| {
        let peer = Keypair::generate_ed25519().public().to_peer_id();
        let address = format!("/ip4/127.0.0.1/tcp/1/p2p/{peer}");
        (peer, address.parse::<Multiaddr>().unwrap())
    };
    let entry = |(peer, address)| CacheEntry {
        peer,
        addresses: vec![address],
        age: Duration::from_secs(60),
    };
    let entries: Vec<_> = (0..40).map(dead).map(entry).collect();
    let saved = || {
        let saved = FileCache::new(&path).load(std::time::SystemTime::now());
        let saved = saved.unwrap().entries.into_iter().map(|entry| entry.peer);
        saved.collect::<BTreeSet<_>>()
    };
    let now = std::time::SystemTime::now();
    FileCache::new(&path).save(&entries, now).unwrap();
    let before = saved();
    assert_eq!(before.len(), 40);
    let (_, boot) = dead(0);
    for waits in [false, true] {
        let identity = Keypair::generate_ed25519();
        let started = NetworkManager::builder(identity, knowing(&[&boot]))
            .peer_cache(FileCache::new(&path))
            .start();
        let (client, events) = started.await.unwrap();
        let mut node = Node { client, events };
        if waits {
            node.wait_for(|event| match event {
                NetworkEvent::Discovery(DiscoveryEvent::BootNodeUnreachable { .. }) => Some(()),
                _ => None,
            })
            .await;
        }
        node.client.shutdown().await.unwrap();
        assert_eq!(saved(), before);
    }
}

#[tokio::test]
async fn bootstrap_says_why_there_is_nobody() {
    let lonely = start(local()).await;
    assert_eq!(
        lonely.client.bootstrap().await,
        Err(BootstrapError::NoKnownPeers)
    );
    let nobody = Keypair::generate_ed25519().public().to_peer_id();
    let dead = format!("/ip4/127.0.0.1/tcp/1/p2p/{nobody}")
        .parse()
        .unwrap();
    let mut config = knowing(&[&dead]);
    config.connections.tuning.dial_timeout = Duration::from_millis(300);
    let after = config.connections.tuning.dial_timeout;
    let node = start(config).await;
    assert_eq!(
        node.client.bootstrap().await,
        Err(BootstrapError::Deadline { after })
    );
}
