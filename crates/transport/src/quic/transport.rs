//! The transport: dials from shared endpoints and polls the listeners.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use calimero_network_primitives::config::QuicConfig;
use futures::{StreamExt, future::BoxFuture, stream::SelectAll};
use libp2p_core::{
    Endpoint, Multiaddr,
    transport::{DialOpts, ListenerId, PortUse, TransportError, TransportEvent},
};
use libp2p_identity::{Keypair, PeerId};

use super::{
    Connecting, Connection, Error,
    addr::{Target, parse, parse_remote},
    config::Settings,
    connecting::Expected,
    hole_punch::{Punches, punch},
    listener::{Bound, Event, Listener},
};
use crate::{
    BuildError,
    crypto::{Crypto, collected},
};

/// A name of a server where TLS wants one. Peers are known by their certificate and the name is
/// not sent, so any valid one serves; this is the one of `libp2p-quic`.
const SERVER_NAME: &str = "l";

/// QUIC for libp2p. Used from within a tokio runtime that drives IO and time.
pub struct Transport {
    settings: Arc<Settings>,
    listeners: SelectAll<Listener>,
    /// What dials where no listener can, one for each address family.
    dialer_v4: Option<Bound>,
    dialer_v6: Option<Bound>,
    punches: Punches,
    waker: Option<Waker>,
}

impl Transport {
    /// A transport for the peer of `keypair`.
    ///
    /// Makes the certificate that all connections present. A dial or an inbound connection has
    /// `handshake_timeout` to become authenticated, after the cryptographic library has collected
    /// the entropy of the process (20 to 120 ms).
    ///
    /// # Errors
    ///
    /// [`BuildError`] if there can be no certificate for the key pair.
    pub fn new(
        keypair: &Keypair,
        config: &QuicConfig,
        handshake_timeout: Duration,
    ) -> Result<Self, BuildError> {
        let crypto = Crypto::new(keypair)?;
        Self::with_crypto(crypto, keypair, config, handshake_timeout)
    }

    /// As [`Transport::new`], with a certificate that other transports present too.
    pub(crate) fn with_crypto(
        crypto: Crypto,
        keypair: &Keypair,
        config: &QuicConfig,
        handshake_timeout: Duration,
    ) -> Result<Self, BuildError> {
        Ok(Self {
            settings: Arc::new(Settings::new(crypto, keypair, config, handshake_timeout)?),
            listeners: SelectAll::new(),
            dialer_v4: None,
            dialer_v6: None,
            punches: Punches::default(),
            waker: None,
        })
    }

    /// Validates addresses from another number of handshakes on.
    #[cfg(test)]
    pub(super) fn validating_above(mut self, handshakes: usize) -> Self {
        Arc::make_mut(&mut self.settings).validate_above = handshakes;
        self
    }

    fn listener_towards(&self, remote: IpAddr) -> Option<&Bound> {
        self.listeners
            .iter()
            .find_map(|listener| listener.dialer(remote))
    }

    /// The endpoint for a dial: of a listener if the port is to be reused, else a shared one, or
    /// one of its own.
    fn endpoint(&mut self, remote: IpAddr, port_use: PortUse) -> Result<quinn::Endpoint, Error> {
        if port_use == PortUse::New {
            return Ok(Bound::dialer(&self.settings, any_port(remote))?.endpoint);
        }
        if let Some(bound) = self.listener_towards(remote) {
            return Ok(bound.endpoint.clone());
        }
        let dialer = match remote {
            IpAddr::V4(_) => &mut self.dialer_v4,
            IpAddr::V6(_) => &mut self.dialer_v6,
        };
        let bound = match dialer {
            Some(bound) => bound,
            none => none.insert(Bound::dialer(&self.settings, any_port(remote))?),
        };
        Ok(bound.endpoint.clone())
    }

    fn dial_out(&mut self, to: Target, port_use: PortUse) -> Result<Dial, Error> {
        let endpoint = self.endpoint(to.socket.ip(), port_use)?;
        let (config, found) = self.settings.client(to.socket.ip(), to.peer)?;
        let expected = to
            .peer
            .zip(found)
            .map(|(peer, found)| Expected { peer, found });
        let settings = Arc::clone(&self.settings);
        Ok(Box::pin(async move {
            let after = settings.handshake_timeout;
            (tokio::time::timeout(after, collected()).await)
                .map_err(|_| Error::Timeout { after })?;
            let handshake = endpoint.connect_with(config, to.socket, SERVER_NAME)?;
            Connecting::outbound(handshake, &settings, expected).await
        }))
    }

    /// Lets the other side dial, and opens the way for its packets.
    fn dial_in(&mut self, to: Target, expected: PeerId) -> Result<Dial, Error> {
        let bound = self
            .listener_towards(to.socket.ip())
            .ok_or(Error::NoListener)?;
        let socket = Arc::clone(&bound.socket);
        let inbound = self.punches.expect(to.socket)?;
        let after = self.settings.handshake_timeout;
        Ok(Box::pin(async move {
            tokio::time::timeout(after, punch(socket, to.socket, expected, inbound))
                .await
                .unwrap_or(Err(Error::Timeout { after }))
        }))
    }

    /// Gives an inbound connection to the hole punch that waits for it; passes on the rest.
    fn route(&mut self, event: Event) -> Option<Event> {
        match event {
            TransportEvent::Incoming {
                listener_id,
                upgrade,
                local_addr,
                send_back_addr,
            } => {
                let upgrade = match parse(&send_back_addr) {
                    Some(from) => self.punches.claim(from.socket, upgrade)?,
                    None => upgrade,
                };
                Some(TransportEvent::Incoming {
                    listener_id,
                    upgrade,
                    local_addr,
                    send_back_addr,
                })
            }
            other => Some(other),
        }
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

fn any_port(remote: IpAddr) -> SocketAddr {
    match remote {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

type Dial = BoxFuture<'static, Result<(PeerId, Connection), Error>>;

impl libp2p_core::Transport for Transport {
    type Output = (PeerId, Connection);
    type Error = Error;
    type ListenerUpgrade = Connecting;
    type Dial = Dial;

    fn listen_on(
        &mut self,
        id: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<Error>> {
        let Some(Target { socket, .. }) = parse(&address) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        let listener = Listener::bind(id, &self.settings, socket).map_err(TransportError::Other)?;
        self.listeners.push(listener);
        // Later dials leave from the listener; this socket goes with its last connection.
        match socket {
            SocketAddr::V4(_) => self.dialer_v4 = None,
            SocketAddr::V6(_) => self.dialer_v6 = None,
        }
        self.wake();
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        match self
            .listeners
            .iter_mut()
            .find(|listener| listener.is_open(id))
        {
            Some(listener) => {
                listener.close(Ok(()));
                true
            }
            None => false,
        }
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        options: DialOpts,
    ) -> Result<Dial, TransportError<Error>> {
        let Some(target) = parse_remote(&address) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        let dial = match (options.role, target.peer) {
            (Endpoint::Dialer, _) => self.dial_out(target, options.port_use),
            (Endpoint::Listener, Some(peer)) => self.dial_in(target, peer),
            // A hole punch waits for a peer, so the address must name it.
            (Endpoint::Listener, None) => {
                return Err(TransportError::MultiaddrNotSupported(address));
            }
        };
        dial.map_err(TransportError::Other)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Event> {
        while let Poll::Ready(Some(event)) = self.listeners.poll_next_unpin(cx) {
            if let Some(event) = self.route(event) {
                return Poll::Ready(event);
            }
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport")
            .field("listeners", &self.listeners.len())
            .finish_non_exhaustive()
    }
}
