//! The limits that relays named for circuits, until the connections of the circuits are known.

use std::collections::VecDeque;

use calimero_network_primitives::PeerId;

use crate::machine::CircuitLimit;

/// Most peers whose limit is stored, 64. A limit comes some milliseconds before its connection,
/// so more are stored only if many circuits are opened at the same time.
const MAX_STORED: usize = 64;

/// The latest limit for each of some peers. The oldest one makes room for the newest.
#[derive(Debug, Default)]
struct Latest(VecDeque<(PeerId, CircuitLimit)>);

impl Latest {
    fn set(&mut self, peer: PeerId, limit: CircuitLimit) {
        self.take(&peer);
        if self.0.len() >= MAX_STORED {
            self.0.pop_front();
        }
        self.0.push_back((peer, limit));
    }

    fn get(&self, peer: &PeerId) -> Option<CircuitLimit> {
        let mut entries = self.0.iter();
        entries.find(|(of, _)| of == peer).map(|(_, limit)| *limit)
    }

    fn take(&mut self, peer: &PeerId) -> Option<CircuitLimit> {
        let at = self.0.iter().position(|(of, _)| of == peer)?;
        self.0.remove(at).map(|(_, limit)| limit)
    }
}

/// The limits of circuits whose connections may follow.
///
/// libp2p-relay 0.22 names the relay of a circuit that this node dialled, but not its target. The
/// latest limit of the relay counts: a relay has the same for all. Of a circuit that a peer dialled
/// it names the peer.
#[derive(Debug, Default)]
pub(super) struct Circuits {
    /// By relay.
    dialled: Latest,
    /// By peer, until its connection is established.
    accepted: Latest,
}

impl Circuits {
    /// `relay` opened a circuit for this node.
    pub(super) fn on_dialled(&mut self, relay: PeerId, limit: CircuitLimit) {
        self.dialled.set(relay, limit);
    }

    /// `peer` opened a circuit to this node.
    pub(super) fn on_accepted(&mut self, peer: PeerId, limit: CircuitLimit) {
        self.accepted.set(peer, limit);
    }

    /// Returns the limit of a connection that this node dialled through `relay`.
    pub(super) fn limit_of_dialled(&self, relay: &PeerId) -> Option<CircuitLimit> {
        self.dialled.get(relay)
    }

    /// Returns the limit of a connection that `peer` established through a relay.
    pub(super) fn take_limit_of_accepted(&mut self, peer: &PeerId) -> Option<CircuitLimit> {
        self.accepted.take(peer)
    }
}

#[cfg(test)]
mod tests;
