//! Blobs found by their id alone, as processes: a boot node, nodes that have something, and
//! machines that know neither of them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a surprise ends the test"
)]

mod support;

use std::{fs, path::Path};

use serde_json::Value;
use support::{Ended, LIMIT, Process, calnet, run};

const OTHER_CONTEXT: &str = "CktRuQ2mttgRGkXJtyksdKHjUdc2C4TgDzyB98oEzy8";

fn blob(data: Option<&Path>, args: &[&str]) -> Ended {
    let mut command = calnet();
    command.args(["blob", "--json"]);
    if let Some(data) = data {
        command.arg("--data").arg(data);
    }
    command.args(args);
    run(command)
}

fn content(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 7) as u8 ^ seed).collect()
}

/// The ids of what `add` has added.
fn added(ended: &Ended) -> Vec<String> {
    assert!(ended.success, "{}", ended.stderr);
    let lines = ended.json_lines();
    let ids = lines.iter().filter(|line| line["event"] == "added");
    ids.map(|line| line["id"].as_str().unwrap().to_owned())
        .collect()
}

/// A boot node, and its address.
fn boot(folder: &Path) -> (Process, String) {
    let mut command = calnet();
    command.args(["boot", "--json", "--local"]);
    command.args(["--listen", "/ip4/127.0.0.1/tcp/0"]);
    command.arg("--data").arg(folder.join("boot"));
    let boot = Process::start(command);
    let address = boot.addresses(1).remove(0);
    (boot, address)
}

fn announced<'a>(id: &'a str) -> impl Fn(&Value) -> bool + 'a {
    move |line| line["event"] == "blob_announced" && line["id"] == id
}

#[test]
fn a_blob_is_found_by_its_id_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let (_boot, address) = boot(dir.path());
    let there = path("there");
    // One blob is in the folder before the node runs, two come while it does.
    let mut ids = Vec::new();
    for (seed, name) in [(1, "first"), (2, "second"), (3, "third")] {
        fs::write(path(name), content(seed, (2 << 20) + 5)).unwrap();
    }
    let text = |name: &str| path(name).to_str().unwrap().to_owned();
    ids.extend(added(&blob(Some(&there), &["add", &text("first")])));
    let arguments = ["--local", "--boot", &address, "--data", &text("there")];
    let mut provider = Process::node(&arguments);
    provider.event("listening");
    let more = blob(Some(&there), &["add", &text("second"), &text("third")]);
    ids.extend(added(&more));
    let in_context = ["add", "--context", OTHER_CONTEXT, &text("second")];
    assert_eq!(added(&blob(Some(&there), &in_context)), ids[1..2]);
    for id in &ids {
        let found = provider.find(0, LIMIT, announced(id));
        assert!(found.is_some(), "{:#?}", provider.entries());
    }
    let there_too =
        |line: &Value| line["event"] == "blob_announced" && line["context"] == OTHER_CONTEXT;
    assert!(provider.find(0, LIMIT, there_too).is_some());

    // A client that has only the boot address and the ids.
    for (id, name) in ids.iter().zip(["first", "second", "third"]) {
        let copy = text("copy");
        let got = blob(
            None,
            &["get", id, "-o", &copy, "--local", "--boot", &address],
        );
        assert!(got.success, "{}", got.stderr);
        assert_eq!(fs::read(&copy).unwrap(), fs::read(path(name)).unwrap());
        fs::remove_file(&copy).unwrap();
    }
    let copy = text("copy");
    let mut arguments = vec!["get", &ids[1], "-o", &copy, "--local", "--boot", &address];
    arguments.extend(["--context", OTHER_CONTEXT]);
    let got = blob(None, &arguments);
    assert!(got.success, "{}", got.stderr);

    // Removed, it is withdrawn in every context, and is not announced by the next run.
    let removed = blob(Some(&there), &["rm", &ids[1]]).json_lines();
    assert_eq!(removed[0]["was_there"], true);
    for context in ["11111111111111111111111111111111", OTHER_CONTEXT] {
        let withdrawn = |line: &Value| {
            line["event"] == "blob_withdrawn"
                && line["id"] == ids[1].as_str()
                && line["context"] == context
        };
        assert!(provider.find(0, LIMIT, withdrawn).is_some(), "{context}");
    }
    assert!(provider.end_by("-TERM").success());
    let arguments = ["--local", "--boot", &address, "--data", &text("there")];
    let again = Process::node(&arguments);
    for id in [&ids[0], &ids[2]] {
        assert!(again.find(0, LIMIT, announced(id)).is_some());
    }
    let entries = again.entries();
    assert!(!entries.iter().any(|entry| announced(&ids[1])(&entry.line)));
}

#[test]
fn a_running_node_fetches_announces_and_serves_what_it_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let text = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (_boot, address) = boot(dir.path());
    let first = Process::node(&["--local", "--boot", &address, "--data", &text("first")]);
    let second = Process::node(&["--local", "--boot", &address, "--data", &text("second")]);
    fs::write(dir.path().join("file"), content(5, 3 << 20)).unwrap();
    first.event("listening");
    second.event("listening");
    let id = &added(&blob(
        Some(&dir.path().join("first")),
        &["add", &text("file")],
    ))[0];
    assert!(first.find(0, LIMIT, announced(id)).is_some());
    // By the node whose folder it is, into its folder and to a file.
    let folder = dir.path().join("second");
    let got = blob(Some(&folder), &["get", id]);
    assert!(got.success, "{}", got.stderr);
    let fetched = got.json_lines().pop().unwrap();
    assert_eq!(fetched["event"], "fetched");
    assert_eq!(fetched["size_bytes"], 3 << 20);
    assert!(second.find(0, LIMIT, announced(id)).is_some());
    let got = blob(Some(&folder), &["get", id, "-o", &text("copy")]);
    assert!(got.success, "{}", got.stderr);
    assert_eq!(
        fs::read(dir.path().join("copy")).unwrap(),
        fs::read(dir.path().join("file")).unwrap()
    );
    let listed = blob(Some(&folder), &["ls"]).json_lines();
    assert_eq!(listed[0]["id"], id.as_str());
    let verified = blob(Some(&folder), &["verify"]);
    assert!(verified.success, "{}", verified.stderr);
    assert_eq!(verified.json_lines()[0]["event"], "verified");
    // The reason comes through the control socket as well.
    let unknown = blob(Some(&folder), &["add", "/nowhere/at all"]);
    assert!(!unknown.success);
    assert!(
        unknown.stderr.contains("/nowhere/at all"),
        "{}",
        unknown.stderr
    );
}

#[cfg(unix)]
#[test]
fn the_control_socket_is_for_the_owner_alone_and_closes_with_the_node() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut node = Process::node(&["--data", data.to_str().unwrap()]);
    node.event("listening");
    let listed = blob(Some(&data), &["ls"]);
    assert!(listed.success, "{}", listed.stderr);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data.join("control")), 0o700);
    assert_eq!(mode(&data.join("control").join("socket")), 0o600);
    assert!(node.end_by("-TERM").success());
    assert!(!data.join("control").join("socket").exists());
    // A killed node leaves its control socket in the folder. The next one replaces it.
    let mut node = Process::node(&["--data", data.to_str().unwrap()]);
    node.event("listening");
    assert!(blob(Some(&data), &["ls"]).success);
    node.end_by("-KILL");
    assert!(data.join("control").join("socket").exists());
    assert!(blob(Some(&data), &["ls"]).success);
    let node = Process::node(&["--data", data.to_str().unwrap()]);
    node.event("listening");
    assert!(blob(Some(&data), &["ls"]).success);
}
