//! The implementation of `NetworkBehaviour`.

use std::{
    io,
    net::IpAddr,
    task::{Context, Poll},
};

use calimero_network_exchange::dial::{address_cause, chain, unreachable_cause};
use calimero_network_primitives::{
    Multiaddr, PeerId, UnreachableCause,
    addr::{
        AddressTransport, is_dialable, is_link_local, is_loopback, is_private, is_relayed,
        transport_of,
    },
};
use libp2p_core::{
    ConnectedPoint, Endpoint,
    transport::{PortUse, TransportError},
};
use libp2p_relay::outbound::hop::ConnectError;
use libp2p_swarm::{
    ConnectionClosed, ConnectionDenied, ConnectionId, DialError, DialFailure, FromSwarm,
    NetworkBehaviour, THandler, THandlerInEvent, ToSwarm, behaviour::ConnectionEstablished,
};

use super::{
    Began, Behaviour, Dialling, Inner, ToTheSwarm,
    error::{Blocked, HolePunchRefused},
    event::Event,
    now,
    peers::{PathChange, path_of},
    punches::{Punched, Reached},
};
use crate::{
    ip::ip_of,
    machine::{Input, MAX_EXAMINED_ADDRESSES, Path},
    pass::pass_to_inner,
};

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
            self.check_hole_punch(connection, peer, addresses)?;
            if role == Endpoint::Listener {
                self.input(Input::HolePunchAwaited {
                    peer,
                    addresses: addresses.to_vec(),
                });
            }
        }
        let offered = self
            .inner
            .handle_pending_outbound_connection(connection, peer, addresses, role)?;
        self.began.insert(connection, Began { at: now(), peer });
        let scopes = self.dial_scopes;
        let mut all = peer.map_or_else(Vec::new, |peer| self.known_addresses(&peer));
        let worth_it = offered
            .into_iter()
            .filter(|address| is_dialable(address, scopes))
            .take(MAX_OFFERED);
        for address in worth_it {
            if !all.contains(&address) {
                all.push(address);
            }
        }
        self.input(Input::Dialled {
            peer,
            addresses: addresses.iter().chain(&all).cloned().collect(),
        });
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
        if let FromSwarm::ListenerClosed(event) = event {
            self.opened.remove(&event.listener_id);
        }
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
                self.input(Input::AddressCandidate(event.addr.clone()));
            }
            FromSwarm::ExternalAddrConfirmed(event) if !self.externals.contains(event.addr) => {
                self.input(Input::AddressCandidate(event.addr.clone()));
            }
            FromSwarm::NewListener(event) => {
                self.opened.insert(event.listener_id, now());
                if let Some(slot) = self.slots.get_mut(&event.listener_id) {
                    slot.listening = true;
                }
            }
            FromSwarm::NewListenAddr(event) if !is_relayed(event.addr) => {
                #[cfg(feature = "mdns")]
                self.local_link.listen(&event);
                let opened = self.opened.get(&event.listener_id);
                let open_for = opened.map(|at| now().saturating_duration_since(*at));
                self.input(Input::Listening {
                    address: event.addr.clone(),
                    open_for: open_for.unwrap_or_default(),
                });
            }
            FromSwarm::ExpiredListenAddr(event) if !is_relayed(event.addr) => {
                #[cfg(feature = "mdns")]
                self.local_link.expire(&event);
                self.input(Input::AddressGone(event.addr.clone()));
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
            let due = self.machine.next_timeout();
            if self.timer.poll_at(due, cx).is_ready() {
                self.input(Input::Timeout);
                self.inner.keeper.keep(self.machine.kept().collect());
                #[cfg(feature = "mdns")]
                self.wake_mdns();
                continue;
            }
            if self.resumption.poll(cx).is_ready() {
                tracing::info!("the process was stopped for a while; probing all connections");
                self.replace_dead_connections();
                continue;
            }
            self.emit_changes();
            if self.waiting.is_empty() {
                return Poll::Pending;
            }
        }
    }
}

/// Addresses of one peer that Kademlia and mDNS may add to a dial of another behaviour.
const MAX_OFFERED: usize = 16;

impl Behaviour {
    fn check(&self, peer: PeerId) -> Result<(), ConnectionDenied> {
        if self.blocked.contains(&peer) {
            return Err(ConnectionDenied::new(Blocked { peer }));
        }
        Ok(())
    }

