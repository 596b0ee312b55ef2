//! What must hold between nodes of this kind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says so"
)]

mod common;

use std::{collections::HashSet, time::Duration};

use bytes::Bytes;
use calimero_network_primitives::{Keypair, Topic, limits::MAX_TOPIC_BYTES};
use calimero_network_pubsub::{
    Behaviour, BuildError, Config, Event, PublishError, Published, SubscribeError,
};

use libp2p_swarm::{
    Swarm,
    dial_opts::{DialOpts, PeerCondition},
};

use crate::common::{Node, topic};

/// Nodes in a line, all following one topic.
async fn line(count: usize, config: &Config) -> Vec<Node> {
    let nodes: Vec<_> = (0..count).map(|_| Node::start(config)).collect();
    for node in &nodes {
        node.subscribe(&topic(1)).await;
    }
    for pair in nodes.windows(2) {
        pair[0].connect(&pair[1]).await;
        pair[0].knows(&topic(1), pair[1].peer).await;
        pair[1].knows(&topic(1), pair[0].peer).await;
    }
    nodes
}

#[tokio::test]
async fn a_message_crosses_a_line_of_nodes_and_names_its_author() {
    let mut nodes = line(3, &Config::small()).await;
    for (node, peers) in nodes.iter().zip([1, 2, 1]) {
        node.until(move |pubsub| pubsub.mesh_peer_count(&topic(1)) == peers)
            .await;
    }
    let id = nodes[0].publish(&topic(1), "hello").await.unwrap();
    let message = nodes[2].next_message().await;
    assert_eq!(message.topic, topic(1));
    assert_eq!(message.source, nodes[0].peer);
    assert_eq!(message.propagated_by, nodes[1].peer);
    assert_eq!(message.id, id);
    assert_eq!(message.data, Bytes::from("hello"));

    let peer = nodes[1].peer;
    let stats = nodes[0].call(|swarm| swarm.behaviour().mesh_stats()).await;
    assert_eq!((stats.topics.len(), stats.peers), (1, 1));
    assert_eq!(stats.topics[0].mesh_peers, 1);
    assert_eq!(stats.topics[0].subscribed_peers, 1);
    let mesh = nodes[0].call(|swarm| swarm.behaviour().mesh_peers(&topic(1)));
    assert_eq!(mesh.await, [peer]);
}

#[tokio::test]
async fn a_connection_that_takes_over_carries_messages() {
    let mut nodes = [Node::start(&Config::small()), Node::start(&Config::small())];
    for node in &nodes {
        node.subscribe(&topic(1)).await;
    }
    let mut ids = Vec::new();
    for established in 1..3 {
        let opts = DialOpts::peer_id(nodes[1].peer)
            .addresses(vec![nodes[1].addr.clone()])
            .condition(PeerCondition::Always)
            .build();
        ids.push(opts.connection_id());
        nodes[0].call(|swarm| swarm.dial(opts).unwrap()).await;
        for node in &nodes {
            node.until_swarm(move |swarm| established_in(swarm) == established)
                .await;
            node.until(move |pubsub| pubsub.mesh_peer_count(&topic(1)) == 1)
                .await;
        }
    }
    let first = ids[0];
    nodes[0]
        .call(move |swarm| assert!(swarm.close_connection(first)))
        .await;
    for node in &nodes {
        node.until_swarm(|swarm| established_in(swarm) == 1).await;
    }
    nodes[0].publish(&topic(1), "there").await.unwrap();
    assert_eq!(nodes[1].next_message().await.data, "there");
    nodes[1].publish(&topic(1), "and back").await.unwrap();
    assert_eq!(nodes[0].next_message().await.data, "and back");
}

fn established_in(swarm: &Swarm<Behaviour>) -> u32 {
    swarm.network_info().connection_counters().num_established()
}

#[tokio::test]
async fn coming_and_leaving_is_told() {
    let mut nodes = line(2, &Config::small()).await;
    let peer = nodes[1].peer;
    let told = |wanted: Event| move |event: Event| (event == wanted).then_some(());
    let subscribed = Event::Subscribed {
        peer,
        topic: topic(1),
    };
    nodes[0].next(told(subscribed)).await;
    nodes[1]
        .call(|swarm| assert!(swarm.behaviour_mut().unsubscribe(&topic(1))))
        .await;
    let unsubscribed = Event::Unsubscribed {
        peer,
        topic: topic(1),
    };
    nodes[0].next(told(unsubscribed)).await;
    assert_eq!(
        nodes[0].publish(&topic(1), "anybody?").await,
        Err(PublishError::NoPeers)
    );
}

