//! What the behaviour tells.

use std::time::Duration;

use calimero_network_primitives::{Multiaddr, PeerId};
use libp2p_identify as identify;
use libp2p_kad::{QueryId, Record};
use libp2p_swarm::ConnectionId;

use crate::{
    liveness,
    machine::{Namespace, Path, Phase, ProbeOutcome, Reachability, RendezvousFailure},
};

/// What the behaviour tells.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// Discovery has come further, or was thrown back.
    PhaseChanged {
        /// Where it was.
        from: Phase,
        /// Where it is.
        to: Phase,
    },
    /// Whether others can reach us, or how that is known, has changed.
    ReachabilityChanged {
        /// How it stands.
        reachability: Reachability,
    },
    /// An address of ours is told to others from now on.
    ExternalAddressConfirmed {
        /// Which.
        address: Multiaddr,
    },
    /// An address of ours is told to nobody any more.
    ExternalAddressExpired {
        /// Which.
        address: Multiaddr,
    },
    /// A probe of an address of ours has ended.
    Probed {
        /// The address.
        address: Multiaddr,
        /// Who probed.
        server: PeerId,
        /// How it ended.
        outcome: ProbeOutcome,
    },
    /// A peer has told of itself. Nothing of it is verified but the peer id.
    Identified {
        /// Who.
        peer: PeerId,
        /// On which connection.
        connection: ConnectionId,
        /// What it says, of its addresses and protocols at most [`MAX_IDENTIFY_ITEMS`] each.
        ///
        /// [`MAX_IDENTIFY_ITEMS`]: super::MAX_IDENTIFY_ITEMS
        info: Box<identify::Info>,
    },
    /// What a ping came to; [`liveness::Outcome::GivenUp`] is a peer that answers no more.
    Liveness(liveness::Event),
    /// The best way to a peer has changed; also when it is connected first and last.
    PathChanged {
        /// Who.
        peer: PeerId,
        /// The way there was; `None`: none.
        from: Option<Path>,
        /// The way there is; `None`: none any more.
        to: Option<Path>,
    },
    /// The attempt to turn a relayed connection into a direct one has ended.
    HolePunch {
        /// With whom.
        peer: PeerId,
        /// How.
        outcome: HolePunch,
    },
    /// A server holds our registration.
    Registered {
        /// Which.
        server: PeerId,
        /// In which overlay.
        namespace: Namespace,
        /// For how long.
        ttl: Duration,
    },
    /// A server does not hold our registration. It is asked for again by itself.
    RegisterFailed {
        /// Which.
        server: PeerId,
        /// In which overlay.
        namespace: Namespace,
        /// Why.
        why: RendezvousFailure,
    },
    /// A server has told members of an overlay.
    Discovered {
        /// Which.
        server: PeerId,
        /// Of which overlay.
        namespace: Namespace,
        /// How many, ourselves included where the server told of us.
        members: usize,
    },
    /// A relay holds a slot for us.
    ReservationGranted {
        /// Which.
        relay: PeerId,
        /// Whether it did before.
        renewed: bool,
    },
    /// A relay does not give us a slot. It, or another, is asked again by itself.
    ReservationFailed {
        /// Which.
        relay: PeerId,
    },
    /// A relay holds no slot for us any more. It, or another, is asked again by itself, unless
    /// none is needed.
    ReservationLost {
        /// Which.
        relay: PeerId,
    },
    /// [`Behaviour::cache`](super::Behaviour::cache) is to be saved now.
    SaveCache,
    /// An overlay is not followed: there are as many as may be.
    FollowRefused {
        /// Which.
        namespace: Namespace,
    },
    /// A query has found records. All are valid by the validator and none has expired.
    RecordsFound {
        /// Which query.
        query: QueryId,
        /// The peer that held them; `None`: this node.
        holder: Option<PeerId>,
        /// What it held.
        records: Vec<Record>,
    },
    /// A query has found peers that say they have what belongs to a key. That is their word, by
    /// way of whoever answered: nothing proves it.
    ProvidersFound {
        /// Which query.
        query: QueryId,
        /// The peers, none of them told by this query before.
        providers: Vec<PeerId>,
    },
    /// A query has ended.
    QueryEnded {
        /// Which.
        query: QueryId,
        /// How.
        outcome: QueryOutcome,
    },
}

/// How an attempt to connect directly has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HolePunch {
    /// There is a direct connection.
    Direct,
    /// There is none.
    Failed,
}

/// How a query has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueryOutcome {
    /// The record is stored by as many peers as were asked for.
    Stored,
    /// It is stored by fewer.
    NotStored {
        /// Those that do store it.
        stored_by: Vec<PeerId>,
        /// How many were asked for.
        quorum: usize,
    },
    /// Every peer close to the key was asked, or as much found as is told.
    Found {
        /// Records told, or providers.
        records: usize,
    },
    /// The time is over.
    TimedOut {
        /// Records told until then, or peers that store the record.
        progress: usize,
    },
}
