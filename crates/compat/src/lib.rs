#![doc = include_str!("../README.md")]

mod answer;
mod blobs;
mod commands;
mod config;
mod convert;
mod events;
mod invites;
mod local;
mod metrics;
mod peer_cache;
mod status;
mod stream;

use std::{
    collections::BTreeSet,
    sync::{Arc, mpsc},
};

use actix::{Actor, Context, Handler, Message, ResponseFuture};
use calimero_network_primitives::{config::NetworkConfig, messages::NetworkEventDispatcher};
use calimero_store::Store;
use eyre::{Result, WrapErr as _};
use libp2p::PeerId;
use network::{Events, Incoming, NetworkClient};
use prometheus_client::registry::Registry;

/// The protocol of AutoNAT v2 with libp2p 0.56, which the published crate exports here.
pub use calimero_network_primitives::autonat_v2 as autonat;
/// The manager of this repository, for calls that the published interface does not have.
pub use network;

pub use self::config::PRESET_VARIABLE;
use self::{
    invites::Pending, local::Local, metrics::Metrics, peer_cache::StoreCache, status::History,
};

/// The actor of the published crate on the manager of this repository.
///
/// [`new`](Self::new) starts the network. Events are dispatched from the start of the actor on;
/// those that happen before wait. The network stops when the actor is dropped, or by [`Shutdown`].
pub struct NetworkManager {
    node: Arc<Node>,
    /// What the tasks that start with the actor read.
    waiting: Option<(Events, Incoming)>,
}

/// What the actor and its tasks share.
struct Node {
    client: NetworkClient,
    local_peer: PeerId,
    dispatcher: Arc<dyn NetworkEventDispatcher>,
    local: Local,
    /// Topics that are not overlays.
    reserved: BTreeSet<String>,
    pending_invites: Pending,
    history: History,
}

/// Stops the network: unregisters, delivers what is queued, closes connections, saves the peer cache.
/// The answer comes when that is done, within 3 s. Every later command is answered with an error, or
/// with nothing where its answer has no error.
///
/// The published crate has no such message. Dropping the actor does the same.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Shutdown;

impl NetworkManager {
    /// Starts the network.
    ///
    /// `reserved_topics` are subscribed to without a search for other subscribers. `store` keeps the
    /// peer cache, under the same key and in the same format as the published crate. The metrics are
    /// registered in `prom_registry`, with names that begin with `calimero_network`.
    ///
    /// The preset is `published-0.11`, for networks in which some nodes run the published crate,
    /// unless the environment variable [`PRESET_VARIABLE`] names another one.
    ///
    /// # Errors
    ///
    /// A configuration that the manager refuses, and a listen address that cannot be had.
    pub async fn new(
        config: &NetworkConfig,
        event_dispatcher: Arc<dyn NetworkEventDispatcher>,
        prom_registry: &mut Registry,
        reserved_topics: BTreeSet<String>,
        store: Option<Store>,
    ) -> Result<Self> {
        let identity = convert::keypair_to_ours(&config.identity)?;
        let ours = config::convert(config, config::preset()?)?;
        let request_timeout = ours.specialized.request_timeout;
        let mut registry = network::prometheus_client::registry::Registry::default();
        let mut builder = network::NetworkManager::builder(identity, ours).metrics(&mut registry);
        if let Some(store) = store {
            builder = builder.peer_cache(StoreCache(store));
        }
        let (client, events) = builder.start().await.wrap_err("cannot start the network")?;
        let blobs = client.accept(blobs::BLOB_PROTOCOL)?;
        prom_registry.register_collector(Box::new(Metrics(registry)));
        let node = Node {
            local: Local::start(client.runtime(), request_timeout),
            local_peer: convert::peer_to_node(&client.peer_id())?,
            client,
            dispatcher: event_dispatcher,
            reserved: reserved_topics,
            pending_invites: Pending::default(),
            history: History::default(),
        };
        Ok(Self {
            node: Arc::new(node),
            waiting: Some((events, blobs)),
        })
    }

    /// The handle of the manager, for calls that the published interface does not have.
    #[must_use]
    pub fn client(&self) -> &NetworkClient {
        &self.node.client
    }
}

impl Actor for NetworkManager {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        let Some((events, blobs)) = self.waiting.take() else {
            return;
        };
        // The tasks run where the network runs. The arbiter of the actor may be busy or end early.
        let runtime = self.node.client.runtime();
        runtime.spawn(events::dispatch(Arc::clone(&self.node), events));
        runtime.spawn(events::accept_blobs(Arc::clone(&self.node), blobs));
    }
}

impl Handler<Shutdown> for NetworkManager {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Shutdown, _: &mut Self::Context) -> Self::Result {
        let client = self.node.client.clone();
        Box::pin(async move {
            // Stopped before is stopped.
            let _ = client.shutdown().await;
        })
    }
}

impl Drop for NetworkManager {
    /// Waits until the network has stopped, for at most `handle.shutdown_timeout_ms` (3 s), because a
    /// process may end right after.
    fn drop(&mut self) {
        let client = self.node.client.clone();
        let limit = client.config().handle.shutdown_timeout;
        let (stopped, wait) = mpsc::sync_channel(1);
        let runtime = client.runtime().clone();
        runtime.spawn(async move {
            let _ = client.shutdown().await;
            let _ = stopped.send(());
        });
        // The manager has a thread of its own, so that this thread may block.
        let _ = wait.recv_timeout(limit);
    }
}

/// Compiles and runs the examples of the migration page.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/migration.md")]
struct MigrationPage;

impl std::fmt::Debug for NetworkManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NetworkManager")
            .field("peer", &self.node.local_peer)
            .finish_non_exhaustive()
    }
}
