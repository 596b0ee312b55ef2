//! What the behaviours inside say, as inputs of the machine and events of ours.

use calimero_network_primitives::{PeerId, addr::without_peer};
use libp2p_identify as identify;
use libp2p_kad::{self as kad, store::RecordStore};
use libp2p_relay as relay;
use libp2p_swarm::{ConnectionId, ToSwarm, derive_prelude::ListenerId};

use super::{Behaviour, event::Event, inner::InnerEvent, now, probe, records, rendezvous};
use crate::machine::{HolePunch, Input};

/// Addresses and protocols of one identify message that are looked at and told, each. Nodes list
/// a dozen; the message, 4 KiB long at most, has room for hundreds.
pub const MAX_IDENTIFY_ITEMS: usize = 128;

impl Behaviour {
    pub(super) fn hear_inner(&mut self, event: InnerEvent) {
        match event {
            InnerEvent::Liveness(event) => self.tell(Event::Liveness(event)),
            InnerEvent::Identify(event) => self.hear_identify(event),
            InnerEvent::Kad(event) => self.hear_kad(event),
            InnerEvent::Rendezvous(event) => self.hear_rendezvous(event),
            InnerEvent::Relay(event) => self.hear_relay(&event),
            InnerEvent::Dcutr(event) => self.hear_dcutr(&event),
            InnerEvent::Probed(event) => self.hear_probe(event),
            InnerEvent::Mdns(event) => self.hear_mdns(event),
        }
    }

    fn hear_identify(&mut self, event: identify::Event) {
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
        let listening = self.machine.listening_on();
        if self.peers.has_own_port(&peer, connection) && listening.matches(&info.observed_addr) {
            let candidate = without_peer(&info.observed_addr);
            self.waiting
                .push_back(ToSwarm::NewExternalAddrCandidate(candidate));
        }
        let addresses = info.listen_addrs.clone();
        self.tell(Event::Identified {
            peer,
            connection,
            info: Box::new(info),
        });
        self.hear(Input::Identified { peer, addresses });
        if self.peers.came_through_relay(&peer, connection) {
            self.hear(Input::ReachedThroughRelay { peer });
        }
    }

    fn hear_kad(&mut self, event: kad::Event) {
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
            } => self.hear(Input::RoutingRefreshed {
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
                step.events.into_iter().for_each(|event| self.tell(event));
                if step.finish {
                    self.stop_query(id);
                }
            }
            _ => {}
        }
    }

    /// Stores a record that somebody has sent, if it is genuine.
    fn store(&mut self, record: kad::Record) {
        if record.is_expired(now()) || self.validator.validate(&record).is_err() {
            return;
        }
        // A full store refuses what is new and takes what replaces something.
        let _ = self.inner.kad.store_mut().put(record);
    }

    /// Holds a provider that has named itself, if it may be one.
    fn store_provider(&mut self, mut record: kad::ProviderRecord) {
        let valid = (self.validator).validate_provider(&record.key, &record.provider);
        if record.is_expired(now()) || valid.is_err() {
            return;
        }
        records::trim(&mut record);
        // A full store refuses what is new.
        let _ = self.inner.kad.store_mut().add_provider(record);
    }

    fn hear_rendezvous(&mut self, event: rendezvous::Event) {
        match event {
            rendezvous::Event::Registered {
                server,
                namespace,
                ttl,
            } => {
                self.tell(Event::Registered {
                    server,
                    namespace: namespace.clone(),
                    ttl,
                });
                self.hear(Input::Registered {
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
                self.tell(Event::RegisterFailed {
                    server,
                    namespace: namespace.clone(),
                    why,
                });
                self.hear(Input::RegisterFailed {
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
                self.tell(Event::Discovered {
                    server,
                    namespace: namespace.clone(),
                    members: members.len(),
                });
                self.hear(Input::Discovered {
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
            } => self.hear(Input::DiscoverFailed {
                server,
                namespace,
                why,
            }),
        }
    }

    fn hear_relay(&mut self, event: &relay::client::Event) {
        let relay::client::Event::ReservationReqAccepted {
            relay_peer_id,
            renewal,
            ..
        } = event
        else {
            return;
        };
        let mut slots = self.slots.values_mut();
        let Some(slot) = slots.find(|slot| slot.relay == *relay_peer_id) else {
            return;
        };
        slot.granted = true;
        let listener = slot.listener;
        self.tell(Event::ReservationGranted {
            relay: *relay_peer_id,
            renewed: *renewal,
        });
        self.hear(Input::ReservationAccepted { listener });
    }

    /// A listener is closed: through a relay, for whatever reason and with or without addresses.
    pub(super) fn listener_ended(&mut self, id: ListenerId) {
        if let Some(listener) = self.slot_lost(id) {
            self.hear(Input::RelayListenerClosed { listener });
        }
    }

    /// A listener has failed. One that lives on is closed, so that its slot is asked for anew.
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
        self.hear(Input::RelayListenerClosed { listener });
    }

    fn hear_dcutr(&mut self, event: &libp2p_dcutr::Event) {
        let outcome = match event.result {
            Ok(_) => HolePunch::Direct,
            Err(_) => HolePunch::Failed,
        };
        self.hear(Input::HolePunchEnded {
            peer: event.remote_peer_id,
            outcome,
        });
    }

    fn hear_probe(&mut self, event: probe::Event) {
        let probe::Event {
            address,
            server,
            outcome,
        } = event;
        self.tell(Event::Probed {
            address: address.clone(),
            server,
            outcome,
        });
        self.hear(Input::Probed {
            address,
            server,
            outcome,
        });
    }
}
