//! The transport on real loopback sockets, against itself and against `libp2p-quic`.

mod dial;
mod ends;
mod interop;
mod listen;
mod punch;
mod streams;

use std::{future::poll_fn, io, pin::Pin, time::Duration};

use calimero_network_primitives::config::{QuicConfig, QuicTuning};
use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p_core::{
    Endpoint, Multiaddr, Transport as _,
    multiaddr::Protocol,
    muxing::{StreamMuxer, StreamMuxerBox, SubstreamBox},
    transport::{Boxed, DialOpts, ListenerId, PortUse, TransportError, TransportEvent},
};
use libp2p_identity::{Keypair, PeerId};

use super::{Error, Transport};

type Output = (PeerId, StreamMuxerBox);
type Dial = <Boxed<Output> as libp2p_core::Transport>::Dial;
type Event = TransportEvent<<Boxed<Output> as libp2p_core::Transport>::ListenerUpgrade, io::Error>;

/// Longest that a test waits for what must happen.
const DEADLINE: Duration = Duration::from_secs(20);

const LOOPBACK: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

/// Waits for something, for as long as the test may wait.
async fn within<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(DEADLINE, what)
        .await
        .expect("it happens before the deadline")
}

/// One side: a transport and the peer it is for.
struct Node {
    peer: PeerId,
    transport: Boxed<Output>,
}

impl Node {
    fn ours() -> Self {
        Self::configured(
            &Keypair::generate_ed25519(),
            &QuicConfig::default(),
            DEADLINE,
        )
    }

    fn configured(keypair: &Keypair, config: &QuicConfig, handshake_timeout: Duration) -> Self {
        let transport = Transport::new(keypair, config, handshake_timeout).expect("builds");
        Self::of(keypair, transport)
    }

    fn of(keypair: &Keypair, transport: Transport) -> Self {
        Self {
            peer: keypair.public().to_peer_id(),
            transport: transport
                .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)))
                .boxed(),
        }
    }

    fn impatient(handshake_timeout: Duration) -> Self {
        let keypair = Keypair::generate_ed25519();
        Self::configured(&keypair, &QuicConfig::default(), handshake_timeout)
    }

    fn stock() -> Self {
        let keypair = Keypair::generate_ed25519();
        let mut config = libp2p_quic::Config::new(&keypair);
        config.handshake_timeout = DEADLINE;
        Self {
            peer: keypair.public().to_peer_id(),
            transport: libp2p_quic::tokio::Transport::new(config)
                .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)))
                .boxed(),
        }
    }

    async fn event(&mut self) -> Event {
        within(poll_fn(|cx| Pin::new(&mut self.transport).poll(cx))).await
    }

    async fn listen(&mut self) -> Multiaddr {
        self.listen_on(LOOPBACK).await.1
    }

    async fn listen_on(&mut self, address: &str) -> (ListenerId, Multiaddr) {
        let id = ListenerId::next();
        let address = address.parse().expect("a multiaddress");
        self.transport.listen_on(id, address).expect("listens");
        match self.event().await {
            TransportEvent::NewAddress { listen_addr, .. } => (id, listen_addr),
            other => panic!("expected an address, got {other:?}"),
        }
    }

    fn dial(&mut self, address: &Multiaddr, role: Endpoint, port_use: PortUse) -> Dial {
        self.try_dial(address, role, port_use)
            .expect("the dial begins")
    }

    fn try_dial(
        &mut self,
        address: &Multiaddr,
        role: Endpoint,
        port_use: PortUse,
    ) -> Result<Dial, TransportError<io::Error>> {
        let options = DialOpts { role, port_use };
        self.transport.dial(address.clone(), options)
    }

    fn dial_out(&mut self, address: &Multiaddr) -> Dial {
        self.dial(address, Endpoint::Dialer, PortUse::Reuse)
    }

    /// Waits for a connection and completes it; where it came from, and what it came to.
    async fn accept(&mut self) -> (Multiaddr, Result<Output, io::Error>) {
        loop {
            if let TransportEvent::Incoming {
                upgrade,
                send_back_addr,
                ..
            } = self.event().await
            {
                return (send_back_addr, within(upgrade).await);
            }
        }
    }
}

/// Connects `dialer` to the `listener` behind `address`.
async fn connect(
    dialer: &mut Node,
    listener: &mut Node,
    address: &Multiaddr,
) -> (StreamMuxerBox, StreamMuxerBox) {
    let dial = dialer.dial_out(&with_peer(address, listener.peer));
    let (dialled, (_, accepted)) = futures::join!(within(dial), listener.accept());
    let (dialled, accepted) = (dialled.expect("dials"), accepted.expect("accepts"));
    assert_eq!((dialled.0, accepted.0), (listener.peer, dialer.peer));
    (dialled.1, accepted.1)
}

/// Two nodes of this crate, connected.
async fn connected() -> (Node, Node, StreamMuxerBox, StreamMuxerBox) {
    let (mut dialer, mut listener) = (Node::ours(), Node::ours());
    let address = listener.listen().await;
    let (dialled, accepted) = connect(&mut dialer, &mut listener, &address).await;
    (dialer, listener, dialled, accepted)
}

fn with_peer(address: &Multiaddr, peer: PeerId) -> Multiaddr {
    address.clone().with(Protocol::P2p(peer))
}

/// The error of this crate inside of the one that a boxed transport or muxer hands out.
fn ours(error: &io::Error) -> &Error {
    let inner = error.get_ref().expect("an error inside");
    inner
        .downcast_ref()
        .unwrap_or_else(|| panic!("not ours: {inner:?}"))
}

async fn open(muxer: &mut StreamMuxerBox) -> Result<SubstreamBox, io::Error> {
    within(poll_fn(|cx| Pin::new(&mut *muxer).poll_outbound(cx))).await
}

async fn next_inbound(muxer: &mut StreamMuxerBox) -> Result<SubstreamBox, io::Error> {
    within(poll_fn(|cx| Pin::new(&mut *muxer).poll_inbound(cx))).await
}

/// Sends back what comes on every stream, until the connection ends.
async fn echo_all(mut muxer: StreamMuxerBox) -> io::Error {
    loop {
        match poll_fn(|cx| Pin::new(&mut muxer).poll_inbound(cx)).await {
            Ok(stream) => drop(tokio::spawn(echo(stream))),
            Err(error) => return error,
        }
    }
}

async fn echo(mut stream: SubstreamBox) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            return stream.close().await;
        }
        stream.write_all(&buffer[..length]).await?;
    }
}
