//! Connection reversal: whoever is reached through a relay dials back directly.
//!
//! The first half of [DCUtR], which libp2p-dcutr 0.15 leaves out: a peer that can be reached
//! needs no hole, and peers behind one router meet at their private addresses.
//!
//! It leaves from a port of its own. The port we listen on belongs to the hole punch that begins at
//! the same time: with TCP there is one connection between two ports, and where both sides dial
//! from them as diallers, they meet in the middle and neither answers the other.
//!
//! [DCUtR]: https://github.com/libp2p/specs/blob/master/relay/DCUtR.md

use calimero_network_primitives::PeerId;
use libp2p_core::ConnectedPoint;
use libp2p_swarm::{
    ConnectionId, ToSwarm,
    dial_opts::{DialOpts, PeerCondition},
};

use super::{
    Behaviour,
    event::{Event, HolePunch},
};
use crate::machine::{Path, is_circuit};

/// Dials back under way at one time: what is above it is left to hole punching.
const MAX_REVERSALS: usize = 32;

impl Behaviour {
    /// `peer` has told where it is, on `connection`.
    pub(super) fn dial_back(&mut self, peer: PeerId, connection: ConnectionId) {
        let reached_by_relay = self.peers.path(&peer) == Some(Path::Relayed)
            && self.peers.is_inbound(&peer, connection);
        if !reached_by_relay || self.reversals.len() >= MAX_REVERSALS {
            return;
        }
        let mut addresses = self.machine.addresses(&peer);
        addresses.retain(|address| !is_circuit(address));
        if addresses.is_empty() {
            return;
        }
        let opts = DialOpts::peer_id(peer)
            .condition(PeerCondition::NotDialing)
            .addresses(addresses)
            .allocate_new_port()
            .build();
        self.reversals.insert(opts.connection_id());
        self.waiting.push_back(ToSwarm::Dial { opts });
    }

    /// A connection is up that may be the direct one that was tried for.
    pub(super) fn reversed(&mut self, peer: PeerId, id: ConnectionId, endpoint: &ConnectedPoint) {
        if self.reversals.remove(&id) && !endpoint.is_relayed() {
            self.hole_punched(peer, HolePunch::Direct);
        }
    }

    /// An attempt to connect directly has ended. One that failed beside one that did not says
    /// nothing.
    pub(super) fn hole_punched(&mut self, peer: PeerId, outcome: HolePunch) {
        if outcome == HolePunch::Failed && self.peers.path(&peer) != Some(Path::Relayed) {
            return;
        }
        self.peers.hole_punched(&peer, outcome);
        self.tell(Event::HolePunch { peer, outcome });
    }
}
