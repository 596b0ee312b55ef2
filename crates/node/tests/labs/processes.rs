//! Processes whose output is not read, that are signalled, stopped, or started twice. They need no
//! namespace and no root.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{
    Case, is_full,
    support::{Ended, LIMIT, Process, calnet, full_pipe, run},
    until,
};

pub(crate) const CASES: &[Case] = &[
    ("standard output not read", || output(Fault::NotRead)),
    ("standard error not read", || output(Fault::ErrorNotRead)),
    ("standard output closed by its reader", || {
        output(Fault::Closed)
    }),
    ("no standard output", || output(Fault::Missing)),
    ("SIGHUP three times", || signalled("-HUP")),
    ("SIGTERM three times", || signalled("-TERM")),
    ("SIGSTOP, then SIGCONT", stopped),
    ("two processes on one port", one_port),
    ("two processes on one folder", one_folder),
    ("two processes with one key", one_key),
];

const LISTEN: [&str; 2] = ["--listen", "/ip4/127.0.0.1/tcp/0"];

/// Exit status of a refused command.
const REFUSED: i32 = 6;

fn data(folder: &TempDir) -> String {
    folder.path().join("data").to_str().unwrap().to_owned()
}

/// `calnet run` or `calnet boot` on loopback, with a data folder.
fn node(command: &str, data: &str, arguments: &[&str]) -> Command {
    let mut node = calnet();
    node.args([command, "--json", "--local", "--data", data]);
    node.args(LISTEN).args(arguments);
    node.stderr(Stdio::null());
    node
}

/// A peer that prints a record for each connection.
fn peer(arguments: &[&str]) -> Process {
    let mut peer = calnet();
    peer.args(["run", "--json", "--local"]).args(LISTEN);
    peer.args(arguments).stderr(Stdio::null());
    Process::start(peer)
}

fn status(data: &str) -> Ended {
    let mut status = calnet();
    status.args(["status", "--json", "--data", data]);
    run(status)
}

/// A process whose output the test does not read. Killed when dropped.
struct Unread(Child);

impl Unread {
    /// Waits for the end of the process and returns its exit status.
    fn end(&mut self) -> Option<i32> {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "the process does not end");
            thread::park_timeout(Duration::from_millis(10));
        }
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What is wrong with the output of a node.
#[derive(Clone, Copy, Debug)]
enum Fault {
    NotRead,
    ErrorNotRead,
    Closed,
    Missing,
}

fn output(fault: Fault) -> String {
    let folder = tempfile::tempdir().unwrap();
    let data = data(&folder);
    let peer = peer(&[]);
    let address = peer.addresses(1).remove(0);
    let (full, full_read) = full_pipe();
    let mut command = node("run", &data, &["--log", "info", "--dial", &address]);
    match fault {
        Fault::NotRead => command.stdout(full),
        Fault::ErrorNotRead => command.stderr(full).stdout(Stdio::null()),
        Fault::Closed => {
            drop(full_read);
            return serves(command.stdout(full), &peer, &data);
        }
        Fault::Missing => {
            let mut shell = Command::new("sh");
            shell.args(["-c", "exec \"$@\" >&-", "sh"]);
            shell.arg(command.get_program()).args(command.get_args());
            return serves(shell.stderr(Stdio::null()), &peer, &data);
        }
    };
    serves(&mut command, &peer, &data)
}

/// A node that dials `peer` serves it and its control socket, and ends on a signal.
fn serves(node: &mut Command, peer: &Process, data: &str) -> String {
    let mut node = Unread(node.spawn().unwrap());
    peer.event("connected");
    let status = status(data);
    assert!(status.success, "{}", status.stderr);
    let pid = node.0.id().to_string();
    let signalled = Command::new("kill").args(["-TERM", &pid]).status();
    assert!(signalled.unwrap().success());
    assert_eq!(node.end(), Some(0));
    "serves a peer and its control socket, ends on a signal".to_owned()
}

