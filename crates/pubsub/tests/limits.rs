//! What a machine does with RPCs that break a rule, one rule at a time, in virtual time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says so"
)]

mod net;

use std::{collections::HashSet, sync::Arc, time::Duration};

use bytes::Bytes;
use calimero_network_primitives::{Keypair, limits::MAX_OWN_TOPICS};
use calimero_network_pubsub::{
    Config, TopicHash,
    machine::Input,
    rpc::{Control, Rpc, Subscription},
    topic_hash,
};
use net::{Net, Withholds, topic};

const SECOND: Duration = Duration::from_secs(1);

/// Two nodes that subscribe to topic 1. Node 0 is tested, node 1 sends what breaks a rule.
fn pair() -> Net {
    let mut net = Net::new(3);
    for node in 0..2 {
        let keypair = Keypair::ed25519_from_bytes([node + 1; 32]).unwrap();
        let node = net.add_with(keypair, &Config::small());
        net.subscribe(node, &topic(1));
    }
    net.connect(1, 0);
    net.run(SECOND * 2);
    net.record = Some(0);
    net
}

fn own() -> TopicHash {
    topic_hash(&topic(1))
}

fn control(control: Control) -> Rpc {
    Rpc {
        control,
        ..Rpc::default()
    }
}

/// Offers `count` messages that were never published, with ids of `len` bytes.
fn offer(topic: TopicHash, first: usize, count: usize, len: usize) -> Rpc {
    let ids = (first..first + count).map(|id| Bytes::from(format!("{id:0>len$}")));
    control(Control {
        ihave: vec![(topic, ids.collect())],
        ..Control::default()
    })
}

/// Node 1 sends `rpcs`, at once.
fn inject(net: &mut Net, rpcs: &[Rpc]) {
    net.inject(1, 0, rpcs.iter().map(Rpc::encode).collect());
    net.run(Duration::from_millis(100));
}

/// Ids that node 0 has requested from node 1.
fn requested(net: &Net) -> usize {
    let sent = net.sent.get(&1).into_iter().flatten();
    sent.map(|rpc| rpc.control.iwant.len()).sum()
}

fn score(net: &Net) -> f64 {
    net.nodes[0].machine.score(&net.nodes[1].peer, net.now)
}

fn is_in_mesh(net: &Net) -> bool {
    let mesh = net.nodes[0].machine.mesh_peers(&topic(1));
    mesh.contains(&net.nodes[1].peer)
}

fn graft() -> Rpc {
    control(Control {
        graft: vec![own()],
        ..Control::default()
    })
}

fn prune(backoff: u64) -> Rpc {
    control(Control {
        prune: vec![(own(), Some(backoff))],
        ..Control::default()
    })
}

/// Messages without an author, which cost 50 points each.
fn unsigned(count: usize) -> Rpc {
    Rpc {
        messages: vec![Bytes::new(); count],
        ..Rpc::default()
    }
}

#[test]
fn ten_rpcs_with_offers_are_considered_in_a_heartbeat() {
    let mut net = pair();
    let offers: Vec<_> = (0..20).map(|n| offer(own(), n * 100, 100, 70)).collect();
    inject(&mut net, &offers);
    assert_eq!(requested(&net), 1_000);
    net.run(SECOND);
    inject(&mut net, &[offer(own(), 10_000, 100, 70)]);
    assert_eq!(requested(&net), 1_100, "in the next heartbeat");
}

#[test]
fn five_thousand_messages_are_requested_in_a_heartbeat() {
    let mut net = pair();
    let offers = [0, 1].map(|n| offer(own(), n * 4_000, 4_000, 70));
    inject(&mut net, &offers);
    assert_eq!(requested(&net), 5_000);
}

#[test]
fn offers_of_foreign_topics_and_of_impossible_ids_are_not_requested() {
    let mut net = pair();
    let foreign = topic_hash(&topic(2));
    inject(&mut net, &[offer(foreign, 0, 10, 70)]);
    inject(&mut net, &[offer(own(), 0, 10, 129)]);
    assert_eq!(requested(&net), 0);
    inject(&mut net, &[offer(own(), 0, 10, 128)]);
    assert_eq!(requested(&net), 10);
}

