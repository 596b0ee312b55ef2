//! Which of several connections with one peer is used, and which is a spare that may close. Pure:
//! the time is an argument.
//!
//! # The best connection
//!
//! A connection on which the last ping was answered is better than one on which it was not, then a
//! direct one is better than a relayed one, then one that is not [slow] is better than a slow one.
//! This is the order in which `calimero-network-stream` chooses a connection for a new stream.
//! [`Decision::Prefer`] names one of the best connections for a use that takes one, such as gossip,
//! whenever the connection that was named before is not among them.
//!
//! # Spares
//!
//! A connection that has been slow for [`WORSE_FOR`], next to one of the same kind that is not, is
//! a spare ([`Decision::Spare`]): nothing of this node keeps it alive any more, so that it closes
//! once neither side uses it. It is never cut under a stream.
//!
//! Two nodes may measure different round trips, and must not close both of two connections. So one
//! of them decides alone: the one with the lower peer id. Other implementations decide nothing, so
//! the spares of a connection with one of them close only if this node has the lower id.
//!
//! # Relayed connections
//!
//! The [machine](crate::machine) closes relayed connections some time after a direct one was
//! established. They are closed here ([`Decision::Close`]) once the peer has answered a ping on a
//! direct one: until then the direct path may be one that was open for the handshake alone.
//!
//! [slow]: calimero_network_primitives::round_trips

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use calimero_network_primitives::{
    PeerId,
    round_trips::{self, RoundTrips},
};

use crate::machine::Path;

/// Time for which a connection is slow before it becomes a spare, 60 s: four pings at the default
/// interval, so that each round trip that counts was measured since.
pub const WORSE_FOR: Duration = Duration::from_secs(60);

/// What follows from the measurements, for the connection `K`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision<K> {
    /// Use this connection rather than the one named before. Not returned for a peer with one
    /// connection, and not for connections that are equally good.
    Prefer {
        /// Id of the remote peer.
        peer: PeerId,
        /// The connection to use.
        connection: K,
    },
    /// A connection became a spare, or is needed again.
    Spare {
        /// Id of the remote peer.
        peer: PeerId,
        /// The connection.
        connection: K,
        /// Whether the connection is a spare from now on.
        spare: bool,
    },
    /// Close this relayed connection: a direct one carries what it carried.
    Close {
        /// Id of the remote peer.
        peer: PeerId,
        /// The relayed connection.
        connection: K,
    },
}

/// How good a connection is; less is better: unanswered, relayed, slow.
type Class = (bool, bool, bool);

#[derive(Clone, Copy, Debug)]
struct Connection<K> {
    id: K,
    path: Path,
    round_trips: RoundTrips,
    /// Whether the peer answered a ping, if only to refuse it.
    answered: bool,
    /// Whether the peer did not answer the last ping.
    unanswered: bool,
    /// Since when it has been slow next to one that is not.
    worse_since: Option<Instant>,
    spare: bool,
}

impl<K> Connection<K> {
    const fn class(&self) -> Class {
        let relayed = matches!(self.path, Path::Relayed);
        (self.unanswered, relayed, self.round_trips.is_slow())
    }

    /// Returns whether the connection is known to work.
    const fn is_proven(&self) -> bool {
        self.answered && !self.unanswered
    }
}

#[derive(Clone, Debug)]
struct Peer<K> {
    /// The oldest first.
    connections: Vec<Connection<K>>,
    preferred: Option<K>,
    /// Whether the relayed connections are to be closed.
    superseded: bool,
}

/// The connections of all peers, one entry for each. The caller bounds their number.
#[derive(Clone, Debug)]
pub struct Paths<K> {
    local: PeerId,
    peers: BTreeMap<PeerId, Peer<K>>,
    decisions: VecDeque<Decision<K>>,
}

impl<K: Copy + Eq> Paths<K> {
    /// Creates a state without connections for the node `local`.
    #[must_use]
    pub const fn new(local: PeerId) -> Self {
        Self {
            local,
            peers: BTreeMap::new(),
            decisions: VecDeque::new(),
        }
    }

    /// Removes and returns the next decision. Call it after each input until there is none.
    pub fn next_decision(&mut self) -> Option<Decision<K>> {
        self.decisions.pop_front()
    }

    /// A connection was established. The connection to use is named again, because a use may choose
    /// another one for a new connection.
    pub fn on_opened(&mut self, peer: PeerId, connection: K, path: Path, now: Instant) {
        let of_peer = self.peers.entry(peer).or_insert_with(|| Peer {
            connections: Vec::new(),
            preferred: None,
            superseded: false,
        });
        of_peer.connections.push(Connection {
            id: connection,
            path,
            round_trips: RoundTrips::default(),
            answered: false,
            unanswered: false,
            worse_since: None,
            spare: false,
        });
        of_peer.preferred = None;
        self.review(peer, now);
    }

