//! A peer that comes back on a new connection while its old one seems alive: both sides know the
//! topics of both sides, without closing anything.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says so"
)]

mod common;

use bytes::Bytes;
use calimero_network_primitives::Keypair;
use calimero_network_pubsub::{Behaviour, Config, Event};
use libp2p_swarm::Swarm;

use crate::common::{Node, topic};

/// The node that stayed, the one that has come back to it, and the latter's former self: its
/// connection is open, and does not answer.
async fn returned(topics: [&[u16]; 2]) -> (Node, Node, Node) {
    let (keypair, config) = (Keypair::generate_ed25519(), Config::small());
    let stayed = Node::start(&config);
    stayed.subscribe(&topic(1)).await;
    let former = Node::with_key(keypair.clone(), &config);
    for number in topics[0] {
        former.subscribe(&topic(*number)).await;
    }
    former.connect(&stayed).await;
    former.knows(&topic(1), stayed.peer).await;
    for number in topics[0] {
        stayed.knows(&topic(*number), former.peer).await;
    }
    former.freeze().await;

    let returned = Node::with_key(keypair, &config);
    for number in topics[1] {
        returned.subscribe(&topic(*number)).await;
    }
    returned.connect(&stayed).await;
    (stayed, returned, former)
}

fn established(swarm: &Swarm<Behaviour>) -> u32 {
    swarm.network_info().connection_counters().num_established()
}

/// Messages arrive in both directions, and both nodes are in the mesh of each other.
async fn two_way(stayed: &mut Node, returned: &mut Node) {
    returned.knows(&topic(1), stayed.peer).await;
    stayed.knows(&topic(1), returned.peer).await;
    for node in [&*stayed, &*returned] {
        node.until(|pubsub| pubsub.mesh_peer_count(&topic(1)) == 1)
            .await;
    }
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
async fn both_sides_know_everything_while_the_old_connection_seems_alive() {
    let (mut stayed, mut returned, _former) = returned([&[1], &[1]]).await;
    two_way(&mut stayed, &mut returned).await;
    let open = stayed.call(|swarm| established(swarm)).await;
    assert_eq!(open, 2, "a connection was closed");
}

#[tokio::test]
async fn and_after_it_has_ended() {
    let (mut stayed, mut returned, former) = returned([&[1], &[1]]).await;
    two_way(&mut stayed, &mut returned).await;
    drop(former);
    stayed.until_swarm(|swarm| established(swarm) == 1).await;
    two_way(&mut stayed, &mut returned).await;
}

#[tokio::test]
async fn topics_of_its_former_life_are_forgotten() {
    let (mut stayed, mut returned, _former) = returned([&[1, 2], &[1]]).await;
    two_way(&mut stayed, &mut returned).await;
    let peer = returned.peer;
    stayed
        .until(move |pubsub| !pubsub.subscribed_peers(&topic(2)).contains(&peer))
        .await;
}
