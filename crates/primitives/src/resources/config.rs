//! The limits that a configuration sets.

use super::{Limit, Limits, Resource, default_limit};
use crate::{
    NetworkConfig,
    config::{
        BlobServeConfig, ConnectionsConfig, RelayServerConfig, RendezvousServerConfig,
        SpecializedConfig, StreamsConfig,
    },
};

/// Connections of either direction that the other direction cannot take: 256, or a quarter of a
/// smaller total. A node reaches its boot nodes and the members of its overlays with them while
/// peers fill the rest.
const MAX_CONNECTION_SHARE: u64 = 256;

/// Connections that only protected peers can take: 128, or an eighth of a smaller total.
const MAX_CONNECTION_RESERVE: u64 = 128;

/// Bytes of a chunk of a blob: 1 MiB, by the wire format.
const CHUNK_BYTES: u64 = crate::limits::MIB as u64;

/// Amount that one origin may hold however small the limit of the node is, as far as that allows it:
/// the peers of a small site behind one address.
const MIN_ORIGIN: u64 = 64;

impl From<&NetworkConfig> for Limits {
    /// The limits of a whole node.
    fn from(config: &NetworkConfig) -> Self {
        let mut limits = Self::default();
        limits.set_connections(&config.connections);
        limits.set_streams(&config.streams);
        limits.set_invites(&config.specialized);
        limits.set_rendezvous(&config.server.rendezvous);
        limits.set_relay(&config.server.relay);
        limits.set_blobs(&config.blob.serve);
        limits
    }
}

impl Limits {
    /// Sets the limits of connections.
    pub fn set_connections(&mut self, config: &ConnectionsConfig) {
        let peer = u64::from(config.tuning.max_per_peer);
        let total = Limit {
            node: u64::from(config.max_established),
            reserve: MAX_CONNECTION_RESERVE.min(u64::from(config.max_established) / 8),
            peer,
            ..default_limit(Resource::Connections)
        };
        let node = total.node - MAX_CONNECTION_SHARE.min(total.node / 4);
        let one_way = Limit { node, ..total };
        let origin = part(node, 3).min(node - total.reserve);
        self.set(Resource::Connections, total);
        self.set(Resource::OutboundConnections, one_way);
        self.set(Resource::InboundConnections, Limit { origin, ..one_way });
        let node = u64::from(config.tuning.max_pending_inbound);
        self.update(Resource::PendingInbound, |limit| Limit {
            node,
            origin: node.div_ceil(2),
            ..limit
        });
        let node = u64::from(config.tuning.max_pending_outbound);
        self.update(Resource::PendingOutbound, |limit| Limit {
            node,
            reserve: node / 4,
            ..limit
        });
    }

    /// Sets the limits of inbound streams.
    pub fn set_streams(&mut self, config: &StreamsConfig) {
        let limit = shared(config.max_inbound, config.max_inbound_per_peer);
        self.set(Resource::InboundStreams, limit);
    }

    /// Sets the limits of invite requests.
    pub fn set_invites(&mut self, config: &SpecializedConfig) {
        let limit = shared(
            config.tuning.max_inbound,
            config.tuning.max_inbound_per_peer,
        );
        self.set(Resource::InviteRequests, limit);
        self.widen_requests(limit);
    }

    /// Sets the limits of a rendezvous server.
    pub fn set_rendezvous(&mut self, config: &RendezvousServerConfig) {
        let limit = shared(
            config.tuning.max_requests,
            config.tuning.max_requests_per_peer,
        );
        self.set(Resource::RendezvousRequests, limit);
        self.widen_requests(limit);
        let (node, peer) = (
            config.max_registrations as u64,
            config.tuning.max_registrations_per_peer as u64,
        );
        // 256 peers of one address, or a quarter of a smaller registry.
        let origin = peer.saturating_mul(256).min(part(node, 4)).max(peer);
        self.set(
            Resource::Registrations,
            Limit {
                node,
                reserve: 0,
                origin,
                peer,
            },
        );
    }

