//! Swarms on one machine, and functions that wait for their events.

use std::{future::Future, pin::Pin, time::Duration};

use calimero_network_discovery::{
    Behaviour, Event,
    behaviour::{RecordValidator, RefuseRecords},
};
use calimero_network_primitives::{
    Keypair, Multiaddr, PeerId,
    addr::DialPolicy,
    config::{DiscoveryConfig, PingConfig, TransportConfig},
};
use calimero_network_transport::{Transport, build, build_memory};
use futures::{StreamExt, future::select_all};
use libp2p_swarm::{Config, NetworkBehaviour, Swarm, SwarmEvent};

/// Longer than anything here takes on a loaded machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) const MEMORY: &str = "/memory/0";
pub(crate) const TCP: &str = "/ip4/127.0.0.1/tcp/0";

pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future)
        .await
        .expect("the test takes too long")
}

/// A network on one machine, in a hurry: every wait is as short as it can be.
pub(crate) fn config(boot: &[Multiaddr]) -> DiscoveryConfig {
    let mut config = DiscoveryConfig {
        boot: boot.to_vec(),
        local_network: true,
        tick: Duration::from_millis(100),
        ..DiscoveryConfig::default()
    };
    config.redial.steps = [0, 100, 200, 300, 400].map(Duration::from_millis);
    config.redial.interval = Duration::from_millis(500);
    config.dials.rest = Duration::from_millis(200);
    config.rendezvous.alone_interval = Duration::from_millis(200);
    config.rendezvous.interval = Duration::from_millis(500);
    config.rendezvous.min_backoff = Duration::from_millis(100);
    config.rendezvous.max_backoff = Duration::from_millis(500);
    config.relay.min_backoff = Duration::from_millis(100);
    config.relay.max_backoff = Duration::from_millis(500);
    config.relay.patience = Duration::from_millis(100);
    config.reachability.min_backoff = Duration::from_millis(100);
    config.reachability.max_backoff = Duration::from_millis(500);
    config
}

pub(crate) fn transport(keypair: &Keypair, listen: &str) -> Transport {
    let config = TransportConfig {
        dns: false,
        ..TransportConfig::default()
    };
    if listen.starts_with("/memory") {
        build_memory(keypair, &config).unwrap()
    } else {
        build(keypair, &config, DialPolicy::Local.into()).unwrap()
    }
}

/// A `node` whose Swarm closes unused connections at once.
pub(crate) fn hasty(listen: &str, config: &DiscoveryConfig) -> Swarm<Behaviour> {
    let idle = swarm_config().with_idle_connection_timeout(Duration::ZERO);
    new_node(
        &Keypair::generate_ed25519(),
        listen,
        config,
        RefuseRecords,
        idle,
    )
}

fn swarm_config() -> Config {
    Config::with_tokio_executor().with_idle_connection_timeout(DEADLINE)
}

/// A Swarm with any behaviour, not listening yet.
pub(crate) fn swarm_of<B: NetworkBehaviour>(
    keypair: &Keypair,
    listen: &str,
    behaviour: B,
) -> Swarm<B> {
    let transport = transport(keypair, listen).boxed;
    let peer = keypair.public().to_peer_id();
    Swarm::new(transport, behaviour, peer, swarm_config())
}

/// A Swarm with discovery, not listening yet.
pub(crate) fn node_with(
    listen: &str,
    config: &DiscoveryConfig,
    validator: impl RecordValidator,
) -> Swarm<Behaviour> {
    let keypair = Keypair::generate_ed25519();
    new_node(&keypair, listen, config, validator, swarm_config())
}

pub(crate) fn node_of(
    keypair: &Keypair,
    listen: &str,
    config: &DiscoveryConfig,
) -> Swarm<Behaviour> {
    new_node(keypair, listen, config, RefuseRecords, swarm_config())
}

pub(crate) fn node(listen: &str, config: &DiscoveryConfig) -> Swarm<Behaviour> {
    node_with(listen, config, RefuseRecords)
}

