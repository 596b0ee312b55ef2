//! Boot nodes as processes: nodes that know nothing else find each other by them, losing one
//! loses nothing, and both are watched over HTTP.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a surprise ends the test"
)]

mod support;

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Instant,
};

use serde_json::Value;
use support::{HeldPort, LIMIT, Process, calnet, run};
use tempfile::TempDir;

/// A boot node on loopback, under a port that is held.
struct Boot {
    process: Process,
    address: String,
    peer: String,
    metrics: SocketAddr,
    folder: TempDir,
    port: HeldPort,
}

impl Boot {
    fn start(others: &[&Boot]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), HeldPort::new(), others)
    }

    fn start_in(folder: TempDir, port: HeldPort, others: &[&Boot]) -> Self {
        let listen = format!("/ip4/127.0.0.1/tcp/{}", port.number());
        let mut command = calnet();
        command.args(["boot", "--json", "--local", "--metrics", "127.0.0.1:0"]);
        command.args(["--listen", &listen, "--external", &listen]);
        command.arg("--data").arg(folder.path());
        for other in others {
            command.args(["--boot", &other.address]);
        }
        let process = Process::start(command);
        let peer = text(&process.event("started")["peer"]);
        let address = text(&process.event("boot_address")["address"]);
        assert_eq!(address, format!("{listen}/p2p/{peer}"));
        let url = text(&process.event("metrics")["url"]);
        let authority = url.strip_prefix("http://").unwrap();
        let (authority, path) = authority.split_once('/').unwrap();
        assert_eq!(path, "metrics");
        process.event("listening");
        Self {
            address,
            metrics: authority.parse().unwrap(),
            process,
            peer,
            folder,
            port,
        }
    }

    /// The value of a series, by its name and labels as they are written.
    fn metric(&self, series: &str) -> Option<f64> {
        let page = get(self.metrics, "GET", "/metrics");
        assert!(page.head.contains(" 200 "), "{}", page.head);
        value(&page.body, series)
    }

    /// Scrapes until a series has a value.
    fn until_metric(&self, series: &str, wanted: f64) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let found = self.metric(series);
            if found == Some(wanted) {
                return;
            }
            assert!(Instant::now() < deadline, "{series} is {found:?}");
            std::thread::park_timeout(std::time::Duration::from_millis(100));
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// A node that knows boot nodes and nothing else.
fn node(boots: &[&str]) -> (Process, String) {
    let mut arguments = vec!["--local"];
    for boot in boots {
        arguments.extend(["--boot", boot]);
    }
    let process = Process::node(&arguments);
    let peer = text(&process.event("started")["peer"]);
    (process, peer)
}

/// Waits until a process is connected with each of `peers`.
fn until_connected(process: &Process, peers: &[&str]) {
    let mut missing: BTreeSet<&str> = peers.iter().copied().collect();
    while !missing.is_empty() {
        let connected = process.event("connected");
        missing.remove(connected["peer"].as_str().unwrap());
    }
}

struct Page {
    head: String,
    body: String,
}

/// One request over a connection of its own.
fn get(at: SocketAddr, method: &str, path: &str) -> Page {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: {at}\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    Page {
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

fn value(page: &str, series: &str) -> Option<f64> {
    page.lines().find_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        (name == series).then(|| value.parse().unwrap())
    })
}

#[test]
fn a_held_port_is_for_a_node_alone() {
    let port = HeldPort::new();
    let address = format!("127.0.0.1:{}", port.number());
    // A socket that does not allow a second one, as that of any other program.
    let other = tokio::net::TcpSocket::new_v4().unwrap();
    let refused = other.bind(address.parse().unwrap()).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::AddrInUse);
    let boot = Boot::start_in(tempfile::tempdir().unwrap(), port, &[]);
    assert!(boot.address.contains(&boot.port.number().to_string()));
}

#[test]
fn nodes_that_know_two_boot_nodes_find_each_other_and_losing_one_loses_nothing() {
    let first = Boot::start(&[]);
    let second = Boot::start(&[&first]);
    until_connected(&first.process, &[&second.peer]);
    let boots = [first.address.as_str(), second.address.as_str()];

    let (alice, alice_peer) = node(&boots);
    let (bob, bob_peer) = node(&boots);
    until_connected(&alice, &[&first.peer, &second.peer, &bob_peer]);
    // The second boot node registers at the first, which it is configured with.
    for (boot, peers) in [(&first, 3.0), (&second, 2.0)] {
        boot.until_metric("calimero_network_rendezvous_peers", peers);
    }

    // The first one is killed. A new node finds the others by the second.
    let Boot { mut process, .. } = first;
    process.end_by("-KILL");
    let (carol, carol_peer) = node(&boots);
    until_connected(&carol, &[&second.peer, &alice_peer, &bob_peer]);
    until_connected(&bob, &[&carol_peer]);
    second.until_metric("calimero_network_rendezvous_peers", 3.0);
}

/// A node that listens nowhere, so that others reach it through its relay alone.
fn hidden(boot: &Boot) -> (Process, String, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("hidden.toml");
    std::fs::write(&config, "listen = []\n").unwrap();
    let mut command = calnet();
    command.args(["run", "--json", "--local", "--boot", &boot.address]);
    command.arg("--config").arg(config);
    command.arg("--data").arg(folder.path());
    let process = Process::start(command);
    let peer = text(&process.event("started")["peer"]);
    (process, peer, folder)
}

