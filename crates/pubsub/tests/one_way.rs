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
use calimero_network_pubsub::{Config, Event, PublishError};

use crate::common::{Node, topic};

/// The node that stayed, and the one that has come back to it: the connection of its former self
/// stands, and nobody answers there.
async fn returned(config: &Config) -> (Node, Node) {
    let keypair = Keypair::generate_ed25519();
    let stayed = Node::start(config);
    stayed.subscribe(&topic(1)).await;
    let former = Node::with_key(keypair.clone(), config);
    former.subscribe(&topic(1)).await;
    former.connect(&stayed).await;
    former.knows(&topic(1), stayed.peer).await;
    stayed.knows(&topic(1), former.peer).await;
    former.freeze().await;

    let returned = Node::with_key(keypair, config);
    returned.subscribe(&topic(1)).await;
    returned.connect(&stayed).await;
    // Kept until the end of the test, so that its connection stands.
    std::mem::forget(former);
    (stayed, returned)
}

/// Publishes until `reader` gets something; a dead connection may swallow some of it.
async fn publish_until_heard(publisher: &Node, reader: &mut Node) {
    for number in 0..1000_u32 {
        publisher
            .publish(&topic(1), number.to_be_bytes().to_vec())
            .await
            .unwrap();
        let heard = reader.next(|event| matches!(event, Event::Message(_)).then_some(()));
        let patience = std::time::Duration::from_millis(20);
        if tokio::time::timeout(patience, heard).await.is_ok() {
            return;
        }
    }
    panic!("nothing was heard");
}

fn stale(peer: PeerId, redial: bool) -> impl FnMut(Event) -> Option<()> {
    move |event| (event == Event::StaleMesh { peer, redial }).then_some(())
}

#[tokio::test]
async fn without_repair_the_mesh_stays_one_way() {
    let mut config = Config::small();
    config.repair.enabled = false;
    let (stayed, mut returned) = returned(&config).await;
    publish_until_heard(&stayed, &mut returned).await;
    let refused = returned.publish(&topic(1), "me too").await;
    assert_eq!(refused, Err(PublishError::NoPeers));
}

#[tokio::test]
async fn a_one_way_mesh_is_recognised_and_repaired() {
    let (mut stayed, mut returned) = returned(&Config::small()).await;
    // The one that stayed hears the topics again, and closes what is older.
    stayed.next(stale(returned.peer, false)).await;
    // The one that returned hears messages of a topic that nobody has announced.
    publish_until_heard(&stayed, &mut returned).await;
    returned.next(stale(stayed.peer, true)).await;
    returned.knows(&topic(1), stayed.peer).await;
    stayed.knows(&topic(1), returned.peer).await;

    returned.publish(&topic(1), "me too").await.unwrap();
    assert_eq!(stayed.next_message().await.data, Bytes::from("me too"));
    stayed.publish(&topic(1), "welcome").await.unwrap();
    let welcome = returned
        .next(|event| match event {
            Event::Message(message) if message.data == "welcome" => Some(()),
            _ => None,
        })
        .await;
    assert_eq!(welcome, ());
    let repairs = returned.call(|swarm| swarm.behaviour().mesh_stats().counters.repairs);
    assert_eq!(repairs.await, 1);
}
