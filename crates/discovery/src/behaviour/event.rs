//! Events of the discovery behaviour.

use std::time::Duration;

use calimero_network_primitives::{Multiaddr, PeerId};
use libp2p_identify as identify;
use libp2p_kad::{QueryId, Record};
use libp2p_swarm::ConnectionId;

use crate::{
    liveness,
    machine::{
        HolePunch, Namespace, Path, Phase, ProbeOutcome, Reachability, RendezvousFailure,
        UnreachableCause,
    },
};

/// An event of the discovery behaviour.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// The phase of discovery changed.
    PhaseChanged {
        /// Phase before the change.
        from: Phase,
        /// Phase after the change.
        to: Phase,
    },
    /// A boot node cannot be reached. Emitted at the first failure, and for each cause at most once
    /// in ten minutes. The node is dialled again all the same.
    BootNodeUnreachable {
        /// Id of the boot node.
        peer: PeerId,
        /// Cause of the latest failure.
        cause: UnreachableCause,
    },
    /// The reachability of this node, or the reason for it, changed.
    ReachabilityChanged {
        /// Reachability after the change.
        reachability: Reachability,
    },
    /// This node announces one more external address to its peers.
    ExternalAddressConfirmed {
        /// The address that is announced.
        address: Multiaddr,
    },
    /// This node no longer announces an external address.
    ExternalAddressExpired {
        /// The address that was announced.
        address: Multiaddr,
    },
    /// The probe of an address of this node ended.
    Probed {
        /// The address that was probed.
        address: Multiaddr,
        /// The server that probed it.
        server: PeerId,
        /// Result of the probe.
        outcome: ProbeOutcome,
    },
    /// A peer identified itself. Nothing in the message is verified except the peer id.
    Identified {
        /// Id of the remote peer.
        peer: PeerId,
        /// The connection that carried the message.
        connection: ConnectionId,
        /// The message, with at most [`MAX_IDENTIFY_ITEMS`] addresses and protocols each.
        ///
        /// [`MAX_IDENTIFY_ITEMS`]: super::MAX_IDENTIFY_ITEMS
        info: Box<identify::Info>,
    },
    /// A ping ended. After [`liveness::Outcome::GivenUp`] the connection is closed.
    Liveness(liveness::Event),
    /// The best path to a peer changed, which includes its first connection and its last.
    PathChanged {
        /// Id of the remote peer.
        peer: PeerId,
        /// Path before the change; `None` if the peer was not connected.
        from: Option<Path>,
        /// Path after the change; `None` if the peer is not connected any more.
        to: Option<Path>,
    },
    /// Of several connections with a peer, this one is among the best ones, and the one named
    /// before is not. For a use that takes one connection; see [`paths`](crate::paths).
    ConnectionPreferred {
        /// Id of the remote peer.
        peer: PeerId,
        /// The connection to use.
        connection: ConnectionId,
    },
    /// A connection became a spare, or is needed again. This behaviour does not keep a spare alive,
    /// and other behaviours should not, so that it closes once it is unused; see
    /// [`paths`](crate::paths).
    ConnectionSpare {
        /// Id of the remote peer.
        peer: PeerId,
        /// The connection.
        connection: ConnectionId,
        /// Whether the connection is a spare from now on.
        spare: bool,
    },
    /// The attempts to turn a relayed connection into a direct one ended.
    HolePunch {
        /// Id of the remote peer.
        peer: PeerId,
        /// Result of the attempts.
        outcome: HolePunch,
    },
    /// A rendezvous server registered this node.
    Registered {
        /// Id of the rendezvous server.
        server: PeerId,
        /// Namespace of the registration.
        namespace: Namespace,
        /// Life of the registration.
        ttl: Duration,
    },
    /// A rendezvous server did not register this node. The request is repeated automatically.
    RegisterFailed {
        /// Id of the rendezvous server.
        server: PeerId,
        /// Namespace of the registration.
        namespace: Namespace,
        /// Reason of the failure.
        why: RendezvousFailure,
    },
    /// A rendezvous server returned members of a namespace.
    Discovered {
        /// Id of the rendezvous server.
        server: PeerId,
        /// Namespace of the members.
        namespace: Namespace,
        /// Number of members, this node included where the server returned it.
        members: usize,
    },
    /// A relay granted or renewed a reservation.
    ReservationGranted {
        /// Id of the relay.
        relay: PeerId,
        /// Whether the reservation existed before.
        renewed: bool,
    },
    /// A relay refused a reservation. This relay or another one is asked again automatically.
    ReservationFailed {
        /// Id of the relay.
        relay: PeerId,
    },
    /// A reservation ended. This relay or another one is asked again automatically, unless none is
    /// needed.
    ReservationLost {
        /// Id of the relay.
        relay: PeerId,
    },
    /// The peers of [`Behaviour::cache`](super::Behaviour::cache) should be saved now.
    SaveCache,
    /// The subscription to a namespace was refused: the limit of namespaces is reached.
    FollowRefused {
        /// Namespace that was refused.
        namespace: Namespace,
    },
    /// A query found records. The validator accepted all of them, and none has expired.
    RecordsFound {
        /// Id of the query.
        query: QueryId,
        /// The peer that held the records; `None` for this node.
        holder: Option<PeerId>,
        /// Records that the peer held.
        records: Vec<Record>,
    },
    /// A query found peers that claim to provide a key. Nothing proves the claim, which may have
    /// passed through other peers.
    ProvidersFound {
        /// Id of the query.
        query: QueryId,
        /// Providers that this query did not report before.
        providers: Vec<PeerId>,
    },
    /// A query of this node ended.
    QueryEnded {
        /// Id of the query.
        query: QueryId,
        /// Result of the query.
        outcome: QueryOutcome,
    },
}

/// The result of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueryOutcome {
    /// As many peers as requested stored the record.
    Stored,
    /// Fewer peers than requested stored the record.
    NotStored {
        /// Peers that stored the record.
        stored_by: Vec<PeerId>,
        /// Number of peers that was requested.
        quorum: usize,
    },
    /// Every peer close to the key was asked, or the limit of results was reached.
    Found {
        /// Number of records or providers that were reported.
        records: usize,
    },
    /// The time for the query passed.
    TimedOut {
        /// Records reported by then, or peers that stored the record.
        progress: usize,
    },
}
