//! WebSocket over TCP, plain and inside of TLS, as a byte stream for the upgrades.
//!
//! Browsers can open no other connection to a node that has no certificate of theirs, and some
//! networks pass only web traffic. The security protocols of TCP run inside, as the [specification
//! of libp2p] demands: also inside of TLS, whose certificate belongs to a host and not to a peer.
//! Browsers negotiate Noise.
//!
//! `libp2p-websocket` 0.46 is not used, because a peer could make this node allocate what it claims.
//! Its `Connection::new` in `dial_once` keeps the default limit of 256 MiB for a frame, and
//! `Receiver::receive` of `soketto` 0.8 allocates the claimed length before the payload arrives.
//! Here a frame is returned as its bytes arrive.
//!
//! A dial never uses the listening port: a NAT mapping of WebSocket is of no use to others, because
//! hole punching needs two dials to meet, and each would be a client. It begins after those over other
//! transports, whatever their order.
//!
//! [specification of libp2p]: https://github.com/libp2p/specs/blob/master/websockets/README.md

mod address;
mod certificate;
mod frames;
pub mod fuzzing;
mod handshake;
mod stream;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use calimero_network_primitives::config::WebSocketConfig;
use futures::{
    FutureExt,
    future::{BoxFuture, Either},
};
use futures_timer::Delay;
use libp2p_core::{
    Endpoint,
    transport::{DialOpts, ListenerId, PortUse, TransportError, TransportEvent},
};
use multiaddr::{Multiaddr, Protocol};
use rustls::{ClientConfig, ServerConfig};

pub use self::certificate::CertificateFileError;
use self::{
    address::{Address, Suffix},
    stream::{Role, WebSocket},
};
use crate::{
    AddressError,
    error::Cause,
    read_ahead::ReadAhead,
    stamp::{Stamp, stamp_of},
    tcp,
    tls::TlsStream,
};

/// Part of the time for a handshake that the other dials of a peer have before one over WebSocket, a
/// tenth: 1 s by default, the time of a TCP connection with TLS over a long link. A connection over
/// WebSocket reveals no address for hole punching, because it does not leave from the listening
/// port, and costs more bytes and copies.
const HEAD_START: u32 = 10;

/// The connection below the WebSocket: TLS or TCP.
type Socket = Either<TlsStream<tcp::Stream>, tcp::Stream>;

/// A byte stream in a WebSocket. Reads are large, although the headers of frames are small.
pub(crate) type Stream = WebSocket<ReadAhead<Socket>>;

type Upgrade = BoxFuture<'static, Result<Stream, AddressError>>;

/// The WebSocket transport. Its connections are byte streams without the security of libp2p.
pub(crate) struct Transport {
    tcp: tcp::Transport,
    listeners: HashMap<ListenerId, Suffix>,
    server: Option<Arc<ServerConfig>>,
    client: Arc<Client>,
    /// Time before a dial begins.
    head_start: Duration,
}

/// The TLS configuration of dials, which is created for the first one.
struct Client {
    trusted: Option<PathBuf>,
    /// The configuration, with the stamp of the file `trusted`. It is created again if that
    /// changes, and for each dial as long as no certificate is trusted: they may be installed
    /// later.
    config: Mutex<Option<(Stamp, Arc<ClientConfig>)>>,
    /// Whether the lack of trusted certificates was logged.
    warned: AtomicBool,
}

impl Client {
    async fn config(self: Arc<Self>) -> Result<Arc<ClientConfig>, AddressError> {
        let stamp = self.trusted.as_deref().and_then(stamp_of);
        if let Some((of, config)) = &*self.lock()
            && *of == stamp
        {
            return Ok(Arc::clone(config));
        }
        let loading = tokio::task::spawn_blocking(move || {
            let trust = certificate::client(self.trusted.as_deref())?;
            if !trust.is_empty {
                *self.lock() = Some((stamp, Arc::clone(&trust.config)));
            } else if !self.warned.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    "the system has no trusted certificates; no address with /wss can be dialled \
                     (install ca-certificates or set SSL_CERT_FILE)"
                );
            }
            Ok::<_, CertificateFileError>(trust.config)
        });
        let loaded = loading.await.map_err(io::Error::other)?;
        loaded.map_err(|error| AddressError::WebSocket(Cause::new(error)))
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Stamp, Arc<ClientConfig>)>> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transport {
    /// Creates the transport with the certificate that `config` names.
    pub(crate) fn new(
        tcp: tcp::Transport,
        config: &WebSocketConfig,
        handshake_timeout: Duration,
    ) -> Result<Self, CertificateFileError> {
        Ok(Self {
            tcp,
            head_start: handshake_timeout / HEAD_START,
            listeners: HashMap::new(),
            server: certificate::server(config)?,
            client: Arc::new(Client {
                trusted: config.tuning.trusted.clone(),
                config: Mutex::default(),
                warned: AtomicBool::new(false),
            }),
        })
    }

    /// Accepts a connection of the listener with `suffix`.
    fn accept(
        &self,
        suffix: Suffix,
        socket: impl Future<Output = io::Result<tcp::Stream>> + Send + 'static,
    ) -> Upgrade {
        let server = self.server.clone().filter(|_| suffix.is_secure());
        async move {
            let socket = socket.await?;
            let socket = match server {
                Some(server) => Either::Left(TlsStream::server(socket, server).await?),
                None => Either::Right(socket),
            };
            let mut socket = ReadAhead::new(socket);
            handshake::accept(&mut socket).await?;
            Ok(WebSocket::new(socket, Role::Server))
        }
        .boxed()
    }
}

