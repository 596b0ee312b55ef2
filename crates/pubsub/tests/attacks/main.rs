//! Networks under attack, in virtual time: what honest nodes get, how late, and at what cost.
//!
//! The tests have some tens of nodes. `under_attack_at_scale` prints a table of a large network,
//! with the parameters of this crate and with those of libp2p-gossipsub:
//!
//! ```text
//! GOSSIP_ATTACKS=1000,1000,100,4,60 cargo test --release -p calimero-network-pubsub \
//!     --test attacks -- --ignored --nocapture
//! ```
//!
//! The numbers are honest nodes, attackers, overlays, overlays of a node, and seconds in which a
//! message a second is published in each overlay.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test that cannot go on says so, and a measurement prints its table"
)]

mod attack;
#[path = "../net/mod.rs"]
mod net;
mod world;

use std::time::{Duration, Instant};

use attack::Attack;
use calimero_network_pubsub::Config;
use world::{Figures, Size, World};

/// The mesh of libp2p-gossipsub 0.50 by default, with the scores and the signatures of this crate.
fn libp2p() -> Config {
    let mut config = Config::large();
    config.mesh.flood_publish = true;
    config.mesh.announce_arrival_bytes = 1_000;
    config
}

/// Overlays of 20 honest members and some attackers, one after the other.
fn under(attack: Attack, config: &Config, overlays: u64) -> Figures {
    let floods = matches!(attack, Attack::Spam | Attack::Replay);
    let size = Size {
        honest: 20,
        attackers: if floods { 3 } else { 20 },
        overlays: 1,
        memberships: 1,
        seconds: if attack == Attack::Replay { 35 } else { 10 },
    };
    let runs = (1..=overlays).map(|seed| World::new(size, attack, config, seed).run());
    let figures = runs.reduce(Figures::and).unwrap();
    println!("{attack:?}: {}", figures.row());
    figures
}

/// What must arrive, as shares of all messages.
struct Bar {
    share: f64,
    /// The share that arrives within a time in milliseconds.
    in_time: (f64, u64),
}

/// With the large mesh everything arrives, and 99 % of it within 300 ms.
const LARGE: Bar = Bar {
    share: 1.0,
    in_time: (0.99, 300),
};

/// With the small mesh a share arrives, and a part of it in time. None arrives twice, and no honest
/// node is banned.
fn holds(attack: Attack, overlays: u64, small: &Bar) {
    for (config, bar) in [(Config::small(), small), (Config::large(), &LARGE)] {
        let figures = under(attack, &config, overlays);
        let (least, millis) = bar.in_time;
        let in_time = figures.within(Duration::from_millis(millis));
        println!("within {millis} ms: {:.2} %", in_time * 100.0);
        let got = figures.ratio();
        assert!(got >= bar.share, "{got} of the messages have arrived");
        assert!(in_time >= least, "{in_time} within {millis} ms");
        assert_eq!((figures.repeated, figures.banned.1), (0, 0));
    }
}

#[test]
fn without_an_attack_messages_arrive_through_the_mesh() {
    holds(Attack::None, 1, &LARGE);
}

/// Two thirds of the connections of a node are with attackers.
#[test]
fn messages_arrive_among_attackers_that_drop_them() {
    let bar = Bar {
        share: 0.99,
        in_time: (0.97, 2_500),
    };
    holds(Attack::Sybil, 2, &bar);
}

#[test]
fn messages_arrive_after_a_cold_boot_among_attackers() {
    let bar = Bar {
        share: 0.99,
        in_time: (0.965, 2_500),
    };
    holds(Attack::ColdBoot, 2, &bar);
}

#[test]
fn a_surrounded_node_sends_and_receives_through_those_that_it_dialled() {
    let bar = Bar {
        share: 0.99,
        in_time: (0.96, 6_000),
    };
    holds(Attack::Eclipse, 2, &bar);
}

#[test]
fn messages_of_a_censored_node_arrive() {
    let bar = Bar {
        share: 0.99,
        in_time: (0.97, 2_500),
    };
    holds(Attack::Censor, 2, &bar);
}

#[test]
fn honest_messages_arrive_under_spam() {
    holds(Attack::Spam, 1, &LARGE);
}

#[test]
fn a_replay_is_never_delivered() {
    holds(Attack::Replay, 1, &LARGE);
}

#[test]
#[ignore = "takes minutes; prints the table of docs/measurements/gossip-attacks.md"]
fn under_attack_at_scale() {
    let text = std::env::var("GOSSIP_ATTACKS").unwrap_or_else(|_| "200,200,20,4,20".to_owned());
    let numbers: Vec<usize> = text.split(',').map(|n| n.parse().unwrap()).collect();
    let [honest, attackers, overlays, memberships, seconds] = numbers[..] else {
        panic!("five numbers, not {text}");
    };
    let size = Size {
        honest,
        attackers,
        overlays,
        memberships,
        seconds: u32::try_from(seconds).unwrap(),
    };
    println!("{size:?}\n");
    println!(
        "| attack | parameters | delivered | p50, ms | p99, ms | most, ms | hops, mean / most | \
         copies | bytes | banned: attackers / honest |"
    );
    println!("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|");
    let started = Instant::now();
    for attack in Attack::ALL {
        for (name, config) in [
            ("small", Config::small()),
            ("large", Config::large()),
            ("libp2p", libp2p()),
        ] {
            let figures = World::new(size, attack, &config, 1).run();
            println!("| {attack:?} | {name} | {} |", figures.row());
            assert_eq!(figures.repeated, 0, "a message was delivered twice");
        }
    }
    println!("\n{} s", started.elapsed().as_secs());
}
