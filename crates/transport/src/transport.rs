//! Combines the transports into one.

use std::{fmt, sync::Arc, time::Duration};

use calimero_network_primitives::{
    DialFailure,
    addr::{DialGate, DialPolicy},
    config::TransportConfig,
};
use futures::{AsyncRead, AsyncWrite, FutureExt};
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
use libp2p_identity::{Keypair, PeerId};

#[cfg(feature = "tls")]
use crate::crypto::Crypto;
#[cfg(feature = "dns")]
use crate::dns::{Dns, Resolver};
#[cfg(feature = "tcp")]
use crate::tcp;
#[cfg(feature = "websocket")]
use crate::websocket;
use crate::{
    AddressError, BuildError, Links,
    gate::Gated,
    link::{TransportKind, Upgraded},
    upgrade::{Socket, Upgrade},
};
#[cfg(feature = "quic")]
use crate::{link::origin_of, optimistic::Optimistic, quic};

/// Number of connections that the kernel completes before `accept`. libp2p-tcp
/// uses the same value, 1024.
#[cfg(feature = "tcp")]
const LISTEN_BACKLOG: u32 = 1024;

/// Time limit of an address with a name, in handshake timeouts: one for the
/// lookup, and two for the addresses of the name, which are dialled with short
/// delays.
#[cfg(feature = "dns")]
const NAME_DEADLINES: u32 = 3;

/// A transport for a swarm and its companions.
pub struct Transport {
    /// The transport itself. Every connection is authenticated and multiplexed.
    pub boxed: Boxed<(PeerId, StreamMuxerBox)>,
    /// The protocols and byte counters of each connection.
    pub links: Links,
    /// The dial filter. An application adds the addresses that its operator
    /// configures.
    pub gate: DialGate,
    /// The behaviour that relayed connections need, if the configuration
    /// enables them. Add it to the same swarm.
    #[cfg(feature = "relay")]
    pub relay_client: Option<libp2p_relay::client::Behaviour>,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("Transport");
        fields.field("links", &self.links);
        #[cfg(feature = "relay")]
        fields.field("relay_client", &self.relay_client.is_some());
        fields.finish_non_exhaustive()
    }
}

/// Creates the transport that `config` describes, with the identity `keypair`.
///
/// Every dial and every address to which a name resolves must pass `gate`. A
/// refused dial fails with [`AddressError::NotAllowed`] and opens no socket.
/// `DialPolicy::Private.into()` creates a filter for a single policy.
///
/// The transport needs a tokio runtime when it is used, not when it is built.
/// It reads the name servers from the system configuration at each lookup, so
/// that it can be built without network access.
///
/// # Errors
///
/// [`BuildError`] if the configuration is invalid or the identity cannot sign.
pub fn build(
    keypair: &Keypair,
    config: &TransportConfig,
    gate: DialGate,
) -> Result<Transport, BuildError> {
    let parts = Parts::new(keypair, config)?;
    let (tcp, quic) = (parts.tcp(config)?, parts.quic(keypair, config)?);
    let direct = either(Some(either(tcp, quic)), parts.websocket(config)?);
    let direct = parts.names(config, direct, &gate);
    Ok(parts.finish(keypair, config, direct, gate))
}

/// Creates a transport for tests that connects `/memory` addresses of the same
/// process, with the same security, muxer and relay client as [`build`]. It
/// accepts every address.
///
/// # Errors
///
/// Those of [`build`].
pub fn build_memory(keypair: &Keypair, config: &TransportConfig) -> Result<Transport, BuildError> {
    let parts = Parts::new(keypair, config)?;
    let memory = parts.upgraded(MemoryTransport::default(), TransportKind::Memory);
    let memory = in_time(memory, parts.handshake_timeout);
    Ok(parts.finish(keypair, config, memory, DialPolicy::Local.into()))
}

/// Creates the TCP sockets that `config` describes.
#[cfg(feature = "tcp")]
fn sockets(config: &TransportConfig) -> Result<tcp::Transport, BuildError> {
    let congestion = tcp::Congestion::new(&config.tcp.congestion)?;
    Ok(tcp::Transport::new(LISTEN_BACKLOG, congestion))
}

/// State that all transports share.
struct Parts {
    #[cfg(feature = "tls")]
    crypto: Crypto,
    links: Links,
    upgrade: Arc<Upgrade>,
    handshake_timeout: Duration,
}

impl Parts {
    fn new(keypair: &Keypair, config: &TransportConfig) -> Result<Self, BuildError> {
        config.validate("")?;
        #[cfg(feature = "tls")]
        let crypto = Crypto::new(keypair)?;
        let links = Links::default();
        let upgrade = Upgrade::new(
            keypair,
            config,
            #[cfg(feature = "tls")]
            &crypto,
            links.clone(),
        )?;
        Ok(Self {
            #[cfg(feature = "tls")]
            crypto,
            links,
            upgrade: Arc::new(upgrade),
            handshake_timeout: config.tuning.handshake_timeout,
        })
    }

    #[cfg(feature = "tcp")]
    fn tcp(&self, config: &TransportConfig) -> Result<Option<Boxed<Upgraded>>, BuildError> {
        if !config.tcp.enabled {
            return Ok(None);
        }
        let upgraded = self.upgraded(sockets(config)?, TransportKind::Tcp);
        let dialled = tcp::SimultaneousOpen(upgraded);
        Ok(Some(in_time(dialled, self.handshake_timeout)))
    }

    #[cfg(not(feature = "tcp"))]
    fn tcp(&self, _: &TransportConfig) -> Result<Option<Boxed<Upgraded>>, BuildError> {
        Ok(None)
    }