    /// Denies a dial of another behaviour to a peer that is relayed, above the limits. Besides the
    /// machine, DCUtR and the server of probes dial connected peers.
    fn check_hole_punch(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        addresses: &[Multiaddr],
    ) -> Result<(), ConnectionDenied> {
        let is_ours =
            self.dials.contains_key(&connection) || self.attempts.contains_key(&connection);
        if is_ours || self.machine.path(&peer) != Some(Path::Relayed) {
            return Ok(());
        }
        let (count, max) = (addresses.len(), MAX_EXAMINED_ADDRESSES);
        if count > max {
            let refused = HolePunchRefused::Addresses { peer, count, max };
            return Err(ConnectionDenied::new(refused));
        }
        let is_kept_alive = self.machine.kept().any(|kept| kept == peer);
        let relay = self.peers.latest_relay(&peer);
        let punched = match is_kept_alive {
            true => Punched::KeptAlive,
            false => Punched::Other(relay),
        };
        let admitted = self.punches.admit(punched, now());
        admitted.map_err(|reached| {
            ConnectionDenied::new(match reached {
                Reached::All(max) => HolePunchRefused::Rate { peer, max },
                Reached::Relay(max) => HolePunchRefused::RelayRate { peer, relay, max },
            })
        })
    }

    /// Passes a request of an inner behaviour to the Swarm, unless the machine decides about it.
    fn pass(
        &mut self,
        wish: ToSwarm<<Inner as NetworkBehaviour>::ToSwarm, THandlerInEvent<Inner>>,
    ) -> Option<ToTheSwarm> {
        match wish {
            ToSwarm::GenerateEvent(event) => {
                self.on_inner_event(event);
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
                // libp2p-swarm 0.48 has no other request.
                _ => None,
            },
        }
    }

    fn established(&mut self, event: &ConnectionEstablished<'_>) {
        let (peer, id) = (event.peer_id, event.connection_id);
        self.dials.remove(&id);
        self.behind.remove(&peer);
        let began = self.began.remove(&id);
        let from_listening_port = asks_for_listening_port(event.endpoint)
            && began.is_some_and(|began| {
                let address = event.endpoint.get_remote_address();
                self.machine.listening_on().serves(address, began.at)
            });
        let change = self
            .peers
            .opened(peer, id, event.endpoint, from_listening_port);
        self.emit_path(peer, change);
        let path = path_of(event.endpoint);
        self.paths.on_opened(peer, id, path, now());
        self.decide_paths();
        if let Some(attempt) = self.attempts.get(&id) {
            self.input(Input::AttemptConnected { id: *attempt, path });
        }
        let dialled = event
            .endpoint
            .is_dialer()
            .then(|| event.endpoint.get_remote_address().clone());
        self.input(Input::ConnectionOpened {
            peer,
            path,
            dialled,
            remote_ip: remote_ip_of(event.endpoint),
            is_local: is_local(event.endpoint),
        });
        self.inner.keeper.keep(self.machine.kept().collect());
    }

    fn closed(&mut self, event: &ConnectionClosed<'_>) {
        let peer = event.peer_id;
        let change = self.peers.closed(peer, event.connection_id);
        self.attempts.remove(&event.connection_id);
        self.paths.on_closed(peer, event.connection_id, now());
        self.decide_paths();
        self.emit_path(peer, change);
        let path = path_of(event.endpoint);
        self.input(Input::ConnectionClosed { peer, path });
    }

    fn emit_path(&mut self, peer: PeerId, (from, to): PathChange) {
        if from != to {
            self.emit(Event::PathChanged { peer, from, to });
        }
    }