fn signalled(name: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Process::start(node("run", &data(&folder), &[]));
    node.event("listening");
    let begin = Instant::now();
    for _ in 0..3 {
        node.signal(name);
    }
    assert!(node.wait().success());
    node.event("stopped");
    format!("stops once, after {} ms", begin.elapsed().as_millis())
}

/// A node is stopped for some time while a peer waits for it.
fn stopped() -> String {
    let pause = Duration::from_secs(if is_full() { 180 } else { 2 });
    let folder = tempfile::tempdir().unwrap();
    let data = data(&folder);
    let mut node = Process::start(node("run", &data, &[]));
    let address = node.addresses(1).remove(0);
    let other = peer(&["--dial", &address]);
    other.event("connected");
    node.signal("-STOP");
    let is_stopped = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", node.id())).unwrap();
        stat.contains(") T ")
    };
    until(LIMIT, "the node is stopped", is_stopped);
    // The pause is what is tried.
    thread::sleep(pause);
    let disconnected = |line: &serde_json::Value| line["event"] == "disconnected";
    let lost = other.find(0, Duration::ZERO, disconnected);
    let begin = Instant::now();
    node.signal("-CONT");
    let connection = match lost {
        None => "connection kept".to_owned(),
        Some((at, _)) => {
            let connected = |line: &serde_json::Value| line["event"] == "connected";
            assert!(other.find(at, 2 * LIMIT, connected).is_some());
            format!("connected again after {} ms", begin.elapsed().as_millis())
        }
    };
    let asked = Instant::now();
    assert!(status(&data).success);
    let answered_ms = asked.elapsed().as_millis();
    let mut probe = calnet();
    probe.args(["probe", "--pings", "1", &address]);
    let probed = run(probe);
    assert!(probed.success, "{}", probed.stderr);
    assert!(node.end_by("-TERM").success());
    let seconds = pause.as_secs();
    format!("{seconds} s: {connection}, status after {answered_ms} ms, answers a peer")
}

/// The second process is refused with the cause.
fn refused(mut command: Command, causes: &[&str]) -> i32 {
    command.stderr(Stdio::piped());
    let ended = run(command);
    assert!(!ended.success, "{}", ended.stdout);
    for cause in causes {
        assert!(ended.stderr.contains(cause), "{cause}: {}", ended.stderr);
    }
    ended.code.expect("ended by a signal")
}

fn one_port() -> String {
    let folder = tempfile::tempdir().unwrap();
    let quic = ["--listen", "/ip4/127.0.0.1/udp/0/quic-v1"];
    let first = Process::start(node("run", &data(&folder), &quic));
    let mut codes = Vec::new();
    for address in first.addresses(2) {
        let address = address.split("/p2p/").next().unwrap();
        let mut second = calnet();
        second.args(["run", "--local", "--listen", address]);
        codes.push(refused(second, &[address, "in use", "os error 98"]));
    }
    assert_eq!(codes[0], codes[1]);
    let code = codes[0];
    format!("TCP and UDP: the second ends with status {code}, the address and the OS error")
}

fn one_folder() -> String {
    let folder = tempfile::tempdir().unwrap();
    let data = data(&folder);
    let boot = Process::start(node("boot", &data, &[]));
    boot.event("listening");
    let mode = fs::metadata(&data).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o700);
    let cause = format!("in use by process {}", boot.id());
    for command in ["boot", "run"] {
        assert_eq!(refused(node(command, &data, &[]), &[&cause]), REFUSED);
    }
    // The running node is found.
    let status = status(&data);
    assert!(status.success, "{}", status.stderr);
    assert_eq!(status.json_lines()[0]["event"], "status");
    format!("the second ends with status {REFUSED} and the process id of the first")
}

fn one_key() -> String {
    let folder = tempfile::tempdir().unwrap();
    let data = data(&folder);
    let first = Process::start(node("run", &data, &[]));
    first.event("listening");
    let key = Path::new(&data).join("identity");
    let mut second = calnet();
    second.arg("run").args(LISTEN).arg("--identity").arg(&key);
    let cause = format!("in use by process {}", first.id());
    assert_eq!(refused(second, &[&cause]), REFUSED);
    format!("the second ends with status {REFUSED} and the process id of the first")
}
