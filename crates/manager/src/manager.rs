//! Start: from a configuration to a running actor.

use std::sync::Arc;

use calimero_network_blob::{
    fetch::Fetcher,
    serve::{Authorizer, Server},
    store::BlobStore,
    transfer::{Identity, StreamOpener},
};
use calimero_network_discovery::cache::PeerCache;
use calimero_network_primitives::{
    Keypair, Multiaddr, NetworkConfig, ProtocolId, config::BlobVersion, identity::ed25519,
};
use calimero_network_stream::{self as stream, Control, Incoming};
use calimero_network_transport::{self as transport, Links};
use libp2p::{StreamProtocol, Swarm, swarm};
use tokio::sync::{mpsc, oneshot};

use crate::{
    actor::Actor,
    behaviour::Behaviour,
    blobs::{Blobs, REPORT_QUEUE, serve},
    client::NetworkClient,
    error::{ListenError, StartError, Stopped},
    event::{EventSender, Events},
    remembered::Remembered,
    runtime,
    status::Shared,
};

/// The actor that owns the swarm. It has no methods but its start: everything else goes through
/// [`NetworkClient`].
#[derive(Debug)]
#[non_exhaustive]
pub struct NetworkManager;

impl NetworkManager {
    /// Starts a node: checks the configuration, builds the transports, listens on every
    /// configured address, and runs.
    ///
    /// An unspecified IPv6 address is passed over, with a warning, on a host without IPv6.
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

    /// A start with more than an identity and a configuration: where peers are remembered over a
    /// restart, another transport.
    #[must_use]
    pub fn builder(identity: Keypair, config: NetworkConfig) -> Builder {
        Builder::new(identity, config)
    }
}

/// What a manager is started with beside its identity and configuration.
pub struct Builder {
    identity: Keypair,
    config: NetworkConfig,
    in_memory: bool,
    peer_cache: Option<Arc<dyn PeerCache>>,
    blobs: Option<Arc<dyn BlobStore>>,
    authorizer: Option<Arc<dyn Authorizer>>,
    signer: Option<ed25519::Keypair>,
}

impl Builder {
    fn new(identity: Keypair, config: NetworkConfig) -> Self {
        Self {
            identity,
            config,
            in_memory: false,
            peer_cache: None,
            blobs: None,
            authorizer: None,
            signer: None,
        }
    }

    /// Remembers peers in `cache` over a restart: those it holds are dialled first, and it is
    /// written every `discovery.cache.save_interval_ms` and at the end. Without one, nobody is
    /// remembered.
    #[must_use]
    pub fn peer_cache(mut self, cache: impl PeerCache) -> Self {
        self.peer_cache = Some(Arc::new(cache));
        self
    }

    /// Serves blobs from `store`, by what it calls public where
    /// [`authorize_blobs`](Self::authorize_blobs) says nothing else. Without one, none are served.
    #[must_use]
    pub fn blobs(mut self, store: Arc<dyn BlobStore>) -> Self {
        self.blobs = Some(store);
        self
    }

    /// Lets `authorizer` decide who may have which blob.
    #[must_use]
    pub fn authorize_blobs(mut self, authorizer: impl Authorizer) -> Self {
        self.authorizer = Some(Arc::new(authorizer));
        self
    }

