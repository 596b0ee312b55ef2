//! Several connections between two nodes: messages go on the better one, and none is lost with one
//! that fails.
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
    machine::{Input, Version},
};
use libp2p_swarm::ConnectionId;
use net::{Net, topic};

const SECOND: Duration = Duration::from_secs(1);
/// From the failure of a path to the end of its connection: more than QUIC takes, and TCP if it is
/// idle.
const NOTICED: Duration = Duration::from_secs(12);
const MESSAGES: usize = 20;

/// Two nodes that subscribe to one topic, and their connections.
fn pair(connections: usize, version: Version) -> (Net, Vec<ConnectionId>) {
    let mut net = Net::new(5);
    net.version = version;
    for _ in 0..2 {
        let node = net.add(&Config::small());
        net.subscribe(node, &topic(1));
    }
    for _ in 0..connections {
        net.connect_again(0, 1);
    }
    net.run(SECOND * 3);
    let connections = net.connections(0, 1).to_vec();
    (net, connections)
}

/// Both nodes publish.
fn publish(net: &mut Net, round: &str) -> Vec<Bytes> {
    let messages: Vec<_> = (0..MESSAGES)
        .map(|number| Bytes::from(format!("{round} {number}")))
        .collect();
    for message in &messages {
        for node in 0..2 {
            net.publish(node, &topic(1), message.clone()).unwrap();
        }
        net.run(SECOND / 10);
    }
    messages
}

/// Takes what has arrived at each node since.
fn arrived(net: &mut Net) -> [Vec<Bytes>; 2] {
    [0, 1].map(|node| {
        let mut messages = net.nodes[node].messages();
        net.nodes[node].events.clear();
        messages.sort_unstable();
        messages
    })
}

fn sorted(mut messages: Vec<Bytes>) -> [Vec<Bytes>; 2] {
    messages.sort_unstable();
    [messages.clone(), messages]
}

/// Reports a measurement to both nodes.
fn report(net: &mut Net, input: impl Fn(calimero_network_primitives::PeerId) -> Input) {
    for (node, other) in [(0, 1), (1, 0)] {
        let peer = net.nodes[other].peer;
        net.handle(node, input(peer));
    }
}

fn prefer(net: &mut Net, connection: ConnectionId) {
    report(net, |peer| Input::Preferred { peer, connection });
}

const VERSIONS: [Version; 3] = [Version::V1_0, Version::V1_1, Version::V1_3];

#[test]
fn messages_go_on_the_connection_that_is_preferred() {
    for preferred in 0..2 {
        let (mut net, connections) = pair(2, Version::V1_3);
        prefer(&mut net, connections[preferred]);
        net.run(SECOND);
        net.blocked.insert(connections[1 - preferred]);
        let messages = publish(&mut net, "preferred");
        net.run(SECOND);
        assert_eq!(arrived(&mut net), sorted(messages));
    }
}

#[test]
fn a_node_that_chooses_another_connection_does_not_change_the_choice() {
    let (mut net, connections) = pair(2, Version::V1_3);
    for (node, &connection) in connections.iter().enumerate() {
        let peer = net.nodes[1 - node].peer;
        net.handle(node, Input::Preferred { peer, connection });
    }
    publish(&mut net, "both");
    net.run(SECOND);
    arrived(&mut net);
    // Now each one's own choice decides what arrives.
    net.blocked.insert(connections[1]);
    let messages = publish(&mut net, "one");
    net.run(SECOND);
    let [at_first, at_second] = arrived(&mut net);
    assert_eq!(
        (at_first, at_second),
        (Vec::new(), sorted(messages)[0].clone())
    );
}

#[test]
fn no_message_is_lost_with_one_of_two_connections() {
    for version in VERSIONS {
        let (mut net, connections) = pair(2, version);
        prefer(&mut net, connections[0]);
        publish(&mut net, "before");
        net.run(SECOND);
        arrived(&mut net);
        net.blocked.insert(connections[0]);
        let messages = publish(&mut net, "blocked");
        net.run(NOTICED);
        assert_eq!(arrived(&mut net), [Vec::<Bytes>::new(), Vec::new()]);
        net.disconnect_one(0, 1, connections[0]);
        net.run(SECOND);
        assert_eq!(arrived(&mut net), sorted(messages), "{version:?}");
        let messages = publish(&mut net, "after");
        net.run(SECOND);
        assert_eq!(arrived(&mut net), sorted(messages), "{version:?}");
    }
}

