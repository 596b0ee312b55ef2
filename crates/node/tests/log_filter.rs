//! The filter of the log: a wrong one is refused, and an empty one counts as absent. A wrong one of
//! `RUST_LOG` is ignored: see `environment.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a surprise ends the test"
)]

mod support;

use support::{Ended, calnet, run};

fn completions(arguments: &[&str], variables: &[(&str, &str)]) -> Ended {
    let mut command = calnet();
    command.args(["completions", "bash"]).args(arguments);
    command.envs(variables.iter().copied());
    run(command)
}

#[test]
fn a_wrong_filter_is_refused_with_its_directive() {
    for (arguments, variables) in [
        (&["--log", "info,calnet=debgu"][..], &[][..]),
        (&[], &[("CALNET_LOG", "calnet=debgu,info")]),
    ] {
        let ended = completions(arguments, variables);
        assert_eq!(ended.code, Some(2), "{arguments:?} {variables:?}");
        assert!(
            ended.stderr.contains("\"calnet=debgu\""),
            "{}",
            ended.stderr
        );
    }
    let valid = completions(&["--log", "info,calnet[span{a=1}]=debug,"], &[]);
    assert_eq!(valid.code, Some(0), "{}", valid.stderr);
}

#[test]
fn an_empty_variable_counts_as_absent() {
    let empty = [
        ("CALNET_LOG", ""),
        ("CALNET_LOG_FORMAT", ""),
        ("RUST_LOG", " "),
    ];
    let ended = completions(&[], &empty);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}
