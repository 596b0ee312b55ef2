//! Peers and IP addresses to which this node sent packets a short time ago.
//!
//! A NAT that filters by address lets in connections from these addresses, so such a connection
//! does not show that any peer can reach this node.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use calimero_network_primitives::{Multiaddr, PeerId, resources::Origin};

use super::schedule::Schedule;
use crate::ip::ip_of;

/// Time for which a NAT may let in connections from an address after a packet to it, 5 min: the
/// 4 min for which a NAT keeps a TCP connection that is not established (RFC 5382), and a reserve.
const OPEN_FOR: Duration = Duration::from_secs(5 * 60);

/// Contacts that are remembered, 4096. Above it every peer counts as contacted for a while.
const MAX_CONTACTS: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Contact {
    Peer(PeerId),
    Ip(IpAddr),
}

/// The contacts of the last [`OPEN_FOR`].
#[derive(Clone, Debug, Default)]
pub(super) struct Contacted {
    until: Schedule<Contact>,
    /// Time until which every peer counts as contacted, since contacts were forgotten early.
    all_until: Option<Instant>,
}

impl Contacted {
    /// This node dials `addresses` to reach `peer`.
    pub(super) fn dialled(&mut self, peer: Option<PeerId>, addresses: &[Multiaddr], now: Instant) {
        if let Some(peer) = peer {
            self.insert(Contact::Peer(peer), now);
        }
        for ip in addresses.iter().filter_map(ip_of) {
            self.insert_ip(ip, now);
        }
    }

    /// The connections with `peer` at `ip` ended. Until now packets were sent to it.
    pub(super) fn disconnected(&mut self, peer: PeerId, ip: Option<IpAddr>, now: Instant) {
        self.insert(Contact::Peer(peer), now);
        if let Some(ip) = ip {
            self.insert_ip(ip, now);
        }
    }

    /// Returns whether a NAT may let in `peer` at `ip` because of packets of this node.
    pub(super) fn contains(&self, peer: &PeerId, ip: Option<IpAddr>, now: Instant) -> bool {
        let is_open = |contact: &Contact| self.until.at(contact).is_some_and(|until| until > now);
        let ip = ip.map(|ip| ip.to_canonical());
        self.all_until.is_some_and(|until| until > now)
            || is_open(&Contact::Peer(*peer))
            || ip.is_some_and(|ip| is_open(&Contact::Ip(ip)))
    }

    /// Local addresses are not remembered: what comes from them shows nothing about a NAT, and many
    /// nodes may share one.
    fn insert_ip(&mut self, ip: IpAddr, now: Instant) {
        if !Origin::of_ip(ip).is_local() {
            self.insert(Contact::Ip(ip.to_canonical()), now);
        }
    }

    fn insert(&mut self, contact: Contact, now: Instant) {
        while self.until.pop_due(now).is_some() {}
        self.until.set(contact, now + OPEN_FOR);
        if self.until.len() > MAX_CONTACTS {
            self.all_until = self.until.next();
            self.until.pop_first();
        }
    }
}

#[cfg(test)]
mod tests;
