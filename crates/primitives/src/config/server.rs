//! Configuration of what a boot node serves: rendezvous and relay.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ConfigError, check, check_durations, check_queues, table};
use crate::limits::{KIB, MIB};

/// Shortest and longest lifetime of a registration that a server grants by the recommendations of
/// the rendezvous specification.
const RECOMMENDED_TTL: [Duration; 2] = [
    Duration::from_secs(2 * 3600),
    Duration::from_secs(72 * 3600),
];

/// What a node serves to other nodes, so that they find and reach each other.
///
/// Everything is off by default; `calnet boot` turns it on. The defaults are for 10,000 nodes that
/// use this one as a boot node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// The rendezvous server, at which nodes register and find each other.
    #[serde(deserialize_with = "table::deserialize")]
    pub rendezvous: RendezvousServerConfig,
    /// The relay server, which connects nodes that cannot be reached directly.
    #[serde(deserialize_with = "table::deserialize")]
    pub relay: RelayServerConfig,
}

/// The rendezvous server (`/rendezvous/1.0.0`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RendezvousServerConfig {
    /// Whether this node is a rendezvous server.
    ///
    /// - Default: off. `calnet boot` turns it on.
    /// - Reason: a network needs at least one.
    pub enabled: bool,
    /// Registrations of all peers.
    ///
    /// - Default: 320,000: 10,000 nodes with the 32 registrations that a node of this network holds
    ///   at one server.
    /// - Range: 64, the share of one peer, to 1048576.
    /// - Reason: the number of nodes differs from network to network.
    pub max_registrations: usize,
    /// Memory for registrations, in bytes, their table entries included.
    ///
    /// - Default: 320 MiB: 320,000 registrations of 600 bytes, a record of some eight addresses.
    /// - Range: at least 6144, one registration.
    /// - Reason: the memory of hosts differs.
    pub max_bytes: usize,
    /// Shares and timers, which tests vary. Not a key.
    #[serde(skip)]
    pub tuning: RendezvousServerTuning,
}

/// Shares and timers of the rendezvous server: values that no file sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RendezvousServerTuning {
    /// Registrations of one peer. Default 64: twice what a node of this network holds at one server,
    /// and what the stock server (libp2p-rendezvous 0.18) grants.
    pub max_registrations_per_peer: usize,
    /// Registrations in one namespace. Default 20,000: every node is in the global one, and half of
    /// the registrations may belong to nodes that left without unregistering.
    pub max_registrations_per_namespace: usize,
    /// Longest signed peer record, in bytes. Default 4 KiB: some forty addresses.
    pub max_record_bytes: usize,
    /// Registrations in one answer. Default 128, twice what a node of this network requests.
    pub max_answer: usize,
    /// Bytes of registrations in one answer. Default 256 KiB: 128 of 2 KiB. Clients accept 1 MiB.
    pub max_answer_bytes: usize,
    /// Shortest lifetime of a registration, in whole seconds. Default 2 h, by the rendezvous
    /// specification. A shorter one is refused.
    pub min_ttl: Duration,
    /// Longest lifetime of a registration, in whole seconds. Default 72 h, by the rendezvous
    /// specification. A longer one is refused.
    pub max_ttl: Duration,
    /// Requests of one peer that are received or answered. Default 100, what a stock client
    /// (libp2p-request-response 0.30) sends at most. A further one is reset.
    pub max_requests_per_peer: usize,
    /// Requests of all peers that are received or answered. Default 4,096: at 4 KiB to receive
    /// and an answer of 20 KiB each, 100 MiB.
    pub max_requests: usize,
    /// Requests that one connection may send in one burst before `requests_per_second` delays them.
    /// Default 256: a node that starts with a hundred topics registers and discovers in each.
    pub request_burst: u32,
    /// Requests of one connection that are served per second over time. Default 8: the verification
    /// of a record takes about 0.1 ms, so that a thousand connections at this rate take most of one
    /// core. Further requests are delayed.
    pub requests_per_second: u32,
    /// Time for a request to arrive, to be delayed and to be answered. Default 10 s, the deadline of
    /// a stock client (libp2p-request-response 0.30).
    pub request_timeout: Duration,
}

impl Default for RendezvousServerConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            max_registrations: 320_000,
            max_bytes: 320 * MIB,
            tuning: RendezvousServerTuning::default(),
        }
    }
}

impl Default for RendezvousServerTuning {
    fn default() -> Self {
        Self {
            max_registrations_per_peer: 64,
            max_registrations_per_namespace: 20_000,
            max_record_bytes: 4 * KIB,
            max_answer: 128,
            max_answer_bytes: 256 * KIB,
            min_ttl: RECOMMENDED_TTL[0],
            max_ttl: RECOMMENDED_TTL[1],
            max_requests_per_peer: 100,
            max_requests: 4096,
            request_burst: 256,
            requests_per_second: 8,
            request_timeout: Duration::from_secs(10),
        }
    }
}

