//! Which peers are worth a connection that carries nothing else.

use std::{collections::HashMap, sync::Arc};

use calimero_network_primitives::PeerId;
use libp2p_swarm::{ConnectionId, NotifyHandler, ToSwarm};

use super::{
    Behaviour,
    handler::ToHandler,
    line::{Line, LineLimits},
};

/// The connections of each peer.
#[derive(Debug)]
pub(super) struct Links {
    limits: LineLimits,
    peers: HashMap<PeerId, Peer>,
}

#[derive(Debug)]
struct Peer {
    connections: Vec<ConnectionId>,
    /// A message has gone one way or the other.
    exchanged: bool,
    /// What the connections were told.
    keep: bool,
    /// What waits to be written to it.
    line: Arc<Line>,
    /// All its connections are being closed.
    closing: bool,
}

impl Peer {
    fn new(limits: LineLimits) -> Self {
        Self {
            connections: Vec::new(),
            exchanged: false,
            keep: false,
            line: Arc::new(Line::new(limits)),
            closing: false,
        }
    }
}

impl Links {
    pub(super) fn new(limits: LineLimits) -> Self {
        Self {
            limits,
            peers: HashMap::new(),
        }
    }

    /// What waits to be written to `peer`, if it is connected.
    pub(super) fn line(&self, peer: &PeerId) -> Option<Arc<Line>> {
        self.peers.get(peer).map(|peer| Arc::clone(&peer.line))
    }

    /// Peers for whom something may wait to be written.
    pub(super) fn unsent(&self) -> impl Iterator<Item = PeerId> {
        let unsent = self.peers.iter().filter(|(_, peer)| !peer.line.is_empty());
        unsent.map(|(id, _)| *id)
    }

    pub(super) fn connections(&self, peer: &PeerId) -> &[ConnectionId] {
        self.peers.get(peer).map_or(&[], |peer| &peer.connections)
    }

    /// Whether the connections of `peer` are to be closed now, and not already.
    pub(super) fn close_once(&mut self, peer: &PeerId) -> bool {
        let known = self.peers.get_mut(peer);
        known.is_some_and(|peer| !std::mem::replace(&mut peer.closing, true))
    }

    pub(super) fn closed(&mut self, peer: &PeerId, connection: ConnectionId) {
        if let Some(known) = self.peers.get_mut(peer) {
            known.connections.retain(|other| *other != connection);
            if known.connections.is_empty() {
                self.peers.remove(peer);
            }
        }
    }

    /// What a new connection with `peer` is told.
    pub(super) fn keeps(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_some_and(|peer| peer.keep)
    }
}

impl Behaviour {
    /// A connection stands. What its handler was made with may be out of date.
    pub(super) fn link_opened(&mut self, peer: PeerId, connection: ConnectionId) {
        let limits = self.links.limits;
        let known = self.links.peers.entry(peer);
        let known = known.or_insert_with(|| Peer::new(limits));
        known.connections.push(connection);
        self.waiting.push_back(ToSwarm::NotifyHandler {
            peer_id: peer,
            handler: NotifyHandler::One(connection),
            event: ToHandler::Line(Arc::clone(&known.line)),
        });
        if known.keep {
            self.waiting.push_back(ToSwarm::NotifyHandler {
                peer_id: peer,
                handler: NotifyHandler::One(connection),
                event: ToHandler::Keep(true),
            });
        }
    }

    /// A message has come from `peer`, or is about to go to it.
    pub(super) fn exchanged(&mut self, peer: PeerId) {
        if let Some(known) = self.links.peers.get_mut(&peer)
            && !known.exchanged
        {
            known.exchanged = true;
            self.review_link(peer);
        }
    }

    /// Tells the connections of `peer` whether it is worth them, where that has changed.
    pub(super) fn review_link(&mut self, peer: PeerId) {
        let Some(known) = self.links.peers.get_mut(&peer) else {
            return;
        };
        let keep = known.exchanged || self.announcements.is_in_common(&peer);
        if std::mem::replace(&mut known.keep, keep) == keep {
            return;
        }
        for connection in &known.connections {
            self.waiting.push_back(ToSwarm::NotifyHandler {
                peer_id: peer,
                handler: NotifyHandler::One(*connection),
                event: ToHandler::Keep(keep),
            });
        }
    }

    /// As [`review_link`](Self::review_link), of every peer.
    pub(super) fn review_links(&mut self) {
        let peers: Vec<_> = self.links.peers.keys().copied().collect();
        for peer in peers {
            self.review_link(peer);
        }
    }
}
