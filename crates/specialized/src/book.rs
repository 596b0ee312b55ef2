//! Where each outbound request stands: waiting for a connection, or handed to one. Pure: the
//! behaviour says what happened and carries out the effects.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
};

use bytes::Bytes;
use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use libp2p_swarm::ConnectionId;

use crate::failure::{DialFailure, OutboundFailure};

/// Names an outbound request. Unique within one behaviour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OutboundRequestId(pub(crate) u64);

impl fmt::Display for OutboundRequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What the behaviour is to do.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Dial, and say which dial it is with [`Book::dialling`].
    Dial(PeerId, Vec<Multiaddr>),
    /// Send the request over the connection.
    Send(PeerId, ConnectionId, OutboundRequestId, Bytes),
    /// Stop what was sent over the connection.
    Stop(PeerId, ConnectionId, OutboundRequestId),
    /// Tell the caller that the request failed.
    Fail(PeerId, OutboundRequestId, OutboundFailure),
}

#[derive(Debug)]
struct Request {
    peer: PeerId,
    /// The connection it was handed to; none while it waits for one.
    connection: Option<ConnectionId>,
}

#[derive(Debug, Default)]
struct Peer {
    links: Vec<Link>,
    /// Requests that wait for a connection, in order. Empty where there is one.
    waiting: VecDeque<(OutboundRequestId, Bytes)>,
    /// The dial made for them; none while it is somebody else's.
    dial: Option<ConnectionId>,
}

#[derive(Debug)]
struct Link {
    id: ConnectionId,
    relayed: bool,
    requests: usize,
}

/// Every outbound request that has not ended.
#[derive(Debug)]
pub(crate) struct Book {
    limit: usize,
    next: u64,
    requests: HashMap<OutboundRequestId, Request>,
    peers: HashMap<PeerId, Peer>,
    effects: VecDeque<Effect>,
}

