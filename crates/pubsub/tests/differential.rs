//! The same script on networks of this implementation, of libp2p-gossipsub, and of both.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says so"
)]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use calimero_network_primitives::{Keypair, Multiaddr, PeerId};
use calimero_network_pubsub::{Behaviour, Config, Event};
use futures::StreamExt;
use libp2p_gossipsub as gossipsub;
use libp2p_swarm::{NetworkBehaviour, Swarm, SwarmEvent};
use tokio::sync::{mpsc, watch};

use crate::common::{address, swarm, topic, within};

/// What both implementations offer.
trait Gossip: NetworkBehaviour + Sized {
    fn make(key: Keypair, max_rpc_bytes: usize) -> Self;
    fn subscribe(&mut self, number: u16);
    fn unsubscribe(&mut self, number: u16);
    fn publish(&mut self, number: u16, data: Vec<u8>) -> bool;
    /// The peers that subscribe to a topic.
    fn subscribers(&self, number: u16) -> BTreeSet<PeerId>;
    /// The peers in the mesh of a topic.
    fn mesh(&self, number: u16) -> BTreeSet<PeerId>;
    fn message(event: Self::ToSwarm) -> Option<(PeerId, Vec<u8>)>;
}

impl Gossip for Behaviour {
    fn make(key: Keypair, _: usize) -> Self {
        Self::new(key, &Config::small()).unwrap()
    }

    fn subscribe(&mut self, number: u16) {
        Behaviour::subscribe(self, &topic(number)).unwrap();
    }

    fn unsubscribe(&mut self, number: u16) {
        assert!(Behaviour::unsubscribe(self, &topic(number)));
    }

    fn publish(&mut self, number: u16, data: Vec<u8>) -> bool {
        Behaviour::publish(self, &topic(number), data).is_ok()
    }

    fn subscribers(&self, number: u16) -> BTreeSet<PeerId> {
        self.subscribed_peers(&topic(number)).into_iter().collect()
    }

    fn mesh(&self, number: u16) -> BTreeSet<PeerId> {
        self.mesh_peers(&topic(number)).into_iter().collect()
    }

    fn message(event: Event) -> Option<(PeerId, Vec<u8>)> {
        match event {
            Event::Message(message) => Some((message.source, message.data.to_vec())),
            _ => None,
        }
    }
}

impl Gossip for gossipsub::Behaviour {
    fn make(key: Keypair, max_rpc_bytes: usize) -> Self {
        let config = gossipsub::ConfigBuilder::default()
            .mesh_n(4)
            .mesh_n_low(2)
            .mesh_n_high(8)
            .mesh_outbound_min(1)
            .prune_backoff(Duration::from_secs(1))
            .unsubscribe_backoff(Duration::from_secs(1))
            .max_transmit_size(max_rpc_bytes)
            .build()
            .unwrap();
        let author = gossipsub::MessageAuthenticity::Signed(key);
        Self::new(author, config).unwrap()
    }

    fn subscribe(&mut self, number: u16) {
        let topic = gossipsub::IdentTopic::new(topic(number).to_string());
        assert!(gossipsub::Behaviour::subscribe(self, &topic).unwrap());
    }

    fn unsubscribe(&mut self, number: u16) {
        let topic = gossipsub::IdentTopic::new(topic(number).to_string());
        assert!(gossipsub::Behaviour::unsubscribe(self, &topic));
    }

    fn publish(&mut self, number: u16, data: Vec<u8>) -> bool {
        let topic = gossipsub::IdentTopic::new(topic(number).to_string());
        gossipsub::Behaviour::publish(self, topic, data).is_ok()
    }

    fn subscribers(&self, number: u16) -> BTreeSet<PeerId> {
        let topic = gossipsub::TopicHash::from_raw(topic(number).to_string());
        let peers = self
            .all_peers()
            .filter(|(_, topics)| topics.contains(&&topic));
        peers.map(|(peer, _)| *peer).collect()
    }