#[test]
fn a_peer_with_a_score_below_the_threshold_is_asked_for_nothing() {
    let mut net = pair();
    inject(&mut net, &[unsigned(5)]);
    assert!((-300.0..-100.0).contains(&score(&net)), "{}", score(&net));
    inject(&mut net, &[offer(own(), 0, 10, 70)]);
    assert_eq!(requested(&net), 0);
}

#[test]
fn offers_that_are_not_kept_lower_the_score() {
    let mut net = pair();
    let before = score(&net);
    inject(&mut net, &[offer(own(), 0, 10, 70)]);
    net.run(SECOND * 5);
    assert!(score(&net) < before - 0.5, "{}", score(&net));
}

/// Messages that were never published, in each heartbeat.
#[test]
fn a_peer_that_never_sends_what_it_offers_is_soon_not_asked_any_more() {
    let mut net = pair();
    for second in 0..24 {
        inject(&mut net, &[offer(own(), second * 1_000, 1_000, 70)]);
        net.run(Duration::from_millis(900));
    }
    let score = score(&net);
    assert!(score < -100.0, "{score}");
}

/// A message that node 1 has published and node 0 refuses for its size, and an offer of it. Nodes 1
/// and 2 do not send it any more.
fn refused_message() -> (Net, Bytes, Rpc) {
    let mut net = Net::new(3);
    let tight = Config {
        max_message_bytes: 100,
        ..Config::small()
    };
    for config in [&tight, &Config::small(), &Config::small()] {
        let node = net.add(config);
        net.subscribe(node, &topic(1));
        if node > 0 {
            net.connect(node, 0);
        }
    }
    net.connect(1, 2);
    net.run(SECOND * 2);
    net.record = Some(1);
    let id = net.publish(1, &topic(1), vec![7; 101]).unwrap();
    net.run(SECOND);
    let message = sent_messages(&net, 0).remove(0);
    let author = Arc::new(HashSet::from([net.nodes[1].peer]));
    for node in 1..3 {
        net.nodes[node].withholds = Withholds::Of(author.clone());
    }
    (net.sent, net.record) = (Default::default(), Some(0));
    let offer = control(Control {
        ihave: vec![(own(), vec![Bytes::copy_from_slice(id.as_bytes())])],
        ..Control::default()
    });
    (net, message, offer)
}

#[test]
fn a_message_that_is_refused_is_requested_once_and_its_sender_is_not_blamed() {
    let (mut net, message, offer) = refused_message();
    let dropped = |net: &Net| net.nodes[0].machine.mesh_stats().counters.too_large_dropped;
    let before = (score(&net), dropped(&net));
    inject(&mut net, std::slice::from_ref(&offer));
    assert_eq!(requested(&net), 1);
    // Another one offers it as well, and would be asked in half a second.
    net.inject(2, 0, vec![offer.encode()]);
    inject(&mut net, &[carrying(vec![message])]);
    inject(&mut net, std::slice::from_ref(&offer));
    net.run(SECOND);
    inject(&mut net, std::slice::from_ref(&offer));
    net.inject(2, 0, vec![offer.encode()]);
    net.run(SECOND * 5);
    assert_eq!(requested(&net), 1, "requested again");
    let others = net.sent.get(&2).into_iter().flatten();
    assert_eq!(others.map(|rpc| rpc.control.iwant.len()).sum::<usize>(), 0);
    assert!(score(&net) > before.0 - 0.01, "{}", score(&net));
    assert_eq!(dropped(&net), before.1 + 1);
}

/// A forged message must neither keep a promise nor keep the real one away.
#[test]
fn a_forged_message_that_is_refused_does_not_keep_a_promise() {
    let (mut net, message, offer) = refused_message();
    let mut forged = message.to_vec();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    inject(&mut net, std::slice::from_ref(&offer));
    net.inject(2, 0, vec![offer.encode()]);
    inject(&mut net, &[carrying(vec![forged.into()])]);
    let before = score(&net);
    net.run(SECOND * 5);
    let others = net.sent[&2].iter();
    assert_eq!(others.map(|rpc| rpc.control.iwant.len()).sum::<usize>(), 1);
    assert!(score(&net) < before - 0.5, "{}", score(&net));
}

