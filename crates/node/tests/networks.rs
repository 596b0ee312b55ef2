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

/// A name server in a namespace. It ends with the value.
#[cfg(target_os = "linux")]
struct NameServer(std::process::Child);

#[cfg(target_os = "linux")]
impl NameServer {
    /// Serves a list of boot nodes, through a second list.
    fn start(namespace: &support::netns::Namespace, config: &Path, addresses: &[String]) -> Self {
        let mut text = "no-daemon\nno-hosts\nno-resolv\nlisten-address=127.0.0.1\n\
            bind-interfaces\nuser=root\npid-file=\n\
            txt-record=_dnsaddr.boot.test,\"dnsaddr=/dnsaddr/region.boot.test\"\n\
            txt-record=_dnsaddr.boot.test,\"not an address\"\n\
            txt-record=_dnsaddr.region.boot.test,\"dnsaddr=/dnsaddr/boot.test\"\n"
            .to_owned();
        for address in addresses {
            text += &format!("txt-record=_dnsaddr.region.boot.test,\"dnsaddr={address}\"\n");
        }
        fs::write(config, text).unwrap();
        let mut command = namespace.command("dnsmasq");
        let option = format!("--conf-file={}", config.display());
        command.arg(option).stderr(std::process::Stdio::null());
        Self(command.spawn().unwrap())
    }
}

#[cfg(target_os = "linux")]
impl Drop for NameServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A boot node moves: its list in DNS changes, and nodes follow without a restart.
#[test]
#[cfg(target_os = "linux")]
fn boot_nodes_of_a_list_in_dns_are_followed() {
    let namespace = match support::netns::Namespace::new("dns") {
        Ok(namespace) => namespace,
        Err(reason) => return eprintln!("skipped: no namespaces here: {reason}"),
    };
    let dnsmasq = namespace.command("dnsmasq").arg("--version").output();
    if !dnsmasq.is_ok_and(|run| run.status.success()) {
        return eprintln!("skipped: no dnsmasq here");
    }
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let boot = |name: &str| {
        let mut command = namespace.command(calnet().get_program());
        command.args(["boot", "--json", "--local", "--data"]);
        command.arg(path(name));
        command.args(["--listen", "/ip4/127.0.0.1/tcp/0"]);
        let boot = Process::start(command);
        let address = boot.addresses(1).remove(0);
        (boot, address)
    };
    let peer_of = |address: &str| address.rsplit_once('/').unwrap().1.to_owned();
    let (mut old, old_address) = boot("old");
    let config = path("dnsmasq.conf");
    let list = [old_address.clone()];
    let first = NameServer::start(&namespace, &config, &list);

    // The resolver configuration of the node alone, in the mount namespace that `ip` makes for it.
    let resolver = path("resolv.conf");
    fs::write(&resolver, "nameserver 127.0.0.1\n").unwrap();
    let mut command = namespace.command("sh");
    let script = "mount --bind \"$1\" /etc/resolv.conf && shift && exec \"$@\"";
    command.args(["-c", script, "sh"]).arg(&resolver);
    command.arg(calnet().get_program());
    command.args(["run", "--json", "--local", "--boot", "/dnsaddr/boot.test"]);
    command.args(["--listen", "/ip4/127.0.0.1/tcp/0", "--data"]);
    command.arg(path("node"));
    let node = Process::start(command);
    let connected = |address: &str| {
        let peer = peer_of(address);
        let found = node.find(0, LIMIT, |line| {
            line["event"] == "connected" && line["peer"] == peer.as_str()
        });
        assert!(found.is_some(), "{address}: {:#?}", node.entries());
    };
    connected(&old_address);
    let boot_nodes = || {
        let status = status(&path("node"));
        let nodes = status["discovery"]["boot_nodes"]
            .as_array()
            .unwrap()
            .clone();
        let peers = nodes
            .iter()
            .map(|node| node["peer"].as_str().unwrap().to_owned());
        peers.collect::<Vec<_>>()
    };
    assert_eq!(boot_nodes(), [peer_of(&old_address)]);

    drop(first);
    let (_new, new_address) = boot("new");
    let _second = NameServer::start(&namespace, &config, std::slice::from_ref(&new_address));
    old.end_by("-KILL");
    connected(&new_address);
    assert_eq!(boot_nodes(), [peer_of(&new_address)]);
}
