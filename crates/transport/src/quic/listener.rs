//! A listener: one socket, the addresses it is reachable at, and the connections that come in.

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use futures::{Stream, future::BoxFuture};
use libp2p_core::transport::{ListenerId, TransportEvent};

use super::{
    Connecting, Error,
    addr::{multiaddr, same_family},
    config::Settings,
    connecting::Counted,
    socket::Socket,
};
use crate::{
    crypto::collected,
    interfaces::{Change, Interfaces},
};

/// An endpoint and the socket under it.
#[derive(Clone, Debug)]
pub(super) struct Bound {
    pub(super) endpoint: quinn::Endpoint,
    pub(super) socket: Arc<Socket>,
    pub(super) address: SocketAddr,
}

impl Bound {
    /// Binds an endpoint that only dials.
    pub(super) fn dialer(settings: &Settings, address: SocketAddr) -> Result<Self, Error> {
        Self::bind(settings, address, None)
    }

    fn listener(settings: &Settings, address: SocketAddr) -> Result<Self, Error> {
        let server = quinn::ServerConfig::clone(&settings.server(address.ip()));
        Self::bind(settings, address, Some(server))
    }

    fn bind(
        settings: &Settings,
        address: SocketAddr,
        server: Option<quinn::ServerConfig>,
    ) -> Result<Self, Error> {
        let socket = Socket::bind(address)?;
        let address = socket.address()?;
        let endpoint = quinn::Endpoint::new_with_abstract_socket(
            settings.endpoint(),
            server,
            Arc::<Socket>::clone(&socket),
            Arc::new(quinn::TokioRuntime),
        )?;
        Ok(Self {
            endpoint,
            socket,
            address,
        })
    }
}

pub(super) type Event = TransportEvent<Connecting, Error>;

/// Reports addresses, connections and its own end, then ends.
pub(super) struct Listener {
    id: ListenerId,
    settings: Arc<Settings>,
    bound: Bound,
    accept: BoxFuture<'static, Option<quinn::Incoming>>,
    /// Number of handshakes in progress.
    handshakes: Arc<AtomicUsize>,
    interfaces: Interfaces,
    events: VecDeque<Event>,
    open: bool,
    waker: Option<Waker>,
}

impl Listener {
    pub(super) fn bind(
        id: ListenerId,
        settings: &Arc<Settings>,
        address: SocketAddr,
    ) -> Result<Self, Error> {
        let bound = Bound::listener(settings, address)?;
        Ok(Self {
            id,
            settings: Arc::clone(settings),
            accept: accept(&bound.endpoint),
            handshakes: Arc::default(),
            interfaces: Interfaces::of(bound.address),
            events: VecDeque::new(),
            open: true,
            waker: None,
            bound,
        })
    }

    /// Whether this is the listener `id`, and not closed.
    pub(super) fn is_open(&self, id: ListenerId) -> bool {
        self.open && self.id == id
    }

    /// The endpoint to dial `remote` from, so that the dial leaves from the listener's port.
    pub(super) fn dialer(&self, remote: IpAddr) -> Option<&Bound> {
        let local = self.bound.address.ip();
        let reaches = local.is_unspecified() || local.is_loopback() == remote.is_loopback();
        (self.open && same_family(local, remote) && reaches).then_some(&self.bound)
    }

    /// Takes no more connections. Those that stand are not touched: they keep the socket until
    /// the last is closed.
    pub(super) fn close(&mut self, reason: Result<(), Error>) {
        if !self.open {
            return;
        }
        self.open = false;
        self.bound.endpoint.set_server_config(None);
        self.events.push_back(TransportEvent::ListenerClosed {
            listener_id: self.id,
            reason,
        });
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn change(&self, change: Change) -> Event {
        let at = |ip| multiaddr(SocketAddr::new(ip, self.bound.address.port()));
        match change {
            Change::Up(ip) => TransportEvent::NewAddress {
                listener_id: self.id,
                listen_addr: at(ip),
            },
            Change::Down(ip) => TransportEvent::AddressExpired {
                listener_id: self.id,
                listen_addr: at(ip),
            },
        }
    }

    /// Starts the handshake of a connection, unless its address has to be proven first.
    fn incoming(&self, incoming: quinn::Incoming) -> Option<Event> {
        let busy = self.handshakes.load(Ordering::Relaxed) >= self.settings.validate_above;
        if busy && !incoming.remote_address_validated() && incoming.may_retry() {
            // Cannot fail after `may_retry`; if it does, dropping the connection refuses it.
            let _ = incoming.retry();
            return None;
        }
        let remote = incoming.remote_address();
        let local = incoming.local_ip().map_or(self.bound.address, |ip| {
            SocketAddr::new(ip, self.bound.address.port())
        });
        Some(
            match incoming.accept_with(self.settings.server(remote.ip())) {
                Ok(handshake) => TransportEvent::Incoming {
                    listener_id: self.id,
                    upgrade: Connecting::inbound(
                        handshake,
                        &self.settings,
                        Counted::new(&self.handshakes),
                    ),
                    local_addr: multiaddr(local),
                    send_back_addr: multiaddr(remote),
                },
                Err(error) => TransportEvent::ListenerError {
                    listener_id: self.id,
                    error: error.into(),
                },
            },
        )
    }

    /// Refuses what came in and was not accepted before the listener closed.
    fn refuse_rest(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(incoming)) = self.accept.as_mut().poll(cx) {
            incoming.refuse();
            self.accept = accept(&self.bound.endpoint);
        }
    }
}

/// Waits for the next connection. Until the process has its entropy, `quinn` holds connections
/// back.
fn accept(endpoint: &quinn::Endpoint) -> BoxFuture<'static, Option<quinn::Incoming>> {
    let endpoint = endpoint.clone();
    Box::pin(async move {
        collected().await;
        endpoint.accept().await
    })
}

impl Stream for Listener {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let this = &mut *self;
        loop {
            if let Some(event) = this.events.pop_front() {
                return Poll::Ready(Some(event));
            }
            if !this.open {
                this.refuse_rest(cx);
                return Poll::Ready(None);
            }
            if let Poll::Ready(change) = this.interfaces.poll(cx) {
                return Poll::Ready(Some(this.change(change)));
            }
            match this.accept.as_mut().poll(cx) {
                Poll::Ready(Some(incoming)) => {
                    this.accept = accept(&this.bound.endpoint);
                    let event = this.incoming(incoming);
                    this.events.extend(event);
                }
                // The task that reads the socket has ended, which only a failed socket makes it.
                Poll::Ready(None) => {
                    this.close(Err(io::Error::from(io::ErrorKind::BrokenPipe).into()))
                }
                Poll::Pending => {
                    this.waker = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            }
        }
    }
}
