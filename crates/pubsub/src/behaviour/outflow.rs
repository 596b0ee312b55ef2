//! Holding back what comes while what went before has not been written.

use std::{collections::HashSet, time::Instant};

use calimero_network_primitives::PeerId;
use libp2p_gossipsub::TopicHash;
use libp2p_swarm::{CloseConnection, NotifyHandler, ToSwarm};

use super::{Behaviour, handler::ToHandler, now};
use crate::{
    event::Event,
    hold::{Held, Holds},
};

/// What is known of peers whose queues are full.
#[derive(Debug)]
pub(super) struct Outflow {
    holds: Holds,
    /// Peers whose queues messages of others have filled: nodes read slowly while there are some.
    crowded: HashSet<PeerId>,
    /// A message was refused, and the one who came with it is to be told when there is room.
    refused: bool,
    /// When a message was last put into a queue.
    last_queued: Option<Instant>,
    /// Peers whose queues have not been found empty since that was asked for.
    unsent: HashSet<PeerId>,
}

impl Outflow {
    pub(super) fn new(holds: Holds) -> Self {
        Self {
            holds,
            crowded: HashSet::new(),
            refused: false,
            last_queued: None,
            unsent: HashSet::new(),
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.holds.next_timeout()
    }
}

impl Behaviour {
    /// Whom an own message goes to, as far as gossipsub shows it.
    pub(super) fn recipients(&self, topic: &TopicHash) -> Vec<PeerId> {
        if self.flood_publish || !self.topics.contains_key(topic) {
            self.announcements.subscribers(topic)
        } else {
            self.gossipsub.mesh_peers(topic).copied().collect()
        }
    }

    /// How many of `peers` have so much to read that an own message must wait for them.
    pub(super) fn holding_back(&mut self, peers: &[PeerId]) -> usize {
        let at = now();
        let holding = peers
            .iter()
            .filter(|peer| self.is_held(peer, at, false))
            .count();
        self.outflow.refused |= holding > 0;
        holding
    }

    /// A message of others is being forwarded. Where one finds too many before it, this node reads
    /// slowly until they are written.
    pub(super) fn forwarding(&mut self, topic: &TopicHash, bytes: usize, not_to: [PeerId; 2]) {
        let mesh = self.gossipsub.mesh_peers(topic).copied();
        let recipients: Vec<_> = mesh.filter(|peer| !not_to.contains(peer)).collect();
        for peer in recipients {
            self.hand(peer, bytes);
            if self.is_held(&peer, now(), true) && self.outflow.crowded.insert(peer) {
                self.shared.set_crowded(true);
            }
        }
    }

    /// A message is about to be put into the queue of `peer`.
    pub(super) fn hand(&mut self, peer: PeerId, bytes: usize) {
        let Some(line) = self.links.line(&peer) else {
            return;
        };
        self.outflow.last_queued = Some(now());
        if line.hand(bytes) {
            self.look_after(&peer);
        }
        if line.is_over() && self.links.close_once(&peer) {
            self.tell(Event::ClosedSlow { peer });
            self.close(peer, CloseConnection::All);
        }
    }

    /// Whether the queue of `peer` holds back what comes, own messages or those of others.
    fn is_held(&mut self, peer: &PeerId, at: Instant, of_others: bool) -> bool {
        let Some(line) = self.links.line(peer) else {
            return false;
        };
        let is_full = || {
            if of_others {
                line.is_crowded()
            } else {
                line.is_full()
            }
        };
        if !is_full() {
            return false;
        }
        if line.await_empty() {
            self.look_after(peer);
        }
        // Emptied before that was asked, it would not be told of.
        is_full() && self.outflow.holds.full(*peer, at) == Held::Back
    }

    /// The queue of `peer` was found empty, or the peer is gone.
    pub(super) fn drained(&mut self, peer: &PeerId) {
        self.outflow.unsent.remove(peer);
        self.outflow.holds.drained(peer);
        self.relieved(peer);
    }

    /// Has every connection tell when what is queued for its peer now has been written.
    /// [`is_flushed`](Self::is_flushed) says when all have. Gives when a message was last queued,
    /// own ones and those of others.
    pub fn flush(&mut self) -> Option<Instant> {
        let unsent: HashSet<_> = self.links.unsent().collect();
        for peer in &unsent {
            if let Some(line) = self.links.line(peer) {
                line.await_empty();
                self.look_after(peer);
            }
        }
        self.outflow.unsent = unsent;
        self.outflow.last_queued
    }

    /// Whether all that was queued at the last [`flush`](Self::flush) has been handed to the
    /// transport, or its peer is gone.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.outflow.unsent.is_empty()
    }

    /// Goes on without the peers that have held back for too long.
    pub(super) fn excuse_held(&mut self, at: Instant) {
        while let Some(peer) = self.outflow.holds.excuse(at) {
            self.tell(Event::Slow { peer, lost: 0 });
            self.relieved(&peer);
        }
    }

    /// `peer` does not hold back any more. Tells those who wait if it was the last that did.
    fn relieved(&mut self, peer: &PeerId) {
        if self.outflow.crowded.remove(peer) && self.outflow.crowded.is_empty() {
            self.shared.set_crowded(false);
        }
        if self.outflow.holds.next_timeout().is_none() && std::mem::take(&mut self.outflow.refused)
        {
            self.tell(Event::Room);
            for topic in self.keep.topics() {
                self.send_kept(&topic);
            }
        }
    }

    /// Has the connections of `peer` look whether its queue is empty.
    fn look_after(&mut self, peer: &PeerId) {
        for connection in self.links.connections(peer) {
            self.waiting.push_back(ToSwarm::NotifyHandler {
                peer_id: *peer,
                handler: NotifyHandler::One(*connection),
                event: ToHandler::Look,
            });
        }
    }
}
