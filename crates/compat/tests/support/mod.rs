//! A stub node: the published client, and a dispatcher that queues events.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use actix::{Actor, Addr, Context, Handler, Recipient};
use calimero_network::{Shutdown, network};
use calimero_network_primitives::{
    client::NetworkClient,
    config::{
        AutonatConfig, BootstrapConfig, DiscoveryConfig, NetworkConfig, RelayConfig,
        RendezvousConfig, SwarmConfig,
    },
    messages::{NetworkEvent, NetworkEventDispatcher, NetworkMessage, PeerId},
};
use calimero_store::Store;
use calimero_utils_actix::LazyRecipient;
use libp2p::{Multiaddr, identity::Keypair};
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;

/// Longest wait for anything: 30 s.
const DEADLINE: Duration = Duration::from_secs(30);

/// Addresses to listen on, with a port that the system chooses.
pub(crate) const TCP: &str = "/ip4/127.0.0.1/tcp/0";
pub(crate) const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

/// A message at which the dispatcher panics.
pub(crate) const PANIC: &[u8] = b"panic";

/// Fails if `future` takes too long.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future)
        .await
        .expect("it takes too long")
}

/// The crate that a node runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Implementation {
    Adapter,
    Published,
}

struct Dispatcher(mpsc::Sender<NetworkEvent>);

impl NetworkEventDispatcher for Dispatcher {
    fn dispatch(&self, event: NetworkEvent) -> bool {
        if let NetworkEvent::Message { message, .. } = &event {
            assert_ne!(message.data, PANIC, "as the test demands");
        }
        self.0.try_send(event).is_ok()
    }
}

/// A node in the actor system of the test.
pub(crate) struct Node {
    pub(crate) client: NetworkClient,
    pub(crate) peer_id: PeerId,
    /// Its first address, with `/p2p`.
    pub(crate) address: Multiaddr,
    actor: Recipient<NetworkMessage>,
    adapter: Option<(
        Addr<calimero_network::NetworkManager>,
        network::NetworkClient,
    )>,
    events: mpsc::Receiver<NetworkEvent>,
    skipped: VecDeque<NetworkEvent>,
    registry: Registry,
}

impl Node {
    pub(crate) async fn start(implementation: Implementation) -> Self {
        Self::start_on(TCP, implementation).await
    }

    pub(crate) async fn start_on(listen: &str, implementation: Implementation) -> Self {
        Self::start_full(listen, implementation, BTreeSet::new(), None).await
    }

    pub(crate) async fn start_with(
        implementation: Implementation,
        reserved: BTreeSet<String>,
        store: Option<Store>,
    ) -> Self {
        Self::start_full(TCP, implementation, reserved, store).await
    }

    async fn start_full(
        listen: &str,
        implementation: Implementation,
        reserved: BTreeSet<String>,
        store: Option<Store>,
    ) -> Self {
        let config = config(listen);
        let peer_id = config.identity.public().to_peer_id();
        let mut registry = Registry::default();
        let (dispatched, events) = mpsc::channel(1024);
        let dispatcher = Arc::new(Dispatcher(dispatched));
        let recipient = LazyRecipient::<NetworkMessage>::new();
        let client = NetworkClient::new(recipient.clone());
        let (actor, adapter) = match implementation {
            Implementation::Adapter => {
                let manager = calimero_network::NetworkManager::new(
                    &config,
                    dispatcher,
                    &mut registry,
                    reserved,
                    store,
                );
                let manager = within(manager).await.unwrap();
                let ours = manager.client().clone();
                let actor = start(manager, recipient);
                (actor.clone().recipient(), Some((actor, ours)))
            }
            Implementation::Published => {
                let manager = published::NetworkManager::new(
                    &config,
                    dispatcher,
                    &mut registry,
                    reserved,
                    store,
                );
                let manager = within(manager).await.unwrap();
                (start(manager, recipient).recipient(), None)
            }
        };
        let mut node = Self {
            client,
            peer_id,
            address: Multiaddr::empty(),
            actor,
            adapter,
            events,
            skipped: VecDeque::new(),
            registry,
        };
        node.address = node
            .until(|event| match event {
                NetworkEvent::ListeningOn { address, .. } => Ok(address),
                other => Err(other),
            })
            .await;
        node
    }

