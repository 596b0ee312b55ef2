//! The machine in networks in virtual time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says so"
)]

mod net;

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use calimero_network_primitives::Keypair;
use calimero_network_pubsub::{
    Config, Event, PublishError, Published,
    machine::{Effect, Input, Version},
    rpc::{Control, Rpc},
    topic_hash,
};
use libp2p_swarm::ConnectionId;
use net::{
    Net,
    script::{self, Script},
    topic,
};
use proptest::prelude::*;
use rand::{RngExt, seq::IteratorRandom};

const SECOND: Duration = Duration::from_secs(1);

/// Nodes that subscribe to one topic, all connected with all.
fn clique(count: usize, config: &Config) -> Net {
    let mut net = Net::new(7);
    for node in 0..count {
        net.add(config);
        net.subscribe(node, &topic(1));
    }
    for one in 0..count {
        for other in 0..one {
            net.connect(one, other);
        }
    }
    net.run(SECOND * 3);
    net
}

#[test]
fn a_message_crosses_a_line_of_nodes() {
    let mut net = Net::new(1);
    for node in 0..10 {
        net.add(&Config::small());
        net.subscribe(node, &topic(1));
        if node > 0 {
            net.connect(node - 1, node);
        }
    }
    net.run(SECOND * 2);
    let id = net.publish(0, &topic(1), "hello").unwrap();
    net.run(SECOND);
    let Some(Event::Message(message)) = net.nodes[9].events.last() else {
        panic!("{:?}", net.nodes[9].events);
    };
    assert_eq!((&message.id, message.source), (&id, net.nodes[0].peer));
    assert_eq!(message.propagated_by, net.nodes[8].peer);
}

#[test]
fn a_large_network_delivers_under_churn_loss_and_partition() {
    const NODES: usize = 300;
    let mut net = Net::new(42);
    for node in 0..NODES {
        net.add(&Config::small());
        net.subscribe(node, &topic(1));
    }
    let ring = |net: &mut Net, rng_links: bool| {
        for node in 0..NODES {
            net.connect(node, (node + 1) % NODES);
            if rng_links {
                for _ in 0..3 {
                    let other = net.rng.random_range(0..NODES);
                    net.connect(node, other);
                }
            }
        }
    };
    ring(&mut net, true);
    net.loses = Some(200);
    net.run(SECOND * 5);
    let publish = |net: &mut Net, text: &str| {
        let node = net.rng.random_range(0..NODES);
        net.publish(node, &topic(1), text.to_owned()).unwrap();
        node
    };
    // Streams fail all the time, and links change.
    let mut sent = Vec::new();
    for round in 0..20 {
        let text = format!("churn {round}");
        sent.push((publish(&mut net, &text), Bytes::from(text)));
        for _ in 0..10 {
            let one = net.rng.random_range(0..NODES);
            let links = net.links_of(one);
            if links.len() > 4
                && let Some(other) = links.into_iter().choose(&mut net.rng)
                && (one + 1) % NODES != other
                && (other + 1) % NODES != one
            {
                net.disconnect(one, other);
                let other = net.rng.random_range(0..NODES);
                net.connect(one, other);
            }
        }
        net.run(SECOND);
    }
    net.run(SECOND * 8);
    for (publisher, data) in &sent {
        for (index, node) in net.nodes.iter().enumerate() {
            let got = node.messages().iter().filter(|got| *got == data).count();
            assert_eq!(got, usize::from(index != *publisher), "{data:?} at {index}");
        }
    }
    // Two halves, each of which goes on.
    for one in 0..NODES / 2 {
        for other in net.links_of(one) {
            if other >= NODES / 2 {
                net.disconnect(one, other);
            }
        }
    }
    net.run(SECOND * 3);
    net.publish(0, &topic(1), "half").unwrap();
    net.run(SECOND * 8);
    let got = |net: &Net, text: &str| {
        let has = |node: &&net::Node| node.messages().iter().any(|data| data == text);
        net.nodes.iter().filter(has).count()
    };
    assert_eq!(got(&net, "half"), NODES / 2 - 1);
    ring(&mut net, true);
    net.run(SECOND * 3);
    net.publish(0, &topic(1), "whole").unwrap();
    net.run(SECOND * 8);
    assert_eq!(got(&net, "whole"), NODES - 1);
    let banned = net
        .nodes
        .iter()
        .map(|n| n.machine.mesh_stats().counters.banned);
    assert_eq!(banned.sum::<u64>(), 0);
}

