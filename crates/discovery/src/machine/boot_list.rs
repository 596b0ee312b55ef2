//! Boot nodes of a list that is resolved while the node runs, in addition to the configured ones.

use std::collections::BTreeMap;

use calimero_network_primitives::{
    Multiaddr, PeerId,
    addr::{DialAddr, peer_of},
};

use super::{Machine, routes::MAX_EXAMINED_ADDRESSES};

/// Boot nodes of the list that are used, 16: each is kept connected and asked for every overlay.
const MAX_LISTED: usize = 16;

impl Machine {
    /// Replaces the boot nodes of the list. The configured ones stay.
    ///
    /// The owner of the list is not the operator of this node, so its addresses are held to the
    /// rules for addresses of others.
    pub(super) fn boot_list(&mut self, addresses: &[Multiaddr]) {
        let listed = self.listed_boot_nodes(addresses);
        let gone: Vec<_> = self
            .listed
            .difference(&listed.keys().copied().collect())
            .copied()
            .collect();
        for peer in gone {
            self.remove_boot_node(peer);
        }
        for (peer, addresses) in listed {
            if self.boot.get(&peer) == Some(&addresses) {
                continue;
            }
            let is_new = self.listed.insert(peer);
            self.boot.insert(peer, addresses);
            self.add_boot_node(peer, is_new);
        }
    }

    /// The peers of the list with the addresses that may be dialled, without this node, blocked
    /// peers and configured boot nodes.
    fn listed_boot_nodes(&self, addresses: &[Multiaddr]) -> BTreeMap<PeerId, Vec<DialAddr>> {
        let mut listed: BTreeMap<PeerId, Vec<DialAddr>> = BTreeMap::new();
        let max_addresses = self.config.book.max_addresses_per_peer as usize;
        for address in addresses.iter().take(MAX_LISTED * MAX_EXAMINED_ADDRESSES) {
            let Some(peer) = peer_of(address) else {
                continue;
            };
            let is_configured = self.boot.contains_key(&peer) && !self.listed.contains(&peer);
            let is_full = listed.len() >= MAX_LISTED && !listed.contains_key(&peer);
            if is_configured || is_full || self.is_stranger(&peer) {
                continue;
            }
            if let Ok(address) = self.rules.check(&peer, address) {
                let known = listed.entry(peer).or_default();
                if known.len() < max_addresses && !known.contains(&address) {
                    known.push(address);
                }
            }
        }
        listed
    }

    /// Uses `peer`, whose addresses are in the table of boot nodes, as a boot node.
    fn add_boot_node(&mut self, peer: PeerId, is_new: bool) {
        let addresses = self.boot.get(&peer).cloned().unwrap_or_default();
        if is_new {
            let namespaces: Vec<_> = self
                .overlays
                .status()
                .map(|(name, _)| name.clone())
                .collect();
            self.boot_nodes.add(peer);
            self.registrations.add_server(peer, &namespaces);
            self.discoveries.add_server(peer);
        } else {
            // It is dialled, and reserved at, by the new addresses.
            self.redials.settle(&peer);
            let (now, rng) = (self.now, &mut self.rng);
            let lost = self.relays.forget(peer, now, rng, &mut self.out);
            self.relays_changed(lost);
        }
        let (now, rng) = (self.now, &mut self.rng);
        self.relays.insert(peer, addresses.clone());
        self.relays.retry_now(now, rng, &mut self.out);
        if !self.connections.is_connected(&peer) {
            return self.seek_boot_node(peer);
        }
        self.book.insert_infrastructure(peer, addresses);
        self.boot_nodes.on_connected(&peer);
        if is_new {
            self.registrations.server_up(peer, now, rng, &mut self.out);
            self.discoveries.server_up(peer, now);
        }
    }

    /// Treats `peer` as any other peer from now on. Its connection stays.
    fn remove_boot_node(&mut self, peer: PeerId) {
        self.listed.remove(&peer);
        self.boot.remove(&peer);
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
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use calimero_network_primitives::config::DiscoveryConfig;

    use super::*;
    use crate::machine::{Effect, Input, Path};

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
    fn a_list_is_held_to_the_rules_for_addresses_of_others() {
        let [configured, loopback, blocked] = [(); 3].map(|()| PeerId::random());
        let mut rig = Rig::new(vec![at(configured, "127.0.0.1")]);
        rig.handle(Input::Block(blocked));
        rig.handle(Input::BootList(vec![
            at(configured, "8.8.8.8"),
            at(loopback, "127.0.0.1"),
            at(blocked, "8.8.8.8"),
            "/ip4/8.8.8.8/tcp/1".parse().unwrap(),
        ]));
        assert_eq!(rig.boot_nodes(), [configured]);
        let many = (0..40).map(|_| at(PeerId::random(), "8.8.8.8"));
        rig.handle(Input::BootList(many.collect()));
        assert_eq!(rig.boot_nodes().len(), MAX_LISTED + 1);
    }
}
