//! One node of the demonstration.

use std::{net::Ipv4Addr, sync::Arc, time::Instant};

use calimero_network::{
    Events, FrameStream, Keypair, Multiaddr, NetworkClient, NetworkConfig, NetworkEvent,
    NetworkManager, Substream, multiaddr::Protocol,
};
use tokio::sync::{Notify, mpsc};

use super::{lines::Line, overlay::Heard, traffic};
use crate::{error::CommandError, output::Output};

/// What a node secures TCP with. QUIC always has TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaks {
    Everything,
    NoiseOnTcp,
}

/// What a node is to the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Others register with it and ask it for others.
    Boot,
    /// It is told whom to dial.
    Guided,
    /// It knows this boot node and nobody else.
    Newcomer(Multiaddr),
}

/// A running node with its addresses.
pub(super) struct Node {
    pub(super) name: &'static str,
    pub(super) speaks: Speaks,
    pub(super) client: NetworkClient,
    /// Told whenever a connection stands.
    pub(super) changed: Arc<Notify>,
    tcp: Multiaddr,
    quic: Multiaddr,
}

impl Node {
    /// Starts a node on loopback, on ports the system chooses, and serves its streams.
    pub(super) async fn start(
        name: &'static str,
        speaks: Speaks,
        role: Role,
        heard: mpsc::Sender<Heard>,
        output: &Output,
    ) -> Result<Self, CommandError> {
        let mut config = NetworkConfig {
            listen: Vec::new(),
            ..NetworkConfig::default()
        };
        config.transport.tcp.tls = speaks == Speaks::Everything;
        config.discovery.local_network = true;
        match role {
            Role::Boot => config.server.rendezvous.enabled = true,
            Role::Guided => {}
            Role::Newcomer(boot) => config.discovery.boot = vec![boot],
        }
        let identity = Keypair::generate_ed25519();
        let (client, events) = NetworkManager::start(identity, config).await?;
        let on = Multiaddr::from(Ipv4Addr::LOCALHOST);
        let tcp = on.clone().with(Protocol::Tcp(0));
        let quic = on.with(Protocol::Udp(0)).with(Protocol::QuicV1);
        let named = Protocol::P2p(client.peer_id());
        let listen = async |address| client.listen_on(address).await.map(|(_, bound)| bound);
        let node = Self {
            name,
            speaks,
            tcp: listen(tcp).await.map_err(to_start)?.with(named.clone()),
            quic: listen(quic).await.map_err(to_start)?.with(named),
            client,
            changed: Arc::new(Notify::new()),
        };
        output.print(&Line::started(name, &node.client, [&node.tcp, &node.quic]));
        let changed = node.changed.clone();
        node.client
            .runtime()
            .spawn(serve(name, events, changed, heard, output.clone()));
        Ok(node)
    }

    pub(super) fn address(&self, quic: bool) -> Multiaddr {
        if quic { &self.quic } else { &self.tcp }.clone()
    }
}

fn to_start(error: calimero_network::ListenError) -> CommandError {
    CommandError::Start(error.into())
}

/// Prints what a node sees and serves the streams it is sent, until it stops.
async fn serve(
    name: &'static str,
    mut events: Events,
    changed: Arc<Notify>,
    heard: mpsc::Sender<Heard>,
    output: Output,
) {
    while let Some(event) = events.next().await {
        match event {
            NetworkEvent::Connected(connection) => {
                output.print(&Line::connected(name, &connection));
                changed.notify_waiters();
            }
            NetworkEvent::StreamOpened { peer, stream, .. } => {
                output.print(&Line::stream(name, &peer));
                tokio::spawn(answer(stream));
            }
            NetworkEvent::Message(message) => {
                let at = Instant::now();
                // Nobody counts any more once the demonstration ends.
                let _ = heard.send(Heard { name, message, at }).await;
            }
            _ => {}
        }
    }
}

/// A stream that breaks shows at its other end, where the checks are.
async fn answer(stream: FrameStream<Substream>) {
    let _ = traffic::answer(stream).await;
}
