//! What a connection runs over and how much it has carried.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use libp2p_core::{connection::ConnectedPoint, muxing::StreamMuxerBox};
use libp2p_identity::PeerId;

use crate::quic::Traffic;

/// Connections whose [`Link`] nobody has claimed, at most.
///
/// A Swarm reports a connection, and its user claims the link, right after the transport made
/// it, so only those in between are held: as many as may be pending, with room to spare. At
/// about 200 bytes each the book stays below 256 KiB. The oldest is dropped first.
const MAX_UNCLAIMED: usize = 1024;

/// What carries the bytes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransportKind {
    /// TCP.
    Tcp,
    /// QUIC version 1.
    Quic,
    /// A channel inside the process.
    Memory,
    /// A circuit through a relay.
    Relay,
}

impl fmt::Display for TransportKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Quic => "quic",
            Self::Memory => "memory",
            Self::Relay => "relay",
        })
    }
}

/// What keeps a connection secret and authentic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SecurityKind {
    /// TLS 1.3.
    Tls {
        /// The cipher agreed on.
        cipher: Cipher,
    },
    /// Noise XX; its cipher is always ChaCha20-Poly1305.
    Noise,
    /// TLS 1.3 inside QUIC.
    QuicTls {
        /// The cipher agreed on.
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

/// A cipher of TLS 1.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cipher {
    /// AES-128-GCM.
    Aes128Gcm,
    /// AES-256-GCM.
    Aes256Gcm,
    /// ChaCha20-Poly1305.
    ChaCha20Poly1305,
    /// The library did not say.
    Unknown,
}

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

/// What makes streams out of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MuxerKind {
    /// Yamux.
    Yamux,
    /// QUIC's own streams.
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

/// Bytes carried since the start, both ways, as the socket saw them: with handshakes, record
/// and frame headers, without those of TCP, UDP and IP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// Bytes received.
    pub received: u64,
    /// Bytes sent.
    pub sent: u64,
}

/// Bytes of all connections since the start, by transport.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Over TCP.
    pub tcp: Bytes,
    /// Over QUIC.
    pub quic: Bytes,
    /// Over channels inside the process.
    pub memory: Bytes,
    /// Through relays. The bytes are also counted for the connection to the relay.
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

#[derive(Debug, Default)]
struct Shared {
    tcp: Counter,
    quic: Counter,
    memory: Counter,
    relay: Counter,
    /// QUIC connections whose bytes are not in `quic` yet: the library counts them itself.
    quic_open: Mutex<Vec<Arc<Traffic>>>,
    unclaimed: Mutex<VecDeque<Unclaimed>>,
}

impl Shared {
    fn total(&self, kind: TransportKind) -> &Counter {
        match kind {
            TransportKind::Tcp => &self.tcp,
            TransportKind::Quic => &self.quic,
            TransportKind::Memory => &self.memory,
            TransportKind::Relay => &self.relay,
        }
    }

