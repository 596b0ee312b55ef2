//! Hosts whose resolver is absent, empty, changed, slow or silent. Each has a boot node that is
//! configured by its name.

use std::{
    fs,
    net::UdpSocket,
    thread,
    time::{Duration, Instant},
};

use crate::{
    host::Host,
    support::{LIMIT, Process, calnet},
};

pub(crate) const CASES: &[(&str, fn() -> String)] = &[
    ("resolver absent", absent),
    ("resolver empty", empty),
    ("resolver silent", silent),
    ("resolver slow (2 s)", slow),
    ("resolver changed while the node runs", changed),
];

const WORKING: &str = "nameserver 127.0.0.1\n";
const SILENT: &str = "nameserver 127.0.0.9\noptions timeout:1 attempts:1\n";

/// Time within which a name is resolved and its node dialled once the resolver works. Attempts are
/// repeated with growing pauses.
const RETRY: Duration = Duration::from_secs(60);

/// Answers every question for an IPv4 address with loopback, and any other with no record.
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

/// A host with a name server on 127.0.0.1 that answers after some time, and a boot node.
fn host(role: &str, delay: Duration) -> (Host, Process, String) {
    let host = Host::new(role);
    let socket = host
        .namespace
        .enter(|| UdpSocket::bind("127.0.0.1:53").unwrap());
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
    let address = format!("/dns4/boot.example/tcp/2429/p2p/{peer}");
    (host, boot, address)
}

/// A node whose `/etc/resolv.conf` is a file of the host.
fn node(host: &Host, boot: &str, resolver: &str) -> Process {
    let file = host.path("resolv.conf");
    fs::write(&file, resolver).unwrap();
    let mount = format!(
        "mount --bind {} /etc/resolv.conf && exec \"$@\"",
        file.display()
    );
    let before = ["unshare", "--mount", "sh", "-c", &mount, "sh"];
    host.start(
        &before,
        &["--listen", "/ip4/127.0.0.1/tcp/0", "--boot", boot],
    )
}

fn connects(node: &Process, limit: Duration, log: &str) -> Duration {
    let begin = Instant::now();
    let found = node.find(0, limit, |line| line["event"] == "connected");
    assert!(found.is_some(), "{:#?}\n{log}", node.entries());
    begin.elapsed()
}

fn works_without_names(host: &Host, node: Process) -> String {
    let seen = host.works(node, "/ip4/127.0.0.1/tcp", host);
    let log = host.log();
    let lines = log.lines().count();
    assert!(lines < 60, "{log}");
    format!("{seen}; {lines} lines of log")
}

fn absent() -> String {
    let (host, _boot, address) = host("noresolv", Duration::ZERO);
    // A copy of what a program needs from `/etc`, without the file.
    let etc = host.path("etc");
    fs::create_dir(&etc).unwrap();
    fs::copy("/etc/passwd", etc.join("passwd")).unwrap();
    let mount = format!("mount --bind {} /etc && exec \"$@\"", etc.display());
    let before = ["unshare", "--mount", "sh", "-c", &mount, "sh"];
    let arguments = ["--listen", "/ip4/127.0.0.1/tcp/0", "--boot", &address];
    works_without_names(&host, host.start(&before, &arguments))
}

fn empty() -> String {
    let (host, _boot, address) = host("empty", Duration::ZERO);
    let node = node(&host, &address, "");
    works_without_names(&host, node)
}

fn silent() -> String {
    let (host, _boot, address) = host("silent", Duration::ZERO);
    let node = node(&host, &address, SILENT);
    works_without_names(&host, node)
}

fn slow() -> String {
    let (host, _boot, address) = host("slow", Duration::from_secs(2));
    let node = node(&host, &address, WORKING);
    let took = connects(&node, RETRY, &host.log());
    let seen = host.works(node, "/ip4/127.0.0.1/tcp", &host);
    format!("boot node after {:.1} s; {seen}", took.as_secs_f32())
}

fn changed() -> String {
    let (host, _boot, address) = host("changed", Duration::ZERO);
    let node = node(&host, &address, SILENT);
    node.event("started");
    let failed = node.find(0, LIMIT, |line| line["event"] == "boot_node_unreachable");
    fs::write(host.path("resolv.conf"), WORKING).unwrap();
    let took = connects(&node, RETRY, &host.log());
    let seen = host.works(node, "/ip4/127.0.0.1/tcp", &host);
    let said = if failed.is_some() {
        "reported"
    } else {
        "not reported"
    };
    format!(
        "failure {said}; boot node {:.1} s after the change; {seen}",
        took.as_secs_f32()
    )
}
