//! The addresses that this node listens on, and the dials that wait for them.
//!
//! A dial that is made before this node listens leaves from a port of its own, on which nothing
//! comes in: its peer then observes an address that is of no use to other peers. From the moment a
//! listener is opened, dials leave from its port, although its addresses are reported later.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use calimero_network_primitives::{
    Multiaddr,
    addr::{AddressTransport, IpScope, is_global, is_relayed, scope_of, transport_of},
    multiaddr::Protocol,
};

use super::effect::Effect;

/// Longest wait for a first address to listen on, 1 s: interfaces are read within milliseconds, and
/// a node that does not listen loses nothing else by it.
const MAX_WAIT: Duration = Duration::from_secs(1);
/// Wait after the latest address that was reported, 200 ms, where none of them fits. The addresses
/// of all interfaces are reported in a row, loopback first; 90 ms between two were measured on a
/// busy machine.
const WAIT_FOR_REST: Duration = Duration::from_millis(200);

/// The addresses that this node listens on, as far as they decide the port that a dial leaves from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Listening {
    /// Each with the time at which its listener was opened.
    addresses: HashMap<Multiaddr, Instant>,
}

impl Listening {
    pub(super) fn insert(&mut self, address: Multiaddr, opened: Instant) {
        self.addresses.entry(address).or_insert(opened);
    }

    pub(super) fn remove(&mut self, address: &Multiaddr) {
        self.addresses.remove(address);
    }

    /// Returns whether this node listens on an address of the same IP version as `address` that
    /// reaches at least as far.
    pub(super) fn reaches_as_far_as(&self, address: &Multiaddr) -> bool {
        let version = host_of(address).is_ip4;
        let mut own = self.addresses.keys().filter(|own| leaves_host(own));
        own.any(|own| host_of(own).is_ip4 == version && (is_global(own) || !is_global(address)))
    }

    /// Returns whether a peer that observed this node at `observed` may have seen one of these
    /// addresses, through a NAT or not.
    #[cfg_attr(
        not(feature = "libp2p"),
        allow(dead_code, reason = "asked by the behaviour alone")
    )]
    pub(crate) fn matches(&self, observed: &Multiaddr) -> bool {
        !is_relayed(observed) && self.addresses.keys().any(|own| are_alike(own, observed))
    }

    /// Returns whether a dial of `to` that began at `at` left from a listening port.
    pub(crate) fn serves(&self, to: &Multiaddr, at: Instant) -> bool {
        let mut addresses = self.addresses.iter();
        addresses.any(|(own, opened)| *opened <= at && are_alike(own, to))
    }
}

/// Returns whether connections from `address` can leave this host and its link.
pub(super) fn leaves_host(address: &Multiaddr) -> bool {
    let scope = scope_of(address);
    !matches!(
        scope,
        Some(IpScope::Unspecified | IpScope::Loopback | IpScope::LinkLocal)
    )
}

/// Returns whether a node that listens on `own` dials `other` from there: both have one transport,
/// one IP version where it is known, and both are loopback or neither is.
fn are_alike(own: &Multiaddr, other: &Multiaddr) -> bool {
    let (own_host, other_host) = (host_of(own), host_of(other));
    let same_version = match (own_host.is_ip4, other_host.is_ip4) {
        (Some(a), Some(b)) => a == b,
        _ => true,
    };
    let same_scope = own_host.is_loopback == other_host.is_loopback;
    let same_transport = transport_of(own) == transport_of(other);
    same_transport && !uses_new_port(other) && same_version && same_scope
}

/// Returns whether a dial of `address` never uses a listening port, as those of WebSocket.
fn uses_new_port(address: &Multiaddr) -> bool {
    transport_of(address) == Some(AddressTransport::WebSocket)
}

struct Host {
    /// `None` for a name that may resolve to either version, and for an address without IP.
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

/// Dials that wait until this node listens. Without
/// [`Input::ListenersPending`](super::Input::ListenersPending) no dial is held.
#[derive(Clone, Debug, Default)]
pub(super) struct HeldDials {
    /// Latest end of the wait; `None` while nothing is waited for.
    until: Option<Instant>,
    /// End of the wait unless another address is reported before.
    quiet: Option<Instant>,
    /// Effects that dial, in their order.
    dials: Vec<Effect>,
}

impl HeldDials {
    /// Holds dials from now on, those in `out` included.
    pub(super) fn start(&mut self, now: Instant, out: &mut VecDeque<Effect>) {
        self.until = Some(now + MAX_WAIT);
        let effects = std::mem::take(out);
        let is_dial = |effect: &Effect| matches!(effect, Effect::Dial { .. });
        let (dials, others) = effects.into_iter().partition(is_dial);
        self.dials.extend::<Vec<_>>(dials);
        out.extend::<Vec<_>>(others);
    }

    /// Holds `dial`, or passes it on where nothing is waited for.
    pub(super) fn hold(&mut self, dial: Effect, out: &mut VecDeque<Effect>) {
        match self.until {
            Some(_) => self.dials.push(dial),
            None => out.push_back(dial),
        }
    }

    /// This node listens on another address.
    pub(super) fn on_listening(&mut self, now: Instant) {
        self.quiet = Some(now + WAIT_FOR_REST);
    }

    /// When [`release`](Self::release) has something to do.
    pub(super) fn next(&self) -> Option<Instant> {
        let until = self.until?;
        Some(self.quiet.map_or(until, |quiet| quiet.min(until)))
    }

