//! The transports, put together.

use std::{fmt, net::Ipv4Addr, path::Path, sync::Arc, time::Duration};

use calimero_network_primitives::config::TransportConfig;
use futures::{AsyncRead, AsyncWrite, FutureExt};
use hickory_resolver::config::NameServerConfig;
use libp2p_core::{
    Transport as _,
    connection::ConnectedPoint,
    muxing::StreamMuxerBox,
    transport::{
        Boxed, MemoryTransport,
        dummy::DummyTransport,
        timeout::{TransportTimeout, TransportTimeoutError},
    },
};
use libp2p_dns::{ResolverConfig, ResolverOpts};
use libp2p_identity::{Keypair, PeerId};

use crate::{
    AddressError, BuildError, Links,
    crypto::Crypto,
    link::{TransportKind, Upgraded},
    quic,
    upgrade::Upgrade,
};

/// Connections that the kernel completes ahead of `accept`: 1024, the size of libp2p-tcp.
const LISTEN_BACKLOG: u32 = 1024;

/// Handshake deadlines that an address with a name may take in all: the name is looked up, and
/// what it resolves to is dialled one after the other.
const NAME_ATTEMPTS: u32 = 3;

/// Where the system keeps its name servers.
const RESOLVER_CONFIG: &str = "/etc/resolv.conf";

/// What [`build`] makes.
pub struct Transport {
    /// The transport, for a Swarm: every connection is authenticated and multiplexed.
    pub boxed: Boxed<(PeerId, StreamMuxerBox)>,
    /// What each connection runs over and has carried.
    pub links: Links,
    /// The behaviour that relayed connections need beside the transport, if the configuration
    /// has them. It goes into the same Swarm.
    pub relay_client: Option<libp2p_relay::client::Behaviour>,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("links", &self.links)
            .field("relay_client", &self.relay_client.is_some())
            .finish_non_exhaustive()
    }
}

/// Makes the transport that `config` describes, with the identity `keypair`.
///
/// Needs a tokio runtime when it is used, not yet when it is built.
///
/// # Errors
///
/// [`BuildError`]: the configuration contradicts itself, the identity cannot sign, or the
/// system's resolver configuration is broken.
pub fn build(keypair: &Keypair, config: &TransportConfig) -> Result<Transport, BuildError> {
    let parts = Parts::new(keypair, config)?;
    let tcp = config.tcp.enabled.then(|| parts.tcp());
    let quic = if config.quic.enabled {
        Some(parts.quic(keypair, config)?)
    } else {
        None
    };
    let direct = either(tcp, quic);
    let named = if config.dns {
        parts.names(direct)?
    } else {
        direct
    };
    Ok(parts.finish(keypair, config, named))
}

/// Makes a transport whose `/memory` addresses reach others in the same process, with the same
/// security, multiplexer and relay client as [`build`]. For tests.
///
/// # Errors
///
/// As of [`build`].
pub fn build_memory(keypair: &Keypair, config: &TransportConfig) -> Result<Transport, BuildError> {
    let parts = Parts::new(keypair, config)?;
    let memory = parts.secure(MemoryTransport::default(), TransportKind::Memory);
    Ok(parts.finish(keypair, config, memory))
}

/// What the transports share.
struct Parts {
    crypto: Crypto,
    links: Links,
    upgrade: Arc<Upgrade>,
    handshake_timeout: Duration,
}

impl Parts {
    fn new(keypair: &Keypair, config: &TransportConfig) -> Result<Self, BuildError> {
        config.validate("")?;
        let crypto = Crypto::new(keypair)?;
        let links = Links::default();
        let upgrade = Upgrade::new(keypair, config, &crypto, links.clone())?;
        Ok(Self {
            crypto,
            links,
            upgrade: Arc::new(upgrade),
            handshake_timeout: config.tuning.handshake_timeout,
        })
    }

    fn tcp(&self) -> Boxed<Upgraded> {
        let sockets = libp2p_tcp::Config::new()
            .nodelay(true)
            .listen_backlog(LISTEN_BACKLOG);
        let tcp = libp2p_tcp::tokio::Transport::new(sockets);
        self.secure(tcp, TransportKind::Tcp)
    }

    fn quic(
        &self,
        keypair: &Keypair,
        config: &TransportConfig,
    ) -> Result<Boxed<Upgraded>, BuildError> {
        let crypto = self.crypto.clone();
        let timeout = self.handshake_timeout;
        let quic = quic::Transport::with_crypto(crypto, keypair, &config.quic, timeout)?;
        let links = self.links.clone();
        Ok(quic
            .map_err(AddressError::from)
            .map(move |(peer, mut connection), _| {
                let link = links.quic(connection.traffic());
                connection.keep(Arc::clone(&link));
                let muxer = StreamMuxerBox::new(connection);
                Upgraded { peer, muxer, link }
            })
            .boxed())
    }

