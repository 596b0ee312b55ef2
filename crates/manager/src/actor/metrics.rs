//! Metrics that describe a state, read from the parts of the node.

use std::sync::atomic::Ordering;

use calimero_network_discovery::server;

use super::Actor;
use crate::metrics::{Facts, Served};

impl Actor {
    pub(super) fn refresh_metrics(&mut self) {
        let counters = self.swarm.network_info();
        let counters = counters.connection_counters();
        #[cfg(feature = "upnp")]
        let port_mappings = self.port_mappings();
        let (unread_messages, unread_events) = self.events.unread();
        let behaviour = self.swarm.behaviour_mut();
        let facts = Facts {
            peers: self.shared.peers.load(Ordering::Acquire),
            pending_inbound: counters.num_pending_incoming(),
            pending_outbound: counters.num_pending_outgoing(),
            totals: self.links.totals(),
            traffic: behaviour.streams.traffic(),
            events_dropped: self.shared.events_dropped.load(Ordering::Relaxed),
            unread_messages,
            unread_events,
            gossip: behaviour.pubsub.mesh_stats(),
            discovery: behaviour.discovery.status(),
            served: served(&behaviour.server),
            resources: behaviour.limits.resources().snapshot(),
            evicted: behaviour.limits.evicted(),
            #[cfg(feature = "upnp")]
            port_mappings,
        };
        self.metrics.refresh(&facts);
    }
}

fn served(server: &server::Behaviour) -> Served {
    let (rendezvous, relay) = (server.rendezvous(), server.relay());
    Served {
        held: rendezvous.map(|server| server.held()).unwrap_or_default(),
        reservations: relay.map_or(0, |relay| relay.reservations()),
        circuits: relay.map_or(0, |relay| relay.circuits()),
    }
}
