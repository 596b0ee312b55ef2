//! Assigns requests for streams to connections and tracks waiting requests. No
//! IO, no clock.
//!
//! The caller reports events through the methods of [`Router`] and executes the
//! returned [`Effect`]s in order. A request ends with a call of
//! [`Router::finished`] with a final outcome, with [`Effect::Fail`], or with
//! [`Router::cancel`].

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use calimero_network_primitives::round_trips::{self, RoundTrips};
use libp2p_identity::PeerId;
use libp2p_swarm::ConnectionId;

/// Identifier of a request to open one stream. Identifiers increase with time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(u64);

/// An action that the caller must execute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Dial the peer and report the connection id through
    /// [`Router::dial_started`].
    Dial(PeerId),
    /// Open a substream for the request on the connection.
    Negotiate(ConnectionId, RequestId),
    /// Fail the request with the given reason.
    Fail(RequestId, Failure),
}

/// Reason for which a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The dial that was just reported as failed.
    Dial,
    /// The last usable connection closed.
    ConnectionClosed,
    /// The negotiation that was just reported.
    Negotiation,
}

/// Outcome of a negotiation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A stream was opened.
    Opened,
    /// The peer does not support the protocol.
    Unsupported,
    /// The connection failed. Another connection may succeed.
    Broken,
    /// The peer did not answer before the deadline.
    TimedOut,
    /// The negotiation was not started because the request was cancelled.
    Skipped,
}

/// Limits that the router enforces.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Concurrent negotiations on one connection.
    pub(crate) negotiating: usize,
    /// Streams on one connection, negotiating or open.
    pub(crate) open: usize,
    /// Waiting requests of one peer.
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
    /// Waiting requests in order of arrival.
    waiting: BTreeSet<RequestId>,
    dial: Dial,
}

#[derive(Debug)]
struct Connection {
    relayed: bool,
    /// The last operation on this connection failed.
    suspect: bool,
    /// The peer did not answer the last ping on it.
    silent: bool,
    round_trips: RoundTrips,
    negotiating: BTreeSet<RequestId>,
    /// Streams that were opened on it and not [released](Router::released).
    open: usize,
}

impl Peer {
    /// Decides which connections are slow. Direct ones are preferred to relayed ones whatever their
    /// round trips, so that each kind is compared with itself.
    fn compare(&mut self) {
        for relayed in [false, true] {
            let of_kind = self.connections.values_mut();
            let of_kind = of_kind.filter(|one| one.relayed == relayed);
            round_trips::compare(of_kind.map(|one| &mut one.round_trips));
        }
    }
}

impl Connection {
    /// Returns the number of open and negotiating streams.
    fn streams(&self) -> usize {
        self.negotiating.len() + self.open
    }

    fn has_capacity(&self, bounds: Bounds) -> bool {
        self.negotiating.len() < bounds.negotiating && self.streams() < bounds.open
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Dial {
    #[default]
    None,
    /// Requested from the caller, not started.
    Requested,
    /// Started by the caller.
    Own(ConnectionId),
    /// Started by another behaviour; the requests wait for its outcome.
    Other,
}

#[derive(Debug)]
struct Request {
    peer: PeerId,
    /// Connection on which it is negotiated; `None` while it waits.
    on: Option<ConnectionId>,
    /// Connections on which its negotiation failed.
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

    /// Adds a request. Returns `None` if the limit of waiting requests of the
    /// peer is reached.
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
            entry.dial = Dial::Requested;
            effects.push(Effect::Dial(peer));
        }
        self.dispatch(peer, effects);
        Some(id)
    }

    /// Removes a request that was cancelled. A negotiation in progress counts
    /// until it is [`finished`](Self::finished).
    pub(crate) fn cancel(&mut self, id: RequestId, effects: &mut Vec<Effect>) {
        let Some(request) = self.requests.remove(&id) else {
            return;
        };
        if let Some(peer) = self.peers.get_mut(&request.peer) {
            peer.waiting.remove(&id);
        }
        // Later requests may have waited only for this one.
        self.dispatch(request.peer, effects);
        self.remove_if_idle(request.peer);
    }

    /// Removes a request after its deadline and marks the connection on which
    /// it was negotiated as suspect.
    pub(crate) fn expire(&mut self, id: RequestId, effects: &mut Vec<Effect>) {
        let connection = self.requests.get(&id).and_then(|request| {
            let peer = self.peers.get_mut(&request.peer)?;
            peer.connections.get_mut(&request.on?)
        });
        if let Some(connection) = connection {
            connection.suspect = true;
        }
        self.cancel(id, effects);
    }

