//! Boot nodes of lists that are resolved while the node runs, in addition to the configured ones.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use calimero_network_primitives::{
    Multiaddr, PeerId,
    addr::{DialAddr, peer_of},
};

use super::{Machine, effect::Effect};

/// Boot nodes of all lists that are used, 16: each is kept connected and asked for every overlay.
const MAX_LISTED: usize = 16;

/// Addresses of all lists that are examined, 1,024: what four full lists hold.
const MAX_EXAMINED: usize = 1024;

impl Machine {
    /// Replaces the boot nodes of the lists. The configured ones stay. If no address of any list
    /// passes the rules, nothing changes: a fault of their owners does not take a node off its network.
    ///
    /// The owner of a list is not the operator of this node, so its addresses are held to the same
    /// rules as those that peers report.
    pub(super) fn boot_list(&mut self, addresses: &[Multiaddr]) {
        let listed = self.listed_boot_nodes(addresses);
        if listed.is_empty() {
            return;
        }
        let removed = self.listed.iter().copied();
        let removed: Vec<_> = removed.filter(|peer| !listed.contains_key(peer)).collect();
        for peer in removed {
            self.remove_boot_node(peer);
        }
        for (peer, addresses) in listed {
            let known = self.boot.get(&peer).cloned().unwrap_or_default();
            if known == addresses {
                continue;
            }
            let is_new = self.listed.insert(peer);
            self.boot.insert(peer, addresses.clone());
            let removed = known.into_iter().filter(|one| !addresses.contains(one));
            self.unroute(peer, removed);
            self.use_boot_node(peer, addresses, is_new);
        }
    }

    /// Returns the number of boot nodes that come from lists.
    #[cfg(feature = "libp2p")]
    pub(crate) fn listed_boot_node_count(&self) -> usize {
        self.listed.len()
    }

    /// The peers of the list with the addresses that may be dialled, without this node and configured
    /// boot nodes. Of a longer list each node uses a part of its own, so that the boot nodes share the
    /// load, and a change of the list changes few of them.
    fn listed_boot_nodes(&self, addresses: &[Multiaddr]) -> BTreeMap<PeerId, Vec<DialAddr>> {
        let mut listed: BTreeMap<PeerId, Vec<DialAddr>> = BTreeMap::new();
        let max_addresses = self.config.book.max_addresses_per_peer as usize;
        for address in addresses.iter().take(MAX_EXAMINED) {
            let Some(peer) = peer_of(address) else {
                continue;
            };
            let is_configured = self.boot.contains_key(&peer) && !self.listed.contains(&peer);
            if is_configured || peer == self.local {
                continue;
            }
            if let Ok(address) = self.rules.check(&peer, address) {
                let known = listed.entry(peer).or_default();
                if known.len() < max_addresses && !known.contains(&address) {
                    known.push(address);
                }
            }
        }
        let mut peers: Vec<_> = listed.keys().copied().collect();
        peers.sort_unstable_by_key(|peer| {
            let mut hasher = DefaultHasher::new();
            (self.local, peer).hash(&mut hasher);
            hasher.finish()
        });
        for peer in peers.iter().skip(MAX_LISTED) {
            listed.remove(peer);
        }
        listed
    }

    /// Uses `peer` as a boot node that is reached at `addresses`. A blocked one is used when it is
    /// unblocked.
    fn use_boot_node(&mut self, peer: PeerId, addresses: Vec<DialAddr>, is_new: bool) {
        let now = self.now;
        if is_new {
            let namespaces: Vec<_> = self
                .overlays
                .status()
                .map(|(name, _)| name.clone())
                .collect();
            self.boot_nodes.add(peer, now);
            self.registrations.add_server(peer, &namespaces, now);
            self.discoveries.add_server(peer);
        }
        if self.blocked.contains(&peer) {
            return;
        }
        // If it is not connected, it is dialled at the new addresses.
        self.redials.settle(&peer);
        let (relays, rng) = (&mut self.relays, &mut self.rng);
        let lost = relays.set_addresses(peer, &addresses, now, rng, &mut self.out);
        self.relays_changed(lost);
        if !self.connections.is_connected(&peer) {
            return self.seek_boot_node(peer);
        }
        self.route_and_store(peer, addresses);
        self.boot_nodes.on_connected(&peer, now);
        if is_new {
            let rng = &mut self.rng;
            self.registrations.server_up(peer, now, rng, &mut self.out);
            self.discoveries.server_up(peer, now);
        }
    }

