//! Peers that speak gossipsub by hand, and badly.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says so"
)]

mod common;
mod rpc;

use std::time::Duration;

use bytes::Bytes;
use calimero_network_primitives::{Keypair, PeerId};
use calimero_network_pubsub::{Config, Event, PublishError};

use crate::{
    common::{Node, topic, within},
    rpc::{Raw, Signed},
};

/// Two honest nodes that know each other, and a hostile peer of the first.
struct Scene {
    victim: Node,
    friend: Node,
    raw: Raw,
}

impl Scene {
    async fn new(config: &Config) -> Self {
        let (victim, friend) = (Node::start(config), Node::start(config));
        for node in [&victim, &friend] {
            node.subscribe(&topic(1)).await;
        }
        friend.connect(&victim).await;
        friend.knows(&topic(1), victim.peer).await;
        victim.knows(&topic(1), friend.peer).await;
        let raw = Raw::connect(&victim).await;
        Self {
            victim,
            friend,
            raw,
        }
    }

    /// What one honest node says still reaches the other, and nothing came before it.
    async fn undisturbed(&mut self) {
        self.friend.publish(&topic(1), "honest").await.unwrap();
        let message = self.victim.next_message().await;
        assert_eq!(
            (message.source, message.data),
            (self.friend.peer, "honest".into())
        );
        self.victim.publish(&topic(1), "as well").await.unwrap();
        assert_eq!(self.friend.next_message().await.data, "as well");
    }

    async fn counters(&self) -> calimero_network_pubsub::Counters {
        let counters = |swarm: &mut libp2p_swarm::Swarm<calimero_network_pubsub::Behaviour>| {
            swarm.behaviour().mesh_stats().counters
        };
        self.victim.call(counters).await
    }

    async fn banned(&mut self) {
        let peer = self.raw.peer;
        let banned = |event| (event == Event::Banned { peer }).then_some(());
        self.victim.next(banned).await;
        self.victim
            .until_swarm(move |swarm| !swarm.is_connected(&peer))
            .await;
    }
}

fn signed(key: &Keypair, number: u64, data: &[u8]) -> Signed {
    Signed::new(key, number, &topic(1).to_string(), data)
}

#[tokio::test]
async fn a_message_made_by_hand_and_signed_is_heard() {
    let mut scene = Scene::new(&Config::small()).await;
    let key = scene.raw.key.clone();
    let rpc = rpc::publish(&[signed(&key, 7, b"hello").encode()]);
    scene.raw.send(&rpc).await;
    let message = scene.victim.next_message().await;
    assert_eq!(message.source, scene.raw.peer);
    assert_eq!(message.data, Bytes::from("hello"));
    assert_eq!(message.id.to_string(), format!("{}7", scene.raw.peer));
}

#[tokio::test]
async fn unsigned_and_wrongly_signed_messages_are_dropped_and_counted() {
    let mut scene = Scene::new(&Config::small()).await;
    let key = scene.raw.key.clone();
    let unsigned = Signed {
        signature: None,
        ..signed(&key, 1, b"unsigned")
    };
    let mut tampered = signed(&key, 2, b"signed");
    tampered.data = b"tampered".to_vec();
    let stolen = Signed {
        from: scene.friend.peer.to_bytes(),
        ..signed(&key, 3, b"in the name of another")
    };
    let anonymous = Signed {
        from: Vec::new(),
        ..signed(&key, 4, b"anonymous")
    };
    let bad = [unsigned, tampered, stolen, anonymous].map(|message| message.encode());
    scene.raw.send(&rpc::publish(&bad)).await;
    // Read in order, so what follows shows that they are dealt with.
    let good = rpc::publish(&[signed(&key, 5, b"good").encode()]);
    scene.raw.send(&good).await;
    assert_eq!(scene.victim.next_message().await.data, "good");
    assert_eq!(scene.friend.next_message().await.data, "good");
    assert_eq!(scene.counters().await.invalid_dropped, 4);
    scene.undisturbed().await;
}

#[tokio::test]
async fn a_peer_that_forges_without_end_is_banned_and_refused() {
    let mut scene = Scene::new(&Config::small()).await;
    let key = scene.raw.key.clone();
    let mut forged = signed(&key, 1, b"forged");
    forged.data = b"other".to_vec();
    for _ in 0..3 {
        scene
            .raw
            .send(&rpc::publish(&vec![forged.encode(); 10]))
            .await;
    }
    scene.banned().await;
    assert!(scene.raw.dial_again(&scene.victim).await.is_err());
    scene.undisturbed().await;
}

