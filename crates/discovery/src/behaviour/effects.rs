//! Carrying out what the machine asks for.

use calimero_network_primitives::{Multiaddr, PeerId, multiaddr::Protocol};
use libp2p_rendezvous as rendezvous;
use libp2p_swarm::{
    CloseConnection, ListenOpts, ToSwarm,
    dial_opts::{DialOpts, PeerCondition},
};

use super::{Behaviour, Dialling, Slot, event::Event};
use crate::machine::{
    Cookie, Effect, Input, Namespace, RelayListener, RendezvousFailure, is_circuit,
};

impl Behaviour {
    pub(super) fn carry_out_all(&mut self) {
        while let Some(effect) = self.machine.poll_effect() {
            self.carry_out(effect);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Dial {
                peer, addresses, ..
            } => {
                if let Some((peer, addresses)) = self.held_dials.hold(peer, addresses) {
                    self.dial(peer, addresses);
                }
            }
            Effect::CloseRelayed { peer } => self.close_relayed(peer),
            Effect::Disconnect { peer } => self.waiting.push_back(ToSwarm::CloseConnection {
                peer_id: peer,
                connection: CloseConnection::All,
            }),
            Effect::AddRoutingAddress { peer, address } => self.add_route(&peer, address),
            Effect::RemoveRoutingAddress { peer, address } => {
                self.inner.kad.remove_address(&peer, &address);
            }
            Effect::Register {
                server,
                namespace,
                ttl,
            } => self.register(server, namespace, ttl.as_secs()),
            Effect::Unregister { server, namespace } => {
                if let Ok(name) = rendezvous::Namespace::new(namespace.as_str().to_owned())
                    && self.peers.is_connected(&server)
                {
                    self.inner.rendezvous.unregister(name, server);
                }
            }
            Effect::Discover {
                server,
                namespace,
                cookie,
                limit,
            } => self.discover(server, namespace, cookie, limit),
            Effect::Reserve {
                listener,
                relay,
                address,
            } => self.reserve(listener, relay, address),
            Effect::StopListening { listener } => self.stop_listening(listener),
            Effect::Probe { .. } => {}
            Effect::AddExternalAddress { address } => self.add_external(address),
            Effect::RemoveExternalAddress { address } => self.remove_external(address),
            Effect::ServeProbes(serve) => self.inner.serve_probes(serve),
            Effect::RefuseFollow { namespace } => self.tell(Event::FollowRefused { namespace }),
            Effect::SaveCache => self.tell(Event::SaveCache),
        }
    }

    pub(super) fn dial(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        let opts = DialOpts::peer_id(peer)
            .condition(PeerCondition::Disconnected)
            .addresses(addresses.clone())
            .build();
        let dialling = Dialling { peer, addresses };
        self.dials.insert(opts.connection_id(), dialling);
        self.waiting.push_back(ToSwarm::Dial { opts });
    }

    fn close_relayed(&mut self, peer: PeerId) {
        for connection in self.peers.relayed(&peer) {
            self.waiting.push_back(ToSwarm::CloseConnection {
                peer_id: peer,
                connection: CloseConnection::One(connection),
            });
        }
    }

    fn add_route(&mut self, peer: &PeerId, address: Multiaddr) {
        self.inner.kad.add_address(peer, address);
    }

    fn register(&mut self, server: PeerId, namespace: Namespace, ttl_secs: u64) {
        let name = rendezvous::Namespace::new(namespace.as_str().to_owned());
        let asked = self.peers.is_connected(&server)
            && name.is_ok_and(|name| {
                let client = &mut self.inner.rendezvous;
                client.register(name, server, Some(ttl_secs)).is_ok()
            });
        if !asked {
            self.heard.push_back(Input::RegisterFailed {
                server,
                namespace,
                why: RendezvousFailure::Refused,
            });
        }
    }

    fn discover(
        &mut self,
        server: PeerId,
        namespace: Namespace,
        cookie: Option<Cookie>,
        limit: u32,
    ) {
        let name = rendezvous::Namespace::new(namespace.as_str().to_owned());
        match name {
            Ok(name) if self.peers.is_connected(&server) => {
                let cookie = cookie.and_then(|cookie| {
                    rendezvous::Cookie::from_wire_encoding(cookie.as_bytes().to_vec()).ok()
                });
                self.inner
                    .rendezvous
                    .discover(Some(name), cookie, Some(limit.into()), server);
            }
            _ => self.heard.push_back(Input::DiscoverFailed {
                server,
                namespace,
                why: RendezvousFailure::Refused,
            }),
        }
    }

    fn reserve(&mut self, listener: RelayListener, relay: PeerId, address: Multiaddr) {
        let opts = ListenOpts::new(address);
        self.slots
            .insert(opts.listener_id(), Slot { listener, relay });
        self.waiting.push_back(ToSwarm::ListenOn { opts });
    }

    fn stop_listening(&mut self, listener: RelayListener) {
        let slot = self
            .slots
            .iter()
            .find(|(_, slot)| slot.listener == listener);
        let Some((id, relay)) = slot.map(|(id, slot)| (*id, slot.relay)) else {
            return;
        };
        self.slots.remove(&id);
        self.tell(Event::ReservationLost { relay });
        self.waiting.push_back(ToSwarm::RemoveListener { id });
    }

    fn add_external(&mut self, address: Multiaddr) {
        let address = self.complete(address);
        self.externals.push(address.clone());
        self.waiting
            .push_back(ToSwarm::ExternalAddrConfirmed(address.clone()));
        self.tell(Event::ExternalAddressConfirmed { address });
    }

    fn remove_external(&mut self, address: Multiaddr) {
        let address = self.complete(address);
        self.externals.retain(|other| *other != address);
        self.waiting
            .push_back(ToSwarm::ExternalAddrExpired(address.clone()));
        self.tell(Event::ExternalAddressExpired { address });
    }

    /// A circuit names whom it leads to, as others expect of it.
    fn complete(&self, address: Multiaddr) -> Multiaddr {
        if is_circuit(&address) {
            address.with(Protocol::P2p(self.local))
        } else {
            address
        }
    }
}
