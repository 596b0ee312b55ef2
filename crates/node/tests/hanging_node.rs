//! Commands of a node that hangs or that ends: each command ends, and says what is wrong.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a surprise ends the test"
)]

mod support;

use std::{fs, os::unix::net::UnixListener};

use serde_json::Value;
use support::{LIMIT, Process, calnet, run};

/// A valid peer id that no node has.
const ABSENT: &str = "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5";

/// An id that no blob has.
const MISSING: &str = "11111111111111111111111111111112";

#[test]
fn a_command_ends_if_its_node_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, vec![7; 4 << 20]).unwrap();
    let file = file.to_str().unwrap();
    let data = folder.path().join("data");
    let data = data.to_str().unwrap();
    let node = Process::node(&["--data", data, "--local"]);
    node.event("listening");
    let mut ready = calnet();
    ready.args(["status", "--data", data]);
    assert!(run(ready).success);
    node.signal("-STOP");
    let address = format!("/ip4/127.0.0.1/tcp/1/p2p/{ABSENT}");
    let commands: [&[&str]; 14] = [
        &["status"],
        &["peers"],
        &["connect", &address],
        &["disconnect", ABSENT],
        &["block", ABSENT],
        &["unblock", ABSENT],
        &["topics"],
        &["publish", "news", "text"],
        &["subscribe", "news"],
        &["config", "show"],
        &["blob", "ls"],
        &["blob", "rm", MISSING],
        &["blob", "verify", MISSING],
        &["blob", "add", file],
    ];
    // All at one time, because each waits for its deadline.
    let ended: Vec<_> = commands
        .map(|arguments| {
            let mut command = calnet();
            command.arg("--json").args(arguments).args(["--data", data]);
            std::thread::spawn(move || run(command))
        })
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect();
    node.signal("-CONT");
    for (arguments, ended) in commands.iter().zip(ended) {
        assert_eq!(ended.code, Some(4), "{arguments:?}: {}", ended.stderr);
        let failure: Value = serde_json::from_str(ended.stderr.lines().last().unwrap()).unwrap();
        assert_eq!(failure["code"], "timed_out", "{arguments:?}: {failure}");
    }
    assert!(
        node.find(0, LIMIT, |line| line["event"] == "listening")
            .is_some()
    );
}

#[test]
fn a_node_that_closes_the_connection_is_not_reachable() {
    let folder = tempfile::tempdir().unwrap();
    let control = folder.path().join("control");
    fs::create_dir(&control).unwrap();
    let listener = UnixListener::bind(control.join("socket")).unwrap();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let mut command = calnet();
    command
        .args(["topics", "--json", "--data"])
        .arg(folder.path());
    let ended = run(command);
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    let failure: Value = serde_json::from_str(ended.stderr.trim_end()).unwrap();
    assert_eq!(failure["code"], "not_reachable", "{failure}");
}
