//! The relay's limits, against stock relay clients.

use std::time::Duration;

use calimero_network_discovery::server::{
    self,
    relay::{Behaviour, Event},
};
use calimero_network_primitives::{
    Keypair, Multiaddr, PeerId,
    addr::DialPolicy,
    config::{RateTuning, RelayServerConfig, ServerConfig, TransportConfig},
    multiaddr::Protocol,
    resources::{Limit, Limits, Resource, Resources},
};
use calimero_network_transport::build;
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt, future::join_all};
use libp2p_relay as relay;
use libp2p_stream as stream;
use libp2p_swarm::{NetworkBehaviour, StreamProtocol, Swarm, SwarmEvent};
use tokio::sync::mpsc;

use crate::{
    common::{DEADLINE, TCP, dial, listen, swarm, within},
    forward::from_other_address,
};

const ECHO: StreamProtocol = StreamProtocol::new("/test/echo");

struct Relay {
    address: Multiaddr,
    /// Each with the slots and circuits after it.
    events: mpsc::Receiver<(Event, usize, usize)>,
}

impl Relay {
    async fn start(change: impl FnOnce(&mut RelayServerConfig)) -> Self {
        Self::start_with(change, |_| {}).await
    }

    /// A relay whose limits `limit` has changed.
    async fn start_with(
        change: impl FnOnce(&mut RelayServerConfig),
        limit: impl FnOnce(&mut Limits),
    ) -> Self {
        let mut config = ServerConfig::default();
        config.relay.enabled = true;
        change(&mut config.relay);
        let keypair = Keypair::generate_ed25519();
        let local = keypair.public().to_peer_id();
        let all = server::Behaviour::new(local, &config, 1).unwrap();
        assert!(all.rendezvous().is_none() && all.relay().is_some());
        let mut limits = Limits::default();
        limits.set_relay(&config.relay);
        limit(&mut limits);
        let resources = Resources::new(limits);
        let behaviour = Behaviour::with_resources(local, &config.relay, resources).unwrap();
        let mut swarm = swarm(&keypair, behaviour);
        let address = listen(&mut swarm, TCP).await;
        // What a reservation is answered with.
        swarm.add_external_address(address.clone());
        let (sender, events) = mpsc::channel(1024);
        tokio::spawn(async move {
            loop {
                if let SwarmEvent::Behaviour(event) = swarm.select_next_some().await {
                    let relay = swarm.behaviour();
                    let told = (event, relay.reservations(), relay.circuits());
                    if sender.send(told).await.is_err() {
                        return;
                    }
                }
            }
        });
        let address = address.with(Protocol::P2p(local));
        Self { address, events }
    }

    /// An address of the relay that connects from another loopback address.
    async fn other_address(&self) -> Multiaddr {
        let forwarded = from_other_address(&self.address).await;
        forwarded.with(self.address.iter().last().unwrap())
    }

    /// The next event that says anything.
    async fn event(&mut self) -> (Event, usize, usize) {
        loop {
            match within(self.events.recv()).await.unwrap() {
                (Event::Other(_), ..) => {}
                told => return told,
            }
        }
    }

    /// Waits for so many slots to be held.
    async fn until_held(&mut self, slots: usize) {
        within(async { while self.events.recv().await.unwrap().1 != slots {} }).await;
    }
}

#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p_swarm::derive_prelude")]
struct Both {
    relay: relay::client::Behaviour,
    streams: stream::Behaviour,
}

/// A node that listens and dials through relays.
struct Client {
    swarm: Swarm<Both>,
}

impl Client {
    fn new() -> Self {
        let keypair = Keypair::generate_ed25519();
        let transport = build(
            &keypair,
            &TransportConfig::default(),
            DialPolicy::Local.into(),
        )
        .unwrap();
        let behaviour = Both {
            relay: transport.relay_client.unwrap(),
            streams: stream::Behaviour::new(),
        };
        let config =
            libp2p_swarm::Config::with_tokio_executor().with_idle_connection_timeout(DEADLINE);
        let peer = keypair.public().to_peer_id();
        Self {
            swarm: Swarm::new(transport.boxed, behaviour, peer, config),
        }
    }

    fn peer(&self) -> PeerId {
        *self.swarm.local_peer_id()
    }

