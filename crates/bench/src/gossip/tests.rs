//! Tests of the command line, of the counts and of the statistics.

use std::ffi::OsString;

use clap::Parser as _;
use proptest::prelude::*;

use super::{member::Cost, report::Figures, tally::*, *};
use crate::{Cli, Command};

const WORK: Work = Work {
    nodes: 3,
    messages: 4,
    rate: 0,
    message_bytes: 64,
    announce_arrival: None,
};

fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Command, clap::Error> {
    let words = ["netbench".into()].into_iter().chain(words);
    Ok(Cli::try_parse_from(words)?.command)
}

fn gossip_args(line: &str) -> Result<GossipArgs, clap::Error> {
    match parse(line.split(' ').map(Into::into))? {
        Command::Gossip(args) => Ok(args),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_command_of_each_process_is_parsed_to_its_arguments() {
    let both = ["gossip", "gossip --announce-arrival 64"].map(|line| gossip_args(line).unwrap());
    for work in both.iter().flat_map(GossipArgs::works) {
        for &implementation in Implementation::value_variants() {
            for publish in [false, true] {
                let args = MemberArgs {
                    implementation,
                    work,
                    publish,
                };
                let command = run::command(&args);
                let parsed = parse(command.get_args().map(Into::into));
                assert!(
                    matches!(parsed, Ok(Command::GossipMember(parsed)) if parsed == args),
                    "{command:?}: {parsed:?}"
                );
            }
        }
    }
}

#[test]
fn a_rate_determines_the_number_of_messages() {
    let args = gossip_args("gossip --nodes 2 5 --rate 0 100 --messages 7 --seconds 3").unwrap();
    let works = args.works();
    let works: Vec<_> = (works.iter())
        .map(|work| (work.nodes, work.rate, work.messages))
        .collect();
    assert_eq!(works, [(2, 0, 7), (2, 100, 300), (5, 0, 7), (5, 100, 300)]);
}

#[test]
fn arguments_that_cannot_be_measured_are_refused() {
    for option in [
        "--nodes 1",
        "--nodes 17",
        "--message-bytes 15",
        "--message-bytes 1048577",
        "--messages 0",
        "--seconds 0",
        "--rounds 0",
    ] {
        let parsed = gossip_args(&format!("gossip {option}"));
        let error = parsed.expect_err(option).to_string();
        let name = option.split(' ').next().unwrap();
        assert!(error.contains(name), "{error}");
    }
}

#[test]
fn messages_are_counted_once_and_by_number() {
    let mut tally = Tally::new(4);
    assert!(tally.is_empty());
    for number in [2, 0, 2, 1] {
        let message = WORK.message(number);
        assert_eq!(message.len(), 64);
        tally.count(&message, now_nanos()).unwrap();
    }
    assert!(!tally.is_empty() && !tally.is_complete());
    assert!(tally.count(&WORK.message(4), 0).is_err());
    assert!(tally.count(&[0; HEAD_BYTES - 1], 0).is_err());
    tally.count(&WORK.message(3), now_nanos()).unwrap();
    assert!(tally.is_complete());
    let arrivals = tally.arrivals();
    assert_eq!((arrivals.delivered, arrivals.repeated), (4, 1));
}

#[test]
fn the_age_of_a_message_is_the_time_since_its_publication() {
    let mut tally = Tally::new(100);
    for number in 0..100 {
        let mut message = [0; HEAD_BYTES];
        message[7] = number;
        message[8..].copy_from_slice(&1_000_000_u64.to_be_bytes());
        let age = u64::from(number + 1) * 1_000_000;
        tally.count(&message, 1_000_000 + age).unwrap();
    }
    let began = std::time::Instant::now();
    tally.delivered_at(began);
    tally.delivered_at(began + std::time::Duration::from_secs(3));
    let arrivals = tally.arrivals();
    assert_eq!((arrivals.p50_ms, arrivals.p99_ms), (50.0, 99.0));
    assert_eq!(arrivals.seconds, 3.0);
}

proptest! {
    #[test]
    fn a_quantile_is_reached_by_its_share(
        mut values in prop::collection::vec(0..1000u64, 1..200),
        share in 0.01..=1.0f64,
    ) {
        values.sort_unstable();
        let found = quantile(&values, share);
        let reached = values.iter().filter(|&&value| value <= found).count();
        let below = values.iter().filter(|&&value| value < found).count();
        let wanted = values.len() as f64 * share;
        prop_assert!(reached as f64 >= wanted && (below as f64) < wanted);
    }
}

fn receiver(delivered: u64, seconds: f64, cpu_seconds: f64, copies: u64) -> (Arrivals, Cost) {
    let arrivals = Arrivals {
        delivered,
        repeated: 0,
        seconds,
        p50_ms: seconds,
        p99_ms: 2.0 * seconds,
    };
    (
        arrivals,
        Cost {
            cpu_seconds,
            copies,
        },
    )
}

const PUBLISHER: Cost = Cost {
    cpu_seconds: 0.004,
    copies: 0,
};

#[test]
fn figures_are_those_of_the_slowest_receiver_and_means_of_costs() {
    let receivers = [receiver(4, 1.5, 0.004, 4), receiver(2, 0.25, 0.004, 6)];
    let figures = Figures::new(WORK, &PUBLISHER, &receivers).unwrap();
    let expected = Figures {
        per_second: 2.0,
        delivered: 6,
        lost: 2,
        p50_ms: 1.5,
        p99_ms: 3.0,
        receiver_us: 1500.0,
        publisher_us: 1000.0,
        copies: 2.0,
    };
    assert_eq!(figures, expected);
}

#[test]
fn a_run_in_which_a_message_is_repeated_or_none_arrives_has_no_figures() {
    let mut repeated = receiver(4, 1.0, 1.0, 4);
    repeated.0.repeated = 1;
    assert!(Figures::new(WORK, &PUBLISHER, &[repeated]).is_err());
    let nothing = receiver(0, 0.0, 1.0, 0);
    assert!(Figures::new(WORK, &PUBLISHER, &[nothing]).is_err());
}

#[test]
fn a_row_is_the_median_of_its_runs_and_the_sum_of_what_was_lost() {
    let mut row = Row::new(WORK, Implementation::Stock);
    for (per_second, lost) in [(100.0, 0), (300.0, 1), (200.0, 5)] {
        row.runs.push(Figures {
            per_second,
            delivered: 4,
            lost,
            p50_ms: 0.5,
            p99_ms: 12.25,
            receiver_us: 70.04,
            publisher_us: 31.0,
            copies: 1.256,
        });
    }
    assert_eq!(
        row.markdown(),
        "| 3 | no rate limit | stock libp2p-gossipsub | 200 | 6 | 0.50 | 12.25 | 70.0 | 31.0 | 1.26 |"
    );
}