/// Random links between 200 nodes, and messages of random nodes. A hop takes 20 ms, so the time to
/// the last delivery is the number of hops. Keys and chances are the same in every run.
#[test]
fn two_hundred_nodes_get_every_message_in_few_hops_and_few_copies() {
    const NODES: u8 = 200;
    for (config, max_hops, max_copies) in [(Config::small(), 8, 6.0), (Config::large(), 8, 9.0)] {
        let mut net = Net::new(11);
        for node in 0..NODES {
            let keypair = Keypair::ed25519_from_bytes([node + 1; 32]).unwrap();
            let node = net.add_with(keypair, &config);
            net.subscribe(node, &topic(1));
        }
        let nodes = usize::from(NODES);
        for node in 0..nodes {
            for _ in 0..6 {
                let other = net.rng.random_range(0..nodes);
                net.connect(node, other);
            }
        }
        net.run(SECOND * 10);
        let totals = |net: &Net| {
            let all = net.nodes.iter().map(|node| node.machine.mesh_stats());
            all.fold((0, 0), |sum, stats| {
                let counters = stats.counters;
                (sum.0 + counters.delivered, sum.1 + counters.copies)
            })
        };
        let others = u64::from(NODES) - 1;
        let mut worst = 0;
        for number in 1..=20 {
            let publisher = net.rng.random_range(0..nodes);
            net.publish(publisher, &topic(1), vec![number; 1024])
                .unwrap();
            let mut hops = 0;
            while totals(&net).0 < others * u64::from(number) {
                net.run(net.latency);
                hops += 1;
                assert!(hops < 1_000, "message {number} did not reach all nodes");
            }
            worst = worst.max(hops);
            net.run(SECOND);
        }
        let (delivered, copies) = totals(&net);
        assert_eq!(delivered, others * 20);
        let copies = copies as f64 / delivered as f64;
        println!("{worst} hops at most, {copies:.2} copies a delivery");
        assert!(worst <= max_hops, "{worst} hops");
        assert!(copies <= max_copies, "{copies} copies");
    }
}

#[test]
fn meshes_stay_within_their_bounds() {
    let net = clique(30, &Config::small());
    for node in &net.nodes {
        let mesh = node.machine.mesh_peers(&topic(1)).len();
        assert!((2..=8).contains(&mesh), "{mesh} in the mesh");
    }
}

#[test]
fn a_member_outside_the_mesh_gets_a_message_by_offer_and_request() {
    let mut config = Config::small();
    config.mesh.flood_publish = false;
    let mut net = Net::new(3);
    for node in 0..2 {
        net.add(&config);
        net.subscribe(node, &topic(1));
    }
    net.connect(0, 1);
    net.run(SECOND * 2);
    // A PRUNE takes each out of the other's mesh for longer than the test.
    let prune = Rpc {
        control: Control {
            prune: vec![(topic_hash(&topic(1)), Some(600))],
            ..Control::default()
        },
        ..Rpc::default()
    };
    net.inject(0, 1, vec![prune.encode()]);
    net.inject(1, 0, vec![prune.encode()]);
    net.run(SECOND);
    assert!(
        net.nodes
            .iter()
            .all(|n| n.machine.mesh_peers(&topic(1)).is_empty())
    );
    let third = net.add(&config);
    net.subscribe(third, &topic(1));
    net.connect(third, 0);
    net.run(SECOND * 2);
    net.publish(third, &topic(1), "by request").unwrap();
    net.run(SECOND * 3);
    assert_eq!(net.nodes[1].messages(), ["by request"]);
}

#[test]
fn a_publisher_without_subscription_reaches_the_subscribers() {
    for flood in [true, false] {
        let mut config = Config::small();
        config.mesh.flood_publish = flood;
        let mut net = clique(10, &config);
        let outside = net.add(&config);
        for node in 0..10 {
            net.connect(outside, node);
        }
        net.run(SECOND);
        net.publish(outside, &topic(1), "fan-out").unwrap();
        net.run(SECOND * 2);
        assert!(
            net.nodes[..10]
                .iter()
                .all(|node| node.messages() == ["fan-out"])
        );
    }
}

