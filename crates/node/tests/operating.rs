//! The commands of an operator, as processes: a folder is created, a node runs on it, its status is
//! read, and messages are exchanged.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a surprise ends the test"
)]

mod support;

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::Command,
    time::Instant,
};

use serde_json::Value;
use support::{Ended, LIMIT, Process, calnet, run};

fn command(args: &[&str]) -> Ended {
    let mut command = calnet();
    command.args(args);
    run(command)
}

fn init(data: &str) -> Ended {
    let mut args = vec!["init", "--json", "--local", "--data", data];
    args.extend(["--listen", "/ip4/127.0.0.1/tcp/0"]);
    command(&args)
}

/// A node on a folder that was made before.
fn running(data: &str, more: &[&str]) -> Process {
    let mut command = calnet();
    command.args(["run", "--json", "--data", data]).args(more);
    Process::start(command)
}

#[test]
fn a_folder_is_made_once_and_for_its_owner() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("node");
    let data = data.to_str().unwrap();
    let made = init(data);
    assert!(made.success, "{}", made.stderr);
    let made = &made.json_lines()[0];
    let file = |name: &str| Path::new(data).join(name);
    let mode = |name: &str| fs::metadata(file(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("identity"), 0o600);
    assert_eq!(mode("node.toml"), 0o600);
    let before = fs::read(file("identity")).unwrap();
    let again = init(data);
    assert!(!again.success);
    assert!(again.stderr.contains("not overwritten"), "{}", again.stderr);
    assert_eq!(fs::read(file("identity")).unwrap(), before);
    // Neither file is created where the other one is missing.
    for gone in ["identity", "node.toml"] {
        let aside = dir.path().join("aside");
        fs::rename(file(gone), &aside).unwrap();
        assert!(!init(data).success);
        assert!(!file(gone).exists());
        fs::rename(&aside, file(gone)).unwrap();
    }
    // The node has the identity and the listen address that `init` wrote.
    let node = running(data, &[]);
    assert_eq!(node.event("started")["peer"], made["peer"]);
    let address = node.event("listening")["address"].clone();
    assert!(address.as_str().unwrap().starts_with("/ip4/127.0.0.1/tcp/"));
}

/// Runs a command with files of at most `blocks` blocks of 512 bytes: a write beyond fails, as on a full
/// disk.
fn with_file_limit(blocks: u32, args: &[&str]) -> Ended {
    let mut command = Command::new("sh");
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
    command.args(["-c", &script]).arg(calnet().get_program());
    command.args(args);
    run(command)
}

#[test]
fn init_that_fails_leaves_no_file_and_can_be_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("node");
    let name = data.to_str().unwrap();
    let names = || fs::read_dir(&data).unwrap().count();
    let full = with_file_limit(0, &["init", "--local", "--data", name]);
    assert!(!full.success);
    assert!(full.stderr.contains("cannot write"), "{}", full.stderr);
    assert_eq!(names(), 0);
    // The configuration is written and the identity is not, because its name is that of a link.
    symlink("missing", data.join("identity")).unwrap();
    let linked = init(name);
    assert!(!linked.success);
    assert_eq!(names(), 1);
    fs::remove_file(data.join("identity")).unwrap();
    let made = init(name);
    assert!(made.success, "{}", made.stderr);
    assert_eq!(names(), 2);
}

