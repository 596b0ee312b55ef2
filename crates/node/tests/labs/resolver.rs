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

/// Limit of log lines of a node whose name server does not answer, in a run of seconds.
const MAX_LOG_LINES: usize = 60;

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

/// Checks that the boot node is connected, and that the node works.
fn connects(named: &Named, node: Process) -> String {
    let begin = Instant::now();
    let host = &named.host;
    let found = node.find(0, RETRY, |line| line["event"] == "connected");
    assert!(found.is_some(), "{:#?}\n{}", node.entries(), host.log());
    let seconds = begin.elapsed().as_secs_f32();
    let seen = host.works(node, "/ip4/127.0.0.1/tcp", host);
    format!("boot node after {seconds:.1} s; {seen}")
}

/// Waits until the boot node is reported as unreachable, and returns the cause.
fn reported_cause(named: &Named, node: &Process) -> String {
    let unreachable = |line: &serde_json::Value| line["event"] == "boot_node_unreachable";
    let Some((_, failure)) = node.find(0, LIMIT, unreachable) else {
        panic!("no report: {:#?}\n{}", node.entries(), named.host.log());
    };
    failure.line["cause"].as_str().unwrap().to_owned()
}

fn absent() -> String {
    let named = named("absent", Duration::ZERO);
    // The account of the user, which programs look up, and no other file.
    let etc = named.host.path("etc");
    fs::create_dir(&etc).unwrap();
    fs::copy("/etc/passwd", etc.join("passwd")).unwrap();
    let mount = format!("mount --bind {} /etc && exec \"$@\"", etc.display());
    let before = ["unshare", "--mount", "sh", "-c", &mount, "sh"];
    let arguments = ["--listen", "/ip4/127.0.0.1/tcp/0", "--boot", &named.address];
    let node = named.host.start(&before, &arguments);
    let observed = connects(&named, node);
    let log = named.host.log();
    assert!(log.contains("no usable name server"), "{log}");
    format!("warns, asks 127.0.0.1; {observed}")
}

fn empty() -> String {
    let named = named("empty", Duration::ZERO);
    let node = node(&named, "");
    format!("asks 127.0.0.1; {}", connects(&named, node))
}

fn black_holed() -> String {
    let named = named("blackhole", Duration::ZERO);
    let node = node(&named, BLACK_HOLE);
    let cause = reported_cause(&named, &node);
    let seen = named.host.works(node, "/ip4/127.0.0.1/tcp", &named.host);
    let log = named.host.log();
    assert!(log.lines().count() < MAX_LOG_LINES, "{log}");
    format!("reports the boot node as `{cause}`; {seen}")
}

fn slow() -> String {
    let named = named("slow", Duration::from_secs(2));
    let node = node(&named, WORKING);
    connects(&named, node)
}

fn changed() -> String {
    let named = named("changed", Duration::ZERO);
    let node = node(&named, BLACK_HOLE);
    let cause = reported_cause(&named, &node);
    fs::write(named.host.path("resolv.conf"), WORKING).unwrap();
    let observed = connects(&named, node);
    format!("reports `{cause}`; after the change: {observed}")
}
