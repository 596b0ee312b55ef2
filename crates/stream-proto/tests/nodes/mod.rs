//! Nodes for tests: a swarm in its own task, driven by commands.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "not every test file uses all"
)]

use std::{
    collections::HashMap,
    convert::Infallible,
    net::TcpListener,
    task::{Context, Poll},
    time::Duration,
};

use calimero_network_primitives::resources::Resources;
use calimero_network_stream::{
    Behaviour, Control, Event, FrameStream, StreamProtocol,
    config::{StreamsConfig, max_negotiating_inbound_streams},
};
use futures::{StreamExt, channel::oneshot};
use libp2p_core::{
    Endpoint, Multiaddr, Transport,
    muxing::StreamMuxerBox,
    transport::{Boxed, ListenerId, MemoryTransport, PortUse, TransportEvent},
    upgrade::Version,
};
use libp2p_identity::{Keypair, PeerId};
use libp2p_swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, Swarm, SwarmEvent, THandler,
    ToSwarm, dummy,
};
use tokio::{sync::mpsc, task::JoinHandle};

/// Awaits `work` with a deadline.
pub(crate) async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), work)
        .await
        .expect("it takes too long")
}

type Act = Box<dyn FnOnce(&mut Swarm<Tested>) + Send>;
type Seen = SwarmEvent<TestedEvent>;

/// The behaviours of a test swarm.
#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p_swarm::derive_prelude")]
pub(crate) struct Tested {
    pub(crate) streams: Behaviour,
    pub(crate) book: Book,
}

/// A behaviour that provides the addresses of peers.
#[derive(Default)]
pub(crate) struct Book(HashMap<PeerId, Vec<Multiaddr>>);

impl NetworkBehaviour for Book {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        Ok(peer
            .and_then(|peer| self.0.get(&peer))
            .cloned()
            .unwrap_or_default())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: Infallible) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, Infallible>> {
        Poll::Pending
    }
}

/// A TCP listener that accepts connections and sends nothing.
pub(crate) struct Silent {
    pub(crate) address: Multiaddr,
    _listener: TcpListener,
}

pub(crate) fn silent_address() -> Silent {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    Silent {
        address: format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap(),
        _listener: listener,
    }
}

/// Starts a peer that accepts one connection and then neither reads nor writes.
/// Returns its id, its address, and the task that owns the muxer of the
/// connection.
pub(crate) async fn inert_peer() -> (PeerId, Multiaddr, JoinHandle<StreamMuxerBox>) {
    let keypair = Keypair::generate_ed25519();
    let mut transport = transport(&keypair);
    transport
        .listen_on(ListenerId::next(), "/memory/0".parse().unwrap())
        .unwrap();
    let Some(TransportEvent::NewAddress { listen_addr, .. }) = transport.next().await else {
        panic!("no address")
    };
    let task = tokio::spawn(async move {
        loop {
            if let Some(TransportEvent::Incoming { upgrade, .. }) = transport.next().await {
                return upgrade.await.unwrap().1;
            }
        }
    });
    (keypair.public().to_peer_id(), listen_addr, task)
}