    /// Passes on the dials that have waited long enough, and those whose every address is dialled
    /// from a listening port by now.
    pub(super) fn release(
        &mut self,
        listening: &Listening,
        now: Instant,
        out: &mut VecDeque<Effect>,
    ) {
        let Some(next) = self.next() else {
            return;
        };
        if next <= now {
            self.until = None;
            out.extend(self.dials.drain(..));
            return;
        }
        let ready = |dial: &mut Effect| match dial {
            Effect::Dial { addresses, .. } => addresses
                .iter()
                .all(|to| is_relayed(to) || uses_new_port(to) || listening.serves(to, now)),
            _ => true,
        };
        out.extend(self.dials.extract_if(.., ready));
    }
}

#[cfg(test)]
mod tests {
    use calimero_network_primitives::{
        PeerId,
        addr::{DialAddr, DialPolicy},
    };

    use super::*;
    use crate::machine::DialReason;

    #[expect(clippy::disallowed_methods, reason = "a test has to start somewhere")]
    fn now() -> Instant {
        Instant::now()
    }

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_observed_address_counts_where_we_listen_in_the_same_way() {
        let mut listening = Listening::default();
        let tcp = address("/ip4/203.0.113.1/tcp/12428");
        let quic = address("/ip4/203.0.113.1/udp/12428/quic-v1");
        assert!(!listening.matches(&tcp));
        let start = now();
        let before = start - Duration::from_secs(1);
        listening.insert(address("/ip4/127.0.0.1/tcp/2428"), start);
        assert!(!listening.matches(&tcp));
        listening.insert(address("/ip4/192.168.1.2/tcp/2428"), start);
        assert!(listening.serves(&tcp, start));
        assert!(!listening.serves(&tcp, before));
        assert!(listening.serves(&address("/dns4/example.org/tcp/2428"), start));
        assert!(!listening.serves(&address("/dns6/example.org/tcp/2428"), start));
        assert!(listening.serves(&address("/dns/example.org/tcp/2428"), start));
        assert!(listening.matches(&tcp));
        assert!(!listening.matches(&quic));
        assert!(!listening.matches(&address("/ip6/2001:db8::1/tcp/2428")));
        listening.insert(address("/ip4/192.168.1.2/udp/2428/quic-v1"), start);
        assert!(listening.matches(&quic));
        listening.remove(&address("/ip4/192.168.1.2/tcp/2428"));
        assert!(!listening.matches(&tcp));
        let relay = PeerId::random();
        let circuit = quic.with(Protocol::P2p(relay)).with(Protocol::P2pCircuit);
        assert!(!listening.matches(&circuit));
    }

    fn dial(peer: PeerId, addresses: &[Multiaddr]) -> Effect {
        let dialable = |address| DialAddr::of_peer(&peer, address, DialPolicy::Local).unwrap();
        Effect::Dial {
            peer,
            addresses: addresses.iter().map(dialable).collect(),
            reason: DialReason::Boot,
        }
    }

    fn released(held: &mut HeldDials, listening: &Listening, now: Instant) -> Vec<Effect> {
        let mut out = VecDeque::new();
        held.release(listening, now, &mut out);
        out.into()
    }

    #[test]
    fn dials_wait_until_they_leave_from_a_listening_port() {
        let start = now();
        let at = |millis| start + Duration::from_millis(millis);
        let [first, second] = [0; 2].map(|_| PeerId::random());
        let v4 = vec![address("/ip4/203.0.113.1/tcp/1")];
        let both = vec![v4[0].clone(), address("/ip6/2001:db8::1/tcp/1")];
        let (first, second) = (dial(first, &v4), dial(second, &both));
        let (mut held, mut listening) = (HeldDials::default(), Listening::default());
        let mut out = VecDeque::from([Effect::SaveCache, first.clone()]);
        held.start(start, &mut out);
        assert_eq!(Vec::from(out), [Effect::SaveCache]);
        let mut out = VecDeque::new();
        held.hold(second.clone(), &mut out);
        assert_eq!((out.len(), held.next()), (0, Some(at(1000))));
        listening.insert(address("/ip4/127.0.0.1/tcp/2428"), at(10));
        held.on_listening(at(10));
        assert_eq!(held.next(), Some(at(210)));
        assert!(released(&mut held, &listening, at(20)).is_empty());
        listening.insert(address("/ip4/192.168.1.2/tcp/2428"), at(100));
        held.on_listening(at(100));
        assert_eq!(
            released(&mut held, &listening, at(100)),
            std::slice::from_ref(&first)
        );
        // There is no address of the other version.
        assert!(released(&mut held, &listening, at(299)).is_empty());
        assert_eq!(released(&mut held, &listening, at(300)), [second]);
        assert_eq!(held.next(), None);
        held.hold(first.clone(), &mut out);
        assert_eq!(Vec::from(out), [first]);
        held.on_listening(at(400));
        assert_eq!(held.next(), None);
    }

    #[test]
    fn addresses_that_are_reported_one_by_one_hold_dials_for_a_second_at_most() {
        let start = now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut held = HeldDials::default();
        held.start(start, &mut VecDeque::new());
        for millis in (0..1000).step_by(100) {
            held.on_listening(at(millis));
        }
        assert_eq!(held.next(), Some(at(1000)));
    }
}
