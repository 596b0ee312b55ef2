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

use calimero_network_primitives::{PeerId, addr::is_relayed};
use libp2p_core::ConnectedPoint;
use libp2p_swarm::{
    CloseConnection, ConnectionId, ToSwarm,
    dial_opts::{DialOpts, PeerCondition},
};

use super::{
    Behaviour,
    event::{Event, HolePunch},
    now,
    peers::PathChange,
    punches::Round,
};
use crate::machine::Path;

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
        let mut addresses = self.known_addresses(&peer);
        addresses.retain(|address| !is_relayed(address));
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

    /// A connection is up: through a relay, which is the beginning of a hole punch, or direct, which
    /// is the end of it.
    pub(super) fn opened_for_punch(
        &mut self,
        peer: PeerId,
        id: ConnectionId,
        endpoint: &ConnectedPoint,
    ) {
        let for_a_round = self.rounds.remove(&id);
        if self.peers.path(&peer) == Some(Path::Direct) {
            self.punches.succeeded(&peer);
        } else if endpoint.is_dialer() {
            let via = endpoint.get_remote_address().clone();
            self.punches.began(peer, via, now());
        }
        if for_a_round && endpoint.is_relayed() {
            self.punches.spare(peer, id, now());
        }
    }

    /// A connection is gone: the last one, or the direct one of a peer that is relayed again.
    pub(super) fn closed_for_punch(&mut self, peer: PeerId, (from, to): PathChange) {
        match to {
            None => self.punches.disconnected(peer, now()),
            Some(Path::Relayed) if from == Some(Path::Direct) => {
                if let Some(via) = self.peers.dialled_circuit(&peer) {
                    self.punches.began(peer, via, now());
                }
            }
            Some(_) => {}
        }
    }

    /// Begins the hole punches that are due, each by another connection through the relay, and
    /// closes the connections that have served theirs.
    pub(super) fn punch_again(&mut self) {
        while let Some(Round {
            peer,
            via,
            ended_unheard,
        }) = self.punches.due(now())
        {
            if ended_unheard {
                self.peers.hole_punched(&peer, HolePunch::Failed);
                let outcome = HolePunch::Failed;
                self.tell(Event::HolePunch { peer, outcome });
            }
            let mut addresses = self.known_addresses(&peer);
            addresses.retain(|address| is_relayed(address) && *address != via);
            addresses.insert(0, via);
            let opts = DialOpts::peer_id(peer)
                .condition(PeerCondition::NotDialing)
                .addresses(addresses)
                .build();
            self.rounds.insert(opts.connection_id());
            self.waiting.push_back(ToSwarm::Dial { opts });
        }
        while let Some((peer_id, connection)) = self.punches.pop_spare(now()) {
            // It is the only one where the relay has ended the other.
            if self.peers.relayed(&peer_id).len() > 1 {
                self.waiting.push_back(ToSwarm::CloseConnection {
                    peer_id,
                    connection: CloseConnection::One(connection),
                });
            }
        }
    }

    /// An attempt to connect directly has ended. One that failed beside one that did not says
    /// nothing.
    pub(super) fn hole_punched(&mut self, peer: PeerId, outcome: HolePunch) {
        if outcome == HolePunch::Failed && self.peers.path(&peer) != Some(Path::Relayed) {
            return;
        }
        if outcome == HolePunch::Failed {
            self.punches.failed(peer, now());
        }
        self.peers.hole_punched(&peer, outcome);
        self.tell(Event::HolePunch { peer, outcome });
    }
}
