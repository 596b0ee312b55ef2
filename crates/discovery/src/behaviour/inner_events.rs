//! Events of the behaviours inside, translated to inputs of the machine and events of this one.

use calimero_network_primitives::{PeerId, addr::without_peer};
use libp2p_identify as identify;
use libp2p_kad::{self as kad, store::RecordStore};
use libp2p_relay as relay;
use libp2p_swarm::{CloseConnection, ConnectionId, ToSwarm, derive_prelude::ListenerId};

use super::{Behaviour, event::Event, inner::InnerEvent, now, probe, records, rendezvous};
use crate::{
    liveness::{self, Outcome},
    machine::{CircuitLimit, HolePunch, Input},
    paths::Decision,
};

/// Addresses, and protocols, of one identify message that are processed and reported. Nodes list a
/// dozen; a message of 4 KiB, the longest, can hold hundreds.
pub const MAX_IDENTIFY_ITEMS: usize = 128;

impl Behaviour {
    pub(super) fn on_inner_event(&mut self, event: InnerEvent) {
        match event {
            InnerEvent::Liveness(event) => self.on_ping(event),
            InnerEvent::Identify(event) => self.on_identify(event),
            InnerEvent::Kad(event) => self.on_kad(event),
            InnerEvent::Rendezvous(event) => self.on_rendezvous(event),
            InnerEvent::Relay(event) => self.on_relay(&event),
            InnerEvent::Dcutr(event) => self.on_dcutr(&event),
            InnerEvent::Probed(event) => self.on_probe(event),
            #[cfg(feature = "mdns")]
            InnerEvent::Mdns(event) => self.on_mdns(event),
        }
    }

    fn on_ping(&mut self, event: liveness::Event) {
        let (peer, connection) = (event.peer, event.connection);
        match event.outcome {
            Outcome::Rtt(time) => self.paths.on_answered(peer, connection, time, now()),
            Outcome::Failed { in_a_row: 1.., .. } => {
                self.paths.on_unanswered(peer, connection, now());
            }
            // None in a row where the peer does not support ping.
            Outcome::Failed { .. } => self.paths.on_refused(peer, connection, now()),
            Outcome::GivenUp { .. } => {}
        }
        self.emit(Event::Liveness(event));
        self.decide_paths();
    }

    /// Carries out what follows from the measurements of connections.
    pub(super) fn decide_paths(&mut self) {
        while let Some(decision) = self.paths.next_decision() {
            match decision {
                Decision::Prefer { peer, connection } => {
                    self.emit(Event::ConnectionPreferred { peer, connection });
                }
                Decision::Close { peer, connection } => {
                    self.waiting.push_back(ToSwarm::CloseConnection {
                        peer_id: peer,
                        connection: CloseConnection::One(connection),
                    });
                }
                Decision::Spare {
                    peer,
                    connection,
                    spare,
                } => {
                    self.inner.keeper.set_spare(peer, connection, spare);
                    self.emit(Event::ConnectionSpare {
                        peer,
                        connection,
                        spare,
                    });
                }
            }
        }
    }

    fn on_identify(&mut self, event: identify::Event) {
        if let identify::Event::Received {
            connection_id,
            peer_id,
            info,
        } = event
        {
            self.identified(peer_id, connection_id, info);
        }
    }

    fn identified(&mut self, peer: PeerId, connection: ConnectionId, mut info: identify::Info) {
        info.listen_addrs.truncate(MAX_IDENTIFY_ITEMS);
        info.protocols.truncate(MAX_IDENTIFY_ITEMS);
        // A peer that was dialled from a listening port observes the address at which a NAT lets
        // others in, port included. libp2p-identify 0.48 puts the listening port in its place where
        // the two differ, which is wrong behind every NAT that changes ports.
        // Of a connection only the first one counts: a peer may push others without a limit.
        let listening = self.machine.listening_on();
        if listening.matches(&info.observed_addr) && self.peers.observes_first(&peer, connection) {
            self.input(Input::AddressObserved {
                observer: peer,
                address: without_peer(&info.observed_addr),
            });
        }
        let addresses = info.listen_addrs.clone();
        self.emit(Event::Identified {
            peer,
            connection,
            info: Box::new(info),
        });
        self.input(Input::Identified { peer, addresses });
        if self.peers.came_through_relay(&peer, connection) {
            self.input(Input::ReachedThroughRelay { peer });
        }
    }

    fn on_kad(&mut self, event: kad::Event) {
        match event {
            kad::Event::InboundRequest {
                request:
                    kad::InboundRequest::PutRecord {
                        record: Some(record),
                        ..
                    },
            } => self.store(record),
            kad::Event::InboundRequest {
                request:
                    kad::InboundRequest::AddProvider {
                        record: Some(provider),
                    },
            } => self.store_provider(provider),
            kad::Event::OutboundQueryProgressed {
                result: kad::QueryResult::Bootstrap(_),
                stats,
                step,
                ..
            } => self.input(Input::RoutingRefreshed {
                answers: stats.num_successes(),
                last: step.last,
            }),
            kad::Event::OutboundQueryProgressed {
                id, result, step, ..
            } => {
                let (validator, now) = (&self.validator, now());
                let step = self.queries.progressed(id, result, step.last, |record| {
                    !record.is_expired(now) && validator.validate(record).is_ok()
                });
                step.events.into_iter().for_each(|event| self.emit(event));
                if step.finish {
                    self.stop_query(id);
                }
            }
            _ => {}
        }
    }

