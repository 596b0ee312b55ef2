//! mDNS with a limit: the addresses that it finds are counted, and above the limit it pauses.
//!
//! libp2p-mdns 0.49 keeps every announcement of the link for the time that the announcement asks
//! for, and searches all of them for each new one.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use calimero_network_primitives::{Multiaddr, PeerId};
use libp2p_mdns as mdns;
use libp2p_swarm::{
    FromSwarm, NetworkBehaviour,
    behaviour::{ExpiredListenAddr, NewListenAddr},
    derive_prelude::ListenerId,
};

use super::{Behaviour, inner, now};
use crate::machine::Input;

/// Limit of addresses that mDNS finds, more than a link has hosts.
pub const MAX_LOCAL_ADDRESSES: usize = 1_024;

/// Time for which mDNS pauses after it found too many addresses.
const REST: Duration = Duration::from_secs(60);

/// The state that a new mDNS behaviour needs, and a count of what the current one found.
#[derive(Debug, Default)]
pub(super) struct LocalLink {
    listening: Vec<(ListenerId, Multiaddr)>,
    found: usize,
    rests_until: Option<Instant>,
}

impl LocalLink {
    pub(super) fn listen(&mut self, event: &NewListenAddr<'_>) {
        self.listening.push((event.listener_id, event.addr.clone()));
    }

    pub(super) fn expire(&mut self, event: &ExpiredListenAddr<'_>) {
        self.listening
            .retain(|(id, address)| *id != event.listener_id || address != event.addr);
    }

    /// Counts found addresses. Returns whether the limit is exceeded.
    fn count(&mut self, event: &mdns::Event) -> bool {
        match event {
            mdns::Event::Discovered(found) => self.found = self.found.saturating_add(found.len()),
            mdns::Event::Expired(gone) => self.found = self.found.saturating_sub(gone.len()),
        }
        self.found > MAX_LOCAL_ADDRESSES
    }
}

impl Behaviour {
    pub(super) fn on_mdns(&mut self, event: mdns::Event) {
        let too_much = self.local_link.count(&event);
        if let mdns::Event::Discovered(found) = event {
            let mut peers: BTreeMap<PeerId, Vec<Multiaddr>> = BTreeMap::new();
            for (peer, address) in found.into_iter().take(MAX_LOCAL_ADDRESSES) {
                peers.entry(peer).or_default().push(address);
            }
            for (peer, addresses) in peers {
                self.input(Input::LocalPeer { peer, addresses });
            }
        }
        if too_much {
            self.inner.mdns = None.into();
            self.local_link.found = 0;
            self.local_link.rests_until = Some(now() + REST);
        }
    }

    /// Starts mDNS again at the end of a pause.
    pub(super) fn wake_mdns(&mut self) {
        let rests = self.local_link.rests_until;
        if rests.is_none_or(|until| until > now()) {
            return;
        }
        self.local_link.rests_until = Some(now() + REST);
        let Ok(mut mdns) = inner::new_mdns(self.local) else {
            return;
        };
        for (listener_id, addr) in &self.local_link.listening {
            mdns.on_swarm_event(FromSwarm::NewListenAddr(NewListenAddr {
                listener_id: *listener_id,
                addr,
            }));
        }
        self.inner.mdns = Some(mdns).into();
        self.local_link.rests_until = None;
    }
}

#[cfg(test)]
mod tests {
    use calimero_network_primitives::{
        Keypair,
        config::{DiscoveryConfig, PingConfig},
    };

    use super::*;
    use crate::behaviour::RefuseRecords;

    fn found(peers: usize) -> mdns::Event {
        let address: Multiaddr = "/ip4/192.168.7.7/tcp/2428".parse().unwrap();
        let peers = (0..peers).map(|_| (PeerId::random(), address.clone()));
        mdns::Event::Discovered(peers.collect())
    }

    #[tokio::test]
    async fn a_flood_of_answers_puts_it_to_rest_and_fills_no_table() {
        let config = DiscoveryConfig {
            mdns: true,
            ..DiscoveryConfig::default()
        };
        let (identity, ping) = (Keypair::generate_ed25519(), PingConfig::default());
        let mut behaviour =
            Behaviour::new(&identity, &config, &ping, "test", None, RefuseRecords, 1).unwrap();
        assert!(behaviour.inner.mdns.is_enabled());
        for _ in 0..1_000 {
            behaviour.on_mdns(found(100));
        }
        assert!(!behaviour.inner.mdns.is_enabled());
        let status = behaviour.status().discovery;
        assert!(status.known_peers <= config.max_peers as usize);
        assert!(status.queued_dials <= config.dials.max_queued as usize);
        assert!(status.dials_in_flight <= config.dials.max_in_flight as usize);

        behaviour.wake_mdns();
        assert!(!behaviour.inner.mdns.is_enabled(), "it rests for a while");
        behaviour.local_link.rests_until = Some(now());
        behaviour.wake_mdns();
        assert!(behaviour.inner.mdns.is_enabled());
    }

    #[test]
    fn what_has_expired_counts_no_more() {
        let mut link = LocalLink::default();
        assert!(!link.count(&found(MAX_LOCAL_ADDRESSES)));
        let address = Multiaddr::empty();
        let gone = vec![(PeerId::random(), address)];
        assert!(!link.count(&mdns::Event::Expired(gone)));
        assert!(!link.count(&found(1)));
        assert!(link.count(&found(1)));
    }
}
