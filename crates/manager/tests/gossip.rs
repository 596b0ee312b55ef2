//! Topics through the manager, over real sockets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a surprise ends the test"
)]

mod common;

use std::{collections::HashSet, time::Duration};

use calimero_network::{
    ConnectionEvent, ContextId, GossipEvent, Keypair, ListenerEvent, NetworkConfig, NetworkEvent,
    NetworkManager, PublishError, Stopped, SubscribeError, Topic,
    pubsub::{self, PublishError as NotSent},
};
use calimero_network_primitives::limits::MAX_GOSSIP_MESSAGE_BYTES;
use common::{BOTH, Node, Over, assert_works, config, pair, pair_with, start, within};

const MINUTE: Duration = Duration::from_secs(60);

fn topic() -> Topic {
    Topic::context(ContextId::new([7; 32]))
}

/// Two connected nodes that follow the topic and know it of each other.
async fn members(over: Over) -> (Node, Node) {
    members_with(over, config()).await
}

async fn members_with(over: Over, config: NetworkConfig) -> (Node, Node) {
    let (mut a, mut b) = pair_with(over, config.clone(), config).await;
    for node in [&a, &b] {
        assert!(within(node.client.subscribe(&topic())).await.unwrap());
    }
    let (first, second) = (a.peer(), b.peer());
    for (node, other) in [(&mut a, second), (&mut b, first)] {
        let told = node
            .wait_for(|event| match event {
                NetworkEvent::Gossip(GossipEvent::Subscribed { peer, topic }) => {
                    Some((peer, topic))
                }
                _ => None,
            })
            .await;
        assert_eq!(told, (other, topic()));
    }
    (a, b)
}

async fn message(node: &mut Node) -> pubsub::Message {
    node.wait_for(|event| match event {
        NetworkEvent::Gossip(GossipEvent::Message(message)) => Some(message),
        _ => None,
    })
    .await
}

#[tokio::test]
async fn messages_go_both_ways_and_the_views_agree() {
    for over in BOTH {
        let (mut a, mut b) = members(over).await;
        for (from, to) in [(&a, &mut b)] {
            let id = within(from.client.publish(&topic(), "there"))
                .await
                .unwrap();
            let got = message(to).await;
            assert_eq!((got.source, got.id), (from.peer(), id));
            assert_eq!((got.data, got.topic), ("there".into(), topic()));
        }
        within(b.client.publish(&topic(), "back")).await.unwrap();
        assert_eq!(message(&mut a).await.data, "back");

        // The mesh is complete after one heartbeat at most.
        while within(a.client.mesh_peer_count(&topic())).await.unwrap() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(a.client.mesh_peers(&topic()).await.unwrap(), [b.peer()]);
        let subscribed = a.client.subscribed_peers(&topic()).await.unwrap();
        assert_eq!(subscribed, [b.peer()]);
        a.client.set_peer_score(b.peer(), 50.0).await.unwrap();
        let stats = a.client.mesh_stats().await.unwrap();
        assert_eq!((stats.topics.len(), stats.peers), (1, 1));
        let seen = &stats.topics[0];
        assert_eq!((seen.mesh_peers, seen.subscribed_peers), (1, 1));
        assert_eq!((stats.counters.published, stats.counters.delivered), (1, 1));

        assert!(within(b.client.unsubscribe(&topic())).await.unwrap());
        assert!(!within(b.client.unsubscribe(&topic())).await.unwrap());
        let left = a
            .wait_for(|event| match event {
                NetworkEvent::Gossip(GossipEvent::Unsubscribed { peer, .. }) => Some(peer),
                _ => None,
            })
            .await;
        assert_eq!(left, b.peer());
        let error = within(a.client.publish(&topic(), "gone"))
            .await
            .unwrap_err();
        assert_eq!(error, PublishError::NotSent(NotSent::NoPeers));
    }
}

#[tokio::test]
async fn what_was_published_arrives_though_its_publisher_goes_at_once() {
    const MESSAGES: u8 = 8;
    for (over, size) in BOTH
        .into_iter()
        .flat_map(|over| [(over, 1), (over, MAX_GOSSIP_MESSAGE_BYTES)])
    {
        let mut config = config();
        config.handle.shutdown_timeout = Duration::from_secs(20);
        // The machine's time to wake a thread is not the node's.
        config.handle.tuning.linger = Duration::from_secs(3);
        let (a, mut b) = members_with(over, config).await;
        for number in 0..MESSAGES {
            let data = vec![number; size];
            within(a.client.publish(&topic(), data)).await.unwrap();
        }
        within(a.client.shutdown()).await.unwrap();
        let mut heard = Vec::new();
        for _ in 0..MESSAGES {
            heard.push(message(&mut b).await.data[0]);
        }
        assert_eq!(heard, Vec::from_iter(0..MESSAGES), "{over:?}, {size} bytes");
    }
}