#[test]
fn no_message_is_lost_with_the_only_connection_of_a_peer_that_returns() {
    for version in VERSIONS {
        let (mut net, connections) = pair(1, version);
        publish(&mut net, "before");
        arrived(&mut net);
        net.blocked.insert(connections[0]);
        let messages = publish(&mut net, "blocked");
        net.run(NOTICED);
        net.disconnect(0, 1);
        net.run(SECOND * 3);
        net.connect(0, 1);
        net.run(SECOND);
        assert_eq!(arrived(&mut net), sorted(messages), "{version:?}");
    }
}

/// The side that notices first opens another connection, and has no other one by then.
#[test]
fn no_message_is_lost_if_the_other_side_notices_the_end_later() {
    for version in VERSIONS {
        let (mut net, connections) = pair(1, version);
        publish(&mut net, "before");
        net.run(SECOND);
        arrived(&mut net);
        net.blocked.insert(connections[0]);
        let mut messages = publish(&mut net, "blocked");
        net.run(NOTICED);
        net.fail_for(1, 0, connections[0]);
        net.connect_again(1, 0);
        net.run(SECOND);
        messages.append(&mut publish(&mut net, "meanwhile"));
        let (peer, connection) = (net.nodes[1].peer, connections[0]);
        net.handle(0, Input::Disconnected { peer, connection });
        net.run(SECOND);
        assert_eq!(arrived(&mut net), sorted(messages), "{version:?}");
    }
}

#[test]
fn a_connection_without_answers_is_left_without_waiting_for_its_end() {
    let (mut net, connections) = pair(2, Version::V1_3);
    prefer(&mut net, connections[0]);
    publish(&mut net, "before");
    net.run(SECOND);
    arrived(&mut net);
    net.blocked.insert(connections[0]);
    let messages = publish(&mut net, "blocked");
    let connection = connections[0];
    report(&mut net, |peer| Input::Unanswered { peer, connection });
    net.run(SECOND);
    assert_eq!(arrived(&mut net), sorted(messages));
    let messages = publish(&mut net, "moved");
    net.run(SECOND);
    assert_eq!(arrived(&mut net), sorted(messages));
}

/// The bytes of the offers and what is requested because of them, as far as a peer has all
/// messages.
#[test]
fn a_peer_that_missed_nothing_requests_nothing() {
    let (mut net, connections) = pair(2, Version::V1_3);
    prefer(&mut net, connections[0]);
    publish(&mut net, "before");
    net.run(SECOND);
    arrived(&mut net);
    net.record = Some(1);
    net.disconnect_one(0, 1, connections[0]);
    net.run(SECOND * 2);
    let sent = net.sent.values().flatten();
    let [offered, requested] = sent.fold([0, 0], |[offered, requested], rpc| {
        let ids = rpc.control.ihave.iter().map(|(_, ids)| ids.len());
        [
            offered + ids.sum::<usize>(),
            requested + rpc.control.iwant.len(),
        ]
    });
    assert_eq!([offered, requested], [2 * MESSAGES, 0]);
    assert_eq!(arrived(&mut net), [Vec::<Bytes>::new(), Vec::new()]);
}

#[test]
fn nothing_is_offered_to_a_peer_that_left_or_was_away_for_long() {
    for (left, away) in [(true, SECOND), (false, SECOND * 90)] {
        let (mut net, _) = pair(1, Version::V1_3);
        publish(&mut net, "before");
        net.disconnect(0, 1);
        if left {
            report(&mut net, |peer| Input::Left { peer });
        }
        net.run(away);
        net.record = Some(0);
        net.connect(0, 1);
        net.run(SECOND);
        let sent = net.sent.values().flatten();
        let offers = sent.map(|rpc| rpc.control.ihave.len()).sum::<usize>();
        assert_eq!(offers, 0, "left: {left}");
    }
}

#[test]
fn a_spare_is_kept_while_either_side_uses_it() {
    let (mut net, connections) = pair(2, Version::V1_3);
    let kept = |net: &Net| [0, 1].map(|number| net.kept[&(0, connections[number])]);
    assert_eq!(kept(&net), [true, true]);
    prefer(&mut net, connections[0]);
    let (peer, me) = (net.nodes[1].peer, net.nodes[0].peer);
    let connection = connections[1];
    let spare = |spare| Input::Spare {
        peer,
        connection,
        spare,
    };
    net.run(SECOND * 90);
    net.handle(0, spare(true));
    net.run(SECOND * 2);
    assert_eq!(kept(&net), [true, false]);
    // The peer chooses this one for its messages.
    net.handle(
        1,
        Input::Preferred {
            peer: me,
            connection,
        },
    );
    publish(&mut net, "on the spare");
    assert_eq!(kept(&net), [true, true]);
    net.run(SECOND * 30);
    assert_eq!(kept(&net), [true, true]);
    net.run(SECOND * 60);
    assert_eq!(kept(&net), [true, false]);
    net.handle(0, spare(false));
    assert_eq!(kept(&net), [true, true]);
}
