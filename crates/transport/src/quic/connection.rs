//! An established connection, as libp2p's stream muxer.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use calimero_network_primitives::resources::Origin;
use futures::future::BoxFuture;
use libp2p_core::muxing::{StreamMuxer, StreamMuxerEvent};
use quinn::{ConnectionError, RecvStream, SendStream, VarInt};

use super::{Error, Stream, stream_limit::StreamLimit};
use crate::{Link, executor::charge_to};

/// Error code of a close without an error, by the libp2p convention.
const NO_ERROR: VarInt = VarInt::from_u32(0);

/// Time limit for passing the packet that closes the connection to the socket, 1 s: some turns of a
/// task on a busy host.
const LAST_PACKET_TIMEOUT: Duration = Duration::from_secs(1);

/// Time for what streams have taken to go out before a close, as long as Yamux has for it.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// Shortest time without stream data that counts as their end. On loopback two round trips are
/// shorter than a turn of the scheduler.
const SHORTEST_LULL: Duration = Duration::from_millis(5);

/// Interval between two checks of whether the packet that closes a connection was sent, 1 ms.
/// `quinn` has no event for it.
const SEND_CHECK_INTERVAL: Duration = Duration::from_millis(1);

type Opening = BoxFuture<'static, Result<(SendStream, RecvStream), ConnectionError>>;

/// A connection with an authenticated peer.
///
/// Dropping it closes it, with all its streams.
pub struct Connection {
    connection: quinn::Connection,
    traffic: Arc<Traffic>,
    /// Kept as long as the connection, so that its entry in the registry of links stays valid.
    link: Option<Arc<Link>>,
    /// The origin to which the task of the connection is not charged yet.
    uncharged: Option<Origin>,
    inbound: Option<Opening>,
    outbound: Option<Opening>,
    limit: StreamLimit,
    /// Has a clone in each inbound stream, so that they are counted.
    open: Arc<()>,
    /// `true` once the connection is being closed. Read by its streams.
    closing: Arc<AtomicBool>,
    closed: Option<BoxFuture<'static, ConnectionError>>,
}

impl Connection {
    pub(super) fn new(connection: quinn::Connection, max_streams: u32) -> Self {
        Self {
            traffic: Arc::new(Traffic::of(connection.clone())),
            connection,
            link: None,
            uncharged: None,
            inbound: None,
            outbound: None,
            limit: StreamLimit::new(max_streams),
            open: Arc::default(),
            closing: Arc::default(),
            closed: None,
        }
    }

    /// Keeps `link` for as long as the connection lives.
    pub(crate) fn keep(&mut self, link: Arc<Link>) {
        self.uncharged = link.origin();
        self.link = Some(link);
    }

    /// Returns the byte counters of the connection.
    pub(crate) fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Connection").field(&self.connection).finish()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.connection.close(NO_ERROR, &[]);
        self.traffic.end();
    }
}