    /// A connection was closed.
    pub fn on_closed(&mut self, peer: PeerId, connection: K, now: Instant) {
        let Some(of_peer) = self.peers.get_mut(&peer) else {
            return;
        };
        of_peer.connections.retain(|one| one.id != connection);
        of_peer.preferred.take_if(|id| *id == connection);
        if of_peer.connections.is_empty() {
            self.peers.remove(&peer);
        } else {
            self.review(peer, now);
        }
    }

    /// The peer answered a ping on a connection after `round_trip`.
    pub fn on_answered(&mut self, peer: PeerId, connection: K, round_trip: Duration, now: Instant) {
        if let Some(one) = self.connection(peer, connection) {
            (one.answered, one.unanswered) = (true, false);
            one.round_trips.add(round_trip);
            self.review(peer, now);
        }
    }

    /// The peer does not support ping, as it says on a connection.
    pub fn on_refused(&mut self, peer: PeerId, connection: K, now: Instant) {
        if let Some(one) = self.connection(peer, connection) {
            (one.answered, one.unanswered) = (true, false);
            self.review(peer, now);
        }
    }

    /// The relayed connections with a peer are to be closed, because a direct one has lasted long
    /// enough. This happens when the direct one is known to work.
    pub fn on_superseded(&mut self, peer: PeerId, now: Instant) {
        if let Some(of_peer) = self.peers.get_mut(&peer) {
            of_peer.superseded = true;
            self.review(peer, now);
        }
    }

    /// The peer did not answer a ping on a connection.
    pub fn on_unanswered(&mut self, peer: PeerId, connection: K, now: Instant) {
        if let Some(one) = self.connection(peer, connection) {
            one.unanswered = true;
            self.review(peer, now);
        }
    }

    fn connection(&mut self, peer: PeerId, id: K) -> Option<&mut Connection<K>> {
        let of_peer = self.peers.get_mut(&peer)?;
        of_peer.connections.iter_mut().find(|one| one.id == id)
    }

    /// Decides about the connections of one peer.
    fn review(&mut self, peer: PeerId, now: Instant) {
        let decides = self.local < peer;
        let Some(of_peer) = self.peers.get_mut(&peer) else {
            return;
        };
        of_peer.compare();
        let classes = of_peer.connections.iter().map(Connection::class);
        let Some(best) = classes.min() else {
            return;
        };
        if let Some(connection) = of_peer.change_preferred(best) {
            let prefer = Decision::Prefer { peer, connection };
            self.decisions.push_back(prefer);
        }
        let closes = of_peer.relayed_to_close().into_iter();
        let closes = closes.map(|connection| Decision::Close { peer, connection });
        self.decisions.extend(closes);
        for one in &mut of_peer.connections {
            // Slow, next to one of the same kind that answers and is not.
            let is_worse = !best.2 && one.class() == (best.0, best.1, true);
            one.worse_since = is_worse.then(|| one.worse_since.unwrap_or(now));
            let since = one.worse_since;
            let long = since.is_some_and(|at| now.saturating_duration_since(at) >= WORSE_FOR);
            let spare = decides && long;
            if std::mem::replace(&mut one.spare, spare) != spare {
                self.decisions.push_back(Decision::Spare {
                    peer,
                    connection: one.id,
                    spare,
                });
            }
        }
    }
}

impl<K: Copy + Eq> Peer<K> {
    /// Decides which connections are slow. Each kind is compared with itself, because a direct
    /// connection is better than a relayed one whatever their round trips.
    fn compare(&mut self) {
        for path in [Path::Direct, Path::Relayed] {
            let of_kind = self.connections.iter_mut();
            let of_kind = of_kind.filter(|one| one.path == path);
            round_trips::compare(of_kind.map(|one| &mut one.round_trips));
        }
    }

    /// Returns the relayed connections that are to be closed now.
    fn relayed_to_close(&mut self) -> Vec<K> {
        let [direct, relayed] = [Path::Direct, Path::Relayed]
            .map(|path| self.connections.iter().filter(move |one| one.path == path));
        // The direct one may have ended meanwhile.
        self.superseded &= direct.clone().count() > 0;
        if !self.superseded || !direct.clone().any(Connection::is_proven) {
            return Vec::new();
        }
        let closed = relayed.map(|one| one.id).collect();
        self.superseded = false;
        closed
    }

    /// Returns the connection to use from now on, if it changes. Where all are equally good, none
    /// is better than the one in use.
    fn change_preferred(&mut self, best: Class) -> Option<K> {
        let preferred = self.preferred;
        let is_best = |one: &&Connection<K>| one.class() == best;
        let mut of_best = self.connections.iter().filter(is_best);
        if of_best.clone().count() == self.connections.len()
            || of_best.clone().any(|one| Some(one.id) == preferred)
        {
            return None;
        }
        self.preferred = of_best.next().map(|one| one.id);
        self.preferred
    }
}

#[cfg(test)]
mod tests;
