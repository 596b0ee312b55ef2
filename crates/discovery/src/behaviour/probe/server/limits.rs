//! The limits of dial-backs for a peer, an IP prefix and all peers.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use calimero_network_primitives::{Multiaddr, PeerId};

use crate::ip::ip_of;

/// Time over which dial-backs are counted, 1 min.
const WINDOW: Duration = Duration::from_secs(60);

/// Most dial-backs of one peer in a minute, 12, as go-libp2p's server allows. A node has a few
/// addresses, each of which it has probed some times at its start.
const MAX_PER_PEER: u32 = 12;

/// Most dial-backs of one IP prefix in a minute, 60: five nodes behind one router that start
/// together.
const MAX_PER_PREFIX: u32 = 60;

/// Most dial-backs of one IPv6 /48 in a minute, 120. A home connection has up to 256 /64s, all
/// in one /48.
const MAX_PER_SITE: u32 = 120;

/// Most dial-backs in a minute, 240: four a second, each a handshake of some milliseconds.
const MAX_IN_ALL: u32 = 240;

/// First dial-backs of a prefix in a minute that are made although [`MAX_IN_ALL`] is reached, 2:
/// so that a few prefixes cannot use up the dial-backs of all others.
const FIRST: u32 = 2;

/// Most dial-backs in a minute beyond [`MAX_IN_ALL`], 240.
const MAX_FIRST: u32 = 240;

/// The part of an IP address that one party holds: an IPv4 address, an IPv6 /64, or the IPv6 /48
/// that an organisation holds, or that has several home connections. Peers without an IP address
/// share one prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Prefix {
    V4(u32),
    V6(u64),
    Site(u64),
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

    /// The widest prefix that one party may hold.
    fn site(self) -> Self {
        match self {
            Self::V6(prefix) => Self::Site(prefix >> 16),
            other => other,
        }
    }
}

/// Counts dial-backs in windows of a minute. The tables have at most two entries for each of
/// [`MAX_IN_ALL`] and [`MAX_FIRST`], since only admitted requests are counted.
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
        let of = |prefix| self.prefixes.get(&prefix).copied().unwrap_or(0);
        let site = prefix.site();
        let (of_prefix, of_site) = (of(prefix), of(site));
        let is_full = match of_site < FIRST {
            true => self.all >= MAX_IN_ALL + MAX_FIRST,
            false => self.all >= MAX_IN_ALL,
        };
        let max_of_site = match site == prefix {
            true => MAX_PER_PREFIX,
            false => MAX_PER_SITE,
        };
        if is_full
            || of_peer >= MAX_PER_PEER
            || of_prefix >= MAX_PER_PREFIX
            || of_site >= max_of_site
        {
            return false;
        }
        self.all += 1;
        self.peers.insert(peer, of_peer + 1);
        self.prefixes.insert(prefix, of_prefix + 1);
        self.prefixes.insert(site, of_site + 1);
        true
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
        let mut others = |some: std::ops::Range<u32>| -> u32 {
            some.map(|n| admitted(&mut limits, None, prefix(n), start))
                .sum()
        };
        assert_eq!(others(2..5), MAX_IN_ALL - MAX_PER_PREFIX);
        // The first requests of other prefixes are served, up to a limit.
        assert_eq!(others(5..6), FIRST);
        assert_eq!(others(6..1_000), MAX_FIRST - FIRST);
        let most = (MAX_IN_ALL + MAX_FIRST) as usize;
        assert!(limits.peers.len() <= most && limits.prefixes.len() <= 2 * most);
        let later = start + WINDOW;
        assert_eq!(
            admitted(&mut limits, Some(peer), prefix(1), later),
            MAX_PER_PEER
        );
    }

    #[test]
    fn the_prefixes_of_one_48_share_a_rate() {
        let start = now();
        let mut limits = Limits::new(start);
        let site = (0..256).map(|n| Prefix::V6(0x2003_00d0_0001_0000 + n));
        let of_site: u32 = site
            .map(|prefix| admitted(&mut limits, None, prefix, start))
            .sum();
        assert_eq!(of_site, MAX_PER_SITE);
        let other = Prefix::V6(0x2003_00d0_0002_0000);
        assert_eq!(admitted(&mut limits, None, other, start), MAX_PER_PREFIX);
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