impl StreamMuxer for Connection {
    type Substream = Stream;
    type Error = Error;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Stream, Error>> {
        let this = &mut *self;
        let opening = this.inbound.get_or_insert_with(|| {
            let connection = this.connection.clone();
            Box::pin(async move { connection.accept_bi().await })
        });
        let result = ready!(opening.as_mut().poll(cx));
        this.inbound = None;
        let halves = result.map_err(Error::from)?;
        let open = Some(Arc::clone(&this.open));
        let stream = Stream::new(halves, Arc::clone(&this.closing), open);
        let open = u32::try_from(Arc::strong_count(&this.open) - 1).unwrap_or(u32::MAX);
        if let Some(grant) = this.limit.on_opened(open, Instant::now()) {
            let grant = VarInt::from_u32(grant);
            this.connection.set_max_concurrent_bi_streams(grant);
        }
        Poll::Ready(Ok(stream))
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Stream, Error>> {
        let this = &mut *self;
        let opening = this.outbound.get_or_insert_with(|| {
            let connection = this.connection.clone();
            Box::pin(async move { connection.open_bi().await })
        });
        let result = ready!(opening.as_mut().poll(cx));
        this.outbound = None;
        let closing = &this.closing;
        let stream = result.map(|halves| Stream::new(halves, Arc::clone(closing), None));
        Poll::Ready(stream.map_err(Error::from))
    }

    /// Nothing to report: `quinn` drives the connection in a task of its own,
    /// and addresses do not change as long as migration is off.
    fn poll(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Result<StreamMuxerEvent, Error>> {
        if let Some(origin) = self.uncharged.take() {
            charge_to(origin);
        }
        Poll::Pending
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let this = &mut *self;
        let closed = this
            .closed
            .get_or_insert_with(|| Box::pin(close(this.connection.clone())));
        this.closing.store(true, Ordering::Release);
        match ready!(closed.as_mut().poll(cx)) {
            ConnectionError::LocallyClosed => Poll::Ready(Ok(())),
            other => Poll::Ready(Err(other.into())),
        }
    }
}

/// Closes a connection in order: first the bytes that its streams accepted are sent, then the packet
/// that closes it.
///
/// Both are waited for because `quinn` waits for neither. In the middle of a transfer the
/// congestion window holds that packet back (quinn-proto 0.11), and no acknowledgement is heeded
/// any more that would make room for it. And `quinn` calls a connection closed before that packet is on its way: a task of its own sends it
/// at its next turn. A process that ends with the connection would never give it one, and the
/// peer would learn of the end by its idle timeout.
async fn close(connection: quinn::Connection) -> ConnectionError {
    if connection.close_reason().is_none() {
        // A peer that acknowledges nothing is not waited for longer.
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, drained(&connection)).await;
        let sent = connection.stats().udp_tx.datagrams;
        connection.close(NO_ERROR, &[]);
        let leaves = async {
            while connection.stats().udp_tx.datagrams == sent {
                tokio::time::sleep(SEND_CHECK_INTERVAL).await;
            }
            // The packet is counted before it is passed to the socket. If the socket is not writable
            // at that time, or the task of the connection has used up its turn, the packet is sent
            // at the next turn of the reactor.
            tokio::time::sleep(SHORTEST_LULL).await;
        };
        // A socket that takes nothing is not waited for.
        let _ = tokio::time::timeout(LAST_PACKET_TIMEOUT, leaves).await;
    }
    connection.closed().await
}

/// Waits until no stream has sent anything for two round trips: all is out, or the peer's windows
/// are full and what is left would go nowhere.
async fn drained(connection: &quinn::Connection) {
    loop {
        let before = connection.stats().frame_tx.stream;
        tokio::time::sleep((2 * connection.rtt()).max(SHORTEST_LULL)).await;
        if connection.stats().frame_tx.stream == before || connection.close_reason().is_some() {
            return;
        }
    }
}

/// Bytes of one connection, as UDP carried them: with handshake, packet headers and everything
/// sent twice, without the headers of UDP and IP.
#[derive(Debug)]
pub(crate) struct Traffic {
    /// `None` once the connection has ended, so that a reader does not retain its buffers.
    connection: Mutex<Option<quinn::Connection>>,
    received: AtomicU64,
    sent: AtomicU64,
}

impl Traffic {
    fn of(connection: quinn::Connection) -> Self {
        Self {
            connection: Mutex::new(Some(connection)),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
        }
    }

    /// Bytes received so far.
    pub(crate) fn received(&self) -> u64 {
        self.update(false);
        self.received.load(Ordering::Relaxed)
    }

    /// Bytes sent so far.
    pub(crate) fn sent(&self) -> u64 {
        self.update(false);
        self.sent.load(Ordering::Relaxed)
    }

    /// Returns the largest UDP payload that path MTU discovery found to pass, in bytes; `None` once
    /// the connection has ended.
    pub(crate) fn path_mtu(&self) -> Option<u16> {
        let connection = self.connection.lock();
        let connection = connection.unwrap_or_else(PoisonError::into_inner);
        let stats = connection.as_ref()?.stats();
        Some(stats.path.current_mtu)
    }

    /// Returns whether the connection has ended, so that the counters no longer change.
    pub(crate) fn ended(&self) -> bool {
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_none()
    }

    fn end(&self) {
        self.update(true);
    }

    fn update(&self, end: bool) {
        // Nothing panics while the lock is held, so a poisoned one is whole.
        let mut connection = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = &*connection {
            let stats = connection.stats();
            self.received.store(stats.udp_rx.bytes, Ordering::Relaxed);
            self.sent.store(stats.udp_tx.bytes, Ordering::Relaxed);
        }
        if end {
            *connection = None;
        }
    }
}
