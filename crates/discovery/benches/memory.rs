//! What the machine remembers, in bytes: of each known peer, of each member, of each connection.
//!
//! `cargo bench -p calimero-network-discovery --no-default-features --bench memory`
//!
//! Measured as the growth of a process of its own for each figure, so that it contains what the
//! allocator wastes.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on says so"
)]

use std::time::Instant;

use calimero_network_discovery::machine::{Input, Machine, Namespace, Path};
use calimero_network_primitives::{Multiaddr, PeerId, config::DiscoveryConfig};

/// Machines measured at once: the process grows by pages, and by what was free before.
const MACHINES: u32 = 8;

fn peer(number: u32) -> PeerId {
    let mut bytes = [0; 38];
    bytes[..6].copy_from_slice(&[0, 36, 8, 1, 18, 32]);
    bytes[6..10].copy_from_slice(&number.to_be_bytes());
    PeerId::from_bytes(&bytes).unwrap()
}

/// TCP and QUIC over IPv4, then over IPv6.
fn addresses(number: u32, count: usize) -> Vec<Multiaddr> {
    let [_, a, b, c] = number.to_be_bytes();
    let all = [
        format!("/ip4/45.{a}.{b}.{c}/tcp/2428"),
        format!("/ip4/45.{a}.{b}.{c}/udp/2428/quic-v1"),
        format!("/ip6/2a01:4f8::{a:x}:{b:x}:{c:x}/tcp/2428"),
        format!("/ip6/2a01:4f8::{a:x}:{b:x}:{c:x}/udp/2428/quic-v1"),
    ];
    let chosen = all.iter().take(count);
    chosen.map(|text| text.parse().unwrap()).collect()
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.and_then(|text| text.parse().ok()).unwrap_or(0) * 1024
}

#[allow(
    clippy::disallowed_methods,
    reason = "a benchmark has to start somewhere"
)]
fn machines(max_peers: u32) -> (Vec<Machine>, Instant) {
    let start = Instant::now();
    let mut config = DiscoveryConfig {
        max_peers,
        ..DiscoveryConfig::default()
    };
    config.rendezvous.max_members = max_peers;
    let machine = || Machine::new(config.clone(), peer(0), 7, start).unwrap();
    ((0..MACHINES).map(|_| machine()).collect(), start)
}

/// Bytes that each machine grows by, for each of `count` inputs.
fn grown(machines: &mut [Machine], now: Instant, inputs: impl Fn(u32) -> Input, count: u32) -> f64 {
    let before = resident();
    for machine in machines.iter_mut() {
        for number in 1..=count {
            machine.handle(inputs(number), now);
            while machine.poll_effect().is_some() {}
        }
    }
    let grown = resident().saturating_sub(before);
    grown as f64 / f64::from(MACHINES) / f64::from(count)
}

/// Prints one figure with its name.
fn measure(what: &str, known: u32, addresses_each: usize) {
    let (mut machines, start) = machines(known);
    let overlay = Namespace::new("/calimero/ctx/1").unwrap();
    for machine in &mut machines {
        machine.handle(Input::Follow(overlay.clone()), start);
    }
    let bytes = match what {
        "known" => {
            let told = |number| Input::Identified {
                peer: peer(number),
                addresses: addresses(number, addresses_each),
            };
            grown(&mut machines, start, told, known)
        }
        "member" => {
            let seen = |number| Input::MemberSeen {
                namespace: overlay.clone(),
                peer: peer(number),
            };
            grown(&mut machines, start, seen, known)
        }
        _ => {
            let opened = |number| Input::ConnectionOpened {
                peer: peer(number),
                path: Path::Direct,
                dialled: None,
                remote_ip: None,
                is_local: false,
            };
            grown(&mut machines, start, opened, known)
        }
    };
    println!("{known} x {what}, {addresses_each} addresses: {bytes:.0} bytes each");
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if let [what, known, addresses] = &arguments[..] {
        measure(what, known.parse().unwrap(), addresses.parse().unwrap());
        return;
    }
    println!("a machine: {} bytes", size_of::<Machine>());
    for (what, known, addresses) in [
        ("known", "4096", "1"),
        ("known", "4096", "2"),
        ("known", "4096", "4"),
        ("known", "16384", "2"),
        ("known", "100000", "2"),
        ("member", "4096", "0"),
        ("connection", "4096", "0"),
    ] {
        let this = std::env::current_exe().unwrap();
        let mut figure = std::process::Command::new(this);
        figure.args([what, known, addresses]).status().unwrap();
    }
}