    /// Treats `peer` as any other peer from now on. Its connection stays.
    fn remove_boot_node(&mut self, peer: PeerId) {
        self.listed.remove(&peer);
        let known = self.boot.remove(&peer).unwrap_or_default();
        self.unroute(peer, known);
        self.boot_nodes.remove(&peer);
        self.redials.settle(&peer);
        self.registrations.remove_server(peer);
        self.discoveries.remove_server(peer);
        let (now, rng) = (self.now, &mut self.rng);
        let lost = self.relays.forget(peer, now, rng, &mut self.out);
        self.relays_changed(lost);
        self.book.remove(&peer);
        if self.connections.is_connected(&peer) {
            self.book.connected(peer, None, now);
        }
    }

    /// Removes addresses that a list no longer has from the routing table. Queries would dial them.
    fn unroute(&mut self, peer: PeerId, addresses: impl IntoIterator<Item = DialAddr>) {
        for address in addresses {
            self.out.push_back(Effect::RemoveRoutingAddress {
                peer,
                address: address.into(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, time::Instant};

    use calimero_network_primitives::config::DiscoveryConfig;
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;
    use crate::machine::{CircuitLimit, Effect, Input, Path};

    fn at(peer: PeerId, ip: &str) -> Multiaddr {
        format!("/ip4/{ip}/tcp/2428/p2p/{peer}").parse().unwrap()
    }

    struct Rig {
        machine: Machine,
        now: Instant,
    }

    impl Rig {
        #[expect(clippy::disallowed_methods, reason = "a test has to start somewhere")]
        fn new(boot: Vec<Multiaddr>) -> Self {
            let config = DiscoveryConfig {
                boot,
                ..DiscoveryConfig::default()
            };
            let now = Instant::now();
            let machine = Machine::new(config, PeerId::random(), 7, now).unwrap();
            let mut rig = Self { machine, now };
            rig.effects();
            rig
        }

        fn effects(&mut self) -> Vec<Effect> {
            std::iter::from_fn(|| self.machine.poll_effect()).collect()
        }

        fn handle(&mut self, input: Input) -> Vec<Effect> {
            self.machine.handle(input, self.now);
            self.effects()
        }

        fn boot_nodes(&self) -> Vec<PeerId> {
            self.machine.boot_nodes().collect()
        }
    }

    fn dials(effects: &[Effect], peer: PeerId) -> bool {
        let is_it =
            |effect: &Effect| matches!(effect, Effect::Dial { peer: of, .. } if *of == peer);
        effects.iter().any(is_it)
    }

    #[test]
    fn the_boot_nodes_of_a_list_come_and_go() {
        let [configured, old, new] = [(); 3].map(|()| PeerId::random());
        let mut rig = Rig::new(vec![at(configured, "8.8.8.1")]);
        let effects = rig.handle(Input::BootList(vec![at(old, "8.8.8.2")]));
        assert!(dials(&effects, old), "{effects:?}");
        let opened = |peer| Input::ConnectionOpened {
            peer,
            path: Path::Direct,
            dialled: None,
            remote_ip: None,
            is_local: false,
        };
        let effects = rig.handle(opened(old));
        let asks =
            |effect: &Effect| matches!(effect, Effect::Discover { server, .. } if *server == old);
        assert!(effects.iter().any(asks), "{effects:?}");
        // The same list changes nothing.
        assert_eq!(rig.handle(Input::BootList(vec![at(old, "8.8.8.2")])), []);

        let effects = rig.handle(Input::BootList(vec![at(new, "8.8.8.3")]));
        assert!(dials(&effects, new), "{effects:?}");
        let mut expected = vec![configured, new];
        expected.sort_unstable();
        assert_eq!(rig.boot_nodes(), expected);
        let path = Path::Direct;
        let effects = rig.handle(Input::ConnectionClosed { peer: old, path });
        assert!(!dials(&effects, old), "{effects:?}");
        assert!(!rig.machine.kept().any(|peer| peer == old));
        // A boot node at another address is dialled there.
        let effects = rig.handle(Input::BootList(vec![at(new, "8.8.8.4")]));
        assert_eq!(rig.machine.addresses(&new).len(), 1, "{effects:?}");
        assert!(
            rig.machine.addresses(&new)[0]
                .to_string()
                .contains("8.8.8.4")
        );
    }

    #[test]
    fn a_list_is_held_to_the_rules_for_reported_addresses() {
        let [configured, loopback] = [(); 2].map(|()| PeerId::random());
        let mut rig = Rig::new(vec![at(configured, "127.0.0.1")]);
        rig.handle(Input::BootList(vec![
            at(configured, "8.8.8.8"),
            at(loopback, "127.0.0.1"),
            "/ip4/8.8.8.8/tcp/1".parse().unwrap(),
        ]));
        assert_eq!(rig.boot_nodes(), [configured]);
        // Without an address that passes, the boot nodes before are kept.
        let listed = PeerId::random();
        rig.handle(Input::BootList(vec![at(listed, "8.8.8.9")]));
        rig.handle(Input::BootList(vec![at(loopback, "127.0.0.1")]));
        assert!(rig.boot_nodes().contains(&listed));
    }

    #[test]
    fn of_a_long_list_each_node_uses_a_part_of_its_own() {
        let all: Vec<_> = (0..40).map(|_| at(PeerId::random(), "8.8.8.8")).collect();
        let used = || {
            let mut rig = Rig::new(Vec::new());
            rig.handle(Input::BootList(all.clone()));
            let used = rig.boot_nodes();
            assert_eq!(used.len(), MAX_LISTED);
            // Records in another order, and one more or less, change at most one boot node.
            let rest: Vec<_> = all.iter().rev().skip(1).cloned().collect();
            rig.handle(Input::BootList(rest));
            let kept = rig.boot_nodes();
            let kept = kept.iter().filter(|peer| used.contains(peer)).count();
            assert!(kept >= MAX_LISTED - 1, "{kept}");
            used
        };
        assert_ne!(used(), used());
    }

    #[test]
    fn a_blocked_boot_node_of_a_list_is_used_when_it_is_unblocked() {
        let (blocked, other) = (PeerId::random(), PeerId::random());
        let mut rig = Rig::new(Vec::new());
        rig.handle(Input::Block(blocked));
        let effects = rig.handle(Input::BootList(vec![
            at(blocked, "8.8.8.1"),
            at(other, "8.8.8.2"),
        ]));
        assert!(!dials(&effects, blocked), "{effects:?}");
        let effects = rig.handle(Input::Unblock(blocked));
        assert!(dials(&effects, blocked), "{effects:?}");
    }

    #[test]
    fn another_address_in_the_list_does_not_end_a_reservation() {
        let [first, second, third] = [(); 3].map(|()| PeerId::random());
        let mut rig = Rig::new(Vec::new());
        rig.handle(Input::BootList(vec![
            at(first, "8.8.8.1"),
            at(second, "8.8.8.2"),
            at(third, "8.8.8.3"),
        ]));
        let now = rig.now;
        let (rng, out) = (&mut StdRng::seed_from_u64(1), &mut VecDeque::new());
        rig.machine.relays.set_wanted(true, now, rng, out);
        let asked: Vec<_> = out
            .drain(..)
            .filter_map(|effect| match effect {
                Effect::Reserve {
                    listener, relay, ..
                } => Some((listener, relay)),
                _ => None,
            })
            .collect();
        let (listener, relay) = asked[0];
        rig.machine
            .relays
            .accepted(listener, CircuitLimit::default(), now)
            .unwrap();
        let ends = |effect: &Effect| *effect == Effect::StopListening { listener };
        let ips = BTreeMap::from([(first, "8.8.8.1"), (second, "8.8.8.2"), (third, "8.8.8.3")]);
        let mut list: Vec<_> = ips.iter().map(|(peer, ip)| at(*peer, ip)).collect();
        list.push(at(relay, "8.8.8.9"));
        let effects = rig.handle(Input::BootList(list));
        assert!(!effects.iter().any(ends), "{effects:?}");
        // Without the address in use it ends, and queries no longer dial it.
        let list = ips.keys().map(|peer| at(*peer, "8.8.8.9")).collect();
        let effects = rig.handle(Input::BootList(list));
        assert!(effects.iter().any(ends), "{effects:?}");
        let unrouted = |effect: &Effect| {
            matches!(effect, Effect::RemoveRoutingAddress { peer, address }
                if *peer == relay && address.to_string().contains(ips[&relay]))
        };
        assert!(effects.iter().any(unrouted), "{effects:?}");
    }
}
