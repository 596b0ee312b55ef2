//! Dials: started, shared, cancelled.

use calimero_network_primitives::{Multiaddr, PeerId, addr::peer_of};
use calimero_network_transport::{AddressError, classify};
use libp2p::swarm::{
    self, ConnectionId,
    dial_opts::{DialOpts, PeerCondition},
};

use super::{Actor, DialReply};
use crate::{
    error::{AddressFailure, DialError},
    status::Connection,
};

impl Actor {
    pub(super) fn dial_address(&mut self, address: Multiaddr, reply: DialReply) {
        if let Some(id) = self.dials.under_way(&address) {
            return self.dials.wait_for_address(id, address, reply);
        }
        // Of many calls for one address some arrive after the end of the dial that they would share.
        if let Some(connection) = self.dialled_connection(&address) {
            self.return_connection(reply, connection);
            return;
        }
        self.grant(&address);
        let options = DialOpts::unknown_peer_id().address(address.clone()).build();
        let id = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => self.dials.wait_for_address(id, address, reply),
            Err(error) => {
                self.metrics.dial_failed(&error);
                let error = dial_error(self.swarm.local_peer_id(), error);
                let _ = reply.send(Err(error));
            }
        }
    }

    pub(super) fn dial_peer(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, reply: DialReply) {
        let local = *self.swarm.local_peer_id();
        addresses.iter().for_each(|address| self.grant(address));
        if peer == local {
            let _ = reply.send(Err(DialError::LocalPeer { peer }));
        } else if let Some(connection) = self.best_connection(&peer) {
            self.return_connection(reply, connection);
        } else if self.dials.wait_for_peer(peer, addresses, reply) {
            self.try_addresses(peer);
        }
    }

    /// Answers a dial. Its caller then relies on the event of the end of this connection.
    pub(super) fn return_connection(&mut self, reply: DialReply, connection: Connection) {
        let id = connection.id;
        if reply.send(Ok(connection)).is_ok() {
            self.events.returned(id);
        }
    }

    /// Lets the dial of an address pass that the embedding program names. It may be local, also
    /// on a network that is not.
    pub(super) fn grant(&self, address: &Multiaddr) {
        if let Err(refusal) = self.gate.grant(address) {
            // The dial fails with the same reason, which its caller gets.
            tracing::debug!(%address, %refusal, "cannot be dialled");
        }
    }

    /// Dials the untried addresses of a peer. If another part of the node is dialling the peer, or its
    /// connections are closing, the addresses wait for the end of that, which is reported here too.
    pub(super) fn try_addresses(&mut self, peer: PeerId) {
        let addresses = self.dials.take_untried(&peer);
        let options = DialOpts::peer_id(peer)
            .addresses(addresses.clone())
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .build();
        let id = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => self.dials.begun(&peer, id),
            Err(swarm::DialError::DialPeerConditionFalse(_)) => {
                self.dials.put_back(&peer, addresses);
            }
            Err(error) => {
                self.metrics.dial_failed(&error);
                self.on_peer_dial_failed(peer, error);
            }
        }
    }

    pub(super) fn on_peer_dial_failed(&mut self, peer: PeerId, error: swarm::DialError) {
        let error = match error {
            swarm::DialError::NoAddresses => DialError::NoAddresses { peer },
            error => dial_error(self.swarm.local_peer_id(), error),
        };
        match self.dials.peer_failed(&peer, error) {
            Some((waiters, error)) => {
                for waiter in waiters {
                    let _ = waiter.send(Err(error.clone()));
                }
            }
            None if self.dials.has_untried(&peer) => self.try_addresses(peer),
            None => {}
        }
    }

    pub(super) fn on_dial_failed(
        &mut self,
        id: ConnectionId,
        peer: Option<PeerId>,
        error: swarm::DialError,
    ) {
        let waiters = self.dials.address_failed(id);
        if !waiters.is_empty() {
            let error = dial_error(self.swarm.local_peer_id(), error);
            for waiter in waiters {
                let _ = waiter.send(Err(error.clone()));
            }
        } else if let Some(peer) = peer {
            self.dials.ended(&peer, id);
            self.on_peer_dial_failed(peer, error);
        }
    }

    pub(super) fn forget_dials(&mut self) {
        for peer in self.dials.forget(DialReply::is_closed) {
            if !self.swarm.is_connected(&peer) {
                // An error means that no connection exists, which is known here. A dial in progress is
                // aborted all the same.
                let _ = self.swarm.disconnect_peer_id(peer);
            }
        }
    }
}

fn dial_error(local: &PeerId, error: swarm::DialError) -> DialError {
    match error {
        swarm::DialError::LocalPeerId { .. } => DialError::LocalPeer { peer: *local },
        swarm::DialError::Denied { cause } => DialError::Denied(cause.into()),
        swarm::DialError::WrongPeerId { obtained, address } => DialError::Failed {
            attempts: vec![AddressFailure {
                cause: AddressError::WrongPeer {
                    expected: peer_of(&address).unwrap_or(obtained),
                    found: obtained,
                },
                address,
            }],
        },
        swarm::DialError::Transport(errors) => DialError::Failed {
            attempts: errors
                .into_iter()
                .map(|(address, error)| AddressFailure {
                    cause: classify(&error),
                    address,
                })
                .collect(),
        },
        swarm::DialError::NoAddresses
        | swarm::DialError::DialPeerConditionFalse(_)
        | swarm::DialError::Aborted => DialError::Aborted,
    }
}
