//! Metrics of the servers of a boot node.

use calimero_network_discovery::server::{
    Event, relay,
    rendezvous::{
        self, Failure,
        registry::Held,
        wire::{AnswerKind, Refusal},
    },
};
use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Unit,
};

use super::{Counters, Labels, Registries, counter, counters, gauge, level};

/// The load of the servers at this moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Served {
    pub(crate) held: Held,
    pub(crate) reservations: usize,
    pub(crate) circuits: usize,
}

const REFUSALS: [&str; 7] = [
    "bad_namespace",
    "bad_record",
    "bad_ttl",
    "bad_cookie",
    "not_authorized",
    "full",
    "refused",
];

const FAILURES: [&str; 7] = [
    "malformed",
    "too_long",
    "late",
    "too_many",
    "too_fast",
    "io",
    "other",
];

#[derive(Debug)]
pub(super) struct Server {
    registrations: Gauge,
    peers: Gauge,
    namespaces: Gauge,
    memory: Gauge,
    requests: Counters<2>,
    failures: Counters<1>,
    members: Counter,
    expired: Counter,
    reservations: Gauge,
    reservation_requests: Counters<1>,
    reservations_expired: Counter,
    circuits: Gauge,
    circuit_requests: Counters<1>,
    circuits_closed: Counters<1>,
}

impl Server {
    pub(super) fn new(registry: &mut Registries<'_>) -> Self {
        let memory = Gauge::default();
        registry.register_with_unit(
            "rendezvous_memory",
            "Memory of registrations of other peers, in bytes",
            Unit::Bytes,
            memory.clone(),
        );
        Self {
            registrations: gauge(
                registry,
                "rendezvous_registrations",
                "Registrations of other peers at this server",
            ),
            peers: gauge(
                registry,
                "rendezvous_peers",
                "Peers with a registration at this server",
            ),
            namespaces: gauge(
                registry,
                "rendezvous_namespaces",
                "Namespaces with a registration at this server",
            ),
            memory,
            requests: counters(
                registry,
                "rendezvous_requests",
                "Rendezvous requests, by kind and outcome",
                rendezvous_requests(),
            ),
            failures: counters(
                registry,
                "rendezvous_failures",
                "Rendezvous streams that failed before the response was sent",
                FAILURES.map(|why| [("why", why)]),
            ),
            members: counter(
                registry,
                "rendezvous_registrations_returned",
                "Registrations returned to requesters",
            ),
            expired: counter(
                registry,
                "rendezvous_registrations_expired",
                "Registrations that expired",
            ),
            reservations: gauge(
                registry,
                "relay_reservations",
                "Reservations of other peers at this relay",
            ),
            reservation_requests: counters(
                registry,
                "relay_reservation_requests",
                "Reservation requests, by outcome",
                ["ok", "renewed", "refused"].map(|outcome| [("outcome", outcome)]),
            ),
            reservations_expired: counter(
                registry,
                "relay_reservations_expired",
                "Reservations that expired",
            ),
            circuits: gauge(
                registry,
                "relay_circuits",
                "Open circuits through this relay",
            ),
            circuit_requests: counters(
                registry,
                "relay_circuit_requests",
                "Circuit requests, by outcome",
                ["ok", "refused"].map(|outcome| [("outcome", outcome)]),
            ),
            circuits_closed: counters(
                registry,
                "relay_circuits_closed",
                "Circuits that were closed, by cause",
                ["limit_or_error", "peers"].map(|by| [("by", by)]),
            ),
        }
    }

    pub(super) fn record(&mut self, event: &Event) {
        match event {
            Event::Rendezvous(event) => self.record_rendezvous(event),
            Event::Relay(event) => self.record_relay(event),
            _ => {}
        }
    }

    fn record_rendezvous(&mut self, event: &rendezvous::Event) {
        use rendezvous::Event;
        let (request, outcome) = match event {
            Event::Registered { registered, .. } if registered.renewed => ("register", "renewed"),
            Event::Registered { .. } => ("register", "ok"),
            Event::Unregistered { .. } => ("unregister", "ok"),
            Event::Discovered { members, .. } => {
                self.members.inc_by(*members as u64);
                ("discover", "ok")
            }
            Event::Refused {
                request, refusal, ..
            } => (kind(*request), outcome(*refusal)),
            Event::Failed { failure, .. } => {
                let labels = [("why", why(failure))];
                self.failures.get_or_create(&labels).inc();
                return;
            }
            Event::Expired { registrations } => {
                self.expired.inc_by(*registrations as u64);
                return;
            }
            _ => return,
        };
        let labels = [("request", request), ("outcome", outcome)];
        self.requests.get_or_create(&labels).inc();
    }

    fn record_relay(&mut self, event: &relay::Event) {
        use relay::Event;
        let count = |counters: &Counters<1>, name, word| {
            counters.get_or_create(&[(name, word)]).inc();
        };
        match event {
            Event::Reserved { renewed, .. } => {
                let word = if *renewed { "renewed" } else { "ok" };
                count(&self.reservation_requests, "outcome", word);
            }
            Event::ReservationRefused { .. } => {
                count(&self.reservation_requests, "outcome", "refused");
            }
            Event::ReservationExpired { .. } => {
                self.reservations_expired.inc();
            }
            Event::CircuitOpened { .. } => count(&self.circuit_requests, "outcome", "ok"),
            Event::CircuitRefused { .. } => count(&self.circuit_requests, "outcome", "refused"),
            Event::CircuitClosed { error, .. } => {
                let by = if error.is_some() {
                    "limit_or_error"
                } else {
                    "peers"
                };
                count(&self.circuits_closed, "by", by);
            }
            _ => {}
        }
    }

    pub(super) fn refresh(&mut self, served: Served) {
        let Served {
            held,
            reservations,
            circuits,
        } = served;
        self.reservations.set(level(reservations));
        self.circuits.set(level(circuits));
        self.registrations.set(level(held.registrations));
        self.peers.set(level(held.peers));
        self.namespaces.set(level(held.namespaces));
        self.memory.set(level(held.bytes));
    }
}

/// Labels of all requests and their outcomes.
fn rendezvous_requests() -> impl Iterator<Item = Labels<2>> {
    let kinds = ["register", "unregister", "discover"].into_iter();
    let all = kinds.flat_map(|kind| {
        let outcomes = ["ok"].into_iter().chain(REFUSALS);
        outcomes.map(move |outcome| [("request", kind), ("outcome", outcome)])
    });
    all.chain([[("request", "register"), ("outcome", "renewed")]])
}

fn kind(request: AnswerKind) -> &'static str {
    match request {
        AnswerKind::Register => "register",
        AnswerKind::Unregister => "unregister",
        AnswerKind::Discover => "discover",
    }
}

fn outcome(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Namespace => "bad_namespace",
        Refusal::Record => "bad_record",
        Refusal::Ttl => "bad_ttl",
        Refusal::Cookie => "bad_cookie",
        Refusal::NotAuthorized => "not_authorized",
        Refusal::Unavailable => "full",
        _ => "refused",
    }
}

fn why(failure: &Failure) -> &'static str {
    match failure {
        Failure::Malformed => "malformed",
        Failure::TooLong { .. } => "too_long",
        Failure::Late { .. } => "late",
        Failure::TooMany { .. } => "too_many",
        Failure::TooFast => "too_fast",
        Failure::Io(_) => "io",
        _ => "other",
    }
}
