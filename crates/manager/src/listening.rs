//! Which configured addresses the node listens on, and when a failed one is tried again: a table
//! without IO or clock.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use calimero_network_primitives::{Multiaddr, multiaddr::Protocol};
use libp2p::swarm::derive_prelude::ListenerId;

/// Pause before the first retry: 5 s. An interface that is being configured is up by then.
const RETRY_FIRST: Duration = Duration::from_secs(5);

/// Longest pause between two tries: 60 s. A bind that fails costs some microseconds.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// The addresses of the configuration.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    addresses: Vec<WantedAddress>,
}

#[derive(Debug)]
struct WantedAddress {
    address: Multiaddr,
    /// The open listeners, each with the address that it was opened for: the configured one, or one
    /// interface address for each where interfaces cannot be watched.
    open: HashMap<ListenerId, Multiaddr>,
    retry_at: Option<Instant>,
    pause: Duration,
}

impl Wanted {
    /// Adds a configured address.
    pub(crate) fn add(&mut self, address: Multiaddr) {
        self.addresses.push(WantedAddress {
            address,
            open: HashMap::new(),
            retry_at: None,
            pause: RETRY_FIRST,
        });
    }

    /// Whether a listener for `concrete` is open on behalf of the configured `address`.
    pub(crate) fn is_open(&self, address: &Multiaddr, concrete: &Multiaddr) -> bool {
        let mut wanted = self.addresses.iter();
        wanted.any(|w| w.address == *address && w.open.values().any(|open| open == concrete))
    }

    /// A listener was opened for `concrete` on behalf of the configured `address`.
    pub(crate) fn opened(&mut self, address: &Multiaddr, id: ListenerId, concrete: Multiaddr) {
        if let Some(wanted) = self.find(address) {
            wanted.open.insert(id, concrete);
            wanted.pause = RETRY_FIRST;
        }
    }

    /// The configured `address` could not be listened on, or only in part. Returns `true` for the
    /// first failure of a row.
    pub(crate) fn failed(&mut self, address: &Multiaddr, now: Instant) -> bool {
        let Some(wanted) = self.find(address) else {
            return false;
        };
        let is_first = wanted.retry_at.is_none() && wanted.pause == RETRY_FIRST;
        wanted.retry_at = Some(now + wanted.pause);
        wanted.pause = wanted.pause.saturating_mul(2).min(RETRY_MAX);
        is_first
    }

    /// A listener closed. Returns the configured address that it belonged to.
    pub(crate) fn closed(&mut self, id: ListenerId) -> Option<Multiaddr> {
        let mut wanted = self.addresses.iter_mut();
        wanted.find_map(|wanted| wanted.open.remove(&id).map(|_| wanted.address.clone()))
    }

    /// The configured addresses to try again now.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<Multiaddr> {
        let due = self.addresses.iter_mut().filter_map(|wanted| {
            wanted.retry_at.take_if(|at| *at <= now)?;
            Some(wanted.address.clone())
        });
        due.collect()
    }

    /// When [`due`](Self::due) returns an address.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let wanted = self.addresses.iter();
        wanted.filter_map(|wanted| wanted.retry_at).min()
    }

    fn find(&mut self, address: &Multiaddr) -> Option<&mut WantedAddress> {
        let mut wanted = self.addresses.iter_mut();
        wanted.find(|wanted| wanted.address == *address)
    }
}

/// The unspecified IP address at the start of `address`, which means all interfaces.
pub(crate) fn wildcard(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next()? {
        Protocol::Ip4(ip) if ip.is_unspecified() => Some(ip.into()),
        Protocol::Ip6(ip) if ip.is_unspecified() => Some(ip.into()),
        _ => None,
    }
}

/// `address` with another IP address at its start.
pub(crate) fn with_ip(address: &Multiaddr, ip: IpAddr) -> Multiaddr {
    let rest = address.iter().skip(1);
    std::iter::once(Protocol::from(ip)).chain(rest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_failed_address_is_tried_again_until_it_is_open() {
        let mut now = Instant::now();
        let (v4, v6) = (address("/ip4/0.0.0.0/tcp/1"), address("/ip6/::/tcp/1"));
        let mut wanted = Wanted::default();
        wanted.add(v4.clone());
        wanted.add(v6.clone());
        let id = ListenerId::next();
        wanted.opened(&v4, id, v4.clone());
        assert_eq!(wanted.next_timeout(), None);
        assert!(wanted.failed(&v6, now));
        let mut pauses = Vec::new();
        for _ in 0..6 {
            let at = wanted.next_timeout().unwrap();
            pauses.push((at - now).as_secs());
            now = at;
            assert_eq!(wanted.due(now), std::slice::from_ref(&v6));
            assert!(!wanted.failed(&v6, now), "reported once");
        }
        assert_eq!(pauses, [5, 10, 20, 40, 60, 60]);
        now = wanted.next_timeout().unwrap();
        wanted.due(now);
        let second = ListenerId::next();
        wanted.opened(&v6, second, v6.clone());
        assert!(wanted.is_open(&v6, &v6) && wanted.next_timeout().is_none());
        // A listener that breaks is a new failure.
        assert_eq!(wanted.closed(second), Some(v6.clone()));
        assert_eq!(wanted.closed(second), None);
        assert!(wanted.failed(&v6, now));
    }

    #[test]
    fn wildcards_are_known_and_replaced() {
        let any = address("/ip6/::/udp/7/quic-v1");
        assert_eq!(wildcard(&any), Some("::".parse().unwrap()));
        assert_eq!(wildcard(&address("/ip4/127.0.0.1/tcp/1")), None);
        assert_eq!(wildcard(&address("/memory/0")), None);
        let one = with_ip(&any, "::1".parse().unwrap());
        assert_eq!(one, address("/ip6/::1/udp/7/quic-v1"));
    }
}