    /// Asks for a slot. Whether it was granted.
    async fn reserve(&mut self, relay: &Relay) -> bool {
        self.reserve_at(relay.address.clone()).await
    }

    async fn reserve_at(&mut self, relay: Multiaddr) -> bool {
        let circuit = relay.with(Protocol::P2pCircuit);
        self.swarm.listen_on(circuit).unwrap();
        within(async {
            loop {
                match self.swarm.select_next_some().await {
                    SwarmEvent::Behaviour(BothEvent::Relay(
                        relay::client::Event::ReservationReqAccepted { .. },
                    )) => return true,
                    SwarmEvent::ListenerClosed { .. } => return false,
                    _ => {}
                }
            }
        })
        .await
    }

    /// Answers streams with what they carry, and goes on by itself.
    fn echo(mut self) -> PeerId {
        let peer = self.peer();
        let mut control = self.swarm.behaviour().streams.new_control();
        let mut inbound = control.accept(ECHO).unwrap();
        tokio::spawn(async move {
            while let Some((_, stream)) = inbound.next().await {
                tokio::spawn(async move {
                    let (read, mut write) = stream.split();
                    let _ = futures::io::copy(read, &mut write).await;
                });
            }
        });
        tokio::spawn(async move {
            loop {
                self.swarm.next().await;
            }
        });
        peer
    }
}

#[tokio::test]
async fn as_many_slots_as_there_are_and_no_more() {
    let mut relay = Relay::start(|config| config.max_reservations = 2).await;
    let mut clients = [Client::new(), Client::new(), Client::new()];
    for (index, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.reserve(&relay).await, index < 2);
        let (event, slots, _) = relay.event().await;
        let granted = matches!(event, Event::Reserved { renewed: false, .. });
        assert_eq!(granted, index < 2, "{event:?}");
        assert_eq!(slots, 2.min(index + 1));
    }
    // The reservation of a peer that disconnects is free for others.
    let [first, _second, mut third] = clients;
    drop(first);
    relay.until_held(1).await;
    assert!(third.reserve(&relay).await);
    relay.until_held(2).await;
}

#[tokio::test]
async fn a_slot_is_renewed_where_none_is_free() {
    let mut relay = Relay::start(|config| {
        config.max_reservations = 1;
        // The stock client renews a quarter before the end.
        config.tuning.reservation_duration = Duration::from_secs(4);
    })
    .await;
    let mut client = Client::new();
    assert!(client.reserve(&relay).await);
    let renewed = async {
        loop {
            match relay.event().await {
                (Event::Reserved { renewed: true, .. }, slots, _) => return slots,
                (Event::Reserved { renewed: false, .. }, ..) => {}
                (other, ..) => panic!("{other:?}"),
            }
        }
    };
    let slots = tokio::select! {
        slots = within(renewed) => slots,
        () = async { loop { client.swarm.next().await; } } => unreachable!(),
    };
    assert_eq!(slots, 1);
}

#[tokio::test]
async fn slots_are_granted_no_faster_than_the_rate_of_an_address() {
    let relay = Relay::start(|config| {
        config.tuning.reservation_rate_per_ip = RateTuning {
            burst: 2,
            interval: Duration::from_secs(3600),
        };
    })
    .await;
    // Peers of one host, each new to the relay.
    let mut granted = Vec::new();
    for _ in 0..4 {
        granted.push(Client::new().reserve(&relay).await);
    }
    assert_eq!(granted, [true, true, false, false]);
}