    /// Reports a new connection, inbound or outbound.
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
                silent: false,
                round_trips: RoundTrips::default(),
                negotiating: BTreeSet::new(),
                open: 0,
            },
        );
        self.dispatch(peer, effects);
    }

    /// Reports that the peer answered a ping on the connection after `round_trip`.
    pub(crate) fn measured(
        &mut self,
        peer: PeerId,
        id: ConnectionId,
        round_trip: Duration,
        effects: &mut Vec<Effect>,
    ) {
        let Some(entry) = self.peers.get_mut(&peer) else {
            return;
        };
        let Some(connection) = entry.connections.get_mut(&id) else {
            return;
        };
        connection.silent = false;
        connection.round_trips.add(round_trip);
        entry.compare();
        // Requests may wait although this one, which was silent, has capacity.
        self.dispatch(peer, effects);
    }

    /// Reports that the peer did not answer a ping on the connection.
    pub(crate) fn unanswered(&mut self, peer: PeerId, id: ConnectionId) {
        if let Some(connection) = self.connection(peer, id) {
            connection.silent = true;
        }
    }

    /// Returns `true` if the connection exists and is relayed.
    pub(crate) fn is_relayed(&self, peer: PeerId, id: ConnectionId) -> bool {
        let connection = (self.peers.get(&peer)).and_then(|entry| entry.connections.get(&id));
        connection.is_some_and(|connection| connection.relayed)
    }

    /// Reports a closed connection. Negotiations on it move to another
    /// connection of the peer, if there is one.
    pub(crate) fn closed(&mut self, peer: PeerId, id: ConnectionId, effects: &mut Vec<Effect>) {
        let Some(entry) = self.peers.get_mut(&peer) else {
            return;
        };
        let Some(connection) = entry.connections.remove(&id) else {
            return;
        };
        // The fastest one may have been this one.
        entry.compare();
        // All requests return to the queue before `dispatch` runs, so that
        // their original order is preserved on the next connection.
        for request in connection.negotiating {
            if !self.retry(request, id) {
                self.fail(request, Failure::ConnectionClosed, effects);
            }
        }
        self.dispatch(peer, effects);
        self.fail_waiting(peer, Failure::ConnectionClosed, effects);
        self.remove_if_idle(peer);
    }

    /// Returns `true` if a requested dial is still needed. Otherwise the dial
    /// is no longer recorded as requested.
    pub(crate) fn wants_dial(&mut self, peer: PeerId) -> bool {
        let Some(entry) = self.peers.get_mut(&peer) else {
            return false;
        };
        if entry.dial != Dial::Requested {
            return false;
        }
        let wanted = !entry.waiting.is_empty();
        if !wanted {
            entry.dial = Dial::None;
            self.remove_if_idle(peer);
        }
        wanted
    }

    /// Records the connection id of the requested dial.
    pub(crate) fn dial_started(&mut self, peer: PeerId, id: ConnectionId) {
        if let Some(entry) = self.peers.get_mut(&peer) {
            entry.dial = Dial::Own(id);
        }
    }

    /// Reports that the dial was not started because another dial of the peer
    /// is in progress. The outcome of that dial applies to the waiting
    /// requests.
    pub(crate) fn dial_shared(&mut self, peer: PeerId, id: ConnectionId) {
        if let Some(entry) = self.peers.get_mut(&peer)
            && entry.dial == Dial::Own(id)
        {
            entry.dial = Dial::Other;
        }
    }

    /// Reports a failed dial. It fails the waiting requests if it is the dial
    /// that they wait for.
    pub(crate) fn dial_failed(
        &mut self,
        peer: PeerId,
        id: ConnectionId,
        effects: &mut Vec<Effect>,
    ) {
        let Some(entry) = self.peers.get_mut(&peer) else {
            return;
        };
        if entry.dial != Dial::Other && entry.dial != Dial::Own(id) {
            return;
        }
        entry.dial = Dial::None;
        self.fail_waiting(peer, Failure::Dial, effects);
        self.remove_if_idle(peer);
    }

    /// Reports the outcome of a negotiation. A stream that was opened for a
    /// known request counts until it is [`released`](Self::released).
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
        // A request that was cancelled, or moved to another connection, ignores
        // the late outcome.
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

    /// Reports that a stream was dropped.
    pub(crate) fn released(&mut self, peer: PeerId, on: ConnectionId, effects: &mut Vec<Effect>) {
        if let Some(connection) = self.connection(peer, on) {
            connection.open = connection.open.saturating_sub(1);
            self.dispatch(peer, effects);
        }
    }

    fn connection(&mut self, peer: PeerId, id: ConnectionId) -> Option<&mut Connection> {
        self.peers.get_mut(&peer)?.connections.get_mut(&id)
    }

    /// Returns a request to the wait queue after it failed on `broken`, if
    /// another connection may serve it.
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

    /// Assigns waiting requests to connections in order, until the limits of
    /// the connections are reached.
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
            let best = best(&mut entry.connections, &request.tried, self.bounds);
            let Some((&on, connection)) = best else {
                // All connections that it had not tried closed while it waited.
                entry.waiting.remove(&id);
                self.requests.remove(&id);
                effects.push(Effect::Fail(id, Failure::ConnectionClosed));
                continue;
            };
            if !connection.has_capacity(self.bounds) {
                return;
            }
            entry.waiting.remove(&id);
            connection.negotiating.insert(id);
            request.on = Some(on);
            effects.push(Effect::Negotiate(on, id));
        }
    }

    /// Fails all waiting requests of a peer without a connection.
    fn fail_waiting(&mut self, peer: PeerId, failure: Failure, effects: &mut Vec<Effect>) {
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

    /// Removes a peer without connections, waiting requests and a dial.
    fn remove_if_idle(&mut self, peer: PeerId) {
        if self.peers.get(&peer).is_some_and(|entry| {
            entry.connections.is_empty() && entry.waiting.is_empty() && entry.dial == Dial::None
        }) {
            self.peers.remove(&peer);
        }
    }
}

/// Selects the connection to use: working before suspect, direct before
/// relayed, fast before slow, then the one with the fewest streams. If all
/// direct connections are at their limits, requests wait for one of them and do
/// not use a relayed one.
fn best<'a>(
    connections: &'a mut BTreeMap<ConnectionId, Connection>,
    tried: &[ConnectionId],
    bounds: Bounds,
) -> Option<(&'a ConnectionId, &'a mut Connection)> {
    connections
        .iter_mut()
        .filter(|(id, _)| !tried.contains(id))
        .min_by_key(|(_, one)| {
            (
                one.suspect || one.silent,
                one.relayed,
                !one.has_capacity(bounds),
                one.round_trips.is_slow(),
                one.streams(),
            )
        })
}

#[cfg(test)]
#[path = "router_tests.rs"]
mod tests;
