//! The limits of dial-backs for a peer, an IP prefix and all peers.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use calimero_network_primitives::{Multiaddr, PeerId};

use super::rules::ip_of;

/// Time over which dial-backs are counted, 1 min.
const WINDOW: Duration = Duration::from_secs(60);

/// Most dial-backs of one peer in a minute, 12, as go-libp2p's server allows. A node has a few
/// addresses, each of which it has probed some times at its start.
const MAX_PER_PEER: u32 = 12;

/// Most dial-backs of one IP prefix in a minute, 60: five nodes behind one router that start
/// together.
const MAX_PER_PREFIX: u32 = 60;

/// Most dial-backs in a minute, 240: four a second, each a handshake of some milliseconds.
const MAX_IN_ALL: u32 = 240;

/// The part of an IP address that one party holds: an IPv4 address or an IPv6 /64. Peers without
/// an IP address share one prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Prefix {
    V4(u32),
    V6(u64),
    None,
}

impl Prefix {
    pub(super) fn of(address: &Multiaddr) -> Self {
        match ip_of(address) {
            Some(IpAddr::V4(ip)) => Self::V4(ip.to_bits()),
            Some(IpAddr::V6(ip)) => Self::V6((ip.to_bits() >> 64) as u64),
            None => Self::None,
        }
    }
}

/// Counts dial-backs in windows of a minute. The tables have at most [`MAX_IN_ALL`] entries, since
/// only admitted requests are counted.
#[derive(Debug)]
pub(super) struct Limits {
    since: Instant,
    all: u32,
    peers: HashMap<PeerId, u32>,
    prefixes: HashMap<Prefix, u32>,
}

impl Limits {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            all: 0,
            peers: HashMap::new(),
            prefixes: HashMap::new(),
        }
    }

    /// Counts a dial-back, if `peer` may have one more.
    pub(super) fn admit(&mut self, peer: PeerId, prefix: Prefix, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= WINDOW {
            *self = Self::new(now);
        }
        let of_peer = self.peers.get(&peer).copied().unwrap_or(0);
        let of_prefix = self.prefixes.get(&prefix).copied().unwrap_or(0);
        let admitted =
            self.all < MAX_IN_ALL && of_peer < MAX_PER_PEER && of_prefix < MAX_PER_PREFIX;
        if admitted {
            self.all += 1;
            self.peers.insert(peer, of_peer + 1);
            self.prefixes.insert(prefix, of_prefix + 1);
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::behaviour::now;

    fn admitted(limits: &mut Limits, peer: Option<PeerId>, prefix: Prefix, at: Instant) -> u32 {
        let ask = |_: &u32| limits.admit(peer.unwrap_or_else(PeerId::random), prefix, at);
        (0..1_000_u32).filter(ask).count().try_into().unwrap()
    }

    #[test]
    fn a_peer_a_prefix_and_all_have_their_rate() {
        let start = now();
        let prefix = |n| Prefix::V4(n);
        let mut limits = Limits::new(start);
        let peer = PeerId::random();
        assert_eq!(
            admitted(&mut limits, Some(peer), prefix(1), start),
            MAX_PER_PEER
        );
        // Another identity of the same host gets what is left of the host's share.
        let rest = admitted(&mut limits, None, prefix(1), start);
        assert_eq!(rest, MAX_PER_PREFIX - MAX_PER_PEER);
        let others: u32 = (2..100)
            .map(|n| admitted(&mut limits, None, prefix(n), start))
            .sum();
        assert_eq!(others, MAX_IN_ALL - MAX_PER_PREFIX);
        assert!(limits.peers.len() <= MAX_IN_ALL as usize);
        let later = start + WINDOW;
        assert_eq!(
            admitted(&mut limits, Some(peer), prefix(1), later),
            MAX_PER_PEER
        );
    }

    #[test]
    fn a_prefix_is_an_ipv4_address_or_a_64_of_ipv6() {
        let of = |text: &str| Prefix::of(&text.parse().unwrap());
        assert_ne!(of("/ip4/8.8.8.8/tcp/1"), of("/ip4/8.8.8.9/tcp/1"));
        assert_eq!(of("/ip4/8.8.8.8/tcp/1"), of("/ip6/::ffff:8.8.8.8/tcp/2"));
        assert_eq!(of("/ip6/2003::1/tcp/1"), of("/ip6/2003::ffff:1/tcp/1"));
        assert_ne!(of("/ip6/2003::1/tcp/1"), of("/ip6/2003:0:0:1::1/tcp/1"));
        assert_eq!(of("/memory/1"), of("/memory/2"));
    }
}
