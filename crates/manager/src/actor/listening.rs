//! Listeners: opened, reported, closed, opened again.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    time::{Duration, Instant},
};

use calimero_network_primitives::{Multiaddr, addr::Circuit};
use calimero_network_transport::{check_interface_watch, os_error};
use libp2p::{TransportError, swarm::derive_prelude::ListenerId};

use super::Actor;
use crate::{
    command::Reply,
    error::ListenError,
    event::ListenerEvent,
    listening::{wildcard, with_ip},
};

/// Time between two warnings that connections cannot be accepted: 60 s. Without free file descriptors
/// every listener fails ten times a second.
const ACCEPT_WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// A caller that waits for the first address of a listener.
pub(super) enum ListenReply {
    /// Of an address that the caller named.
    Asked(Reply<Result<(ListenerId, Multiaddr), ListenError>>),
    /// Of a configured address.
    Configured(Reply<Result<(), ListenError>>),
}

impl ListenReply {
    /// Answers the caller. Returns `false` if a caller that would own the listener no longer waits.
    fn send(self, outcome: Result<(ListenerId, Multiaddr), ListenError>) -> bool {
        match self {
            Self::Asked(reply) => reply.send(outcome).is_ok(),
            Self::Configured(reply) => {
                // The start may have failed by its deadline.
                drop(reply.send(outcome.map(|_| ())));
                true
            }
        }
    }

    /// Whether the caller that would own the listener no longer waits.
    fn is_dropped(&self) -> bool {
        matches!(self, Self::Asked(reply) if reply.is_closed())
    }

    pub(super) fn stopped(self) {
        let _ = self.send(Err(crate::error::Stopped.into()));
    }
}

