//! The relay server: libp2p's own, within the bounds of the configuration.
//!
//! Its memory is bounded by those: one entry for each reservation and connection, some 17 KiB for
//! each open circuit (two read buffers of 8 KiB), ten requests under way on a connection, each at
//! most 4 KiB, and the token buckets of those that asked within the time in which a bucket fills.

use std::num::NonZeroU32;

use calimero_network_primitives::{
    PeerId,
    config::{RateConfig, RelayServerConfig},
};
use libp2p_relay::{Behaviour, Config, Status};

/// A relay that says it is one.
pub(super) fn behaviour(local: PeerId, config: &RelayServerConfig) -> Behaviour {
    let mut behaviour = Behaviour::new(local, translate(config));
    // By itself it would wait until an external address is confirmed, and nobody who could
    // confirm one asks before it does.
    behaviour.set_status(Some(Status::Enable));
    behaviour
}

fn translate(config: &RelayServerConfig) -> Config {
    let limits = Config {
        max_reservations: config.max_reservations,
        max_reservations_per_peer: config.max_reservations_per_peer,
        reservation_duration: config.reservation_duration,
        reservation_rate_limiters: Vec::new(),
        max_circuits: config.max_circuits,
        max_circuits_per_peer: config.max_circuits_per_peer,
        max_circuit_duration: config.max_circuit_duration,
        max_circuit_bytes: config.max_circuit_bytes,
        circuit_src_rate_limiters: Vec::new(),
    };
    // By address first: what it refuses leaves no bucket for the peer, and peers can be made up.
    let per_ip = config.reservation_rate_per_ip;
    let per_peer = config.reservation_rate_per_peer;
    let circuits_per_ip = config.circuit_rate_per_ip;
    let circuits_per_peer = config.circuit_rate_per_peer;
    limits
        .reservation_rate_per_ip(burst(per_ip), per_ip.interval)
        .reservation_rate_per_peer(burst(per_peer), per_peer.interval)
        .circuit_src_per_ip(burst(circuits_per_ip), circuits_per_ip.interval)
        .circuit_src_per_peer(burst(circuits_per_peer), circuits_per_peer.interval)
}

/// A valid configuration has none of 0.
fn burst(rate: RateConfig) -> NonZeroU32 {
    NonZeroU32::new(rate.burst).unwrap_or(NonZeroU32::MIN)
}
