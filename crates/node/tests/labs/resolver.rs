//! Hosts whose resolver is absent, empty, black-holed, slow or changed. The boot node of each is
//! configured by name.

use std::{
    fs,
    net::UdpSocket,
    thread,
    time::{Duration, Instant},
};

use crate::{
    Case,
    host::Host,
    support::{LIMIT, Process, calnet},
};

pub(crate) const CASES: &[Case] = &[
    ("resolver absent", absent),
    ("resolver empty", empty),
    ("resolver black-holed", black_holed),
    ("resolver slow (2 s)", slow),
    ("resolver changed while the node runs", changed),
];

const WORKING: &str = "nameserver 127.0.0.1\n";
const BLACK_HOLE: &str = "nameserver 127.0.0.9\noptions timeout:1 attempts:1\n";

/// Time in which the boot node is connected once the resolver works. Attempts are repeated with
/// growing pauses.
const RETRY: Duration = Duration::from_secs(60);

/// Answers queries for IPv4 addresses with loopback, and other queries with no record.
fn serve(socket: &UdpSocket, delay: Duration) {
    let mut query = [0; 512];
    while let Ok((len, from)) = socket.recv_from(&mut query) {
        let name = query[12..len].iter().position(|byte| *byte == 0);
        let Some(end) = name.map(|at| 12 + at + 5).filter(|end| *end <= len) else {
            continue;
        };
        let is_a = query[end - 4..end - 2] == [0, 1];
        let mut answer = query[..end].to_vec();
        // A response, one question, one answer or none.
        answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
        if is_a {
            answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 127, 0, 0, 1]);
        }
        thread::park_timeout(delay);
        let _ = socket.send_to(&answer, from);
    }
}

/// A host with a boot node and two name servers: one on 127.0.0.1 that answers after a delay, and a
/// black hole on 127.0.0.9, whose socket is never read.
struct Named {
    host: Host,
    /// Address of the boot node, by name.
    address: String,
    _boot: Process,
    _black_hole: UdpSocket,
}

fn named(role: &str, delay: Duration) -> Named {
    let host = Host::new(role);
    let bind = |address: &str| host.namespace.enter(|| UdpSocket::bind(address).unwrap());
    let (socket, black_hole) = (bind("127.0.0.1:53"), bind("127.0.0.9:53"));
    socket.set_read_timeout(Some(2 * LIMIT)).unwrap();
    thread::spawn(move || serve(&socket, delay));
    let mut boot = host.namespace.command(calnet().get_program());
    boot.args([
        "boot",
        "--json",
        "--local",
        "--listen",
        "/ip4/127.0.0.1/tcp/2429",
    ]);
    boot.arg("--data")
        .arg(host.path("boot"))
        .stderr(std::process::Stdio::null());
    let boot = Process::start(boot);
    let peer = boot.event("started")["peer"].as_str().unwrap().to_owned();
    boot.event("listening");
    Named {
        host,
        address: format!("/dns4/boot.example/tcp/2429/p2p/{peer}"),
        _boot: boot,
        _black_hole: black_hole,
    }
}

/// Starts a node whose `/etc/resolv.conf` is a file in the folder of the host.
fn node(named: &Named, resolver: &str) -> Process {
    let Named { host, address, .. } = named;
    let file = host.path("resolv.conf");
    fs::write(&file, resolver).unwrap();
    let mount = format!(
        "mount --bind {} /etc/resolv.conf && exec \"$@\"",
        file.display()
    );
    let before = ["unshare", "--mount", "sh", "-c", &mount, "sh"];
    host.start(
        &before,
        &["--listen", "/ip4/127.0.0.1/tcp/0", "--boot", address],
    )
}

fn connects(node: &Process, limit: Duration, log: &str) -> Duration {
    let begin = Instant::now();
    let found = node.find(0, limit, |line| line["event"] == "connected");
    assert!(found.is_some(), "{:#?}\n{log}", node.entries());
    begin.elapsed()
}

/// Checks a node that cannot resolve its boot node.
fn works_without_names(host: &Host, node: Process) -> String {
    let unreachable = |line: &serde_json::Value| line["event"] == "boot_node_unreachable";
    let reported = node.find(0, LIMIT, unreachable);
    let Some((_, failure)) = reported else {
        panic!("no report: {:#?}\n{}", node.entries(), host.log());
    };
    let cause = failure.line["cause"].as_str().unwrap().to_owned();
    let seen = host.works(node, "/ip4/127.0.0.1/tcp", host);
    let log = host.log();
    let lines = log.lines().count();
    assert!(lines < 60, "{log}");
    format!("{seen}; reports the boot node as `{cause}`")
}

fn absent() -> String {
    let named = named("noresolv", Duration::ZERO);
    // A copy of what a program needs from `/etc`, without the file.
    let etc = named.host.path("etc");
    fs::create_dir(&etc).unwrap();
    fs::copy("/etc/passwd", etc.join("passwd")).unwrap();
    let mount = format!("mount --bind {} /etc && exec \"$@\"", etc.display());
    let before = ["unshare", "--mount", "sh", "-c", &mount, "sh"];
    let arguments = ["--listen", "/ip4/127.0.0.1/tcp/0", "--boot", &named.address];
    let node = named.host.start(&before, &arguments);
    works_without_names(&named.host, node)
}

fn empty() -> String {
    let named = named("empty", Duration::ZERO);
    let node = node(&named, "");
    works_without_names(&named.host, node)
}

fn black_holed() -> String {
    let named = named("blackhole", Duration::ZERO);
    let node = node(&named, BLACK_HOLE);
    works_without_names(&named.host, node)
}

fn slow() -> String {
    let named = named("slow", Duration::from_secs(2));
    let node = node(&named, WORKING);
    let took = connects(&node, RETRY, &named.host.log());
    let seen = named.host.works(node, "/ip4/127.0.0.1/tcp", &named.host);
    format!("boot node after {:.1} s; {seen}", took.as_secs_f32())
}

fn changed() -> String {
    let named = named("changed", Duration::ZERO);
    let node = node(&named, BLACK_HOLE);
    let unreachable = |line: &serde_json::Value| line["event"] == "boot_node_unreachable";
    let Some((_, failure)) = node.find(0, LIMIT, unreachable) else {
        panic!("no report: {:#?}\n{}", node.entries(), named.host.log());
    };
    let cause = failure.line["cause"].as_str().unwrap().to_owned();
    fs::write(named.host.path("resolv.conf"), WORKING).unwrap();
    let took = connects(&node, RETRY, &named.host.log());
    let seen = named.host.works(node, "/ip4/127.0.0.1/tcp", &named.host);
    format!(
        "reports `{cause}`; boot node {:.1} s after the change; {seen}",
        took.as_secs_f32()
    )
}
