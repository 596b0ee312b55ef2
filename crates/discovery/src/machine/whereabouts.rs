//! How the machine handles inputs about the addresses and reservations of this node.

use calimero_network_primitives::{Multiaddr, PeerId, addr::is_relayed};

use super::{
    AddressSource, Effect, Machine, ProbeOutcome, Reachability, ReachableBecause, RelayListener,
    circuit_limit::CircuitLimit, listening::leaves_host, reachability, relays, without_peer,
};

impl Machine {
    pub(super) fn address_candidate(&mut self, address: &Multiaddr) {
        // A configured address needs no probe, and a circuit address says nothing about this node.
        if !self.config.external.is_empty() || is_relayed(address) {
            return;
        }
        if let Ok(address) = self.rules.check(&self.local, address) {
            self.prober.add(address.into_multiaddr(), self.now);
            self.prober.advance(self.now, &mut self.rng, &mut self.out);
        }
    }

    /// `observer` observes this node at `address`. Each observer contributes one address, so that a
    /// peer that reports many addresses replaces none but its own.
    pub(super) fn address_observed(&mut self, observer: PeerId, address: Multiaddr) {
        if self.is_stranger(&observer) || is_relayed(&address) {
            return;
        }
        let checked = self.rules.check(&self.local, &address);
        if let (Ok(checked), true) = (checked, self.config.external.is_empty()) {
            let (prober, now) = (&mut self.prober, self.now);
            if !prober.observe(observer, checked.into_multiaddr(), now) {
                return;
            }
        }
        self.out.push_back(Effect::OfferCandidate { address });
        self.prober.advance(self.now, &mut self.rng, &mut self.out);
    }

    pub(super) fn listening(&mut self, address: &Multiaddr) {
        if !self.config.local_network || !self.config.external.is_empty() || is_relayed(address) {
            return self.address_candidate(address);
        }
        if let Ok(address) = self.rules.check(&self.local, address) {
            let (source, out) = (AddressSource::Local, &mut self.out);
            if self.externals.add(&address, source, out) {
                self.local_changed();
            }
        }
    }

    /// Returns whether a new `address` is a change of the network: peers may be reached by it that
    /// cannot be reached now. An interface that is added to a host with a network, such as the
    /// bridge of a container, is none.
    pub(super) fn is_change(&self, address: &Multiaddr) -> bool {
        let is_connected = |boot: &PeerId| self.connections.is_connected(boot);
        let is_cut_off = self.connections.len() == 0
            || (!self.boot.is_empty() && !self.boot.keys().any(is_connected));
        let reaches_as_far = self.listening.reaches_as_far_as(address);
        let is_change = is_cut_off || !reaches_as_far || self.redials.has_network_changed(self.now);
        leaves_host(address) && is_change
    }

    fn local_changed(&mut self) {
        let local = AddressSource::Local;
        let listening = self.externals.iter().any(|(_, why)| why.contains(&local));
        self.prober.set_local(listening);
        self.externals_changed();
        self.reconsider_reachability();
    }

    pub(super) fn address_gone(&mut self, address: &Multiaddr) {
        let address = without_peer(address);
        let (source, out) = (AddressSource::Local, &mut self.out);
        if self.externals.remove(&address, source, out) {
            self.local_changed();
        }
        if self.prober.remove(&address) {
            self.probe_changed(&address, reachability::Change::Lost);
        }
        // The driver knows which connections used it.
        if leaves_host(&address) {
            let local = address;
            self.out.push_back(Effect::ProbeConnections { local });
        }
    }

    pub(super) fn probed(&mut self, address: &Multiaddr, server: PeerId, outcome: ProbeOutcome) {
        // Results that a blocked peer or this node itself reports do not count.
        let outcome = if self.is_stranger(&server) {
            ProbeOutcome::NotTried
        } else {
            outcome
        };
        let address = without_peer(address);
        let (now, rng) = (self.now, &mut self.rng);
        if let Some(change) = self.prober.probed(&address, server, outcome, now, rng) {
            self.probe_changed(&address, change);
        }
        self.reconsider_reachability();
    }

    fn probe_changed(&mut self, address: &Multiaddr, change: reachability::Change) {
        let (source, out) = (AddressSource::Probed, &mut self.out);
        let changed = match change {
            reachability::Change::Gained => self.externals.add(address, source, out),
            reachability::Change::Lost => self.externals.remove(address, source, out),
        };
        if changed {
            self.externals_changed();
        }
        self.reconsider_reachability();
    }

    /// Requests reservations while unknown peers may not reach this node otherwise, and serves
    /// probes while they can.
    ///
    /// A peer that probes is not unknown: this node has sent it a request, and a NAT that filters
    /// by address lets it in for that. Reservations are kept until a peer has connected without
    /// such a request.
    pub(super) fn reconsider_reachability(&mut self) {
        let reachability = self.prober.reachability();
        let (reachable, wants_relay) = match reachability {
            Reachability::Reachable {
                why: ReachableBecause::Configured | ReachableBecause::LocalNetwork,
            } => (true, false),
            Reachability::Reachable {
                why: ReachableBecause::Probed { .. },
            } => (true, !self.prober.is_visited()),
            Reachability::Unreachable => (false, true),
            Reachability::Unknown => (false, self.patience_ends.is_none()),
        };
        let (now, rng) = (self.now, &mut self.rng);
        self.reachability.set(reachability, now);
        let changes = self.relays.set_wanted(wants_relay, now, rng, &mut self.out);
        self.relays_changed(changes);
        if reachable != self.serves_probes {
            self.serves_probes = reachable;
            self.out.push_back(Effect::ServeProbes(reachable));
        }
    }

    /// A peer that this node never sent anything to has connected directly.
    pub(super) fn stranger_came_in(&mut self) {
        self.prober.visited();
        self.reconsider_reachability();
    }

    pub(super) fn reservation_accepted(&mut self, listener: RelayListener, limit: CircuitLimit) {
        let change = self.relays.accepted(listener, limit, self.now);
        self.relays_changed(change);
    }

    pub(super) fn relay_listener_closed(&mut self, listener: RelayListener) {
        let (now, rng) = (self.now, &mut self.rng);
        let change = self.relays.closed(listener, now, rng, &mut self.out);
        self.relays_changed(change);
    }

    /// Circuit addresses are added and removed with the reservation at their relay.
    pub(super) fn relays_changed(&mut self, changes: impl IntoIterator<Item = relays::Change>) {
        let mut changed = false;
        for change in changes {
            let out = &mut self.out;
            changed |= match change {
                relays::Change::Gained(relay, circuit) => {
                    self.externals
                        .add(&circuit, AddressSource::Relay(relay), out)
                }
                relays::Change::Lost(relay, circuit) => {
                    self.externals
                        .remove(&circuit, AddressSource::Relay(relay), out)
                }
            };
        }
        if changed {
            self.externals_changed();
        }
    }

    pub(super) fn externals_changed(&mut self) {
        let any = !self.externals.is_empty();
        self.registrations
            .addresses_changed(any, self.now, &mut self.out);
    }
}
