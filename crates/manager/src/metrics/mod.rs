//! Metrics: counters, gauges and histograms in a registry.
//!
//! The actor passes every event of the swarm to [`Metrics::record`], and it sets the metrics that
//! describe a state before they are read ([`Metrics::refresh`]). Tasks that transfer blobs count in
//! clones of [`Transfers`]. Labels have a few fixed values, never text of a peer, so that the number
//! of series is fixed. Every series exists from the start, so that a rate has a first value.
//!
//! `libp2p-metrics` is not used: its labels hold the protocols of an address, which a peer chooses, and
//! it needs events that stay inside discovery here.

#[cfg(feature = "blobs")]
mod blobs;
mod connections;
mod discovery;
mod format;
mod gossip;
mod resources;
mod server;

#[cfg(feature = "blobs")]
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

#[cfg(feature = "blobs")]
use calimero_network_blob::{serve::Totals as ServeTotals, store::BlobStore};
use calimero_network_discovery::{self as disco, liveness};
use calimero_network_primitives::resources::Usage;
use calimero_network_pubsub::MeshStats;
use calimero_network_stream::{StreamProtocol, Traffic};
use calimero_network_transport::Totals;
use libp2p::swarm::{DialError, SwarmEvent};
use prometheus_client::{
    collector::Collector,
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Metric, Registry, Unit},
};

#[cfg(feature = "blobs")]
pub(crate) use self::blobs::Transfers;
pub use self::format::MetricsFormat;
pub(crate) use self::server::Served;
use self::{
    connections::Connections, discovery::Discovery, gossip::Gossip, resources::Resources,
    server::Server,
};
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
    pub(crate) traffic: Vec<(StreamProtocol, Traffic)>,
    pub(crate) events_dropped: u64,
    pub(crate) unread_messages: usize,
    pub(crate) unread_events: usize,
    pub(crate) gossip: MeshStats,
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
    #[cfg(feature = "blobs")]
    blobs: blobs::Blobs,
    connections: Connections,
    gossip: Gossip,
    discovery: Discovery,
    resources: Resources,
    server: Server,
    events_dropped: Counter,
    events_unread: Gauges<1>,
}

/// The registries that metrics are registered in: the manager's own, and the one of the program that
/// embeds it.
struct Registries<'a> {
    own: &'a mut Registry,
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

    #[cfg(feature = "blobs")]
    fn collect(&mut self, collector: impl Collector + Clone) {
        if let Some(other) = &mut self.other {
            other.register_collector(Box::new(collector.clone()));
        }
        self.own.register_collector(Box::new(collector));
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
        let mut root = Registry::default();
        let mut registry = Registries {
            own: root.sub_registry_with_prefix(PREFIX),
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
            #[cfg(feature = "blobs")]
            blobs: blobs::Blobs::new(&mut registry),
            connections: Connections::new(&mut registry),
            gossip: Gossip::new(&mut registry),
            discovery: Discovery::new(&mut registry),
            resources: Resources::new(&mut registry),
            server: Server::new(&mut registry),
            events_dropped,
            events_unread: gauges(
                &mut registry,
                "events_unread",
                "Events that the application has not read yet, by kind",
                [[("kind", "message")], [("kind", "other")]],
            ),
            registry: root,
        }
    }

    /// Adds collectors to the registry, without the prefix.
    pub(crate) fn collect(&mut self, collectors: Vec<Box<dyn Collector>>) {
        for collector in collectors {
            self.registry.register_collector(collector);
        }
    }

    /// Reports what `store` holds and what was served from it.
    #[cfg(feature = "blobs")]
    pub(crate) fn set_store(&mut self, store: &Arc<dyn BlobStore>, served: ServeTotals) {
        self.blobs.set_store(store, served);
    }

    /// The counts of blob transfers.
    #[cfg(feature = "blobs")]
    pub(crate) fn transfers(&self) -> Transfers {
        self.blobs.transfers.clone()
    }

    /// Moves the registry out, to be encoded in the tasks of those who read it.
    pub(crate) fn take_registry(&mut self) -> Registry {
        std::mem::take(&mut self.registry)
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

    /// Sets the metrics that describe a state to `facts`.
    pub(crate) fn refresh(&mut self, facts: &Facts) {
        set(&self.events_dropped, facts.events_dropped);
        for (kind, count) in [
            ("message", facts.unread_messages),
            ("other", facts.unread_events),
        ] {
            let unread = self.events_unread.get_or_create(&[("kind", kind)]);
            unread.set(level(count));
        }
        #[cfg(feature = "blobs")]
        self.blobs.refresh();
        self.connections.refresh(facts);
        self.gossip.refresh(&facts.gossip);
        self.discovery.refresh(&facts.discovery);
        #[cfg(feature = "upnp")]
        self.discovery.refresh_port_mappings(&facts.port_mappings);
        self.server.refresh(facts.served);
        self.resources.refresh(&facts.resources, facts.evicted);
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

fn counters<const N: usize>(
    registry: &mut Registries<'_>,
    name: &str,
    help: &str,
    series: impl IntoIterator<Item = Labels<N>>,
) -> Counters<N>
where
    Labels<N>: EncodeLabelSet,
{
    let counters = Counters::<N>::default();
    for labels in series {
        drop(counters.get_or_create(&labels));
    }
    registry.register(name, help, counters.clone());
    counters
}

fn gauges<const N: usize>(
    registry: &mut Registries<'_>,
    name: &str,
    help: &str,
    series: impl IntoIterator<Item = Labels<N>>,
) -> Gauges<N>
where
    Labels<N>: EncodeLabelSet,
{
    let gauges = Gauges::<N>::default();
    for labels in series {
        drop(gauges.get_or_create(&labels));
    }
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
        metrics.dial_failed(&DialError::Aborted);
        let line = "_dials_failed_total{why=\"aborted\"} 1\n";
        let text = MetricsFormat::OpenMetrics.encode(&theirs);
        assert!(text.contains(&format!("program_{PREFIX}{line}")), "{text}");
        let text = MetricsFormat::OpenMetrics.encode(&metrics.take_registry());
        assert!(text.contains(&format!("\n{PREFIX}{line}")), "{text}");
    }

    #[test]
    fn names_say_what_is_counted_and_in_which_unit() {
        let text = MetricsFormat::OpenMetrics.encode(&Metrics::new(None).registry);
        let names: Vec<&str> = (text.lines())
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .collect();
        assert!(names.len() >= 70, "{text}");
        // Every family has a value before anything was counted.
        for name in &names {
            let (name, _) = name.split_once(' ').unwrap();
            let has_value = |line: &str| line.starts_with(name) && !line.starts_with('#');
            assert!(text.lines().any(has_value), "{name} has no value");
        }
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
