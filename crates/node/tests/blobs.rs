//! `calnet blob`, as processes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a surprise ends the test"
)]

mod support;

use std::{fs, path::Path};

use support::{Ended, Process, calnet, run};

fn blob(data: Option<&Path>, args: &[&str]) -> Ended {
    let mut command = calnet();
    command.args(["blob", "--json"]);
    if let Some(data) = data {
        command.arg("--data").arg(data);
    }
    command.args(args);
    run(command)
}

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 7) as u8).collect()
}

#[test]
fn a_blob_goes_from_folder_to_folder_and_file() {
    let dir = tempfile::tempdir().unwrap();
    let (there, here) = (dir.path().join("there"), dir.path().join("here"));
    let file = dir.path().join("some file");
    let bytes = content((3 << 20) + 5);
    fs::write(&file, &bytes).unwrap();

    let added = blob(Some(&there), &["add", file.to_str().unwrap()]);
    assert!(added.success, "{}", added.stderr);
    let id = added.json_lines()[0]["id"].as_str().unwrap().to_owned();

    let mut node = Process::node(&["--data", there.to_str().unwrap()]);
    let address = node.addresses(1).remove(0);
    // Into the other folder, and to a file.
    let got = blob(Some(&here), &["get", &id, "--dial", &address]);
    assert!(got.success, "{}", got.stderr);
    let fetched = got.json_lines().pop().unwrap();
    assert_eq!(fetched["event"], "fetched");
    assert_eq!(fetched["size_bytes"], bytes.len());
    let target = dir.path().join("copy");
    let target_name = target.to_str().unwrap();
    let got = blob(None, &["get", &id, "-o", target_name, "--dial", &address]);
    assert!(got.success, "{}", got.stderr);
    assert_eq!(fs::read(&target).unwrap(), bytes);
    // The folder of a node that runs is its own, so the node is asked.
    let listed = blob(Some(&there), &["ls"]).json_lines();
    assert_eq!(listed[0]["id"], id.as_str());
    assert!(node.end_by("-TERM").success());

    let listed = blob(Some(&here), &["ls"]).json_lines();
    assert_eq!(listed[0]["id"], id.as_str());
    let verified = blob(Some(&here), &["verify"]);
    assert!(verified.success);
    let removed = blob(Some(&here), &["rm", &id]).json_lines();
    assert_eq!(removed[0]["was_there"], true);
    let listed = blob(Some(&here), &["ls"]).json_lines();
    assert_eq!(listed[0]["event"], "usage");
    assert_eq!(listed[0]["blobs"], 0);
}

#[test]
fn damage_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let file = dir.path().join("file");
    fs::write(&file, content(200_000)).unwrap();
    let added = blob(Some(&data), &["add", file.to_str().unwrap()]);
    let id = added.json_lines()[0]["id"].as_str().unwrap().to_owned();
    let blobs = data.join("blobs").join("blobs");
    let stored = fs::read_dir(&blobs).unwrap().next().unwrap().unwrap();
    let mut bytes = fs::read(stored.path()).unwrap();
    bytes[100] ^= 1;
    fs::write(stored.path(), bytes).unwrap();
    let verified = blob(Some(&data), &["verify", &id]);
    assert!(!verified.success);
    let line = &verified.json_lines()[0];
    assert!(
        line["error"].as_str().unwrap().contains("damaged"),
        "{line}"
    );
}

#[test]
fn nobody_who_has_it_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let node = Process::node(&["--data", dir.path().to_str().unwrap()]);
    let address = node.addresses(1).remove(0);
    let id = "11111111111111111111111111111112";
    let file = dir.path().join("copy");
    let got = blob(
        None,
        &["get", id, "-o", file.to_str().unwrap(), "--dial", &address],
    );
    assert!(!got.success);
    assert!(
        got.stderr.contains("does not have the blob"),
        "{}",
        got.stderr
    );
    assert!(!file.exists());
}