    fn mesh(&self, number: u16) -> BTreeSet<PeerId> {
        let topic = gossipsub::TopicHash::from_raw(topic(number).to_string());
        self.mesh_peers(&topic).copied().collect()
    }

    fn message(event: gossipsub::Event) -> Option<(PeerId, Vec<u8>)> {
        match event {
            gossipsub::Event::Message { message, .. } => {
                Some((message.source.unwrap(), message.data))
            }
            _ => None,
        }
    }
}

enum Order {
    Dial(Multiaddr),
    Subscribe(u16),
    Unsubscribe(u16),
    Publish(u16, Vec<u8>),
    /// Answered when those peers subscribe to the topic, and no others do.
    Subscribers(u16, BTreeSet<PeerId>, tokio::sync::oneshot::Sender<()>),
}

struct Node {
    peer: PeerId,
    addr: Multiaddr,
    orders: mpsc::Sender<Order>,
    messages: mpsc::Receiver<(PeerId, Vec<u8>)>,
    /// The peers in the mesh of topic 1.
    mesh: watch::Receiver<BTreeSet<PeerId>>,
}

impl Node {
    fn start<B: Gossip + Send>(max_rpc_bytes: usize) -> Self
    where
        B::ToSwarm: Send,
    {
        let key = Keypair::generate_ed25519();
        let peer = key.public().to_peer_id();
        let mut swarm: Swarm<B> = swarm(key.clone(), B::make(key, max_rpc_bytes));
        let addr = address();
        swarm.listen_on(addr.clone()).unwrap();
        let (orders, mut queue) = mpsc::channel::<Order>(64);
        let (out, messages) = mpsc::channel(10_000);
        let (mesh_out, mesh) = watch::channel(BTreeSet::new());
        tokio::spawn(async move {
            let mut waits = Vec::new();
            // Messages that found no subscriber yet.
            let mut unsent: Vec<(u16, Vec<u8>)> = Vec::new();
            loop {
                tokio::select! {
                    event = swarm.select_next_some() => {
                        if let SwarmEvent::Behaviour(event) = event
                            && let Some(message) = B::message(event)
                        {
                            out.try_send(message).unwrap();
                        }
                    }
                    order = queue.recv() => match order {
                        Some(Order::Dial(addr)) => swarm.dial(addr).unwrap(),
                        Some(Order::Subscribe(number)) => swarm.behaviour_mut().subscribe(number),
                        Some(Order::Unsubscribe(number)) => {
                            swarm.behaviour_mut().unsubscribe(number);
                        }
                        Some(Order::Publish(number, data)) => unsent.push((number, data)),
                        Some(Order::Subscribers(number, peers, reply)) => {
                            waits.push((number, peers, Some(reply)));
                        }
                        None => return,
                    },
                    () = tokio::time::sleep(Duration::from_millis(20)) => {}
                }
                unsent.retain(|(n, data)| !swarm.behaviour_mut().publish(*n, data.clone()));
                waits.retain_mut(|(number, peers, reply)| {
                    let holds = swarm.behaviour().subscribers(*number) == *peers;
                    if holds {
                        reply.take().map(|reply| reply.send(()));
                    }
                    !holds
                });
                mesh_out.send_if_modified(|mesh| {
                    let now = swarm.behaviour().mesh(1);
                    std::mem::replace(mesh, now) != *mesh
                });
            }
        });
        Self {
            peer,
            addr,
            orders,
            messages,
            mesh,
        }
    }

    fn of(ours: bool) -> Self {
        if ours {
            Self::start::<Behaviour>(0)
        } else {
            Self::start::<gossipsub::Behaviour>(2 << 20)
        }
    }

    async fn order(&self, order: Order) {
        self.orders.send(order).await.ok().unwrap();
    }

    async fn knows(&self, number: u16, peers: BTreeSet<PeerId>) {
        let (reply, answer) = tokio::sync::oneshot::channel();
        self.order(Order::Subscribers(number, peers, reply)).await;
        within(answer).await.unwrap();
    }