#[tokio::test]
async fn an_overlay_of_three_has_a_full_mesh() {
    let nodes = line(3, &Config::small()).await;
    nodes[0].connect(&nodes[2]).await;
    for node in &nodes {
        node.until(|pubsub| pubsub.mesh_peer_count(&topic(1)) == 2)
            .await;
    }
}

#[tokio::test]
async fn a_message_of_1_mib_arrives_and_a_larger_one_is_a_typed_error() {
    let mut nodes = line(3, &Config::small()).await;
    let limit = 1 << 20;
    let data = Bytes::from(vec![7; limit]);
    let size = limit + 1;
    let refused = nodes[0].publish(&topic(1), vec![0; size]).await;
    assert_eq!(refused, Err(PublishError::TooLarge { limit, size }));
    for _ in 0..3 {
        nodes[0].publish(&topic(1), data.clone()).await.unwrap();
    }
    for _ in 0..3 {
        assert!(nodes[2].next_message().await.data == data);
    }
}

#[tokio::test]
async fn what_exceeds_the_receivers_limit_is_dropped_and_the_rest_arrives() {
    let tight = Config {
        max_message_bytes: 100,
        ..Config::small()
    };
    let (wide, mut tight) = (Node::start(&Config::small()), Node::start(&tight));
    wide.subscribe(&topic(1)).await;
    tight.subscribe(&topic(1)).await;
    wide.connect(&tight).await;
    wide.knows(&topic(1), tight.peer).await;
    wide.publish(&topic(1), vec![0; 101]).await.unwrap();
    wide.publish(&topic(1), vec![1; 100]).await.unwrap();
    assert_eq!(tight.next_message().await.data, Bytes::from(vec![1; 100]));
}

/// The largest RPC of the receiver, that of the preset `published-0.11`, is smaller than one that
/// the sender may write. It takes more than the window of a Yamux stream, so it is never written.
#[tokio::test]
async fn a_message_above_the_limit_of_a_node_of_this_kind_holds_up_no_other() {
    let published = Config {
        max_message_bytes: 63_488,
        ..Config::small()
    };
    let mut wide = Node::tcp(&Config::small()).await;
    let mut tight = Node::tcp(&published).await;
    wide.subscribe(&topic(1)).await;
    tight.subscribe(&topic(1)).await;
    wide.connect(&tight).await;
    wide.knows(&topic(1), tight.peer).await;
    wide.publish(&topic(1), vec![0; 700_000]).await.unwrap();
    wide.publish(&topic(1), "after").await.unwrap();
    assert_eq!(tight.next_message().await.data, "after");
    let (peer, events) = (tight.peer, wide.events());
    let is_told = |event: &Event| {
        matches!(event, Event::TooLargeForPeer { peer: id, size, limit }
            if *id == peer && *limit + 1 == *size)
    };
    assert!(events.iter().any(is_told), "{events:?}");
    let is_closed = |event: &Event| matches!(event, Event::ClosedSlow { .. });
    assert!(!events.iter().any(is_closed));
}

#[tokio::test]
async fn a_publish_before_the_mesh_exists_says_so() {
    let node = Node::start(&Config::small());
    node.subscribe(&topic(1)).await;
    let refused = node.publish(&topic(1), "hello").await;
    assert_eq!(refused, Err(PublishError::NoPeers));
}