/// A swarm that runs in a task.
pub(crate) struct Node {
    pub(crate) peer: PeerId,
    pub(crate) control: Control,
    pub(crate) resources: Resources,
    pub(crate) address: Option<Multiaddr>,
    acts: mpsc::Sender<Act>,
    events: mpsc::Receiver<Seen>,
    task: JoinHandle<()>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Returns the transport of these tests: memory and TCP with Noise and Yamux,
/// with a higher limit of streams than the default.
fn transport(keypair: &Keypair) -> Boxed<(PeerId, StreamMuxerBox)> {
    let mut yamux = libp2p_yamux::Config::default();
    yamux.set_max_num_streams(4096);
    MemoryTransport::default()
        .or_transport(libp2p_tcp::tokio::Transport::default())
        .upgrade(Version::V1)
        .authenticate(libp2p_noise::Config::new(keypair).unwrap())
        .multiplex(yamux)
        .boxed()
}

impl Node {
    /// Creates a node that does not listen.
    pub(crate) fn memory(config: StreamsConfig) -> Self {
        let keypair = Keypair::generate_ed25519();
        let peer = keypair.public().to_peer_id();
        let swarm_config = libp2p_swarm::Config::with_tokio_executor()
            .with_idle_connection_timeout(Duration::from_secs(60))
            .with_max_negotiating_inbound_streams(max_negotiating_inbound_streams(&config));
        let streams = Behaviour::new(config);
        let control = streams.control();
        let resources = streams.resources().clone();
        let behaviour = Tested {
            streams,
            book: Book::default(),
        };
        let mut swarm = Swarm::new(transport(&keypair), behaviour, peer, swarm_config);
        let (acts, mut todo) = mpsc::channel::<Act>(16);
        let (events_in, events) = mpsc::channel(4096);
        let task = tokio::spawn(async move {
            loop {
                tokio::select! {
                    act = todo.recv() => match act {
                        Some(act) => act(&mut swarm),
                        None => return,
                    },
                    event = swarm.select_next_some() => events_in.try_send(event).unwrap(),
                }
            }
        });
        Self {
            peer,
            control,
            resources,
            address: None,
            acts,
            events,
            task,
        }
    }

    /// Creates a node that listens in memory.
    pub(crate) async fn listening() -> Self {
        Self::listening_with(StreamsConfig::default()).await
    }

    /// Creates a node with `config` that listens in memory.
    pub(crate) async fn listening_with(config: StreamsConfig) -> Self {
        Self::listening_on("/memory/0", config).await
    }

    /// Creates a node that listens on `address`.
    pub(crate) async fn listening_on(address: &str, config: StreamsConfig) -> Self {
        let mut node = Self::memory(config);
        let address = address.parse().unwrap();
        node.act(|swarm| swarm.listen_on(address).unwrap()).await;
        let address = soon(node.wait(|event| match event {
            SwarmEvent::NewListenAddr { address, .. } => Some(address),
            _ => None,
        }))
        .await;
        node.address = Some(address);
        node
    }

    /// Runs a closure on the swarm and returns its result.
    pub(crate) async fn act<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Swarm<Tested>) -> T + Send + 'static,
    ) -> T {
        let (done, outcome) = oneshot::channel();
        let act: Act = Box::new(move |swarm| {
            let _ = done.send(act(swarm));
        });
        self.acts.send(act).await.ok().unwrap();
        outcome.await.unwrap()
    }

    /// Adds an address of a peer.
    pub(crate) async fn add_address(&self, peer: PeerId, address: Multiaddr) {
        self.act(move |swarm| {
            let addresses = &mut swarm.behaviour_mut().book.0;
            addresses.entry(peer).or_default().push(address);
        })
        .await;
    }

    /// Adds the listen address of `other`.
    pub(crate) async fn knows(&self, other: &Self) {
        self.add_address(other.peer, other.address.clone().unwrap())
            .await;
    }

    /// Waits for the first event for which `select` returns `Some`.
    pub(crate) async fn wait<T>(&mut self, mut select: impl FnMut(Seen) -> Option<T>) -> T {
        loop {
            if let Some(found) = select(self.events.recv().await.unwrap()) {
                return found;
            }
        }
    }

    /// Waits for the next event of the behaviour.
    pub(crate) async fn event(&mut self) -> Event {
        self.wait(|event| match event {
            SwarmEvent::Behaviour(TestedEvent::Streams(event)) => Some(event),
            _ => None,
        })
        .await
    }

    /// Sends back all frames that arrive on streams of `protocol`.
    pub(crate) fn echo(&self, protocol: StreamProtocol) -> JoinHandle<()> {
        let mut incoming = self.control.accept(protocol).unwrap();
        tokio::spawn(async move {
            while let Some(inbound) = incoming.next().await {
                tokio::spawn(async move {
                    let mut frames = FrameStream::new(inbound.stream);
                    while let Some(Ok(frame)) = frames.next().await {
                        if frames.send(frame).await.is_err() {
                            return;
                        }
                    }
                });
            }
        })
    }
}