impl Book {
    /// A book of at most `limit` requests.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            next: 0,
            requests: HashMap::new(),
            peers: HashMap::new(),
            effects: VecDeque::new(),
        }
    }

    /// What is to be done next.
    pub(crate) fn effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Requests that have not ended.
    pub(crate) fn len(&self) -> usize {
        self.requests.len()
    }

    pub(crate) fn holds(&self, id: OutboundRequestId) -> bool {
        self.requests.contains_key(&id)
    }

    /// Takes up a request, or the reason why it could not be encoded.
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
        if !peer.links.is_empty() {
            self.hand_over(to);
        } else if peer.waiting.len() == 1 {
            self.effects.push_back(Effect::Dial(to, addresses));
        }
        id
    }

    /// The dial that [`Effect::Dial`] asked for is under way as `dial`.
    pub(crate) fn dialling(&mut self, peer: PeerId, dial: ConnectionId) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.dial = Some(dial);
        }
    }

    /// A dial failed, or was left to another one under way where there is no `failure`.
    pub(crate) fn dial_failed(
        &mut self,
        to: PeerId,
        dial: ConnectionId,
        failure: Option<DialFailure>,
    ) {
        let Some(peer) = self.peers.get_mut(&to) else {
            return;
        };
        match failure {
            None if peer.dial == Some(dial) => peer.dial = None,
            // One's own, or the one that it was left to.
            Some(failure) if peer.dial.is_none_or(|own| own == dial) => {
                peer.dial = None;
                for (id, _) in std::mem::take(&mut peer.waiting) {
                    self.requests.remove(&id);
                    self.fail(to, id, failure.into());
                }
                self.forget_if_idle(to);
            }
            _ => {}
        }
    }

    /// A connection is up; `relayed` if it goes through a third node.
    pub(crate) fn connected(&mut self, to: PeerId, id: ConnectionId, relayed: bool) {
        let peer = self.peers.entry(to).or_default();
        peer.dial = None;
        peer.links.push(Link {
            id,
            relayed,
            requests: 0,
        });
        self.hand_over(to);
    }

    /// A connection is gone, and with it what was sent over it.
    pub(crate) fn closed(&mut self, to: PeerId, connection: ConnectionId) {
        if let Some(peer) = self.peers.get_mut(&to) {
            peer.links.retain(|link| link.id != connection);
            self.forget_if_idle(to);
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

    /// The exchange of a request ended. The peer, if the request was still in the book.
    pub(crate) fn ended(&mut self, id: OutboundRequestId) -> Option<PeerId> {
        let request = self.requests.remove(&id)?;
        let peer = self.peers.get_mut(&request.peer)?;
        match request.connection {
            Some(connection) => {
                for link in peer.links.iter_mut().filter(|link| link.id == connection) {
                    link.requests = link.requests.saturating_sub(1);
                }
            }
            None => {
                peer.waiting.retain(|(waiting, _)| *waiting != id);
                self.forget_if_idle(request.peer);
            }
        }
        Some(request.peer)
    }

    /// Gives a request up: with a failure to tell, or because the caller does not want it.
    pub(crate) fn give_up(
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

    /// Hands what waits for `to` to its connections: the direct before the relayed, the idle
    /// before the busy.
    fn hand_over(&mut self, to: PeerId) {
        let Some(peer) = self.peers.get_mut(&to) else {
            return;
        };
        while let Some(link) = peer
            .links
            .iter_mut()
            .min_by_key(|link| (link.relayed, link.requests))
            && let Some((id, wire)) = peer.waiting.pop_front()
        {
            link.requests += 1;
            if let Some(request) = self.requests.get_mut(&id) {
                request.connection = Some(link.id);
            }
            self.effects.push_back(Effect::Send(to, link.id, id, wire));
        }
    }

    fn forget_if_idle(&mut self, peer: PeerId) {
        if let Some(state) = self.peers.get(&peer)
            && state.links.is_empty()
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

    fn send(book: &mut Book, to: PeerId) -> OutboundRequestId {
        book.send(to, Ok(Bytes::new()), Vec::new())
    }

    /// One word for each effect.
    fn effects(book: &mut Book) -> Vec<String> {
        std::iter::from_fn(|| book.effect())
            .map(|effect| match effect {
                Effect::Dial(..) => "dial".to_owned(),
                Effect::Send(_, over, id, _) => format!("send {id} over {over}"),
                Effect::Stop(_, over, id) => format!("stop {id} over {over}"),
                Effect::Fail(_, id, failure) => format!("fail {id}: {failure}"),
            })
            .collect()
    }

    #[test]
    fn waits_for_one_dial_and_goes_in_order() {
        let (mut book, to) = (Book::new(8), PeerId::random());
        send(&mut book, to);
        book.dialling(to, link(1));
        send(&mut book, to);
        assert_eq!(effects(&mut book), ["dial"]);
        book.connected(to, link(1), false);
        assert_eq!(effects(&mut book), ["send 0 over 1", "send 1 over 1"]);
    }

    #[test]
    fn prefers_direct_and_idle_connections() {
        let (mut book, to) = (Book::new(8), PeerId::random());
        book.connected(to, link(1), true);
        let over_relay = send(&mut book, to);
        book.connected(to, link(2), false);
        book.connected(to, link(3), false);
        for _ in 0..2 {
            send(&mut book, to);
        }
        let sent = ["send 0 over 1", "send 1 over 2", "send 2 over 3"];
        assert_eq!(effects(&mut book), sent);
        assert_eq!(book.ended(over_relay), Some(to));
        assert_eq!(book.ended(over_relay), None);
    }

    #[test]
    fn its_own_dial_decides_and_another_where_it_was_left_to_it() {
        let (mut book, to) = (Book::new(8), PeerId::random());
        let failure = Some(DialFailure::Unreachable);
        send(&mut book, to);
        book.dialling(to, link(1));
        book.dial_failed(to, link(9), failure);
        assert_eq!(effects(&mut book), ["dial"], "another dial is not ours");
        book.dial_failed(to, link(1), None);
        assert!(effects(&mut book).is_empty());
        book.dial_failed(to, link(9), failure);
        assert_eq!(
            effects(&mut book),
            ["fail 0: peer not reached: no address answers"]
        );
        assert!(book.requests.is_empty() && book.peers.is_empty());
    }

    #[test]
    fn closing_fails_what_was_sent_over_it() {
        let (mut book, to) = (Book::new(8), PeerId::random());
        book.connected(to, link(1), false);
        book.connected(to, link(2), false);
        send(&mut book, to);
        send(&mut book, to);
        effects(&mut book);
        book.closed(to, link(1));
        assert_eq!(
            effects(&mut book),
            ["fail 0: connection closed before the answer"]
        );
        assert_eq!(book.len(), 1);
    }

    #[test]
    fn the_limit_holds_and_ends_make_room() {
        let (mut book, to) = (Book::new(1), PeerId::random());
        let first = send(&mut book, to);
        send(&mut book, to);
        assert_eq!(
            effects(&mut book),
            [
                "dial",
                "fail 1: request not sent: 1 are waiting for an answer"
            ]
        );
        assert!(book.give_up(first, None));
        assert!(!book.give_up(first, None));
        assert!(book.peers.is_empty() && book.effect().is_none());
        send(&mut book, to);
        assert_eq!(effects(&mut book), ["dial"]);
    }

    #[test]
    fn giving_up_stops_what_was_sent_and_tells_once() {
        let (mut book, to) = (Book::new(8), PeerId::random());
        book.connected(to, link(1), false);
        let id = send(&mut book, to);
        assert!(book.give_up(id, Some(OutboundFailure::Unsupported)));
        book.closed(to, link(1));
        let fail = "fail 0: the peer does not speak the invite protocol";
        let told = ["send 0 over 1", "stop 0 over 1", fail];
        assert_eq!(effects(&mut book), told);
        assert!(book.peers.is_empty());
    }
}
