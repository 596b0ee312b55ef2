//! Nodes on loopback, and what tests wait for.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    unreachable_pub,
    reason = "test support: each test file uses a part of it, and a surprise ends the test"
)]

pub mod relay;

use std::{fs, time::Duration};

use calimero_network::{
    Events, FrameStream, Keypair, Multiaddr, NetworkClient, NetworkConfig, NetworkEvent,
    NetworkManager, PeerId, StreamEvent, StreamProtocol, Substream, multiaddr::Protocol,
};
use tokio::net::TcpSocket;

/// How long anything in a test may take: long for the machine under load, short for a hang.
pub const LIMIT: Duration = Duration::from_secs(60);

pub const GENERAL: StreamProtocol = StreamProtocol::new("/calimero/stream/0.0.2");

/// A node with what happens to it.
pub struct Node {
    pub client: NetworkClient,
    pub events: Events,
}

/// The transports that tests run over.
#[derive(Clone, Copy, Debug)]
pub enum Over {
    Tcp,
    Quic,
}

#[cfg(feature = "quic")]
pub const BOTH: [Over; 2] = [Over::Tcp, Over::Quic];

/// QUIC is not compiled in.
#[cfg(not(feature = "quic"))]
pub const BOTH: [Over; 1] = [Over::Tcp];

/// QUIC, or TCP where QUIC is not compiled in.
pub const LAST: Over = BOTH[BOTH.len() - 1];

pub fn loopback(over: Over) -> Multiaddr {
    match over {
        Over::Tcp => "/ip4/127.0.0.1/tcp/0".parse().unwrap(),
        Over::Quic => "/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap(),
    }
}

pub fn config() -> NetworkConfig {
    NetworkConfig {
        listen: Vec::new(),
        ..NetworkConfig::default()
    }
}

pub async fn start(config: NetworkConfig) -> Node {
    let identity = Keypair::generate_ed25519();
    let (client, events) = NetworkManager::start(identity, config).await.unwrap();
    Node { client, events }
}

impl Node {
    pub fn peer(&self) -> PeerId {
        self.client.peer_id()
    }

    /// Listens and gives the address to dial, peer id included.
    pub async fn listen(&self, over: Over) -> Multiaddr {
        let (_, address) = self.client.listen_on(loopback(over)).await.unwrap();
        address.with(Protocol::P2p(self.peer()))
    }

    /// What `find` finds in the events from here on.
    pub async fn wait_for<T>(&mut self, mut find: impl FnMut(NetworkEvent) -> Option<T>) -> T {
        let found = async {
            loop {
                let event = self.events.next().await.expect("the manager stopped");
                if let Some(found) = find(event) {
                    return found;
                }
            }
        };
        within(found).await
    }

    /// The next general stream that is opened to this node.
    pub async fn inbound(&mut self) -> FrameStream<Substream> {
        self.wait_for(|event| match event {
            NetworkEvent::Stream(StreamEvent::Opened { stream, .. }) => Some(stream),
            _ => None,
        })
        .await
    }

    pub async fn connections(&self) -> usize {
        self.client.status().await.unwrap().connections.len()
    }
}

/// Two connected nodes, the first one having dialled.
pub async fn pair(over: Over) -> (Node, Node) {
    pair_with(over, config(), config()).await
}

pub async fn pair_with(over: Over, a: NetworkConfig, b: NetworkConfig) -> (Node, Node) {
    let (a, b) = (start(a).await, start(b).await);
    let address = b.listen(over).await;
    within(a.client.dial(address)).await.unwrap();
    (a, b)
}

/// What `future` gives, in time.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.expect("in time")
}

/// A frame there and back on a new stream: the connection and both nodes work.
pub async fn assert_works(from: &Node, to: &mut Node) {
    let payload = bytes::Bytes::from_static(b"still here");
    let mut opened = within(from.client.open_stream(to.peer())).await.unwrap();
    within(opened.send(payload.clone())).await.unwrap();
    loop {
        // Streams that the test left behind may come first.
        let mut served = to.inbound().await;
        if let Some(Ok(frame)) = within(served.next()).await
            && frame == payload
        {
            within(served.send(frame)).await.unwrap();
            within(served.close()).await.unwrap();
            break;
        }
    }
    assert_eq!(within(opened.next()).await.unwrap().unwrap(), payload);
}

/// A TCP port of loopback that refuses connections for as long as this is kept: its socket is bound,
/// so that no other process gets the port, and does not listen.
pub struct ClosedPort {
    _socket: TcpSocket,
    pub address: Multiaddr,
}

impl ClosedPort {
    pub fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = socket.local_addr().unwrap().port();
        Self {
            _socket: socket,
            address: format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap(),
        }
    }
}

/// Resident memory of this process, in bytes.
pub fn resident_bytes() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.unwrap().split_whitespace().next().unwrap();
    kib.parse::<usize>().unwrap() * 1024
}