#[tokio::test]
async fn the_largest_message_goes_both_ways_and_one_byte_more_is_refused() {
    for over in BOTH {
        let (mut a, mut b) = members(over).await;
        let largest = vec![7; MAX_GOSSIP_MESSAGE_BYTES];
        let (first, second) = (a.client.clone(), b.client.clone());
        for (from, to) in [(first, &mut b), (second, &mut a)] {
            within(from.publish(&topic(), largest.clone()))
                .await
                .unwrap();
            assert!(message(to).await.data == largest);
            let longer = vec![7; MAX_GOSSIP_MESSAGE_BYTES + 1];
            let error = within(from.publish(&topic(), longer)).await.unwrap_err();
            let expected = NotSent::TooLarge {
                limit: MAX_GOSSIP_MESSAGE_BYTES,
                size: MAX_GOSSIP_MESSAGE_BYTES + 1,
            };
            assert_eq!(error, PublishError::NotSent(expected));
        }
    }
}

/// A returning peer announces itself to a member that still counts it, and receives no announcement.
#[tokio::test]
async fn a_member_that_returns_while_its_old_connection_stands_is_heard_and_hears() {
    let keypair = Keypair::generate_ed25519();
    let incarnation = async || {
        let started = NetworkManager::start(keypair.clone(), config()).await;
        let (client, events) = started.unwrap();
        within(client.subscribe(&topic())).await.unwrap();
        Node { client, events }
    };
    let mut stayed = start(config()).await;
    within(stayed.client.subscribe(&topic())).await.unwrap();
    let address = stayed.listen(Over::Tcp).await;

    let former = incarnation().await;
    within(former.client.dial(address.clone())).await.unwrap();
    let known =
        |event| matches!(event, NetworkEvent::Gossip(GossipEvent::Subscribed { .. })).then_some(());
    stayed.wait_for(known).await;
    // The only thread of its network stops, and its connection stays open.
    let (thaw, thawed) = std::sync::mpsc::sync_channel::<()>(0);
    let network = former.client.runtime();
    network.spawn(async move { thawed.recv() });

    let mut returned = incarnation().await;
    within(returned.client.dial(address)).await.unwrap();
    let heard = async |from: &Node, to: &mut Node, text: &'static str| {
        within(from.client.publish_or_keep(&topic(), text, MINUTE))
            .await
            .unwrap();
        while message(to).await.data != text {}
    };
    heard(&returned, &mut stayed, "me too").await;
    heard(&stayed, &mut returned, "welcome").await;
    drop(thaw);
}

