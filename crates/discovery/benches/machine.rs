//! How many inputs the machine takes in a second, with a full address book.
//!
//! `cargo bench -p calimero-network-discovery --no-default-features`
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on says so"
)]

use std::{
    cell::Cell,
    hint::black_box,
    time::{Duration, Instant},
};

use calimero_network_discovery::machine::{Input, Machine, Namespace, Path};
use calimero_network_primitives::{Multiaddr, PeerId, config::DiscoveryConfig};
use divan::{Bencher, counter::ItemsCount};

const KNOWN: u32 = 4096;
const CONNECTED: u32 = 256;
/// Inputs of a sample: less than a slice of the scheduler's, so that a busy machine spoils few.
const BATCH: u32 = 1_000;

fn main() {
    divan::main();
}

/// A peer id as long as that of an Ed25519 key.
fn peer(number: u32) -> PeerId {
    let mut bytes = [0; 38];
    bytes[..6].copy_from_slice(&[0, 36, 8, 1, 18, 32]);
    for (at, chunk) in bytes[6..].chunks_exact_mut(4).enumerate() {
        // Differs early and late, as a key does.
        let mixed = number.wrapping_mul(0x9e37_79b9).rotate_left(at as u32);
        chunk.copy_from_slice(&mixed.to_be_bytes());
    }
    PeerId::from_bytes(&bytes).unwrap()
}

fn address(number: u32) -> Multiaddr {
    let [_, a, b, c] = number.to_be_bytes();
    format!("/ip4/45.{a}.{b}.{c}/tcp/2428").parse().unwrap()
}

fn identified(number: u32) -> Input {
    Input::Identified {
        peer: peer(number),
        addresses: vec![address(number), address(number + 1)],
    }
}

fn opened(number: u32) -> Input {
    Input::ConnectionOpened {
        peer: peer(number),
        path: Path::Direct,
        dialled: Some(address(number)),
        remote_ip: None,
        is_local: false,
    }
}

/// Inputs and the time of each, in milliseconds after the start.
type Inputs = Vec<(Input, u64)>;

/// A node with `KNOWN` peers in its book, `CONNECTED` of them connected, and eight overlays.
#[allow(
    clippy::disallowed_methods,
    reason = "a benchmark has to start somewhere"
)]
fn settled() -> (Machine, Instant) {
    let start = Instant::now();
    let mut machine = Machine::new(DiscoveryConfig::default(), peer(0), 7, start).unwrap();
    let overlay = |number: u32| Namespace::new(&format!("/calimero/ctx/{number}")).unwrap();
    let follows = (0..8).map(|number| Input::Follow(overlay(number)));
    let known = (1..=KNOWN).map(identified);
    let connected = (1..=CONNECTED).map(opened);
    let members = (1..=CONNECTED).map(|number| Input::MemberSeen {
        namespace: overlay(number % 8),
        peer: peer(number),
    });
    for input in follows.chain(known).chain(connected).chain(members) {
        machine.handle(input, start);
        while machine.poll_effect().is_some() {}
    }
    (machine, start)
}

fn measure(bencher: Bencher<'_, '_>, input: impl Fn(u32) -> Input + Sync) {
    let turn = Cell::new(0);
    bencher
        .counter(ItemsCount::new(BATCH))
        .with_inputs(|| {
            let first = turn.replace(turn.get() + BATCH);
            let inputs: Inputs = (0..BATCH)
                .map(|n| (input(first + n), u64::from(n) / 10))
                .collect();
            (settled(), inputs)
        })
        .bench_local_values(|((mut machine, start), inputs)| {
            for (input, millis) in inputs {
                machine.handle(input, start + Duration::from_millis(millis));
                while let Some(effect) = machine.poll_effect() {
                    black_box(effect);
                }
                black_box(machine.next_timeout());
            }
            machine
        });
}

#[divan::bench(sample_count = 500)]
fn a_known_peer_tells_of_itself(bencher: Bencher<'_, '_>) {
    measure(bencher, |n| identified(1 + n % KNOWN));
}

#[divan::bench(sample_count = 500)]
fn an_unknown_peer_tells_of_itself(bencher: Bencher<'_, '_>) {
    measure(bencher, |n| identified(1_000_000 + n));
}

#[divan::bench(sample_count = 500)]
fn connections_come_and_go(bencher: Bencher<'_, '_>) {
    measure(bencher, |n| {
        let number = CONNECTED + 1 + n / 2 % (KNOWN - CONNECTED);
        if n % 2 == 0 {
            opened(number)
        } else {
            Input::ConnectionClosed {
                peer: peer(number),
                path: Path::Direct,
            }
        }
    });
}

#[divan::bench(sample_count = 500)]
fn time_passes(bencher: Bencher<'_, '_>) {
    measure(bencher, |_| Input::Timeout);
}
