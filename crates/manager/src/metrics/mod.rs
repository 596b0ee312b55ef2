//! What a monitoring system asks: counters and gauges in the text format of OpenMetrics.
//!
//! One writer, the actor: it shows every event of the swarm to [`Metrics::record`], and what is a
//! state rather than an event is read when somebody asks ([`Metrics::encode`]). The labels are a
//! few fixed words, never what a peer says, so that the series are as many as are written here.
//!
//! `libp2p-metrics` is not used: it labels by the protocols of an address, which are a peer's
//! choice, and it reads events that stay inside discovery here.

mod connections;
mod discovery;
mod server;

use std::sync::atomic::AtomicU64;

use calimero_network_discovery::{self as disco, liveness};
use calimero_network_transport::Totals;
use libp2p::swarm::{DialError, SwarmEvent};
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

pub(crate) use self::server::Served;
use self::{connections::Connections, discovery::Discovery, server::Server};
use crate::behaviour::BehaviourEvent;

/// Before every name.
const PREFIX: &str = "calimero_network";

/// Labels: names and words that are fixed.
type Labels<const N: usize> = [(&'static str, &'static str); N];

/// A counter for each set of labels.
type Counters<const N: usize> = Family<Labels<N>, Counter>;

/// A gauge for each set of labels.
type Gauges<const N: usize> = Family<Labels<N>, Gauge>;

/// States that are read when somebody asks.
pub(crate) struct Facts {
    pub(crate) peers: usize,
    pub(crate) pending_inbound: u32,
    pub(crate) pending_outbound: u32,
    pub(crate) totals: Totals,
    pub(crate) events_dropped: u64,
    pub(crate) discovery: disco::Status,
    pub(crate) served: Served,
}

/// Everything that is counted.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    connections: Connections,
    discovery: Discovery,
    server: Server,
    events_dropped: Counter,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let build = Family::<Labels<1>, Gauge>::default();
        registry.register(
            "build_info",
            "The version that runs, always 1",
            build.clone(),
        );
        build
            .get_or_create(&[("version", env!("CARGO_PKG_VERSION"))])
            .set(1);
        let events_dropped = counter(
            &mut registry,
            "events_dropped",
            "Events that nobody read in time",
        );
        Self {
            connections: Connections::new(&mut registry),
            discovery: Discovery::new(&mut registry),
            server: Server::new(&mut registry),
            events_dropped,
            registry,
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

    /// Counts a dial that did not even begin, of which the swarm has no event.
    pub(crate) fn dial_failed(&mut self, error: &DialError) {
        self.connections.dial_failed(error);
    }

    /// Counts a stream that a peer has opened and that was handed on.
    pub(crate) fn stream_opened(&mut self) {
        self.connections.stream_opened();
    }

    /// All of it as text, with `facts` as of now.
    pub(crate) fn encode(&mut self, facts: &Facts) -> String {
        set(&self.events_dropped, facts.events_dropped);
        self.connections.refresh(facts);
        self.discovery.refresh(&facts.discovery);
        self.server.refresh(facts.served);
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = text::encode(&mut text, &self.registry);
        text
    }
}

fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    registry.register(name, help, counter.clone());
    counter
}

fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::default();
    registry.register(name, help, gauge.clone());
    gauge
}

fn counters<const N: usize>(registry: &mut Registry, name: &str, help: &str) -> Counters<N>
where
    Labels<N>: EncodeLabelSet,
{
    let counters = Counters::<N>::default();
    registry.register(name, help, counters.clone());
    counters
}

fn gauges<const N: usize>(registry: &mut Registry, name: &str, help: &str) -> Gauges<N>
where
    Labels<N>: EncodeLabelSet,
{
    let gauges = Gauges::<N>::default();
    registry.register(name, help, gauges.clone());
    gauges
}

/// Sets a counter to what has been counted elsewhere.
fn set(counter: &Counter<u64, AtomicU64>, value: u64) {
    counter
        .inner()
        .store(value, std::sync::atomic::Ordering::Relaxed);
}

/// A count as a gauge has it.
fn level(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_is_counted_and_in_which_unit() {
        let mut text = String::new();
        text::encode(&mut text, &Metrics::new().registry).unwrap();
        let names: Vec<&str> = (text.lines())
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .collect();
        // Those with labels show as soon as something is counted under one.
        assert!(names.len() >= 20, "{text}");
        for name in names {
            assert!(name.starts_with(PREFIX), "{name}");
            let (name, kind) = name.split_once(' ').unwrap();
            // The format writes `_total` behind a counter's name by itself.
            assert!(!name.ends_with("_total"), "{name}");
            if kind == "histogram" {
                assert!(name.ends_with("_seconds"), "{name}");
            }
        }
    }
}