#[test]
fn commands_that_read_a_folder_do_not_create_it() {
    const ID: &str = "11111111111111111111111111111112";
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (missing, file, archive) = (at("missing"), at("file"), at("archive.tar.gz"));
    fs::write(&file, b"content").unwrap();
    for read in [
        &["blob", "ls"][..],
        &["blob", "verify"],
        &["blob", "rm", ID],
        &["blob", "get", ID, "--dial", "/ip4/127.0.0.1/tcp/1"],
        &["config", "show"],
        &["config", "check"],
        &["diag", "-o", &archive],
    ] {
        let failed = command(&[read, &["--data", &missing]].concat());
        assert_eq!(failed.code, Some(5), "{read:?}: {}", failed.stderr);
        assert!(
            failed.stderr.contains("does not exist"),
            "{}",
            failed.stderr
        );
        let failed = command(&[read, &["--data", &file]].concat());
        assert_eq!(failed.code, Some(6), "{read:?}: {}", failed.stderr);
        assert!(failed.stderr.contains("not a folder"), "{}", failed.stderr);
    }
    for write in [&["run"][..], &["boot"], &["init"], &["blob", "add", &file]] {
        let failed = command(&[write, &["--data", &file]].concat());
        assert_eq!(failed.code, Some(6), "{write:?}: {}", failed.stderr);
        assert!(failed.stderr.contains("not a folder"), "{}", failed.stderr);
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    let added = command(&["blob", "add", &file, "--data", &missing]);
    assert!(added.success, "{}", added.stderr);
}

#[test]
fn a_boot_node_without_its_peer_id_is_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("node");
    let data = data.to_str().unwrap();
    let made = command(&["init", "--data", data, "--boot", "/ip4/192.0.2.1/tcp/2428"]);
    assert!(!made.success);
    assert!(made.stderr.contains("discovery.boot"), "{}", made.stderr);
    assert_eq!(fs::read_dir(data).unwrap().count(), 0);
}

#[test]
fn a_node_reports_its_status_by_its_control_socket_and_by_http() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("node");
    let data = data.to_str().unwrap();
    assert!(init(data).success);
    let node = running(data, &["--metrics", "127.0.0.1:0"]);
    let address = node.addresses(1).remove(0);
    let other = Process::node(&["--dial", &address]);
    other.event("identified");
    node.event("identified");
    let page = node.find(0, support::LIMIT, |line| line["event"] == "metrics");
    let url = page.unwrap().1.line["url"].as_str().unwrap().to_owned();
    let http = url.strip_prefix("http://").unwrap();
    let http = http.strip_suffix("/metrics").unwrap();
    let (_, peer) = address.rsplit_once('/').unwrap();
    let other_peer = other.find(0, support::LIMIT, |line| line["event"] == "started");
    let other_peer = other_peer.unwrap().1.line["peer"].clone();
    for at in [["--data", data], ["--http", http], ["--http", &url]] {
        let status = command(&[&["status", "--json"], &at[..]].concat());
        assert!(status.success, "{}", status.stderr);
        let status = &status.json_lines()[0];
        assert_eq!(status["peer"], peer);
        assert_eq!(status["peers"], 1);
        let peers = command(&[&["peers", "--json"], &at[..]].concat());
        assert!(peers.success, "{}", peers.stderr);
        let peers = peers.json_lines();
        assert_eq!(peers.len(), 1);
        assert_eq!(peers[0]["peer"], other_peer);
        assert_eq!(peers[0]["inbound"], true);
        // For people, the same.
        let status = command(&[&["status"], &at[..]].concat());
        assert!(status.stdout.contains(peer), "{}", status.stdout);
        assert!(status.stdout.contains("1 peers"), "{}", status.stdout);
        let peers = command(&[&["peers"], &at[..]].concat());
        let name = other_peer.as_str().unwrap();
        let end = &name[name.len() - 8..];
        assert!(peers.stdout.contains(end), "{}", peers.stdout);
    }
    let nobody = dir.path().join("nobody");
    let nobody = command(&["status", "--data", nobody.to_str().unwrap()]);
    assert!(!nobody.success);
    assert!(nobody.stderr.contains("no node runs"), "{}", nobody.stderr);
    let nowhere = command(&["status"]);
    assert!(nowhere.stderr.contains("--data"), "{}", nowhere.stderr);
}

