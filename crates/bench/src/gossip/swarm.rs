//! A node that is a swarm of libp2p with gossip alone. Its connections run on
//! the thread that polls the swarm.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use calimero_network::{Keypair, Multiaddr, multiaddr::Protocol, pubsub};
use futures::{FutureExt as _, StreamExt as _};
use libp2p::{
    Swarm, SwarmBuilder,
    swarm::{NetworkBehaviour, SwarmEvent},
};
use libp2p_gossipsub::{self as gossipsub, DataTransform, MessageAuthenticity};
use tokio::{
    pin,
    time::{interval, sleep},
};

use super::{
    Work,
    member::{MEET_INTERVAL, Member},
    topic,
};
use crate::Failure;

/// Messages published before the connections on this thread are polled.
const BURST: usize = 16;

/// Time until a message that was refused is published again, unless an event
/// reports room before.
const RETRY: Duration = Duration::from_millis(1);

/// Bytes around the payload of a message, at most.
const OVERHEAD_BYTES: usize = 1024;

/// A behaviour of gossip that is subscribed to the topic.
pub(super) trait Gossip: NetworkBehaviour {
    /// Number of connected peers that are subscribed.
    fn subscribed(&self) -> usize;

    /// Number of peers in the mesh.
    fn meshed(&self) -> usize;

    /// Publishes a message. Returns `false` if the queues are full.
    fn publish(&mut self, message: Bytes) -> Result<bool, Failure>;

    /// Returns `true` if the event reports room in the queues.
    fn is_room(event: &Self::ToSwarm) -> bool;

    /// The payload of the message, if the event is one.
    fn payload(event: Self::ToSwarm) -> Option<Bytes>;

    /// The next event that is ready, if the behaviour returns them without the
    /// swarm.
    fn next_event(&mut self) -> Option<Self::ToSwarm>;

    /// Number of messages received from peers, duplicates included.
    fn copies(&self) -> u64;
}

/// The pubsub crate, as the manager configures it by default.
pub(super) fn ours(work: Work) -> impl FnOnce(&Keypair) -> Result<pubsub::Behaviour, Failure> {
    move |keypair| {
        let config = work.config().pubsub;
        let mut behaviour = pubsub::Behaviour::new(keypair.clone(), &config)?;
        behaviour.subscribe(&topic())?;
        Ok(behaviour)
    }
}

impl Gossip for pubsub::Behaviour {
    fn subscribed(&self) -> usize {
        self.subscribed_peers(&topic()).len()
    }

    fn meshed(&self) -> usize {
        self.mesh_peer_count(&topic())
    }

