//! A host whose clock jumps. A library that is loaded before all others moves the time of day, as
//! far as a file says; the monotonic clock stays, as on a host whose clock is set.

use std::{fs, path::PathBuf, process::Command};

use crate::{
    host::Host,
    support::{LIMIT, calnet},
};

pub(crate) const CASES: &[(&str, fn() -> String)] = &[
    ("clock set back by 10 years", || jumps(-315_360_000)),
    ("clock set forward by 10 years", || jumps(315_360_000)),
];

const SHIM: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t clock, struct timespec *time) {
    long result = syscall(SYS_clock_gettime, clock, time);
    if (result == 0 && clock == CLOCK_REALTIME) {
        char text[32] = {0};
        int file = open(getenv("CLOCK_OFFSET"), O_RDONLY);
        if (file >= 0) {
            if (read(file, text, sizeof text - 1) > 0) time->tv_sec += atol(text);
            close(file);
        }
    }
    return result;
}
"#;

fn shim(host: &Host) -> Option<PathBuf> {
    let (source, library) = (host.path("shim.c"), host.path("shim.so"));
    fs::write(&source, SHIM).unwrap();
    let mut command = Command::new("cc");
    command
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(&source);
    command
        .status()
        .is_ok_and(|status| status.success())
        .then_some(library)
}

fn jumps(offset_s: i64) -> String {
    let host = Host::new("clock");
    let Some(library) = shim(&host) else {
        return "skipped: no C compiler".to_owned();
    };
    let offset = host.path("offset");
    fs::write(&offset, "0").unwrap();
    let mut command = host.node(&[], &["--listen", "/ip4/127.0.0.1/tcp/2428"]);
    command
        .env("LD_PRELOAD", &library)
        .env("CLOCK_OFFSET", &offset);
    let node = crate::support::Process::start(command);
    let peer = node.event("started")["peer"].as_str().unwrap().to_owned();
    node.event("listening");
    // A peer that stays connected.
    let mut other = host.namespace.command(calnet().get_program());
    let address = format!("/ip4/127.0.0.1/tcp/2428/p2p/{peer}");
    other.args(["run", "--json", "--local", "--dial", &address]);
    other
        .args(["--listen", "/ip4/127.0.0.1/tcp/0"])
        .stderr(std::process::Stdio::null());
    let other = crate::support::Process::start(other);
    other.event("connected");
    fs::write(&offset, offset_s.to_string()).unwrap();
    host.answers();
    let moved = node.find(0, LIMIT, |line| line["event"] == "connected");
    assert!(moved.is_some());
    let seen = host.works(node, "/ip4/127.0.0.1/tcp", &host);
    let lost = other
        .entries()
        .into_iter()
        .filter(|entry| entry.line["event"] == "disconnected");
    // The node ends at the end of the check, and not before.
    assert!(lost.count() <= 1, "{:#?}", other.entries());
    format!("keeps its connection; {seen}")
}