#[tokio::test]
async fn a_circuit_ends_when_it_has_carried_its_bytes() {
    const LIMIT: u64 = 64 * 1024;
    let mut relay = Relay::start(|config| config.max_circuit_bytes = LIMIT).await;
    let mut target = Client::new();
    assert!(target.reserve(&relay).await);
    let target = target.echo();
    assert!(matches!(relay.event().await.0, Event::Reserved { .. }));

    let mut source = Client::new();
    let circuit = relay.address.clone();
    let circuit = circuit
        .with(Protocol::P2pCircuit)
        .with(Protocol::P2p(target));
    dial(&mut source.swarm, &circuit).await;
    let mut control = source.swarm.behaviour().streams.new_control();
    tokio::spawn(async move {
        loop {
            source.swarm.next().await;
        }
    });
    let mut stream = within(control.open_stream(target, ECHO)).await.unwrap();
    let mut chunk = [7; 1024];
    let carried = within(async {
        let mut carried = 0u64;
        loop {
            let trip = async {
                stream.write_all(&chunk).await?;
                stream.flush().await?;
                stream.read_exact(&mut chunk).await
            };
            match trip.await {
                Ok(()) => carried += 2 * 1024,
                Err(_) => return carried,
            }
        }
    })
    .await;
    assert!(carried > 0 && carried <= LIMIT, "{carried}");
    let closed = async {
        loop {
            if let (Event::CircuitClosed { error, .. }, _, circuits) = relay.event().await {
                assert_eq!(circuits, 0);
                return error;
            }
        }
    };
    assert!(within(closed).await.is_some());
}

#[tokio::test]
async fn as_many_circuits_as_may_be_and_no_more() {
    let mut relay = Relay::start(|config| {
        config.max_circuits = 1;
        config.max_circuits_per_peer = 1;
    })
    .await;
    let mut target = Client::new();
    assert!(target.reserve(&relay).await);
    let target = target.echo();
    let circuit = relay.address.clone();
    let circuit = circuit
        .with(Protocol::P2pCircuit)
        .with(Protocol::P2p(target));
    let mut first = Client::new();
    dial(&mut first.swarm, &circuit).await;
    let mut second = Client::new();
    second.swarm.dial(circuit).unwrap();
    let refused = async {
        loop {
            tokio::select! {
                event = second.swarm.select_next_some() => match event {
                    SwarmEvent::ConnectionEstablished { peer_id, .. } => {
                        assert_ne!(peer_id, target);
                    }
                    SwarmEvent::OutgoingConnectionError { .. } => return,
                    _ => {}
                },
                _ = first.swarm.next() => {}
            }
        }
    };
    within(refused).await;
    let denied = async {
        loop {
            if let (Event::CircuitRefused { .. }, ..) = relay.event().await {
                return;
            }
        }
    };
    within(denied).await;
}

/// Many identities of one address get the share of the address. A peer of another address gets a
/// reservation.
#[tokio::test]
async fn one_address_gets_its_share_of_the_reservations() {
    // A loopback address gets twice the limit of an origin.
    let share = |limit: Limit| Limit { origin: 2, ..limit };
    let relay = Relay::start_with(
        |_| {},
        |limits| limits.update(Resource::Reservations, share),
    )
    .await;
    let mut clients = Vec::new();
    for nth in 0..8 {
        let mut client = Client::new();
        assert_eq!(client.reserve(&relay).await, nth < 4);
        clients.push(client);
    }
    let mut other = Client::new();
    assert!(other.reserve_at(relay.other_address().await).await);
}

/// Many identities of one address get the share of the address, requests that are not answered yet
/// included. A peer of another address opens a circuit.
#[tokio::test]
async fn one_address_gets_its_share_of_the_circuits() {
    // A loopback address gets twice the limit of an origin.
    let share = |limit: Limit| Limit { origin: 2, ..limit };
    let relay = Relay::start_with(|_| {}, |limits| limits.update(Resource::Circuits, share)).await;
    let mut target = Client::new();
    assert!(target.reserve(&relay).await);
    let target = target.echo();
    let through = |relay: &Multiaddr| {
        let circuit = relay.clone().with(Protocol::P2pCircuit);
        circuit.with(Protocol::P2p(target))
    };
    let open = async |relay: Multiaddr| {
        let mut client = Client::new();
        client.swarm.dial(through(&relay)).unwrap();
        loop {
            match client.swarm.select_next_some().await {
                SwarmEvent::ConnectionEstablished { peer_id, .. } if peer_id == target => {
                    // The circuit stays open.
                    client.echo();
                    return true;
                }
                SwarmEvent::OutgoingConnectionError { .. } => return false,
                _ => {}
            }
        }
    };
    let opened = within(join_all((0..8).map(|_| open(relay.address.clone())))).await;
    assert_eq!(opened.iter().filter(|open| **open).count(), 4);
    assert!(within(open(relay.other_address().await)).await);
}
