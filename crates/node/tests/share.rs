//! `calnet send` and `calnet receive`, as processes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

use calimero_network::{
    Keypair,
    blob::ticket::{Secret, Ticket},
};
use serde_json::Value;
use support::{Ended, LIMIT, Process, calnet, run};

const MIB: usize = 1 << 20;

/// No two chunks are equal.
fn content(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 251 + at / MIB) as u8).collect()
}

/// `calnet send` on loopback, and the record of its ticket.
fn send(path: &str, arguments: &[&str]) -> (Process, Value) {
    let mut command = calnet();
    command.args(["send", "--json", "--local"]).args(arguments);
    command.args(["--listen", "/ip4/127.0.0.1/udp/0/quic-v1", path]);
    let process = Process::start(command);
    let ticket = process.event("ticket");
    (process, ticket)
}

fn receive_command(ticket: &Value, arguments: &[&str]) -> Command {
    let mut command = calnet();
    command.args(["receive", "--local", ticket["ticket"].as_str().unwrap()]);
    command.args(["--listen", "/ip4/127.0.0.1/udp/0/quic-v1"]);
    command.args(arguments);
    command
}

fn receive(ticket: &Value, arguments: &[&str]) -> Ended {
    let mut command = receive_command(ticket, arguments);
    command.arg("--json");
    run(command)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_file_is_received_by_its_ticket_and_replaces_none() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("some file");
    let bytes = content(3 * MIB + 5);
    fs::write(&file, &bytes).unwrap();
    let (mut sender, ticket) = send(text(&file), &[]);
    assert_eq!(ticket["kind"], "blob");
    assert_eq!(ticket["size_bytes"], bytes.len());

    // Under its own name in the current folder.
    let here = tempfile::tempdir().unwrap();
    let mut command = receive_command(&ticket, &["--json"]);
    command.current_dir(here.path());
    let received = run(command);
    assert!(received.success, "{}", received.stderr);
    let target = here.path().join("some file");
    assert!(fs::read(&target).unwrap() == bytes);
    assert_eq!(fs::read_dir(here.path()).unwrap().count(), 1);
    let lines = received.json_lines();
    let path = lines.iter().find(|line| line["event"] == "path").unwrap();
    assert_eq!(
        (&path["path"], &path["transport"]),
        (&"direct".into(), &"quic".into())
    );
    let last = lines.last().unwrap();
    assert_eq!(last["event"], "received");
    assert_eq!(last["size_bytes"], bytes.len());
    assert_eq!(last["resumed_bytes"], 0);
    let requested = sender.event("requested");
    assert_eq!(requested["given"], true);

    // A file that exists is replaced if that is asked for.
    fs::write(&target, b"other").unwrap();
    let refused = receive(&ticket, &["-o", text(&target)]);
    assert_eq!(refused.code, Some(6), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("exists already"),
        "{}",
        refused.stderr
    );
    assert_eq!(fs::read(&target).unwrap(), b"other");
    let forced = receive(&ticket, &["--force", "-o", text(&target)]);
    assert!(forced.success, "{}", forced.stderr);
    assert!(fs::read(&target).unwrap() == bytes);
    // A place that cannot be written to is found before the transfer.
    let refused = receive(&ticket, &["-o", text(&here.path().join("missing/file"))]);
    assert_eq!(refused.code, Some(5), "{}", refused.stderr);

    assert!(sender.end_by("-INT").success());
    // It does not run any more.
    let failed = receive(&ticket, &["-o", text(&here.path().join("another"))]);
    assert_eq!(failed.code, Some(3), "{}", failed.stderr);
    // Nothing has arrived, so nothing is left.
    assert_eq!(fs::read_dir(here.path()).unwrap().count(), 1);
}

#[test]
fn the_temporary_folder_of_a_killed_sender_is_removed_by_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, content(MIB)).unwrap();
    let temporary = dir.path().join("temporary");
    // Of another program, and of a sender that has not locked it yet.
    for name in ["other", "calnet-send-new"] {
        fs::create_dir_all(temporary.join(name)).unwrap();
    }
    let start = || {
        let mut command = calnet();
        command.args(["send", "--json", "--local", "--listen"]);
        command.args(["/ip4/127.0.0.1/udp/0/quic-v1", text(&file)]);
        command.env("TMPDIR", &temporary);
        let process = Process::start(command);
        process.event("ticket");
        process
    };
    let count = || fs::read_dir(&temporary).unwrap().count();
    let running = start();
    let mut killed = start();
    assert_eq!(count(), 4);
    killed.end_by("-KILL");
    assert_eq!(count(), 4);
    let mut next = start();
    assert_eq!(count(), 4);
    assert!(next.end_by("-INT").success());
    assert_eq!(count(), 3);
    drop(running);
}