    /// Sends a message past the client, which panics where an answer is missing.
    pub(crate) async fn send(&self, message: NetworkMessage) {
        within(self.actor.send(message)).await.unwrap();
    }

    /// The first event, of those that were not taken yet, that `take` does not give back.
    pub(crate) async fn until<T>(
        &mut self,
        mut take: impl FnMut(NetworkEvent) -> Result<T, NetworkEvent>,
    ) -> T {
        for _ in 0..self.skipped.len() {
            let event = self.skipped.pop_front().unwrap();
            match take(event) {
                Ok(taken) => return taken,
                Err(event) => self.skipped.push_back(event),
            }
        }
        loop {
            let event = within(self.events.recv()).await.expect("no more events");
            match take(event) {
                Ok(taken) => return taken,
                Err(event) => self.skipped.push_back(event),
            }
        }
    }

    /// Fails if such an event was emitted.
    pub(crate) fn assert_no(&mut self, unexpected: impl Fn(&NetworkEvent) -> bool) {
        while let Ok(event) = self.events.try_recv() {
            self.skipped.push_back(event);
        }
        assert!(!self.skipped.iter().any(unexpected));
    }

    /// Waits until the node has this number of peers.
    pub(crate) async fn connected_to(&self, peers: usize) {
        within(async {
            while self.client.peer_count().await != peers {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }

    /// The manager of an adapter.
    pub(crate) fn manager(&self) -> &network::NetworkClient {
        &self.adapter.as_ref().expect("an adapter").1
    }

    pub(crate) fn manager_id(&self) -> network::PeerId {
        self.manager().peer_id()
    }

    /// A peer without an adapter, connected to this node.
    pub(crate) async fn manager_peer(&self) -> network::NetworkClient {
        let config = network::NetworkConfig {
            listen: Vec::new(),
            ..network::NetworkConfig::default()
        };
        let key = network::Keypair::generate_ed25519();
        let (peer, _events) = network::NetworkManager::start(key, config).await.unwrap();
        let address = self.address.to_string().parse().unwrap();
        within(peer.dial(address)).await.unwrap();
        peer
    }

    pub(crate) async fn shutdown(&self) {
        let (actor, _) = self.adapter.as_ref().expect("an adapter");
        within(actor.send(Shutdown)).await.unwrap();
    }

    /// Drops every address of the actor, which stops it, and waits until its events end.
    pub(crate) async fn stop_actor(self) {
        let mut events = self.events;
        drop((self.client, self.actor, self.adapter));
        within(async { while events.recv().await.is_some() {} }).await;
    }
}

/// The metrics that the node exports.
pub(crate) fn registry_text(node: &Node) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &node.registry).unwrap();
    text
}

/// Starts the actor as the node does.
fn start<A>(manager: A, recipient: LazyRecipient<NetworkMessage>) -> Addr<A>
where
    A: Actor<Context = Context<A>> + Handler<NetworkMessage>,
{
    A::create(move |ctx| {
        assert!(recipient.init(ctx));
        manager
    })
}

/// The configuration of a node that listens on this address alone.
fn config(listen: &str) -> NetworkConfig {
    NetworkConfig::new(
        Keypair::generate_ed25519(),
        SwarmConfig::new(vec![listen.parse().unwrap()]),
        BootstrapConfig::default(),
        DiscoveryConfig::new(
            false,
            false,
            Vec::new(),
            RendezvousConfig::default(),
            RelayConfig::default(),
            AutonatConfig::default(),
        ),
    )
}

/// An adapter whose actor is not started.
pub(crate) async fn manager() -> calimero_network::NetworkManager {
    let dispatcher = Arc::new(Dispatcher(mpsc::channel(1).0));
    let (config, reserved) = (config(TCP), BTreeSet::new());
    let mut registry = Registry::default();
    let manager =
        calimero_network::NetworkManager::new(&config, dispatcher, &mut registry, reserved, None);
    within(manager).await.unwrap()
}