    async fn next(&mut self) -> (PeerId, Vec<u8>) {
        within(self.messages.recv()).await.expect("node ended")
    }
}

/// Waits until the mesh of topic 1 joins all `members` over links that both ends have in it.
///
/// From then on a message is pushed to each of them. Before that a member may lawfully miss one: a
/// message is pushed to the mesh, and the next heartbeat offers it to subscribers that are not in
/// the mesh at that time. A member that is grafted in between gets neither.
async fn meshed(nodes: &mut [Node], members: &[usize]) {
    within(async {
        loop {
            let meshes: BTreeMap<_, _> = members
                .iter()
                .map(|index| {
                    let node = &mut nodes[*index];
                    (node.peer, node.mesh.borrow_and_update().clone())
                })
                .collect();
            let mut reached = BTreeSet::new();
            let mut open: Vec<_> = meshes.keys().take(1).copied().collect();
            while let Some(one) = open.pop() {
                if reached.insert(one) {
                    let is_mutual = |other: &&PeerId| {
                        meshes.get(*other).is_some_and(|mesh| mesh.contains(&one))
                    };
                    open.extend(meshes[&one].iter().filter(is_mutual));
                }
            }
            if reached.len() == members.len() {
                return;
            }
            let changes = nodes.iter_mut().map(|node| Box::pin(node.mesh.changed()));
            let (changed, ..) = futures::future::select_all(changes).await;
            changed.expect("node ended");
        }
    })
    .await;
}

/// Six nodes in a ring with chords. Everyone subscribes, publishes, some leave, some come back.
async fn script(kinds: [bool; 6]) {
    let mut nodes: Vec<_> = kinds.into_iter().map(Node::of).collect();
    let links = [
        (0, 1),
        (1, 2),
        (2, 3),
        (3, 4),
        (4, 5),
        (5, 0),
        (0, 3),
        (1, 4),
    ];
    for node in &nodes {
        node.order(Order::Subscribe(1)).await;
    }
    for (one, other) in links {
        let addr = nodes[other].addr.clone();
        nodes[one].order(Order::Dial(addr)).await;
    }
    let neighbours = |node: usize, but: Option<usize>| {
        let ends = links.iter().flat_map(|(a, b)| [(*a, *b), (*b, *a)]);
        let others = ends.filter(move |(a, b)| *a == node && Some(*b) != but);
        others.map(|(_, b)| b).collect::<Vec<_>>()
    };
    let peers: Vec<_> = nodes.iter().map(|node| node.peer).collect();
    let known = |node, but| {
        neighbours(node, but)
            .into_iter()
            .map(|n| peers[n])
            .collect()
    };
    for (index, node) in nodes.iter().enumerate() {
        node.knows(1, known(index, None)).await;
    }
    meshed(&mut nodes, &[0, 1, 2, 3, 4, 5]).await;
    for round in 0..3_u8 {
        for (index, node) in nodes.iter().enumerate() {
            let data = vec![round, u8::try_from(index).unwrap()];
            node.order(Order::Publish(1, data)).await;
        }
        for (index, node) in nodes.iter_mut().enumerate() {
            let mut got = BTreeSet::new();
            for _ in 0..5 {
                assert!(got.insert(node.next().await));
            }
            let expected = (0..6_usize)
                .filter(|other| *other != index)
                .map(|other| (peers[other], vec![round, u8::try_from(other).unwrap()]));
            assert_eq!(got, expected.collect());
        }
    }
    // A large message, where all take it.
    nodes[0].order(Order::Publish(1, vec![7; 500_000])).await;
    for node in &mut nodes[1..] {
        assert_eq!(node.next().await.1.len(), 500_000);
    }
    // One leaves and comes back.
    nodes[2].order(Order::Unsubscribe(1)).await;
    for (index, node) in nodes.iter().enumerate() {
        if index != 2 {
            node.knows(1, known(index, Some(2))).await;
        }
    }
    meshed(&mut nodes, &[0, 1, 3, 4, 5]).await;
    nodes[4].order(Order::Publish(1, b"without".to_vec())).await;
    for index in [0, 1, 3, 5] {
        assert_eq!(nodes[index].next().await, (peers[4], b"without".to_vec()));
    }
    nodes[2].order(Order::Subscribe(1)).await;
    for (index, node) in nodes.iter().enumerate() {
        node.knows(1, known(index, None)).await;
    }
    meshed(&mut nodes, &[0, 1, 2, 3, 4, 5]).await;
    nodes[5].order(Order::Publish(1, b"again".to_vec())).await;
    let mut missed = 0;
    for (index, node) in nodes[..5].iter_mut().enumerate() {
        loop {
            let (author, data) = node.next().await;
            if data == b"again" {
                assert_eq!(author, peers[5]);
                break;
            }
            // The member that came back may be offered what it has missed, once.
            assert_eq!((index, &data[..]), (2, &b"without"[..]));
            missed += 1;
        }
    }
    for (index, node) in nodes.iter_mut().enumerate() {
        while let Ok((_, data)) = node.messages.try_recv() {
            assert_eq!(
                (index, &data[..]),
                (2, &b"without"[..]),
                "a message came twice"
            );
            missed += 1;
        }
    }
    assert!(missed <= 1);
}