#[test]
fn a_slow_subscriber_costs_itself_and_other_topics_do_not_wait() {
    let mut net = Net::new(5);
    for node in 0..4 {
        net.add(&Config::small());
        net.subscribe(node, &topic(if node == 3 { 2 } else { 1 }));
    }
    // The slow one reads 100 messages of 1 KiB a second, the others all.
    net.nodes[1].reads = Some(100 * 1024);
    for node in 1..4 {
        net.connect(0, node);
    }
    net.run(SECOND * 2);
    let data = Bytes::from(vec![7; 1024]);
    let (mut sent, mut other) = (0, 0);
    for _ in 0..10_000 {
        sent += usize::from(net.publish(0, &topic(1), data.clone()).is_ok());
        other += usize::from(net.publish(0, &topic(2), data.clone()).is_ok());
        net.run(Duration::from_millis(1));
    }
    assert_eq!(other, 10_000, "another topic waited");
    assert!(
        sent >= 4_500,
        "{sent} of 10,000 while one subscriber is slow"
    );
    net.run(SECOND);
    assert_eq!(net.nodes[2].messages().len(), sent);
    let lost = net.nodes[0].machine.mesh_stats().counters.lost_to_slow;
    assert!(lost > 0, "what the slow one missed was not counted");
    let told = |event: &Event| matches!(event, Event::Slow { .. });
    assert!(net.nodes[0].events.iter().any(told));
}

/// A frame of 1 MiB takes longer than the time after which a peer that does not read is closed.
#[test]
fn a_peer_that_reads_slowly_is_not_closed_and_one_that_hardly_reads_is() {
    for (rate, arrives) in [(80 * 1024, true), (8 * 1024, true), (1024, false)] {
        let mut net = Net::new(5);
        for _ in 0..2 {
            let node = net.add(&Config::small());
            net.subscribe(node, &topic(1));
        }
        net.connect(0, 1);
        net.run(SECOND * 2);
        net.nodes[1].reads = Some(rate);
        net.publish(0, &topic(1), vec![7; 1 << 20]).unwrap();
        net.run(SECOND * 140);
        assert_eq!(
            net.nodes[1].messages().len(),
            usize::from(arrives),
            "{rate}"
        );
        let is_closed = |event: &Event| matches!(event, Event::ClosedSlow { .. });
        assert_eq!(
            net.nodes[0].events.iter().any(is_closed),
            !arrives,
            "{rate}"
        );
    }
}

/// The subscriber for which a message was kept has a full queue. The message is sent once there is
/// room, and before later ones.
#[test]
fn a_message_that_is_kept_waits_for_room_and_is_not_overtaken() {
    let mut net = Net::new(5);
    for _ in 0..2 {
        net.add(&Config::small());
    }
    net.subscribe(1, &topic(1));
    net.connect(0, 1);
    net.run(SECOND);
    let now = net.now;
    let published =
        net.nodes[0]
            .machine
            .publish_or_keep(&topic(2), "kept".into(), SECOND * 60, now);
    let Ok(Published::Kept(kept)) = published else {
        panic!("{published:?}");
    };
    net.nodes[1].reads = Some(100_000);
    while net.publish(0, &topic(1), vec![0; 50_000]).is_ok() {}
    net.subscribe(1, &topic(2));
    net.run(SECOND / 10);
    assert_eq!(
        net.nodes[0].machine.subscribed_peers(&topic(2)),
        [net.nodes[1].peer]
    );
    let refused = net.publish(0, &topic(2), "later");
    assert_eq!(refused, Err(PublishError::QueueFull { peers: 1 }));
    net.run(SECOND * 10);
    assert!(net.nodes[0].events.contains(&Event::Room));
    let is_sent = |event: &Event| matches!(event, Event::KeptSent { keep, .. } if *keep == kept);
    assert!(net.nodes[0].events.iter().any(is_sent));
    net.publish(0, &topic(2), "later").unwrap();
    net.run(SECOND * 10);
    let messages = net.nodes[1].messages();
    assert_eq!(messages[messages.len() - 2..], ["kept", "later"]);
}

