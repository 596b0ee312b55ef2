//! Nodes in memory: each swarm in a task of its own, asked through closures.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of several tests, which say so when they cannot go on"
)]

use std::{
    future::{Future, poll_fn},
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll},
    time::Duration,
};

use calimero_network_primitives::{ContextId, Keypair, Multiaddr, PeerId, Topic};
use calimero_network_pubsub::{Behaviour, Config, Event, Message};
use futures::{AsyncRead, AsyncWrite, StreamExt};
use libp2p_core::{Transport, transport::MemoryTransport, upgrade::Version};
use libp2p_swarm::{NetworkBehaviour, Swarm, SwarmEvent};
use tokio::sync::{mpsc, oneshot};

/// Far longer than anything here takes.
pub const DEADLINE: Duration = Duration::from_secs(30);

type Call<B> = Box<dyn FnOnce(&mut Swarm<B>) + Send>;
type Condition<B> = Box<dyn FnMut(&Swarm<B>) -> bool + Send>;

enum Order<B: NetworkBehaviour> {
    Call(Call<B>),
    Until(Condition<B>, oneshot::Sender<()>),
    Freeze,
}

/// A node whose swarm runs in a task.
pub struct Node {
    pub peer: PeerId,
    pub addr: Multiaddr,
    orders: mpsc::Sender<Order<Behaviour>>,
    events: mpsc::Receiver<Event>,
}

/// A swarm on the memory transport.
pub fn swarm<B: NetworkBehaviour>(keypair: Keypair, behaviour: B) -> Swarm<B> {
    swarm_on(MemoryTransport::default(), keypair, behaviour)
}

/// A swarm on a transport.
fn swarm_on<B, T>(transport: T, keypair: Keypair, behaviour: B) -> Swarm<B>
where
    B: NetworkBehaviour,
    T: Transport + Send + Unpin + 'static,
    T::Output: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    T::Error: Send + Sync,
    T::Dial: Send,
    T::ListenerUpgrade: Send,
{
    let transport = transport
        .upgrade(Version::V1)
        .authenticate(libp2p_noise::Config::new(&keypair).unwrap())
        .multiplex(libp2p_yamux::Config::default())
        .boxed();
    let config = libp2p_swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(Duration::from_secs(600));
    Swarm::new(transport, behaviour, keypair.public().to_peer_id(), config)
}

/// An address that is not in use yet.
pub fn address() -> Multiaddr {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let port = u64::from(std::process::id()) << 32 | NEXT.fetch_add(1, Ordering::Relaxed);
    format!("/memory/{port}").parse().unwrap()
}

pub fn topic(number: u16) -> Topic {
    let mut id = [0; 32];
    id[..2].copy_from_slice(&number.to_be_bytes());
    Topic::context(ContextId::new(id))
}

impl Node {
    pub fn start(config: &Config) -> Self {
        Self::with_key(Keypair::generate_ed25519(), config)
    }

    pub fn with_key(keypair: Keypair, config: &Config) -> Self {
        let behaviour = Behaviour::new(keypair.clone(), config).unwrap();
        let mut swarm = swarm(keypair, behaviour);
        let addr = address();
        swarm.listen_on(addr.clone()).unwrap();
        Self::spawn(swarm, addr)
    }