#[tokio::test]
async fn ours_alone() {
    script([true; 6]).await;
}

#[tokio::test]
async fn theirs_alone() {
    script([false; 6]).await;
}

#[tokio::test]
async fn ours_and_theirs_in_turn() {
    script([true, false, true, false, true, false]).await;
}

#[tokio::test]
async fn one_of_ours_among_theirs_and_one_of_theirs_among_ours() {
    script([true, false, false, false, false, false]).await;
    script([false, true, true, true, true, true]).await;
}

/// A published 0.11 node takes RPCs of 64 KiB and closes its stream on a larger one. It loses that
/// message alone, and gets everything before and after it.
#[tokio::test]
async fn a_peer_that_takes_64_kib_loses_what_is_larger_and_nothing_else() {
    let ours = Node::of(true);
    let mut theirs = Node::start::<gossipsub::Behaviour>(65_536);
    for node in [&ours, &theirs] {
        node.order(Order::Subscribe(1)).await;
    }
    ours.order(Order::Dial(theirs.addr.clone())).await;
    ours.knows(1, [theirs.peer].into()).await;
    theirs.knows(1, [ours.peer].into()).await;
    for round in 0..3_u8 {
        for number in 0..20_u8 {
            ours.order(Order::Publish(1, vec![round, number])).await;
            if number == 10 && round == 0 {
                ours.order(Order::Publish(1, vec![0; 200_000])).await;
            }
        }
        let mut got = BTreeSet::new();
        while got.len() < 20 {
            let (_, data) = theirs.next().await;
            assert_eq!(data.len(), 2);
            assert!(data[0] == round && got.insert(data[1]));
        }
    }
    // And the other direction was never touched.
    theirs.order(Order::Publish(1, b"back".to_vec())).await;
    let mut ours = ours;
    assert_eq!(ours.next().await.1, b"back");
}

/// libp2p-gossipsub 0.50.1 takes 100 topics of a peer by default, and ignores an RPC above that.
#[tokio::test]
async fn a_peer_that_takes_100_topics_knows_the_first_100_of_150() {
    let mut numbers: Vec<_> = (1..=150).collect();
    numbers.sort_by_key(|number| topic(*number).to_string());
    let (ours, theirs) = (Node::of(true), Node::of(false));
    for number in &numbers {
        ours.order(Order::Subscribe(*number)).await;
    }
    ours.order(Order::Dial(theirs.addr.clone())).await;
    for number in &numbers[..100] {
        theirs.knows(*number, BTreeSet::from([ours.peer])).await;
    }
}