    /// Sets the limits of a relay server.
    pub fn set_relay(&mut self, config: &RelayServerConfig) {
        let open = |node: usize, peer: usize, parts: u64| {
            let (node, peer) = (node as u64, peer as u64);
            Limit {
                node,
                reserve: 0,
                origin: part(node, parts).max(peer),
                peer,
            }
        };
        let reservations = (
            config.max_reservations,
            config.tuning.max_reservations_per_peer,
        );
        let circuits = (config.max_circuits, config.max_circuits_per_peer);
        self.set(
            Resource::Reservations,
            open(reservations.0, reservations.1, 8),
        );
        self.set(Resource::Circuits, open(circuits.0, circuits.1, 4));
    }

    /// Sets the limits of serving blobs.
    pub fn set_blobs(&mut self, config: &BlobServeConfig) {
        let tuning = &config.tuning;
        let transfers = shared(config.max_transfers, tuning.max_transfers_per_peer);
        self.set(Resource::BlobTransfers, transfers);
        // In whole chunks, so that the last one is of use.
        let (node, peer) = (config.max_chunks as u64, tuning.max_chunks_per_peer as u64);
        let reserve = node / 4;
        let bytes = |chunks: u64| chunks.saturating_mul(CHUNK_BYTES);
        self.set(
            Resource::BlobBytes,
            Limit {
                node: bytes(node),
                reserve: bytes(reserve),
                origin: bytes((node / 2).max(peer).min(node - reserve)),
                peer: bytes(peer),
            },
        );
        let node = tuning.max_remembered_auths as u64;
        self.update(Resource::BlobNonces, |limit| Limit {
            node,
            reserve: node / 8,
            origin: limit.origin.min(node.div_ceil(8)),
            peer: limit.peer.min(node.div_ceil(64)),
        });
    }

    /// Keeps the total of requests above the limit of one protocol.
    fn widen_requests(&mut self, limit: Limit) {
        self.update(Resource::Requests, |total| Limit {
            node: total.node.max(limit.node.saturating_mul(2)),
            origin: total.origin.max(limit.origin.saturating_mul(2)),
            peer: total.peer.max(limit.peer.saturating_mul(2)),
            ..total
        });
    }
}

/// A limit of which one origin gets a quarter and protected peers keep a sixteenth.
fn shared(node: usize, peer: usize) -> Limit {
    let (node, peer) = (node as u64, peer as u64);
    Limit {
        node,
        reserve: node / 16,
        origin: part(node, 4).max(peer),
        peer,
    }
}

/// One of `parts` equal parts of `node`, but no less than the first [`MIN_ORIGIN`] of it.
fn part(node: u64, parts: u64) -> u64 {
    (node / parts).max(MIN_ORIGIN.min(node))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ConnectionsTuning;

    #[test]
    fn the_default_configuration_sets_the_default_limits_of_connections() {
        let limits = Limits::from(&NetworkConfig::default());
        for resource in [
            Resource::Connections,
            Resource::InboundConnections,
            Resource::OutboundConnections,
            Resource::PendingInbound,
            Resource::PendingOutbound,
            Resource::Registrations,
        ] {
            assert_eq!(
                limits.get(resource),
                default_limit(resource),
                "{resource:?}"
            );
        }
    }

    #[test]
    fn the_smallest_configuration_leaves_one_connection_for_each_direction() {
        let config = ConnectionsConfig {
            max_established: 1,
            tuning: ConnectionsTuning {
                max_per_peer: 1,
                ..ConnectionsTuning::default()
            },
            ..ConnectionsConfig::default()
        };
        let mut limits = Limits::default();
        limits.set_connections(&config);
        for resource in [Resource::InboundConnections, Resource::OutboundConnections] {
            let limit = limits.get(resource);
            assert_eq!((limit.node - limit.reserve, limit.peer), (1, 1));
            assert!(limit.origin > 0);
        }
    }
}