    fn dial_failed(&mut self, event: &DialFailure<'_>) {
        self.began.remove(&event.connection_id);
        if let Some(id) = self.attempts.remove(&event.connection_id) {
            self.input(Input::AttemptFailed { id });
        }
        if let (Some(peer), Some(cause)) = (event.peer_id, unreachable_cause(event.error)) {
            self.input(Input::Unreachable { peer, cause });
        }
        self.forget_dead_circuits(event);
        let Some(Dialling { peer, addresses }) = self.dials.remove(&event.connection_id) else {
            self.other_dial_failed(event.peer_id);
            return;
        };
        let tried = match event.error {
            DialError::Transport(errors)
                if errors
                    .iter()
                    .all(|(_, error)| address_cause(error) == UnreachableCause::NoRoute) =>
            {
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
            // A connection of which the machine does not know can be the reason as well: one that
            // is closed because its peer was blocked.
            DialError::DialPeerConditionFalse(_)
                if self.machine.path(&peer).is_none() && self.is_dialling(&peer) =>
            {
                self.behind.insert(peer, addresses);
                return;
            }
            // No address was tried.
            DialError::Denied { .. }
            | DialError::Aborted
            | DialError::DialPeerConditionFalse(_) => Vec::new(),
        };
        self.input(Input::DialFailed { peer, tried });
    }

    /// Returns whether a dial of `peer` is under way.
    fn is_dialling(&self, peer: &PeerId) -> bool {
        let mut dials = self.began.values();
        dials.any(|began| began.peer == Some(*peer))
    }

    /// Removes the circuits whose relay has no reservation for the peer.
    fn forget_dead_circuits(&mut self, event: &DialFailure<'_>) {
        let (Some(peer), DialError::Transport(errors)) = (event.peer_id, event.error) else {
            return;
        };
        for (address, error) in errors {
            if has_no_reservation(error) {
                let address = address.clone();
                self.input(Input::AddressDead { peer, address });
            }
        }
    }

    /// A dial of another behaviour failed. It may have tried other addresses than the machine's.
    fn other_dial_failed(&mut self, peer: Option<PeerId>) {
        if let Some(peer) = peer
            && let Some(addresses) = self.behind.remove(&peer)
        {
            self.dial(peer, addresses);
        }
    }
}

/// Returns whether the relay of a circuit has no reservation for the peer, as the transport of this
/// project or libp2p's relay client says.
fn has_no_reservation(error: &TransportError<io::Error>) -> bool {
    if address_cause(error) == UnreachableCause::NoReservation {
        return true;
    }
    let TransportError::Other(error) = error else {
        return false;
    };
    chain(error).any(|cause| {
        let cause = cause.downcast_ref::<ConnectError>();
        matches!(cause, Some(ConnectError::NoReservation))
    })
}

/// Returns the IP address of the remote host, as far as it is known.
fn remote_ip_of(endpoint: &ConnectedPoint) -> Option<IpAddr> {
    if endpoint.is_relayed() {
        return None;
    }
    ip_of(endpoint.get_remote_address())
}

/// Returns whether an inbound connection shows nothing about the NAT of this node.
fn is_local(endpoint: &ConnectedPoint) -> bool {
    let ConnectedPoint::Listener {
        local_addr,
        send_back_addr,
    } = endpoint
    else {
        return false;
    };
    let is_near = [is_loopback, is_link_local, is_private].map(|is| is(send_back_addr));
    is_near.contains(&true) || transport_of(local_addr) == Some(AddressTransport::WebSocket)
}

/// Returns whether the transport was asked to dial from a listening port. What a peer observes on a
/// connection that it dialled itself proves nothing: it may report any address.
fn asks_for_listening_port(endpoint: &ConnectedPoint) -> bool {
    let reuses = matches!(
        endpoint,
        ConnectedPoint::Dialer {
            port_use: PortUse::Reuse,
            ..
        }
    );
    reuses && !endpoint.is_relayed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_dials_from_our_own_port_tell_where_we_are() {
        let dial = |address: &str, port_use| ConnectedPoint::Dialer {
            address: address.parse().unwrap(),
            role_override: Endpoint::Dialer,
            port_use,
        };
        let direct = "/ip4/203.0.113.1/tcp/2428";
        let relayed = format!("{direct}/p2p/{}/p2p-circuit", PeerId::random());
        assert!(asks_for_listening_port(&dial(direct, PortUse::Reuse)));
        assert!(!asks_for_listening_port(&dial(direct, PortUse::New)));
        assert!(!asks_for_listening_port(&dial(&relayed, PortUse::Reuse)));
        assert!(!asks_for_listening_port(&ConnectedPoint::Listener {
            local_addr: direct.parse().unwrap(),
            send_back_addr: direct.parse().unwrap(),
        }));
    }
}