/// Two nodes that subscribe to topic 1, and their connection.
fn connected(version: Version) -> (Net, ConnectionId) {
    let mut net = Net::new(1);
    net.version = version;
    for _ in 0..2 {
        let node = net.add(&Config::small());
        net.subscribe(node, &topic(1));
    }
    net.connect(0, 1);
    net.run(SECOND * 2);
    let connection = net.connections(0, 1)[0];
    (net, connection)
}

/// The messages that were too large for a peer, as node 0 reports them.
fn too_large(net: &Net) -> Vec<(usize, usize)> {
    let events = net.nodes[0].events.iter();
    let events = events.filter_map(|event| match event {
        Event::TooLargeForPeer { size, limit, .. } => Some((*size, *limit)),
        _ => None,
    });
    events.collect()
}

/// Also a node of this kind has a limit, which is configured.
#[test]
fn a_large_message_on_which_two_streams_in_a_row_end_is_dropped() {
    for losses in 1..=2 {
        let (mut net, connection) = connected(Version::V1_3);
        net.break_stream(0, 1, connection);
        net.publish(0, &topic(1), vec![7; 100_000]).unwrap();
        net.publish(0, &topic(1), "after").unwrap();
        // The first is lost after 20 ms, and another one is open after 40 ms.
        net.run(Duration::from_millis(30));
        if losses == 2 {
            net.break_stream(0, 1, connection);
        }
        net.run(SECOND);
        let sizes: Vec<_> = net.nodes[1].messages().iter().map(Bytes::len).collect();
        if losses == 1 {
            assert_eq!((sizes, too_large(&net)), (vec![100_000, 5], Vec::new()));
            continue;
        }
        assert_eq!(sizes, [5]);
        let [(size, limit)] = too_large(&net)[..] else {
            panic!("{:?}", too_large(&net));
        };
        assert!(size > 100_000 && limit == size - 1, "{size} {limit}");
        let counters = net.nodes[0].machine.mesh_stats().counters;
        assert_eq!(counters.lost_to_limits, 1);
        let refused = net.publish(0, &topic(1), vec![7; 100_000]);
        assert!(matches!(
            refused,
            Err(PublishError::TooLargeForPeers { .. })
        ));
        net.publish(0, &topic(1), vec![7; 90_000]).unwrap();
    }
}

/// A large message that has not been written does not show that the peer takes large ones.
#[test]
fn the_limit_of_a_peer_that_reads_slowly_is_learned() {
    let (mut net, connection) = connected(Version::V1_1);
    net.nodes[1].reads = Some(10_000);
    net.publish(0, &topic(1), vec![7; 100_000]).unwrap();
    net.run(SECOND * 4);
    net.publish(0, &topic(1), "after").unwrap();
    for _ in 0..2 {
        net.break_stream(0, 1, connection);
        net.run(SECOND * 3 / 2);
    }
    net.nodes[1].reads = None;
    net.run(SECOND * 20);
    assert_eq!(too_large(&net).len(), 1);
    assert!(net.nodes[1].messages().contains(&Bytes::from("after")));
}

#[test]
fn every_message_that_is_too_large_for_a_peer_is_counted_and_reported() {
    let (mut net, connection) = connected(Version::V1_1);
    for _ in 0..4 {
        net.publish(0, &topic(1), vec![7; 100_000]).unwrap();
        net.publish(0, &topic(1), "small").unwrap();
    }
    net.break_stream(0, 1, connection);
    net.run(SECOND);
    assert_eq!(too_large(&net).len(), 4);
    let counters = net.nodes[0].machine.mesh_stats().counters;
    assert_eq!((counters.lost_to_limits, counters.lost_to_slow), (4, 0));
    let small = net.nodes[1].messages();
    assert_eq!(small.iter().filter(|data| *data == "small").count(), 4);
}

