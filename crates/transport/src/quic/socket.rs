//! The UDP socket under an endpoint.

use std::{
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit, UdpSocketState},
};
use socket2::{Domain, Protocol, Type};
use tokio::{io::Interest, runtime::Handle};

use super::{Error, config::MAX_UDP_PAYLOAD_BYTES};

/// Size asked of the kernel for each direction of a socket, in bytes: the 7 MiB that
/// [quic-go] found to lose nothing at 10 Gbit/s. Kernels give less without saying so where
/// their limit is lower (`net.core.rmem_max` and `wmem_max` on Linux).
///
/// [quic-go]: https://github.com/quic-go/quic-go/wiki/UDP-Buffer-Sizes
const BUFFER_BYTES: usize = 7 << 20;

/// Largest run of datagrams the kernel hands over in one piece, in bytes: what the length field
/// of UDP can say.
const MAX_TRAIN_BYTES: usize = u16::MAX as usize;

/// A bound UDP socket that sends and receives in batches.
#[derive(Debug)]
pub(super) struct Socket {
    io: tokio::net::UdpSocket,
    state: UdpSocketState,
}

impl Socket {
    /// Binds to `address`, IPv6 without IPv4 inside so that one port serves a listener of each.
    pub(super) fn bind(address: SocketAddr) -> Result<Arc<Self>, Error> {
        Handle::try_current().map_err(|_| Error::NoRuntime)?;
        let socket = socket2::Socket::new(
            Domain::for_address(address),
            Type::DGRAM.nonblocking(),
            Some(Protocol::UDP),
        )?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // The kernel's default also works, only slower.
        let _ = socket.set_recv_buffer_size(BUFFER_BYTES);
        let _ = socket.set_send_buffer_size(BUFFER_BYTES);
        socket.bind(&address.into())?;
        tracing::debug!(
            %address,
            receive_buffer_bytes = socket.recv_buffer_size().ok(),
            send_buffer_bytes = socket.send_buffer_size().ok(),
            "bound a UDP socket"
        );
        let io = tokio::net::UdpSocket::from_std(socket.into())?;
        let state = UdpSocketState::new((&io).into())?;
        Ok(Arc::new(Self { io, state }))
    }

    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    /// Sends one datagram that is none of QUIC's.
    pub(super) async fn send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        self.io.send_to(bytes, to).await.map(drop)
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable {
            socket: self,
            waiting: None,
        })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.io.try_io(Interest::WRITABLE, || {
            self.state.send((&self.io).into(), transmit)
        })
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        received: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.io.poll_recv_ready(cx))?;
            let result = self.io.try_io(Interest::READABLE, || {
                self.state.recv((&self.io).into(), buffers, received)
            });
            match result {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.address()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// How many datagrams a receive buffer is sized for.
    ///
    /// The buffer is this many times the largest datagram. A train is never longer than 64 KiB,
    /// however many datagrams the kernel would join, so neither is the buffer by much.
    fn max_receive_segments(&self) -> usize {
        let enough = MAX_TRAIN_BYTES.div_ceil(usize::from(MAX_UDP_PAYLOAD_BYTES));
        self.state.gro_segments().min(enough)
    }
}

type Waiting = Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>;

/// Waits until a socket that was full takes datagrams again.
struct Writable {
    socket: Arc<Socket>,
    /// Set while the socket is full; several connections wait on one socket, so each brings a
    /// waiter of its own.
    waiting: Option<Waiting>,
}

impl UdpPoller for Writable {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let waiting = match &mut this.waiting {
            Some(waiting) => waiting,
            // The usual case costs no allocation.
            None if this.socket.io.try_io(Interest::WRITABLE, || Ok(())).is_ok() => {
                return Poll::Ready(Ok(()));
            }
            none => {
                let socket = Arc::clone(&this.socket);
                none.insert(Box::pin(async move { socket.io.writable().await }))
            }
        };
        let result = ready!(waiting.as_mut().poll(cx));
        this.waiting = None;
        Poll::Ready(result)
    }
}

impl std::fmt::Debug for Writable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writable")
            .field("socket", &self.socket)
            .field("waiting", &self.waiting.is_some())
            .finish()
    }
}
