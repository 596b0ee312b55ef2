//! The table of outbound requests, waiting for a connection or sent over one.
//! Pure: the behaviour reports events and executes the effects.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::Arc,
};

use bytes::Bytes;
use calimero_network_exchange::dial::DialCause;
use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use libp2p_swarm::ConnectionId;

use crate::failure::OutboundFailure;

/// Identifier of an outbound request, unique within one behaviour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OutboundRequestId(pub(crate) u64);

impl fmt::Display for OutboundRequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// An action that the behaviour must execute.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Dial the peer and report the connection id with [`OutboundRequests::dialling`].
    Dial(PeerId, Vec<Multiaddr>),
    /// Send the request over the connection.
    Send(PeerId, ConnectionId, OutboundRequestId, Bytes),
    /// Stop the exchange of the request on the connection.
    Stop(PeerId, ConnectionId, OutboundRequestId),
    /// Report the failure of the request to the application.
    Fail(PeerId, OutboundRequestId, OutboundFailure),
}

#[derive(Debug)]
struct Request {
    peer: PeerId,
    /// The connection that the request was assigned to; `None` while it waits
    /// for one.
    connection: Option<ConnectionId>,
}

#[derive(Debug, Default)]
struct Peer {
    connections: Vec<Connection>,
    /// Requests that wait for a connection, in order. Empty if the peer is
    /// connected.
    waiting: VecDeque<(OutboundRequestId, Bytes)>,
    /// The dial that was started for the waiting requests; `None` if another
    /// behaviour dials the peer.
    dial: Option<ConnectionId>,
}

#[derive(Debug)]
struct Connection {
    id: ConnectionId,
    relayed: bool,
    requests: usize,
}

/// The table of outbound requests that have not ended.
#[derive(Debug)]
pub(crate) struct OutboundRequests {
    limit: usize,
    next: u64,
    requests: HashMap<OutboundRequestId, Request>,
    peers: HashMap<PeerId, Peer>,
    effects: VecDeque<Effect>,
}

