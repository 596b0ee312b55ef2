//! Metrics of the resources that peers hold, against their limits.

use calimero_network_primitives::resources::{Resource, Usage};
use prometheus_client::metrics::counter::Counter;

use super::{Counters, Gauges, Registries, counter, counters, gauges, set};

const SCOPES: [&str; 3] = ["node", "origin", "peer"];

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
        let each = || Resource::ALL.map(|resource| [("resource", resource.name())]);
        let refused = Resource::ALL.into_iter().flat_map(|resource| {
            SCOPES.map(|scope| [("resource", resource.name()), ("scope", scope)])
        });
        Self {
            used: gauges(
                registry,
                "resource_used",
                "Amount of a resource that peers hold, in items or bytes",
                each(),
            ),
            limits: gauges(
                registry,
                "resource_limit",
                "Amount of a resource that peers may hold together",
                each(),
            ),
            reserves: gauges(
                registry,
                "resource_reserve",
                "Part of the limit for boot nodes, configured peers and members",
                each(),
            ),
            waiting: gauges(
                registry,
                "resource_waiting",
                "Requests that wait for a resource",
                each(),
            ),
            refused: counters(
                registry,
                "resource_refused",
                "Requests refused because of a limit, by resource and scope",
                refused,
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
            let counts = [usage.refused_node, usage.refused_origin, usage.refused_peer];
            for (scope, refused) in SCOPES.into_iter().zip(counts) {
                let labels = [("resource", name), ("scope", scope)];
                set(&self.refused.get_or_create(&labels), refused);
            }
        }
        set(&self.evicted, evicted);
    }
}
