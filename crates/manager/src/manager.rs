//! The start of a manager, from a configuration to a running actor.

use std::{sync::Arc, time::Duration};

#[cfg(feature = "blobs")]
use calimero_network_blob::{serve::Authorizer, store::BlobStore, transfer::Signer};
use calimero_network_discovery::cache::PeerCache;
use calimero_network_primitives::{
    Keypair, Multiaddr, NetworkConfig, ProtocolId, addr::DialGate, config::RuntimeKind,
    limits::LISTEN_TIMEOUT, resources::Resources,
};
use calimero_network_stream::{self as stream, Control, Incoming};
use calimero_network_transport::{self as transport, FairExecutor, Links};
use futures::{
    FutureExt as _, StreamExt as _,
    future::{BoxFuture, Either, select},
    stream::FuturesUnordered,
};
use futures_timer::Delay;
use libp2p::{StreamProtocol, Swarm, swarm};
#[cfg(feature = "metrics")]
use prometheus_client::{collector::Collector, registry::Registry};
use tokio::sync::{mpsc, oneshot};

#[cfg(feature = "blobs")]
use crate::blobs::{self, Blobs, serve};
use crate::{
    actor::Actor,
    behaviour::{self, Behaviour},
    boxed_handler::BoxedHandlers,
    client::NetworkClient,
    command::COMMAND_QUEUE,
    error::{ListenError, StartError, Stopped},
    event::{EventSender, Events},
    listening::wildcard,
    metrics::Metrics,
    peer_cache::PeerCacheWriter,
    runtime,
    status::Shared,
};

/// The actor that owns the swarm. It has only functions that start it; a running manager is used
/// through [`NetworkClient`].
#[derive(Debug)]
#[non_exhaustive]
pub struct NetworkManager;

impl NetworkManager {
    /// Starts a node: checks the configuration, builds the transports, listens on every
    /// configured address, and runs.
    ///
    /// A wildcard address, such as `/ip6/::/tcp/2428`, means all interfaces that exist. Where a
    /// host has none of its kind, or refuses to report them, the node starts without it, logs a
    /// warning, and listens on what appears later. An address that names an interface, and a port in
    /// use, are errors.
    ///
    /// # Errors
    ///
    /// [`StartError`]; nothing keeps running then.
    pub async fn start(
        identity: Keypair,
        config: NetworkConfig,
    ) -> Result<(NetworkClient, Events), StartError> {
        Self::builder(identity, config).start().await
    }

    /// Starts a node whose only transport is libp2p's in-memory one, for tests of programs: same
    /// handshakes and multiplexer, addresses `/memory/<number>`.
    ///
    /// # Errors
    ///
    /// [`StartError`].
    pub async fn start_in_memory(
        identity: Keypair,
        config: NetworkConfig,
    ) -> Result<(NetworkClient, Events), StartError> {
        Self::builder(identity, config).in_memory().start().await
    }

    /// A builder for a manager with more than an identity and a configuration: a peer cache, a blob
    /// store, a registry of metrics, another transport.
    #[must_use]
    pub fn builder(identity: Keypair, config: NetworkConfig) -> Builder {
        Builder::new(identity, config)
    }
}

/// The builder of a manager: its identity, its configuration and the optional parts.
pub struct Builder {
    identity: Keypair,
    config: NetworkConfig,
    in_memory: bool,
    peer_cache: Option<Arc<dyn PeerCache>>,
    #[cfg(feature = "blobs")]
    blobs: blobs::Setup,
    metrics: Option<Metrics>,
    #[cfg(feature = "metrics")]
    collectors: Vec<Box<dyn Collector>>,
}

impl Builder {
    fn new(identity: Keypair, config: NetworkConfig) -> Self {
        Self {
            identity,
            config,
            in_memory: false,
            peer_cache: None,
            #[cfg(feature = "blobs")]
            blobs: blobs::Setup::default(),
            metrics: None,
            #[cfg(feature = "metrics")]
            collectors: Vec::new(),
        }
    }

    /// Keeps known peers in `cache` over a restart: the manager dials the cached peers first, and
    /// writes the cache every `discovery.cache.save_interval_ms` and when it stops. Without a cache,
    /// no peer is kept.
    #[must_use]
    pub fn peer_cache(mut self, cache: impl PeerCache) -> Self {
        self.peer_cache = Some(Arc::new(cache));
        self
    }

    /// Serves blobs from `store`. Without an authorizer
    /// ([`authorize_blobs`](Self::authorize_blobs)) it serves the blobs that the store marks as
    /// public. Without a store, it serves none.
    #[cfg(feature = "blobs")]
    #[must_use]
    pub fn blobs(mut self, store: Arc<dyn BlobStore>) -> Self {
        self.blobs.store = Some(store);
        self
    }

    /// Lets `authorizer` decide which peer may fetch which blob.
    #[cfg(feature = "blobs")]
    #[must_use]
    pub fn authorize_blobs(mut self, authorizer: impl Authorizer) -> Self {
        self.blobs.authorizer = Some(Arc::new(authorizer));
        self
    }

