//! How many inbound streams may be open, and the book of those that were refused: no IO, no clock.

use std::collections::HashMap;

use libp2p_identity::PeerId;
use libp2p_swarm::StreamProtocol;

/// Kinds of refusal remembered at one time. A flood comes from few peers for few protocols; what
/// is beyond is counted without its peer.
const MAX_REFUSAL_KINDS: usize = 1024;

/// Why an inbound stream was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum RefuseReason {
    /// The peer has as many inbound streams open as one peer may.
    PeerLimit {
        /// Streams.
        limit: usize,
    },
    /// As many inbound streams are open as may be in all.
    TotalLimit {
        /// Streams.
        limit: usize,
    },
    /// As many streams wait to be taken from [`Incoming`](crate::Incoming) as may.
    QueueFull {
        /// Streams.
        limit: usize,
    },
    /// The protocol stopped being accepted while the stream was negotiated.
    NotAccepted,
}

/// Counts open inbound streams.
#[derive(Debug)]
pub(crate) struct Admission {
    max_per_peer: usize,
    max_total: usize,
    open: HashMap<PeerId, usize>,
    total: usize,
}

impl Admission {
    pub(crate) fn new(max_per_peer: usize, max_total: usize) -> Self {
        Self {
            max_per_peer,
            max_total,
            open: HashMap::new(),
            total: 0,
        }
    }

    /// Counts one more stream of `peer`, if there may be one.
    pub(crate) fn admit(&mut self, peer: PeerId) -> Result<(), RefuseReason> {
        if self.total >= self.max_total {
            let limit = self.max_total;
            return Err(RefuseReason::TotalLimit { limit });
        }
        if self
            .open
            .get(&peer)
            .is_some_and(|open| *open >= self.max_per_peer)
        {
            let limit = self.max_per_peer;
            return Err(RefuseReason::PeerLimit { limit });
        }
        *self.open.entry(peer).or_default() += 1;
        self.total += 1;
        Ok(())
    }

    /// Counts one stream of `peer` less.
    pub(crate) fn release(&mut self, peer: PeerId) {
        if let Some(open) = self.open.get_mut(&peer) {
            *open -= 1;
            self.total -= 1;
            if *open == 0 {
                self.open.remove(&peer);
            }
        }
    }

    /// Open inbound streams of all peers.
    pub(crate) fn total(&self) -> usize {
        self.total
    }
}

/// Refusals since they were last reported.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    counts: HashMap<(PeerId, StreamProtocol, RefuseReason), u64>,
    /// Those that found no place in `counts`.
    others: u64,
}

/// Refusals of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) peer: PeerId,
    pub(crate) protocol: StreamProtocol,
    pub(crate) reason: RefuseReason,
    pub(crate) count: u64,
}

impl Refusals {
    pub(crate) fn note(&mut self, peer: PeerId, protocol: StreamProtocol, reason: RefuseReason) {
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

    /// Takes what was noted: per kind, and the number of those without a kind.
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
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refusals_are_counted_by_kind_within_a_bound() {
        let mut refusals = Refusals::default();
        let protocol = StreamProtocol::new("/a");
        let (peer, reason) = (PeerId::random(), RefuseReason::PeerLimit { limit: 1 });
        for _ in 0..2000 {
            refusals.note(peer, protocol.clone(), reason);
        }
        for _ in 0..2000 {
            refusals.note(PeerId::random(), protocol.clone(), reason);
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

    proptest! {
        #[test]
        fn never_more_than_the_limits_and_all_places_come_back(
            per_peer in 1..5usize,
            total in 1..12usize,
            steps in prop::collection::vec((0..4usize, any::<bool>()), 0..200),
        ) {
            let peers: Vec<_> = (0..4).map(|_| PeerId::random()).collect();
            let mut admission = Admission::new(per_peer, total);
            let mut open = [0; 4];
            for (who, admit) in steps {
                if admit {
                    let room = open[who] < per_peer && open.iter().sum::<usize>() < total;
                    prop_assert_eq!(admission.admit(peers[who]).is_ok(), room);
                    open[who] += usize::from(room);
                } else if open[who] > 0 {
                    admission.release(peers[who]);
                    open[who] -= 1;
                }
                prop_assert_eq!(admission.total(), open.iter().sum::<usize>());
            }
            for (who, open) in open.into_iter().enumerate() {
                (0..open).for_each(|_| admission.release(peers[who]));
            }
            prop_assert_eq!(admission.total(), 0);
            prop_assert!(admission.open.is_empty());
        }
    }
}
