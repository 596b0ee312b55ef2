//! An established connection, as libp2p's stream muxer.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use futures::future::BoxFuture;
use libp2p_core::muxing::{StreamMuxer, StreamMuxerEvent};
use quinn::{ConnectionError, RecvStream, SendStream, VarInt};

use super::{Error, Stream};

/// What a peer is told on closing, by the libp2p convention: nothing went wrong.
const NO_ERROR: VarInt = VarInt::from_u32(0);

type Opening = BoxFuture<'static, Result<(SendStream, RecvStream), ConnectionError>>;

/// A connection with an authenticated peer.
///
/// Dropping it closes it, with all its streams.
pub struct Connection {
    connection: quinn::Connection,
    traffic: Arc<Traffic>,
    inbound: Option<Opening>,
    outbound: Option<Opening>,
    closed: Option<BoxFuture<'static, ConnectionError>>,
}

impl Connection {
    pub(super) fn new(connection: quinn::Connection) -> Self {
        Self {
            traffic: Arc::new(Traffic::of(connection.clone())),
            connection,
            inbound: None,
            outbound: None,
            closed: None,
        }
    }

    /// The bytes this connection carries, for whoever reports them.
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
        Poll::Ready(result.map(Stream::new).map_err(Error::from))
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
        Poll::Ready(result.map(Stream::new).map_err(Error::from))
    }

    /// Nothing to do and nothing to report: `quinn` drives the connection in a task of its own,
    /// and addresses do not change as long as migration is off.
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, Error>> {
        Poll::Pending
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let this = &mut *self;
        let closed = this.closed.get_or_insert_with(|| {
            this.connection.close(NO_ERROR, &[]);
            let connection = this.connection.clone();
            Box::pin(async move { connection.closed().await })
        });
        match ready!(closed.as_mut().poll(cx)) {
            ConnectionError::LocallyClosed => Poll::Ready(Ok(())),
            other => Poll::Ready(Err(other.into())),
        }
    }
}

/// Bytes of one connection, as UDP carried them: with handshake, packet headers and everything
/// sent twice, without the headers of UDP and IP.
#[derive(Debug)]
pub(crate) struct Traffic {
    /// Gone once the connection is, so that a reader does not keep its buffers.
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