#[tokio::test]
async fn a_message_that_is_kept_reaches_the_first_subscriber_in_order_and_once() {
    let mut publisher = Node::start(&Config::small());
    let keep = |number: u8| {
        move |swarm: &mut libp2p_swarm::Swarm<calimero_network_pubsub::Behaviour>| {
            let pubsub = swarm.behaviour_mut();
            pubsub
                .publish_or_keep(&topic(1), vec![number], Duration::from_secs(60))
                .unwrap()
        }
    };
    let mut kept = Vec::new();
    for number in 0..3 {
        let Published::Kept(id) = publisher.call(keep(number)).await else {
            panic!("sent to nobody");
        };
        kept.push(id);
    }
    let mut reader = Node::start(&Config::small());
    reader.subscribe(&topic(1)).await;
    publisher.connect(&reader).await;
    let mut got = HashSet::new();
    for id in kept {
        let sent = publisher
            .next(|event| match event {
                Event::KeptSent { keep, topic: t, id } if t == topic(1) => Some((keep, id)),
                _ => None,
            })
            .await;
        assert_eq!(sent.0, id);
        got.insert(sent.1);
    }
    for number in 0..3 {
        let message = reader.next_message().await;
        assert_eq!(message.data, Bytes::from(vec![number]));
        assert!(got.remove(&message.id));
    }
    let left = publisher.call(|swarm| swarm.behaviour().kept().len()).await;
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_message_that_nobody_comes_for_is_told_lost() {
    let mut node = Node::start(&Config::small());
    let published = node
        .call(|swarm| {
            let pubsub = swarm.behaviour_mut();
            pubsub.publish_or_keep(&topic(1), "x", Duration::from_millis(50))
        })
        .await;
    let Ok(Published::Kept(id)) = published else {
        panic!("{published:?}");
    };
    let lost = node
        .next(|event| match event {
            Event::KeptLost { keep, .. } => Some(keep),
            _ => None,
        })
        .await;
    assert_eq!(lost, id);
}

#[tokio::test]
async fn what_is_kept_is_bounded() {
    let mut config = Config::small();
    config.keep.max_messages = 2;
    let node = Node::start(&config);
    let results = node
        .call(|swarm| {
            [0, 1, 2].map(|_| {
                let pubsub = swarm.behaviour_mut();
                pubsub.publish_or_keep(&topic(1), "x", Duration::from_secs(9))
            })
        })
        .await;
    assert!(results[0].is_ok() && results[1].is_ok());
    let full = PublishError::KeepFull {
        messages: 2,
        bytes: 2,
    };
    assert_eq!(results[2], Err(full));
}

#[tokio::test]
async fn nodes_that_follow_1500_topics_know_all_of_each_other() {
    let nodes = [Node::start(&Config::small()), Node::start(&Config::small())];
    for node in &nodes {
        for number in 0..1500 {
            node.subscribe(&topic(number)).await;
        }
    }
    nodes[0].connect(&nodes[1]).await;
    for (node, other) in [(&nodes[0], &nodes[1]), (&nodes[1], &nodes[0])] {
        let peer = other.peer;
        node.until(move |pubsub| {
            (0..1500).all(|n| pubsub.subscribed_peers(&topic(n)) == [peer])
                && (0..1500).all(|n| pubsub.mesh_peer_count(&topic(n)) == 1)
        })
        .await;
    }
    // And one after the other, on an open connection.
    for number in 1500..1900 {
        nodes[0].subscribe(&topic(number)).await;
    }
    nodes[1].knows(&topic(1899), nodes[0].peer).await;
    let counters = nodes[1].call(|swarm| swarm.behaviour().mesh_stats().counters);
    let counters = counters.await;
    assert_eq!((counters.announcements_refused, counters.banned), (0, 0));
}

#[tokio::test]
async fn as_many_topics_as_can_be_followed_fit_one_announcement() {
    let config = Config {
        max_topics: 2_048,
        ..Config::small()
    };
    for (len, fit) in [(244, 2_048), (MAX_TOPIC_BYTES, 506)] {
        let nodes = [Node::start(&config), Node::start(&config)];
        let long = move |n: usize| Topic::free(&format!("{n:0>len$}")).unwrap();
        nodes[0]
            .call(move |swarm| {
                let pubsub = swarm.behaviour_mut();
                for number in 0..fit {
                    assert_eq!(pubsub.subscribe(&long(number)), Ok(true));
                }
                assert!(pubsub.subscribe(&long(fit)).is_err());
            })
            .await;
        nodes[0].connect(&nodes[1]).await;
        let peer = nodes[0].peer;
        nodes[1]
            .until(move |pubsub| (0..fit).all(|n| pubsub.subscribed_peers(&long(n)) == [peer]))
            .await;
    }
}

#[tokio::test]
async fn subscribing_beyond_the_limit_is_a_typed_error() {
    let config = Config {
        max_topics: 2,
        ..Config::small()
    };
    let node = Node::start(&config);
    node.call(|swarm| {
        let pubsub = swarm.behaviour_mut();
        assert_eq!(pubsub.subscribe(&topic(1)), Ok(true));
        assert_eq!(pubsub.subscribe(&topic(1)), Ok(false));
        assert_eq!(pubsub.subscribe(&topic(2)), Ok(true));
        let refused = Err(SubscribeError::TooMany { limit: 2 });
        assert_eq!(pubsub.subscribe(&topic(3)), refused);
        assert!(pubsub.unsubscribe(&topic(2)));
        assert_eq!(pubsub.subscribe(&topic(3)), Ok(true));
    })
    .await;
}

#[tokio::test]
async fn contradictions_in_the_configuration_are_refused() {
    let mut config = Config::small();
    config.mesh.low = 9;
    let error = calimero_network_pubsub::Behaviour::new(Keypair::generate_ed25519(), &config)
        .err()
        .unwrap();
    assert!(matches!(error, BuildError::Config(_)));
    assert_eq!(error.to_string(), "mesh.low: must not exceed target");
}

#[tokio::test]
async fn peers_of_any_preference_stay_in_the_mesh_and_are_heard() {
    let mut nodes = line(3, &Config::small()).await;
    let (first, last) = (nodes[0].peer, nodes[2].peer);
    nodes[1]
        .call(move |swarm| {
            swarm.behaviour_mut().set_peer_score(first, -1e9);
            swarm.behaviour_mut().set_peer_score(last, f64::NAN);
        })
        .await;
    // Some heartbeats pass, at each of which a peer that is gated would be pruned.
    let time = Duration::from_secs(3);
    let kept = nodes[1].call(move |swarm| {
        let pubsub = swarm.behaviour_mut();
        pubsub.publish_or_keep(&topic(2), "an hourglass", time)
    });
    kept.await.unwrap();
    nodes[1]
        .next(|event| matches!(event, Event::KeptLost { .. }).then_some(()))
        .await;
    nodes[0].publish(&topic(1), "heard").await.unwrap();
    assert_eq!(nodes[2].next_message().await.data, "heard");
    let count = nodes[1].call(|swarm| swarm.behaviour().mesh_peer_count(&topic(1)));
    assert_eq!(count.await, 2);
}

#[tokio::test]
async fn preferred_peers_stay_in_a_mesh_that_is_too_full() {
    let mut config = Config::small();
    config.mesh.heartbeat = Duration::from_millis(100);
    (config.mesh.low, config.mesh.target, config.mesh.high) = (1, 2, 3);
    let mut hub = Node::start(&config);
    let leaves: Vec<_> = (0..8).map(|_| Node::start(&Config::small())).collect();
    hub.subscribe(&topic(1)).await;
    let preferred = [leaves[0].peer, leaves[1].peer];
    hub.call(move |swarm| {
        let pubsub = swarm.behaviour_mut();
        for peer in preferred {
            pubsub.set_peer_score(peer, 1.0);
        }
    })
    .await;
    for (index, leaf) in leaves.iter().enumerate() {
        leaf.subscribe(&topic(1)).await;
        leaf.connect(&hub).await;
        leaf.knows(&topic(1), hub.peer).await;
        if index < preferred.len() {
            hub.until(move |pubsub| pubsub.mesh_peer_count(&topic(1)) == index + 1)
                .await;
        }
    }
    // Some tens of heartbeats, at each of which those that were put out may come back.
    let kept = hub.call(|swarm| {
        let time = Duration::from_secs(3);
        let pubsub = swarm.behaviour_mut();
        pubsub.publish_or_keep(&topic(2), "an hourglass", time)
    });
    kept.await.unwrap();
    hub.next(|event| matches!(event, Event::KeptLost { .. }).then_some(()))
        .await;
    let mesh = hub.call(|swarm| swarm.behaviour().mesh_peers(&topic(1)));
    let mesh = mesh.await;
    assert!(preferred.iter().all(|peer| mesh.contains(peer)));
}

#[cfg(feature = "metrics")]
#[tokio::test]
async fn metrics_of_gossipsub_are_recorded() {
    let mut registry = prometheus_client::registry::Registry::default();
    let mut pubsub = Behaviour::new(Keypair::generate_ed25519(), &Config::small())
        .unwrap()
        .with_metrics(&mut registry);
    pubsub.subscribe(&topic(1)).unwrap();
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let line = format!("topic_subscription_status{{hash=\"{}\"}} 1", topic(1));
    assert!(text.contains(&line), "{text}");
}