/// IDONTWANT, IHAVE and IWANT with as many ids as fit.
#[test]
fn ids_count_towards_the_limit_of_control() {
    let id = |number: usize| Bytes::from(format!("{number:0>70}"));
    let ids = |count: usize| (0..count).map(id).collect::<Vec<_>>();
    let flood = [
        control(Control {
            idontwant: ids(10_000),
            ..Control::default()
        }),
        control(Control {
            iwant: ids(10_000),
            ..Control::default()
        }),
        control(Control {
            ihave: vec![(topic_hash(&topic(9)), ids(10_000))],
            ..Control::default()
        }),
    ];
    for rpc in flood {
        let mut net = pair();
        inject(&mut net, &vec![rpc; 40]);
        assert!(score(&net) < 0.0, "{}", score(&net));
    }
    // What honest nodes send at most in a heartbeat: ids as in the limits of go-libp2p and
    // rust-libp2p, for many topics.
    let mut net = pair();
    for _ in 0..20 {
        let before = score(&net);
        let offers = (100..110).map(|number| (topic_hash(&topic(number)), ids(1_500)));
        let rpcs = [
            control(Control {
                ihave: offers.collect(),
                ..Control::default()
            }),
            control(Control {
                iwant: ids(5_000),
                idontwant: ids(5_000),
                ..Control::default()
            }),
        ];
        inject(&mut net, &rpcs);
        assert!(score(&net) >= before - 0.01, "{}", score(&net));
        net.run(Duration::from_millis(900));
    }
}

#[test]
fn a_graft_during_the_back_off_is_refused_and_lowers_the_score() {
    let mut net = pair();
    assert!(is_in_mesh(&net));
    inject(&mut net, &[prune(600)]);
    assert!(!is_in_mesh(&net));
    let before = score(&net);
    net.sent.clear();
    inject(&mut net, &[graft()]);
    assert!(!is_in_mesh(&net));
    assert!(score(&net) < before - 0.1);
    let mut sent = net.sent[&1].iter();
    assert!(sent.any(|rpc| rpc.control.prune.iter().any(|(topic, _)| *topic == own())));
}

#[test]
fn the_longest_back_off_is_an_hour() {
    let mut net = pair();
    inject(&mut net, &[prune(u64::MAX)]);
    net.run(SECOND * 3_500);
    assert!(!is_in_mesh(&net));
    net.run(SECOND * 200);
    assert!(is_in_mesh(&net));
}

#[test]
fn a_peer_with_a_score_below_zero_leaves_the_mesh() {
    let mut net = pair();
    assert!(is_in_mesh(&net));
    inject(&mut net, &[unsigned(3)]);
    assert!(score(&net) < 0.0);
    net.run(SECOND);
    assert!(!is_in_mesh(&net), "at a heartbeat");
}

#[test]
fn a_peer_with_a_score_below_zero_is_not_taken_into_a_mesh() {
    for (faults, taken) in [(1, true), (3, false)] {
        let mut net = pair();
        // Node 1 takes no part in the topic but for what the test sends.
        net.unsubscribe(1, &topic(1));
        net.run(SECOND * 3);
        inject(&mut net, &[unsigned(faults)]);
        assert_eq!(score(&net) >= 0.0, taken);
        inject(&mut net, &[graft()]);
        assert_eq!(is_in_mesh(&net), taken, "{faults}");
    }
}

#[test]
fn a_mesh_that_is_full_takes_nobody_in_that_dialled() {
    let config = Config::small();
    let mut net = Net::new(3);
    for node in 0..14 {
        let keypair = Keypair::ed25519_from_bytes([node + 1; 32]).unwrap();
        let node = net.add_with(keypair, &config);
        net.subscribe(node, &topic(1));
    }
    for node in 1..14 {
        net.connect(node, 0);
    }
    net.run(Duration::from_millis(100));
    for node in 1..14 {
        net.inject(node, 0, vec![graft().encode()]);
    }
    net.run(Duration::from_millis(50));
    let mesh = net.nodes[0].machine.mesh_peers(&topic(1));
    assert_eq!(mesh.len(), config.mesh.high);
}

