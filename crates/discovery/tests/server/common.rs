//! Swarms on loopback, each driven by a task of its own.

use std::{future::Future, time::Duration};

use calimero_network_discovery::server::rendezvous::{Behaviour, Event, registry::Held};
use calimero_network_primitives::{
    Keypair, PeerId,
    addr::DialPolicy,
    config::{RendezvousServerConfig, TransportConfig},
    resources::Resources,
};
use calimero_network_transport::build;
use futures::StreamExt;
use libp2p_core::Multiaddr;
use libp2p_swarm::{Config, NetworkBehaviour, Swarm, SwarmEvent};
use tokio::sync::mpsc;

/// Longer than anything here takes on a loaded machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) const TCP: &str = "/ip4/127.0.0.1/tcp/0";
pub(crate) const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future)
        .await
        .expect("the test takes too long")
}

pub(crate) fn swarm<B: NetworkBehaviour>(keypair: &Keypair, behaviour: B) -> Swarm<B> {
    let config = TransportConfig {
        dns: false,
        relay_client: false,
        ..TransportConfig::default()
    };
    let transport = build(keypair, &config, DialPolicy::Local.into())
        .unwrap()
        .boxed;
    let config = Config::with_tokio_executor()
        .with_idle_connection_timeout(DEADLINE)
        .with_max_negotiating_inbound_streams(512);
    Swarm::new(transport, behaviour, keypair.public().to_peer_id(), config)
}

/// Listens at `at` and says where that is.
pub(crate) async fn listen<B: NetworkBehaviour>(swarm: &mut Swarm<B>, at: &str) -> Multiaddr {
    swarm.listen_on(at.parse().unwrap()).unwrap();
    within(async {
        loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                return address;
            }
        }
    })
    .await
}

/// Dials `address` and waits for the connection.
pub(crate) async fn dial<B: NetworkBehaviour>(swarm: &mut Swarm<B>, address: &Multiaddr) {
    swarm.dial(address.clone()).unwrap();
    within(async {
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::ConnectionEstablished { .. } => return,
                SwarmEvent::OutgoingConnectionError { error, .. } => panic!("{error}"),
                _ => {}
            }
        }
    })
    .await;
}

/// A rendezvous server in a task.
pub(crate) struct Server {
    pub(crate) peer: PeerId,
    pub(crate) address: Multiaddr,
    events: mpsc::Receiver<(Event, Held)>,
}

impl Server {
    pub(crate) async fn start(at: &str, change: impl FnOnce(&mut RendezvousServerConfig)) -> Self {
        let mut config = RendezvousServerConfig::default();
        change(&mut config);
        Self::run(at, Behaviour::new(&config, 42).unwrap()).await
    }

    /// A server with the default configuration that counts in `resources`.
    pub(crate) async fn start_with(at: &str, resources: Resources) -> Self {
        let config = RendezvousServerConfig::default();
        Self::run(
            at,
            Behaviour::with_resources(&config, 42, resources).unwrap(),
        )
        .await
    }

    async fn run(at: &str, behaviour: Behaviour) -> Self {
        let keypair = Keypair::generate_ed25519();
        let mut swarm = swarm(&keypair, behaviour);
        let address = listen(&mut swarm, at).await;
        let (sender, events) = mpsc::channel(4096);
        tokio::spawn(async move {
            loop {
                if let SwarmEvent::Behaviour(event) = swarm.select_next_some().await {
                    let held = swarm.behaviour().held();
                    if sender.send((event, held)).await.is_err() {
                        return;
                    }
                }
            }
        });
        Self {
            peer: keypair.public().to_peer_id(),
            address,
            events,
        }
    }

    /// The next event, and what is held after it.
    pub(crate) async fn event(&mut self) -> (Event, Held) {
        within(self.events.recv()).await.unwrap()
    }
}
