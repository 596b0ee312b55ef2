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
use calimero_network_pubsub::{Config, machine::Input, rpc::Rpc};
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