    #[cfg(feature = "quic")]
    fn quic(
        &self,
        keypair: &Keypair,
        config: &TransportConfig,
    ) -> Result<Option<Boxed<Upgraded>>, BuildError> {
        if !config.quic.enabled {
            return Ok(None);
        }
        let crypto = self.crypto.clone();
        let timeout = self.handshake_timeout;
        let quic = quic::Transport::with_crypto(crypto, keypair, &config.quic, timeout)?;
        let links = self.links.clone();
        let quic = quic
            .map_err(AddressError::from)
            .map(move |(peer, mut connection), endpoint| {
                let link = links.quic(connection.traffic(), origin_of(&endpoint));
                connection.keep(Arc::clone(&link));
                let muxer = StreamMuxerBox::new(Optimistic::new(connection));
                Upgraded { peer, muxer, link }
            })
            .boxed();
        Ok(Some(quic))
    }

    #[cfg(not(feature = "quic"))]
    fn quic(
        &self,
        _: &Keypair,
        _: &TransportConfig,
    ) -> Result<Option<Boxed<Upgraded>>, BuildError> {
        Ok(None)
    }

    /// WebSocket has no switch of its own: it is a form of TCP, and a node accepts it only at
    /// addresses that its operator names.
    #[cfg(feature = "websocket")]
    fn websocket(&self, config: &TransportConfig) -> Result<Option<Boxed<Upgraded>>, BuildError> {
        if !config.tcp.enabled {
            return Ok(None);
        }
        let tcp = sockets(config)?;
        let transport = websocket::Transport::new(tcp, &config.websocket, self.handshake_timeout)?;
        let upgraded = self.upgraded(transport, TransportKind::WebSocket);
        Ok(Some(in_time(upgraded, self.handshake_timeout)))
    }

    #[cfg(not(feature = "websocket"))]
    fn websocket(&self, _: &TransportConfig) -> Result<Option<Boxed<Upgraded>>, BuildError> {
        Ok(None)
    }

    /// Upgrades the byte streams of `transport`.
    fn upgraded<T>(
        &self,
        transport: T,
        kind: TransportKind,
    ) -> impl libp2p_core::Transport<
        Output = Upgraded,
        Error = AddressError,
        Dial: Send + 'static,
        ListenerUpgrade: Send + 'static,
    > + Send
    + Unpin
    + use<T>
    where
        T: libp2p_core::Transport + Send + Unpin + 'static,
        T::Output: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        T::Error: Into<AddressError> + Send + Sync + 'static,
        T::Dial: Send + 'static,
        T::ListenerUpgrade: Send + 'static,
    {
        let upgrade = Arc::clone(&self.upgrade);
        transport
            .map_err(Into::<AddressError>::into)
            .and_then(move |socket, endpoint| {
                let socket: Socket = Box::new(socket);
                upgrade.apply(socket, endpoint, kind).boxed()
            })
            .map_err(|error| error.into_inner())
    }

    /// Adds name resolution to `direct`, if the configuration enables it.
    #[cfg(feature = "dns")]
    fn names(
        &self,
        config: &TransportConfig,
        direct: Boxed<Upgraded>,
        gate: &DialGate,
    ) -> Boxed<Upgraded> {
        if !config.dns {
            return direct;
        }
        let named = Dns::new(direct, Resolver::system(), gate.clone());
        in_time(named, self.handshake_timeout * NAME_DEADLINES)
    }

    #[cfg(not(feature = "dns"))]
    fn names(&self, _: &TransportConfig, direct: Boxed<Upgraded>, _: &DialGate) -> Boxed<Upgraded> {
        direct
    }

    /// Adds circuits through relays to `direct`, if the configuration enables them.
    #[cfg(feature = "relay")]
    fn circuits(
        &self,
        keypair: &Keypair,
        config: &TransportConfig,
        direct: Boxed<Upgraded>,
    ) -> (Boxed<Upgraded>, Option<libp2p_relay::client::Behaviour>) {
        if !config.relay_client {
            return (direct, None);
        }
        let (relay, behaviour) = libp2p_relay::client::new(keypair.public().to_peer_id());
        let relay = self.upgraded(relay, TransportKind::Relay);
        let relay = in_time(relay, self.handshake_timeout);
        // The relay comes first, because a circuit address starts with an
        // address that the direct transport would dial.
        (either(Some(relay), Some(direct)), Some(behaviour))
    }

    /// Adds the relay client and the dial filter, and stores the links of new
    /// connections.
    fn finish(
        self,
        keypair: &Keypair,
        config: &TransportConfig,
        direct: Boxed<Upgraded>,
        gate: DialGate,
    ) -> Transport {
        #[cfg(feature = "relay")]
        let (all, relay_client) = self.circuits(keypair, config, direct);
        #[cfg(not(feature = "relay"))]
        let (all, _, _) = (direct, keypair, config);
        let links = self.links.clone();
        // Behaviours of libp2p dial addresses without asking this crate. The
        // filter is the outermost layer below the swarm, so that every dial
        // passes it.
        let boxed = Gated::new(all, gate.clone())
            .map_err(|error| {
                let error = AddressError::from(error);
                DialFailure::new(error.cause(), error)
            })
            .map(move |upgraded, endpoint| register(&links, upgraded, endpoint))
            .boxed();
        Transport {
            boxed,
            links: self.links,
            gate,
            #[cfg(feature = "relay")]
            relay_client,
        }
    }
}

/// Uses `first` for the addresses that it supports and `second` for all others.
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

fn register(
    links: &Links,
    upgraded: Upgraded,
    endpoint: ConnectedPoint,
) -> (PeerId, StreamMuxerBox) {
    let Upgraded { peer, muxer, link } = upgraded;
    links.register(peer, endpoint, &link);
    (peer, muxer)
}

/// Limits the connection setup to `after`.
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