/// The relay server (circuit relay v2).
///
/// An open circuit takes about 17 KiB and what its two streams have in flight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RelayServerConfig {
    /// Whether this node is a relay.
    ///
    /// - Default: off. `calnet boot` turns it on.
    /// - Reason: nodes behind a NAT need at least one.
    pub enabled: bool,
    /// Reservations of all peers.
    ///
    /// - Default: 10,000: every node is behind a NAT. A reservation is a table entry; its cost is the
    ///   connection that stays open.
    /// - Range: 1 to 1048576.
    /// - Reason: the number of nodes differs from network to network.
    pub max_reservations: usize,
    /// Circuits of all peers that are open at the same time.
    ///
    /// - Default: 1,024: with `max_circuit_bytes` in `max_circuit_duration_ms` for each, at most
    ///   4.8 MB/s in and out over time.
    /// - Range: 1 to 1048576.
    /// - Reason: the bandwidth of hosts differs.
    pub max_circuits: usize,
    /// Circuits of one peer that are open at the same time.
    ///
    /// - Default: 16: as many members as a node connects to for one topic, and a reserve.
    /// - Range: 1 to 1048576.
    /// - Reason: a private relay grants its members more.
    pub max_circuits_per_peer: usize,
    /// Lifetime of a circuit, in milliseconds.
    ///
    /// - Default: 30 min. Two nodes that cannot connect directly have only the circuit, and its end
    ///   interrupts them. A stock relay grants 2 min.
    /// - Range: 1000 to 31536000000.
    /// - Reason: a private relay grants its members more.
    #[serde(rename = "max_circuit_duration_ms", with = "super::duration")]
    pub max_circuit_duration: Duration,
    /// Bytes that one circuit carries, in both directions together.
    ///
    /// - Default: 8 MiB: some KiB for hole punching, the rest for the messages of a quiet topic; bulk
    ///   transfers wait for a direct connection. A stock relay grants 128 KiB.
    /// - Range: 1 to 9223372036854775807.
    /// - Reason: a private relay carries blobs as well (`blob.fetch.through_relays`).
    pub max_circuit_bytes: u64,
    /// Shares and rates, which tests vary. Not a key.
    #[serde(skip)]
    pub tuning: RelayServerTuning,
}

/// Shares and rates of the relay server: values that no file sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayServerTuning {
    /// Reservations of one peer, each on its own connection. Default 4: TCP and QUIC, IPv4 and IPv6.
    pub max_reservations_per_peer: usize,
    /// Lifetime of a reservation. Default 1 h, by the circuit relay v2 specification; clients renew
    /// it before its end.
    pub reservation_duration: Duration,
    /// Rate at which one peer may request reservations. Default 30 in one burst and one every 2 min
    /// (libp2p-relay 0.22): a reservation is renewed once an hour, the rest is for reconnections.
    pub reservation_rate_per_peer: RateTuning,
    /// Rate at which the peers of one IP address may request reservations. Default 512 in one burst
    /// and one a second: a few hundred nodes behind one NAT are back within minutes of an outage, and
    /// a flood of invented peers stays slow.
    pub reservation_rate_per_ip: RateTuning,
    /// Rate at which one peer may open circuits. Default 30 in one burst and one every 10 s.
    pub circuit_rate_per_peer: RateTuning,
    /// Rate at which the peers of one IP address may open circuits. Default 512 in one burst and one
    /// a second.
    pub circuit_rate_per_ip: RateTuning,
}

impl Default for RelayServerConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            max_reservations: 10_000,
            max_circuits: 1024,
            max_circuits_per_peer: 16,
            max_circuit_duration: Duration::from_secs(30 * 60),
            max_circuit_bytes: 8 * MIB as u64,
            tuning: RelayServerTuning::default(),
        }
    }
}

impl Default for RelayServerTuning {
    fn default() -> Self {
        let per_ip = RateTuning {
            burst: 512,
            interval: Duration::from_secs(1),
        };
        Self {
            max_reservations_per_peer: 4,
            reservation_duration: Duration::from_secs(3600),
            reservation_rate_per_peer: RateTuning {
                burst: 30,
                interval: Duration::from_secs(120),
            },
            reservation_rate_per_ip: per_ip,
            circuit_rate_per_peer: RateTuning {
                burst: 30,
                interval: Duration::from_secs(10),
            },
            circuit_rate_per_ip: per_ip,
        }
    }
}

/// A rate limit, as a bucket of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateTuning {
    /// Tokens in a full bucket: what may be done in one burst.
    pub burst: u32,
    /// Time until one token is added.
    pub interval: Duration,
}

impl ServerConfig {
    /// Checks every value. Keys are named below `prefix`, which is empty or ends in a dot.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] with the first key whose value is refused.
    pub fn validate(&self, prefix: &str) -> Result<(), ConfigError> {
        self.rendezvous.validate(&format!("{prefix}rendezvous."))?;
        self.relay.validate(&format!("{prefix}relay."))
    }
}