    /// Upgrades what `transport` connects, within the deadline.
    fn secure<T>(&self, transport: T, kind: TransportKind) -> Boxed<Upgraded>
    where
        T: libp2p_core::Transport + Send + Unpin + 'static,
        T::Output: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        T::Error: Into<AddressError> + Send + Sync + 'static,
        T::Dial: Send + 'static,
        T::ListenerUpgrade: Send + 'static,
    {
        let upgrade = Arc::clone(&self.upgrade);
        let upgraded = transport
            .map_err(Into::<AddressError>::into)
            .and_then(move |socket, endpoint| upgrade.apply(socket, endpoint, kind).boxed())
            .map_err(|error| error.into_inner());
        in_time(upgraded, self.handshake_timeout)
    }

    /// Resolves names before `direct` is asked.
    fn names(&self, direct: Boxed<Upgraded>) -> Result<Boxed<Upgraded>, BuildError> {
        let direct = direct.map_err(AddressError::from);
        // Reading the configuration consumes the transport even where it fails, so a dummy
        // tries it out.
        let named = match libp2p_dns::tokio::Transport::system(DummyTransport::<()>::new()) {
            Ok(_) => libp2p_dns::tokio::Transport::system(direct).map_err(BuildError::Dns)?,
            Err(_) if !Path::new(RESOLVER_CONFIG).exists() => {
                tracing::warn!("no {RESOLVER_CONFIG}: names are asked of the loopback address");
                let config = loopback_resolver();
                libp2p_dns::tokio::Transport::custom(direct, config, ResolverOpts::default())
            }
            Err(error) => return Err(BuildError::Dns(error)),
        };
        let named = named.map_err(AddressError::from);
        Ok(in_time(named, self.handshake_timeout * NAME_ATTEMPTS))
    }

    /// Adds the relay client and leaves the links to be claimed.
    fn finish(
        self,
        keypair: &Keypair,
        config: &TransportConfig,
        direct: Boxed<Upgraded>,
    ) -> Transport {
        let (relay, relay_client) = if config.relay_client {
            let peer = keypair.public().to_peer_id();
            let (relay, behaviour) = libp2p_relay::client::new(peer);
            (
                Some(self.secure(relay, TransportKind::Relay)),
                Some(behaviour),
            )
        } else {
            (None, None)
        };
        // Circuit addresses begin with the relay's own, which a direct transport would dial.
        let all = either(relay, Some(direct));
        let links = self.links.clone();
        let boxed = all
            .map_err(AddressError::from)
            .map(move |upgraded, endpoint| register(&links, upgraded, endpoint))
            .boxed();
        Transport {
            boxed,
            links: self.links,
            relay_client,
        }
    }
}

/// The first transport for what it supports, the second for the rest.
fn either(first: Option<Boxed<Upgraded>>, second: Option<Boxed<Upgraded>>) -> Boxed<Upgraded> {
    match (first, second) {
        (Some(first), Some(second)) => first
            .or_transport(second)
            .map(|upgraded, _| upgraded.into_inner())
            .map_err(|error| AddressError::from(error.into_inner()))
            .boxed(),
        (Some(only), None) | (None, Some(only)) => only,
        (None, None) => DummyTransport::<Upgraded>::new().boxed(),
    }
}

/// A name server on this host, which is what the C library assumes too.
fn loopback_resolver() -> ResolverConfig {
    let server = NameServerConfig::udp_and_tcp(Ipv4Addr::LOCALHOST.into());
    ResolverConfig::from_name_servers(vec![server])
}

fn register(
    links: &Links,
    upgraded: Upgraded,
    endpoint: ConnectedPoint,
) -> (PeerId, StreamMuxerBox) {
    let Upgraded { peer, muxer, link } = upgraded;
    links.register(peer, endpoint, &link);
    (peer, muxer)
}

/// Ends what takes longer than `after`.
fn in_time<T>(transport: T, after: Duration) -> Boxed<Upgraded>
where
    T: libp2p_core::Transport<Output = Upgraded, Error = AddressError> + Send + Unpin + 'static,
    T::Dial: Send + 'static,
    T::ListenerUpgrade: Send + 'static,
{
    TransportTimeout::new(transport, after)
        .map_err(move |error| match error {
            TransportTimeoutError::Timeout => AddressError::Timeout { after },
            TransportTimeoutError::TimerError(error) => error.into(),
            TransportTimeoutError::Other(error) => error,
        })
        .boxed()
}
