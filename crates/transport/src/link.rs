//! The protocols and byte counters of connections.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use calimero_network_primitives::resources::{Origin, Resources};
use libp2p_core::{connection::ConnectedPoint, muxing::StreamMuxerBox};
use libp2p_identity::PeerId;

#[cfg(feature = "quic")]
use crate::quic::Traffic;
use crate::yamux;

/// Largest number of connections with an unclaimed [`Link`].
///
/// The swarm reports a connection immediately after the transport created it,
/// and its owner then claims the link. Only links between these two steps are
/// stored. An entry needs about 200 bytes, so the table stays below 256 KiB.
/// The oldest entry is dropped first.
const MAX_UNCLAIMED: usize = 1024;

/// Smallest number of QUIC connections from which on those that are closed are
/// removed from the list of all.
#[cfg(feature = "quic")]
const SWEEP_FROM: usize = 64;

/// The transport protocol of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransportKind {
    /// TCP with a security protocol and a muxer.
    Tcp,
    /// QUIC version 1, defined in RFC 9000.
    Quic,
    /// WebSocket over TCP, plain or inside of TLS, with a security protocol and a muxer inside.
    WebSocket,
    /// A channel inside the process, for tests.
    Memory,
    /// A circuit through a relay.
    Relay,
}

impl fmt::Display for TransportKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Quic => "quic",
            Self::WebSocket => "websocket",
            Self::Memory => "memory",
            Self::Relay => "relay",
        })
    }
}

/// The security protocol of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SecurityKind {
    /// TLS 1.3 over a byte stream.
    Tls {
        /// Cipher that both sides negotiated.
        cipher: Cipher,
    },
    /// Noise XX, always with ChaCha20-Poly1305.
    Noise,
    /// TLS 1.3 as a part of QUIC.
    QuicTls {
        /// Cipher that both sides negotiated.
        cipher: Cipher,
    },
}

impl fmt::Display for SecurityKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tls {
                cipher: Cipher::Unknown,
            }
            | Self::QuicTls {
                cipher: Cipher::Unknown,
            } => f.write_str("tls 1.3"),
            Self::Tls { cipher } | Self::QuicTls { cipher } => write!(f, "tls 1.3 {cipher}"),
            Self::Noise => f.write_str("noise xx chacha20-poly1305"),
        }
    }
}

/// The cipher of a TLS 1.3 connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cipher {
    /// AES-128-GCM with SHA-256.
    Aes128Gcm,
    /// AES-256-GCM with SHA-384.
    Aes256Gcm,
    /// ChaCha20-Poly1305 with SHA-256.
    ChaCha20Poly1305,
    /// The TLS library does not report the cipher.
    Unknown,
}

#[cfg(feature = "tls")]
impl From<Option<rustls::SupportedCipherSuite>> for Cipher {
    fn from(suite: Option<rustls::SupportedCipherSuite>) -> Self {
        use rustls::CipherSuite as Suite;
        match suite.map(|suite| suite.suite()) {
            Some(Suite::TLS13_AES_128_GCM_SHA256) => Self::Aes128Gcm,
            Some(Suite::TLS13_AES_256_GCM_SHA384) => Self::Aes256Gcm,
            Some(Suite::TLS13_CHACHA20_POLY1305_SHA256) => Self::ChaCha20Poly1305,
            _ => Self::Unknown,
        }
    }
}

impl fmt::Display for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Aes128Gcm => "aes-128-gcm",
            Self::Aes256Gcm => "aes-256-gcm",
            Self::ChaCha20Poly1305 => "chacha20-poly1305",
            Self::Unknown => "unknown cipher",
        })
    }
}

/// The stream multiplexer of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MuxerKind {
    /// Yamux over a secured byte stream.
    Yamux,
    /// The native streams of QUIC.
    Quic,
}

impl fmt::Display for MuxerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Yamux => "yamux",
            Self::Quic => "quic",
        })
    }
}

/// Bytes received and sent, counted at the socket. They include handshakes,
/// record headers and frame headers, but not the headers of TCP, UDP and IP. Of
/// WebSocket connections they are the payload: the bytes of the security
/// protocol inside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// Number of bytes received.
    pub received: u64,
    /// Number of bytes sent.
    pub sent: u64,
}

/// Bytes of all connections since the start, per transport.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Bytes of TCP connections.
    pub tcp: Bytes,
    /// Bytes of QUIC connections.
    pub quic: Bytes,
    /// Bytes of WebSocket connections.
    pub websocket: Bytes,
    /// Bytes of channels inside the process.
    pub memory: Bytes,
    /// Bytes of relayed connections. The connection to the relay counts them as
    /// well.
    pub relay: Bytes,
}

#[derive(Debug, Default)]
struct Counter {
    received: AtomicU64,
    sent: AtomicU64,
}

impl Counter {
    fn read(&self) -> Bytes {
        Bytes {
            received: self.received.load(Ordering::Relaxed),
            sent: self.sent.load(Ordering::Relaxed),
        }
    }
}

