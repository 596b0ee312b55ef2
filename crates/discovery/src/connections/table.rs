//! The established connections, and the choice of the one that makes room. Pure: time is an
//! argument.
//!
//! A connection can be closed for another one if it is inbound, its peer holds nothing else of this
//! node (streams, requests, registrations, reservations), and its peer ranks below the newcomer or
//! neither is protected. Among those:
//!
//! - One of the origin with the most inbound connections goes first, if that origin has at least
//!   two more than the origin of the newcomer. An address with many identities therefore displaces
//!   its own connections, never those of others.
//! - Otherwise one that was established at least [`MIN_AGE`] ago, the oldest first: what has been
//!   idle for that long is used the least.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use calimero_network_primitives::{
    PeerId,
    resources::{Holder, Permit, Rank, Resource, Scope},
};
use libp2p_swarm::ConnectionId;

/// Time for which an idle connection of an origin that has no more than others is safe: one minute.
///
/// Long enough for a peer that has just connected to identify itself and to begin what it came for.
const MIN_AGE: Duration = Duration::from_secs(60);

/// Connections that are being closed at one time to make room.
///
/// They have no permit any more but hold a descriptor until they are closed, so this is how far the
/// node can exceed its limit of connections.
const MAX_CLOSING: usize = 32;

/// The established connections that have a permit.
#[derive(Debug, Default)]
pub(super) struct Table {
    connections: HashMap<ConnectionId, Connection>,
    closing: HashSet<ConnectionId>,
}

#[derive(Debug)]
struct Connection {
    permit: Permit,
    direction: Resource,
    since: Instant,
}

impl Table {
    pub(super) fn insert(
        &mut self,
        id: ConnectionId,
        permit: Permit,
        direction: Resource,
        now: Instant,
    ) {
        let connection = Connection {
            permit,
            direction,
            since: now,
        };
        self.connections.insert(id, connection);
    }

    pub(super) fn remove(&mut self, id: ConnectionId) {
        self.connections.remove(&id);
        self.closing.remove(&id);
    }

    /// Releases the permit of a connection that is about to be closed.
    pub(super) fn evict(&mut self, id: ConnectionId) {
        if self.connections.remove(&id).is_some() {
            self.closing.insert(id);
        }
    }

    /// The inbound connection that makes room in `scope` for one of `newcomer`.
    pub(super) fn victim(
        &self,
        newcomer: &Holder,
        scope: Scope,
        now: Instant,
    ) -> Option<(PeerId, ConnectionId)> {
        if self.closing.len() >= MAX_CLOSING {
            return None;
        }
        let rank = newcomer.rank();
        let own = newcomer.used_by_origin(Resource::InboundConnections);
        let candidates = self.connections.iter().filter_map(|(id, connection)| {
            let holder = connection.permit.holder();
            let lower = holder.rank() < rank || holder.rank() == Rank::Stranger;
            let in_scope = match scope {
                Scope::Node => true,
                Scope::Origin(origin) => holder.origin() == Some(origin),
                _ => false,
            };
            let idle = !holder.peer_holds(|resource| !is_connection(resource));
            let inbound = connection.direction == Resource::InboundConnections;
            if !(inbound && lower && in_scope && idle) {
                return None;
            }
            let crowd = holder.used_by_origin(Resource::InboundConnections);
            let crowded = crowd >= own + 2 && holder.origin() != newcomer.origin();
            let old = now.saturating_duration_since(connection.since) >= MIN_AGE;
            let ranked = holder.rank() < rank;
            // The crowded first, then the oldest.
            (crowded || old || ranked).then(|| {
                let crowd = if crowded { crowd } else { 0 };
                (
                    std::cmp::Reverse(crowd),
                    connection.since,
                    *id,
                    holder.peer(),
                )
            })
        });
        let (.., id, peer) = candidates.min()?;
        Some((peer?, id))
    }
}

fn is_connection(resource: Resource) -> bool {
    matches!(
        resource,
        Resource::Connections
            | Resource::InboundConnections
            | Resource::OutboundConnections
            | Resource::PendingInbound
            | Resource::PendingOutbound
    )
}

#[cfg(test)]
mod tests {
    use calimero_network_primitives::resources::{Limit, Limits, Origin, Protection, Resources};

    use super::*;
    use crate::server::now;

