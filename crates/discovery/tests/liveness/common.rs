//! Swarms over each transport, and peers without a swarm.

use std::{future::Future, time::Duration};

use calimero_network_discovery::liveness::{Behaviour, Event, Outcome};
use calimero_network_primitives::{
    addr::DialPolicy,
    config::{PingConfig, TransportConfig},
};
use calimero_network_transport::{Transport, build, build_memory};
use futures::{
    AsyncReadExt, AsyncWriteExt, StreamExt,
    future::{self, poll_fn},
};
use libp2p_core::{
    Multiaddr, Negotiated, Transport as _,
    muxing::{StreamMuxerBox, StreamMuxerExt, SubstreamBox},
    transport::{ListenerId, TransportEvent},
};
use libp2p_identity::Keypair;
use libp2p_swarm::{Config, NetworkBehaviour, StreamProtocol, Swarm, SwarmEvent};

pub(crate) const PING: StreamProtocol = StreamProtocol::new("/ipfs/ping/1.0.0");

/// Longer than anything here takes on a loaded machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Longer than any test lives: what waits for it does not happen.
pub(crate) const NEVER: Duration = Duration::from_secs(3600);

pub(crate) const OFTEN: Duration = Duration::from_millis(10);

/// How long a ping may take where some are to fail.
pub(crate) const SHORT: Duration = Duration::from_millis(100);

pub(crate) const MEMORY: &str = "/memory/0";
pub(crate) const TCP: &str = "/ip4/127.0.0.1/tcp/0";
pub(crate) const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future)
        .await
        .expect("the test takes too long")
}

pub(crate) const fn config(interval: Duration, timeout: Duration, max_failures: u32) -> PingConfig {
    PingConfig {
        interval,
        timeout,
        max_failures,
    }
}

fn transport(keypair: &Keypair, listen: &str) -> Transport {
    let config = TransportConfig {
        dns: false,
        relay_client: false,
        ..TransportConfig::default()
    };
    if listen == MEMORY {
        build_memory(keypair, &config).unwrap()
    } else {
        build(keypair, &config, DialPolicy::Local.into()).unwrap()
    }
}

/// A swarm for peers that listen at `listen`; an unused connection is closed after `idle`.
pub(crate) fn swarm<B: NetworkBehaviour>(listen: &str, behaviour: B, idle: Duration) -> Swarm<B> {
    let keypair = Keypair::generate_ed25519();
    let transport = transport(&keypair, listen).boxed;
    let config = Config::with_tokio_executor().with_idle_connection_timeout(idle);
    Swarm::new(transport, behaviour, keypair.public().to_peer_id(), config)
}

/// Connects `dialer` to `listener`, which listens at `at`.
pub(crate) async fn connect<A, B>(dialer: &mut Swarm<A>, listener: &mut Swarm<B>, at: &str)
where
    A: NetworkBehaviour,
    B: NetworkBehaviour,
{
    listener.listen_on(at.parse().unwrap()).unwrap();
    let listening = async {
        loop {
            if let SwarmEvent::NewListenAddr { address, .. } = listener.select_next_some().await {
                return address;
            }
        }
    };
    let address = within(listening).await;
    dialer.dial(address).unwrap();
    within(future::join(established(dialer), established(listener))).await;
}

pub(crate) async fn established<B: NetworkBehaviour>(swarm: &mut Swarm<B>) {
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::ConnectionEstablished { .. } => return,
            SwarmEvent::OutgoingConnectionError { error, .. } => panic!("{error}"),
            _ => {}
        }
    }
}

/// The next outcome, or `None` once the connection is closed.
pub(crate) async fn next_outcome(swarm: &mut Swarm<Behaviour>) -> Option<Outcome> {
    let wait = async {
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::Behaviour(Event { outcome, .. }) => return Some(outcome),
                SwarmEvent::ConnectionClosed { .. } => return None,
                _ => {}
            }
        }
    };
    within(wait).await
}

/// Drives a swarm until the test ends.
pub(crate) fn spawn<B>(mut swarm: Swarm<B>)
where
    B: NetworkBehaviour<ToSwarm: Send> + Send,
{
    tokio::spawn(async move {
        loop {
            swarm.next().await;
        }
    });
}

/// The remote end of a connection, below the swarm. It acts only when a test calls it.
pub(crate) struct Raw {
    /// A connection may end with its listener.
    _transport: Transport,
    muxer: StreamMuxerBox,
}

impl Raw {
    /// Listens at `at` and is dialled by `swarm`.
    pub(crate) async fn dialled_by<B: NetworkBehaviour>(swarm: &mut Swarm<B>, at: &str) -> Self {
        let mut transport = transport(&Keypair::generate_ed25519(), at);
        let listen = at.parse().unwrap();
        transport
            .boxed
            .listen_on(ListenerId::next(), listen)
            .unwrap();
        let address: Multiaddr = match within(transport.boxed.next()).await.unwrap() {
            TransportEvent::NewAddress { listen_addr, .. } => listen_addr,
            other => panic!("{other:?}"),
        };
        swarm.dial(address).unwrap();
        let accept = async {
            loop {
                let event = transport.boxed.next().await.unwrap();
                if let TransportEvent::Incoming { upgrade, .. } = event {
                    return upgrade.await.unwrap().1;
                }
            }
        };
        let (muxer, ()) = within(future::join(accept, established(swarm))).await;
        Self {
            _transport: transport,
            muxer,
        }
    }

    pub(crate) async fn next_stream(&mut self) -> SubstreamBox {
        poll_fn(|cx| {
            if let std::task::Poll::Ready(Err(error)) = self.muxer.poll_unpin(cx) {
                panic!("{error}");
            }
            self.muxer.poll_inbound_unpin(cx)
        })
        .await
        .unwrap()
    }

    /// Drives the connection while `future` runs. Streams that are opened during that time are
    /// reset.
    pub(crate) async fn drive<F: Future>(&mut self, future: F) -> F::Output {
        let streams = async {
            loop {
                drop(self.next_stream().await);
            }
        };
        tokio::select! {
            output = future => output,
            () = streams => unreachable!(),
        }
    }

    /// Keeps the connection as it is and never does anything with it again.
    pub(crate) async fn freeze(self) {
        future::pending::<()>().await;
        drop(self);
    }
}

/// Agrees on ping, answers `pings` of them and keeps the stream.
pub(crate) async fn answer(stream: SubstreamBox, pings: usize) -> Negotiated<SubstreamBox> {
    let names = ["/ipfs/ping/1.0.0"];
    let agreed = multistream_select::listener_select_proto(stream, names).await;
    let mut stream = agreed.unwrap().1;
    for _ in 0..pings {
        echo(&mut stream).await;
    }
    stream
}

pub(crate) async fn echo<S>(stream: &mut S)
where
    S: AsyncReadExt + AsyncWriteExt + Unpin,
{
    let mut payload = [0; 32];
    stream.read_exact(&mut payload).await.unwrap();
    stream.write_all(&payload).await.unwrap();
    stream.flush().await.unwrap();
}