fn asked(command: &str, data: &TempDir, arguments: &[&str]) -> String {
    let mut asking = calnet();
    asking.arg(command).args(arguments);
    asking.arg("--data").arg(data.path());
    let ended = run(asking);
    assert!(ended.success, "{}", ended.stderr);
    ended.stdout
}

#[test]
fn the_limit_of_a_circuit_is_shown_at_both_ends() {
    let boot = Boot::start(&[]);
    let (a, a_peer, a_data) = hidden(&boot);
    let (b, b_peer, b_data) = hidden(&boot);
    until_connected(&a, &[&boot.peer, &b_peer]);
    until_connected(&b, &[&boot.peer, &a_peer]);
    let limit = serde_json::json!({ "bytes": 8 << 20, "seconds": 1800 });
    for (data, peer) in [(&a_data, &b_peer), (&b_data, &a_peer)] {
        let lines = asked("peers", data, &["--json"]);
        let lines = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap());
        let lines: Vec<Value> = lines.collect();
        let is_of = |line: &&Value, peer: &str| line["peer"] == peer;
        let relayed = lines.iter().find(|line| is_of(line, peer)).unwrap();
        assert_eq!(relayed["path"], "relayed");
        assert_eq!(relayed["circuit_limit"], limit, "{relayed}");
        let direct = lines.iter().find(|line| is_of(line, &boot.peer)).unwrap();
        assert!(direct.get("circuit_limit").is_none(), "{direct}");
        let status: Value = serde_json::from_str(&asked("status", data, &["--json"])).unwrap();
        let reservation = &status["discovery"]["relay_reservations"][0];
        assert_eq!(reservation["circuit_limit"], limit, "{reservation}");

        let words = "at most 8.0 MiB and 1800 s";
        let peers = asked("peers", data, &[]);
        assert!(peers.contains(&format!("circuit: {words}")), "{peers}");
        let status = asked("status", data, &[]);
        assert!(status.contains(&format!("circuits: {words}")), "{status}");
    }
}

#[test]
fn a_boot_node_keeps_its_identity_and_ends_gracefully() {
    let boot = Boot::start(&[]);
    let (peer, address) = (boot.peer.clone(), boot.address.clone());
    let (node, node_peer) = node(&[&address]);
    until_connected(&node, &[&peer]);
    until_connected(&boot.process, &[&node_peer]);
    let Boot {
        mut process,
        folder,
        port,
        ..
    } = boot;
    let status = process.end_by("-TERM");
    assert!(status.success(), "{status}");
    process.event("stopped");
    node.event("disconnected");

    let again = Boot::start_in(folder, port, &[]);
    assert_eq!(again.peer, peer);
    until_connected(&node, &[&peer]);
    again.until_metric("calimero_network_rendezvous_peers", 1.0);
}

#[test]
fn a_boot_node_is_watched_over_http() {
    let boot = Boot::start(&[]);
    let (node, node_peer) = node(&[&boot.address]);
    until_connected(&node, &[&boot.peer]);
    boot.until_metric("calimero_network_rendezvous_registrations", 1.0);

    let page = get(boot.metrics, "GET", "/metrics");
    assert!(page.head.contains("openmetrics-text"), "{}", page.head);
    assert!(page.body.ends_with("# EOF\n"));
    let value = |series: &str| value(&page.body, series).unwrap_or_else(|| panic!("no {series}"));
    let inbound = r#"{direction="inbound",path="direct",transport="tcp"}"#;
    for (series, wanted) in [
        (format!("calimero_network_connections{inbound}"), 1.0),
        ("calimero_network_peers".to_owned(), 1.0),
        ("calimero_network_relay_circuits".to_owned(), 0.0),
        (
            r#"calimero_network_discovery_reachability{is="reachable"}"#.to_owned(),
            1.0,
        ),
    ] {
        assert_eq!(value(&series), wanted, "{series}");
    }
    for series in [
        r#"calimero_network_transport_bytes_total{direction="received",transport="tcp"}"#,
        r#"calimero_network_rendezvous_requests_total{request="register",outcome="ok"}"#,
        "calimero_network_rendezvous_memory_bytes",
    ] {
        assert!(value(series) > 0.0, "{series}");
    }

    let page = get(boot.metrics, "GET", "/status");
    assert!(page.head.contains("application/json"), "{}", page.head);
    let status: Value = serde_json::from_str(&page.body).unwrap();
    assert_eq!(status["peer"], boot.peer.as_str());
    assert_eq!(status["oldest_connections"][0]["peer"], node_peer.as_str());
    assert_eq!(status["discovery"]["reachability"], "reachable");

    assert!(get(boot.metrics, "GET", "/").head.contains(" 404 "));
    assert!(get(boot.metrics, "POST", "/metrics").head.contains(" 405 "));
    let head = get(boot.metrics, "HEAD", "/metrics");
    assert!(head.head.contains(" 200 ") && head.body.is_empty());
}

/// Connections that say nothing hold places, and give them back.
#[test]
fn watchers_that_say_nothing_are_sent_away() {
    let boot = Boot::start(&[]);
    let silent: Vec<_> = (0..20)
        .map(|_| TcpStream::connect(boot.metrics).unwrap())
        .collect();
    let page = get(boot.metrics, "GET", "/metrics");
    assert!(page.head.contains(" 200 "), "{}", page.head);
    drop(silent);
}

#[test]
fn a_page_that_cannot_be_served_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = calnet();
    command.args(["run", "--metrics", &address]);
    let ended = run(command);
    assert!(!ended.success);
    assert!(ended.stderr.contains(&address), "{}", ended.stderr);
}
