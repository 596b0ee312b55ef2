//! Metrics: counters and gauges in the text format of OpenMetrics.
//!
//! The actor is the only writer. It passes every event of the swarm to [`Metrics::record`], and it sets
//! the metrics that describe a state before they are read ([`Metrics::refresh`]). Labels have a few
//! fixed values, never text of a peer, so that the number of series is fixed.
//!
//! `libp2p-metrics` is not used: its labels hold the protocols of an address, which a peer chooses, and
//! it needs events that stay inside discovery here.

mod connections;
mod discovery;
mod resources;
mod server;

use std::sync::atomic::AtomicU64;

use calimero_network_discovery::{self as disco, liveness};
use calimero_network_primitives::resources::Usage;
use calimero_network_transport::Totals;
use libp2p::swarm::{DialError, SwarmEvent};
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Metric, Registry, Unit},
};

pub(crate) use self::server::Served;
use self::{connections::Connections, discovery::Discovery, resources::Resources, server::Server};
use crate::behaviour::BehaviourEvent;
#[cfg(feature = "upnp")]
use crate::status::PortMapping;

/// The prefix of every metric.
const PREFIX: &str = "calimero_network";

/// A set of labels: fixed names and fixed values.
type Labels<const N: usize> = [(&'static str, &'static str); N];

/// A counter for each set of labels.
type Counters<const N: usize> = Family<Labels<N>, Counter>;

/// A gauge for each set of labels.
type Gauges<const N: usize> = Family<Labels<N>, Gauge>;

/// State that metrics describe, read from the parts of the node.
pub(crate) struct Facts {
    pub(crate) peers: usize,
    pub(crate) pending_inbound: u32,
    pub(crate) pending_outbound: u32,
    pub(crate) totals: Totals,
    pub(crate) events_dropped: u64,
    pub(crate) discovery: disco::Status,
    pub(crate) served: Served,
    pub(crate) resources: Vec<Usage>,
    pub(crate) evicted: u64,
    #[cfg(feature = "upnp")]
    pub(crate) port_mappings: Vec<PortMapping>,
}

/// All metrics of the manager.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    connections: Connections,
    discovery: Discovery,
    resources: Resources,
    server: Server,
    events_dropped: Counter,
}

/// The registries that metrics are registered in: the manager's own, and the one of the program that
/// embeds it.
struct Registries<'a> {
    own: Registry,
    other: Option<&'a mut Registry>,
}

impl Registries<'_> {
    fn register(&mut self, name: &str, help: &str, metric: impl Metric + Clone) {
        if let Some(other) = &mut self.other {
            other.register(name, help, metric.clone());
        }
        self.own.register(name, help, metric);
    }

    fn register_with_unit(
        &mut self,
        name: &str,
        help: &str,
        unit: Unit,
        metric: impl Metric + Clone,
    ) {
        if let Some(other) = &mut self.other {
            other.register_with_unit(name, help, unit.clone(), metric.clone());
        }
        self.own.register_with_unit(name, help, unit, metric);
    }
}

impl Default for Metrics {
    /// Metrics in a registry of their own.
    fn default() -> Self {
        Self::new(None)
    }
}

impl Metrics {
    /// Metrics in a registry of their own, and in `other` under the same prefix.
    pub(crate) fn new(other: Option<&mut Registry>) -> Self {
        let mut registry = Registries {
            own: Registry::with_prefix(PREFIX),
            other: other.map(|registry| registry.sub_registry_with_prefix(PREFIX)),
        };
        let build = Family::<Labels<1>, Gauge>::default();
        registry.register(
            "build_info",
            "Version of the running node, always 1",
            build.clone(),
        );
        build
            .get_or_create(&[("version", env!("CARGO_PKG_VERSION"))])
            .set(1);
        let events_dropped = counter(
            &mut registry,
            "events_dropped",
            "Messages dropped because the reader of events was too slow",
        );
        Self {
            connections: Connections::new(&mut registry),
            discovery: Discovery::new(&mut registry),
            resources: Resources::new(&mut registry),
            server: Server::new(&mut registry),
            events_dropped,
            registry: registry.own,
        }
    }

