//! Where others see us.
//!
//! A peer that we dialled from the port we listen on sees the very address under which a NAT lets
//! others in, port and all. libp2p-identify 0.48 puts the port we listen on in its place wherever
//! the two differ, which is wrong behind every NAT that maps ports to others: such candidates are
//! probed in vain, and holes are punched where nobody is.

use std::{
    collections::HashSet,
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
/// How long they wait for the addresses after the first, 50 ms: those of all interfaces are told
/// in a row, loopback before those that matter.
const WAIT_FOR_REST: Duration = Duration::from_millis(50);

/// The addresses we listen on, as far as they decide from which port we dial.
#[derive(Debug, Default)]
pub(super) struct Listening {
    addresses: HashSet<Multiaddr>,
}

impl Listening {
    pub(super) fn begins(&mut self, address: &Multiaddr) {
        self.addresses.insert(address.clone());
    }

    pub(super) fn ends(&mut self, address: &Multiaddr) {
        self.addresses.remove(address);
    }

    /// Whether a dial to whoever saw us at `observed` can have left from a port we listen on.
    pub(super) fn is_like(&self, observed: &Multiaddr) -> bool {
        !is_relayed(observed) && self.addresses.iter().any(|own| alike(own, observed))
    }
}

/// Whether both are of one transport and one IP version.
fn alike(a: &Multiaddr, b: &Multiaddr) -> bool {
    let is_ip4 = |address: &Multiaddr| match address.iter().next() {
        Some(Protocol::Ip4(_)) => Some(true),
        Some(Protocol::Ip6(_)) => Some(false),
        _ => None,
    };
    transport_of(a) == transport_of(b) && is_ip4(a) == is_ip4(b)
}

/// Whether the transport was asked to dial from a port that we listen on. What was dialled to us
/// tells nothing: whoever dials may have an idea of its own of where we are.
pub(super) fn is_dialled_with_own_port(endpoint: &ConnectedPoint) -> bool {
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
    /// Until when; `None` once they are let go.
    until: Option<Instant>,
    dials: Vec<(PeerId, Vec<Multiaddr>)>,
}

impl HeldDials {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            until: Some(now + MAX_WAIT),
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

    /// We listen somewhere.
    pub(super) fn listening(&mut self, now: Instant) {
        self.until = self.until.map(|until| until.min(now + WAIT_FOR_REST));
    }

    /// When [`release`](Self::release) has something to do.
    pub(super) fn next(&self) -> Option<Instant> {
        self.until
    }

    /// The dials that have waited long enough.
    pub(super) fn release(&mut self, now: Instant) -> Vec<(PeerId, Vec<Multiaddr>)> {
        if self.until.is_none_or(|until| until > now) {
            return Vec::new();
        }
        self.until = None;
        std::mem::take(&mut self.dials)
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
        listening.begins(&address("/ip4/192.168.1.2/tcp/2428"));
        assert!(listening.is_like(&tcp));
        assert!(!listening.is_like(&quic));
        assert!(!listening.is_like(&address("/ip6/2001:db8::1/tcp/2428")));
        listening.begins(&address("/ip4/192.168.1.2/udp/2428/quic-v1"));
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
        assert!(is_dialled_with_own_port(&dial(direct, PortUse::Reuse)));
        assert!(!is_dialled_with_own_port(&dial(direct, PortUse::New)));
        assert!(!is_dialled_with_own_port(&dial(&relayed, PortUse::Reuse)));
        assert!(!is_dialled_with_own_port(&ConnectedPoint::Listener {
            local_addr: address(direct),
            send_back_addr: address(direct),
        }));
    }

    #[test]
    fn dials_wait_for_the_first_address_and_a_little_longer() {
        let start = crate::behaviour::now();
        let at = |millis| start + Duration::from_millis(millis);
        let (peer, addresses) = (PeerId::random(), vec![address("/ip4/203.0.113.1/tcp/1")]);
        let mut held = HeldDials::new(start);
        assert_eq!(held.hold(peer, addresses.clone()), None);
        assert_eq!(held.next(), Some(at(1000)));
        held.listening(at(10));
        held.listening(at(30));
        assert_eq!(held.next(), Some(at(60)));
        assert!(held.release(at(59)).is_empty());
        assert_eq!(held.release(at(60)), [(peer, addresses.clone())]);
        assert_eq!(held.next(), None);
        let passed = Some((peer, addresses.clone()));
        assert_eq!(held.hold(peer, addresses), passed);
        held.listening(at(70));
        assert_eq!(held.next(), None);
    }
}