#[test]
fn a_message_is_sent_to_one_peer_three_times_on_request() {
    let mut net = pair();
    let id = net.publish(0, &topic(1), "wanted").unwrap();
    net.run(Duration::from_millis(50));
    net.sent.clear();
    let want = control(Control {
        iwant: vec![Bytes::copy_from_slice(id.as_bytes())],
        ..Control::default()
    });
    inject(&mut net, &vec![want; 10]);
    let sent = net.sent.get(&1).into_iter().flatten();
    assert_eq!(sent.map(|rpc| rpc.messages.len()).sum::<usize>(), 3);
}

#[test]
fn names_that_are_no_topics_are_refused_and_lower_the_score() {
    let mut net = pair();
    let before = score(&net);
    let subscriptions = (0..640).map(|n| Subscription {
        topic: TopicHash::from_raw(format!("{n:0>2000}")),
        subscribes: true,
    });
    let rpc = Rpc {
        subscriptions: subscriptions.collect(),
        ..Rpc::default()
    };
    inject(&mut net, &[rpc]);
    let counters = net.nodes[0].machine.mesh_stats().counters;
    assert_eq!(counters.announcements_refused, 640);
    assert!(score(&net) < before - 5.0);
}

/// The messages that the recorded node has sent to `to`.
fn sent_messages(net: &Net, to: usize) -> Vec<Bytes> {
    let rpcs = net.sent.get(&to).into_iter().flatten();
    rpcs.flat_map(|rpc| rpc.messages.clone()).collect()
}

fn carrying(messages: Vec<Bytes>) -> Rpc {
    Rpc {
        messages,
        ..Rpc::default()
    }
}

/// A restarted node has forgotten what it published. Its peers may still have it.
#[test]
fn an_own_message_that_comes_back_after_a_restart_is_not_delivered() {
    let mut net = pair();
    let id = net.publish(0, &topic(1), "own").unwrap();
    net.run(Duration::from_millis(100));
    let published = sent_messages(&net, 1);
    assert_eq!(published.len(), 1);
    net.restart(0);
    // Otherwise the peer offers the message itself.
    let peer = net.nodes[0].peer;
    net.handle(1, Input::Left { peer });
    net.subscribe(0, &topic(1));
    net.connect(1, 0);
    net.run(SECOND * 2);
    let before = score(&net);
    let offer = control(Control {
        ihave: vec![(own(), vec![Bytes::copy_from_slice(id.as_bytes())])],
        ..Control::default()
    });
    net.sent.clear();
    inject(&mut net, std::slice::from_ref(&offer));
    assert_eq!(requested(&net), 1);
    inject(&mut net, &[carrying(published), offer]);
    assert!(net.nodes[0].messages().is_empty());
    assert_eq!(requested(&net), 1, "requested again");
    net.run(SECOND * 5);
    assert!(score(&net) > before - 0.5, "the peer has kept its promise");
}

/// The author knows what it has published before. Another peer may have been late.
#[test]
fn a_late_repetition_lowers_the_score_of_the_author_alone() {
    for author in [1, 2] {
        let mut net = pair();
        if author == 2 {
            let node = net.add(&Config::small());
            net.subscribe(node, &topic(1));
            net.connect(node, 1);
            net.run(SECOND * 2);
        }
        net.record = Some(1);
        net.publish(author, &topic(1), "once").unwrap();
        net.run(SECOND * 31);
        let message = sent_messages(&net, 0).remove(0);
        let before = score(&net);
        inject(&mut net, &[carrying(vec![message; 10])]);
        let counters = net.nodes[0].machine.mesh_stats().counters;
        assert_eq!(counters.replays_dropped, 10);
        let lost = before - score(&net);
        let is_expected = if author == 1 { lost > 9.0 } else { lost < 0.1 };
        assert!(is_expected, "{lost} points for a message of node {author}");
    }
}

/// A node 0 to which `inbound` subscribers have dialled, and whose mesh they fill.
fn surrounded(seed: u64, inbound: usize) -> Net {
    let mut net = Net::new(seed);
    for _ in 0..=inbound {
        let node = net.add(&Config::small());
        net.subscribe(node, &topic(1));
    }
    for node in 1..=inbound {
        net.connect(node, 0);
    }
    net.run(Duration::from_millis(100));
    for node in 1..=inbound {
        net.inject(node, 0, vec![graft().encode()]);
    }
    net.run(SECOND * 2);
    net.record = Some(0);
    net
}