    /// Counts an event of the swarm.
    pub(crate) fn record(&mut self, event: &SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Discovery(event)) => {
                if let disco::Event::Liveness(liveness::Event { outcome, .. }) = event {
                    self.connections.record_ping(*outcome);
                }
                self.discovery.record(event);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Server(event)) => self.server.record(event),
            SwarmEvent::Behaviour(BehaviourEvent::Streams(event)) => {
                self.connections.record_refused(event);
            }
            SwarmEvent::Behaviour(_) => {}
            event => self.connections.record(event),
        }
    }

    /// Counts a dial that did not begin, for which the swarm emits no event.
    pub(crate) fn dial_failed(&mut self, error: &DialError) {
        self.connections.dial_failed(error);
    }

    /// Counts a stream that a peer opened.
    pub(crate) fn stream_opened(&mut self) {
        self.connections.stream_opened();
    }

    /// Sets the metrics that describe a state to `facts`.
    pub(crate) fn refresh(&mut self, facts: &Facts) {
        set(&self.events_dropped, facts.events_dropped);
        self.connections.refresh(facts);
        self.discovery.refresh(&facts.discovery);
        #[cfg(feature = "upnp")]
        self.discovery.refresh_port_mappings(&facts.port_mappings);
        self.server.refresh(facts.served);
        self.resources.refresh(&facts.resources, facts.evicted);
    }

    /// All metrics as text.
    pub(crate) fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = text::encode(&mut text, &self.registry);
        text
    }
}

fn counter(registry: &mut Registries<'_>, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    registry.register(name, help, counter.clone());
    counter
}

fn gauge(registry: &mut Registries<'_>, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::default();
    registry.register(name, help, gauge.clone());
    gauge
}

fn counters<const N: usize>(registry: &mut Registries<'_>, name: &str, help: &str) -> Counters<N>
where
    Labels<N>: EncodeLabelSet,
{
    let counters = Counters::<N>::default();
    registry.register(name, help, counters.clone());
    counters
}

fn gauges<const N: usize>(registry: &mut Registries<'_>, name: &str, help: &str) -> Gauges<N>
where
    Labels<N>: EncodeLabelSet,
{
    let gauges = Gauges::<N>::default();
    registry.register(name, help, gauges.clone());
    gauges
}

/// Sets a counter to a value that is counted elsewhere.
fn set(counter: &Counter<u64, AtomicU64>, value: u64) {
    counter
        .inner()
        .store(value, std::sync::atomic::Ordering::Relaxed);
}

/// The value of a gauge for a count.
fn level(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_reads_the_same_metrics_in_its_own_registry() {
        let mut theirs = Registry::with_prefix("program");
        let mut metrics = Metrics::new(Some(&mut theirs));
        metrics.stream_opened();
        let mut text = String::new();
        text::encode(&mut text, &theirs).unwrap();
        let line = "_streams_opened_total 1\n";
        assert!(text.contains(&format!("program_{PREFIX}{line}")), "{text}");
        assert!(metrics.encode().contains(&format!("{PREFIX}{line}")));
    }

    #[test]
    fn names_say_what_is_counted_and_in_which_unit() {
        let mut text = String::new();
        text::encode(&mut text, &Metrics::new(None).registry).unwrap();
        let names: Vec<&str> = (text.lines())
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .collect();
        // Metrics with labels appear when the first value is counted.
        assert!(names.len() >= 20, "{text}");
        for name in names {
            assert!(name.starts_with(PREFIX), "{name}");
            let (name, kind) = name.split_once(' ').unwrap();
            // The format appends `_total` to the name of a counter automatically.
            assert!(!name.ends_with("_total"), "{name}");
            if kind == "histogram" {
                assert!(name.ends_with("_seconds"), "{name}");
            }
        }
    }
}
