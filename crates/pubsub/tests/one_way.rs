//! A peer that returns on a new connection while its old one stands.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says so"
)]

mod common;

use bytes::Bytes;
use calimero_network_primitives::{Keypair, PeerId};
use calimero_network_pubsub::{Behaviour, Config, Event, PublishError};
use libp2p_swarm::Swarm;

use crate::common::{Node, topic};

/// The node that stayed, the one that has come back to it, and the latter's former self: its
/// connection stands, and nobody answers there.
async fn returned(stays: &Config, returns: &Config) -> (Node, Node, Node) {
    let keypair = Keypair::generate_ed25519();
    let stayed = Node::start(stays);
    stayed.subscribe(&topic(1)).await;
    let former = Node::with_key(keypair.clone(), returns);
    former.subscribe(&topic(1)).await;
    former.connect(&stayed).await;
    former.knows(&topic(1), stayed.peer).await;
    stayed.knows(&topic(1), former.peer).await;
    former.freeze().await;

    let returned = Node::with_key(keypair, returns);
    returned.subscribe(&topic(1)).await;
    returned.connect(&stayed).await;
    (stayed, returned, former)
}

/// The old connection ends, as pings see to after a minute.
async fn end(former: Node, stayed: &Node) {
    drop(former);
    let established =
        |swarm: &Swarm<Behaviour>| swarm.network_info().connection_counters().num_established();
    stayed
        .until_swarm(move |swarm| established(swarm) == 1)
        .await;
}

fn stale(peer: PeerId) -> impl FnMut(Event) -> Option<()> {
    move |event| (event == Event::StaleMesh { peer }).then_some(())
}

/// Both know each other, and messages arrive in both directions.
async fn two_way(mut stayed: Node, mut returned: Node) {
    returned.knows(&topic(1), stayed.peer).await;
    stayed.knows(&topic(1), returned.peer).await;
    returned.publish(&topic(1), "me too").await.unwrap();
    assert_eq!(stayed.next_message().await.data, Bytes::from("me too"));
    stayed.publish(&topic(1), "welcome").await.unwrap();
    let welcome = returned.next(|event| match event {
        Event::Message(message) => (message.data == "welcome").then_some(()),
        _ => None,
    });
    welcome.await;
}

#[tokio::test]
async fn without_repair_the_mesh_stays_one_way() {
    let mut config = Config::small();
    config.repair.enabled = false;
    let (stayed, mut returned, former) = returned(&config, &config).await;
    end(former, &stayed).await;
    stayed.publish(&topic(1), "hello").await.unwrap();
    returned.next_message().await;
    let refused = returned.publish(&topic(1), "me too").await;
    assert_eq!(refused, Err(PublishError::NoPeers));
}

#[tokio::test]
async fn the_end_that_stayed_recognises_a_one_way_mesh_and_repairs_it() {
    let (mut stayed, returned, _former) = returned(&Config::small(), &Config::small()).await;
    stayed.next(stale(returned.peer)).await;
    two_way(stayed, returned).await;
}

#[tokio::test]
async fn the_end_that_returned_recognises_a_one_way_mesh_and_repairs_it() {
    let mut passive = Config::small();
    passive.repair.enabled = false;
    let (stayed, mut returned, former) = returned(&passive, &Config::small()).await;
    end(former, &stayed).await;
    stayed.publish(&topic(1), "hello").await.unwrap();
    returned.next(stale(stayed.peer)).await;
    two_way(stayed, returned).await;
}