#[tokio::test]
async fn preferred_peers_stay_in_a_mesh_that_is_too_full() {
    let mut narrow = config();
    narrow.pubsub.mesh.heartbeat = Duration::from_millis(100);
    let mesh = &mut narrow.pubsub.mesh;
    (mesh.low, mesh.target, mesh.high) = (1, 2, 3);
    let mut hub = start(narrow).await;
    within(hub.client.subscribe(&topic())).await.unwrap();
    let address = hub.listen(Over::Tcp).await;
    let mut leaves = Vec::new();
    for _ in 0..8 {
        leaves.push(start(config()).await);
    }
    let preferred = [leaves[0].peer(), leaves[1].peer()];
    for peer in preferred {
        hub.client.set_peer_score(peer, 1.0).await.unwrap();
    }
    for (index, leaf) in leaves.iter().enumerate() {
        within(leaf.client.subscribe(&topic())).await.unwrap();
        within(leaf.client.dial(address.clone())).await.unwrap();
        let known = |event| {
            matches!(event, NetworkEvent::Gossip(GossipEvent::Subscribed { .. })).then_some(())
        };
        hub.wait_for(known).await;
        let count = async || hub.client.mesh_peer_count(&topic()).await.unwrap();
        within(async {
            while index < preferred.len() && count().await <= index {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    // Some tens of heartbeats, at each of which those that were put out may come back.
    let nobody = Topic::free("an hourglass").unwrap();
    let time = Duration::from_secs(3);
    let kept = hub.client.publish_or_keep(&nobody, "nobody", time);
    within(kept).await.unwrap_err();
    let mesh = hub.client.mesh_peers(&topic()).await.unwrap();
    assert!(mesh.len() < leaves.len());
    assert!(preferred.iter().all(|peer| mesh.contains(peer)));
}

#[tokio::test]
async fn errors_say_what_to_do() {
    let mut narrow = config();
    narrow.pubsub.max_topics = 1;
    narrow.pubsub.max_message_bytes = 100;
    narrow.pubsub.keep.max_messages = 1;
    let node = start(narrow).await;
    let client = &node.client;
    assert_eq!(within(client.subscribe(&topic())).await, Ok(true));
    assert_eq!(within(client.subscribe(&topic())).await, Ok(false));
    let other = Topic::free("other").unwrap();
    let limit = pubsub::SubscribeError::TooMany { limit: 1 };
    assert_eq!(
        within(client.subscribe(&other)).await,
        Err(SubscribeError::Limit(limit))
    );
    let too_large = NotSent::TooLarge {
        limit: 100,
        size: 101,
    };
    assert_eq!(
        within(client.publish(&topic(), vec![0; 101])).await,
        Err(PublishError::NotSent(too_large))
    );
    assert_eq!(
        within(client.try_publish(&topic(), "early")).await,
        Err(PublishError::NotSent(NotSent::NoPeers))
    );

    let unheard = topic();
    let kept = client.publish_or_keep(&unheard, "kept", MINUTE);
    tokio::pin!(kept);
    assert!(futures::poll!(kept.as_mut()).is_pending());
    while client.mesh_stats().await.unwrap().kept_messages == 0 {
        assert!(futures::poll!(kept.as_mut()).is_pending());
    }
    let full = within(client.publish_or_keep(&topic(), "more", MINUTE)).await;
    assert!(
        matches!(full, Err(PublishError::NotSent(NotSent::KeepFull { .. }))),
        "{full:?}"
    );
    within(client.shutdown()).await.unwrap();
    assert_eq!(within(kept).await, Err(PublishError::Stopped(Stopped)));
    assert_eq!(
        client.subscribe(&other).await,
        Err(SubscribeError::Stopped(Stopped))
    );
    assert_eq!(client.mesh_peers(&topic()).await, Err(Stopped));
    assert_eq!(
        client.publish(&topic(), "late").await,
        Err(PublishError::Stopped(Stopped))
    );
}

#[tokio::test]
async fn what_is_kept_reaches_the_first_subscriber_unless_it_is_taken_back() {
    let (a, mut b) = pair(Over::Tcp).await;
    let client = a.client.clone();
    let kept = |text: &'static str| {
        let client = client.clone();
        tokio::spawn(async move { client.publish_or_keep(&topic(), text, MINUTE).await })
    };
    let (first, second) = (kept("first"), kept("taken back"));
    while client.mesh_stats().await.unwrap().kept_messages < 2 {
        tokio::task::yield_now().await;
    }
    second.abort();
    while client.mesh_stats().await.unwrap().kept_messages > 1 {
        tokio::task::yield_now().await;
    }
    within(b.client.subscribe(&topic())).await.unwrap();
    let id = within(first).await.unwrap().unwrap();
    let got = message(&mut b).await;
    assert_eq!((got.id, got.data), (id, "first".into()));
    within(client.publish(&topic(), "next")).await.unwrap();
    assert_eq!(message(&mut b).await.data, "next");

    let nobody = Topic::free("nobody").unwrap();
    let brief = Duration::from_millis(20);
    let error = within(client.publish_or_keep(&nobody, "lost", brief)).await;
    assert_eq!(error, Err(PublishError::NotSent(NotSent::NoPeers)));
}

#[tokio::test]
async fn a_slow_reader_is_told_what_it_missed_and_hears_all_else() {
    let mut small = config();
    small.handle.event_queue = 10;
    let (a, mut b) = pair_with(Over::Tcp, config(), small).await;
    within(b.client.subscribe(&topic())).await.unwrap();
    let mut a = a;
    a.wait_for(|event| {
        matches!(event, NetworkEvent::Gossip(GossipEvent::Subscribed { .. })).then_some(())
    })
    .await;
    for number in 0..100_u32 {
        let data = number.to_be_bytes().to_vec();
        within(a.client.publish(&topic(), data)).await.unwrap();
    }
    within(a.client.subscribe(&topic())).await.unwrap();
    while b.client.mesh_stats().await.unwrap().counters.delivered < 100
        || b.client
            .subscribed_peers(&topic())
            .await
            .unwrap()
            .is_empty()
    {
        tokio::task::yield_now().await;
    }
    assert_eq!(b.client.status().await.unwrap().events_dropped, 90);

    let (mut expected, mut connected, mut subscribed) = (0, false, false);
    while expected < 100 || !subscribed {
        b.wait_for(|event| {
            match event {
                NetworkEvent::Gossip(GossipEvent::Lagged { missed }) => {
                    expected += u32::try_from(missed).unwrap()
                }
                NetworkEvent::Gossip(GossipEvent::Message(message)) => {
                    assert_eq!(message.data, expected.to_be_bytes()[..]);
                    expected += 1;
                }
                NetworkEvent::Connection(ConnectionEvent::Connected(_)) => connected = true,
                NetworkEvent::Gossip(GossipEvent::Subscribed { .. }) => subscribed = true,
                _ => {}
            }
            Some(())
        })
        .await;
    }
    assert!(connected);
}

#[tokio::test]
async fn what_begins_and_ends_unread_is_not_told() {
    let (mut a, hub) = pair(Over::Tcp).await;
    let address = a.listen(Over::Tcp).await;
    within(hub.client.subscribe(&topic())).await.unwrap();
    let mut stayed = HashSet::from([hub.peer()]);
    for round in 0..5 {
        let node = start(config()).await;
        within(node.client.subscribe(&topic())).await.unwrap();
        within(node.client.dial(address.clone())).await.unwrap();
        let subscribers = async {
            while a.client.subscribed_peers(&topic()).await.unwrap().len() < stayed.len() + 1 {
                tokio::task::yield_now().await;
            }
        };
        within(subscribers).await;
        if round == 0 {
            stayed.insert(node.peer());
            std::mem::forget(node);
        } else {
            within(node.client.shutdown()).await.unwrap();
            while a.client.peer_count().unwrap() > stayed.len() {
                tokio::task::yield_now().await;
            }
        }
    }
    // The last event that comes.
    within(
        a.client.stop_listening(
            a.client
                .listen_on(common::loopback(Over::Tcp))
                .await
                .unwrap()
                .0,
        ),
    )
    .await
    .unwrap();
    let last = a.listen(Over::Tcp).await;
    let (mut connected, mut subscribed) = (HashSet::new(), HashSet::new());
    a.wait_for(|event| match event {
        NetworkEvent::Connection(ConnectionEvent::Connected(connection)) => {
            assert!(connected.insert(connection.peer));
            None
        }
        NetworkEvent::Gossip(GossipEvent::Subscribed { peer, .. }) => {
            assert!(subscribed.insert(peer));
            None
        }
        NetworkEvent::Connection(ConnectionEvent::Disconnected { .. })
        | NetworkEvent::Gossip(GossipEvent::Lagged { .. }) => {
            panic!("{event:?}")
        }
        NetworkEvent::Listener(ListenerEvent::Listening { address, .. }) => last
            .to_string()
            .starts_with(&address.to_string())
            .then_some(()),
        _ => None,
    })
    .await;
    assert_eq!((connected, subscribed), (stayed.clone(), stayed));
}

#[tokio::test]
async fn a_publisher_is_held_back_by_the_queues_of_its_peers() {
    let mut tight = config();
    tight.pubsub.peers.queue = 8;
    tight.pubsub.peers.window = 8;
    let (mut a, mut b) = pair_with(Over::Tcp, tight, config()).await;
    within(b.client.subscribe(&topic())).await.unwrap();
    a.wait_for(|event| {
        matches!(event, NetworkEvent::Gossip(GossipEvent::Subscribed { .. })).then_some(())
    })
    .await;
    // More than the queue and the windows beneath it hold.
    let payload = bytes::Bytes::from(vec![7; 256 * 1024]);
    let publishing = async {
        for _ in 0..200 {
            a.client.publish(&topic(), payload.clone()).await.unwrap();
        }
    };
    let reading = async {
        for _ in 0..200 {
            assert_eq!(message(&mut b).await.data, payload);
        }
    };
    within(async { tokio::join!(publishing, reading) }).await;
    let followed = topic();
    let refused = async {
        loop {
            let sent = (0..64).map(|_| a.client.try_publish(&followed, payload.clone()));
            let results = futures::future::join_all(sent).await;
            let full = |error: &PublishError| {
                matches!(error, PublishError::NotSent(NotSent::QueueFull { .. }))
            };
            if results
                .iter()
                .any(|result| result.as_ref().is_err_and(full))
            {
                break;
            }
        }
    };
    within(refused).await;
    assert_works(&a, &mut b).await;
}

#[tokio::test]
async fn fifteen_hundred_overlays_are_told_to_whoever_connects() {
    let (mut a, mut b) = (start(config()).await, start(config()).await);
    let topic_of = |number: u16| {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&number.to_be_bytes());
        Topic::context(ContextId::new(id))
    };
    for number in 0..1500 {
        within(a.client.subscribe(&topic_of(number))).await.unwrap();
    }
    let address = a.listen(Over::Tcp).await;
    within(b.client.dial(address)).await.unwrap();
    let mut told = HashSet::new();
    while told.len() < 1500 {
        let topic = b
            .wait_for(|event| match event {
                NetworkEvent::Gossip(GossipEvent::Subscribed { topic, .. }) => Some(topic),
                _ => None,
            })
            .await;
        assert!(told.insert(topic));
    }
    within(b.client.publish(&topic_of(1499), "last"))
        .await
        .unwrap();
    assert_eq!(message(&mut a).await.data, "last");
}