#[tokio::test]
async fn oversized_messages_are_dropped_without_being_held() {
    let mut scene = Scene::new(&Config::small()).await;
    let key = scene.raw.key.clone();
    // One byte more than may be published.
    let data = vec![0; (1 << 20) + 1];
    let rpc = rpc::publish(&[signed(&key, 1, &data).encode()]);
    scene.raw.send(&rpc).await;
    let good = rpc::publish(&[signed(&key, 2, b"good").encode()]);
    scene.raw.send(&good).await;
    assert_eq!(scene.victim.next_message().await.data, "good");
    assert_eq!(scene.friend.next_message().await.data, "good");
    // A claim of 4 GiB: the stream ends there, and nothing is read of it.
    scene.raw.send_bytes(&[0xff, 0xff, 0xff, 0xff, 0x0f]).await;
    scene.raw.send_until_refused(&vec![0; 1 << 16]).await;
    scene.undisturbed().await;
}

#[tokio::test]
async fn a_replayed_message_is_told_once() {
    let mut config = Config::small();
    // Gossipsub forgets after a moment, the replay memory does not.
    config.memory.replay_after = Duration::from_millis(50);
    let mut scene = Scene::new(&config).await;
    let key = scene.raw.key.clone();
    let rpc = rpc::publish(&[signed(&key, 1, b"once").encode()]);
    scene.raw.send(&rpc).await;
    assert_eq!(scene.victim.next_message().await.data, "once");
    for number in 2..40 {
        scene.raw.send(&rpc).await;
        let marker = signed(&key, number, b"marker").encode();
        scene.raw.send(&rpc::publish(&[marker])).await;
        assert_eq!(scene.victim.next_message().await.data, "marker");
        if scene.counters().await.replays_dropped > 3 {
            break;
        }
        // Time passes until what was sent first is older than gossipsub's memory.
        let kept = scene.victim.call(|swarm| {
            let time = Duration::from_millis(20);
            swarm.behaviour_mut().publish_or_keep(&topic(9), "x", time)
        });
        kept.await.unwrap();
        let lost = |event| matches!(event, Event::KeptLost { .. }).then_some(());
        scene.victim.next(lost).await;
    }
    assert!(scene.counters().await.replays_dropped > 3);
}

#[tokio::test]
async fn a_subscriber_of_100_000_topics_is_bounded_and_banned() {
    let mut scene = Scene::new(&Config::small()).await;
    for part in 0..20_u32 {
        let topics = (0..5_000).map(|n| format!("topic {}", part * 5_000 + n));
        let rpc = rpc::subscribe(topics);
        if !scene.raw.try_send(&rpc).await {
            break;
        }
    }
    scene.banned().await;
    let counters = scene.counters().await;
    assert!(counters.announcements_refused >= 64_000 / 2);
    let mut told = 0;
    let raw = scene.raw.peer;
    for event in scene.victim.events() {
        told += usize::from(matches!(event, Event::Subscribed { peer, .. } if peer == raw));
    }
    assert!(told <= 4_097, "{told} subscriptions told");
    scene.undisturbed().await;
}

#[tokio::test]
async fn more_topics_than_are_remembered_hide_none_that_matters() {
    let scene = Scene::new(&Config::small()).await;
    let Scene {
        victim, mut raw, ..
    } = scene;
    raw.send(&rpc::subscribe((0..5_000).map(|n| format!("topic {n}"))))
        .await;
    raw.send(&rpc::subscribe([topic(1).to_string()])).await;
    victim.knows(&topic(1), raw.peer).await;
}

#[tokio::test]
async fn floods_of_grafts_and_prunes_are_bounded_and_banned() {
    let mut scene = Scene::new(&Config::small()).await;
    let ours = topic(1).to_string();
    scene.raw.send(&rpc::subscribe([ours.clone()])).await;
    for _ in 0..200 {
        let rpc = rpc::control(&[rpc::grafts(&ours, 2_000), rpc::prunes(&ours, 2_000)]);
        if !scene.raw.try_send(&rpc).await {
            break;
        }
    }
    scene.banned().await;
    scene.undisturbed().await;
}

#[tokio::test]
async fn floods_of_offers_and_requests_disturb_nobody() {
    let mut scene = Scene::new(&Config::small()).await;
    let ours = topic(1).to_string();
    scene.raw.send(&rpc::subscribe([ours.clone()])).await;
    for round in 0..100_u64 {
        let ids = (0..2_000).map(|n| format!("{}{}", PeerId::random(), round * 2_000 + n));
        let ids: Vec<_> = ids.collect();
        let rpc = rpc::control(&[rpc::ihave(&ours, &ids), rpc::iwant(&ids)]);
        if !scene.raw.try_send(&rpc).await {
            break;
        }
    }
    scene.undisturbed().await;
}

#[tokio::test]
async fn garbage_ends_the_stream_and_nothing_else() {
    let mut scene = Scene::new(&Config::small()).await;
    scene
        .raw
        .send_bytes(&[8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])
        .await;
    scene.raw.send_until_refused(&[0; 1024]).await;
    scene.undisturbed().await;
}

