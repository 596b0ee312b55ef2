//! Metrics of connections, dials, streams and bytes.

use calimero_network_discovery::liveness::Outcome;
use calimero_network_primitives::{
    addr::{AddressTransport, transport_of},
    resources::Refused,
};
use calimero_network_stream as stream;
use calimero_network_transport::{Bytes, CloseCause};
use libp2p::{
    allow_block_list::{Blocked, NotAllowed},
    core::ConnectedPoint,
    swarm::{ConnectionDenied, ConnectionError, DialError, ListenError, SwarmEvent},
};
use prometheus_client::{
    metrics::{
        counter::Counter,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Unit,
};

use super::{Counters, Facts, Gauges, Registries, counter, counters, gauge, gauges, level, set};
use crate::{behaviour::BehaviourEvent, status::Path};

#[derive(Debug)]
pub(super) struct Connections {
    peers: Gauge,
    open: Gauges<3>,
    opened: Counters<3>,
    closed: Counters<1>,
    pending: Gauges<1>,
    inbound_failed: Counters<1>,
    dials_failed: Counters<1>,
    bytes: Counters<2>,
    streams_opened: Counter,
    streams_refused: Counter,
    round_trip: Histogram,
    pings_failed: Counter,
}

impl Connections {
    pub(super) fn new(registry: &mut Registries<'_>) -> Self {
        let bytes = Counters::default();
        registry.register_with_unit(
            "transport",
            "Bytes by transport; bytes of relay also count in the underlying transport",
            Unit::Bytes,
            bytes.clone(),
        );
        // 1 ms to 16 s: from one machine to a connection that ping is about to close.
        let round_trip = Histogram::new(exponential_buckets(0.001, 2.0, 15));
        registry.register_with_unit(
            "ping_round_trip",
            "Round trip time of pings",
            Unit::Seconds,
            round_trip.clone(),
        );
        Self {
            peers: gauge(registry, "peers", "Connected peers"),
            open: gauges(registry, "connections", "Established connections"),
            opened: counters(
                registry,
                "connections_opened",
                "Connections established since the start",
            ),
            closed: counters(
                registry,
                "connections_closed",
                "Closed connections, by cause",
            ),
            pending: gauges(
                registry,
                "connections_pending",
                "Pending connections, by direction",
            ),
            inbound_failed: counters(
                registry,
                "inbound_connections_failed",
                "Failed inbound connections, by cause",
            ),
            dials_failed: counters(registry, "dials_failed", "Failed dials, by cause"),
            bytes,
            streams_opened: counter(registry, "streams_opened", "Inbound general streams"),
            streams_refused: counter(
                registry,
                "streams_refused",
                "Inbound streams refused because of a limit",
            ),
            round_trip,
            pings_failed: counter(registry, "pings_failed", "Pings without a response"),
        }
    }

    pub(super) fn record(&mut self, event: &SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { endpoint, .. } => {
                let labels = labels(endpoint);
                self.open.get_or_create(&labels).inc();
                self.opened.get_or_create(&labels).inc();
            }
            SwarmEvent::ConnectionClosed {
                endpoint, cause, ..
            } => {
                self.open.get_or_create(&labels(endpoint)).dec();
                let by = match cause {
                    None => "here",
                    Some(ConnectionError::KeepAliveTimeout) => "idle",
                    Some(ConnectionError::IO(error)) => CloseCause::of(error).name(),
                };
                self.closed.get_or_create(&[("by", by)]).inc();
            }
            SwarmEvent::IncomingConnectionError { error, .. } => {
                let why = listen_failure(error);
                self.inbound_failed.get_or_create(&[("why", why)]).inc();
            }
            SwarmEvent::OutgoingConnectionError { error, .. } => self.dial_failed(error),
            _ => {}
        }
    }

    pub(super) fn record_ping(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Rtt(time) => self.round_trip.observe(time.as_secs_f64()),
            Outcome::Failed { .. } => {
                self.pings_failed.inc();
            }
            Outcome::GivenUp { .. } => {}
        }
    }

    pub(super) fn record_refused(&mut self, event: &stream::Event) {
        match event {
            stream::Event::Refused { count, .. } | stream::Event::OthersRefused { count } => {
                self.streams_refused.inc_by(*count);
            }
            _ => {}
        }
    }

    pub(super) fn dial_failed(&mut self, error: &DialError) {
        let why = dial_failure(error);
        self.dials_failed.get_or_create(&[("why", why)]).inc();
    }

    pub(super) fn stream_opened(&mut self) {
        self.streams_opened.inc();
    }

    pub(super) fn refresh(&mut self, facts: &Facts) {
        self.peers.set(level(facts.peers));
        for (direction, count) in [
            ("inbound", facts.pending_inbound),
            ("outbound", facts.pending_outbound),
        ] {
            let pending = self.pending.get_or_create(&[("direction", direction)]);
            pending.set(count.into());
        }
        let totals = &facts.totals;
        for (transport, Bytes { received, sent }) in [
            ("tcp", totals.tcp),
            ("quic", totals.quic),
            ("memory", totals.memory),
            ("relay", totals.relay),
        ] {
            for (way, bytes) in [("received", received), ("sent", sent)] {
                let labels = [("direction", way), ("transport", transport)];
                set(&self.bytes.get_or_create(&labels), bytes);
            }
        }
    }
}

/// The labels of a connection.
fn labels(endpoint: &ConnectedPoint) -> super::Labels<3> {
    let direction = if endpoint.is_dialer() {
        "outbound"
    } else {
        "inbound"
    };
    let (path, transport) = match Path::of(endpoint) {
        Path::Relayed { .. } => ("relayed", "relay"),
        Path::Direct => (
            "direct",
            match transport_of(endpoint.get_remote_address()) {
                Some(AddressTransport::Tcp) => "tcp",
                Some(AddressTransport::Quic) => "quic",
                Some(AddressTransport::Memory) => "memory",
                _ => "other",
            },
        ),
    };
    [
        ("direction", direction),
        ("path", path),
        ("transport", transport),
    ]
}

fn dial_failure(error: &DialError) -> &'static str {
    match error {
        DialError::LocalPeerId { .. } => "own_peer",
        DialError::NoAddresses => "no_addresses",
        DialError::DialPeerConditionFalse(_) => "not_needed",
        DialError::Aborted => "aborted",
        DialError::WrongPeerId { .. } => "wrong_peer",
        DialError::Denied { cause } => denial(cause),
        DialError::Transport(_) => "transport",
    }
}

fn listen_failure(error: &ListenError) -> &'static str {
    match error {
        ListenError::LocalPeerId { .. } => "own_peer",
        ListenError::Aborted => "aborted",
        ListenError::WrongPeerId { .. } => "wrong_peer",
        ListenError::Denied { cause } => denial(cause),
        ListenError::Transport(_) => "transport",
    }
}

/// The name of the rule of this node that refused a connection.
fn denial(cause: &ConnectionDenied) -> &'static str {
    if cause.downcast_ref::<NotAllowed>().is_some() {
        "not_allowed"
    } else if cause.downcast_ref::<Blocked>().is_some() {
        "blocked"
    } else if cause.downcast_ref::<Refused>().is_some() {
        "limit"
    } else {
        "denied"
    }
}
