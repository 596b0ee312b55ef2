//! What a peer missed is offered in portions that it considers, and as often as it may have been
//! lost.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says so"
)]

mod net;

use std::time::Duration;

use bytes::Bytes;
use calimero_network_pubsub::{
    Config,
    machine::Input,
    rpc::{Rpc, Subscription},
    topic_hash,
};
use libp2p_swarm::ConnectionId;
use net::{Net, topic};

const SECOND: Duration = Duration::from_secs(1);
const TOPICS: u32 = 3;
/// RPCs with offers of one peer that a node considers in a heartbeat.
const CONSIDERED: usize = 10;

/// Two nodes that subscribe to the same topics.
fn pair(connections: usize) -> (Net, Vec<ConnectionId>) {
    let mut net = Net::new(9);
    for _ in 0..2 {
        let node = net.add(&Config::small());
        (0..TOPICS).for_each(|number| net.subscribe(node, &topic(number)));
    }
    for _ in 0..connections {
        net.connect_again(0, 1);
    }
    net.run(SECOND * 3);
    let connections = net.connections(0, 1).to_vec();
    (net, connections)
}

fn prefer(net: &mut Net, connection: ConnectionId) {
    for (node, other) in [(0, 1), (1, 0)] {
        let peer = net.nodes[other].peer;
        net.handle(node, Input::Preferred { peer, connection });
    }
}

/// The first node publishes as many messages to each topic in each tenth of a second.
fn publish(net: &mut Net, round: &str, tenths: usize, each: usize) -> Vec<Bytes> {
    let mut messages = Vec::new();
    for tenth in 0..tenths {
        for number in 0..each {
            for index in 0..TOPICS {
                let message = Bytes::from(format!("{round} {tenth} {number} {index}"));
                net.publish(0, &topic(index), message.clone()).unwrap();
                messages.push(message);
            }
        }
        net.run(SECOND / 10);
    }
    messages.sort_unstable();
    messages
}

/// Takes what has arrived at the second node since.
fn arrived(net: &mut Net) -> Vec<Bytes> {
    let mut messages = net.nodes[1].messages();
    net.nodes[1].events.clear();
    messages.sort_unstable();
    messages
}

fn is_offer(rpc: &&Rpc) -> bool {
    !rpc.control.ihave.is_empty()
}

#[test]
fn more_than_a_peer_considers_at_a_time_is_offered_in_portions() {
    let (mut net, connections) = pair(2);
    prefer(&mut net, connections[0]);
    net.blocked.insert(connections[0]);
    let messages = publish(&mut net, "blocked", 100, 20);
    assert_eq!(messages.len(), 6_000);
    net.record = Some(0);
    net.disconnect_one(0, 1, connections[0]);
    let mut received = Vec::new();
    for _ in 0..6 {
        net.run(SECOND);
        let offers = net.sent.remove(&1).unwrap_or_default();
        let offers = offers.iter().filter(is_offer).count();
        assert!(offers <= CONSIDERED, "{offers} RPCs in a second");
        let before = received.len();
        received.append(&mut arrived(&mut net));
        // No topic waits for another one.
        for index in 0..TOPICS {
            let of_topic = |message: &&Bytes| message.ends_with(index.to_string().as_bytes());
            let number = received[before..].iter().filter(of_topic).count();
            let share = (received.len() - before) / TOPICS as usize;
            assert!(
                number.abs_diff(share) < 50,
                "topic {index}: {number} of {share}"
            );
        }
    }
    received.sort_unstable();
    assert_eq!(received.len(), messages.len());
    assert_eq!(received, messages);
}

#[test]
fn offers_that_were_lost_with_their_connection_are_repeated() {
    let (mut net, connections) = pair(3);
    prefer(&mut net, connections[0]);
    publish(&mut net, "before", 1, 1);
    net.blocked.extend(&connections[..2]);
    let messages = publish(&mut net, "blocked", 5, 1);
    prefer(&mut net, connections[1]);
    arrived(&mut net);
    for connection in &connections[..2] {
        net.disconnect_one(0, 1, *connection);
        assert_eq!(arrived(&mut net), Vec::<Bytes>::new());
        net.run(SECOND * 2);
    }
    assert_eq!(arrived(&mut net), messages);
}