/// Connects to `address` over the TCP connection that `dial` establishes.
async fn connect(
    dial: BoxFuture<'static, io::Result<tcp::Stream>>,
    address: Address,
    client: Arc<Client>,
) -> Result<Stream, AddressError> {
    let socket = dial.await?;
    let socket = match address.server {
        Some(name) => {
            let config = client.config().await?;
            Either::Left(TlsStream::client(socket, config, name).await?)
        }
        None => Either::Right(socket),
    };
    let mut socket = ReadAhead::new(socket);
    handshake::connect(&mut socket, &address.host, &address.path).await?;
    Ok(WebSocket::new(socket, Role::Client))
}

impl From<handshake::HandshakeError> for AddressError {
    fn from(error: handshake::HandshakeError) -> Self {
        match error {
            handshake::HandshakeError::Io(error) => error.into(),
            error => Self::WebSocket(Cause::new(error)),
        }
    }
}

impl libp2p_core::Transport for Transport {
    type Output = Stream;
    type Error = AddressError;
    type ListenerUpgrade = Upgrade;
    type Dial = Upgrade;

    fn listen_on(
        &mut self,
        id: ListenerId,
        addr: Multiaddr,
    ) -> Result<(), TransportError<AddressError>> {
        let Some((tcp, suffix)) = Suffix::split(&addr) else {
            return Err(TransportError::MultiaddrNotSupported(addr));
        };
        if suffix.is_secure() && self.server.is_none() {
            let missing = io::Error::other(
                "no certificate: set transport.websocket.certificate and transport.websocket.key",
            );
            return Err(TransportError::Other(missing.into()));
        }
        let listening = self.tcp.listen_on(id, tcp);
        listening.map_err(|error| match error {
            TransportError::MultiaddrNotSupported(_) => TransportError::MultiaddrNotSupported(addr),
            TransportError::Other(error) => TransportError::Other(error.into()),
        })?;
        self.listeners.insert(id, suffix);
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.tcp.remove_listener(id)
    }

    fn dial(
        &mut self,
        addr: Multiaddr,
        opts: DialOpts,
    ) -> Result<Self::Dial, TransportError<AddressError>> {
        // In a hole punch one side would have to be the server of a connection that it dials.
        let address = Address::parse(&addr).filter(|_| opts.role == Endpoint::Dialer);
        let Some(address) = address else {
            return Err(TransportError::MultiaddrNotSupported(addr));
        };
        let socket = address.socket;
        let tcp = Multiaddr::from(socket.ip()).with(Protocol::Tcp(socket.port()));
        let opts = DialOpts {
            port_use: PortUse::New,
            ..opts
        };
        let dial = self.tcp.dial(tcp, opts).map_err(|error| match error {
            TransportError::MultiaddrNotSupported(_) => TransportError::MultiaddrNotSupported(addr),
            TransportError::Other(error) => TransportError::Other(error.into()),
        })?;
        let connecting = connect(dial, address, Arc::clone(&self.client));
        let head_start = Delay::new(self.head_start);
        Ok(head_start.then(|()| connecting).boxed())
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Upgrade, AddressError>> {
        let this = &mut *self;
        let Poll::Ready(event) = Pin::new(&mut this.tcp).poll(cx) else {
            return Poll::Pending;
        };
        // The TCP transport reports only listeners that were started here.
        let of = |id: &ListenerId| this.listeners.get(id).copied().unwrap_or(Suffix::Plain);
        Poll::Ready(match event {
            TransportEvent::NewAddress {
                listener_id,
                listen_addr,
            } => TransportEvent::NewAddress {
                listener_id,
                listen_addr: of(&listener_id).append(listen_addr),
            },
            TransportEvent::AddressExpired {
                listener_id,
                listen_addr,
            } => TransportEvent::AddressExpired {
                listener_id,
                listen_addr: of(&listener_id).append(listen_addr),
            },
            TransportEvent::Incoming {
                listener_id,
                upgrade,
                local_addr,
                send_back_addr,
            } => {
                let suffix = of(&listener_id);
                TransportEvent::Incoming {
                    listener_id,
                    upgrade: this.accept(suffix, upgrade),
                    local_addr: suffix.append(local_addr),
                    send_back_addr: suffix.append(send_back_addr),
                }
            }
            TransportEvent::ListenerClosed {
                listener_id,
                reason,
            } => {
                this.listeners.remove(&listener_id);
                TransportEvent::ListenerClosed {
                    listener_id,
                    reason: reason.map_err(AddressError::from),
                }
            }
            TransportEvent::ListenerError { listener_id, error } => TransportEvent::ListenerError {
                listener_id,
                error: error.into(),
            },
        })
    }
}