fn new_node(
    keypair: &Keypair,
    listen: &str,
    config: &DiscoveryConfig,
    validator: impl RecordValidator,
    swarm: Config,
) -> Swarm<Behaviour> {
    let transport = transport(keypair, listen);
    let (boxed, relay) = (transport.boxed, transport.relay_client);
    let behaviour = behaviour(keypair, config, relay, validator);
    let peer = keypair.public().to_peer_id();
    Swarm::new(boxed, behaviour, peer, swarm)
}

/// A node whose behaviour is what `around` makes of discovery, not listening yet.
pub(crate) fn node_within<B: NetworkBehaviour>(
    listen: &str,
    config: &DiscoveryConfig,
    around: impl FnOnce(Behaviour) -> B,
) -> Swarm<B> {
    let keypair = Keypair::generate_ed25519();
    let transport = transport(&keypair, listen);
    let (boxed, relay) = (transport.boxed, transport.relay_client);
    let behaviour = around(behaviour(&keypair, config, relay, RefuseRecords));
    let peer = keypair.public().to_peer_id();
    Swarm::new(boxed, behaviour, peer, swarm_config())
}

fn behaviour(
    keypair: &Keypair,
    config: &DiscoveryConfig,
    relay: Option<libp2p_relay::client::Behaviour>,
    validator: impl RecordValidator,
) -> Behaviour {
    let ping = PingConfig::default();
    Behaviour::new(keypair, config, &ping, "test", relay, validator, 1).unwrap()
}

/// A free address like `at`, known before its node is created.
pub(crate) fn free_address(at: &str) -> Multiaddr {
    if at.starts_with("/memory") {
        return format!("/memory/{}", rand::random::<u64>() | 1)
            .parse()
            .unwrap();
    }
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()
}

/// A listening node with a configured external address, which needs no probe.
pub(crate) async fn vouched(at: &str, mut config: DiscoveryConfig) -> Swarm<Behaviour> {
    loop {
        let address = free_address(at);
        config.external = vec![address.clone()];
        let mut node = node(at, &config);
        // Another test can have taken the port since.
        if node.listen_on(address).is_ok() {
            listening(&mut node).await;
            return node;
        }
    }
}

/// Listens at `at` and returns the complete address.
pub(crate) async fn listen<B: NetworkBehaviour>(swarm: &mut Swarm<B>, at: &str) -> Multiaddr {
    swarm.listen_on(at.parse().unwrap()).unwrap();
    listening(swarm).await
}

/// Waits for an address that is listened on and returns it with the peer id.
async fn listening<B: NetworkBehaviour>(swarm: &mut Swarm<B>) -> Multiaddr {
    let peer = *swarm.local_peer_id();
    within(async {
        loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                return address.with_p2p(peer).unwrap();
            }
        }
    })
    .await
}

/// Drives a Swarm until the test ends.
pub(crate) fn spawn<B>(mut swarm: Swarm<B>) -> tokio::task::JoinHandle<()>
where
    B: NetworkBehaviour<ToSwarm: Send> + Send,
{
    tokio::spawn(async move {
        loop {
            swarm.next().await;
        }
    })
}

/// Drives `swarms` until one of them emits an event for which `wanted` returns a value.
pub(crate) async fn until<B: NetworkBehaviour<ToSwarm: Send> + Send, T>(
    swarms: &mut [&mut Swarm<B>],
    mut wanted: impl FnMut(PeerId, &SwarmEvent<B::ToSwarm>) -> Option<T>,
) -> T {
    within(async {
        loop {
            let next = swarms.iter_mut().map(|swarm| {
                let peer = *swarm.local_peer_id();
                let event = swarm.select_next_some();
                Box::pin(async move { (peer, event.await) })
                    as Pin<Box<dyn Future<Output = _> + Send + '_>>
            });
            let ((peer, event), ..) = select_all(next).await;
            if let Some(found) = wanted(peer, &event) {
                return found;
            }
        }
    })
    .await
}

/// As [`until`], for the events of the behaviour alone.
pub(crate) async fn told<T>(
    swarms: &mut [&mut Swarm<Behaviour>],
    mut wanted: impl FnMut(PeerId, &Event) -> Option<T>,
) -> T {
    until(swarms, |peer, event| match event {
        SwarmEvent::Behaviour(event) => wanted(peer, event),
        _ => None,
    })
    .await
}
