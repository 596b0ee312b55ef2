//! The behaviour's face to the Swarm.

use std::{
    error::Error,
    io,
    task::{Context, Poll},
};

use calimero_network_primitives::{
    Multiaddr, PeerId,
    addr::{is_dialable, is_relayed},
};
use libp2p_core::{
    Endpoint,
    transport::{PortUse, TransportError},
};
use libp2p_swarm::{
    ConnectionClosed, ConnectionDenied, ConnectionId, DialError, DialFailure, FromSwarm,
    NetworkBehaviour, THandler, THandlerInEvent, ToSwarm, behaviour::ConnectionEstablished,
};

use super::{
    Behaviour, Dialling, Inner, ToTheSwarm,
    error::Blocked,
    event::Event,
    now,
    observed::asks_for_own_port,
    peers::{PathChange, path_of},
};
use crate::{machine::Input, pass::pass_to_inner};

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = THandler<Inner>;
    type ToSwarm = Event;

    pass_to_inner!(
        handle_pending_inbound_connection,
        on_connection_handler_event,
    );

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.check(peer)?;
        self.inner
            .handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        if let Some(peer) = peer {
            self.check(peer)?;
            if role == Endpoint::Listener {
                self.awaited.began(peer, addresses, now());
            }
        }
        let offered = self
            .inner
            .handle_pending_outbound_connection(connection, peer, addresses, role)?;
        self.began.insert(connection, now());
        let policy = self.dial_policy;
        let mut all = peer.map_or_else(Vec::new, |peer| self.known_addresses(&peer));
        let worth_it = offered
            .into_iter()
            .filter(|address| is_dialable(address, policy))
            .take(MAX_OFFERED);
        for address in worth_it {
            if !all.contains(&address) {
                all.push(address);
            }
        }
        Ok(all)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.check(peer)?;
        self.inner
            .handle_established_outbound_connection(connection, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        // libp2p-relay 0.22 forgets a reservation with its listener, and panics if the relay's
        // answer is still on its way. It forgets with the connection, too.
        let given_up = matches!(event, FromSwarm::ListenerClosed(event)
            if self.given_up.remove(&event.listener_id));
        if given_up {
            return;
        }
        self.inner.on_swarm_event(event);
        match event {
            FromSwarm::ConnectionEstablished(event) => self.established(&event),
            FromSwarm::ConnectionClosed(event) => self.closed(&event),
            FromSwarm::AddressChange(event) => {
                let (peer, connection) = (event.peer_id, event.connection_id);
                self.peers.moved(&peer, connection, event.new);
            }
            FromSwarm::DialFailure(event) => self.dial_failed(&event),
            FromSwarm::NewExternalAddrCandidate(event) => {
                self.hear(Input::AddressCandidate(event.addr.clone()));
            }
            FromSwarm::ExternalAddrConfirmed(event) if !self.externals.contains(event.addr) => {
                self.hear(Input::AddressCandidate(event.addr.clone()));
            }
            FromSwarm::NewListener(event) => {
                if let Some(slot) = self.slots.get_mut(&event.listener_id) {
                    slot.listening = true;
                }
            }
            FromSwarm::NewListenAddr(event) if !is_relayed(event.addr) => {
                self.local_link.listen(&event);
                self.listening.begins(event.addr, now());
                self.held_dials.listening(now());
                self.hear(Input::Listening(event.addr.clone()));
                self.network_changed();
            }
            FromSwarm::ExpiredListenAddr(event) if !is_relayed(event.addr) => {
                self.local_link.expire(&event);
                self.listening.ends(event.addr);
                self.hear(Input::AddressGone(event.addr.clone()));
                self.network_changed();
            }
            FromSwarm::ListenerClosed(event) => self.listener_ended(event.listener_id),
            FromSwarm::ListenerError(event) => self.listener_failed(event.listener_id),
            _ => {}
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        loop {
            if let Some(next) = self.waiting.pop_front() {
                return Poll::Ready(next);
            }
            if let Poll::Ready(next) = self.inner.poll(cx) {
                if let Some(next) = self.pass(next) {
                    return Poll::Ready(next);
                }
                continue;
            }
            for (peer, addresses) in self.held_dials.release(&self.listening, now()) {
                self.dial(peer, addresses);
            }
            while let Some((peer, addresses)) = self.awaited.due(now()) {
                self.go_through(peer, addresses);
            }
            self.punch_again();
            if (self.neighbourhood).due(!self.peers.is_empty(), now()) {
                self.look_around();
                continue;
            }
            let due = self.machine.next_timeout();
            let others = [
                self.held_dials.next(),
                self.awaited.next(),
                self.punches.next(),
                self.neighbourhood.next(),
            ];
            let due = due.into_iter().chain(others.into_iter().flatten()).min();
            if self.timer.poll_at(due, cx).is_ready() {
                self.hear(Input::Timeout);
                self.inner.keeper.keep(self.machine.kept().collect());
                self.wake_mdns();
                continue;
            }
            self.tell_changes();
            if self.waiting.is_empty() {
                return Poll::Pending;
            }
        }
    }
}

/// Addresses of one peer that Kademlia and mDNS may offer for a dial of somebody else.
const MAX_OFFERED: usize = 16;

impl Behaviour {
    pub(super) fn network_changed(&mut self) {
        self.punches.hasten(now());
        self.hear(Input::NetworkChanged);
    }

    fn check(&self, peer: PeerId) -> Result<(), ConnectionDenied> {
        if self.blocked.contains(&peer) {
            return Err(ConnectionDenied::new(Blocked { peer }));
        }
        Ok(())
    }

