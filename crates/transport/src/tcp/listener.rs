//! A listening socket and its events.

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures::{FutureExt, future};
use futures_timer::Delay;
use libp2p_core::transport::{ListenerId, TransportEvent};
use tokio::net::TcpListener;

use super::{Stream, configure, multiaddr};
use crate::interfaces::{Change, Interfaces};

/// Delay after an error of `accept`, 100 ms. Without free file descriptors an
/// immediate retry would fail as well.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

type Event = TransportEvent<future::Ready<io::Result<Stream>>, io::Error>;

/// A stream of the addresses and connections of one socket. It ends after the
/// listener was closed.
pub(super) struct Listener {
    id: ListenerId,
    socket: TcpListener,
    address: SocketAddr,
    interfaces: Interfaces,
    events: VecDeque<Event>,
    pause: Option<Delay>,
    open: bool,
    waker: Option<Waker>,
}

impl Listener {
    pub(super) fn new(id: ListenerId, socket: TcpListener) -> io::Result<Self> {
        let address = socket.local_addr()?;
        Ok(Self {
            id,
            socket,
            address,
            interfaces: Interfaces::of(address),
            events: VecDeque::new(),
            pause: None,
            open: true,
            waker: None,
        })
    }

    /// Returns `true` if this is the listener `id` and it is open.
    pub(super) fn is_open(&self, id: ListenerId) -> bool {
        self.open && self.id == id
    }

    /// Stops accepting connections. Established connections are not affected.
    pub(super) fn close(&mut self) {
        self.open = false;
        self.events.push_back(TransportEvent::ListenerClosed {
            listener_id: self.id,
            reason: Ok(()),
        });
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn change(&mut self, change: Change) -> Event {
        let at = |ip| multiaddr(SocketAddr::new(ip, self.address.port()));
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

    /// Returns the port of this listener, if a dial of `remote` can leave from it.
    pub(super) fn port_towards(&self, remote: IpAddr) -> Option<u16> {
        let local = self.address.ip();
        let is_same_version = local.is_ipv4() == remote.is_ipv4();
        let reaches = local.is_unspecified() || local.is_loopback() == remote.is_loopback();
        (self.open && is_same_version && reaches).then_some(self.address.port())
    }

    fn accepted(&self, stream: tokio::net::TcpStream, remote: SocketAddr) -> io::Result<Event> {
        let local = stream.local_addr()?;
        configure(&stream)?;
        Ok(TransportEvent::Incoming {
            listener_id: self.id,
            upgrade: future::ok(Stream::new(stream)),
            local_addr: multiaddr(local),
            send_back_addr: multiaddr(remote),
        })
    }
}

impl futures::Stream for Listener {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let this = &mut *self;
        loop {
            if let Some(event) = this.events.pop_front() {
                return Poll::Ready(Some(event));
            }
            if !this.open {
                return Poll::Ready(None);
            }
            if let Poll::Ready(change) = this.interfaces.poll(cx) {
                return Poll::Ready(Some(this.change(change)));
            }
            if let Some(pause) = &mut this.pause {
                if pause.poll_unpin(cx).is_pending() {
                    this.waker = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                this.pause = None;
            }
            let error = match this.socket.poll_accept(cx) {
                // A connection that failed before `accept` affects only its
                // peer, so it is not a listener error.
                Poll::Ready(Ok((stream, remote))) => match this.accepted(stream, remote) {
                    Ok(event) => return Poll::Ready(Some(event)),
                    Err(error) => {
                        tracing::debug!(%remote, %error, "accepted connection failed");
                        continue;
                    }
                },
                Poll::Ready(Err(error)) => error,
                Poll::Pending => {
                    this.waker = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            };
            this.pause = Some(Delay::new(ACCEPT_PAUSE));
            return Poll::Ready(Some(TransportEvent::ListenerError {
                listener_id: this.id,
                error,
            }));
        }
    }
}
