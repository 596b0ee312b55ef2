//! Processes whose output is not read, that are signalled, stopped, or started twice.

use std::{
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    host::Host,
    is_full,
    support::{LIMIT, Process, calnet, full_pipe, run},
    until,
};

pub(crate) const CASES: &[(&str, fn() -> String)] = &[
    ("standard output not read", output_stalled),
    ("standard output closed", output_closed),
    ("SIGHUP three times", || signalled("-HUP")),
    ("SIGTERM three times", || signalled("-TERM")),
    ("SIGSTOP, then SIGCONT", stopped),
    ("two processes on one port", one_port),
    ("two processes on one folder", one_folder),
    ("two processes with one key", one_key),
];

const LISTEN: [&str; 2] = ["--listen", "/ip4/127.0.0.1/tcp/2428"];

/// Waits for the end of a process.
fn end(child: &mut Child) -> Option<i32> {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        assert!(Instant::now() < deadline, "the process does not end");
        thread::park_timeout(Duration::from_millis(10));
    }
}

/// A node that listens at the port of [`LISTEN`] answers a peer.
fn reached(host: &Host) -> bool {
    host.run(&["probe", "--pings", "1", "/ip4/127.0.0.1/tcp/2428"])
        .success
}

fn output_stalled() -> String {
    let host = Host::new("stalled");
    let (write, _read) = full_pipe();
    let mut node = host.node(&[], &LISTEN).stdout(write).spawn().unwrap();
    until(LIMIT, "the node answers", || reached(&host));
    host.answers();
    let pid = node.id().to_string();
    assert!(
        run({
            let mut kill = std::process::Command::new("kill");
            kill.args(["-TERM", &pid]);
            kill
        })
        .success
    );
    assert_eq!(end(&mut node), Some(0));
    "serves peers and its control socket, ends on a signal".to_owned()
}

fn output_closed() -> String {
    let host = Host::new("closed");
    let mut node = host
        .node(&[], &LISTEN)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(node.stdout.take());
    let code = end(&mut node);
    assert_eq!(code, Some(0), "{}", host.log());
    "ends with status 0, as a program in a pipe does".to_owned()
}

fn signalled(name: &str) -> String {
    let host = Host::new("signal");
    let mut node = host.start(&[], &LISTEN);
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
    let host = Host::new("stop");
    let node = host.start(&[], &LISTEN);
    let peer = node.event("started")["peer"].as_str().unwrap().to_owned();
    node.event("listening");
    let mut other = host.namespace.command(calnet().get_program());
    let address = format!("/ip4/127.0.0.1/tcp/2428/p2p/{peer}");
    other.args(["run", "--json", "--local", "--dial", &address]);
    other
        .args(["--listen", "/ip4/127.0.0.1/tcp/0"])
        .stderr(Stdio::null());
    let other = Process::start(other);
    other.event("connected");
    node.signal("-STOP");
    thread::sleep(pause);
    let lost = other
        .find(0, Duration::ZERO, |line| line["event"] == "disconnected")
        .is_some();
    let begin = Instant::now();
    node.signal("-CONT");
    if lost {
        other.event("connected");
    }
    host.answers();
    let took = begin.elapsed().as_millis();
    let lost = if lost {
        "connected again"
    } else {
        "connection kept"
    };
    let seen = host.works(node, LISTEN[1], &host);
    format!("{} s: {lost} after {took} ms; {seen}", pause.as_secs())
}

/// The second process of a kind is refused with the cause.
fn refused(host: &Host, arguments: &[&str], cause: &str) -> String {
    let ended = host.run(arguments);
    assert!(!ended.success, "{}", ended.stdout);
    assert!(ended.stderr.contains(cause), "{}", ended.stderr);
    let code = ended.code.expect("ended by a signal");
    format!("the second ends with status {code}: \"{cause}\"")
}

fn one_port() -> String {
    let host = Host::new("port");
    let node = host.start(&[], &LISTEN);
    node.event("listening");
    let seen = refused(&host, &["run", LISTEN[0], LISTEN[1]], "in use");
    assert!(reached(&host));
    seen
}

fn one_folder() -> String {
    let host = Host::new("folder");
    let node = host.start(&[], &LISTEN);
    node.event("listening");
    let data = host.data();
    let arguments = ["run", "--data", data.to_str().unwrap()];
    let cause = format!("in use by process {}", node.id());
    refused(&host, &arguments, &cause).replace(&node.id().to_string(), "ID")
}

fn one_key() -> String {
    let host = Host::new("key");
    let node = host.start(&[], &LISTEN);
    node.event("listening");
    let key = host.data().join("identity");
    let arguments = ["run", "--identity", key.to_str().unwrap()];
    let cause = format!("in use by process {}", node.id());
    refused(&host, &arguments, &cause).replace(&node.id().to_string(), "ID")
}
