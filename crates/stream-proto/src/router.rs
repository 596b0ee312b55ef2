//! Which connection a stream is opened on, and who waits: no IO, no clock.
//!
//! The driver reports what happens by the methods of [`Router`] and carries out the [`Effect`]s,
//! in order. A request ends with [`Router::finished`] and an outcome that is final, with
//! [`Effect::Fail`], or with [`Router::cancel`].

use std::collections::{BTreeMap, BTreeSet, HashMap};

use libp2p_identity::PeerId;
use libp2p_swarm::ConnectionId;

/// A request to open one stream. Later ones compare greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(u64);

/// What the driver is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Dial, and say so by [`Router::dial_started`].
    Dial(PeerId),
    /// Open a substream for the request on this connection.
    Negotiate(ConnectionId, RequestId),
    /// Tell the request that it failed.
    Fail(RequestId, Failure),
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The dial that was just reported.
    Dial,
    /// The last connection that was left for it closed.
    ConnectionClosed,
    /// The negotiation that was just reported.
    Negotiation,
}

/// How a negotiation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// With a stream.
    Opened,
    /// The peer does not speak the protocol.
    Unsupported,
    /// The connection did not carry it. Another one may.
    Broken,
    /// The peer did not answer in time.
    TimedOut,
    /// It was not begun: the request had been cancelled.
    Skipped,
}

/// The bounds the router keeps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Streams negotiated at one time on one connection.
    pub(crate) negotiating: usize,
    /// Streams negotiated or open on one connection.
    pub(crate) open: usize,
    /// Requests of one peer that wait.
    pub(crate) waiting: usize,
}

/// Assigns requests to connections.
#[derive(Debug)]
pub(crate) struct Router {
    bounds: Bounds,
    peers: HashMap<PeerId, Peer>,
    requests: HashMap<RequestId, Request>,
    next: u64,
}

#[derive(Debug, Default)]
struct Peer {
    connections: BTreeMap<ConnectionId, Connection>,
    /// In the order in which they came.
    waiting: BTreeSet<RequestId>,
    dial: Dial,
}

#[derive(Debug)]
struct Connection {
    relayed: bool,
    /// The last thing tried on it failed.
    suspect: bool,
    negotiating: BTreeSet<RequestId>,
    /// Streams that were opened on it and are not [released](Router::released).
    open: usize,
}

impl Connection {
    /// Streams that are, or are about to be.
    fn streams(&self) -> usize {
        self.negotiating.len() + self.open
    }

    fn has_slot(&self, bounds: Bounds) -> bool {
        self.negotiating.len() < bounds.negotiating && self.streams() < bounds.open
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Dial {
    #[default]
    None,
    /// Asked of the driver, not begun.
    Asked,
    /// Begun by the driver.
    Ours(ConnectionId),
    /// Somebody else's, whose outcome is awaited.
    Theirs,
}

#[derive(Debug)]
struct Request {
    peer: PeerId,
    /// Where it is being negotiated; `None` while it waits.
    on: Option<ConnectionId>,
    /// Connections that broke under it.
    tried: Vec<ConnectionId>,
}

impl Router {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            peers: HashMap::new(),
            requests: HashMap::new(),
            next: 0,
        }
    }

    /// Takes a request, unless as many wait for the peer as may.
    pub(crate) fn open(&mut self, peer: PeerId, effects: &mut Vec<Effect>) -> Option<RequestId> {
        let entry = self.peers.entry(peer).or_default();
        if entry.waiting.len() >= self.bounds.waiting {
            return None;
        }
        let id = RequestId(self.next);
        self.next += 1;
        entry.waiting.insert(id);
        self.requests.insert(
            id,
            Request {
                peer,
                on: None,
                tried: Vec::new(),
            },
        );
        if entry.connections.is_empty() && entry.dial == Dial::None {
            entry.dial = Dial::Asked;
            effects.push(Effect::Dial(peer));
        }
        self.dispatch(peer, effects);
        Some(id)
    }

    /// Forgets a request that nobody waits for any more. A negotiation under way keeps its slot
    /// until it is [`finished`](Self::finished).
    pub(crate) fn cancel(&mut self, id: RequestId, effects: &mut Vec<Effect>) {
        let Some(request) = self.requests.remove(&id) else {
            return;
        };
        if let Some(peer) = self.peers.get_mut(&request.peer) {
            peer.waiting.remove(&id);
        }
        // Those behind it may have waited for nothing else.
        self.dispatch(request.peer, effects);
        self.tidy(request.peer);
    }

