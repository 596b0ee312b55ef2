//! Where others see us.
//!
//! A peer that we dialled from the port we listen on sees the very address under which a NAT lets
//! others in, port and all. libp2p-identify 0.48 puts the port we listen on in its place wherever
//! the two differ, which is wrong behind every NAT that maps ports to others: such candidates are
//! probed in vain, and holes are punched where nobody is.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use calimero_network_primitives::{
    Multiaddr, PeerId,
    addr::{is_relayed, transport_of},
    multiaddr::Protocol,
};
use libp2p_core::{ConnectedPoint, transport::PortUse};

/// How long dials wait for a first address to listen on, 1 s: interfaces are read within
/// milliseconds, and a node that listens nowhere does not dial worse for it.
const MAX_WAIT: Duration = Duration::from_secs(1);
/// How long they wait after the last address told, 200 ms, where none of them fits. Those of all
/// interfaces are told in a row, loopback before those that matter; a busy machine has let 90 ms
/// pass between two.
const WAIT_FOR_REST: Duration = Duration::from_millis(200);

/// The addresses we listen on, as far as they decide from which port we dial.
#[derive(Debug, Default)]
pub(super) struct Listening {
    /// With the time since when.
    addresses: HashMap<Multiaddr, Instant>,
}

impl Listening {
    pub(super) fn begins(&mut self, address: &Multiaddr, now: Instant) {
        self.addresses.entry(address.clone()).or_insert(now);
    }

    pub(super) fn ends(&mut self, address: &Multiaddr) {
        self.addresses.remove(address);
    }

    /// Whether an address of ours can be the one under which we were seen at `observed`.
    pub(super) fn is_like(&self, observed: &Multiaddr) -> bool {
        !is_relayed(observed) && self.addresses.keys().any(|own| alike(own, observed))
    }

    /// Whether a dial of `to` that began at `at` has left from a port we listen on.
    pub(super) fn served(&self, to: &Multiaddr, at: Instant) -> bool {
        let mut addresses = self.addresses.iter();
        addresses.any(|(own, since)| *since <= at && alike(own, to))
    }
}

/// Whether whoever listens on `own` dials `other` from there: both are of one transport, one IP
/// version where it is known, and on or off this host.
fn alike(own: &Multiaddr, other: &Multiaddr) -> bool {
    let (own_host, other_host) = (host_of(own), host_of(other));
    let same_version = match (own_host.is_ip4, other_host.is_ip4) {
        (Some(a), Some(b)) => a == b,
        _ => true,
    };
    let same_place = own_host.is_loopback == other_host.is_loopback;
    transport_of(own) == transport_of(other) && same_version && same_place
}

struct Host {
    /// `None` for a name that stands for either, and where there is no IP.
    is_ip4: Option<bool>,
    is_loopback: bool,
}

fn host_of(address: &Multiaddr) -> Host {
    let (is_ip4, is_loopback) = match address.iter().next() {
        Some(Protocol::Ip4(ip)) => (Some(true), ip.is_loopback()),
        Some(Protocol::Ip6(ip)) => (Some(false), ip.is_loopback()),
        Some(Protocol::Dns4(_)) => (Some(true), false),
        Some(Protocol::Dns6(_)) => (Some(false), false),
        _ => (None, false),
    };
    Host {
        is_ip4,
        is_loopback,
    }
}

/// Whether the transport was asked to dial from a port that we listen on, if there was one. What
/// was dialled to us tells nothing: whoever dials may have an idea of its own of where we are.
pub(super) fn asks_for_own_port(endpoint: &ConnectedPoint) -> bool {
    let reuses = matches!(
        endpoint,
        ConnectedPoint::Dialer {
            port_use: PortUse::Reuse,
            ..
        }
    );
    reuses && !endpoint.is_relayed()
}

/// Dials that wait until we listen: one that is made before leaves from a port of its own, where
/// nobody comes in, and its peer sees us at an address that is of no use.
#[derive(Debug)]
pub(super) struct HeldDials {
    /// Until when at most; `None` once they are let go.
    until: Option<Instant>,
    /// Until when unless another address is told.
    quiet: Option<Instant>,
    dials: Vec<(PeerId, Vec<Multiaddr>)>,
}

impl HeldDials {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            until: Some(now + MAX_WAIT),
            quiet: None,
            dials: Vec::new(),
        }
    }

    /// Holds a dial, or gives it back if there is nothing to wait for.
    pub(super) fn hold(
        &mut self,
        peer: PeerId,
        addresses: Vec<Multiaddr>,
    ) -> Option<(PeerId, Vec<Multiaddr>)> {
        if self.until.is_none() {
            return Some((peer, addresses));
        }
        self.dials.push((peer, addresses));
        None
    }

    /// Another address is listened on.
    pub(super) fn listening(&mut self, now: Instant) {
        self.quiet = Some(now + WAIT_FOR_REST);
    }

    /// When [`release`](Self::release) has something to do.
    pub(super) fn next(&self) -> Option<Instant> {
        let until = self.until?;
        Some(self.quiet.map_or(until, |quiet| quiet.min(until)))
    }

    /// The dials that have waited long enough, or can all leave from where we listen by now.
    pub(super) fn release(
        &mut self,
        listening: &Listening,
        now: Instant,
    ) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let Some(next) = self.next() else {
            return Vec::new();
        };
        if next <= now {
            self.until = None;
            return std::mem::take(&mut self.dials);
        }
        let ready = |(_, addresses): &mut (PeerId, Vec<Multiaddr>)| {
            let mut addresses = addresses.iter();
            addresses.all(|to| is_relayed(to) || listening.served(to, now))
        };
        self.dials.extract_if(.., ready).collect()
    }
}