impl Actor {
    pub(super) fn listen(
        &mut self,
        address: Multiaddr,
        reply: Reply<Result<(ListenerId, Multiaddr), ListenError>>,
    ) {
        if reply.is_closed() {
            return;
        }
        match self.open_listener(&address) {
            Ok(id) => {
                let waiting = (address, ListenReply::Asked(reply));
                self.listening.insert(id, waiting);
            }
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    /// Listens on a configured address, now and whenever that becomes possible.
    pub(super) fn listen_configured(
        &mut self,
        address: Multiaddr,
        reply: Reply<Result<(), ListenError>>,
    ) {
        self.wanted.add(address.clone());
        match self.try_configured(&address) {
            Ok(Some(id)) => {
                let waiting = (address, ListenReply::Configured(reply));
                self.listening.insert(id, waiting);
            }
            Ok(None) => drop(reply.send(Ok(()))),
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    /// Tries the configured addresses again that could not be listened on.
    pub(super) fn listen_again(&mut self) {
        for address in self.wanted.due(Instant::now()) {
            if let Err(error) = self.try_configured(&address) {
                self.unavailable(&address, error);
            }
        }
    }

    /// Opens the listener of a configured address. `None` if a wildcard address has none now and is
    /// tried again later.
    fn try_configured(&mut self, address: &Multiaddr) -> Result<Option<ListenerId>, ListenError> {
        // Without netlink the addresses of a wildcard cannot be watched, but sockets work.
        if let Some(ip) = wildcard(address)
            && let Err(source) = check_interface_watch()
        {
            let first = self.open_each(address, ip)?;
            let error = ListenError::Io {
                address: address.clone(),
                source,
            };
            self.unavailable(address, error);
            return Ok(first);
        }
        match self.open_listener(address) {
            Ok(id) => {
                self.wanted.opened(address, id, address.clone());
                Ok(Some(id))
            }
            Err(error) if wildcard(address).is_some() && may_come_later(&error) => {
                self.unavailable(address, error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Opens a listener on each address of this host that is found without watching interfaces, and
    /// returns one that was opened now.
    fn open_each(
        &mut self,
        address: &Multiaddr,
        ip: IpAddr,
    ) -> Result<Option<ListenerId>, ListenError> {
        let mut first = None;
        for ip in host_addresses(ip) {
            let concrete = with_ip(address, ip);
            if self.wanted.is_open(address, &concrete) {
                continue;
            }
            match self.open_listener(&concrete) {
                Ok(id) => {
                    self.wanted.opened(address, id, concrete);
                    first.get_or_insert(id);
                }
                Err(error) if may_come_later(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(first)
    }

    fn open_listener(&mut self, address: &Multiaddr) -> Result<ListenerId, ListenError> {
        // The relay of a circuit is dialled, and the caller named its address.
        if let Ok(circuit) = Circuit::parse(address) {
            self.grant(circuit.relay_addr());
        }
        match self.swarm.listen_on(address.clone()) {
            Ok(id) => {
                self.listeners.insert(id);
                Ok(id)
            }
            Err(TransportError::MultiaddrNotSupported(address)) => {
                Err(ListenError::Unsupported { address })
            }
            Err(TransportError::Other(error)) => Err(ListenError::Io {
                address: address.clone(),
                source: os_error(&error),
            }),
        }
    }

    /// Schedules another try for a configured address, and says so once.
    fn unavailable(&mut self, address: &Multiaddr, error: ListenError) {
        if !self.wanted.failed(address, Instant::now()) {
            return;
        }
        tracing::warn!(%address, %error, "cannot listen now, trying again");
        self.events.send(ListenerEvent::Unavailable {
            address: address.clone(),
            error,
        });
    }

    /// Closes the listeners that no caller waits for any more. Their ends are reported as events.
    pub(super) fn forget_listeners(&mut self) {
        let dropped = self
            .listening
            .extract_if(|_, (_, reply)| reply.is_dropped());
        for (listener, _) in dropped {
            self.swarm.remove_listener(listener);
        }
    }

    pub(super) fn on_listening(&mut self, listener: ListenerId, address: Multiaddr) {
        if let Some((_, reply)) = self.listening.remove(&listener)
            && !reply.send(Ok((listener, address.clone())))
        {
            self.swarm.remove_listener(listener);
        }
        self.events
            .send(ListenerEvent::Listening { listener, address });
    }

    /// Logs an error after which the listener tries again, such as too many open files. Errors that
    /// are not of the operating system are caused by a remote host: an invalid QUIC packet is one.
    pub(super) fn on_listener_error(&mut self, error: &io::Error) {
        let now = Instant::now();
        let warned = self.accept_warned;
        let is_recent = warned.is_some_and(|warned| now < warned + ACCEPT_WARNING_INTERVAL);
        if is_recent || os_error(error).raw_os_error().is_none() {
            tracing::debug!(%error, "cannot accept connections, trying again");
            return;
        }
        self.accept_warned = Some(now);
        tracing::warn!(%error, "cannot accept connections, trying again");
    }

    pub(super) fn on_listener_closed(
        &mut self,
        listener: ListenerId,
        addresses: Vec<Multiaddr>,
        error: Option<io::Error>,
    ) {
        self.listeners.remove(&listener);
        let error = error.map(|error| os_error(&error));
        let waiting = self.listening.remove(&listener);
        let source = error.as_ref().map(os_error);
        if let Some((address, source)) = self.wanted.closed(listener).zip(source) {
            let error = ListenError::Io {
                address: address.clone(),
                source,
            };
            match waiting {
                Some((_, reply)) if wildcard(&address).is_none() => {
                    let _ = reply.send(Err(error));
                }
                waiting => {
                    self.unavailable(&address, error);
                    if let Some((address, reply)) = waiting {
                        let _ = reply.send(Ok((listener, address)));
                    }
                }
            }
        } else if let Some((address, reply)) = waiting {
            let closed = || io::Error::new(io::ErrorKind::NotConnected, "the listener closed");
            let source = error.as_ref().map_or_else(closed, os_error);
            let _ = reply.send(Err(ListenError::Io { address, source }));
        }
        self.events.send(ListenerEvent::NotListening {
            listener,
            addresses,
            error,
        });
    }
}

/// Whether an address may become available later: its family or its interface is missing now. An
/// address in use, or a port that the user may not bind, needs a change by the operator.
fn may_come_later(error: &ListenError) -> bool {
    /// `EPROTONOSUPPORT`, `EPFNOSUPPORT` and `EAFNOSUPPORT` on Linux, then `EAFNOSUPPORT` on macOS
    /// and Windows. Their `ErrorKind` is not stable.
    const FAMILY_NOT_SUPPORTED: [i32; 5] = [93, 96, 97, 47, 10047];
    let ListenError::Io { source, .. } = error else {
        return false;
    };
    let family = |code| FAMILY_NOT_SUPPORTED.contains(&code);
    source.raw_os_error().is_some_and(family) || source.kind() == io::ErrorKind::AddrNotAvailable
}

/// Addresses of this host of the family of `ip`: loopback, and the one that the default route
/// leaves from. Connecting a UDP socket sends nothing.
fn host_addresses(ip: IpAddr) -> Vec<IpAddr> {
    /// Documentation addresses (RFC 5737, RFC 3849), which are behind the default route.
    const FAR_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const FAR_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
    let (loopback, far) = match ip {
        IpAddr::V4(_) => (Ipv4Addr::LOCALHOST.into(), FAR_V4),
        IpAddr::V6(_) => (Ipv6Addr::LOCALHOST.into(), FAR_V6),
    };
    let routed = UdpSocket::bind((ip, 0)).and_then(|socket| {
        socket.connect((far, 9))?;
        socket.local_addr()
    });
    let routed = routed.map(|address| address.ip()).ok();
    [Some(loopback), routed].into_iter().flatten().collect()
}