    /// Forgets a request whose deadline passed, and trusts the connection it hung on less.
    pub(crate) fn expire(&mut self, id: RequestId, effects: &mut Vec<Effect>) {
        let hung = self.requests.get(&id).and_then(|request| {
            let peer = self.peers.get_mut(&request.peer)?;
            peer.connections.get_mut(&request.on?)
        });
        if let Some(connection) = hung {
            connection.suspect = true;
        }
        self.cancel(id, effects);
    }

    /// A connection stands, whoever made it.
    pub(crate) fn established(
        &mut self,
        peer: PeerId,
        id: ConnectionId,
        relayed: bool,
        effects: &mut Vec<Effect>,
    ) {
        let entry = self.peers.entry(peer).or_default();
        entry.dial = Dial::None;
        entry.connections.insert(
            id,
            Connection {
                relayed,
                suspect: false,
                negotiating: BTreeSet::new(),
                open: 0,
            },
        );
        self.dispatch(peer, effects);
    }

    /// Whether a connection goes through a relay. `false` where it is gone.
    pub(crate) fn is_relayed(&self, peer: PeerId, id: ConnectionId) -> bool {
        let connection = (self.peers.get(&peer)).and_then(|entry| entry.connections.get(&id));
        connection.is_some_and(|connection| connection.relayed)
    }

    /// A connection is gone. What was under way on it moves to another one, if there is one.
    pub(crate) fn closed(&mut self, peer: PeerId, id: ConnectionId, effects: &mut Vec<Effect>) {
        let Some(entry) = self.peers.get_mut(&peer) else {
            return;
        };
        let Some(connection) = entry.connections.remove(&id) else {
            return;
        };
        for request in connection.negotiating {
            if !self.retry(request, id) {
                self.fail(request, Failure::ConnectionClosed, effects);
            }
        }
        self.dispatch(peer, effects);
        self.strand(peer, Failure::ConnectionClosed, effects);
        self.tidy(peer);
    }

    /// Whether a dial asked for is still wanted. If not, it counts as not asked for.
    pub(crate) fn wants_dial(&mut self, peer: PeerId) -> bool {
        let Some(entry) = self.peers.get_mut(&peer) else {
            return false;
        };
        if entry.dial != Dial::Asked {
            return false;
        }
        let wanted = !entry.waiting.is_empty();
        if !wanted {
            entry.dial = Dial::None;
            self.tidy(peer);
        }
        wanted
    }

    /// The dial that was asked for goes by this connection id.
    pub(crate) fn dial_started(&mut self, peer: PeerId, id: ConnectionId) {
        if let Some(entry) = self.peers.get_mut(&peer) {
            entry.dial = Dial::Ours(id);
        }
    }

    /// A dial was not begun because the peer is being dialled by somebody else, whose outcome
    /// counts for those who wait here.
    pub(crate) fn dial_shared(&mut self, peer: PeerId, id: ConnectionId) {
        if let Some(entry) = self.peers.get_mut(&peer)
            && entry.dial == Dial::Ours(id)
        {
            entry.dial = Dial::Theirs;
        }
    }

    /// A dial of the peer failed. It matters to those who wait if it is the one they wait for.
    pub(crate) fn dial_failed(
        &mut self,
        peer: PeerId,
        id: ConnectionId,
        effects: &mut Vec<Effect>,
    ) {
        let Some(entry) = self.peers.get_mut(&peer) else {
            return;
        };
        if entry.dial != Dial::Theirs && entry.dial != Dial::Ours(id) {
            return;
        }
        entry.dial = Dial::None;
        self.strand(peer, Failure::Dial, effects);
        self.tidy(peer);
    }