#[test]
fn a_ticket_without_an_address_is_reported_on_both_sides() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"content").unwrap();
    // Loopback is not in a ticket without `--local`.
    let mut command = calnet();
    command.args(["send", "--json", "--listen", "/ip4/127.0.0.1/tcp/0"]);
    command.arg(&file).stderr(Stdio::piped());
    let mut sender = Process::start(command);
    let ticket = sender.event("ticket");
    assert_eq!(ticket["addresses"].as_array().unwrap().len(), 0);
    assert!(sender.end_by("-INT").success());
    let warned = sender.stderr();
    assert!(warned.contains("no address of this node"), "{warned}");
    assert!(warned.contains("--local"), "{warned}");
    // `--local` would not help.
    let mut command = calnet();
    command.args(["receive", ticket["ticket"].as_str().unwrap()]);
    for failed in [receive(&ticket, &[]), run(command)] {
        assert_eq!(failed.code, Some(3), "{}", failed.stderr);
        assert!(failed.stderr.contains("no address"), "{}", failed.stderr);
        assert!(!failed.stderr.contains("--local"), "{}", failed.stderr);
    }
    // With `--local` it is in the ticket, and then the receiver needs it too.
    let (_sender, ticket) = send(text(&file), &[]);
    let mut command = calnet();
    command.args(["receive", ticket["ticket"].as_str().unwrap()]);
    let failed = run(command);
    assert_eq!(failed.code, Some(3), "{}", failed.stderr);
    assert!(failed.stderr.contains("--local"), "{}", failed.stderr);
}

#[test]
fn a_folder_is_received_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("folder");
    fs::create_dir_all(folder.join("a/b")).unwrap();
    let files = [
        ("a/b/large", content(2 * MIB)),
        ("a/empty", Vec::new()),
        ("a/same", b"same".to_vec()),
        ("a/same.part", b"a part".to_vec()),
        ("run", b"#!/bin/sh\n".to_vec()),
        ("same", b"same".to_vec()),
    ];
    for (name, content) in &files {
        fs::write(folder.join(name), content).unwrap();
    }
    fs::set_permissions(folder.join("run"), Permissions::from_mode(0o755)).unwrap();
    let (_sender, ticket) = send(text(&folder), &[]);
    assert_eq!(
        (&ticket["kind"], &ticket["files"]),
        (&"collection".into(), &6.into())
    );

    let target = dir.path().join("copy");
    let received = receive(&ticket, &["-o", text(&target)]);
    assert!(received.success, "{}", received.stderr);
    for (name, content) in &files {
        assert!(fs::read(target.join(name)).unwrap() == *content, "{name}");
        let mode = fs::metadata(target.join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o100 != 0, *name == "run", "{name}");
    }
    assert!(!dir.path().join("copy.parts").exists());
    let last = received.json_lines().pop().unwrap();
    assert_eq!(
        (&last["files"], &last["kind"]),
        (&6.into(), &"collection".into())
    );
    let refused = receive(&ticket, &["-o", text(&target)]);
    assert_eq!(refused.code, Some(6), "{}", refused.stderr);
    let refused = receive(&ticket, &["-o", "-"]);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
}

#[test]
fn content_goes_from_pipe_to_pipe() {
    let bytes = content(2 * MIB + 7);
    let mut command = calnet();
    command.args(["send", "--json", "--local", "-"]);
    command.args(["--listen", "/ip4/127.0.0.1/tcp/0"]);
    command.stdin(Stdio::piped());
    let mut sender = Process::start(command);
    sender.write(&bytes);
    sender.close_input();
    let ticket = sender.event("ticket");
    let mut command = receive_command(&ticket, &["-o", "-", "--listen", "/ip4/127.0.0.1/tcp/0"]);
    let received = command.stderr(Stdio::piped()).output().unwrap();
    let errors = String::from_utf8_lossy(&received.stderr);
    assert!(received.status.success(), "{errors}");
    assert!(received.stdout == bytes, "{} bytes", received.stdout.len());
}

/// Interrupts a receiver when some chunks have arrived, and receives again.
fn interrupt_and_resume(ticket: &Value, target: &Path, size_bytes: usize) -> Value {
    let slow = [
        "--json",
        "-o",
        text(target),
        "--max-download-bytes-per-s",
        "2097152",
    ];
    let mut first = Process::start(receive_command(ticket, &slow));
    let enough = |line: &Value| {
        line["event"] == "receiving" && line["verified_bytes"].as_u64().unwrap() >= 2 * MIB as u64
    };
    let (_, entry) = first.find(0, LIMIT, enough).expect("nothing arrives");
    let progress = entry.line;
    assert_eq!(progress["size_bytes"], size_bytes);
    assert_eq!(progress["path"], "direct");
    assert!(progress["verified_bytes"].as_u64().unwrap() < size_bytes as u64);
    assert_eq!(first.end_by("-INT").code(), Some(128 + 2));
    assert!(!target.exists());

    let second = receive(ticket, &["-o", text(target)]);
    assert!(second.success, "{}", second.stderr);
    let last = second.json_lines().pop().unwrap();
    let resumed = last["resumed_bytes"].as_u64().unwrap();
    let received = last["received_bytes"].as_u64().unwrap();
    assert!(
        resumed >= progress["verified_bytes"].as_u64().unwrap(),
        "{last}"
    );
    // The missing bytes, hash lists and frames, and no more.
    let missing = size_bytes as u64 - resumed;
    assert!(
        (missing..missing + missing / 20 + 65_536).contains(&received),
        "{last}"
    );
    last
}