    /// What one of the behaviours inside wants of the Swarm, unless it is the machine's to decide.
    fn pass(
        &mut self,
        wish: ToSwarm<<Inner as NetworkBehaviour>::ToSwarm, THandlerInEvent<Inner>>,
    ) -> Option<ToTheSwarm> {
        match wish {
            ToSwarm::GenerateEvent(event) => {
                self.hear_inner(event);
                None
            }
            // External addresses have one writer, addresses of peers one book, and candidates are
            // those that peers do see.
            ToSwarm::NewExternalAddrCandidate(_)
            | ToSwarm::ExternalAddrConfirmed(_)
            | ToSwarm::ExternalAddrExpired(_)
            | ToSwarm::NewExternalAddrOfPeer { .. } => None,
            other => match other {
                ToSwarm::Dial { opts } => Some(ToSwarm::Dial { opts }),
                ToSwarm::ListenOn { opts } => Some(ToSwarm::ListenOn { opts }),
                ToSwarm::RemoveListener { id } => Some(ToSwarm::RemoveListener { id }),
                ToSwarm::NotifyHandler {
                    peer_id,
                    handler,
                    event,
                } => Some(ToSwarm::NotifyHandler {
                    peer_id,
                    handler,
                    event,
                }),
                ToSwarm::CloseConnection {
                    peer_id,
                    connection,
                } => Some(ToSwarm::CloseConnection {
                    peer_id,
                    connection,
                }),
                // The Swarm of libp2p-swarm 0.48 knows no other wish.
                _ => None,
            },
        }
    }

    fn established(&mut self, event: &ConnectionEstablished<'_>) {
        let (peer, id) = (event.peer_id, event.connection_id);
        self.dials.remove(&id);
        self.behind.remove(&peer);
        let began = self.began.remove(&id);
        let own_port = asks_for_own_port(event.endpoint)
            && began.is_some_and(|at| {
                let address = event.endpoint.get_remote_address();
                self.listening.served(address, at)
            });
        let change = self.peers.opened(peer, id, event.endpoint, own_port);
        self.tell_path(peer, change);
        self.reversed(peer, id, event.endpoint);
        self.opened_for_punch(peer, id, event.endpoint);
        let dialled = event
            .endpoint
            .is_dialer()
            .then(|| event.endpoint.get_remote_address().clone());
        self.hear(Input::ConnectionOpened {
            peer,
            path: path_of(event.endpoint),
            dialled,
        });
        self.inner.keeper.keep(self.machine.kept().collect());
    }

    fn closed(&mut self, event: &ConnectionClosed<'_>) {
        let peer = event.peer_id;
        let change = self.peers.closed(peer, event.connection_id);
        self.closed_for_punch(peer, change);
        self.tell_path(peer, change);
        let path = path_of(event.endpoint);
        self.hear(Input::ConnectionClosed { peer, path });
    }

    fn tell_path(&mut self, peer: PeerId, (from, to): PathChange) {
        if from != to {
            self.tell(Event::PathChanged { peer, from, to });
        }
    }

    fn dial_failed(&mut self, event: &DialFailure<'_>) {
        self.began.remove(&event.connection_id);
        self.reversals.remove(&event.connection_id);
        self.rounds.remove(&event.connection_id);
        let Some(Dialling { peer, addresses }) = self.dials.remove(&event.connection_id) else {
            self.other_dial_failed(event.peer_id);
            return;
        };
        let tried = match event.error {
            DialError::Transport(errors) if errors.iter().all(|(_, error)| has_no_route(error)) => {
                Vec::new()
            }
            DialError::Transport(errors) => {
                errors.iter().map(|(address, _)| address.clone()).collect()
            }
            DialError::WrongPeerId { address, .. } | DialError::LocalPeerId { address } => {
                vec![address.clone()]
            }
            // All of them are our own.
            DialError::NoAddresses => addresses,
            DialError::DialPeerConditionFalse(_) if self.machine.path(&peer).is_none() => {
                self.behind.insert(peer, addresses);
                return;
            }
            // Nobody was asked.
            DialError::Denied { .. }
            | DialError::Aborted
            | DialError::DialPeerConditionFalse(_) => Vec::new(),
        };
        self.hear(Input::DialFailed { peer, tried });
    }

    /// A dial of somebody else has failed. It may have tried other addresses than ours.
    fn other_dial_failed(&mut self, peer: Option<PeerId>) {
        if let Some(peer) = peer
            && let Some(addresses) = self.behind.remove(&peer)
        {
            self.dial(peer, addresses);
        }
    }
}

/// Whether this host has no way to the address, which then is not to blame: its link is down.
fn has_no_route(error: &TransportError<io::Error>) -> bool {
    let TransportError::Other(error) = error else {
        return false;
    };
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        let io = error.downcast_ref::<io::Error>();
        if io.is_some_and(|error| error.kind() == io::ErrorKind::NetworkUnreachable) {
            return true;
        }
        next = match io.and_then(io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_is_down_is_told_from_an_address_that_is_dead() {
        let no_route = || io::Error::from(io::ErrorKind::NetworkUnreachable);
        for (error, expected) in [
            (no_route(), true),
            (io::Error::other(no_route()), true),
            (io::Error::other(io::Error::other(no_route())), true),
            (io::ErrorKind::ConnectionRefused.into(), false),
            (io::Error::other("no"), false),
        ] {
            assert_eq!(has_no_route(&TransportError::Other(error)), expected);
        }
        let unsupported = TransportError::MultiaddrNotSupported(Multiaddr::empty());
        assert!(!has_no_route(&unsupported));
    }
}