    /// Signs requests for blobs with this key, which providers may ask for.
    #[must_use]
    pub fn sign_blob_requests(mut self, signer: ed25519::Keypair) -> Self {
        self.signer = Some(signer);
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
        let Self {
            identity,
            config,
            in_memory,
            peer_cache,
            blobs,
            authorizer,
            signer,
        } = self;
        let build = if in_memory {
            transport::build_memory
        } else {
            transport::build
        };
        config.validate()?;
        transport::warm_up();
        let config = Arc::new(config);
        let shared = Arc::new(Shared::default());
        let (commands, receiver) = mpsc::channel(config.handle.command_queue);
        let (events, stream) = EventSender::new(&config.handle, shared.clone());
        let peer = identity.public().to_peer_id();
        let (ready, started) = oneshot::channel();
        let (reports, heard) = mpsc::channel(REPORT_QUEUE);
        let (requests, requested) = mpsc::channel(REPORT_QUEUE);
        let server = blobs.clone().map(|store| {
            let server = Server::new(peer, store, &config.blob.serve).with_requests(requests);
            match authorizer {
                Some(authorizer) => server.with_shared_authorizer(authorizer),
                None => server,
            }
        });
        let task = {
            let (config, shared) = (config.clone(), shared.clone());
            async move {
                let built = build_swarm(&identity, &config, build);
                let (swarm, links, control, inbound) = match built {
                    Ok(built) => built,
                    Err(error) => {
                        let _ = ready.send(Err(error));
                        return;
                    }
                };
                if let Some(server) = server
                    && let Err(error) = serve(&control, &server, &config.blob.versions)
                {
                    let _ = ready.send(Err(error));
                    return;
                }
                let remembered = Remembered::load(peer_cache);
                let actor = Actor::new(
                    swarm, links, inbound, receiver, events, remembered, shared, config, identity,
                    requested, heard,
                );
                if ready.send(Ok(control)).is_ok() {
                    actor.run().await;
                }
            }
        };
        let guard = StopOnDrop(shared.clone());
        let runtime =
            runtime::spawn(config.handle.runtime, guard, task).map_err(StartError::Thread)?;
        let control = started
            .await
            .map_err(|_| StartError::Listen(Stopped.into()))??;
        let fetcher = Fetcher::new(
            opener(&control, &config.blob.versions),
            Identity { peer, signer },
            &config.blob.fetch,
        );
        let blobs = Blobs {
            fetcher,
            store: blobs,
            reports,
        };
        let client = NetworkClient::new(peer, commands, control, runtime, shared, config, blobs);
        listen(&client).await?;
        Ok((client, stream))
    }
}

type BuildTransport = fn(
    &Keypair,
    &calimero_network_primitives::config::TransportConfig,
) -> Result<transport::Transport, transport::BuildError>;

/// Marks the manager as stopped when its task ends, however it ends.
pub(crate) struct StopOnDrop(Arc<Shared>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Builds what the actor owns. Runs inside the runtime that will drive it, because sockets
/// belong to the runtime they are made in.
fn build_swarm(
    identity: &Keypair,
    config: &NetworkConfig,
    build: BuildTransport,
) -> Result<(Swarm<Behaviour>, Links, Control, Incoming), StartError> {
    let transport = build(identity, &config.transport)?;
    let behaviour = Behaviour::new(identity, config, transport.relay_client)?;
    let control = behaviour.streams.control();
    let inbound = control
        .accept(StreamProtocol::new(ProtocolId::Stream.as_str()))
        .map_err(|_| StartError::Listen(Stopped.into()))?;
    let swarm_config = swarm::Config::with_tokio_executor()
        .with_smart_dial()
        .with_idle_connection_timeout(config.connections.idle_timeout)
        .with_max_negotiating_inbound_streams(stream::config::max_negotiating_inbound_streams(
            &config.streams,
        ));
    let peer = identity.public().to_peer_id();
    let swarm = Swarm::new(transport.boxed, behaviour, peer, swarm_config);
    Ok((swarm, transport.links, control, inbound))
}

/// Opens streams of these versions, in their order. A configuration that is valid names one.
fn opener(control: &Control, versions: &[BlobVersion]) -> StreamOpener {
    match versions {
        [wanted, instead @ ..] => StreamOpener::with_versions(control.clone(), *wanted, instead),
        [] => StreamOpener::new(control.clone()),
    }
}

/// Listens on every configured address.
async fn listen(client: &NetworkClient) -> Result<(), StartError> {
    for address in client.config().listen.clone() {
        match client.listen_on(address).await {
            Ok(_) => {}
            Err(ListenError::Io { address, source }) if is_missing_ipv6(&address, &source) => {
                tracing::warn!(%address, error = %source, "this host has no IPv6");
            }
            Err(error) => {
                let _ = client.shutdown().await;
                return Err(error.into());
            }
        }
    }
    Ok(())
}

fn is_missing_ipv6(address: &Multiaddr, error: &std::io::Error) -> bool {
    use calimero_network_primitives::multiaddr::Protocol;
    /// Linux, macOS and Windows for `EAFNOSUPPORT`, whose `ErrorKind` is not stable.
    const ADDRESS_FAMILY_NOT_SUPPORTED: [i32; 3] = [97, 47, 10047];
    let unspecified =
        matches!(address.iter().next(), Some(Protocol::Ip6(ip)) if ip.is_unspecified());
    let family = error
        .raw_os_error()
        .is_some_and(|code| ADDRESS_FAMILY_NOT_SUPPORTED.contains(&code));
    unspecified && (family || error.kind() == std::io::ErrorKind::AddrNotAvailable)
}