    /// Signs requests for blobs by `signer`, such as an Ed25519 key pair. A request may have a signer
    /// of its own.
    #[cfg(feature = "blobs")]
    #[must_use]
    pub fn sign_blob_requests(mut self, signer: impl Signer) -> Self {
        self.blobs.signer = Some(Arc::new(signer));
        self
    }

    /// Registers the metrics of the manager in `registry`, under the prefix `calimero_network`, in
    /// addition to [`NetworkClient::metrics`]. Counters are exact at any time; metrics that describe
    /// a state, such as the number of connections being set up, are refreshed every 5 s.
    #[cfg(feature = "metrics")]
    #[must_use]
    pub fn metrics(mut self, registry: &mut Registry) -> Self {
        self.metrics = Some(Metrics::new(Some(registry)));
        self
    }

    /// Adds the metrics of the program to those that [`NetworkClient::metrics`] returns, under their
    /// own names. The collector is called in the task that asks for metrics.
    #[cfg(feature = "metrics")]
    #[must_use]
    pub fn collector(mut self, collector: impl Collector) -> Self {
        self.collectors.push(Box::new(collector));
        self
    }

    /// Uses libp2p's in-memory transport alone, for tests of programs: same handshakes and
    /// multiplexer, addresses `/memory/<number>`.
    #[must_use]
    pub fn in_memory(mut self) -> Self {
        self.in_memory = true;
        self
    }

    /// Checks the configuration, builds the transports, listens on every configured address, and
    /// runs.
    ///
    /// # Errors
    ///
    /// [`StartError`]; nothing keeps running then.
    pub async fn start(self) -> Result<(NetworkClient, Events), StartError> {
        self.starting().await
    }

    /// The future of [`start`](Self::start) behind a pointer. The code of an async function is
    /// generated where it is awaited: every program would compile the swarm and all protocol
    /// handlers again. A pointer has it generated here.
    #[inline(never)]
    fn starting(self) -> BoxFuture<'static, Result<(NetworkClient, Events), StartError>> {
        Box::pin(self.start_all())
    }

    async fn start_all(self) -> Result<(NetworkClient, Events), StartError> {
        let Self {
            identity,
            config,
            in_memory,
            peer_cache,
            #[cfg(feature = "blobs")]
            blobs,
            metrics,
            #[cfg(feature = "metrics")]
            collectors,
        } = self;
        let exports_metrics = metrics.is_some();
        #[cfg_attr(
            not(feature = "metrics"),
            expect(unused_mut, reason = "only counted metrics change")
        )]
        let mut metrics = metrics.unwrap_or_default();
        #[cfg(feature = "metrics")]
        let registry = {
            metrics.collect(collectors);
            metrics.take_registry()
        };
        #[cfg(feature = "blobs")]
        let transfers = metrics.transfers();
        let build: BuildTransport = if in_memory {
            |identity, config, _| transport::build_memory(identity, config)
        } else {
            transport::build
        };
        config.validate()?;
        #[cfg(feature = "tls")]
        transport::warm_up();
        let config = Arc::new(config);
        let shared = Arc::new(Shared::default());
        let (commands, receiver) = mpsc::channel(COMMAND_QUEUE);
        let (events, stream) = EventSender::new(&config.handle, shared.clone());
        let peer = identity.public().to_peer_id();
        let (ready, started) = oneshot::channel();
        let resources = behaviour::resources(&config);
        #[cfg(feature = "blobs")]
        let (server, queues, fetching) =
            blobs.build(peer, &config.blob, &resources, transfers.clone());
        #[cfg(all(feature = "blobs", feature = "metrics"))]
        if let (Some(store), Some(server)) = (fetching.store(), &server) {
            metrics.set_store(store, server.totals());
        }
        let task = {
            let (config, shared) = (config.clone(), shared.clone());
            async move {
                // On its own thread the node shares the time between origins.
                let executor = (config.handle.runtime == RuntimeKind::Dedicated).then(|| {
                    let (executor, driver) = FairExecutor::new();
                    tokio::spawn(driver);
                    executor
                });
                let built = build_swarm(&identity, &config, build, resources, executor.as_ref());
                let (swarm, (links, gate), control, inbound) = match built {
                    Ok(built) => built,
                    Err(error) => {
                        let _ = ready.send(Err(error));
                        return;
                    }
                };
                #[cfg(feature = "blobs")]
                let blobs = fetching.start(&control, &config.blob);
                #[cfg(feature = "blobs")]
                if let Some(server) = server.map(|server| server.with_fetcher(&blobs.fetcher))
                    && let Err(error) = serve(&control, &server, &config.blob.versions, &transfers)
                {
                    let _ = ready.send(Err(error));
                    return;
                }
                let peer_cache = PeerCacheWriter::load(peer_cache);
                let actor = Actor::new(
                    swarm,
                    links,
                    gate,
                    inbound,
                    receiver,
                    events,
                    peer_cache,
                    shared,
                    config,
                    #[cfg(feature = "blobs")]
                    (identity, queues),
                    metrics,
                    exports_metrics,
                );
                let started = Started {
                    control,
                    #[cfg(feature = "blobs")]
                    blobs,
                };
                if ready.send(Ok(started)).is_ok() {
                    match executor {
                        Some(executor) => executor.caused(actor.run()).await,
                        None => actor.run().await,
                    }
                }
            }
        };
        let guard = StopOnDrop(shared.clone());
        let runtime =
            runtime::spawn(config.handle.runtime, guard, task).map_err(StartError::Thread)?;
        let Started {
            control,
            #[cfg(feature = "blobs")]
            blobs,
        } = started
            .await
            .map_err(|_| StartError::Listen(Stopped.into()))??;
        let client = NetworkClient::new(
            peer,
            commands,
            control,
            runtime,
            shared,
            config,
            #[cfg(feature = "blobs")]
            blobs,
            #[cfg(feature = "metrics")]
            registry,
        );
        listen(&client).await?;
        Ok((client, stream))
    }
}

