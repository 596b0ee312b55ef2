//! The resources that are counted and the limits of each.

use crate::limits::{KIB, MIB};

/// A resource that peers can hold. Each variant is counted and limited on its own.
///
/// A variant belongs to the protocol in its name. Variants with a [total](Self::total) are counted
/// in it too, so that all protocols together stay below one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Resource {
    /// Established connections in both directions.
    Connections,
    /// Established connections that peers opened.
    InboundConnections,
    /// Established connections that this node opened.
    OutboundConnections,
    /// Connections that peers opened and that are not negotiated.
    PendingInbound,
    /// Connections that this node opens and that are not negotiated.
    PendingOutbound,
    /// Streams that peers opened, of the protocols of the stream crate.
    InboundStreams,
    /// Bytes that streams of Yamux connections have received and not passed on, with the memory of
    /// their frames. Of each connection, 128 KiB are not counted. QUIC is not counted: each
    /// connection can hold its receive window.
    UnreadBytes,
    /// Bytes of receive buffers that hold frames which have not arrived in full.
    FrameBytes,
    /// Requests of peers that are served, of all request-response protocols.
    Requests,
    /// Invite requests that are served.
    InviteRequests,
    /// Rendezvous requests that are served.
    RendezvousRequests,
    /// Throughput measurements that are served.
    PerfRequests,
    /// Blob transfers that are served.
    BlobTransfers,
    /// Bytes of blob answers in memory that are not sent.
    BlobBytes,
    /// Nonces of signed blob requests that are remembered against replay.
    BlobNonces,
    /// Registrations in the rendezvous registry.
    Registrations,
    /// Reservations at the relay.
    Reservations,
    /// Circuits through the relay, counted for the peer that opened them.
    Circuits,
}

/// Number of [`Resource`] variants.
pub(super) const COUNT: usize = Resource::ALL.len();

/// The unit that a resource is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Whole items: connections, streams, requests, entries.
    Items,
    /// A number of bytes of memory.
    Bytes,
}

impl Resource {
    /// All resources, in the order of their definition.
    pub const ALL: [Self; 18] = [
        Self::Connections,
        Self::InboundConnections,
        Self::OutboundConnections,
        Self::PendingInbound,
        Self::PendingOutbound,
        Self::InboundStreams,
        Self::UnreadBytes,
        Self::FrameBytes,
        Self::Requests,
        Self::InviteRequests,
        Self::RendezvousRequests,
        Self::PerfRequests,
        Self::BlobTransfers,
        Self::BlobBytes,
        Self::BlobNonces,
        Self::Registrations,
        Self::Reservations,
        Self::Circuits,
    ];

    /// The resource that this one is counted in too.
    #[must_use]
    pub const fn total(self) -> Option<Self> {
        match self {
            Self::InboundConnections | Self::OutboundConnections => Some(Self::Connections),
            Self::InviteRequests | Self::RendezvousRequests | Self::PerfRequests => {
                Some(Self::Requests)
            }
            _ => None,
        }
    }

    /// The unit of amounts and limits.
    #[must_use]
    pub const fn unit(self) -> Unit {
        match self {
            Self::UnreadBytes | Self::FrameBytes | Self::BlobBytes => Unit::Bytes,
            _ => Unit::Items,
        }
    }

    /// The name in metrics and in `status`: lower case words with underscores.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::InboundConnections => "inbound_connections",
            Self::OutboundConnections => "outbound_connections",
            Self::PendingInbound => "pending_inbound_connections",
            Self::PendingOutbound => "pending_outbound_connections",
            Self::InboundStreams => "inbound_streams",
            Self::UnreadBytes => "unread_bytes",
            Self::FrameBytes => "frame_bytes",
            Self::Requests => "requests",
            Self::InviteRequests => "invite_requests",
            Self::RendezvousRequests => "rendezvous_requests",
            Self::PerfRequests => "perf_requests",
            Self::BlobTransfers => "blob_transfers",
            Self::BlobBytes => "blob_bytes",
            Self::BlobNonces => "blob_nonces",
            Self::Registrations => "registrations",
            Self::Reservations => "reservations",
            Self::Circuits => "circuits",
        }
    }

    pub(super) const fn index(self) -> usize {
        self as usize
    }
}

