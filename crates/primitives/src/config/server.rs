//! Configuration of what a boot node serves to others: meeting points and relayed circuits.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ConfigError, check, check_duration, check_queue, table};
use crate::limits::{KIB, MIB};

/// Least and most of a registration's life on which nodes can rely (rendezvous specification,
/// recommendations).
const RECOMMENDED_TTL: [Duration; 2] = [
    Duration::from_secs(2 * 3600),
    Duration::from_secs(72 * 3600),
];

/// What a node serves to others, so that they find each other and reach each other. Off by
/// default: `calnet boot` turns it on.
///
/// The defaults are for 10,000 nodes that know this one as a boot node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// A place to register and to ask for others.
    #[serde(deserialize_with = "table::deserialize")]
    pub rendezvous: RendezvousServerConfig,
    /// A way to nodes that cannot be reached directly.
    #[serde(deserialize_with = "table::deserialize")]
    pub relay: RelayServerConfig,
}

/// The rendezvous server (`/rendezvous/1.0.0`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RendezvousServerConfig {
    /// Whether this node is one. Default false.
    pub enabled: bool,
    /// Registrations held, of all peers. Default 320,000: 10,000 nodes with 32 each, as many as a
    /// node of this network holds at one server.
    pub max_registrations: usize,
    /// Registrations of one peer. Default 64: twice what a node of this network holds at one
    /// server, and what the stock server (libp2p-rendezvous 0.18) grants.
    pub max_registrations_per_peer: usize,
    /// Registrations in one namespace. Default 20,000: every node is in the global one, and half
    /// of those in it may be gone without having said so.
    pub max_registrations_per_namespace: usize,
    /// Memory for registrations, in bytes, what surrounds each included. Default 320 MiB: 10,000
    /// nodes with 32 registrations of 600 bytes, a record of some eight addresses.
    pub max_bytes: usize,
    /// Longest signed peer record kept, in bytes. Default 4 KiB: some forty addresses.
    pub max_record_bytes: usize,
    /// Registrations in one answer, whatever was asked for. Default 128, twice what a node of
    /// this network asks for.
    pub max_answer: usize,
    /// Bytes of registrations in one answer. Default 256 KiB: 128 of 2 KiB. Clients take 1 MiB.
    pub max_answer_bytes: usize,
    /// Shortest life of a registration, in milliseconds, whole seconds of it. Default 2 h, by
    /// the rendezvous specification. What asks for less is refused.
    #[serde(rename = "min_ttl_ms", with = "super::duration")]
    pub min_ttl: Duration,
    /// Longest life of a registration, in milliseconds, whole seconds of it. Default 72 h, by
    /// the rendezvous specification. What asks for more is refused.
    #[serde(rename = "max_ttl_ms", with = "super::duration")]
    pub max_ttl: Duration,
    /// Requests of one connection that are being received or answered. Default 100, what a stock
    /// client (libp2p-request-response 0.30) has under way at most. What is over it is reset.
    pub max_requests_per_connection: usize,
    /// Requests of all connections that are being received or answered. Default 4,096: at
    /// 4 KiB to receive and an answer of 20 KiB each, 100 MiB.
    pub max_requests: usize,
    /// Requests that one connection may make at once, before `requests_per_second` holds it back.
    /// Default 256: a node that starts with a hundred overlays registers and asks in each.
    pub request_burst: u32,
    /// Requests of one connection that are served in a second, over time. Default 8: verifying a
    /// record takes about 0.1 ms, so a thousand connections that ask for all they can take most
    /// of one core, and no more. What is over it waits its turn.
    pub requests_per_second: u32,
    /// Time for a request to arrive, to wait its turn and to be answered, in milliseconds.
    /// Default 10 s, the deadline of a stock client (libp2p-request-response 0.30).
    #[serde(rename = "request_timeout_ms", with = "super::duration")]
    pub request_timeout: Duration,
}

impl Default for RendezvousServerConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            max_registrations: 320_000,
            max_registrations_per_peer: 64,
            max_registrations_per_namespace: 20_000,
            max_bytes: 320 * MIB,
            max_record_bytes: 4 * KIB,
            max_answer: 128,
            max_answer_bytes: 256 * KIB,
            min_ttl: RECOMMENDED_TTL[0],
            max_ttl: RECOMMENDED_TTL[1],
            max_requests_per_connection: 100,
            max_requests: 4096,
            request_burst: 256,
            requests_per_second: 8,
            request_timeout: Duration::from_secs(10),
        }
    }
}