/// The peer closes a stream on another connection than the one on which it got a large message.
#[test]
fn a_stream_of_another_connection_says_nothing_about_a_large_message() {
    let blamed = (0..2).map(|lost| {
        let (mut net, _) = connected(Version::V1_1);
        net.connect_again(0, 1);
        net.run(SECOND);
        net.publish(0, &topic(1), vec![7; 100_000]).unwrap();
        let connection = net.connections(0, 1)[lost];
        net.break_stream(0, 1, connection);
        net.publish(0, &topic(1), "after").unwrap();
        net.run(SECOND);
        assert!(net.nodes[1].messages().contains(&Bytes::from("after")));
        too_large(&net).len()
    });
    assert_eq!(
        blamed.sum::<usize>(),
        1,
        "only one of them carries messages"
    );
}

/// A peer makes this node open streams, each of which begins with all topics.
#[test]
fn a_peer_that_closes_streams_and_opens_others_gets_few() {
    let (mut net, connection) = connected(Version::V1_3);
    let (peer, mut now) = (net.nodes[1].peer, net.now);
    let machine = &mut net.nodes[0].machine;
    let mut opened = 0;
    for _ in 0..100 {
        machine.handle(Input::Lost { peer, connection }, now);
        machine.handle(Input::Accepted { peer, connection }, now);
        while let Some(effect) = machine.poll(now) {
            if matches!(effect, Effect::Open { .. }) {
                opened += 1;
                let version = Version::V1_3;
                machine.handle(
                    Input::Opened {
                        peer,
                        connection,
                        version,
                    },
                    now,
                );
            }
        }
        now.at += Duration::from_millis(10);
    }
    assert!(opened <= 3, "{opened} streams in a second");
    // It is opened again soon, since the peer may have restarted.
    now.at += SECOND;
    machine.handle_timeout(now);
    let effects = std::iter::from_fn(|| machine.poll(now));
    let is_open = |effect: &Effect| matches!(effect, Effect::Open { .. });
    assert!(effects.into_iter().any(|effect| is_open(&effect)));
}

/// A peer that takes one frame now and then is never closed as stalled. What waits for it to be
/// written stays within the send window, also offers, of which there are some at every heartbeat.
#[test]
fn control_for_a_peer_that_hardly_reads_is_bounded() {
    let mut config = Config::small();
    config.mesh.flood_publish = false;
    let mut net = Net::new(9);
    for _ in 0..3 {
        let node = net.add(&config);
        net.subscribe(node, &topic(1));
    }
    net.connect(0, 1);
    net.connect(0, 2);
    net.run(SECOND * 2);
    // Node 1 leaves the mesh for longer than the test, so node 0 offers it all messages.
    let prune = Rpc {
        control: Control {
            prune: vec![(topic_hash(&topic(1)), Some(600))],
            ..Control::default()
        },
        ..Rpc::default()
    };
    net.inject(1, 0, vec![prune.encode()]);
    net.run(SECOND);
    assert_eq!(
        net.nodes[0].machine.mesh_peers(&topic(1)),
        [net.nodes[2].peer]
    );
    net.nodes[1].reads = Some(20_000);
    for _ in 0..30 {
        for _ in 0..10 {
            for _ in 0..50 {
                net.publish(0, &topic(1), "offered").unwrap();
            }
            net.run(SECOND / 10);
        }
        // A window, and the control of one heartbeat.
        assert!(net.unwritten(0, 1) <= 600_000, "{}", net.unwritten(0, 1));
    }
    assert!(net.unwritten(0, 1) > 0, "nothing ever waited");
    assert!(!net.connections(0, 1).is_empty());
}

#[test]
fn an_only_subscriber_sets_the_pace_and_loses_nothing() {
    let mut net = Net::new(5);
    for node in 0..2 {
        net.add(&Config::small());
        net.subscribe(node, &topic(1));
    }
    net.nodes[1].reads = Some(1_000 * 1024);
    net.connect(0, 1);
    net.run(SECOND * 2);
    let data = Bytes::from(vec![7; 1024]);
    let (mut sent, mut room) = (0, true);
    for _ in 0..10_000 {
        match net.publish(0, &topic(1), data.clone()) {
            Ok(_) => sent += 1,
            Err(PublishError::QueueFull { .. }) => room = false,
            Err(error) => panic!("{error}"),
        }
        net.run(Duration::from_micros(500));
    }
    assert!(!room, "it was never told to wait");
    net.run(SECOND * 5);
    assert_eq!(net.nodes[1].messages().len(), sent);
    assert!(net.nodes[0].events.contains(&Event::Room));
}

