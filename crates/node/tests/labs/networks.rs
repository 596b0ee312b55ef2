//! Hosts whose network is odd.

use std::net::TcpStream;

use crate::{
    host::{Host, without_family},
    support::{LIMIT, Process},
    until,
};

pub(crate) const CASES: &[(&str, fn() -> String)] = &[
    ("IPv6 off by sysctl", ipv6_off),
    ("IPv6 sockets refused", ipv6_refused),
    ("IPv4 sockets refused", ipv4_refused),
    ("no IPv4 address", no_ipv4),
    ("netlink sockets refused", netlink_refused),
    ("link-local addresses alone", link_local),
    ("200 addresses", many_addresses),
    ("`ulimit -n 64`", few_files),
];

const V4: &str = "/ip4/127.0.0.1/tcp";
const V6: &str = "/ip6/::1/tcp";

fn ipv6_off() -> String {
    let host = Host::new("v6off");
    let settings = ["all", "default", "lo"].map(|of| format!("ipv6/conf/{of}/disable_ipv6"));
    let settings = settings.each_ref().map(|name| (name.as_str(), "1"));
    host.namespace.set(&settings).unwrap();
    host.works(host.start(&[], &[]), V4, &host)
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

fn netlink_refused() -> String {
    let host = Host::new("nonl");
    host.works(host.start(&without_family("16"), &[]), V4, &host)
}

/// Two hosts on a link without a server of addresses.
fn link_local() -> String {
    let (host, other) = (Host::new("lla"), Host::new("llb"));
    host.namespace
        .join("eth0", &other.namespace, "eth0")
        .unwrap();
    host.namespace
        .ip("addr add 169.254.7.1/16 dev eth0\n")
        .unwrap();
    other
        .namespace
        .ip("addr add 169.254.7.2/16 dev eth0\n")
        .unwrap();
    host.works(host.start(&[], &[]), "/ip4/169.254.7.1/tcp", &other)
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

/// More connections than there are descriptors: the node accepts again once they are closed.
fn few_files() -> String {
    let host = Host::new("files");
    let before = ["sh", "-c", "ulimit -n 64; exec \"$@\"", "sh"];
    let node = host.start(&before, &["--listen", "/ip4/127.0.0.1/tcp/2428"]);
    node.event("listening");
    let connections = host.namespace.enter(|| {
        let connect = || TcpStream::connect("127.0.0.1:2428").unwrap();
        (0..100).map(|_| connect()).collect::<Vec<_>>()
    });
    drop(connections);
    let seen = host.works(node, V4, &host);
    let lines = host.log().lines().count();
    assert!(lines < 60, "{}", host.log());
    format!("100 connections, {lines} lines of log; then {seen}")
}