/// The relay server (circuit relay v2).
///
/// A circuit holds about 17 KiB here and what the two streams have in flight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RelayServerConfig {
    /// Whether this node is one. Default false.
    pub enabled: bool,
    /// Slots held, of all peers. Default 10,000: every node behind a NAT that lets nobody in. A
    /// slot is an entry in a table; what it costs is the connection that stays open.
    pub max_reservations: usize,
    /// Slots of one peer, each on a connection of its own. Default 4: TCP and QUIC, IPv4 and IPv6.
    pub max_reservations_per_peer: usize,
    /// Life of a slot, in milliseconds. Default 1 h, as the circuit relay v2 specification has
    /// it; clients renew before its end.
    #[serde(rename = "reservation_duration_ms", with = "super::duration")]
    pub reservation_duration: Duration,
    /// How often one peer may ask for a slot. Default 30 at once and one every 2 min (libp2p-relay
    /// 0.22): a slot is renewed once an hour, the rest is for reconnects.
    #[serde(deserialize_with = "table::deserialize")]
    pub reservation_rate_per_peer: RateConfig,
    /// How often the peers behind one IP address may ask for a slot. Default 512 at once and one
    /// a second: a few hundred nodes behind the NAT of one site or carrier are back within
    /// minutes of an outage, and a flood of made-up peers stays slow.
    #[serde(deserialize_with = "table::deserialize")]
    pub reservation_rate_per_ip: RateConfig,
    /// Circuits open at one time. Default 1,024: with `max_circuit_bytes` in
    /// `max_circuit_duration` for each, at most 4.8 MB/s in and as much out over time.
    pub max_circuits: usize,
    /// Circuits from one peer open at one time. Default 16: as many members as a node connects
    /// to in one overlay, and some.
    pub max_circuits_per_peer: usize,
    /// Life of a circuit, in milliseconds. Default 30 min: between two nodes that cannot be
    /// connected directly it is all they have, and each end of it interrupts them. The stock
    /// relay grants 2 min.
    #[serde(rename = "max_circuit_duration_ms", with = "super::duration")]
    pub max_circuit_duration: Duration,
    /// Bytes carried by a circuit, both ways together. Default 8 MiB: hole punching takes some
    /// KiB, gossip of a quiet overlay the rest; bulk transfers wait for a direct path. The stock
    /// relay grants 128 KiB.
    pub max_circuit_bytes: u64,
    /// How often one peer may ask for a circuit. Default 30 at once and one every 10 s.
    #[serde(deserialize_with = "table::deserialize")]
    pub circuit_rate_per_peer: RateConfig,
    /// How often the peers behind one IP address may ask for a circuit. Default 512 at once and
    /// one a second.
    #[serde(deserialize_with = "table::deserialize")]
    pub circuit_rate_per_ip: RateConfig,
}

impl Default for RelayServerConfig {
    fn default() -> Self {
        let per_ip = RateConfig {
            burst: 512,
            interval: Duration::from_secs(1),
        };
        Self {
            enabled: false,
            max_reservations: 10_000,
            max_reservations_per_peer: 4,
            reservation_duration: Duration::from_secs(3600),
            reservation_rate_per_peer: RateConfig {
                burst: 30,
                interval: Duration::from_secs(120),
            },
            reservation_rate_per_ip: per_ip,
            max_circuits: 1024,
            max_circuits_per_peer: 16,
            max_circuit_duration: Duration::from_secs(30 * 60),
            max_circuit_bytes: 8 * MIB as u64,
            circuit_rate_per_peer: RateConfig {
                burst: 30,
                interval: Duration::from_secs(10),
            },
            circuit_rate_per_ip: per_ip,
        }
    }
}

/// How often something may be done: a bucket of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateConfig {
    /// Tokens that a full bucket holds: what may be done at once.
    pub burst: u32,
    /// Time in which one token comes back, in milliseconds.
    #[serde(rename = "interval_ms", with = "super::duration")]
    pub interval: Duration,
}

impl ServerConfig {
    /// Refuses contradictions, naming the key below `prefix` (empty, or ending in a dot).
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] with the first key that cannot hold.
    pub fn validate(&self, prefix: &str) -> Result<(), ConfigError> {
        self.rendezvous.validate(&format!("{prefix}rendezvous."))?;
        self.relay.validate(&format!("{prefix}relay."))
    }
}