/// The largest amounts of one resource that may be held at one time, in its [`Unit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Amount that all peers may hold together.
    pub node: u64,
    /// Part of `node` that only protected peers may take.
    ///
    /// Other peers are refused as soon as `node - reserve` is in use.
    pub reserve: u64,
    /// Amount that the peers of one [`Origin`](super::Origin) may hold together. Does not apply to
    /// protected peers. For loopback and private origins it is [doubled](Self::for_local).
    pub origin: u64,
    /// Amount that one peer may hold.
    pub peer: u64,
}

impl Limit {
    /// A limit that refuses nothing. The resource is counted.
    pub const UNLIMITED: Self = Self {
        node: u64::MAX,
        reserve: 0,
        origin: u64::MAX,
        peer: u64::MAX,
    };

    /// The limit for the peers of a [local](super::Origin::is_local) origin: twice `origin`, and no
    /// more than `node - reserve`.
    ///
    /// Nodes of one host or behind one gateway share such an origin, so it needs more than one
    /// address of the internet. It is not unlimited, because strangers can arrive through the gateway.
    #[must_use]
    pub const fn for_local(self) -> Self {
        let doubled = self.origin.saturating_mul(2);
        let strangers = self.node.saturating_sub(self.reserve);
        let origin = if doubled < strangers {
            doubled
        } else if self.origin < strangers {
            strangers
        } else {
            self.origin
        };
        Self { origin, ..self }
    }

    const fn new(node: u64, reserve: u64, origin: u64, peer: u64) -> Self {
        Self {
            node,
            reserve,
            origin,
            peer,
        }
    }
}

/// The limits of every resource.
///
/// The default is [`default_limit`] for each. The crates that serve a protocol replace those that
/// their configuration sets:
///
/// ```
/// use calimero_network_primitives::resources::{Limit, Limits, Resource, Resources};
///
/// let mut limits = Limits::default();
/// limits.update(Resource::BlobTransfers, |limit| Limit { node: 10, peer: 2, ..limit });
/// let resources = Resources::new(limits);
/// assert_eq!(resources.limit(Resource::BlobTransfers).peer, 2);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits([Limit; COUNT]);

impl Limits {
    /// The limit of `resource`.
    #[must_use]
    pub fn get(&self, resource: Resource) -> Limit {
        self.0[resource.index()]
    }

    /// Replaces the limit of `resource`.
    pub fn set(&mut self, resource: Resource, limit: Limit) {
        self.0[resource.index()] = limit;
    }

    /// Replaces the limit of `resource` by one that `change` derives from it.
    pub fn update(&mut self, resource: Resource, change: impl FnOnce(Limit) -> Limit) {
        self.set(resource, change(self.get(resource)));
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self(Resource::ALL.map(default_limit))
    }
}

