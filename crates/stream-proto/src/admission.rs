//! Reasons for refusing inbound streams, and counters of refusals that were not
//! reported yet. No IO, no clock.

use std::{collections::HashMap, fmt};

use calimero_network_primitives::resources::{Origin, Refused, Scope};
use libp2p_identity::PeerId;
use libp2p_swarm::StreamProtocol;

/// Largest number of refusal kinds counted separately. A flood usually comes
/// from few peers on few protocols; refusals above the limit are counted
/// without their peer.
const MAX_REFUSAL_KINDS: usize = 1024;

/// Reason for which an inbound stream was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum RefuseReason {
    /// The peer reached its limit of open inbound streams, or its share of the
    /// streams that wait to be accepted.
    PeerLimit {
        /// Limit of streams per peer.
        limit: usize,
    },
    /// The peers of one IP prefix or relay reached their common limit of open
    /// inbound streams, or their share of the streams that wait to be accepted.
    OriginLimit {
        /// The IP prefix or relay.
        origin: Origin,
        /// Limit of streams per origin.
        limit: usize,
    },
    /// The node reached its limit of open inbound streams.
    TotalLimit {
        /// Limit of streams of the node.
        limit: usize,
    },
    /// The queue of streams that wait to be taken from
    /// [`Incoming`](crate::Incoming) is full.
    QueueFull {
        /// Capacity of the queue for this peer, in streams.
        limit: usize,
    },
    /// The [`Incoming`](crate::Incoming) of the protocol was dropped while the
    /// stream was negotiated.
    NotAccepted,
}

impl fmt::Display for RefuseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PeerLimit { limit } => write!(f, "{limit} streams of the peer are open or wait"),
            Self::OriginLimit { origin, limit } => {
                write!(
                    f,
                    "{limit} streams of the peers of {origin} are open or wait"
                )
            }
            Self::TotalLimit { limit } => write!(f, "{limit} streams are open in all"),
            Self::QueueFull { limit } => write!(f, "{limit} streams wait to be accepted"),
            Self::NotAccepted => f.write_str("the protocol is no longer accepted"),
        }
    }
}

impl From<Refused> for RefuseReason {
    fn from(refused: Refused) -> Self {
        let limit = usize::try_from(refused.limit).unwrap_or(usize::MAX);
        match refused.scope {
            Scope::Peer(_) => Self::PeerLimit { limit },
            Scope::Origin(origin) => Self::OriginLimit { origin, limit },
            _ => Self::TotalLimit { limit },
        }
    }
}

/// Counters of refusals since the last report.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    counts: HashMap<(PeerId, StreamProtocol, RefuseReason), u64>,
    /// Number of refusals above [`MAX_REFUSAL_KINDS`].
    others: u64,
}

/// Number of refusals of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) peer: PeerId,
    pub(crate) protocol: StreamProtocol,
    pub(crate) reason: RefuseReason,
    pub(crate) count: u64,
}

impl Refusals {
    pub(crate) fn record(&mut self, peer: PeerId, protocol: StreamProtocol, reason: RefuseReason) {
        let key = (peer, protocol, reason);
        if let Some(count) = self.counts.get_mut(&key) {
            *count += 1;
        } else if self.counts.len() < MAX_REFUSAL_KINDS {
            self.counts.insert(key, 1);
        } else {
            self.others += 1;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.counts.is_empty() && self.others == 0
    }

    /// Takes all counters: one entry per kind, and the number of refusals
    /// without a kind.
    pub(crate) fn take(&mut self) -> (Vec<Refusal>, u64) {
        let counts = std::mem::take(&mut self.counts).into_iter();
        let refusals = counts.map(|((peer, protocol, reason), count)| Refusal {
            peer,
            protocol,
            reason,
            count,
        });
        (refusals.collect(), std::mem::take(&mut self.others))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_counted_by_kind_within_a_bound() {
        let mut refusals = Refusals::default();
        let protocol = StreamProtocol::new("/a");
        let (peer, reason) = (PeerId::random(), RefuseReason::PeerLimit { limit: 1 });
        for _ in 0..2000 {
            refusals.record(peer, protocol.clone(), reason);
        }
        for _ in 0..2000 {
            refusals.record(PeerId::random(), protocol.clone(), reason);
        }
        let (kinds, others) = refusals.take();
        assert_eq!(kinds.len(), MAX_REFUSAL_KINDS);
        assert_eq!(
            kinds.iter().find(|kind| kind.peer == peer).unwrap().count,
            2000
        );
        assert_eq!(
            kinds.iter().map(|kind| kind.count).sum::<u64>() + others,
            4000
        );
        assert!(refusals.is_empty());
    }
}
