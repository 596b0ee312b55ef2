//! Peers that misuse topics, over TCP: they are bounded, and other peers are not affected.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a surprise ends the test"
)]

mod common;
mod meshsub;

use std::time::Duration;

use bytes::Bytes;
use calimero_network::{
    ContextId, GossipEvent, Keypair, Multiaddr, NetworkConfig, NetworkEvent, PeerId,
    StreamProtocol, Topic, pubsub::Counters,
};
use common::{Node, Over, config, resident_bytes, start, within};
use futures::{AsyncWriteExt as _, StreamExt as _};
use libp2p::{SwarmBuilder, noise, tcp, yamux};
use libp2p_stream as stream;
use meshsub::Signature;
use tokio::sync::Mutex;

const MESHSUB: StreamProtocol = StreamProtocol::new("/meshsub/1.1.0");

/// What a hostile peer may cost at most, in bytes: what is remembered of one, and what the
/// allocator keeps.
const FLAT: usize = 64 << 20;

/// One test at a time: the memory that each looks at is that of the process.
static TURN: Mutex<()> = Mutex::const_new(());

fn topic() -> Topic {
    Topic::context(ContextId::new([7; 32]))
}

fn other_topic(number: u32) -> Topic {
    let mut id = [8; 32];
    id[..4].copy_from_slice(&number.to_be_bytes());
    Topic::context(ContextId::new(id))
}

/// Two honest members of an overlay, and a peer of the first that writes what it likes.
struct Scene {
    victim: Node,
    friend: Node,
    attacker: PeerId,
    stream: libp2p::Stream,
    sent: u32,
    resident: usize,
}

impl Scene {
    async fn new() -> Self {
        let (mut victim, mut friend) = (start(config()).await, start(config()).await);
        meet(&mut victim, &mut friend).await;
        let address = victim.listen(Over::Tcp).await;
        let (attacker, stream) = attack(victim.peer(), address).await;
        Self {
            victim,
            friend,
            attacker,
            stream,
            sent: 0,
            resident: resident_bytes(),
        }
    }

    /// `false` once the peer takes no more.
    async fn send(&mut self, bytes: &[u8]) -> bool {
        let write = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        // A stream that is refused is not read, and its window ends.
        let written = tokio::time::timeout(Duration::from_secs(5), write).await;
        matches!(written, Ok(Ok(())))
    }

    async fn counters(&self) -> Counters {
        within(self.victim.client.mesh_stats())
            .await
            .unwrap()
            .counters
    }

