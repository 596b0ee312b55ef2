//! Listening on the network that a host has: without IPv6, without any address yet, without
//! netlink. Each case runs in a network namespace and needs root, `ip` and Linux; elsewhere it is
//! passed over with a message.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "an unexpected result ends a test"
)]

mod support;

use std::process::Command;

use support::{LIMIT, Process, calnet, netns::Namespace};

/// Runs the program that follows with netlink sockets refused, as hardened service managers do: a
/// seccomp filter answers `socket(AF_NETLINK, ..)` with `EAFNOSUPPORT`.
const WITHOUT_NETLINK: &str = r#"
import ctypes, os, platform, struct, sys
SOCKET = {"x86_64": 41, "aarch64": 198}[platform.machine()]
LOAD, JUMP_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | 97
filter = [
    (LOAD, 0, 0, 0), (JUMP_EQUAL, 0, 3, SOCKET),
    (LOAD, 0, 0, 16), (JUMP_EQUAL, 0, 1, 16),
    (RETURN, 0, 0, REFUSE), (RETURN, 0, 0, ALLOW),
]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in filter))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(filter), ctypes.addressof(code)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, program, 0, 0) == 0, ctypes.get_errno()
os.execv(sys.argv[1], sys.argv[1:])
"#;

/// A namespace, or `None` where there can be none.
fn host(role: &str) -> Option<Namespace> {
    match Namespace::new(role) {
        Ok(host) => Some(host),
        Err(reason) => {
            eprintln!("skipped: no network namespaces here: {reason}");
            None
        }
    }
}

fn run(host: &Namespace) -> Command {
    let mut command = host.command(calnet().get_program());
    command.args(["run", "--json"]);
    command
}

fn listens_on(node: &Process, address: &str) {
    let found = node.find(0, LIMIT, |line| {
        line["event"] == "listening" && line["address"] == address
    });
    assert!(found.is_some(), "{address}: {:#?}", node.entries());
}

#[test]
fn a_host_with_ipv6_off_listens_on_ipv4_and_on_ipv6_once_it_is_on() {
    let Some(host) = host("v4") else { return };
    let off = |value| {
        let settings = ["all", "default", "lo"].map(|of| format!("ipv6/conf/{of}/disable_ipv6"));
        host.set(&settings.each_ref().map(|name| (name.as_str(), value)))
    };
    off("1").unwrap();
    let node = Process::start(run(&host));
    listens_on(&node, "/ip4/127.0.0.1/tcp/2428");
    listens_on(&node, "/ip4/127.0.0.1/udp/2428/quic-v1");
    node.event("started");
    off("0").unwrap();
    host.ip("addr replace ::1/128 dev lo\n").unwrap();
    listens_on(&node, "/ip6/::1/tcp/2428");
    listens_on(&node, "/ip6/::1/udp/2428/quic-v1");
}

#[test]
fn a_host_without_an_address_starts_and_listens_when_one_appears() {
    let Some(host) = host("none") else { return };
    host.ip("link set lo down\n").unwrap();
    let node = Process::start(run(&host));
    node.event("started");
    host.ip("link set lo up\n").unwrap();
    listens_on(&node, "/ip4/127.0.0.1/tcp/2428");
    listens_on(&node, "/ip6/::1/udp/2428/quic-v1");
}

#[test]
fn a_host_that_refuses_netlink_listens_on_the_addresses_that_are_found_without() {
    let Some(host) = host("nonl") else { return };
    host.ip(
        "link add veth0 type veth peer name veth1\naddr add 10.84.0.1/24 dev veth0\n\
         link set veth0 up\nlink set veth1 up\nroute add default dev veth0\n",
    )
    .unwrap();
    let mut command = host.command("python3");
    command.args(["-c", WITHOUT_NETLINK]);
    command.arg(calnet().get_program()).args(["run", "--json"]);
    let node = Process::start(command);
    node.event("started");
    for ip in ["127.0.0.1", "10.84.0.1"] {
        listens_on(&node, &format!("/ip4/{ip}/tcp/2428"));
        listens_on(&node, &format!("/ip4/{ip}/udp/2428/quic-v1"));
    }
    let unavailable = |line: &serde_json::Value| line["event"] == "listen_unavailable";
    let (_, entry) = node.find(0, LIMIT, unavailable).unwrap();
    let error = entry.line["error"].as_str().unwrap();
    assert!(error.contains("os error 97"), "{error}");
}

#[test]
fn a_port_in_use_ends_the_start_with_the_address_and_the_cause() {
    let Some(host) = host("used") else { return };
    let holder = host.enter(|| std::net::UdpSocket::bind("0.0.0.0:2428").unwrap());
    let output = run(&host).output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    for part in ["/ip4/0.0.0.0/udp/2428/quic-v1", "in use", "os error 98"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    drop(holder);
}
