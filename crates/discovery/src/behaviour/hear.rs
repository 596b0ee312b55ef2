//! What the behaviours inside say, as inputs of the machine and events of ours.

use std::time::Duration;

use calimero_network_primitives::{Multiaddr, PeerId, addr::without_peer};
use libp2p_autonat::v2 as autonat;
use libp2p_identify as identify;
use libp2p_kad::{self as kad, store::RecordStore};
use libp2p_mdns as mdns;
use libp2p_relay as relay;
use libp2p_rendezvous as rendezvous;
use libp2p_swarm::{ConnectionId, ToSwarm, derive_prelude::ListenerId};

use super::{
    Behaviour,
    event::{Event, HolePunch},
    inner::InnerEvent,
    now,
};
use crate::machine::{Cookie, Input, Namespace, ProbeOutcome, RendezvousFailure};

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
            InnerEvent::ProbeServed => {}
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
        if self.peers.has_own_port(&peer, connection) && self.listening.is_like(&info.observed_addr)
        {
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

    fn hear_rendezvous(&mut self, event: rendezvous::client::Event) {
        match event {
            rendezvous::client::Event::Registered {
                rendezvous_node: server,
                ttl,
                namespace,
            } => self.registered(server, &namespace, Duration::from_secs(ttl)),
            rendezvous::client::Event::RegisterFailed {
                rendezvous_node: server,
                namespace,
                error,
            } => self.register_failed(server, &namespace, failure(error)),
            rendezvous::client::Event::Discovered {
                rendezvous_node: server,
                registrations,
                cookie,
            } => {
                let Some(namespace) = cookie.namespace().and_then(overlay) else {
                    return;
                };
                let members = registrations
                    .into_iter()
                    .map(|r| (r.record.peer_id(), r.record.addresses().to_vec()))
                    .collect::<Vec<_>>();
                let cookie = Cookie::new(&cookie.into_wire_encoding());
                self.discovered(server, namespace, members, cookie);
            }
            rendezvous::client::Event::DiscoverFailed {
                rendezvous_node: server,
                namespace: Some(namespace),
                error,
            } => {
                if let Some(namespace) = overlay(&namespace) {
                    self.hear(Input::DiscoverFailed {
                        server,
                        namespace,
                        why: failure(error),
                    });
                }
            }
            _ => {}
        }
    }

    fn registered(&mut self, server: PeerId, namespace: &rendezvous::Namespace, ttl: Duration) {
        let Some(namespace) = overlay(namespace) else {
            return;
        };
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

    fn register_failed(
        &mut self,
        server: PeerId,
        namespace: &rendezvous::Namespace,
        why: RendezvousFailure,
    ) {
        let Some(namespace) = overlay(namespace) else {
            return;
        };
        self.tell(Event::RegisterFailed {
            server,
            namespace: namespace.clone(),
        });
        self.hear(Input::RegisterFailed {
            server,
            namespace,
            why,
        });
    }

    fn discovered(
        &mut self,
        server: PeerId,
        namespace: Namespace,
        members: Vec<(PeerId, Vec<Multiaddr>)>,
        cookie: Option<Cookie>,
    ) {
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

    fn hear_relay(&mut self, event: &relay::client::Event) {
        let relay::client::Event::ReservationReqAccepted {
            relay_peer_id,
            renewal,
            ..
        } = event
        else {
            return;
        };
        let slot = self
            .slots
            .values()
            .find(|slot| slot.relay == *relay_peer_id);
        let Some(listener) = slot.map(|slot| slot.listener) else {
            return;
        };
        self.tell(Event::ReservationGranted {
            relay: *relay_peer_id,
            renewed: *renewal,
        });
        self.hear(Input::ReservationAccepted { listener });
    }

    /// A listener is closed: through a relay, for whatever reason and with or without addresses.
    pub(super) fn listener_ended(&mut self, id: ListenerId) {
        if let Some(slot) = self.slots.remove(&id) {
            self.tell(Event::ReservationLost { relay: slot.relay });
            let listener = slot.listener;
            self.hear(Input::RelayListenerClosed { listener });
        }
    }

    /// A listener has failed. One that lives on is closed, so that its slot is asked for anew.
    pub(super) fn listener_failed(&mut self, id: ListenerId) {
        if self.slots.contains_key(&id) {
            self.waiting.push_back(ToSwarm::RemoveListener { id });
            self.listener_ended(id);
        }
    }

    fn hear_dcutr(&mut self, event: &libp2p_dcutr::Event) {
        let outcome = match event.result {
            Ok(_) => HolePunch::Direct,
            Err(_) => HolePunch::Failed,
        };
        let peer = event.remote_peer_id;
        self.peers.hole_punched(&peer, outcome);
        self.tell(Event::HolePunch { peer, outcome });
    }

    fn hear_probe(&mut self, event: autonat::client::Event) {
        let outcome = match event.result {
            Ok(()) => ProbeOutcome::Reached,
            Err(_) => ProbeOutcome::NotReached,
        };
        self.hear(Input::Probed {
            address: event.tested_addr,
            server: event.server,
            outcome,
        });
    }

    fn hear_mdns(&mut self, event: mdns::Event) {
        let mdns::Event::Discovered(found) = event else {
            return;
        };
        let mut peers: std::collections::BTreeMap<PeerId, Vec<Multiaddr>> = Default::default();
        for (peer, address) in found {
            peers.entry(peer).or_default().push(address);
        }
        for (peer, addresses) in peers {
            self.hear(Input::LocalPeer { peer, addresses });
        }
    }
}

fn overlay(namespace: &rendezvous::Namespace) -> Option<Namespace> {
    Namespace::new(&namespace.to_string()).ok()
}

fn failure(error: rendezvous::ErrorCode) -> RendezvousFailure {
    match error {
        rendezvous::ErrorCode::InvalidCookie => RendezvousFailure::InvalidCookie,
        rendezvous::ErrorCode::Unavailable => RendezvousFailure::Unavailable,
        _ => RendezvousFailure::Refused,
    }
}