#[test]
fn no_message_is_lost_if_the_first_connection_of_a_peer_that_returns_fails_at_once() {
    let (mut net, connections) = pair(1);
    publish(&mut net, "before", 1, 1);
    net.run(SECOND);
    arrived(&mut net);
    // The second one as well, which carries nothing.
    net.blocked.extend([connections[0], net.next_connection()]);
    let messages = publish(&mut net, "blocked", 5, 1);
    for _ in 0..2 {
        net.disconnect(0, 1);
        net.run(SECOND);
        net.connect(0, 1);
        net.run(SECOND);
    }
    assert_eq!(arrived(&mut net), messages);
}

#[test]
fn a_peer_that_subscribes_in_turns_is_offered_each_message_once() {
    let (mut net, _) = pair(1);
    let messages = publish(&mut net, "before", 5, 1);
    net.disconnect(0, 1);
    net.record = Some(0);
    net.connect(0, 1);
    net.run(SECOND / 10);
    for subscribes in [false, true].repeat(5) {
        let subscriptions = (0..TOPICS).map(|number| Subscription {
            topic: topic_hash(&topic(number)),
            subscribes,
        });
        let rpc = Rpc {
            subscriptions: subscriptions.collect(),
            ..Rpc::default()
        };
        net.inject(1, 0, vec![rpc.encode()]);
        net.run(SECOND / 10);
    }
    net.run(SECOND * 5);
    let offers = net.sent[&1].iter().flat_map(|rpc| &rpc.control.ihave);
    let offered = offers.map(|(_, ids)| ids.len()).sum::<usize>();
    assert_eq!(offered, messages.len());
}

#[test]
fn a_graft_that_was_written_to_a_dead_connection_is_repeated() {
    let mut net = Net::new(9);
    let config = Config::small();
    let _ = [net.add(&config), net.add(&config)];
    net.connect(0, 1);
    net.connect_again(0, 1);
    net.run(SECOND);
    let connections = net.connections(0, 1).to_vec();
    prefer(&mut net, connections[0]);
    net.blocked.insert(connections[0]);
    for node in 0..2 {
        net.subscribe(node, &topic(0));
    }
    net.run(SECOND);
    assert_eq!(net.nodes[0].machine.mesh_peers(&topic(0)).len(), 1);
    net.record = Some(0);
    net.disconnect_one(0, 1, connections[0]);
    net.run(SECOND);
    let grafts = net.sent[&1].iter().map(|rpc| rpc.control.graft.len());
    assert_eq!(grafts.sum::<usize>(), 1);
}

#[test]
fn what_a_connection_without_answers_carried_before_is_offered_on_the_better_one() {
    let (mut net, connections) = pair(2);
    prefer(&mut net, connections[0]);
    net.blocked.insert(connections[0]);
    let messages = publish(&mut net, "blocked", 5, 1);
    prefer(&mut net, connections[1]);
    net.run(SECOND);
    assert_eq!(arrived(&mut net), Vec::<Bytes>::new());
    let (peer, connection) = (net.nodes[1].peer, connections[0]);
    net.handle(0, Input::Unanswered { peer, connection });
    net.run(SECOND);
    assert_eq!(arrived(&mut net), messages);
}

#[test]
fn a_connection_that_answers_again_is_used_again() {
    for by_ping in [false, true] {
        let (mut net, connections) = pair(2);
        let [better, other] = connections[..] else {
            panic!("two connections");
        };
        if !by_ping {
            prefer(&mut net, better);
        }
        let (peer, connection) = (net.nodes[1].peer, better);
        net.handle(0, Input::Unanswered { peer, connection });
        net.run(SECOND);
        if by_ping {
            prefer(&mut net, better);
        } else {
            net.publish(1, &topic(0), "speaks there").unwrap();
        }
        net.run(SECOND);
        net.blocked.insert(other);
        let messages = publish(&mut net, "again", 5, 1);
        net.run(SECOND / 10);
        assert_eq!(arrived(&mut net), messages, "by a ping: {by_ping}");
    }
}

#[test]
fn a_spare_is_kept_once_the_stream_of_the_connection_in_use_is_lost() {
    let (mut net, connections) = pair(2);
    prefer(&mut net, connections[0]);
    net.run(SECOND * 90);
    let (peer, connection) = (net.nodes[1].peer, connections[1]);
    let spare = true;
    let input = Input::Spare {
        peer,
        connection,
        spare,
    };
    net.handle(0, input);
    net.run(SECOND * 2);
    assert!(!net.kept[&(0, connections[1])]);
    let connection = connections[0];
    net.handle(0, Input::Lost { peer, connection });
    assert!(net.kept[&(0, connections[1])]);
}
