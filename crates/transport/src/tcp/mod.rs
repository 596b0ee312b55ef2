//! TCP sockets: listening, dialling, and detection of dead paths.
//!
//! # One listener per port
//!
//! A dial uses the listening port as its source port, so that a NAT accepts
//! connections to the observed address. Two sockets can share a port only if
//! both have `SO_REUSEPORT`. If a listening socket had this option from the
//! start, a second process of the same user could listen on the same port, and
//! the kernel would distribute the connections among both. A listener therefore
//! binds and listens **without** the option, which fails if another socket
//! listens on the port, and sets the option afterwards. Linux and the BSDs
//! compare the options that the sockets have when `bind` is called. A second
//! node does the same, and its `bind` without the option fails.
//!
//! # Dead paths
//!
//! The kernel closes a connection [`DEAD_AFTER`] after its path failed, both if
//! it is busy (`TCP_USER_TIMEOUT`) and if it is idle (keep-alive probes). A
//! slow peer that answers is not disconnected, unless it keeps its receive
//! window closed for the whole time.

mod congestion;
mod listener;
mod simultaneous;
mod stream;
#[cfg(test)]
mod tests;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::SelectAll};
use libp2p_core::transport::{DialOpts, ListenerId, PortUse, TransportError, TransportEvent};
use multiaddr::{Multiaddr, Protocol};
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};

pub use self::congestion::CongestionError;
use self::listener::Listener;
pub(crate) use self::{congestion::Congestion, simultaneous::SimultaneousOpen, stream::Stream};

/// Time without any response after which a path counts as dead, 9 s. It allows
/// three retransmissions with a round trip of one second. If data is sent just
/// before an idle connection would be closed, the time starts again, so that a
/// path that failed is noticed within twice this time.
const DEAD_AFTER: Duration = Duration::from_secs(9);

/// Idle time after which the kernel sends the first keep-alive probe, 5 s, as
/// often as QUIC sends one. Three more follow at [`KEEP_ALIVE_INTERVAL`], and an
/// idle connection is also closed after [`DEAD_AFTER`]. With 10 % of the packets
/// lost in each direction, none of the four is answered once in 770 times.
const KEEP_ALIVE_IDLE: Duration = Duration::from_secs(5);

/// Interval between keep-alive probes, 1 s.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// The TCP transport. Its connections are byte streams without security.
pub(crate) struct Transport {
    backlog: i32,
    congestion: Congestion,
    listeners: SelectAll<Listener>,
    waker: Option<Waker>,
}

impl Transport {
    /// Creates a transport with listeners that queue up to `backlog`
    /// connections before `accept`. All sockets have the congestion control
    /// `congestion`.
    pub(crate) fn new(backlog: u32, congestion: Congestion) -> Self {
        Self {
            backlog: i32::try_from(backlog).unwrap_or(i32::MAX),
            congestion,
            listeners: SelectAll::new(),
            waker: None,
        }
    }

    fn listen(&mut self, id: ListenerId, address: SocketAddr) -> io::Result<()> {
        let socket = new_socket(address, &self.congestion)?;
        // Connections of an earlier process in TIME_WAIT must not block the
        // port. On Windows this option would let two processes share it.
        #[cfg(unix)]
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(self.backlog)?;
        // After `listen`, not before: see the module documentation.
        share_port(&socket)?;
        let listener = tokio::net::TcpListener::from_std(socket.into())?;
        let listener = Listener::new(id, listener)?;
        self.listeners.push(listener);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        Ok(())
    }

    /// Returns the source port for a dial of `remote`: the port of a listener of the same IP version
    /// that is bound to all addresses, or that is also loopback or also not loopback. It does not
    /// depend on the interfaces, which are reported some time after the socket is bound.
    fn port_towards(&self, remote: IpAddr) -> Option<SocketAddr> {
        let mut listeners = self.listeners.iter();
        let port = listeners.find_map(|listener| listener.port_towards(remote))?;
        Some(match remote {
            IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, port).into(),
            IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, port).into(),
        })
    }
}

fn new_socket(address: SocketAddr, congestion: &Congestion) -> io::Result<Socket> {
    let protocol = Some(socket2::Protocol::TCP);
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, protocol)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    congestion.apply(&socket)?;
    Ok(socket)
}

/// Allows sockets with the same option to bind to the port of `socket`.
fn share_port(socket: &Socket) -> io::Result<()> {
    #[cfg(all(unix, not(any(target_os = "solaris", target_os = "illumos"))))]
    socket.set_reuse_port(true)?;
    let _ = socket;
    Ok(())
}