impl OutboundRequests {
    /// Creates a table of at most `limit` requests.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            next: 0,
            requests: HashMap::new(),
            peers: HashMap::new(),
            effects: VecDeque::new(),
        }
    }

    /// Returns the next effect to execute.
    pub(crate) fn effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Returns the number of requests that have not ended.
    pub(crate) fn len(&self) -> usize {
        self.requests.len()
    }

    pub(crate) fn contains(&self, id: OutboundRequestId) -> bool {
        self.requests.contains_key(&id)
    }

    /// Adds a request. An encoding error fails it at once.
    pub(crate) fn send(
        &mut self,
        to: PeerId,
        wire: Result<Bytes, OutboundFailure>,
        addresses: Vec<Multiaddr>,
    ) -> OutboundRequestId {
        let id = OutboundRequestId(self.next);
        self.next = self.next.wrapping_add(1);
        let wire = match wire {
            Ok(wire) if self.requests.len() < self.limit => wire,
            Ok(_) => {
                let limit = self.limit;
                self.fail(to, id, OutboundFailure::TooMany { limit });
                return id;
            }
            Err(error) => {
                self.fail(to, id, error);
                return id;
            }
        };
        let (peer, connection) = (to, None);
        self.requests.insert(id, Request { peer, connection });
        let peer = self.peers.entry(to).or_default();
        peer.waiting.push_back((id, wire));
        if !peer.connections.is_empty() {
            self.assign(to);
        } else if peer.waiting.len() == 1 {
            self.effects.push_back(Effect::Dial(to, addresses));
        }
        id
    }

    /// Records the connection id of the dial that [`Effect::Dial`] requested.
    pub(crate) fn dialling(&mut self, peer: PeerId, dial: ConnectionId) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.dial = Some(dial);
        }
    }

    /// Handles a failed dial. Without a `failure`, another dial of the peer is
    /// in progress.
    pub(crate) fn dial_failed(
        &mut self,
        to: PeerId,
        dial: ConnectionId,
        failure: Option<DialCause>,
    ) {
        let Some(peer) = self.peers.get_mut(&to) else {
            return;
        };
        match failure {
            None if peer.dial == Some(dial) => peer.dial = None,
            // The dial started here, or the dial in progress that replaced it.
            Some(failure) if peer.dial.is_none_or(|own| own == dial) => {
                peer.dial = None;
                let failure = Arc::new(failure);
                for (id, _) in std::mem::take(&mut peer.waiting) {
                    self.requests.remove(&id);
                    self.fail(to, id, OutboundFailure::Dial(failure.clone()));
                }
                self.remove_if_idle(to);
            }
            _ => {}
        }
    }

    /// Handles a new connection. `relayed` is `true` if it goes through a
    /// relay.
    pub(crate) fn connected(&mut self, to: PeerId, id: ConnectionId, relayed: bool) {
        let peer = self.peers.entry(to).or_default();
        peer.dial = None;
        peer.connections.push(Connection {
            id,
            relayed,
            requests: 0,
        });
        self.assign(to);
    }

    /// Handles a closed connection. Requests that were sent over it fail.
    pub(crate) fn closed(&mut self, to: PeerId, connection: ConnectionId) {
        if let Some(peer) = self.peers.get_mut(&to) {
            peer.connections.retain(|other| other.id != connection);
            self.remove_if_idle(to);
        }
        let mut lost: Vec<_> = self
            .requests
            .extract_if(|_, request| request.connection == Some(connection))
            .map(|(id, _)| id)
            .collect();
        lost.sort_unstable();
        for id in lost {
            self.fail(to, id, OutboundFailure::ConnectionClosed);
        }
    }

    /// Removes a request after its exchange. Returns its peer if the request
    /// was pending.
    pub(crate) fn ended(&mut self, id: OutboundRequestId) -> Option<PeerId> {
        let request = self.requests.remove(&id)?;
        let peer = self.peers.get_mut(&request.peer)?;
        match request.connection {
            Some(connection) => {
                for connection in peer
                    .connections
                    .iter_mut()
                    .filter(|other| other.id == connection)
                {
                    connection.requests = connection.requests.saturating_sub(1);
                }
            }
            None => {
                peer.waiting.retain(|(waiting, _)| *waiting != id);
                self.remove_if_idle(request.peer);
            }
        }
        Some(request.peer)
    }

    /// Removes a request before it ended. `failure` is `None` if the
    /// application cancelled it.
    pub(crate) fn cancel(
        &mut self,
        id: OutboundRequestId,
        failure: Option<OutboundFailure>,
    ) -> bool {
        let connection = self.requests.get(&id).and_then(|r| r.connection);
        let Some(peer) = self.ended(id) else {
            return false;
        };
        if let Some(connection) = connection {
            self.effects.push_back(Effect::Stop(peer, connection, id));
        }
        if let Some(failure) = failure {
            self.fail(peer, id, failure);
        }
        true
    }

    fn fail(&mut self, peer: PeerId, id: OutboundRequestId, failure: OutboundFailure) {
        self.effects.push_back(Effect::Fail(peer, id, failure));
    }

    /// Assigns waiting requests of `to` to its connections: direct before
    /// relayed ones, then the one with the fewest requests.
    fn assign(&mut self, to: PeerId) {
        let Some(peer) = self.peers.get_mut(&to) else {
            return;
        };
        while let Some(connection) = peer
            .connections
            .iter_mut()
            .min_by_key(|connection| (connection.relayed, connection.requests))
            && let Some((id, wire)) = peer.waiting.pop_front()
        {
            connection.requests += 1;
            if let Some(request) = self.requests.get_mut(&id) {
                request.connection = Some(connection.id);
            }
            self.effects
                .push_back(Effect::Send(to, connection.id, id, wire));
        }
    }

    fn remove_if_idle(&mut self, peer: PeerId) {
        if let Some(state) = self.peers.get(&peer)
            && state.connections.is_empty()
            && state.waiting.is_empty()
        {
            self.peers.remove(&peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(n: usize) -> ConnectionId {
        ConnectionId::new_unchecked(n)
    }

    fn send(requests: &mut OutboundRequests, to: PeerId) -> OutboundRequestId {
        requests.send(to, Ok(Bytes::new()), Vec::new())
    }

    /// Describes each effect in one line.
    fn effects(requests: &mut OutboundRequests) -> Vec<String> {
        std::iter::from_fn(|| requests.effect())
            .map(|effect| match effect {
                Effect::Dial(..) => "dial".to_owned(),
                Effect::Send(_, over, id, _) => format!("send {id} over {over}"),
                Effect::Stop(_, over, id) => format!("stop {id} over {over}"),
                Effect::Fail(_, id, failure) => format!("fail {id}: {failure}"),
            })
            .collect()
    }

    #[test]
    fn requests_wait_for_one_dial_and_are_sent_in_order() {
        let (mut requests, to) = (OutboundRequests::new(8), PeerId::random());
        send(&mut requests, to);
        requests.dialling(to, link(1));
        send(&mut requests, to);
        assert_eq!(effects(&mut requests), ["dial"]);
        requests.connected(to, link(1), false);
        assert_eq!(effects(&mut requests), ["send 0 over 1", "send 1 over 1"]);
    }

    #[test]
    fn prefers_direct_and_idle_connections() {
        let (mut requests, to) = (OutboundRequests::new(8), PeerId::random());
        requests.connected(to, link(1), true);
        let over_relay = send(&mut requests, to);
        requests.connected(to, link(2), false);
        requests.connected(to, link(3), false);
        for _ in 0..2 {
            send(&mut requests, to);
        }
        let sent = ["send 0 over 1", "send 1 over 2", "send 2 over 3"];
        assert_eq!(effects(&mut requests), sent);
        assert_eq!(requests.ended(over_relay), Some(to));
        assert_eq!(requests.ended(over_relay), None);
    }

    #[test]
    fn only_the_own_dial_or_its_replacement_fails_requests() {
        let (mut requests, to) = (OutboundRequests::new(8), PeerId::random());
        let failure = || Some(DialCause::Transport(Vec::new()));
        send(&mut requests, to);
        requests.dialling(to, link(1));
        requests.dial_failed(to, link(9), failure());
        assert_eq!(
            effects(&mut requests),
            ["dial"],
            "the dial of another behaviour"
        );
        requests.dial_failed(to, link(1), None);
        assert!(effects(&mut requests).is_empty());
        requests.dial_failed(to, link(9), failure());
        assert_eq!(
            effects(&mut requests),
            ["fail 0: dial failed: all addresses failed"]
        );
        assert!(requests.requests.is_empty() && requests.peers.is_empty());
    }

    #[test]
    fn closing_fails_the_requests_sent_over_the_connection() {
        let (mut requests, to) = (OutboundRequests::new(8), PeerId::random());
        requests.connected(to, link(1), false);
        requests.connected(to, link(2), false);
        send(&mut requests, to);
        send(&mut requests, to);
        effects(&mut requests);
        requests.closed(to, link(1));
        assert_eq!(
            effects(&mut requests),
            ["fail 0: connection closed before the response"]
        );
        assert_eq!(requests.len(), 1);
    }

    #[test]
    fn the_limit_holds_until_a_request_ends() {
        let (mut requests, to) = (OutboundRequests::new(1), PeerId::random());
        let first = send(&mut requests, to);
        send(&mut requests, to);
        assert_eq!(
            effects(&mut requests),
            [
                "dial",
                "fail 1: request not sent: 1 requests are pending, which is the limit"
            ]
        );
        assert!(requests.cancel(first, None));
        assert!(!requests.cancel(first, None));
        assert!(requests.peers.is_empty() && requests.effect().is_none());
        send(&mut requests, to);
        assert_eq!(effects(&mut requests), ["dial"]);
    }

    #[test]
    fn cancelling_stops_the_exchange_and_fails_once() {
        let (mut requests, to) = (OutboundRequests::new(8), PeerId::random());
        requests.connected(to, link(1), false);
        let id = send(&mut requests, to);
        assert!(requests.cancel(id, Some(OutboundFailure::Unsupported)));
        requests.closed(to, link(1));
        let fail = "fail 0: the peer does not support the invite protocol";
        let expected = ["send 0 over 1", "stop 0 over 1", fail];
        assert_eq!(effects(&mut requests), expected);
        assert!(requests.peers.is_empty());
    }
}
