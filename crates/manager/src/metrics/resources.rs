//! Metrics of the resources that peers hold, against their limits.

use calimero_network_primitives::resources::Usage;
use prometheus_client::metrics::counter::Counter;

use super::{Counters, Gauges, Registries, counter, counters, gauges, set};

#[derive(Debug)]
pub(super) struct Resources {
    used: Gauges<1>,
    limits: Gauges<1>,
    reserves: Gauges<1>,
    waiting: Gauges<1>,
    refused: Counters<2>,
    evicted: Counter,
}

impl Resources {
    pub(super) fn new(registry: &mut Registries<'_>) -> Self {
        Self {
            used: gauges(
                registry,
                "resource_used",
                "Amount of a resource that peers hold, in items or bytes",
            ),
            limits: gauges(
                registry,
                "resource_limit",
                "Amount of a resource that peers may hold together",
            ),
            reserves: gauges(
                registry,
                "resource_reserve",
                "Part of the limit for boot nodes, configured peers and members",
            ),
            waiting: gauges(
                registry,
                "resource_waiting",
                "Requests that wait for a resource",
            ),
            refused: counters(
                registry,
                "resource_refused",
                "Requests refused because of a limit, by resource and scope",
            ),
            evicted: counter(
                registry,
                "connections_evicted",
                "Inbound connections closed to admit others",
            ),
        }
    }

    pub(super) fn refresh(&self, resources: &[Usage], evicted: u64) {
        let level = |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX);
        for usage in resources {
            let name = usage.resource.name();
            let set_gauge = |gauges: &Gauges<1>, amount| {
                gauges
                    .get_or_create(&[("resource", name)])
                    .set(level(amount));
            };
            set_gauge(&self.used, usage.used);
            set_gauge(&self.limits, usage.limit);
            set_gauge(&self.reserves, usage.reserve);
            set_gauge(&self.waiting, usage.waiting as u64);
            let scopes = [
                ("node", usage.refused_node),
                ("origin", usage.refused_origin),
                ("peer", usage.refused_peer),
            ];
            for (scope, refused) in scopes {
                let labels = [("resource", name), ("scope", scope)];
                set(&self.refused.get_or_create(&labels), refused);
            }
        }
        set(&self.evicted, evicted);
    }
}
