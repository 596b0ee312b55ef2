//! One node of the demonstration.

use std::{net::Ipv4Addr, sync::Arc, time::Instant};

use calimero_network::{
    Builder, ConnectionEvent, Events, FrameStream, GossipEvent, Keypair, Multiaddr, NetworkClient,
    NetworkConfig, NetworkEvent, NetworkManager, StreamEvent, Substream,
    blob::store::FsBlobStore,
    config::{BlobStoreConfig, RuntimeKind},
    multiaddr::Protocol,
};
use tempfile::TempDir;
use tokio::{
    runtime::{self, Runtime},
    sync::{Notify, mpsc},
};

use super::{
    lines::Line,
    overlay::{self, Heard},
    traffic,
};
use crate::{api::Feed, error::CommandError, output::Output};

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
    /// The demonstration dials for it.
    Guided,
    /// It knows this boot node and no other peer.
    Newcomer(Multiaddr),
    /// The same, and it can be killed.
    Mortal(Multiaddr),
}

/// A running node with its addresses.
pub(super) struct Node {
    pub(super) name: &'static str,
    pub(super) speaks: Speaks,
    pub(super) client: NetworkClient,
    /// Notified when a connection is established.
    pub(super) changed: Arc<Notify>,
    /// What clients of its API read.
    pub(super) feed: Feed,
    /// Its blobs, which it serves.
    pub(super) store: FsBlobStore,
    tcp: Multiaddr,
    quic: Multiaddr,
    mortal: Option<Mortal>,
    _folder: TempDir,
}

/// What carries a node that can be killed: a runtime of its own.
struct Mortal(Option<Runtime>);

impl Mortal {
    fn new() -> Result<Self, CommandError> {
        let mut runtime = runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build();
        Ok(Self(Some(runtime.map_err(CommandError::Runtime)?)))
    }
}

impl Drop for Mortal {
    /// Drops every task and its sockets at once, without a message to the peers.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
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
        config.transport.tcp.tuning.tls = speaks == Speaks::Everything;
        config.discovery.local_network = true;
        let mut mortal = None;
        match role {
            Role::Boot => config.server.rendezvous.enabled = true,
            Role::Guided => {}
            Role::Newcomer(boot) => config.discovery.boot = vec![boot],
            Role::Mortal(boot) => {
                config.discovery.boot = vec![boot];
                config.handle.runtime = RuntimeKind::Shared;
                mortal = Some(Mortal::new()?);
            }
        }
        let folder = tempfile::tempdir().map_err(temporary)?;
        let store = FsBlobStore::open(folder.path(), &BlobStoreConfig::default())?;
        let manager = NetworkManager::builder(Keypair::generate_ed25519(), config);
        let manager = manager.blobs(Arc::new(store.clone()));
        let (client, events) = start_on(manager, mortal.as_ref()).await?;
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
            feed: Feed::new(&[overlay::topic()]),
            store,
            mortal,
            _folder: folder,
        };
        output.print(&Line::started(name, &node.client, [&node.tcp, &node.quic]));
        let (changed, feed) = (node.changed.clone(), node.feed.clone());
        node.client
            .runtime()
            .spawn(serve(name, events, changed, feed, heard, output.clone()));
        Ok(node)
    }

    pub(super) fn address(&self, quic: bool) -> Multiaddr {
        if quic { &self.quic } else { &self.tcp }.clone()
    }

    /// Ends a mortal node as the end of its process would, without a message to the peers.
    pub(super) fn kill(self) {
        drop(self.mortal);
    }
}

async fn start_on(
    manager: Builder,
    mortal: Option<&Mortal>,
) -> Result<(NetworkClient, Events), CommandError> {
    let started = match mortal.and_then(|mortal| mortal.0.as_ref()) {
        Some(runtime) => {
            let starting = runtime.spawn(manager.start());
            starting.await.map_err(CommandError::Task)?
        }
        None => manager.start().await,
    };
    Ok(started?)
}

pub(super) fn temporary(source: std::io::Error) -> CommandError {
    CommandError::DataFolder {
        path: std::env::temp_dir(),
        source,
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
    feed: Feed,
    heard: mpsc::Sender<Heard>,
    output: Output,
) {
    while let Some(event) = events.next().await {
        feed.on_record(&event);
        match event {
            NetworkEvent::Connection(ConnectionEvent::Connected(connection)) => {
                output.print(&Line::connected(name, &connection));
                changed.notify_waiters();
            }
            NetworkEvent::Stream(StreamEvent::Opened { peer, stream, .. }) => {
                output.print(&Line::stream(name, &peer));
                tokio::spawn(answer(stream));
            }
            NetworkEvent::Gossip(GossipEvent::Message(message)) => {
                feed.on_message(&message);
                let at = Instant::now();
                // The receiver is dropped when the demonstration
                // ends.
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