/// Sets the socket options of an established connection.
fn configure(stream: &tokio::net::TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keep_alive = TcpKeepalive::new().with_time(KEEP_ALIVE_IDLE);
    #[cfg(not(any(target_os = "openbsd", target_os = "redox", target_os = "solaris")))]
    let keep_alive = keep_alive.with_interval(KEEP_ALIVE_INTERVAL);
    socket.set_tcp_keepalive(&keep_alive)?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_user_timeout(Some(DEAD_AFTER))?;
    Ok(())
}

/// Connects from the source address `from`, or from any port.
async fn connect(
    to: SocketAddr,
    from: Option<SocketAddr>,
    congestion: &Congestion,
) -> io::Result<Stream> {
    let socket = new_socket(to, congestion)?;
    if let Some(from) = from {
        socket.set_reuse_address(true)?;
        share_port(&socket)?;
        socket.bind(&from.into())?;
    }
    match socket.connect(&to.into()) {
        Ok(()) => {}
        #[cfg(unix)]
        Err(error) if error.raw_os_error() == Some(EINPROGRESS) => {}
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        Err(error) => return Err(error),
    }
    let stream = tokio::net::TcpStream::from_std(socket.into())?;
    stream.writable().await?;
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    configure(&stream)?;
    Ok(Stream::new(stream))
}

/// Error of `connect` on a non-blocking socket while the connection is being
/// established. The standard library has no stable error kind for it.
#[cfg(any(target_os = "linux", target_os = "android"))]
const EINPROGRESS: i32 = 115;
/// Error of `connect` on a non-blocking socket while the connection is being
/// established.
#[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
const EINPROGRESS: i32 = 36;

/// Returns `true` if the source port cannot be used for this peer: another
/// connection to the peer uses it, or the listener's address was removed.
fn port_is_taken(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse
    )
}

impl libp2p_core::Transport for Transport {
    type Output = Stream;
    type Error = io::Error;
    type ListenerUpgrade = futures::future::Ready<io::Result<Stream>>;
    type Dial = BoxFuture<'static, io::Result<Stream>>;

    fn listen_on(
        &mut self,
        id: ListenerId,
        addr: Multiaddr,
    ) -> Result<(), TransportError<io::Error>> {
        let Some(address) = socket_of(&addr) else {
            return Err(TransportError::MultiaddrNotSupported(addr));
        };
        self.listen(id, address).map_err(TransportError::Other)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        let mut listeners = self.listeners.iter_mut();
        let listener = listeners.find(|listener| listener.is_open(id));
        listener.map(Listener::close).is_some()
    }

    fn dial(
        &mut self,
        addr: Multiaddr,
        opts: DialOpts,
    ) -> Result<Self::Dial, TransportError<io::Error>> {
        let to = socket_of(&addr);
        let Some(to) = to.filter(|to| to.port() != 0 && !to.ip().is_unspecified()) else {
            return Err(TransportError::MultiaddrNotSupported(addr));
        };
        let from = match opts.port_use {
            PortUse::Reuse => self.port_towards(to.ip()),
            PortUse::New => None,
        };
        let congestion = self.congestion.clone();
        Ok(async move {
            match connect(to, from, &congestion).await {
                Err(error) if from.is_some() && port_is_taken(&error) => {
                    tracing::debug!(%to, %error, "source port is not usable, dialling from another port");
                    connect(to, None, &congestion).await
                }
                result => result,
            }
        }
        .boxed())
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        match self.listeners.poll_next_unpin(cx) {
            Poll::Ready(Some(event)) => Poll::Ready(event),
            Poll::Ready(None) | Poll::Pending => {
                self.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Parses the socket address of `/ip4|ip6/<ip>/tcp/<port>[/p2p/<peer>]`.
fn socket_of(addr: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = addr.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => IpAddr::V4(ip),
        Protocol::Ip6(ip) => IpAddr::V6(ip),
        _ => return None,
    };
    let Some(Protocol::Tcp(port)) = parts.next() else {
        return None;
    };
    match (parts.next(), parts.next()) {
        (None | Some(Protocol::P2p(_)), None) => Some(SocketAddr::new(ip, port)),
        _ => None,
    }
}

fn multiaddr(socket: SocketAddr) -> Multiaddr {
    Multiaddr::from(socket.ip()).with(Protocol::Tcp(socket.port()))
}
