//! Metrics of connections, dials, streams and bytes.

use calimero_network_discovery::liveness::Outcome;
use calimero_network_primitives::{
    ProtocolId,
    addr::{AddressTransport, transport_of},
    config::BlobVersion,
    resources::Refused,
};
use calimero_network_stream::{self as stream, StreamProtocol, Traffic};
use calimero_network_transport::{Bytes, CloseCause};
use libp2p::{
    allow_block_list::{Blocked, NotAllowed},
    core::ConnectedPoint,
    swarm::{ConnectionDenied, ConnectionError, DialError, ListenError, SwarmEvent},
};
use prometheus_client::{
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Unit,
};

use super::{Counters, Facts, Gauges, Registries, counter, counters, gauge, gauges, level, set};
use crate::{behaviour::BehaviourEvent, status::Path};

/// A histogram for each transport.
type Durations = Family<super::Labels<1>, Histogram, fn() -> Histogram>;

const DIRECTIONS: [&str; 2] = ["inbound", "outbound"];

const WAYS: [&str; 2] = ["received", "sent"];

const TRANSPORTS: [&str; 5] = ["tcp", "quic", "websocket", "memory", "relay"];

const CLOSE_CAUSES: [&str; 9] = [
    "here",
    "idle",
    "closed",
    "reset",
    "timed_out",
    "unreachable",
    "limit",
    "protocol",
    "other",
];

/// Causes for which a connection fails in either direction.
const FAILURES: [&str; 8] = [
    "own_peer",
    "aborted",
    "wrong_peer",
    "transport",
    "not_allowed",
    "blocked",
    "limit",
    "denied",
];

/// Further causes for which a dial fails.
const DIAL_FAILURES: [&str; 2] = ["no_addresses", "not_needed"];

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
    dials: Durations,
    handshakes: Durations,
    protocol_bytes: Counters<2>,
    streams: Gauges<2>,
    streams_opened: Counters<2>,
    streams_refused: Counter,
    round_trip: Histogram,
    pings_failed: Counter,
}