    /// A node that listens on TCP.
    pub async fn tcp(config: &Config) -> Self {
        let keypair = Keypair::generate_ed25519();
        let behaviour = Behaviour::new(keypair.clone(), config).unwrap();
        let transport = libp2p_tcp::tokio::Transport::default();
        let mut swarm = swarm_on(transport, keypair, behaviour);
        swarm
            .listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap())
            .unwrap();
        let addr = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                break address;
            }
        };
        Self::spawn(swarm, addr)
    }

    fn spawn(swarm: Swarm<Behaviour>, addr: Multiaddr) -> Self {
        let peer = *swarm.local_peer_id();
        let (orders, order_queue) = mpsc::channel(64);
        let (event_queue, events) = mpsc::channel(200_000);
        tokio::spawn(run(swarm, order_queue, event_queue));
        Self {
            peer,
            addr,
            orders,
            events,
        }
    }

    /// Runs `call` on the swarm.
    pub async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Swarm<Behaviour>) -> T + Send + 'static,
    ) -> T {
        let (reply, answer) = oneshot::channel();
        let call: Call<_> = Box::new(move |swarm| drop(reply.send(call(swarm))));
        self.orders.send(Order::Call(call)).await.ok().unwrap();
        within(answer).await.unwrap()
    }

    /// Waits until `condition` holds, looking whenever the swarm has moved.
    pub async fn until(&self, condition: impl FnMut(&Behaviour) -> bool + Send + 'static) {
        let mut condition = condition;
        self.until_swarm(move |swarm| condition(swarm.behaviour()))
            .await;
    }

    pub async fn until_swarm(
        &self,
        condition: impl FnMut(&Swarm<Behaviour>) -> bool + Send + 'static,
    ) {
        let (reply, answer) = oneshot::channel();
        let order = Order::Until(Box::new(condition), reply);
        self.orders.send(order).await.ok().unwrap();
        within(answer).await.unwrap();
    }

    /// Never polls the swarm again, and keeps it: to others it looks like a silent peer.
    pub async fn freeze(&self) {
        self.orders.send(Order::Freeze).await.ok().unwrap();
    }

    pub async fn subscribe(&self, topic: &Topic) {
        let topic = topic.clone();
        self.call(move |swarm| swarm.behaviour_mut().subscribe(&topic).unwrap())
            .await;
    }

    /// Dials `other` and waits until the connection is open.
    pub async fn connect(&self, other: &Self) {
        let (addr, peer) = (other.addr.clone(), other.peer);
        self.call(move |swarm| swarm.dial(addr).unwrap()).await;
        self.until_swarm(move |swarm| swarm.is_connected(&peer))
            .await;
    }

    /// Waits until `peer` is known to follow `topic`.
    pub async fn knows(&self, topic: &Topic, peer: PeerId) {
        let topic = topic.clone();
        self.until(move |pubsub| pubsub.subscribed_peers(&topic).contains(&peer))
            .await;
    }

    /// The first event that `wanted` takes.
    pub async fn next<T>(&mut self, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
        let search = async {
            loop {
                let event = self.events.recv().await.expect("node ended");
                if let Some(found) = wanted(event) {
                    return found;
                }
            }
        };
        within(search).await
    }

    pub async fn next_message(&mut self) -> Message {
        self.next(|event| match event {
            Event::Message(message) => Some(message),
            _ => None,
        })
        .await
    }

    /// The events that are there now.
    pub fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.events.try_recv().ok()).collect()
    }

    pub async fn publish(
        &self,
        topic: &Topic,
        data: impl Into<bytes::Bytes>,
    ) -> Result<calimero_network_pubsub::MessageId, calimero_network_pubsub::PublishError> {
        let (topic, data) = (topic.clone(), data.into());
        self.call(move |swarm| swarm.behaviour_mut().publish(&topic, data))
            .await
    }
}

pub async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future)
        .await
        .expect("did not happen in time")
}

async fn run(
    mut swarm: Swarm<Behaviour>,
    mut orders: mpsc::Receiver<Order<Behaviour>>,
    events: mpsc::Sender<Event>,
) {
    let mut waits = Vec::new();
    let mut frozen = false;
    poll_fn(|cx: &mut Context<'_>| {
        loop {
            let mut moved = false;
            while let Poll::Ready(order) = orders.poll_recv(cx) {
                moved = true;
                match order {
                    Some(Order::Call(call)) => call(&mut swarm),
                    Some(Order::Until(condition, reply)) => waits.push((condition, Some(reply))),
                    Some(Order::Freeze) => frozen = true,
                    None => return Poll::Ready(()),
                }
            }
            while let Poll::Ready(event) = if frozen {
                Poll::Pending
            } else {
                swarm.poll_next_unpin(cx)
            } {
                moved = true;
                if let Some(SwarmEvent::Behaviour(event)) = event {
                    events.try_send(event).expect("test reads its events");
                }
            }
            waits.retain_mut(|(condition, reply)| {
                let holds = condition(&swarm);
                if holds {
                    reply.take().map(|reply| reply.send(()));
                }
                !holds
            });
            if !moved {
                return Poll::Pending;
            }
        }
    })
    .await;
}