    fn publish(&mut self, message: Bytes) -> Result<bool, Failure> {
        match Self::publish(self, &topic(), message) {
            Ok(_) => Ok(true),
            Err(pubsub::PublishError::QueueFull { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn is_room(event: &pubsub::Event) -> bool {
        *event == pubsub::Event::Room
    }

    fn payload(event: pubsub::Event) -> Option<Bytes> {
        match event {
            pubsub::Event::Message(message) => Some(message.data),
            _ => None,
        }
    }

    fn next_event(&mut self) -> Option<pubsub::Event> {
        Self::next_event(self)
    }

    fn copies(&self) -> u64 {
        self.mesh_stats().counters.copies
    }
}

/// Messages that libp2p-gossipsub has received in this process, duplicates
/// included.
static COPIES: AtomicU64 = AtomicU64::new(0);

/// Counts received messages. libp2p-gossipsub calls it before it looks for
/// duplicates.
#[derive(Default)]
pub(super) struct Counting(gossipsub::IdentityTransform);

impl DataTransform for Counting {
    fn inbound_transform(&self, raw: gossipsub::RawMessage) -> io::Result<gossipsub::Message> {
        COPIES.fetch_add(1, Ordering::Relaxed);
        self.0.inbound_transform(raw)
    }

    fn outbound_transform(
        &self,
        topic: &gossipsub::TopicHash,
        data: Vec<u8>,
    ) -> io::Result<Vec<u8>> {
        self.0.outbound_transform(topic, data)
    }
}

type Stock = gossipsub::Behaviour<Counting>;

/// libp2p-gossipsub with its defaults, which include strict signing. A larger
/// limit applies to messages of more than 63 KiB.
pub(super) fn stock(work: Work) -> impl FnOnce(&Keypair) -> Result<Stock, Failure> {
    move |keypair| {
        let mut config = gossipsub::ConfigBuilder::default();
        let limit = gossipsub::Config::default().max_transmit_size();
        config.max_transmit_size(limit.max(work.message_bytes + OVERHEAD_BYTES));
        let signing = MessageAuthenticity::Signed(keypair.clone());
        let mut behaviour =
            Stock::new_with_transform(signing, config.build()?, Counting::default())?;
        behaviour.subscribe(&gossipsub::IdentTopic::new(topic().to_string()))?;
        Ok(behaviour)
    }
}

fn topic_hash() -> gossipsub::TopicHash {
    gossipsub::TopicHash::from_raw(topic().to_string())
}

impl Gossip for Stock {
    fn subscribed(&self) -> usize {
        let topic = topic_hash();
        let peers = self.all_peers();
        peers.filter(|(_, topics)| topics.contains(&&topic)).count()
    }

    fn meshed(&self) -> usize {
        self.mesh_peers(&topic_hash()).count()
    }

    fn publish(&mut self, message: Bytes) -> Result<bool, Failure> {
        match Self::publish(self, topic_hash(), message) {
            Ok(_) => Ok(true),
            Err(gossipsub::PublishError::AllQueuesFull(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn is_room(_: &gossipsub::Event) -> bool {
        false
    }

    fn payload(event: gossipsub::Event) -> Option<Bytes> {
        match event {
            gossipsub::Event::Message { message, .. } => Some(message.data.into()),
            _ => None,
        }
    }

    fn next_event(&mut self) -> Option<gossipsub::Event> {
        None
    }

    fn copies(&self) -> u64 {
        COPIES.load(Ordering::Relaxed)
    }
}

pub(super) struct SwarmMember<B: NetworkBehaviour> {
    swarm: Swarm<B>,
    address: Multiaddr,
}

impl<B: Gossip> SwarmMember<B> {
    /// Starts a node over TCP with TLS and Yamux, which is what two nodes of the
    /// manager negotiate.
    pub(super) async fn start(
        behaviour: impl FnOnce(&Keypair) -> Result<B, Failure>,
    ) -> Result<Self, Failure> {
        let mut swarm = SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_tcp(
                libp2p::tcp::Config::default().nodelay(true),
                libp2p::tls::Config::new,
                libp2p::yamux::Config::default,
            )?
            .with_behaviour(behaviour)?
            .with_swarm_config(|config| {
                config.with_idle_connection_timeout(Duration::from_secs(3_600))
            })
            .build();
        swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
        let listening = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                break address;
            }
        };
        let address = listening.with(Protocol::P2p(*swarm.local_peer_id()));
        Ok(Self { swarm, address })
    }

    /// Waits until the queues have room, or for [`RETRY`].
    async fn wait_for_room(&mut self) {
        let retry = sleep(RETRY);
        pin!(retry);
        loop {
            tokio::select! {
                () = &mut retry => return,
                event = self.swarm.select_next_some() => {
                    if matches!(event, SwarmEvent::Behaviour(event) if B::is_room(&event)) {
                        return;
                    }
                }
            }
        }
    }

    /// Publishes a message, once the queues have room.
    async fn publish_one(&mut self, message: Bytes) -> Result<(), Failure> {
        while !self.swarm.behaviour_mut().publish(message.clone())? {
            self.wait_for_room().await;
        }
        Ok(())
    }
}

impl<B: Gossip> Member for SwarmMember<B> {
    fn address(&self) -> &Multiaddr {
        &self.address
    }

    async fn dial(&mut self, address: Multiaddr) -> Result<(), Failure> {
        Ok(self.swarm.dial(address)?)
    }

    async fn meet(&mut self, peers: usize) -> Result<(), Failure> {
        let mut checks = interval(MEET_INTERVAL);
        while self.swarm.behaviour().subscribed() < peers || self.swarm.behaviour().meshed() == 0 {
            self.during(checks.tick()).await;
        }
        Ok(())
    }

    async fn receive(&mut self, messages: &mut Vec<Bytes>) -> Result<(), Failure> {
        while messages.is_empty() {
            if let SwarmEvent::Behaviour(first) = self.swarm.select_next_some().await {
                messages.extend(B::payload(first));
                while let Some(event) = self.swarm.behaviour_mut().next_event() {
                    messages.extend(B::payload(event));
                }
            }
        }
        Ok(())
    }

    async fn publish(&mut self, work: Work) -> Result<(), Failure> {
        if work.rate == 0 {
            for number in 0..work.messages {
                self.publish_one(work.message(number)).await?;
                if number % BURST as u64 == 0 {
                    while self.swarm.next().now_or_never().is_some() {}
                    tokio::task::yield_now().await;
                }
            }
            return Ok(());
        }
        let mut ticks = interval(Duration::from_secs(1) / work.rate);
        for number in 0..work.messages {
            self.during(ticks.tick()).await;
            self.publish_one(work.message(number)).await?;
        }
        Ok(())
    }

    async fn during<T>(&mut self, other: impl Future<Output = T>) -> T {
        pin!(other);
        loop {
            tokio::select! {
                biased;
                output = &mut other => return output,
                _ = self.swarm.select_next_some() => {}
            }
        }
    }

    async fn copies(&self) -> Result<u64, Failure> {
        Ok(self.swarm.behaviour().copies())
    }
}
