//! Hosts whose network is odd.

use std::{fs, net::TcpStream, time::Instant};

use crate::{
    Case,
    host::{Host, peer_of, without_family},
    support::{LIMIT, Process},
    until,
};

pub(crate) const CASES: &[Case] = &[
    ("IPv6 off by sysctl, then on", ipv6_off),
    ("IPv6 sockets refused", ipv6_refused),
    ("IPv4 sockets refused", ipv4_refused),
    ("no IPv4 address", no_ipv4),
    ("no address at the start", no_address),
    ("netlink sockets refused", netlink_refused),
    ("link-local addresses alone", link_local),
    ("200 addresses", many_addresses),
    ("`ulimit -n 64`", few_files),
];

const V4: &str = "/ip4/127.0.0.1/tcp";
const V6: &str = "/ip6/::1/tcp";

/// The node listens on IPv6 as well once it is on.
fn ipv6_off() -> String {
    let host = Host::new("v6off");
    let disable = |value| {
        let settings = ["all", "default", "lo"].map(|of| format!("ipv6/conf/{of}/disable_ipv6"));
        let settings = settings.each_ref().map(|name| (name.as_str(), value));
        host.namespace.set(&settings).unwrap();
    };
    disable("1");
    let node = host.start(&[], &[]);
    listens_on(&node, "127.0.0.1");
    disable("0");
    host.namespace.ip("addr replace ::1/128 dev lo\n").unwrap();
    let begin = Instant::now();
    listens_on(&node, "::1");
    let later_ms = begin.elapsed().as_millis();
    let seen = host.works(node, V4, &host);
    format!("{seen}; listens on IPv6 {later_ms} ms after it is on")
}

/// A node listens on an address with both transports.
fn listens_on(node: &Process, ip: &str) {
    let version = if ip.contains(':') { "ip6" } else { "ip4" };
    for address in [
        format!("/{version}/{ip}/tcp/2428"),
        format!("/{version}/{ip}/udp/2428/quic-v1"),
    ] {
        let found = node.find(0, LIMIT, |line| {
            line["event"] == "listening" && line["address"] == address.as_str()
        });
        assert!(found.is_some(), "{address}: {:#?}", node.entries());
    }
}

/// The node starts, and listens when an address appears.
fn no_address() -> String {
    let host = Host::new("none");
    host.namespace.ip("link set lo down\n").unwrap();
    let node = host.start(&[], &[]);
    assert!(
        node.find(0, LIMIT, |line| line["event"] == "started")
            .is_some()
    );
    host.namespace.ip("link set lo up\n").unwrap();
    let begin = Instant::now();
    for ip in ["127.0.0.1", "::1"] {
        listens_on(&node, ip);
    }
    let later_ms = begin.elapsed().as_millis();
    let seen = host.works(node, V4, &host);
    format!("listens {later_ms} ms after an address appears; {seen}")
}

fn ipv6_refused() -> String {
    let host = Host::new("v6no");
    host.works(host.start(&without_family("10"), &[]), V4, &host)
}

fn ipv4_refused() -> String {
    let host = Host::new("v4no");
    host.works(host.start(&without_family("2"), &[]), V6, &host)
}

fn no_ipv4() -> String {
    let host = Host::new("v4none");
    host.namespace.ip("addr del 127.0.0.1/8 dev lo\n").unwrap();
    host.works(host.start(&[], &[]), V6, &host)
}

/// The addresses are found without netlink, and the failure is reported.
fn netlink_refused() -> String {
    let host = Host::new("nonl");
    host.namespace
        .ip(
            "link add veth0 type veth peer name veth1\naddr add 10.84.0.1/24 dev veth0\n\
             link set veth0 up\nlink set veth1 up\nroute add default dev veth0\n",
        )
        .unwrap();
    let node = host.start(&without_family("16"), &[]);
    for ip in ["127.0.0.1", "10.84.0.1"] {
        listens_on(&node, ip);
    }
    let unavailable = |line: &serde_json::Value| line["event"] == "listen_unavailable";
    let (_, entry) = node.find(0, LIMIT, unavailable).unwrap();
    let error = entry.line["error"].as_str().unwrap();
    assert!(error.contains("os error 97"), "{error}");
    let seen = host.works(node, V4, &host);
    format!("{seen}; reports the OS error")
}

/// Two nodes on a link without a DHCP server find each other by mDNS.
fn link_local() -> String {
    let (host, other) = (Host::new("lla"), Host::new("llb"));
    host.namespace
        .join("eth0", &other.namespace, "eth0")
        .unwrap();
    let hosts = [&host, &other];
    for (host, nth) in hosts.into_iter().zip(1..) {
        let address = format!("addr add 169.254.7.{nth}/16 dev eth0\n");
        host.namespace.ip(&address).unwrap();
    }
    let config = host.path("node.toml");
    fs::write(&config, "[discovery]\nmdns = true\n").unwrap();
    let begin = Instant::now();
    let arguments = ["--config", config.to_str().unwrap()];
    let [node, second] = hosts.map(|host| host.start(&[], &arguments));
    let id = peer_of(&second);
    let connected = |line: &serde_json::Value| line["event"] == "connected" && line["peer"] == id;
    assert!(node.find(0, LIMIT, connected).is_some(), "{}", host.log());
    let found_s = begin.elapsed().as_secs_f32();
    let seen = host.works(node, "/ip4/169.254.7.1/tcp", &other);
    format!("finds a node by mDNS in {found_s:.1} s; {seen}")
}

fn many_addresses() -> String {
    const ADDRESSES: usize = 200;
    let host = Host::new("many");
    let lines = (0..ADDRESSES).map(|at| format!("addr add 10.84.0.{at}/32 dev lo\n"));
    host.namespace.ip(&lines.collect::<String>()).unwrap();
    let node = host.start(&[], &[]);
    let listening = |node: &Process| {
        let entries = node.entries();
        let tcp = entries.iter().filter(|entry| {
            let address = entry.line["address"].as_str().unwrap_or_default();
            entry.line["event"] == "listening" && address.starts_with("/ip4/10.84.0.")
        });
        tcp.count()
    };
    // TCP and QUIC.
    until(LIMIT, "200 addresses", || listening(&node) >= 2 * ADDRESSES);
    host.works(node, "/ip4/10.84.0.199/tcp", &host)
}

/// More connections than descriptors: the node accepts again once they are closed.
fn few_files() -> String {
    let host = Host::new("files");
    let before = ["sh", "-c", "ulimit -n 64; exec \"$@\"", "sh"];
    let node = host.start(&before, &["--listen", "/ip4/127.0.0.1/tcp/2428"]);
    node.event("listening");
    let connections = host.namespace.enter(|| {
        let connect = || TcpStream::connect("127.0.0.1:2428").unwrap();
        (0..100).map(|_| connect()).collect::<Vec<_>>()
    });
    let warned = || host.log().contains("cannot accept connections");
    until(LIMIT, "a warning", warned);
    drop(connections);
    let seen = host.works(node, V4, &host);
    let log = host.log();
    assert!(log.contains("os error 24"), "{log}");
    let lines = log.lines().count();
    assert!(lines < 60, "{log}");
    format!("100 connections: warns, {lines} lines of log; once they are closed, {seen}")
}