impl Connections {
    pub(super) fn new(registry: &mut Registries<'_>) -> Self {
        let (bytes, protocol_bytes) = (Counters::default(), Counters::default());
        registry.register_with_unit(
            "transport",
            "Bytes by transport; bytes of relay also count in the underlying transport",
            Unit::Bytes,
            bytes.clone(),
        );
        registry.register_with_unit(
            "protocol",
            "Bytes of streams by protocol, without headers of the multiplexer and the transport",
            Unit::Bytes,
            protocol_bytes.clone(),
        );
        for transport in TRANSPORTS {
            for way in WAYS {
                drop(bytes.get_or_create(&[("direction", way), ("transport", transport)]));
            }
        }
        for protocol in protocols() {
            for way in WAYS {
                let labels = [("direction", way), ("protocol", protocol)];
                drop(protocol_bytes.get_or_create(&labels));
            }
        }
        let round_trip = durations();
        registry.register_with_unit(
            "ping_round_trip",
            "Round trip time of pings",
            Unit::Seconds,
            round_trip.clone(),
        );
        Self {
            peers: gauge(registry, "peers", "Connected peers"),
            open: gauges(
                registry,
                "connections",
                "Established connections",
                connections(),
            ),
            opened: counters(
                registry,
                "connections_opened",
                "Connections established since the start",
                connections(),
            ),
            closed: counters(
                registry,
                "connections_closed",
                "Closed connections, by cause",
                CLOSE_CAUSES.map(|by| [("by", by)]),
            ),
            pending: gauges(
                registry,
                "connections_pending",
                "Pending connections, by direction",
                DIRECTIONS.map(|direction| [("direction", direction)]),
            ),
            inbound_failed: counters(
                registry,
                "inbound_connections_failed",
                "Failed inbound connections, by cause",
                FAILURES.map(|why| [("why", why)]),
            ),
            dials_failed: counters(
                registry,
                "dials_failed",
                "Failed dials, by cause",
                DIAL_FAILURES
                    .into_iter()
                    .chain(FAILURES)
                    .map(|why| [("why", why)]),
            ),
            bytes,
            dials: durations_by_transport(
                registry,
                "dial_duration",
                "Time from the start of a dial to the established connection",
            ),
            handshakes: durations_by_transport(
                registry,
                "inbound_handshake_duration",
                "Time from an inbound connection to the end of its handshake",
            ),
            protocol_bytes,
            streams: gauges(
                registry,
                "streams",
                "Open streams, by direction and protocol",
                streams(),
            ),
            streams_opened: counters(
                registry,
                "streams_opened",
                "Negotiated streams, by direction and protocol",
                streams(),
            ),
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
            SwarmEvent::ConnectionEstablished {
                endpoint,
                established_in,
                ..
            } => {
                let labels = labels(endpoint);
                let [_, _, transport] = labels;
                let times = match endpoint.is_dialer() {
                    true => &self.dials,
                    false => &self.handshakes,
                };
                times
                    .get_or_create(&[transport])
                    .observe(established_in.as_secs_f64());
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

    pub(super) fn refresh(&mut self, facts: &Facts) {
        self.peers.set(level(facts.peers));
        for (direction, count) in [
            ("inbound", facts.pending_inbound),
            ("outbound", facts.pending_outbound),
        ] {
            let pending = self.pending.get_or_create(&[("direction", direction)]);
            pending.set(count.into());
        }
        self.refresh_streams(&facts.traffic);
        let totals = &facts.totals;
        for (transport, Bytes { received, sent }) in [
            ("tcp", totals.tcp),
            ("quic", totals.quic),
            ("websocket", totals.websocket),
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

impl Connections {
    fn refresh_streams(&self, traffic: &[(StreamProtocol, Traffic)]) {
        let mut sums = protocols().map(|protocol| (protocol, Traffic::default()));
        for (protocol, traffic) in traffic {
            // Protocols of the embedding program share one name.
            let known = sums.iter().position(|(name, _)| *name == protocol.as_ref());
            let (_, sum) = &mut sums[known.unwrap_or(sums.len() - 1)];
            sum.inbound_open += traffic.inbound_open;
            sum.outbound_open += traffic.outbound_open;
            sum.inbound_opened += traffic.inbound_opened;
            sum.outbound_opened += traffic.outbound_opened;
            sum.received_bytes += traffic.received_bytes;
            sum.sent_bytes += traffic.sent_bytes;
        }
        for (protocol, sum) in sums {
            let label = ("protocol", protocol);
            for (direction, open, opened) in [
                ("inbound", sum.inbound_open, sum.inbound_opened),
                ("outbound", sum.outbound_open, sum.outbound_opened),
            ] {
                let labels = [("direction", direction), label];
                let open = i64::try_from(open).unwrap_or(i64::MAX);
                self.streams.get_or_create(&labels).set(open);
                set(&self.streams_opened.get_or_create(&labels), opened);
            }
            for (way, bytes) in [("received", sum.received_bytes), ("sent", sum.sent_bytes)] {
                let labels = [("direction", way), label];
                set(&self.protocol_bytes.get_or_create(&labels), bytes);
            }
        }
    }
}

/// The protocols of streams. Those of the embedding program are `other`.
fn protocols() -> [&'static str; 5] {
    [
        ProtocolId::Stream.as_str(),
        BlobVersion::V0.name(),
        BlobVersion::V1.name(),
        BlobVersion::V1_1.name(),
        "other",
    ]
}

/// Labels of all streams.
fn streams() -> impl Iterator<Item = super::Labels<2>> {
    protocols().into_iter().flat_map(|protocol| {
        DIRECTIONS.map(|direction| [("direction", direction), ("protocol", protocol)])
    })
}

/// Labels of the connections that occur in every network.
fn connections() -> impl Iterator<Item = super::Labels<3>> {
    DIRECTIONS.into_iter().flat_map(|direction| {
        let known = [
            ("direct", "tcp"),
            ("direct", "quic"),
            ("direct", "websocket"),
            ("relayed", "relay"),
        ];
        known.map(|(path, transport)| {
            [
                ("direction", direction),
                ("path", path),
                ("transport", transport),
            ]
        })
    })
}

/// A histogram of durations, from 1 ms, the round trip to a host next to this one, to 16 s, which is
/// longer than the time for a dial or a ping.
fn durations() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 15))
}

fn durations_by_transport(registry: &mut Registries<'_>, name: &str, help: &str) -> Durations {
    let family = Durations::new_with_constructor(durations);
    for transport in ["tcp", "quic", "websocket", "relay"] {
        drop(family.get_or_create(&[("transport", transport)]));
    }
    registry.register_with_unit(name, help, Unit::Seconds, family.clone());
    family
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
                Some(AddressTransport::WebSocket) => "websocket",
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