/// Only a node of this kind reads the number of topics of an announcement. For all others, a new
/// stream repeats unsubscriptions, because they may be lost with an older stream or connection.
#[test]
fn an_unsubscription_that_is_lost_with_its_connection_is_repeated() {
    let versions = [Version::V1_0, Version::V1_1, Version::V1_2, Version::V1_3];
    let cases = versions.map(|version| [(version, true), (version, false)]);
    for (version, ignores_counts) in cases.into_iter().flatten() {
        let mut net = Net::new(1);
        (net.version, net.ignores_counts) = (version, ignores_counts);
        let case = format!("{version:?}, {ignores_counts}");
        for _ in 0..2 {
            let node = net.add(&Config::small());
            for number in 1..=2 {
                net.subscribe(node, &topic(number));
            }
        }
        net.connect(0, 1);
        net.run(SECOND);
        let knows = |net: &Net, number| {
            let known = net.nodes[0].machine.subscribed_peers(&topic(number));
            known.contains(&net.nodes[1].peer)
        };
        let current = |net: &Net| *net.connections(0, 1).last().unwrap();

        let first = current(&net);
        net.unsubscribe(1, &topic(1));
        net.connect_again(1, 0);
        net.disconnect_one(1, 0, first);
        assert!(knows(&net, 1), "{case}: the unsubscription was not lost");
        net.run(SECOND);
        assert!(!knows(&net, 1), "{case}: a second connection");
        assert!(knows(&net, 2), "{case}: the other topic");

        net.subscribe(1, &topic(1));
        net.run(SECOND);
        assert!(knows(&net, 1), "{case}: subscribed again");
        let second = current(&net);
        net.break_stream(1, 0, second);
        net.unsubscribe(1, &topic(1));
        net.run(SECOND * 2);
        assert!(!knows(&net, 1), "{case}: a stream that is opened again");

        net.subscribe(1, &topic(1));
        net.run(SECOND);
        net.fail_for(1, 0, second);
        net.unsubscribe(1, &topic(1));
        net.run(SECOND);
        net.connect_again(1, 0);
        net.run(SECOND);
        assert!(
            !knows(&net, 1),
            "{case}: a connection that only one has closed"
        );
        assert!(
            knows(&net, 2),
            "{case}: the other topic, on the third connection"
        );
    }
}

/// A message that was too large for all subscribers is not offered later, also not to a peer that
/// has connected again and may accept it now.
#[test]
fn a_message_that_is_too_large_for_all_is_not_offered_later() {
    let mut config = Config::small();
    config.mesh.flood_publish = false;
    let mut net = Net::new(1);
    net.version = Version::V1_1;
    for _ in 0..2 {
        net.add(&config);
    }
    net.subscribe(1, &topic(1));
    net.connect(0, 1);
    net.run(SECOND);
    let large = || vec![0; 100_000];
    net.publish(0, &topic(1), large()).unwrap();
    let first = net.connections(0, 1)[0];
    net.break_stream(0, 1, first);
    net.run(SECOND);
    let size = match net.publish(0, &topic(1), large()) {
        Err(PublishError::TooLargeForPeers { peers: 1, size }) => size,
        result => panic!("{result:?}"),
    };
    assert!(size > 100_000, "{size} is not all of the message");
    let of_second = |event: &&Event| matches!(event, Event::TooLargeForPeer { .. });
    assert_eq!(net.nodes[0].events.iter().filter(of_second).count(), 2);
    net.nodes[1].events.clear();
    net.disconnect(0, 1);
    net.connect(0, 1);
    net.run(SECOND * 10);
    assert_eq!(net.nodes[1].messages().len(), 0);
    net.publish(0, &topic(1), large()).unwrap();
    net.run(SECOND);
    assert_eq!(net.nodes[1].messages().len(), 1);
}