impl RendezvousServerConfig {
    /// Checks every value. Keys are named below `prefix`, which is empty or ends in a dot.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] with the first key whose value is refused.
    pub fn validate(&self, prefix: &str) -> Result<(), ConfigError> {
        let key = |name: &str| format!("{prefix}{name}");
        let tuning = &self.tuning;
        check_queues(
            prefix,
            &[
                ("max_registrations", self.max_registrations),
                (
                    "tuning.max_registrations_per_peer",
                    tuning.max_registrations_per_peer,
                ),
                (
                    "tuning.max_registrations_per_namespace",
                    tuning.max_registrations_per_namespace,
                ),
                ("tuning.max_answer", tuning.max_answer),
                ("tuning.max_requests_per_peer", tuning.max_requests_per_peer),
                ("tuning.max_requests", tuning.max_requests),
            ],
        )?;
        check(
            tuning.max_registrations_per_peer <= self.max_registrations,
            || {
                (
                    key("max_registrations"),
                    "must be at least the share of one peer, 64 by default",
                )
            },
        )?;
        check(tuning.max_requests_per_peer <= tuning.max_requests, || {
            (
                key("tuning.max_requests_per_peer"),
                "must not exceed max_requests",
            )
        })?;
        self.validate_bytes(&key)?;
        for (name, value) in [
            ("tuning.request_burst", tuning.request_burst),
            ("tuning.requests_per_second", tuning.requests_per_second),
        ] {
            check((1..=1_000_000).contains(&value), || {
                (key(name), "must be from 1 to 1000000")
            })?;
        }
        check_durations(
            prefix,
            &[
                ("tuning.min_ttl", tuning.min_ttl),
                ("tuning.max_ttl", tuning.max_ttl),
                ("tuning.request_timeout", tuning.request_timeout),
            ],
        )?;
        check(tuning.min_ttl.as_secs() > 0, || {
            (key("tuning.min_ttl"), "must be at least one second")
        })?;
        check(tuning.min_ttl <= tuning.max_ttl, || {
            (key("tuning.min_ttl"), "must not exceed max_ttl")
        })
    }

    fn validate_bytes(&self, key: &impl Fn(&str) -> String) -> Result<(), ConfigError> {
        let tuning = &self.tuning;
        // A record of one address with an Ed25519 key takes about 200.
        check((256..=64 * KIB).contains(&tuning.max_record_bytes), || {
            (key("tuning.max_record_bytes"), "must be from 256 to 65536")
        })?;
        // Clients refuse a message above 1 MiB.
        let answer = tuning.max_record_bytes + KIB..=MIB - KIB;
        check(answer.contains(&tuning.max_answer_bytes), || {
            (
                key("tuning.max_answer_bytes"),
                "must be from max_record_bytes and 1024 to 1047552, what clients accept",
            )
        })?;
        // A peer, a namespace and a registration surround the record.
        check(self.max_bytes >= tuning.max_record_bytes + 2 * KIB, || {
            (
                key("max_bytes"),
                "must be at least 2048 and the longest record, 4096 by default",
            )
        })
    }
}

impl RelayServerConfig {
    /// Checks every value. Keys are named below `prefix`, which is empty or ends in a dot.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] with the first key whose value is refused.
    pub fn validate(&self, prefix: &str) -> Result<(), ConfigError> {
        let key = |name: &str| format!("{prefix}{name}");
        let tuning = &self.tuning;
        check_queues(
            prefix,
            &[
                ("max_reservations", self.max_reservations),
                ("max_circuits", self.max_circuits),
                ("max_circuits_per_peer", self.max_circuits_per_peer),
                (
                    "tuning.max_reservations_per_peer",
                    tuning.max_reservations_per_peer,
                ),
            ],
        )?;
        for (name, value, least) in [
            (
                "max_circuit_duration_ms",
                self.max_circuit_duration,
                "must be at least 1000, the unit of the wire format",
            ),
            (
                "tuning.reservation_duration",
                tuning.reservation_duration,
                "must be at least one second, the unit of the wire format",
            ),
        ] {
            check_durations(prefix, &[(name, value)])?;
            check(value.as_secs() > 0, || (key(name), least))?;
        }
        check(self.max_circuit_bytes > 0, || {
            (key("max_circuit_bytes"), "must be above 0")
        })?;
        // TOML has no larger integers.
        check(i64::try_from(self.max_circuit_bytes).is_ok(), || {
            (
                key("max_circuit_bytes"),
                "must be at most 9223372036854775807",
            )
        })?;
        for (name, rate) in [
            (
                "reservation_rate_per_peer",
                tuning.reservation_rate_per_peer,
            ),
            ("reservation_rate_per_ip", tuning.reservation_rate_per_ip),
            ("circuit_rate_per_peer", tuning.circuit_rate_per_peer),
            ("circuit_rate_per_ip", tuning.circuit_rate_per_ip),
        ] {
            check(rate.burst > 0, || {
                (key(&format!("tuning.{name}.burst")), "must be above 0")
            })?;
            let interval = format!("tuning.{name}.interval");
            check_durations(prefix, &[(interval.as_str(), rate.interval)])?;
        }
        Ok(())
    }
}
