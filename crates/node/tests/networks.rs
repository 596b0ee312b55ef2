//! Networks by their names, as processes: nodes of one name become members of one overlay at a boot
//! node, and nodes of another name do not.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a surprise ends the test"
)]

mod support;

use std::{fs, path::Path, time::Instant};

use serde_json::Value;
use support::{LIMIT, Process, calnet, run};

/// Creates a data folder, and returns the record of it.
fn init(folder: &Path, more: &[&str]) -> Value {
    let mut command = calnet();
    command.args(["init", "--json", "--local", "--data"]);
    command.arg(folder).args(more);
    command.args(["--listen", "/ip4/127.0.0.1/tcp/0"]);
    let ended = run(command);
    assert!(ended.success, "{}", ended.stderr);
    ended.json_lines().remove(0)
}

fn start(command: &str, folder: &Path) -> Process {
    let mut calnet = calnet();
    calnet.args([command, "--json", "--data"]).arg(folder);
    Process::start(calnet)
}

fn status(folder: &Path) -> Value {
    let mut command = calnet();
    command.args(["status", "--json", "--data"]).arg(folder);
    run(command).json_lines().remove(0)
}

fn registered(line: &Value) -> bool {
    let phase = line["phase"].as_str().unwrap_or_default();
    line["event"] == "phase" && ["discover", "connect", "joined"].contains(&phase)
}

/// Waits until `process` has connected with `peer`.
fn await_peer(process: &Process, peer: &Value) {
    let met = process.find(0, LIMIT, |line| {
        line["event"] == "connected" && line["peer"] == *peer
    });
    assert!(met.is_some(), "{:#?}", process.entries());
}

/// The networks share a boot node and so its Kademlia table, through which all nodes connect. Only
/// nodes of one name are members of one overlay.
#[test]
fn nodes_of_two_names_have_different_members() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    init(&path("boot"), &["--network", "lobby"]);
    let boot = start("boot", &path("boot"));
    let address = boot.addresses(1).remove(0);
    let named = |name: &str, network: &str| {
        let made = init(&path(name), &["--boot", &address, "--network", network]);
        assert_eq!(made["network"], network);
        let node = start("run", &path(name));
        assert!(node.find(0, LIMIT, registered).is_some(), "{name}");
        let peer = node.event("started")["peer"].clone();
        (node, peer)
    };
    let (_other, other_peer) = named("other", "garden");
    let (first, first_peer) = named("first", "kitchen");
    let (second, _) = named("second", "kitchen");
    await_peer(&second, &first_peer);
    await_peer(&first, &other_peer);
    await_peer(&second, &other_peer);

    let deadline = Instant::now() + LIMIT;
    let overlay = |name: &str| status(&path(name))["discovery"]["overlays"][0].clone();
    while overlay("second")["members_known"] == 0 {
        assert!(Instant::now() < deadline, "{}", overlay("second"));
    }
    let kitchen = overlay("second");
    assert_eq!(kitchen["namespace"], "/calimero/net/kitchen");
    assert_eq!(kitchen["members_known"], 1, "{kitchen}");
    let garden = overlay("other");
    assert_eq!(garden["namespace"], "/calimero/net/garden");
    assert_eq!(garden["members_known"], 0, "{garden}");
}

#[test]
fn a_new_folder_is_a_network_of_its_own_unless_a_name_is_given() {
    let dir = tempfile::tempdir().unwrap();
    let config = |name: &str, more: &[&str]| {
        let folder = dir.path().join(name);
        let made = init(&folder, more);
        let network = made["network"].as_str().unwrap().to_owned();
        let text = fs::read_to_string(folder.join("node.toml")).unwrap();
        let config: toml::Table = text.parse().unwrap();
        let namespace = config["discovery"]["global_namespace"].as_str().unwrap();
        (network, namespace.to_owned())
    };
    let (one, one_namespace) = config("one", &[]);
    let (two, two_namespace) = config("two", &[]);
    assert_ne!(one, two);
    assert_eq!(one_namespace, format!("/calimero/net/{one}"));
    assert_ne!(one_namespace, two_namespace);
    let published = config("published", &["--network", "calimero-devnet"]);
    assert_eq!(published.1, "/calimero/devnet/global");

    let mut refused = calnet();
    refused.args(["init", "--network", "Not/This", "--data"]);
    refused.arg(dir.path().join("refused"));
    let refused = run(refused);
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("lower-case"), "{}", refused.stderr);
}
