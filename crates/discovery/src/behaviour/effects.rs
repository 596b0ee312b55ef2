//! Carries out the effects of the machine.

use calimero_network_primitives::{
    Multiaddr, PeerId,
    addr::{is_relayed, without_peer},
    multiaddr::Protocol,
};
use libp2p_kad::{Addresses, KBucketKey, KBucketRef};
use libp2p_swarm::{
    CloseConnection, FromSwarm, ListenOpts, NetworkBehaviour, NewExternalAddrCandidate, ToSwarm,
    derive_prelude::ListenerId,
    dial_opts::{DialOpts, PeerCondition},
};

use super::{Behaviour, Dialling, Slot, clock::now, event::Event, peers::Affected};
use crate::{
    ip::ip_of,
    machine::{AttemptId, AttemptKind, Effect, Input, RelayListener, multiaddrs},
};

type Bucket<'a> = KBucketRef<'a, KBucketKey<PeerId>, Addresses>;

impl Behaviour {
    pub(super) fn carry_out_all(&mut self) {
        while let Some(effect) = self.machine.poll_effect() {
            self.carry_out(effect);
        }
    }

    pub(super) fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Dial {
                peer, addresses, ..
            } => self.dial(peer, multiaddrs(addresses)),
            Effect::Attempt {
                id,
                kind,
                peer,
                addresses,
            } => self.attempt(id, kind, peer, multiaddrs(addresses)),
            Effect::CloseAttempt { id, peer } => self.close_attempt(id, peer),
            Effect::HolePunchEnded { peer, outcome } => {
                self.peers.hole_punched(&peer, outcome);
                self.emit(Event::HolePunch { peer, outcome });
            }
            Effect::BootNodeUnreachable { peer, cause } => {
                self.emit(Event::BootNodeUnreachable { peer, cause });
            }
            Effect::RefreshRouting => {
                // An empty table has no peer to ask. It fills as soon as one is known.
                let _ = self.inner.kad.bootstrap();
            }
            Effect::DialCircuits { peer, addresses } => {
                let opts = DialOpts::peer_id(peer)
                    .condition(PeerCondition::Always)
                    .addresses(multiaddrs(addresses))
                    .build();
                self.waiting.push_back(ToSwarm::Dial { opts });
            }
            Effect::CloseRelayed { peer } => {
                self.paths.on_superseded(peer, now());
                self.decide_paths();
            }
            Effect::Disconnect { peer } => self.waiting.push_back(ToSwarm::CloseConnection {
                peer_id: peer,
                connection: CloseConnection::All,
            }),
            Effect::AddRoutingAddress { peer, address } => self.add_route(&peer, address.into()),
            Effect::RemoveRoutingAddress { peer, address } => {
                self.inner.kad.remove_address(&peer, &address);
            }
            Effect::Register {
                server,
                namespace,
                ttl,
            } => {
                let addresses = self.externals.clone();
                let client = &mut self.inner.rendezvous;
                client.register(server, namespace, addresses, ttl);
            }
            Effect::Unregister { server, namespace } => {
                self.inner.rendezvous.unregister(server, namespace);
            }
            Effect::Discover {
                server,
                namespace,
                cookie,
                limit,
            } => {
                let client = &mut self.inner.rendezvous;
                client.discover(server, namespace, cookie.as_ref(), limit);
            }
            Effect::Reserve {
                listener,
                relay,
                address,
            } => self.reserve(listener, relay, address),
            Effect::StopListening { listener } => self.stop_listening(listener),
            Effect::Probe { address } => self.inner.probes.probe(address),
            Effect::ProbeConnections { local } => self.probe_connections(&local),
            Effect::OfferCandidate { address } => {
                self.waiting
                    .push_back(ToSwarm::NewExternalAddrCandidate(address));
            }
            Effect::AddExternalAddress { address } => self.add_external(address),
            Effect::RemoveExternalAddress { address } => self.remove_external(address),
            Effect::ServeProbes(serve) => self.inner.serve_probes(serve, self.dial_scopes),
            Effect::RefuseFollow { namespace } => self.emit(Event::FollowRefused { namespace }),
            Effect::SaveCache => self.emit(Event::SaveCache),
        }
    }

    /// Returns the addresses of `peer` in the machine's address book, the best first.
    pub(super) fn known_addresses(&self, peer: &PeerId) -> Vec<Multiaddr> {
        multiaddrs(self.machine.addresses(peer))
    }

    pub(super) fn dial(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        let opts = DialOpts::peer_id(peer)
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .addresses(addresses.clone())
            .build();
        let dialling = Dialling { peer, addresses };
        self.dials.insert(opts.connection_id(), dialling);
        self.waiting.push_back(ToSwarm::Dial { opts });
    }

    fn attempt(
        &mut self,
        id: AttemptId,
        kind: AttemptKind,
        peer: PeerId,
        addresses: Vec<Multiaddr>,
    ) {
        let opts = DialOpts::peer_id(peer).addresses(addresses);
        let opts = match kind {
            AttemptKind::Round => opts.condition(PeerCondition::NotDialing),
            AttemptKind::DialBack => {
                let opts = opts.condition(PeerCondition::NotDialing);
                opts.allocate_new_port()
            }
            AttemptKind::ThroughHole => opts.condition(PeerCondition::Always).allocate_new_port(),
        };
        let opts = opts.build();
        self.attempts.insert(opts.connection_id(), id);
        self.waiting.push_back(ToSwarm::Dial { opts });
    }

    fn close_attempt(&mut self, id: AttemptId, peer_id: PeerId) {
        let made = self.attempts.iter().find(|(_, attempt)| **attempt == id);
        if let Some((connection, _)) = made {
            self.waiting.push_back(ToSwarm::CloseConnection {
                peer_id,
                connection: CloseConnection::One(*connection),
            });
        }
    }

    /// The table keeps every address, so those that the address book dropped are removed from it.
    ///
    /// A peer that is pending in a full bucket keeps the one address that it was added with:
    /// libp2p-kad does not expose the addresses of pending entries, so they could not be limited.
    pub(super) fn add_route(&mut self, peer: &PeerId, address: Multiaddr) {
        let kad = &mut self.inner.kad;
        let Some(bucket) = kad.kbucket(*peer) else {
            return;
        };
        if bucket.has_pending() && routes_of(&bucket, peer).is_none() {
            return;
        }
        kad.add_address(peer, address);
        let bucket = kad.kbucket(*peer);
        let known = bucket.and_then(|bucket| routes_of(&bucket, peer));
        let known = known.unwrap_or_default();
        if known.len() > self.max_routes {
            let current = self.known_addresses(peer);
            // The table stores addresses with the peer id at their end.
            let stale = known.iter().filter(|a| !current.contains(&without_peer(a)));
            for address in stale {
                self.inner.kad.remove_address(peer, address);
            }
        }
    }

    /// Probes the connections that may use a local address that disappeared.
    fn probe_connections(&mut self, local: &Multiaddr) {
        let affected = self.peers.using(ip_of(local));
        if affected.is_empty() {
            return;
        }
        let (certain, others): (Vec<_>, Vec<_>) =
            affected.into_iter().partition(|one| one.is_certain);
        // A host may lose an address that no connection uses, such as that of a container's bridge.
        if !certain.is_empty() {
            self.inputs.push_back(Input::NetworkChanged);
        }
        let ids = |all: Vec<Affected>| all.into_iter().map(|one| (one.peer, one.connection));
        self.inner.liveness.probe_without_address(ids(certain));
        self.inner.liveness.probe_connections(ids(others));
    }

    fn reserve(&mut self, listener: RelayListener, relay: PeerId, address: Multiaddr) {
        let opts = ListenOpts::new(address);
        self.slots.insert(
            opts.listener_id(),
            Slot {
                listener,
                relay,
                listening: false,
                granted: false,
            },
        );
        self.waiting.push_back(ToSwarm::ListenOn { opts });
    }

    fn stop_listening(&mut self, listener: RelayListener) {
        let slot = self
            .slots
            .iter()
            .find(|(_, slot)| slot.listener == listener);
        if let Some(id) = slot.map(|(id, _)| *id) {
            self.give_up(id);
        }
    }

    /// Closes a relay listener of this node.
    pub(super) fn give_up(&mut self, id: ListenerId) {
        self.slot_lost(id);
        self.given_up.insert(id);
        self.waiting.push_back(ToSwarm::RemoveListener { id });
    }

    /// The reservation of a listener ended. Returns the machine's name of the listener.
    pub(super) fn slot_lost(&mut self, id: ListenerId) -> Option<RelayListener> {
        let slot = self.slots.remove(&id)?;
        let relay = slot.relay;
        self.emit(if slot.granted {
            Event::ReservationLost { relay }
        } else {
            Event::ReservationFailed { relay }
        });
        Some(slot.listener)
    }

    fn add_external(&mut self, address: Multiaddr) {
        let address = self.complete(address);
        self.externals.push(address.clone());
        // Otherwise DCUtR offers only the addresses that peers have observed.
        let candidate = NewExternalAddrCandidate { addr: &address };
        let candidate = FromSwarm::NewExternalAddrCandidate(candidate);
        self.inner.dcutr.on_swarm_event(candidate);
        self.waiting
            .push_back(ToSwarm::ExternalAddrConfirmed(address.clone()));
        self.emit(Event::ExternalAddressConfirmed { address });
    }

    fn remove_external(&mut self, address: Multiaddr) {
        let address = self.complete(address);
        self.externals.retain(|other| *other != address);
        self.waiting
            .push_back(ToSwarm::ExternalAddrExpired(address.clone()));
        self.emit(Event::ExternalAddressExpired { address });
    }

    /// Appends this node's id to a circuit, as other implementations expect.
    fn complete(&self, address: Multiaddr) -> Multiaddr {
        if is_relayed(&address) {
            address.with(Protocol::P2p(self.local))
        } else {
            address
        }
    }
}

/// The addresses of `peer` in its bucket of the Kademlia table; `None` if the peer is not in it.
fn routes_of(bucket: &Bucket<'_>, peer: &PeerId) -> Option<Vec<Multiaddr>> {
    let mut entries = bucket.iter();
    let entry = entries.find(|entry| entry.node.key.preimage() == peer)?;
    Some(entry.node.value.iter().cloned().collect())
}