#[test]
fn copies_are_few_at_full_speed() {
    let mut net = clique(5, &Config::small());
    net.latency = Duration::from_millis(1);
    for number in 0..1000_u32 {
        net.publish(0, &topic(1), number.to_be_bytes().to_vec())
            .unwrap();
        net.run(Duration::from_micros(50));
    }
    net.run(SECOND * 2);
    for node in &net.nodes[1..] {
        let counters = node.machine.mesh_stats().counters;
        assert_eq!(counters.delivered, 1000);
        assert!(counters.copies <= 4000, "{} copies", counters.copies);
    }
}

#[test]
fn the_messages_of_one_read_are_ready_together() {
    let mut net = clique(2, &Config::small());
    net.record = Some(0);
    for text in ["one", "two", "three"] {
        net.publish(0, &topic(1), text).unwrap();
    }
    // As they were written, and before they arrive.
    let messages = net.sent[&1].iter().flat_map(|rpc| rpc.messages.clone());
    let rpc = Rpc {
        messages: messages.collect(),
        ..Rpc::default()
    };
    let (peer, connection) = (net.nodes[0].peer, net.connections(0, 1)[0]);
    let machine = &mut net.nodes[1].machine;
    let rpcs = net::receive(machine, &peer, &[rpc.encode()], net.now);
    machine.handle(
        Input::Received {
            peer,
            connection,
            rpcs,
        },
        net.now,
    );
    let first = loop {
        match machine.poll(net.now) {
            Some(Effect::Emit(Event::Message(message))) => break message.data,
            effect => assert!(effect.is_some(), "no message"),
        }
    };
    let rest = std::iter::from_fn(|| match machine.next_event()? {
        Event::Message(message) => Some(message.data),
        event => panic!("{event:?}"),
    });
    let data: Vec<_> = [first].into_iter().chain(rest).collect();
    assert_eq!(data, ["one", "two", "three"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever connects, disconnects, subscribes and unsubscribes: at the end every node knows
    /// the topics of all its neighbours, and a message reaches all subscribers.
    #[test]
    fn both_sides_know_both_sides_topics(
        seed in any::<u64>(),
        steps in prop::collection::vec((0..4u8, 0..5usize, 0..5usize, 0..3u32), 1..60),
        version in prop_oneof![
            Just(Version::V1_1),
            Just(Version::V1_3),
        ],
    ) {
        let mut net = Net::new(seed);
        net.version = version;
        let mut topics = vec![BTreeSet::new(); 5];
        for _ in 0..5 {
            net.add(&Config::small());
        }
        for (step, one, other, number) in steps {
            match step {
                0 => net.connect(one, other),
                1 => net.disconnect(one, other),
                2 => {
                    net.subscribe(one, &topic(number));
                    topics[one].insert(number);
                }
                _ => {
                    net.unsubscribe(one, &topic(number));
                    topics[one].remove(&number);
                }
            }
            net.run(Duration::from_millis(u64::from(number) * 7));
        }
        net.run(SECOND * 3);
        for one in 0..5 {
            for other in net.links_of(one) {
                for number in 0..3 {
                    let known = net.nodes[one].machine.subscribed_peers(&topic(number));
                    let knows = known.contains(&net.nodes[other].peer);
                    prop_assert_eq!(knows, topics[other].contains(&number));
                }
            }
        }
        for one in 1..5 {
            net.connect(0, one);
        }
        net.run(SECOND * 2);
        for topics in &topics[1..] {
            for number in topics {
                net.publish(0, &topic(*number), "x").unwrap();
            }
        }
        net.run(SECOND * 3);
        for (node, topics) in net.nodes.iter().zip(&topics).skip(1) {
            prop_assert_eq!(node.messages().is_empty(), topics.is_empty());
        }
    }

    /// Two or three nodes on connections that fail, also several at a time, and that restart: no
    /// message comes twice, no peer is banned, and at the end all know all and get every message.
    /// The fuzz target `gossip_nodes` runs the same script.
    #[test]
    fn nodes_that_follow_the_protocol_agree_in_the_end(
        variant in any::<u8>(),
        seed in any::<u64>(),
        steps in prop::collection::vec(any::<[u8; script::STEP]>(), 1..80),
    ) {
        let mut script = Script::new(variant, seed);
        for step in steps {
            script.step(step);
        }
        script.settle();
    }
}
