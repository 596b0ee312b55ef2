//! The connected peers and the paths of their connections.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use calimero_network_primitives::{PeerId, resources::Origin};

use super::{peers::PeerTable, schedule::Schedule};

/// Time for which a relayed connection is kept after the first direct one was established, 10 s:
/// its streams may end, and new ones use the direct connection. A relay that follows circuit v2
/// ends it after 2 minutes anyway.
pub(super) const RELAYED_GRACE: Duration = Duration::from_secs(10);

/// The path that a connection takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Without a relay between this node and the peer.
    Direct,
    /// Through a relay that carries the bytes.
    Relayed,
}

/// How the first connection with a peer was established.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Arrival {
    /// Whether this node dialled.
    pub(super) dialled: bool,
    /// IP address of the remote host, as far as it is known.
    pub(super) remote_ip: Option<IpAddr>,
}

impl Arrival {
    /// Returns the origin from which the peer dialled, which one host may hold. `None` if this node
    /// dialled, and for local origins, which many nodes may share.
    pub(super) fn inbound_origin(self) -> Option<Origin> {
        let ip = self.remote_ip.filter(|_| !self.dialled)?;
        Some(Origin::of_ip(ip)).filter(|origin| !origin.is_local())
    }
}

#[derive(Clone, Copy, Debug)]
struct Count {
    direct: u32,
    relayed: u32,
    /// Time at which the first of them was established.
    since: Instant,
    arrival: Arrival,
}

/// Connections by path: direct and relayed ones.
type Closing = [u32; 2];

/// The established connections of each peer.
#[derive(Clone, Debug, Default)]
pub(super) struct Connections {
    peers: PeerTable<Count>,
    /// Peers that have relayed and direct connections, until the relayed ones are closed.
    superseded: Schedule<PeerId>,
    /// Connections of blocked peers whose close was not reported yet. The peer may be unblocked and
    /// connected again by then.
    closing: HashMap<PeerId, Closing>,
}

impl Connections {
    /// A connection was established. Returns whether it is the first one with the peer.
    pub(super) fn opened(
        &mut self,
        peer: PeerId,
        path: Path,
        arrival: Arrival,
        now: Instant,
    ) -> bool {
        let none = || Count {
            direct: 0,
            relayed: 0,
            since: now,
            arrival,
        };
        let number = self.peers.number_or_insert(peer, none);
        let Some(count) = self.peers.get_mut(number) else {
            return false;
        };
        let first = count.direct + count.relayed == 0;
        match path {
            Path::Direct => count.direct = count.direct.saturating_add(1),
            Path::Relayed => count.relayed = count.relayed.saturating_add(1),
        }
        if count.direct > 0 && count.relayed > 0 && !self.superseded.contains(&peer) {
            self.superseded.set(peer, now + RELAYED_GRACE);
        }
        first
    }

    /// A connection of a blocked peer was established, and is closed.
    pub(super) fn refused(&mut self, peer: PeerId, path: Path) {
        let closing = self.closing.entry(peer).or_default();
        closing[path as usize] = closing[path as usize].saturating_add(1);
    }

    /// A connection was closed. Returns the time since when the peer was connected, if it was the
    /// last, and how the first one was established.
    pub(super) fn closed(&mut self, peer: PeerId, path: Path) -> Option<(Instant, Arrival)> {
        if self.was_closing(&peer, path) {
            return None;
        }
        let number = self.peers.number(&peer)?;
        let count = self.peers.get_mut(number)?;
        match path {
            Path::Direct => count.direct = count.direct.saturating_sub(1),
            Path::Relayed => count.relayed = count.relayed.saturating_sub(1),
        }
        if count.direct == 0 || count.relayed == 0 {
            self.superseded.cancel(&peer);
        }
        if count.direct + count.relayed > 0 {
            return None;
        }
        let (_, count) = self.peers.remove(number)?;
        Some((count.since, count.arrival))
    }

    /// Counts off a connection that was established while its peer was blocked, or before. Returns
    /// whether there was one.
    fn was_closing(&mut self, peer: &PeerId, path: Path) -> bool {
        let Some(closing) = self.closing.get_mut(peer) else {
            return false;
        };
        let Some(left) = closing[path as usize].checked_sub(1) else {
            return false;
        };
        closing[path as usize] = left;
        if *closing == Closing::default() {
            self.closing.remove(peer);
        }
        true
    }

    /// Removes `peer`, whose connections are closed from now on. Returns whether it was connected.
    pub(super) fn remove(&mut self, peer: &PeerId) -> bool {
        self.superseded.cancel(peer);
        let number = self.peers.number(peer);
        let Some((peer, count)) = number.and_then(|number| self.peers.remove(number)) else {
            return false;
        };
        let closing = self.closing.entry(peer).or_default();
        for (path, open) in [(Path::Direct, count.direct), (Path::Relayed, count.relayed)] {
            closing[path as usize] = closing[path as usize].saturating_add(open);
        }
        true
    }

    /// A peer whose relayed connections have served their time.
    pub(super) fn pop_superseded(&mut self, now: Instant) -> Option<PeerId> {
        self.superseded.pop_due(now)
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.superseded.next()
    }

    pub(super) fn is_connected(&self, peer: &PeerId) -> bool {
        self.peers.number(peer).is_some()
    }

    /// Returns how the first connection with `peer` was established; `None` if it is not connected.
    pub(super) fn arrival(&self, peer: &PeerId) -> Option<Arrival> {
        let number = self.peers.number(peer)?;
        self.peers.get(number).map(|count| count.arrival)
    }

    /// Returns whether a peer at the public address `ip` is connected.
    pub(super) fn has_ip(&self, ip: IpAddr) -> bool {
        let is_it = |of: IpAddr| of.to_canonical() == ip.to_canonical();
        let mut all = self.peers.iter();
        !Origin::of_ip(ip).is_local()
            && all.any(|(_, count)| count.arrival.remote_ip.is_some_and(is_it))
    }

    /// Relayed connections with `peer`.
    pub(super) fn relayed(&self, peer: &PeerId) -> u32 {
        let number = self.peers.number(peer);
        let count = number.and_then(|number| self.peers.get(number));
        count.map_or(0, |count| count.relayed)
    }

    /// The best way to `peer` there is.
    pub(super) fn path(&self, peer: &PeerId) -> Option<Path> {
        let number = self.peers.number(peer)?;
        let direct = self.peers.get(number)?.direct > 0;
        Some(if direct { Path::Direct } else { Path::Relayed })
    }

    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }
}