    const LIMIT: Limit = Limit {
        node: 4,
        reserve: 0,
        origin: 4,
        peer: 4,
    };

    struct Node {
        resources: Resources,
        table: Table,
        next: usize,
        start: Instant,
    }

    impl Node {
        fn new() -> Self {
            let mut limits = Limits::default();
            limits.set(Resource::InboundConnections, LIMIT);
            Self {
                resources: Resources::new(limits),
                table: Table::default(),
                next: 1,
                start: now(),
            }
        }

        fn holder(&self, peer: PeerId, origin: u8) -> Holder {
            let origin = Origin::Ipv4([192, 0, 2, origin]);
            self.resources.holder(Some(peer), Some(origin))
        }

        /// Connects a peer at `at` seconds.
        fn connect(&mut self, peer: PeerId, origin: u8, at: u64) -> ConnectionId {
            let id = ConnectionId::new_unchecked(self.next);
            self.next += 1;
            let permit = self.holder(peer, origin);
            let permit = permit.take(Resource::InboundConnections, 1).unwrap();
            let at = self.start + Duration::from_secs(at);
            self.table
                .insert(id, permit, Resource::InboundConnections, at);
            id
        }

        /// The victim for a newcomer at `at` seconds.
        fn victim(&self, newcomer: PeerId, origin: u8, at: u64) -> Option<ConnectionId> {
            let now = self.start + Duration::from_secs(at);
            let victim = self
                .table
                .victim(&self.holder(newcomer, origin), Scope::Node, now);
            victim.map(|(_, id)| id)
        }
    }

    #[test]
    fn a_crowded_origin_makes_room_for_others_and_not_for_itself() {
        let mut node = Node::new();
        let crowd: Vec<_> = (0..3)
            .map(|at| node.connect(PeerId::random(), 1, at))
            .collect();
        node.connect(PeerId::random(), 2, 0);
        assert_eq!(node.victim(PeerId::random(), 3, 10), Some(crowd[0]));
        assert_eq!(node.victim(PeerId::random(), 2, 10), Some(crowd[0]));
        assert_eq!(node.victim(PeerId::random(), 1, 10), None);
    }

    #[test]
    fn without_a_crowd_the_oldest_idle_connection_makes_room_after_a_minute() {
        let mut node = Node::new();
        let oldest = PeerId::random();
        let first = node.connect(oldest, 1, 0);
        let second = node.connect(PeerId::random(), 2, 5);
        node.connect(PeerId::random(), 3, 10);
        assert_eq!(node.victim(PeerId::random(), 4, 59), None);
        assert_eq!(node.victim(PeerId::random(), 4, 60), Some(first));
        // A stream is open.
        let holder = node.holder(oldest, 1);
        let _stream = holder.take(Resource::InboundStreams, 1).unwrap();
        assert_eq!(node.victim(PeerId::random(), 4, 60), None);
        assert_eq!(node.victim(PeerId::random(), 4, 70), Some(second));
    }

    #[test]
    fn protected_peers_are_closed_for_higher_ranks_only() {
        let mut node = Node::new();
        let (member, boot, configured) = (PeerId::random(), PeerId::random(), PeerId::random());
        node.resources.protect(member, Protection::Member);
        node.resources.protect(boot, Protection::BootNode);
        node.resources.protect(configured, Protection::Configured);
        let first = node.connect(member, 1, 0);
        node.connect(boot, 1, 0);
        assert_eq!(node.victim(PeerId::random(), 2, 1000), None);
        assert_eq!(node.victim(configured, 2, 1), Some(first));
        let stranger = node.connect(PeerId::random(), 3, 0);
        assert_eq!(node.victim(member, 4, 1), Some(stranger));
    }

    #[test]
    fn only_so_many_are_closed_at_one_time() {
        let mut node = Node::new();
        for number in 0..MAX_CLOSING {
            let id = node.connect(PeerId::random(), 1, 0);
            assert_eq!(node.victim(PeerId::random(), 2, 60), Some(id), "{number}");
            node.table.evict(id);
            assert_eq!(node.resources.used(Resource::InboundConnections), 0);
        }
        let last = node.connect(PeerId::random(), 1, 0);
        assert_eq!(node.victim(PeerId::random(), 2, 60), None);
        node.table.remove(ConnectionId::new_unchecked(1));
        assert_eq!(node.victim(PeerId::random(), 2, 60), Some(last));
    }
}
