//! Data folders and files with odd paths: not UTF-8, or longer than the address of a socket.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a surprise ends the test"
)]

mod support;

use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt as _, path::Path, process::Command};

use serde_json::Value;
use support::{LIMIT, Process, calnet, run};

/// The only record of a command with `--json`.
fn record(command: &[&str], option: &str, path: &Path) -> Value {
    let mut calnet = calnet();
    calnet.arg("--json").args(command).arg(option).arg(path);
    let ended = run(calnet);
    assert!(ended.success, "{command:?}: {}", ended.stderr);
    ended.json_lines().remove(0)
}

#[test]
fn paths_that_are_not_utf_8_are_in_records() {
    let folder = tempfile::tempdir().unwrap();
    let odd = folder.path().join(OsStr::from_bytes(b"a\xff"));
    fs::create_dir(&odd).unwrap();
    let file = odd.join("node.toml");
    fs::write(&file, "listen = []\n").unwrap();
    let shown = file.to_str().is_none().then(|| file.display().to_string());
    let shown = Value::from(shown.unwrap());
    let checked = record(&["config", "check"], "--config", &file);
    assert_eq!(checked["file"], shown, "{checked}");
    let effective = record(&["config", "show"], "--config", &file);
    assert_eq!(effective["file"], shown, "{effective}");
    let manual = record(&["man"], "-o", &odd.join("man"));
    assert_eq!(manual["event"], "manual_written");
    let archive = record(&["diag"], "-o", &odd.join("archive"));
    assert_eq!(archive["event"], "diag_written");
    let mut command: Command = calnet();
    command.args(["run", "--json", "--data"]).arg(&odd);
    let node = Process::start(command);
    node.event("started");
    // The node writes the path, and its client reads it.
    let deadline = std::time::Instant::now() + LIMIT;
    while !odd.join("control").join("socket").exists() {
        assert!(std::time::Instant::now() < deadline);
        std::thread::park_timeout(std::time::Duration::from_millis(5));
    }
    let effective = record(&["config", "show"], "--data", &odd);
    assert_eq!(effective["file"], shown, "{effective}");
}

#[test]
fn a_long_data_folder_has_a_control_socket() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("a".repeat(120));
    let file = folder.path().join("file");
    fs::write(&file, "content").unwrap();
    let mut add = calnet();
    add.args(["blob", "add", "--data"]).arg(&data).arg(&file);
    let added = run(add);
    assert!(added.success, "{}", added.stderr);
    let mut command = calnet();
    command.args([
        "run",
        "--json",
        "--listen",
        "/ip4/127.0.0.1/tcp/0",
        "--data",
    ]);
    command.arg(&data);
    let node = Process::start(command);
    let peer = node.event("started")["peer"].clone();
    node.event("listening");
    let status = record(&["status"], "--data", &data);
    assert_eq!(status["peer"], peer);
}
