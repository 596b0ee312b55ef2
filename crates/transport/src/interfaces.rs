//! The addresses at which a listening socket can be reached.

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    task::{Context, Poll},
    time::Duration,
};

use futures::FutureExt;
use futures_timer::Delay;
use if_watch::{IfEvent, IpNet, tokio::IfWatcher};

/// Interval between two lookups of the local address if the system does not
/// report changes, 10 s.
const ROUTE_INTERVAL: Duration = Duration::from_secs(10);

/// A change of the addresses of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The listener can be reached at an address.
    Up(IpAddr),
    /// The listener can no longer be reached at an address.
    Down(IpAddr),
}

/// The addresses of one listener and the source of their changes.
pub(crate) struct Interfaces {
    source: Source,
    /// Address to which the socket is bound. Interface addresses of the other
    /// IP version are ignored.
    bound: IpAddr,
    /// The addresses, each with the networks that it was reported with. If the prefix length of an
    /// address changes, the system reports the new network first and then the end of the old one.
    current: HashMap<IpAddr, HashSet<IpNet>>,
    changes: VecDeque<Change>,
}

#[expect(
    clippy::large_enum_variant,
    reason = "there is one per listener, usually of the large variant"
)]
enum Source {
    /// Bound to one address, which never changes.
    One,
    /// Bound to all addresses; the system reports changes.
    Watched(IfWatcher),
    /// Bound to all addresses, and the system refuses to report changes. A
    /// hardened service may not open netlink sockets, but can determine the
    /// source address of the default route.
    Routed(Delay),
}

impl Interfaces {
    /// Creates the address set of a socket that is bound to `bound`. If
    /// interfaces cannot be watched, it logs a warning and uses loopback and
    /// the address of the default route.
    pub(crate) fn of(bound: SocketAddr) -> Self {
        let ip = bound.ip();
        let mut interfaces = Self {
            source: Source::One,
            bound: ip,
            current: HashMap::new(),
            changes: VecDeque::new(),
        };
        if !ip.is_unspecified() {
            interfaces.up(ip.into());
            return interfaces;
        }
        match IfWatcher::new() {
            Ok(watcher) => interfaces.source = Source::Watched(watcher),
            Err(error) => interfaces.fall_back(&error),
        }
        interfaces
    }

    /// Polls for the next change.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Change> {
        loop {
            if let Some(change) = self.changes.pop_front() {
                return Poll::Ready(change);
            }
            match &mut self.source {
                Source::One => return Poll::Pending,
                Source::Watched(watcher) => match watcher.poll_if_event(cx) {
                    Poll::Ready(Ok(IfEvent::Up(net))) => self.up(net),
                    Poll::Ready(Ok(IfEvent::Down(net))) => self.down(net),
                    Poll::Ready(Err(error)) => self.fall_back(&error),
                    Poll::Pending => return Poll::Pending,
                },
                Source::Routed(delay) => match delay.poll_unpin(cx) {
                    Poll::Ready(()) => {
                        self.source = Source::Routed(Delay::new(ROUTE_INTERVAL));
                        self.refresh();
                    }
                    Poll::Pending => return Poll::Pending,
                },
            }
        }
    }

    fn fall_back(&mut self, error: &std::io::Error) {
        tracing::warn!(
            %error,
            "cannot watch the network interfaces; listening on loopback and the default route"
        );
        self.source = Source::Routed(Delay::new(ROUTE_INTERVAL));
        self.refresh();
    }

    fn refresh(&mut self) {
        let loopback = match self.bound {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        };
        let found: HashSet<_> = [Some(loopback), source_of_route(self.bound)]
            .into_iter()
            .flatten()
            .collect();
        let lost = self.current.extract_if(|ip, _| !found.contains(ip));
        self.changes.extend(lost.map(|(ip, _)| Change::Down(ip)));
        found.into_iter().for_each(|ip| self.up(ip.into()));
    }

    fn up(&mut self, net: IpNet) {
        let ip = net.addr();
        if ip.is_ipv4() != self.bound.is_ipv4() {
            return;
        }
        let networks = self.current.entry(ip).or_default();
        if networks.is_empty() {
            self.changes.push_back(Change::Up(ip));
        }
        networks.insert(net);
    }

    fn down(&mut self, net: IpNet) {
        let ip = net.addr();
        let Some(networks) = self.current.get_mut(&ip) else {
            return;
        };
        networks.remove(&net);
        if networks.is_empty() {
            self.current.remove(&ip);
            self.changes.push_back(Change::Down(ip));
        }
    }
}

/// Returns the local address of the default route, if there is one. No packet
/// is sent: `connect` on a UDP socket only selects a route.
fn source_of_route(unspecified: IpAddr) -> Option<IpAddr> {
    let (own, remote): (SocketAddr, SocketAddr) = match unspecified {
        IpAddr::V4(_) => (
            (Ipv4Addr::UNSPECIFIED, 0).into(),
            (Ipv4Addr::new(8, 8, 8, 8), 53).into(),
        ),
        IpAddr::V6(_) => (
            (Ipv6Addr::UNSPECIFIED, 0).into(),
            (
                Ipv6Addr::new(0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8888),
                53,
            )
                .into(),
        ),
    };
    let socket = UdpSocket::bind(own).ok()?;
    socket.connect(remote).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified()).then_some(ip)
}