/// The open QUIC connections, and some that are closed.
#[cfg(feature = "quic")]
#[derive(Debug, Default)]
struct OpenQuic {
    traffic: Vec<Arc<Traffic>>,
    /// Number of connections from which on those that are closed are removed.
    sweep_at: usize,
}

#[derive(Debug, Default)]
struct Shared {
    tcp: Counter,
    quic: Counter,
    websocket: Counter,
    memory: Counter,
    relay: Counter,
    /// Open QUIC connections. QUIC counts their bytes, which are added to
    /// `quic` when they close.
    #[cfg(feature = "quic")]
    quic_open: Mutex<OpenQuic>,
    unclaimed: Mutex<VecDeque<Unclaimed>>,
    resources: OnceLock<Resources>,
    unread: Arc<yamux::Connections>,
}

impl Shared {
    fn total(&self, kind: TransportKind) -> &Counter {
        match kind {
            TransportKind::Tcp => &self.tcp,
            TransportKind::Quic => &self.quic,
            TransportKind::WebSocket => &self.websocket,
            TransportKind::Memory => &self.memory,
            TransportKind::Relay => &self.relay,
        }
    }

    /// Returns the bytes of all QUIC connections and moves those of closed
    /// connections to `quic`.
    #[cfg(feature = "quic")]
    fn quic(&self) -> Bytes {
        let mut open = lock(&self.quic_open);
        let mut live = Bytes::default();
        open.traffic.retain(|traffic| {
            let ended = traffic.ended();
            let (received, sent) = (traffic.received(), traffic.sent());
            if ended {
                self.quic.received.fetch_add(received, Ordering::Relaxed);
                self.quic.sent.fetch_add(sent, Ordering::Relaxed);
            } else {
                live.received += received;
                live.sent += sent;
            }
            !ended
        });
        open.sweep_at = SWEEP_FROM.max(2 * open.traffic.len());
        let closed = self.quic.read();
        Bytes {
            received: closed.received + live.received,
            sent: closed.sent + live.sent,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while it holds one of these locks, so a poisoned lock has
    // consistent data.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The origin of a connection.
pub(crate) fn origin_of(endpoint: &ConnectedPoint) -> Option<Origin> {
    match endpoint {
        ConnectedPoint::Dialer { address, .. } => Origin::of_addr(address),
        ConnectedPoint::Listener {
            local_addr,
            send_back_addr,
        } => Origin::of_inbound(local_addr, send_back_addr),
    }
}

#[derive(Debug)]
struct Unclaimed {
    peer: PeerId,
    endpoint: ConnectedPoint,
    link: Weak<Link>,
}

/// Counts the bytes of one connection and of its transport. It is cheap to
/// clone and is part of the socket from before the handshake.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    transport: TransportKind,
    origin: Option<Origin>,
    own: Arc<Counter>,
    shared: Arc<Shared>,
}

impl Meter {
    pub(crate) fn received(&self, bytes: usize) {
        let bytes = bytes as u64;
        self.own.received.fetch_add(bytes, Ordering::Relaxed);
        let total = self.shared.total(self.transport);
        total.received.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn sent(&self, bytes: usize) {
        let bytes = bytes as u64;
        self.own.sent.fetch_add(bytes, Ordering::Relaxed);
        let total = self.shared.total(self.transport);
        total.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Returns whether the connection has carried a byte to this node.
    pub(crate) fn has_received(&self) -> bool {
        self.own.received.load(Ordering::Relaxed) > 0
    }

    /// Creates the link of a connection after its handshake.
    pub(crate) fn link(self, security: SecurityKind, muxer: MuxerKind) -> Arc<Link> {
        Arc::new(Link {
            transport: self.transport,
            origin: self.origin,
            security,
            muxer,
            count: Count::Metered(self.own),
            refused: AtomicU64::new(0),
        })
    }
}

/// The protocols of one connection and its byte counters.
///
/// A link may outlive its connection; the counters then no longer change.
#[derive(Debug)]
pub struct Link {
    transport: TransportKind,
    origin: Option<Origin>,
    security: SecurityKind,
    muxer: MuxerKind,
    count: Count,
    refused: AtomicU64,
}

/// Source of the byte counters of a connection.
#[derive(Debug)]
enum Count {
    /// Counters of the metered socket.
    Metered(Arc<Counter>),
    /// Counters of the QUIC library.
    #[cfg(feature = "quic")]
    Quic(Arc<Traffic>),
}

impl Link {
    /// Returns the transport protocol.
    pub fn transport(&self) -> TransportKind {
        self.transport
    }

    /// Returns the origin of the connection. Of a connection that was dialled by name it is that of
    /// the address that answered. `None` inside the process.
    pub fn origin(&self) -> Option<Origin> {
        self.origin
    }

    /// Returns the security protocol.
    pub fn security(&self) -> SecurityKind {
        self.security
    }

    /// Returns the stream multiplexer.
    pub fn muxer(&self) -> MuxerKind {
        self.muxer
    }

    /// Returns the number of inbound streams that were reset because the limit
    /// of open streams was reached.
    pub fn refused_streams(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    pub(crate) fn refuse_stream(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the largest UDP payload that QUIC found to pass on the path, in bytes. It grows while
    /// the connection sends (RFC 8899). `None` for other transports and closed connections.
    pub fn path_mtu_bytes(&self) -> Option<u16> {
        match &self.count {
            Count::Metered(_) => None,
            #[cfg(feature = "quic")]
            Count::Quic(traffic) => traffic.path_mtu(),
        }
    }

    /// Returns the number of bytes received on the connection.
    pub fn bytes_in(&self) -> u64 {
        match &self.count {
            Count::Metered(counter) => counter.received.load(Ordering::Relaxed),
            #[cfg(feature = "quic")]
            Count::Quic(traffic) => traffic.received(),
        }
    }

    /// Returns the number of bytes sent on the connection.
    pub fn bytes_out(&self) -> u64 {
        match &self.count {
            Count::Metered(counter) => counter.sent.load(Ordering::Relaxed),
            #[cfg(feature = "quic")]
            Count::Quic(traffic) => traffic.sent(),
        }
    }
}

/// The links of new connections, which the owner of the swarm claims. It is
/// cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Links(Arc<Shared>);

impl Links {
    /// Takes the link of a connection with the peer and endpoint that the swarm
    /// reports for it.
    ///
    /// Returns `None` if another transport created the connection, if the
    /// connection is closed or its link was already claimed, or if more than
    /// 1024 later connections are unclaimed. If several connections have the
    /// same peer and endpoint, the oldest link is returned.
    pub fn claim(&self, peer: &PeerId, endpoint: &ConnectedPoint) -> Option<Arc<Link>> {
        let mut unclaimed = lock(&self.0.unclaimed);
        unclaimed.retain(|entry| entry.link.strong_count() > 0);
        let position = unclaimed
            .iter()
            .position(|entry| entry.peer == *peer && entry.endpoint == *endpoint)?;
        unclaimed.remove(position)?.link.upgrade()
    }

    /// Returns the bytes of all connections since the start, open and closed,
    /// per transport.
    pub fn totals(&self) -> Totals {
        Totals {
            tcp: self.0.tcp.read(),
            #[cfg(feature = "quic")]
            quic: self.0.quic(),
            #[cfg(not(feature = "quic"))]
            quic: Bytes::default(),
            websocket: self.0.websocket.read(),
            memory: self.0.memory.read(),
            relay: self.0.relay.read(),
        }
    }

    /// Counts what connections hold in `resources` of the node, in place of an accounting of their
    /// own with the default limits. Has no effect after the first connection.
    pub fn count_in(&self, resources: Resources) {
        let _ = self.0.resources.set(resources);
    }

    pub(crate) fn resources(&self) -> &Resources {
        self.0.resources.get_or_init(Resources::default)
    }

    /// The unread data of all Yamux connections.
    pub(crate) fn unread(&self) -> &Arc<yamux::Connections> {
        &self.0.unread
    }

    /// Creates the meter of a new connection.
    pub(crate) fn meter(&self, transport: TransportKind, origin: Option<Origin>) -> Meter {
        Meter {
            transport,
            origin,
            own: Arc::default(),
            shared: Arc::clone(&self.0),
        }
    }

    /// Creates the link of an established QUIC connection.
    #[cfg(feature = "quic")]
    pub(crate) fn quic(&self, traffic: Arc<Traffic>, origin: Option<Origin>) -> Arc<Link> {
        let is_full = {
            let mut open = lock(&self.0.quic_open);
            open.traffic.push(Arc::clone(&traffic));
            open.traffic.len() >= open.sweep_at.max(SWEEP_FROM)
        };
        if is_full {
            // Removes closed connections, so that the list is bounded by the
            // open ones. It reads the counters of all of them, so it is rare.
            self.0.quic();
        }
        Arc::new(Link {
            transport: TransportKind::Quic,
            origin,
            security: SecurityKind::QuicTls {
                cipher: Cipher::Unknown,
            },
            muxer: MuxerKind::Quic,
            count: Count::Quic(traffic),
            refused: AtomicU64::new(0),
        })
    }

    /// Stores the link of an established connection until it is claimed.
    pub(crate) fn register(&self, peer: PeerId, endpoint: ConnectedPoint, link: &Arc<Link>) {
        let mut unclaimed = lock(&self.0.unclaimed);
        if unclaimed.len() >= MAX_UNCLAIMED {
            unclaimed.retain(|entry| entry.link.strong_count() > 0);
        }
        if unclaimed.len() >= MAX_UNCLAIMED {
            unclaimed.pop_front();
        }
        unclaimed.push_back(Unclaimed {
            peer,
            endpoint,
            link: Arc::downgrade(link),
        });
    }
}

/// The output of every transport of this crate. The muxer owns a clone of the
/// link, which keeps the link alive as long as the connection.
pub(crate) struct Upgraded {
    pub(crate) peer: PeerId,
    pub(crate) muxer: StreamMuxerBox,
    pub(crate) link: Arc<Link>,
}
