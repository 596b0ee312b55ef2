//! What may happen between a few nodes, one step for [`STEP`] bytes. A property test and a fuzz target
//! run it.
#![allow(
    clippy::panic,
    reason = "what does not hold is said by a panic, in a test and in a fuzz target"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use calimero_network_primitives::{Keypair, Topic};
use calimero_network_pubsub::{Config, Event, machine::Version};
use rand::seq::IteratorRandom;

use super::{Net, topic};

/// Bytes of one step: the action, its node, and the time until the next step.
pub const STEP: usize = 3;

/// Topics of a script.
const TOPICS: u8 = 3;

/// Connections of two nodes, at most.
const MAX_CONNECTIONS: usize = 3;

/// Time in which every stream has been opened again and every back-off is over.
const SETTLED: Duration = Duration::from_secs(150);

/// Payload that takes more than one write.
const LARGE: usize = 100_000;

/// A network of two or three nodes that follow the protocol, on connections that fail.
pub struct Script {
    pub net: Net,
    /// The topics of each node.
    subscribed: Vec<BTreeSet<u8>>,
    /// Publisher and topic of each message.
    published: BTreeMap<u32, (usize, u8)>,
}

impl Script {
    /// `variant` chooses the number of nodes, the configuration and the version.
    pub fn new(variant: u8, seed: u64) -> Self {
        let mut config = Config::small();
        config.mesh.flood_publish = variant & 1 == 0;
        let mut net = Net::new(seed);
        net.skew = Duration::from_millis(if variant & 2 == 0 { 0 } else { 90 });
        net.version = match variant >> 2 & 3 {
            0 => Version::V1_0,
            1 => Version::V1_1,
            2 => Version::V1_2,
            _ => Version::V1_3,
        };
        let nodes = 2 + usize::from(variant >> 4 & 1);
        for node in 0..nodes {
            let secret = [u8::try_from(node).unwrap_or_default() + 1; 32];
            let keypair = Keypair::ed25519_from_bytes(secret);
            net.add_with(keypair.unwrap_or_else(|error| panic!("{error}")), &config);
        }
        Self {
            net,
            subscribed: vec![BTreeSet::new(); nodes],
            published: BTreeMap::new(),
        }
    }

    /// Carries out one step, and checks what holds at all times.
    pub fn step(&mut self, [what, whom, time]: [u8; STEP]) {
        let nodes = self.subscribed.len();
        let one = usize::from(whom) % nodes;
        let other = (one + 1 + usize::from(whom >> 2) % (nodes - 1)) % nodes;
        let number = (whom >> 4) % TOPICS;
        let link = self.net.connections(one, other).to_vec();
        let connection = link.iter().copied().choose(&mut self.net.rng);
        match (what % 13, connection) {
            (0, _) => self.net.connect(one, other),
            (1, _) if link.len() < MAX_CONNECTIONS => self.net.connect_again(one, other),
            (2, Some(connection)) => self.net.disconnect_one(one, other, connection),
            (3, _) => self.net.disconnect(one, other),
            (4 | 5, _) => {
                self.net.subscribe(one, &numbered(number));
                self.subscribed[one].insert(number);
            }
            (6, _) => {
                self.net.unsubscribe(one, &numbered(number));
                self.subscribed[one].remove(&number);
            }
            (7 | 8, _) => drop(self.publish(one, number, 0)),
            (9, _) => drop(self.publish(one, number, LARGE)),
            (10, Some(connection)) => self.net.break_stream(one, other, connection),
            (11, _) => {
                self.net.restart(one);
                self.subscribed[one].clear();
            }
            (12, _) => self.net.nodes[one].reads = (whom >> 4 & 1 == 0).then_some(50_000),
            _ => {}
        }
        // From no time to 4 s.
        let time = u64::from(time).pow(2) / 16;
        self.net.run(Duration::from_millis(time));
        self.check();
    }

    fn publish(&mut self, node: usize, number: u8, size: usize) -> Option<u32> {
        let id = u32::try_from(self.published.len()).unwrap_or(u32::MAX);
        let mut data = id.to_be_bytes().to_vec();
        data.resize(size.max(4), 0);
        let sent = self.net.publish(node, &numbered(number), data);
        sent.is_ok().then(|| {
            self.published.insert(id, (node, number));
            id
        })
    }

    /// Ids of the messages that a node got since it started, in order.
    fn got(&self, node: usize) -> Vec<(u32, &Topic, usize)> {
        let events = self.net.nodes[node].events.iter();
        let messages = events.filter_map(|event| match event {
            Event::Message(message) => {
                let id = message.data.first_chunk().copied().map(u32::from_be_bytes);
                let id = id.unwrap_or_else(|| panic!("a message that no node has published"));
                Some((id, &message.topic, self.net.index_of(message.source)))
            }
            _ => None,
        });
        messages.collect()
    }

    fn check(&self) {
        for (index, node) in self.net.nodes.iter().enumerate() {
            let mut seen = BTreeSet::new();
            for (id, topic, source) in self.got(index) {
                let published = self.published.get(&id).copied();
                let (publisher, number) =
                    published.unwrap_or_else(|| panic!("message {id} was never published"));
                assert!(seen.insert(id), "message {id} came twice");
                assert_eq!((source, topic), (publisher, &numbered(number)));
                assert_ne!(source, index, "a node got its own message");
            }
            let stats = node.machine.mesh_stats();
            assert_eq!(stats.counters.banned, 0, "a peer that follows the protocol");
            for topic in &stats.topics {
                let subscribers = node.machine.subscribed_peers(&topic.topic);
                for peer in node.machine.mesh_peers(&topic.topic) {
                    assert!(
                        subscribers.contains(&peer),
                        "in a mesh without subscription"
                    );
                    let other = self.net.index_of(peer);
                    assert!(!self.net.connections(index, other).is_empty());
                }
            }
        }
    }

    /// Connects all nodes and checks that each knows the topics of all, and gets each message.
    pub fn settle(&mut self) {
        let nodes = self.subscribed.len();
        for node in 0..nodes {
            self.net.nodes[node].reads = None;
        }
        for _ in 0..2 {
            for one in 0..nodes {
                for other in 0..one {
                    self.net.connect(one, other);
                }
            }
            self.net.run(SETTLED);
            self.check();
        }
        for one in 0..nodes {
            for other in (0..nodes).filter(|other| *other != one) {
                for number in 0..TOPICS {
                    let known = self.net.nodes[one]
                        .machine
                        .subscribed_peers(&numbered(number));
                    assert_eq!(
                        known.contains(&self.net.nodes[other].peer),
                        self.subscribed[other].contains(&number),
                        "whether node {other} subscribes to topic {number}, at node {one}"
                    );
                }
            }
        }
        for one in 0..nodes {
            for number in 0..TOPICS {
                let others = (0..nodes).filter(|other| *other != one);
                let subscribers: Vec<_> = others
                    .filter(|other| self.subscribed[*other].contains(&number))
                    .collect();
                let id = self.publish(one, number, 0);
                assert_eq!(id.is_some(), !subscribers.is_empty());
                self.net.run(Duration::from_secs(5));
                self.check();
                for other in subscribers {
                    let got = self.got(other).iter().any(|(got, ..)| Some(*got) == id);
                    assert!(got, "node {other} did not get {id:?} of node {one}");
                }
            }
        }
    }
}

fn numbered(number: u8) -> Topic {
    topic(u32::from(number))
}