#[test]
fn a_file_is_resumed_and_only_missing_bytes_travel() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    let bytes = content(8 * MIB + 9);
    fs::write(&file, &bytes).unwrap();
    let (_sender, ticket) = send(text(&file), &[]);
    let target = dir.path().join("copy");
    interrupt_and_resume(&ticket, &target, bytes.len());
    assert!(fs::read(&target).unwrap() == bytes);
    assert!(!dir.path().join("copy.parts").exists());
}

#[test]
fn a_folder_is_resumed_and_only_missing_bytes_travel() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("folder");
    fs::create_dir(&folder).unwrap();
    let bytes = content(8 * MIB);
    fs::write(folder.join("one"), &bytes[..3 * MIB]).unwrap();
    fs::write(folder.join("two"), &bytes[3 * MIB..]).unwrap();
    let (_sender, ticket) = send(text(&folder), &[]);
    let target = dir.path().join("copy");
    interrupt_and_resume(&ticket, &target, bytes.len());
    let one = fs::read(target.join("one")).unwrap();
    let two = fs::read(target.join("two")).unwrap();
    assert!(one == bytes[..3 * MIB] && two == bytes[3 * MIB..]);
}

#[test]
fn only_those_who_have_the_ticket_receive() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, content(100_000)).unwrap();
    let target = dir.path().join("copy");
    for is_public in [false, true] {
        let arguments: &[&str] = if is_public { &["--public"] } else { &[] };
        let (sender, record) = send(text(&file), arguments);
        let ticket: Ticket = record["ticket"].as_str().unwrap().parse().unwrap();
        assert_eq!(ticket.secret().is_none(), is_public);
        // By the id and the address alone.
        let peer = record["peer"].as_str().unwrap();
        let address = format!("{}/p2p/{peer}", record["addresses"][0].as_str().unwrap());
        let mut get = calnet();
        get.args(["blob", "get", record["id"].as_str().unwrap(), "--local"]);
        get.args(["--dial", &address, "-o", text(&target)]);
        let got = run(get);
        assert_eq!(got.success, is_public, "{}", got.stderr);
        if !is_public {
            assert!(
                got.stderr.contains("does not have the blob"),
                "{}",
                got.stderr
            );
            assert_eq!(sender.event("requested")["given"], false);
            // By another secret.
            let other = Keypair::generate_ed25519().try_into_ed25519().unwrap();
            let forged = ticket.with_secret(Secret::new(other)).to_string();
            let forged = serde_json::json!({ "ticket": forged });
            let mut command = receive_command(&forged, &["--json", "-o", text(&target)]);
            command.stderr(Stdio::piped());
            let mut receiver = Process::start(command);
            assert_eq!(sender.event("requested")["given"], false);
            receiver.end_by("-INT");
            assert!(!target.exists());
        }
    }
}

#[test]
fn a_ticket_of_a_data_folder_stays_valid() {
    let dir = tempfile::tempdir().unwrap();
    let (file, data) = (dir.path().join("file"), dir.path().join("data"));
    fs::write(&file, content(100_000)).unwrap();
    let arguments = ["--data", text(&data)];
    let (mut sender, first) = send(text(&file), &arguments);
    sender.end_by("-TERM");
    let (_sender, second) = send(text(&file), &arguments);
    let parsed = |record: &Value| -> Ticket { record["ticket"].as_str().unwrap().parse().unwrap() };
    let (first, second) = (parsed(&first), parsed(&second));
    assert_eq!(first.secret(), second.secret());
    assert_eq!(
        (first.peer(), first.blob_id()),
        (second.peer(), second.blob_id())
    );
}

#[test]
fn a_text_that_is_no_ticket_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"content").unwrap();
    let (_sender, record) = send(text(&file), &[]);
    let ticket = record["ticket"].as_str().unwrap();
    let last = if ticket.ends_with('a') { 'e' } else { 'a' };
    let changed = format!("{}{last}", &ticket[..ticket.len() - 1]);
    for (given, reason) in [("hello", "begins with"), (&changed, "checksum")] {
        let refused = receive(&serde_json::json!({ "ticket": given }), &[]);
        assert_eq!(refused.code, Some(2));
        assert!(refused.stderr.contains(reason), "{}", refused.stderr);
    }
    // Addresses of this machine are dialled if that is asked for.
    let mut command = calnet();
    command.args(["receive", ticket, "-o", text(&dir.path().join("copy"))]);
    let refused = run(command);
    assert_eq!(refused.code, Some(3));
    assert!(refused.stderr.contains("--local"), "{}", refused.stderr);
}