    /// Stores a record that a peer sent, if the validator accepts it.
    ///
    /// The peer gets the same answer in either case: libp2p-kad 0.49 acknowledges a record before
    /// it is filtered, and offers no way to refuse one.
    fn store(&mut self, record: kad::Record) {
        if record.is_expired(now()) || self.validator.validate(&record).is_err() {
            return;
        }
        // A full store refuses what is new and takes what replaces something.
        let _ = self.inner.kad.store_mut().put(record);
    }

    /// Stores a provider that announced itself, if the validator accepts it.
    fn store_provider(&mut self, mut record: kad::ProviderRecord) {
        let valid = (self.validator).validate_provider(&record.key, &record.provider);
        if record.is_expired(now()) || valid.is_err() {
            return;
        }
        records::trim(&mut record);
        // A full store refuses what is new.
        let _ = self.inner.kad.store_mut().add_provider(record);
    }

    fn on_rendezvous(&mut self, event: rendezvous::Event) {
        match event {
            rendezvous::Event::Registered {
                server,
                namespace,
                ttl,
            } => {
                self.emit(Event::Registered {
                    server,
                    namespace: namespace.clone(),
                    ttl,
                });
                self.input(Input::Registered {
                    server,
                    namespace,
                    ttl,
                });
            }
            rendezvous::Event::RegisterFailed {
                server,
                namespace,
                why,
            } => {
                self.emit(Event::RegisterFailed {
                    server,
                    namespace: namespace.clone(),
                    why,
                });
                self.input(Input::RegisterFailed {
                    server,
                    namespace,
                    why,
                });
            }
            rendezvous::Event::Discovered {
                server,
                namespace,
                members,
                cookie,
            } => {
                self.emit(Event::Discovered {
                    server,
                    namespace: namespace.clone(),
                    members: members.len(),
                });
                self.input(Input::Discovered {
                    server,
                    namespace,
                    members,
                    cookie,
                });
            }
            rendezvous::Event::DiscoverFailed {
                server,
                namespace,
                why,
            } => self.input(Input::DiscoverFailed {
                server,
                namespace,
                why,
            }),
        }
    }

    fn on_relay(&mut self, event: &relay::client::Event) {
        use relay::client::Event::{
            InboundCircuitEstablished, OutboundCircuitEstablished, ReservationReqAccepted,
        };
        let (ReservationReqAccepted { limit, .. }
        | OutboundCircuitEstablished { limit, .. }
        | InboundCircuitEstablished { limit, .. }) = event;
        // A message without a limit sets none.
        let limit = limit.map_or_else(CircuitLimit::default, |limit| {
            CircuitLimit::new(limit.duration(), limit.data_in_bytes())
        });
        match event {
            ReservationReqAccepted {
                relay_peer_id,
                renewal,
                ..
            } => self.on_reservation(*relay_peer_id, *renewal, limit),
            OutboundCircuitEstablished { relay_peer_id, .. } => {
                self.peers.on_circuit_dialled(*relay_peer_id, limit);
            }
            InboundCircuitEstablished { src_peer_id, .. } => {
                self.peers.on_circuit_accepted(*src_peer_id, limit);
            }
        }
    }

    fn on_reservation(&mut self, relay: PeerId, renewed: bool, limit: CircuitLimit) {
        let mut slots = self.slots.values_mut();
        let Some(slot) = slots.find(|slot| slot.relay == relay) else {
            return;
        };
        slot.granted = true;
        let listener = slot.listener;
        self.emit(Event::ReservationGranted { relay, renewed });
        self.input(Input::ReservationAccepted { listener, limit });
    }

    /// A listener of a relay reservation was closed, for any reason.
    pub(super) fn listener_ended(&mut self, id: ListenerId) {
        if let Some(listener) = self.slot_lost(id) {
            self.input(Input::RelayListenerClosed { listener });
        }
    }

    /// A listener failed. One that is still open is closed, so that its reservation is requested
    /// again.
    pub(super) fn listener_failed(&mut self, id: ListenerId) {
        let Some(slot) = self.slots.get(&id).copied() else {
            return;
        };
        if slot.listening {
            self.give_up(id);
        } else {
            self.slot_lost(id);
        }
        let listener = slot.listener;
        self.input(Input::RelayListenerClosed { listener });
    }

    fn on_dcutr(&mut self, event: &libp2p_dcutr::Event) {
        let outcome = match event.result {
            Ok(_) => HolePunch::Direct,
            Err(_) => HolePunch::Failed,
        };
        self.input(Input::HolePunchEnded {
            peer: event.remote_peer_id,
            outcome,
        });
    }

    fn on_probe(&mut self, event: probe::Event) {
        let probe::Event {
            address,
            server,
            outcome,
        } = event;
        self.emit(Event::Probed {
            address: address.clone(),
            server,
            outcome,
        });
        self.input(Input::Probed {
            address,
            server,
            outcome,
        });
    }
}