/// The commands for one machine in the README of the crate, with free ports.
#[test]
fn the_network_on_one_machine_of_the_readme_connects() {
    let dir = tempfile::tempdir().unwrap();
    let readme = include_str!("../README.md");
    let commands: Vec<_> = readme
        .lines()
        .filter(|line| line.starts_with("calnet ") && line.contains("--local"))
        .collect();
    let [boot, node, publish] = commands[..] else {
        panic!("{commands:?}");
    };
    let start = |line: &str, port: u16, address: &str| {
        let line = line.replace("/ip4/127.0.0.1/tcp/2428/p2p/PEER", address);
        let line = line.replace("2428", &port.to_string());
        let line = line.replace("/tcp/2429", "/tcp/0");
        let mut command = calnet();
        command.args(line.split_whitespace().skip(1)).arg("--json");
        command.current_dir(dir.path());
        Process::start(command)
    };
    let deadline = Instant::now() + LIMIT;
    let (_boot, address) = loop {
        // Another process may get the port before the boot node, which ends then.
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let boot = start(boot, port, "");
        let found = boot.find(0, LIMIT, |line| line["event"] == "boot_address");
        if let Some((_, entry)) = found {
            break (boot, entry.line["address"].as_str().unwrap().to_owned());
        }
        assert!(Instant::now() < deadline, "{:#?}", boot.entries());
    };
    let node = start(node, 0, &address);
    node.event("connected");
    let mut publisher = start(publish, 0, &address);
    assert_eq!(message(&node), "hello");
    assert!(publisher.wait().success());
}

#[test]
fn a_blocked_peer_is_refused_by_each_command() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("node");
    let data = data.to_str().unwrap();
    assert!(init(data).success);
    let node = running(data, &[]);
    node.event("listening");
    let other = Process::node(&[]);
    let address = other.addresses(1).remove(0);
    let (_, peer) = address.rsplit_once('/').unwrap();
    // A peer that is connected is named by its id alone, one without known addresses is not reached.
    let unknown = command(&["connect", peer, "--data", data]);
    assert_eq!(unknown.code, Some(3), "{}", unknown.stderr);
    assert!(unknown.stderr.contains("no address"), "{}", unknown.stderr);
    assert!(command(&["connect", &address, "--data", data]).success);
    assert!(command(&["connect", peer, "--data", data]).success);
    assert!(command(&["block", peer, "--data", data]).success);
    node.event("disconnected");
    let connected = command(&["connect", &address, "--data", data]);
    assert_eq!(connected.code, Some(6), "{}", connected.stderr);
    let pinged = command(&["ping", peer, "--data", data]);
    assert_eq!(pinged.code, Some(6), "{}", pinged.stderr);
    // The same reason, once.
    assert_eq!(pinged.stderr, connected.stderr);
    assert!(!pinged.stdout.contains("block list"), "{}", pinged.stdout);
}

/// The text of the next message.
fn message(process: &Process) -> Value {
    process.event("message")["text"].clone()
}

#[test]
fn topics_are_read_and_written_through_a_node_and_without_one() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("node");
    let data = data.to_str().unwrap();
    assert!(init(data).success);
    let mut node = running(data, &[]);
    let address = node.addresses(1).remove(0);
    let subscribe = |at: &[&str]| {
        let mut command = calnet();
        command.args(["subscribe", "--json", "weather"]).args(at);
        let reader = Process::start(command);
        reader.event("following");
        reader
    };
    // One reads through the node, another one from elsewhere.
    let mut near = subscribe(&["--data", data]);
    let mut far = subscribe(&["--dial", &address]);
    node.event("subscribed");
    let sent = command(&[
        "publish", "--json", "weather", "rain", "wind", "--data", data,
    ]);
    assert!(sent.success, "{}", sent.stderr);
    let said: Vec<_> = sent
        .json_lines()
        .iter()
        .map(|line| line["event"].clone())
        .collect();
    assert_eq!(said, ["published", "published"]);
    for text in ["rain", "wind"] {
        assert_eq!(message(&far), text);
    }
    // A node that runs for one command publishes lines of standard input.
    let mut from_input = calnet();
    from_input.args(["publish", "--json", "weather", "--dial", &address]);
    from_input.stdin(std::process::Stdio::piped());
    let mut writer = Process::start(from_input);
    writer.write(b"snow\nhail\n");
    writer.close_input();
    assert!(writer.wait().success());
    for text in ["snow", "hail"] {
        assert_eq!(message(&near), text);
        assert_eq!(message(&far), text);
    }
    assert!(near.end_by("-TERM").success());
    assert!(far.end_by("-TERM").success());
    // The node works on after its clients have left.
    assert!(command(&["status", "--data", data]).success);
    assert!(node.end_by("-TERM").success());
    let nobody = command(&["publish", "weather", "rain"]);
    assert!(!nobody.success);
    assert!(nobody.stderr.contains("--boot"), "{}", nobody.stderr);
}
