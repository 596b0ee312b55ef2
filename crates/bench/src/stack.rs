//! The two implementations: this network through its manager, and unmodified
//! libp2p.

use std::{net::Ipv4Addr, time::Duration};

use calimero_network::{
    Keypair, Multiaddr, NetworkClient, NetworkConfig, NetworkManager, PeerId, StreamProtocol,
    config::RuntimeKind,
};
use clap::ValueEnum;
use futures::{AsyncRead, AsyncWrite, StreamExt as _, future::Either, stream::BoxStream};
use libp2p::{SwarmBuilder, multiaddr::Protocol, swarm::SwarmEvent};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::{Failure, SideArgs, plan::Runtime};

/// The implementation that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Stack {
    Ours,
    Stock,
}

impl std::fmt::Display for Stack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ours => "ours",
            Self::Stock => "stock libp2p",
        })
    }
}

/// The transport protocol of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Transport {
    Tcp,
    Quic,
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Quic => "QUIC",
        })
    }
}

impl Transport {
    pub(crate) fn address(self, ip: Ipv4Addr) -> Multiaddr {
        let ip = Multiaddr::from(ip);
        match self {
            Self::Tcp => ip.with(Protocol::Tcp(0)),
            Self::Quic => ip.with(Protocol::Udp(0)).with(Protocol::QuicV1),
        }
    }
}

/// A byte stream of either implementation.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Duplex for T {}

/// A node of either implementation.
pub(crate) enum Node {
    Ours(NetworkClient),
    Stock {
        peer: PeerId,
        listening: Multiaddr,
        control: libp2p_stream::Control,
        dials: tokio::sync::mpsc::Sender<(Multiaddr, oneshot::Sender<()>)>,
    },
}

/// A node, and the streams that clients open to it.
pub(crate) type Started = (Node, BoxStream<'static, Box<dyn Duplex>>);

impl Node {
    /// Starts a node that accepts streams of `protocol`.
    pub(crate) async fn start(
        side: SideArgs,
        protocol: &StreamProtocol,
    ) -> Result<Started, Failure> {
        match side.stack {
            Stack::Ours => start_ours(side, protocol).await,
            Stack::Stock => start_stock(side, protocol).await,
        }
    }

    /// Runs `work` on the runtime on which the given mode reads and writes
    /// streams.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        runtime: Runtime,
        work: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> Result<T, Failure> {
        match self {
            Self::Ours(client) if runtime == Runtime::Beside => {
                client.runtime().spawn(work).await?
            }
            _ => work.await,
        }
    }

    /// Returns the listen address with the peer id.
    pub(crate) async fn address(&self) -> Result<Multiaddr, Failure> {
        let (address, peer) = match self {
            Self::Ours(client) => {
                let listening = client.status().await?.listening;
                (
                    listening.first().ok_or("not listening")?.clone(),
                    client.peer_id(),
                )
            }
            Self::Stock {
                peer, listening, ..
            } => (listening.clone(), *peer),
        };
        Ok(address.with(Protocol::P2p(peer)))
    }

    pub(crate) async fn dial(&self, address: &Multiaddr) -> Result<PeerId, Failure> {
        match self {
            Self::Ours(client) => Ok(client.dial(address.clone()).await?.peer),
            Self::Stock { dials, .. } => {
                let (done, connected) = oneshot::channel();
                dials.send((address.clone(), done)).await?;
                connected.await?;
                match address.iter().last() {
                    Some(Protocol::P2p(peer)) => Ok(peer),
                    _ => Err("the address names no peer".into()),
                }
            }
        }
    }

    pub(crate) async fn open(
        &self,
        peer: PeerId,
        protocol: &StreamProtocol,
    ) -> Result<impl Duplex + use<>, Failure> {
        match self {
            Self::Ours(client) => Ok(Either::Left(
                client.open_raw_stream(peer, protocol.clone()).await?,
            )),
            Self::Stock { control, .. } => Ok(Either::Right(
                control
                    .clone()
                    .open_stream(peer, protocol.clone())
                    .await
                    .map_err(|error| error.to_string())?,
            )),
        }
    }
}

async fn start_ours(side: SideArgs, protocol: &StreamProtocol) -> Result<Started, Failure> {
    let mut config = NetworkConfig {
        listen: vec![side.transport.address(side.listen)],
        ..NetworkConfig::default()
    };
    config.handle.runtime = match side.runtime {
        Runtime::Dedicated | Runtime::Beside => RuntimeKind::Dedicated,
        Runtime::Current | Runtime::Multi => RuntimeKind::Shared,
    };
    let (client, _) = NetworkManager::start(Keypair::generate_ed25519(), config).await?;
    let inbound = client.accept(protocol.clone())?;
    let inbound = inbound.map(|inbound| Box::new(inbound.stream) as Box<dyn Duplex>);
    Ok((Node::Ours(client), inbound.boxed()))
}

async fn start_stock(side: SideArgs, protocol: &StreamProtocol) -> Result<Started, Failure> {
    let mut swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            libp2p::tcp::Config::default().nodelay(true),
            libp2p::tls::Config::new,
            libp2p::yamux::Config::default,
        )?
        .with_quic()
        .with_behaviour(|_| libp2p_stream::Behaviour::new())?
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(60)))
        .build();
    let peer = *swarm.local_peer_id();
    let mut control = swarm.behaviour().new_control();
    let inbound = control
        .accept(protocol.clone())
        .map_err(|error| error.to_string())?;
    swarm.listen_on(side.transport.address(side.listen))?;
    let listening = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            break address;
        }
    };
    let (dials, mut requests) = tokio::sync::mpsc::channel::<(Multiaddr, oneshot::Sender<()>)>(1);
    tokio::spawn(async move {
        let mut waiting = None;
        loop {
            tokio::select! {
                event = swarm.select_next_some() => {
                    if let SwarmEvent::ConnectionEstablished { .. } = event {
                        waiting.take().map(|done: oneshot::Sender<()>| done.send(()));
                    }
                }
                request = requests.recv() => {
                    let Some((address, done)) = request else { break };
                    waiting = swarm.dial(address).is_ok().then_some(done);
                }
            }
        }
    });
    let inbound = inbound.map(|(_, stream)| Box::new(stream) as Box<dyn Duplex>);
    let node = Node::Stock {
        peer,
        listening,
        control,
        dials,
    };
    Ok((node, inbound.boxed()))
}