/// The limit of `resource` where nothing else is configured, with the reason for each number.
///
/// | resource | node | reserve | origin | peer | reason |
/// |---|---|---|---|---|---|
/// | `connections` | 1,024 | 128 | — | 8 | file descriptors; a peer needs both transports, a relayed connection and a reconnect that overlaps |
/// | `inbound_connections` | 768 | 128 | 256 | 8 | a quarter of all connections stays for outbound ones; one address gets a third, as an office behind one address needs |
/// | `outbound_connections` | 768 | 128 | — | 8 | a quarter of all connections stays for inbound ones |
/// | `pending_inbound_connections` | 128 | 0 | 64 | — | a handshake holds about 50 KiB; two addresses are needed to block a third |
/// | `pending_outbound_connections` | 128 | 32 | — | 8 | a dial storm leaves dials of boot nodes and members |
/// | `inbound_streams` | 8,192 | 1,024 | 2,048 | 512 | 256 KiB of receive window each; 512 is one busy peer |
/// | `unread_bytes` | 128 MiB | 32 MiB | 48 MiB | 32 MiB | the largest window of a stream, 16 MiB, and 64 initial windows of one peer |
/// | `frame_bytes` | 64 MiB | 16 MiB | 32 MiB | 16 MiB | eight of the largest frames; two of one peer |
/// | `requests` | 8,192 | 1,024 | 2,048 | 512 | a few KiB each until they are answered |
/// | `invite_requests` | 128 | 16 | 32 | 8 | up to 1 MiB each, answered by the application |
/// | `rendezvous_requests` | 4,096 | 256 | 1,024 | 100 | up to 18 KiB each, answered at once |
/// | `perf_requests` | 128 | 0 | 64 | 64 | a block of 1 MiB each; a peer measures with up to 64 streams |
/// | `blob_transfers` | 1,024 | 128 | 256 | 64 | a stream and a file each |
/// | `blob_bytes` | 64 MiB | 16 MiB | 32 MiB | 16 MiB | chunks of 1 MiB that are read and not yet sent |
/// | `blob_nonces` | 65,536 | 8,192 | 8,192 | 1,024 | 40 s of signed requests, about 100 bytes each |
/// | `registrations` | 320,000 | 0 | 16,384 | 64 | 256 peers of one address with 64 registrations each |
/// | `reservations` | 10,000 | 0 | 1,024 | 4 | the peers of a large network behind one address |
/// | `circuits` | 1,024 | 0 | 256 | 16 | two read buffers of 8 KiB each |
#[must_use]
pub const fn default_limit(resource: Resource) -> Limit {
    const MANY: u64 = u64::MAX;
    const MIB_U64: u64 = MIB as u64;
    const KIB_U64: u64 = KIB as u64;
    match resource {
        Resource::Connections => Limit::new(1024, 128, MANY, 8),
        Resource::InboundConnections => Limit::new(768, 128, 256, 8),
        Resource::OutboundConnections => Limit::new(768, 128, MANY, 8),
        Resource::PendingInbound => Limit::new(128, 0, 64, MANY),
        Resource::PendingOutbound => Limit::new(128, 32, MANY, 8),
        Resource::InboundStreams | Resource::Requests => {
            Limit::new(8 * KIB_U64, KIB_U64, 2 * KIB_U64, 512)
        }
        Resource::UnreadBytes => {
            Limit::new(128 * MIB_U64, 32 * MIB_U64, 48 * MIB_U64, 32 * MIB_U64)
        }
        Resource::FrameBytes | Resource::BlobBytes => {
            Limit::new(64 * MIB_U64, 16 * MIB_U64, 32 * MIB_U64, 16 * MIB_U64)
        }
        Resource::InviteRequests => Limit::new(128, 16, 32, 8),
        Resource::RendezvousRequests => Limit::new(4096, 256, 1024, 100),
        Resource::PerfRequests => Limit::new(128, 0, 64, 64),
        Resource::BlobTransfers => Limit::new(1024, 128, 256, 64),
        Resource::BlobNonces => Limit::new(64 * KIB_U64, 8 * KIB_U64, 8 * KIB_U64, KIB_U64),
        Resource::Registrations => Limit::new(320_000, 0, 16 * KIB_U64, 64),
        Resource::Reservations => Limit::new(10_000, 0, 1024, 4),
        Resource::Circuits => Limit::new(1024, 0, 256, 16),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_resource_has_its_own_index_and_name() {
        for (index, resource) in Resource::ALL.into_iter().enumerate() {
            assert_eq!(resource.index(), index);
            let same = Resource::ALL
                .into_iter()
                .filter(|other| other.name() == resource.name());
            assert_eq!(same.count(), 1);
            // Totals have no total of their own: `take` counts one level.
            assert_eq!(resource.total().and_then(Resource::total), None);
        }
    }

    #[test]
    fn inner_limits_fit_into_outer_ones() {
        for resource in Resource::ALL {
            let limit = default_limit(resource);
            assert!(limit.reserve < limit.node, "{resource:?}");
            assert!(
                limit.peer <= limit.node || limit.peer == u64::MAX,
                "{resource:?}"
            );
            assert!(
                limit.origin <= limit.node - limit.reserve || limit.origin == u64::MAX,
                "one origin can take all that {resource:?} leaves to strangers"
            );
        }
    }
}