impl RendezvousServerConfig {
    /// Refuses contradictions, naming the key below `prefix` (empty, or ending in a dot).
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] with the first key that cannot hold.
    pub fn validate(&self, prefix: &str) -> Result<(), ConfigError> {
        let key = |name: &str| format!("{prefix}{name}");
        for (name, value) in [
            ("max_registrations", self.max_registrations),
            (
                "max_registrations_per_peer",
                self.max_registrations_per_peer,
            ),
            (
                "max_registrations_per_namespace",
                self.max_registrations_per_namespace,
            ),
            ("max_answer", self.max_answer),
            (
                "max_requests_per_connection",
                self.max_requests_per_connection,
            ),
            ("max_requests", self.max_requests),
        ] {
            check_queue(value, || key(name))?;
        }
        check(
            self.max_registrations_per_peer <= self.max_registrations,
            || {
                (
                    key("max_registrations_per_peer"),
                    "must not exceed max_registrations",
                )
            },
        )?;
        check(
            self.max_requests_per_connection <= self.max_requests,
            || {
                (
                    key("max_requests_per_connection"),
                    "must not exceed max_requests",
                )
            },
        )?;
        self.validate_bytes(&key)?;
        for (name, value) in [
            ("request_burst", self.request_burst),
            ("requests_per_second", self.requests_per_second),
        ] {
            check((1..=1_000_000).contains(&value), || {
                (key(name), "must be from 1 to 1000000")
            })?;
        }
        for (name, value) in [
            ("min_ttl_ms", self.min_ttl),
            ("max_ttl_ms", self.max_ttl),
            ("request_timeout_ms", self.request_timeout),
        ] {
            check_duration(value, || key(name))?;
        }
        check(self.min_ttl.as_secs() > 0, || {
            (key("min_ttl_ms"), "must be at least 1000, one second")
        })?;
        check(self.min_ttl <= self.max_ttl, || {
            (key("min_ttl_ms"), "must not exceed max_ttl_ms")
        })
    }

    fn validate_bytes(&self, key: &impl Fn(&str) -> String) -> Result<(), ConfigError> {
        // A record of one address with an Ed25519 key takes about 200.
        check((256..=64 * KIB).contains(&self.max_record_bytes), || {
            (key("max_record_bytes"), "must be from 256 to 65536")
        })?;
        // Clients refuse a message above 1 MiB.
        let answer = self.max_record_bytes + KIB..=MIB - KIB;
        check(answer.contains(&self.max_answer_bytes), || {
            (
                key("max_answer_bytes"),
                "must be from max_record_bytes and 1024 to 1047552, what clients take",
            )
        })?;
        // A peer, a namespace and a registration surround the record.
        check(self.max_bytes >= self.max_record_bytes + 2 * KIB, || {
            (
                key("max_bytes"),
                "must be at least max_record_bytes and 2048",
            )
        })
    }
}

impl RelayServerConfig {
    /// Refuses contradictions, naming the key below `prefix` (empty, or ending in a dot).
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] with the first key that cannot hold.
    pub fn validate(&self, prefix: &str) -> Result<(), ConfigError> {
        let key = |name: &str| format!("{prefix}{name}");
        for (name, value) in [
            ("max_reservations", self.max_reservations),
            ("max_reservations_per_peer", self.max_reservations_per_peer),
            ("max_circuits", self.max_circuits),
            ("max_circuits_per_peer", self.max_circuits_per_peer),
        ] {
            check_queue(value, || key(name))?;
        }
        for (name, value) in [
            ("reservation_duration_ms", self.reservation_duration),
            ("max_circuit_duration_ms", self.max_circuit_duration),
        ] {
            check_duration(value, || key(name))?;
            // The protocol has whole seconds.
            check(value.as_secs() > 0, || {
                (key(name), "must be at least 1000, one second")
            })?;
        }
        check(self.max_circuit_bytes > 0, || {
            (key("max_circuit_bytes"), "must be above 0")
        })?;
        for (name, rate) in [
            ("reservation_rate_per_peer", self.reservation_rate_per_peer),
            ("reservation_rate_per_ip", self.reservation_rate_per_ip),
            ("circuit_rate_per_peer", self.circuit_rate_per_peer),
            ("circuit_rate_per_ip", self.circuit_rate_per_ip),
        ] {
            check(rate.burst > 0, || {
                (key(&format!("{name}.burst")), "must be above 0")
            })?;
            check_duration(rate.interval, || key(&format!("{name}.interval_ms")))?;
        }
        Ok(())
    }
}