    /// A negotiation ended. A stream that was opened for a request which is still known counts
    /// until it is [`released`](Self::released).
    pub(crate) fn finished(
        &mut self,
        peer: PeerId,
        on: ConnectionId,
        id: RequestId,
        outcome: Outcome,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(connection) = self.connection(peer, on) {
            connection.negotiating.remove(&id);
            match outcome {
                Outcome::Opened | Outcome::Unsupported => connection.suspect = false,
                Outcome::Broken | Outcome::TimedOut => connection.suspect = true,
                Outcome::Skipped => {}
            }
        }
        let current = self.requests.get(&id).is_some_and(|r| r.on == Some(on));
        match outcome {
            _ if !current => {}
            Outcome::Opened => {
                self.requests.remove(&id);
                if let Some(connection) = self.connection(peer, on) {
                    connection.open += 1;
                }
            }
            Outcome::Broken if self.retry(id, on) => {}
            _ => self.fail(id, Failure::Negotiation, effects),
        }
        self.dispatch(peer, effects);
    }

    /// A stream that was opened on a connection is gone.
    pub(crate) fn released(&mut self, peer: PeerId, on: ConnectionId, effects: &mut Vec<Effect>) {
        if let Some(connection) = self.connection(peer, on) {
            connection.open = connection.open.saturating_sub(1);
            self.dispatch(peer, effects);
        }
    }

    fn connection(&mut self, peer: PeerId, id: ConnectionId) -> Option<&mut Connection> {
        self.peers.get_mut(&peer)?.connections.get_mut(&id)
    }

    /// Puts a request back in line after `broken` failed it, if another connection may serve it.
    fn retry(&mut self, id: RequestId, broken: ConnectionId) -> bool {
        let Some(request) = self.requests.get_mut(&id) else {
            return false;
        };
        let Some(peer) = self.peers.get_mut(&request.peer) else {
            return false;
        };
        request.on = None;
        request.tried.push(broken);
        let possible = peer.waiting.len() < self.bounds.waiting
            && (peer.connections.keys()).any(|other| !request.tried.contains(other));
        if possible {
            peer.waiting.insert(id);
        }
        possible
    }

    /// Assigns those who wait to connections, in order, as far as there are slots.
    fn dispatch(&mut self, peer: PeerId, effects: &mut Vec<Effect>) {
        let Some(entry) = self.peers.get_mut(&peer) else {
            return;
        };
        while !entry.connections.is_empty()
            && let Some(id) = entry.waiting.first().copied()
        {
            let Some(request) = self.requests.get_mut(&id) else {
                entry.waiting.remove(&id);
                continue;
            };
            let Some((&on, connection)) = best(&mut entry.connections, &request.tried) else {
                // Those it had not tried closed while it waited.
                entry.waiting.remove(&id);
                self.requests.remove(&id);
                effects.push(Effect::Fail(id, Failure::ConnectionClosed));
                continue;
            };
            if !connection.has_slot(self.bounds) {
                return;
            }
            entry.waiting.remove(&id);
            connection.negotiating.insert(id);
            request.on = Some(on);
            effects.push(Effect::Negotiate(on, id));
        }
    }

    /// Fails all who wait for a peer that has no connection.
    fn strand(&mut self, peer: PeerId, failure: Failure, effects: &mut Vec<Effect>) {
        let Some(entry) = self.peers.get_mut(&peer) else {
            return;
        };
        if entry.connections.is_empty() {
            for id in std::mem::take(&mut entry.waiting) {
                self.fail(id, failure, effects);
            }
        }
    }

    fn fail(&mut self, id: RequestId, failure: Failure, effects: &mut Vec<Effect>) {
        if self.requests.remove(&id).is_some() {
            effects.push(Effect::Fail(id, failure));
        }
    }

    /// Forgets a peer of whom there is nothing to remember.
    fn tidy(&mut self, peer: PeerId) {
        if self.peers.get(&peer).is_some_and(|entry| {
            entry.connections.is_empty() && entry.waiting.is_empty() && entry.dial == Dial::None
        }) {
            self.peers.remove(&peer);
        }
    }
}

/// The connection to use: one that worked before one that did not, direct before relayed, then
/// the one with the fewest streams. A relayed connection does not take what a busy direct
/// one leaves: those wait in line.
fn best<'a>(
    connections: &'a mut BTreeMap<ConnectionId, Connection>,
    tried: &[ConnectionId],
) -> Option<(&'a ConnectionId, &'a mut Connection)> {
    connections
        .iter_mut()
        .filter(|(id, _)| !tried.contains(id))
        .min_by_key(|(_, one)| (one.suspect, one.relayed, one.streams()))
}

#[cfg(test)]
#[path = "router_tests.rs"]
mod tests;