type BuildTransport = fn(
    &Keypair,
    &calimero_network_primitives::config::TransportConfig,
    DialGate,
) -> Result<transport::Transport, transport::BuildError>;

/// The parts of the handle that the task of the swarm makes.
struct Started {
    control: Control,
    #[cfg(feature = "blobs")]
    blobs: Blobs,
}

/// Marks the manager as stopped when its task ends, for any reason.
pub(crate) struct StopOnDrop(Arc<Shared>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// What [`build_swarm`] returns: the swarm, what its transports share with the actor, and the streams.
type Built = (
    Swarm<BoxedHandlers<Behaviour>>,
    (Links, DialGate),
    Control,
    Incoming,
);

/// Builds the swarm of the actor. Runs inside the runtime that will drive the swarm, because a socket
/// belongs to the runtime that creates it.
fn build_swarm(
    identity: &Keypair,
    config: &NetworkConfig,
    build: BuildTransport,
    resources: Resources,
    executor: Option<&FairExecutor>,
) -> Result<Built, StartError> {
    // The operator names the boot nodes, so these may be local on any network.
    let gate = DialGate::new(config.discovery.dial_scopes(), &config.discovery.boot);
    let transport = build(identity, &config.transport, gate)?;
    transport.links.count_in(resources.clone());
    let behaviour = Behaviour::new(identity, config, transport.relay_client, resources)?;
    let control = behaviour.streams.control();
    let inbound = control
        .accept(StreamProtocol::new(ProtocolId::Stream.as_str()))
        .map_err(|_| StartError::Listen(Stopped.into()))?;
    let swarm_config = match executor.cloned() {
        Some(executor) => swarm::Config::with_executor(move |task| executor.spawn(task)),
        None => swarm::Config::with_tokio_executor(),
    };
    let swarm_config = swarm_config
        .with_smart_dial()
        .with_idle_connection_timeout(config.connections.idle_timeout)
        .with_max_negotiating_inbound_streams(stream::config::max_negotiating_inbound_streams(
            &config.streams,
        ));
    let peer = identity.public().to_peer_id();
    let swarm = Swarm::new(
        transport.boxed,
        BoxedHandlers(behaviour),
        peer,
        swarm_config,
    );
    Ok((swarm, (transport.links, transport.gate), control, inbound))
}

/// Time that wildcard addresses have to report their first address after another one has reported
/// and no explicit address is left: 500 ms. Interfaces that exist are reported within milliseconds.
const WILDCARD_GRACE: Duration = Duration::from_millis(500);

/// Listens on every configured address, all at the same time. A wildcard address without an address
/// yet is not an error: the node listens on what appears later.
async fn listen(client: &NetworkClient) -> Result<(), StartError> {
    let limit = LISTEN_TIMEOUT;
    let mut waiting: Vec<&Multiaddr> = client.config().listen.iter().collect();
    let listening = waiting.iter().copied().map(|address| {
        let listening = client.listen_configured(address, limit);
        listening.map(move |outcome| (address, outcome))
    });
    let mut listening: FuturesUnordered<_> = listening.collect();
    let mut grace = None;
    loop {
        let next = match &mut grace {
            None => listening.next().await,
            Some(grace) => match select(listening.next(), grace).await {
                Either::Left((next, _)) => next,
                Either::Right(_) => None,
            },
        };
        let Some((address, outcome)) = next else {
            break;
        };
        match outcome {
            Ok(()) => waiting.retain(|waiting| *waiting != address),
            Err(ListenError::Deadline { .. }) if wildcard(address).is_some() => {}
            Err(error) => {
                let _ = client.shutdown().await;
                return Err(error.into());
            }
        }
        if grace.is_none() && waiting.iter().all(|address| wildcard(address).is_some()) {
            grace = Some(Delay::new(WILDCARD_GRACE));
        }
    }
    for address in waiting {
        tracing::warn!(%address, "no interface has an address of this kind yet");
    }
    Ok(())
}