    async fn until(&self, holds: impl Fn(&Counters) -> bool) {
        within(async {
            while !holds(&self.counters().await) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    async fn banned(&self) {
        self.until(|counters| counters.banned > 0).await;
        let peer = self.attacker;
        within(async {
            while connected(&self.victim, peer).await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    /// The honest members receive each other's messages and no others, and memory is as before.
    async fn undisturbed(&mut self) {
        for _ in 0..3 {
            self.sent += 1;
            let data = Bytes::from(format!("honest {}", self.sent));
            let (victim, friend) = (&mut self.victim, &mut self.friend);
            tell(victim, friend, data.clone()).await;
            tell(friend, victim, data).await;
        }
        let grown = resident_bytes().saturating_sub(self.resident);
        assert!(grown < FLAT, "{grown} bytes more");
    }
}

/// Connects a peer that runs no gossipsub, whose streams would replace the one written by hand.
async fn attack(victim: PeerId, address: Multiaddr) -> (PeerId, libp2p::Stream) {
    let mut swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            tcp::Config::default(),
            noise::Config::new,
            yamux::Config::default,
        )
        .unwrap()
        .with_behaviour(|_| stream::Behaviour::new())
        .unwrap()
        .build();
    let (peer, mut control) = (*swarm.local_peer_id(), swarm.behaviour().new_control());
    swarm.dial(address).unwrap();
    tokio::spawn(async move { while swarm.next().await.is_some() {} });
    let mut incoming = control.accept(MESHSUB).unwrap();
    tokio::spawn(async move {
        while let Some((_, stream)) = incoming.next().await {
            tokio::spawn(async move { futures::io::copy(stream, &mut futures::io::sink()).await });
        }
    });
    let opened = async {
        loop {
            // It fails until the connection is established.
            match control.open_stream(victim, MESHSUB).await {
                Ok(stream) => return stream,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    (peer, within(opened).await)
}

/// Connects two nodes and waits until each knows that the other follows the topic.
async fn meet(a: &mut Node, b: &mut Node) {
    for node in [&*a, &*b] {
        within(node.client.subscribe(&topic())).await.unwrap();
    }
    let address = a.listen(Over::Tcp).await;
    within(b.client.dial(address)).await.unwrap();
    for node in [a, b] {
        node.wait_for(|event| {
            matches!(event, NetworkEvent::Gossip(GossipEvent::Subscribed { .. })).then_some(())
        })
        .await;
    }
}

/// A message of one is the next that the other hears.
async fn tell(from: &Node, to: &mut Node, data: Bytes) {
    within(from.client.publish(&topic(), data.clone()))
        .await
        .unwrap();
    assert_eq!(message(to).await, (from.peer(), data));
}

async fn connected(node: &Node, peer: PeerId) -> bool {
    let status = within(node.client.status()).await.unwrap();
    status.connections.iter().any(|open| open.peer == peer)
}

async fn message(node: &mut Node) -> (PeerId, Bytes) {
    node.wait_for(|event| match event {
        NetworkEvent::Gossip(GossipEvent::Message(message)) => Some((message.source, message.data)),
        _ => None,
    })
    .await
}

#[tokio::test]
async fn unsigned_and_wrongly_signed_messages_reach_nobody_and_end_in_a_ban() {
    let _turn = TURN.lock().await;
    let mut scene = Scene::new().await;
    let key = Keypair::generate_ed25519();
    for number in 0..10 {
        let signature = match number % 2 {
            0 => Signature::Missing,
            _ => Signature::Wrong,
        };
        let rpc = meshsub::publish(&key, number, &topic(), b"forged", signature);
        assert!(scene.send(&meshsub::frame(&rpc)).await);
    }
    scene.until(|counters| counters.invalid_dropped == 10).await;
    // It would be the next message that a member receives.
    scene.undisturbed().await;
    for number in 0..20 {
        let rpc = meshsub::publish(&key, number, &topic(), b"forged", Signature::Wrong);
        scene.send(&meshsub::frame(&rpc)).await;
    }
    scene.banned().await;
    scene.undisturbed().await;
}

#[tokio::test]
async fn a_message_repeated_a_thousand_times_is_told_once() {
    let _turn = TURN.lock().await;
    let mut scene = Scene::new().await;
    let key = Keypair::generate_ed25519();
    let rpc = meshsub::publish(&key, 1, &topic(), b"again", Signature::Right);
    for _ in 0..1000 {
        assert!(scene.send(&meshsub::frame(&rpc)).await);
    }
    let again = (key.public().to_peer_id(), Bytes::from_static(b"again"));
    for node in [&mut scene.victim, &mut scene.friend] {
        assert_eq!(message(node).await, again);
    }
    scene.until(|counters| counters.copies >= 1000).await;
    scene.undisturbed().await;
}

#[tokio::test]
async fn messages_above_the_limit_are_not_held() {
    let _turn = TURN.lock().await;
    let mut scene = Scene::new().await;
    let key = Keypair::generate_ed25519();
    let rpc = meshsub::publish(&key, 1, &topic(), &[7; 1_048_577], Signature::Right);
    scene.send(&meshsub::frame(&rpc)).await;
    scene.undisturbed().await;
    // A length of almost 4 GiB, and bytes without end.
    scene.send(&[0xff, 0xff, 0xff, 0xff, 0x0f]).await;
    let mut sent = 0;
    while sent < 64 << 20 && scene.send(&[7; 65_536]).await {
        sent += 65_536;
    }
    assert!(sent < 64 << 20, "all of it was taken");
    scene.undisturbed().await;
}

#[tokio::test]
async fn a_hundred_thousand_topics_of_one_peer_are_bounded() {
    let _turn = TURN.lock().await;
    let mut scene = Scene::new().await;
    for part in 0..100_u32 {
        let rpc: Vec<_> = (part * 1000..(part + 1) * 1000)
            .flat_map(|number| meshsub::subscribe(&other_topic(number)))
            .collect();
        if !scene.send(&meshsub::frame(&rpc)).await {
            break;
        }
    }
    scene
        .until(|counters| counters.announcements_refused >= 10_000 || counters.banned > 0)
        .await;
    scene.undisturbed().await;
}

#[tokio::test]
async fn floods_of_control_messages_end_in_a_ban() {
    let _turn = TURN.lock().await;
    let mut scene = Scene::new().await;
    for _ in 0..200 {
        let rpc = meshsub::grafts_and_prunes(&topic(), 2000);
        if !scene.send(&meshsub::frame(&rpc)).await {
            break;
        }
    }
    scene.banned().await;
    scene.undisturbed().await;
}

#[tokio::test]
async fn floods_of_offers_and_requests_disturb_nobody() {
    let _turn = TURN.lock().await;
    let mut scene = Scene::new().await;
    let author = PeerId::random();
    for round in 0..100_u64 {
        let ids = (0..1000).map(|n| format!("{author}{}", round * 1000 + n));
        let rpc = meshsub::offers_and_requests(&topic(), ids);
        if !scene.send(&meshsub::frame(&rpc)).await {
            break;
        }
    }
    scene.undisturbed().await;
}

/// Where the member that is stopped finds the other.
const ADDRESS: &str = "HOSTILE_GOSSIP_ADDRESS";

/// A member in a process of its own: it follows the topic, says so and goes on.
#[tokio::test]
#[ignore = "the other process of a test in this file"]
async fn silent_member() {
    let Ok(address) = std::env::var(ADDRESS) else {
        return;
    };
    let node = start(config()).await;
    within(node.client.subscribe(&topic())).await.unwrap();
    within(node.client.dial(address.parse().unwrap()))
        .await
        .unwrap();
    std::future::pending::<()>().await;
}

/// The process of [`silent_member`]. It ends with this.
struct Silent(std::process::Child);

impl Silent {
    fn start(address: &Multiaddr) -> Self {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["silent_member", "--exact", "--ignored", "--nocapture"]);
        command.env(ADDRESS, address.to_string());
        Self(command.stdout(std::process::Stdio::null()).spawn().unwrap())
    }

    /// From here on its sockets stay open and are not read.
    fn stop(&self) {
        let pid = self.0.id().to_string();
        let status = std::process::Command::new("kill")
            .args(["-STOP", &pid])
            .status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_member_that_never_reads_is_closed_and_the_others_get_everything() {
    let _turn = TURN.lock().await;
    const PAYLOAD_BYTES: usize = 64 * 1024;
    let mut tight = NetworkConfig::default();
    tight.listen.clear();
    tight.pubsub.peers.queue = 64;
    tight.pubsub.peers.window = 16;
    tight.pubsub.peers.hold = Duration::from_millis(300);
    tight.pubsub.peers.slow_timeout = Duration::from_secs(2);
    // A published message is cached for this time, read or not.
    tight.pubsub.memory.history_heartbeats = 1;
    tight.pubsub.memory.gossip_heartbeats = 1;
    let (mut victim, mut friend) = (start(tight).await, start(config()).await);
    meet(&mut victim, &mut friend).await;
    let silent = Silent::start(&victim.listen(Over::Tcp).await);
    victim
        .wait_for(|event| match event {
            NetworkEvent::Gossip(GossipEvent::Subscribed { peer, .. }) => {
                (peer != friend.peer()).then_some(())
            }
            _ => None,
        })
        .await;
    silent.stop();
    let (resident, client) = (resident_bytes(), victim.client.clone());
    let publishing = async {
        let mut sent = 0_u32;
        // Until it is closed, and some more.
        loop {
            let mut data = vec![0; PAYLOAD_BYTES];
            data[..4].copy_from_slice(&sent.to_be_bytes());
            client.publish(&topic(), data).await.unwrap();
            sent += 1;
            if sent.is_multiple_of(50) && client.peer_count().unwrap() == 1 {
                return sent;
            }
        }
    };
    let reading = async {
        let mut got = 0_u32;
        loop {
            let (_, data) = message(&mut friend).await;
            assert_eq!(data[..4], got.to_be_bytes());
            got += 1;
            if data.len() != PAYLOAD_BYTES {
                return got;
            }
        }
    };
    let publishing = async {
        let mut sent = publishing.await;
        let last = sent.to_be_bytes().to_vec();
        client.publish(&topic(), last).await.unwrap();
        sent += 1;
        sent
    };
    let (sent, got) = within(async { tokio::join!(publishing, reading) }).await;
    assert_eq!(got, sent);
    let grown = resident_bytes().saturating_sub(resident);
    assert!(grown < 2 * FLAT, "{grown} bytes more");
}