#[test]
fn a_mesh_that_is_too_full_keeps_the_members_that_this_node_dialled() {
    for seed in 0..10 {
        let mut net = surrounded(seed, 8);
        let mesh = net.nodes[0].machine.mesh_peers(&topic(1));
        assert_eq!(mesh.len(), Config::small().mesh.high);
        let outbound = net.add(&Config::small());
        net.subscribe(outbound, &topic(1));
        net.connect(0, outbound);
        net.run(SECOND * 2);
        let mesh = net.nodes[0].machine.mesh_peers(&topic(1));
        assert!(mesh.len() <= Config::small().mesh.high, "{}", mesh.len());
        assert!(mesh.contains(&net.nodes[outbound].peer), "seed {seed}");
        let mut sent = net.sent[&outbound].iter();
        assert!(
            sent.all(|rpc| rpc.control.prune.is_empty()),
            "it was removed and came back, seed {seed}"
        );
    }
}

/// Enough members, and an attacker may have all of them: this node takes in one that it dialled.
#[test]
fn a_mesh_without_a_member_that_this_node_dialled_takes_one_in() {
    let mut net = surrounded(1, 4);
    // A subscriber that grafts no peer.
    let outbound = net.add(&Config::small());
    net.connect(0, outbound);
    net.run(SECOND / 10);
    let subscribes = Rpc {
        subscriptions: vec![Subscription {
            topic: own(),
            subscribes: true,
        }],
        ..Rpc::default()
    };
    net.inject(outbound, 0, vec![subscribes.encode()]);
    net.run(SECOND * 2);
    let mesh = net.nodes[0].machine.mesh_peers(&topic(1));
    assert!(mesh.len() > 4, "{}", mesh.len());
    assert!(mesh.contains(&net.nodes[outbound].peer));
}

/// A list that is complete replaces what the peer announced before. A list that claims more topics
/// than a node may have is no list, so that it cannot be collected without end.
#[test]
fn a_list_of_more_topics_than_a_node_may_have_is_not_collected() {
    for (count, replaces) in [(MAX_OWN_TOPICS, true), (MAX_OWN_TOPICS + 1, false)] {
        let mut net = pair();
        let subscriptions = (0..count).map(|number| Subscription {
            topic: topic_hash(&topic(1_000 + u32::try_from(number).unwrap())),
            subscribes: true,
        });
        let list = Rpc {
            subscriptions: subscriptions.collect(),
            control: Control {
                announces: Some(count as u64),
                ..Control::default()
            },
            ..Rpc::default()
        };
        inject(&mut net, &[list]);
        let known = net.nodes[0].machine.subscribed_peers(&topic(1));
        assert_eq!(known.is_empty(), replaces, "{count} topics");
    }
}

#[test]
fn topics_of_all_peers_together_are_bounded() {
    let mut config = Config::small();
    config.peers.max_foreign_topics = 25;
    let mut net = Net::new(3);
    net.add(&config);
    net.subscribe(0, &topic(1));
    for _ in 0..3 {
        let node = net.add(&Config::small());
        net.connect(node, 0);
        net.run(SECOND / 10);
        let first = 1_000 * u32::try_from(node).unwrap();
        for number in 0..10 {
            net.subscribe(node, &topic(first + number));
        }
        net.subscribe(node, &topic(1));
        net.run(SECOND);
    }
    let machine = &net.nodes[0].machine;
    let known = (1..=3).map(|node| {
        let topics = (0..10).map(|number| topic(1_000 * node + number));
        let known = topics.filter(|topic| !machine.subscribed_peers(topic).is_empty());
        known.count()
    });
    assert_eq!(known.collect::<Vec<_>>(), [10, 10, 5]);
    assert_eq!(machine.mesh_stats().counters.announcements_refused, 5);
    assert_eq!(
        machine.subscribed_peers(&topic(1)).len(),
        3,
        "the own topic"
    );
}