#[tokio::test]
async fn a_peer_that_never_reads_is_closed_and_others_are_served() {
    let mut config = Config::small();
    config.peers.queue = 16;
    // A few messages fill the window, also where a host is busy and takes a second for them.
    config.peers.window = 4;
    config.peers.hold = Duration::from_secs(2);
    config.mesh.heartbeat = Duration::from_millis(100);
    config.peers.slow_timeout = Duration::from_secs(4);
    let mut scene = Scene::new(&config).await;
    let ours = topic(1).to_string();
    scene.raw.send(&rpc::subscribe([ours])).await;
    let peer = scene.raw.peer;
    scene.victim.knows(&topic(1), peer).await;
    let publish = async {
        let mut held_back = false;
        loop {
            let published = scene.victim.publish(&topic(1), vec![0; 100_000]).await;
            if let Err(PublishError::QueueFull { .. }) = published {
                // The peer holds the publisher back for a while only.
                let room = |event| (event == Event::Room).then_some(());
                scene.victim.next(room).await;
                held_back = true;
                continue;
            }
            let closed = |event: &Event| *event == Event::ClosedSlow { peer };
            if scene.victim.events().iter().any(closed) {
                assert!(held_back);
                return;
            }
            // The friend reads as fast as messages come.
            scene.friend.next_message().await;
        }
    };
    within(publish).await;
    scene
        .victim
        .until_swarm(move |swarm| !swarm.is_connected(&peer))
        .await;
}

/// Every other implementation refuses a message whose `key` is not its author's, and bans the
/// peer that forwards it.
#[tokio::test]
async fn a_foreign_key_of_a_known_author_is_not_forwarded() {
    let mut scene = Scene::new(&Config::small()).await;
    let key = scene.raw.key.clone();
    for number in 0..20 {
        let known = rpc::publish(&[signed(&key, number, b"known").encode()]);
        scene.raw.send(&known).await;
        assert_eq!(scene.victim.next_message().await.data, "known");
        assert_eq!(scene.friend.next_message().await.data, "known");
    }
    let foreign = Keypair::generate_ed25519().public().encode_protobuf();
    for number in 20..23 {
        let forged = signed(&key, number, b"forged").encode_with_key(&foreign);
        scene.raw.send(&rpc::publish(&[forged])).await;
    }
    let good = rpc::publish(&[signed(&key, 30, b"good").encode()]);
    scene.raw.send(&good).await;
    assert_eq!(scene.victim.next_message().await.data, "good");
    assert_eq!(scene.friend.next_message().await.data, "good");
    assert_eq!(scene.counters().await.invalid_dropped, 3);
    let friend = scene.friend.call(|swarm| swarm.behaviour().mesh_stats());
    assert_eq!(friend.await.counters.invalid_dropped, 0);
}

/// What a peer below the graylist threshold sends must not hide what others send.
#[tokio::test]
async fn an_ignored_peer_cannot_hide_messages() {
    let mut scene = Scene::new(&Config::small()).await;
    let (key, author) = (scene.raw.key.clone(), Keypair::generate_ed25519());
    let mut forged = signed(&key, 1, b"forged");
    forged.data = b"other".to_vec();
    // 500 points: ignored and not banned.
    scene
        .raw
        .send(&rpc::publish(&vec![forged.encode(); 10]))
        .await;
    let honest = rpc::publish(&[signed(&author, 1, b"honest").encode()]);
    scene.raw.send(&honest).await;
    scene.raw.send(&rpc::publish(&[forged.encode()])).await;
    let ignored = |pubsub: &calimero_network_pubsub::Behaviour| {
        pubsub.mesh_stats().counters.invalid_dropped == 11
    };
    scene.victim.until(ignored).await;
    let mut other = Raw::connect(&scene.victim).await;
    other.send(&honest).await;
    let message = scene.victim.next_message().await;
    assert_eq!(
        (message.data, message.propagated_by),
        ("honest".into(), other.peer)
    );
}

/// Each new stream replaces the one before. A peer that only opens streams is served no more after
/// some.
#[tokio::test]
async fn streams_without_an_rpc_are_bounded() {
    let mut scene = Scene::new(&Config::small()).await;
    for _ in 0..10 {
        scene.raw.reopen(&scene.victim).await;
    }
    scene.raw.send_until_refused(&[0; 1024]).await;
    scene.undisturbed().await;
    // A peer whose streams carry RPCs may open as many as it needs.
    let mut honest = Raw::connect(&scene.victim).await;
    let key = honest.key.clone();
    for number in 0..20 {
        honest
            .send(&rpc::publish(&[signed(&key, number, b"again").encode()]))
            .await;
        assert_eq!(scene.victim.next_message().await.data, "again");
        honest.reopen(&scene.victim).await;
    }
}

/// Each new stream makes the victim open its own again. A peer that says nothing on them gets few.
#[tokio::test]
async fn streams_with_empty_rpcs_alone_are_not_accepted_for_ever() {
    let mut scene = Scene::new(&Config::small()).await;
    let key = scene.raw.key.clone();
    // The first stream is open already.
    for _ in 1..6 {
        scene.raw.reopen(&scene.victim).await;
        scene.raw.try_send(&[]).await;
    }
    let late = rpc::publish(&[signed(&key, 7, b"late").encode()]);
    scene.raw.try_send(&late).await;
    scene.undisturbed().await;
}