#[cfg(test)]
mod tests {
    use libp2p_core::Endpoint;

    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_observed_address_counts_where_we_listen_in_the_same_way() {
        let mut listening = Listening::default();
        let tcp = address("/ip4/203.0.113.1/tcp/12428");
        let quic = address("/ip4/203.0.113.1/udp/12428/quic-v1");
        assert!(!listening.is_like(&tcp));
        let start = crate::behaviour::now();
        let before = start - Duration::from_secs(1);
        listening.begins(&address("/ip4/127.0.0.1/tcp/2428"), start);
        assert!(!listening.is_like(&tcp));
        listening.begins(&address("/ip4/192.168.1.2/tcp/2428"), start);
        assert!(listening.served(&tcp, start));
        assert!(!listening.served(&tcp, before));
        assert!(listening.served(&address("/dns4/example.org/tcp/2428"), start));
        assert!(!listening.served(&address("/dns6/example.org/tcp/2428"), start));
        assert!(listening.served(&address("/dns/example.org/tcp/2428"), start));
        assert!(listening.is_like(&tcp));
        assert!(!listening.is_like(&quic));
        assert!(!listening.is_like(&address("/ip6/2001:db8::1/tcp/2428")));
        listening.begins(&address("/ip4/192.168.1.2/udp/2428/quic-v1"), start);
        assert!(listening.is_like(&quic));
        listening.ends(&address("/ip4/192.168.1.2/tcp/2428"));
        assert!(!listening.is_like(&tcp));
        let relay = PeerId::random();
        let circuit = quic.with(Protocol::P2p(relay)).with(Protocol::P2pCircuit);
        assert!(!listening.is_like(&circuit));
    }

    #[test]
    fn only_our_own_dials_from_our_own_port_tell_where_we_are() {
        let dial = |address: &str, port_use| ConnectedPoint::Dialer {
            address: address.parse().unwrap(),
            role_override: Endpoint::Dialer,
            port_use,
        };
        let direct = "/ip4/203.0.113.1/tcp/2428";
        let relayed = format!("{direct}/p2p/{}/p2p-circuit", PeerId::random());
        assert!(asks_for_own_port(&dial(direct, PortUse::Reuse)));
        assert!(!asks_for_own_port(&dial(direct, PortUse::New)));
        assert!(!asks_for_own_port(&dial(&relayed, PortUse::Reuse)));
        assert!(!asks_for_own_port(&ConnectedPoint::Listener {
            local_addr: address(direct),
            send_back_addr: address(direct),
        }));
    }

    #[test]
    fn dials_wait_until_they_leave_from_where_we_listen() {
        let start = crate::behaviour::now();
        let at = |millis| start + Duration::from_millis(millis);
        let [first, second] = [0; 2].map(|_| PeerId::random());
        let v4 = vec![address("/ip4/203.0.113.1/tcp/1")];
        let both = vec![v4[0].clone(), address("/ip6/2001:db8::1/tcp/1")];
        let (mut held, mut listening) = (HeldDials::new(start), Listening::default());
        assert_eq!(held.hold(first, v4.clone()), None);
        assert_eq!(held.hold(second, both.clone()), None);
        assert_eq!(held.next(), Some(at(1000)));
        listening.begins(&address("/ip4/127.0.0.1/tcp/2428"), at(10));
        held.listening(at(10));
        assert_eq!(held.next(), Some(at(210)));
        assert!(held.release(&listening, at(20)).is_empty());
        listening.begins(&address("/ip4/192.168.1.2/tcp/2428"), at(100));
        held.listening(at(100));
        assert_eq!(held.release(&listening, at(100)), [(first, v4.clone())]);
        // There is no address of the other version.
        assert!(held.release(&listening, at(299)).is_empty());
        assert_eq!(held.release(&listening, at(300)), [(second, both)]);
        assert_eq!(held.next(), None);
        assert_eq!(held.hold(first, v4.clone()), Some((first, v4)));
        held.listening(at(400));
        assert_eq!(held.next(), None);
    }

    #[test]
    fn addresses_that_are_told_one_by_one_hold_dials_for_a_second_at_most() {
        let start = crate::behaviour::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut held = HeldDials::new(start);
        for millis in (0..1000).step_by(100) {
            held.listening(at(millis));
        }
        assert_eq!(held.next(), Some(at(1000)));
    }
}