    /// Bytes of all QUIC connections. Those of closed ones move into `quic`.
    fn quic(&self) -> Bytes {
        let mut open = lock(&self.quic_open);
        let mut live = Bytes::default();
        open.retain(|traffic| {
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
        let closed = self.quic.read();
        Bytes {
            received: closed.received + live.received,
            sent: closed.sent + live.sent,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while one of the locks here is held, so a poisoned one is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
struct Unclaimed {
    peer: PeerId,
    endpoint: ConnectedPoint,
    link: Weak<Link>,
}

/// Counts the bytes of one connection and of its transport. Cheap to clone; lives in the
/// socket, from before the handshake on.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    transport: TransportKind,
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

    /// The link of the connection whose handshake is over.
    pub(crate) fn link(self, security: SecurityKind, muxer: MuxerKind) -> Arc<Link> {
        Arc::new(Link {
            transport: self.transport,
            security,
            muxer,
            count: Count::Metered(self.own),
            refused: AtomicU64::new(0),
        })
    }
}

/// One connection: what it runs over, and the bytes it has carried so far.
///
/// Lives as long as the connection or the last clone, whichever is longer; the counters then
/// stand still.
#[derive(Debug)]
pub struct Link {
    transport: TransportKind,
    security: SecurityKind,
    muxer: MuxerKind,
    count: Count,
    refused: AtomicU64,
}

/// Who counts the bytes of a connection.
#[derive(Debug)]
enum Count {
    /// The socket.
    Metered(Arc<Counter>),
    /// The QUIC library.
    Quic(Arc<Traffic>),
}

impl Link {
    /// What carries the bytes.
    pub fn transport(&self) -> TransportKind {
        self.transport
    }

    /// What keeps them secret and authentic.
    pub fn security(&self) -> SecurityKind {
        self.security
    }

    /// What makes streams out of them.
    pub fn muxer(&self) -> MuxerKind {
        self.muxer
    }

    /// Inbound streams that were reset because as many as allowed were open.
    pub fn refused_streams(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    pub(crate) fn refuse_stream(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes received on the connection so far.
    pub fn bytes_in(&self) -> u64 {
        match &self.count {
            Count::Metered(counter) => counter.received.load(Ordering::Relaxed),
            Count::Quic(traffic) => traffic.received(),
        }
    }

    /// Bytes sent on the connection so far.
    pub fn bytes_out(&self) -> u64 {
        match &self.count {
            Count::Metered(counter) => counter.sent.load(Ordering::Relaxed),
            Count::Quic(traffic) => traffic.sent(),
        }
    }
}

/// Where the transport leaves the [`Link`] of each connection it makes, to be claimed by
/// whoever owns the Swarm. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Links(Arc<Shared>);

impl Links {
    /// Takes the link of a connection, by the peer and endpoint that the Swarm reports for it.
    ///
    /// `None` where the transport is not the one that came with these links, where the
    /// connection is closed or was claimed before, or where more than 1024 connections came to
    /// be unclaimed since. Of several connections with the same peer and endpoint the oldest
    /// is taken.
    pub fn claim(&self, peer: &PeerId, endpoint: &ConnectedPoint) -> Option<Arc<Link>> {
        let mut unclaimed = lock(&self.0.unclaimed);
        unclaimed.retain(|entry| entry.link.strong_count() > 0);
        let position = unclaimed
            .iter()
            .position(|entry| entry.peer == *peer && entry.endpoint == *endpoint)?;
        unclaimed.remove(position)?.link.upgrade()
    }

    /// Bytes of all connections since the start, open and closed, by transport.
    pub fn totals(&self) -> Totals {
        Totals {
            tcp: self.0.tcp.read(),
            quic: self.0.quic(),
            memory: self.0.memory.read(),
            relay: self.0.relay.read(),
        }
    }

    /// A meter for a connection that begins.
    pub(crate) fn meter(&self, transport: TransportKind) -> Meter {
        Meter {
            transport,
            own: Arc::default(),
            shared: Arc::clone(&self.0),
        }
    }

    /// The link of an established QUIC connection.
    pub(crate) fn quic(&self, traffic: Arc<Traffic>) -> Arc<Link> {
        // Sweeps what has closed, so that the book holds open connections and few others.
        self.0.quic();
        lock(&self.0.quic_open).push(Arc::clone(&traffic));
        Arc::new(Link {
            transport: TransportKind::Quic,
            security: SecurityKind::QuicTls {
                cipher: Cipher::Unknown,
            },
            muxer: MuxerKind::Quic,
            count: Count::Quic(traffic),
            refused: AtomicU64::new(0),
        })
    }

    /// Leaves the link of an established connection to be claimed.
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

/// What every transport of this crate puts out: the peer, its muxer, and the link. The muxer
/// owns a clone of the link, which keeps it alive as long as the connection.
pub(crate) struct Upgraded {
    pub(crate) peer: PeerId,
    pub(crate) muxer: StreamMuxerBox,
    pub(crate) link: Arc<Link>,
}
