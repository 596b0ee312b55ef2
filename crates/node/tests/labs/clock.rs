//! Hosts whose clock jumps. A preloaded library adds the number in a file to the time of day. The
//! monotonic clock does not change, as on a host whose clock is set.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use crate::{
    Case,
    host::{Host, peer_of},
    support::{LIMIT, Process, calnet},
};

pub(crate) const CASES: &[Case] = &[
    ("clock set back by 10 years", || jumps(-315_360_000)),
    ("clock set forward by 10 years", || jumps(315_360_000)),
];

const LIBRARY: &str = r#"
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

/// Builds the library, or returns `None` without a C compiler.
fn library(host: &Host) -> Option<PathBuf> {
    let (source, library) = (host.path("clock.c"), host.path("clock.so"));
    fs::write(&source, LIBRARY).unwrap();
    let mut command = Command::new("cc");
    command.args(["-shared", "-fPIC", "-o"]);
    command.arg(&library).arg(&source);
    let status = command.status();
    status
        .is_ok_and(|status| status.success())
        .then_some(library)
}

fn year(record: &serde_json::Value) -> i32 {
    let time = record["time"].as_str().unwrap();
    time.split('-').next().unwrap().parse().unwrap()
}

fn jumps(offset_s: i64) -> String {
    let host = Host::new("clock");
    let Some(library) = library(&host) else {
        return "skipped: no C compiler".to_owned();
    };
    let offset = host.path("offset");
    fs::write(&offset, "0").unwrap();
    let mut command = host.node(&[], &["--listen", "/ip4/127.0.0.1/tcp/2428"]);
    command.env("LD_PRELOAD", &library);
    command.env("CLOCK_OFFSET", &offset);
    let node = Process::start(command);
    let address = format!("/ip4/127.0.0.1/tcp/2428/p2p/{}", peer_of(&node));
    node.event("listening");
    // A peer that stays connected.
    let peer = || {
        let mut peer = host.namespace.command(calnet().get_program());
        peer.args(["run", "--json", "--local", "--dial", &address]);
        peer.args(["--listen", "/ip4/127.0.0.1/tcp/0"]);
        Process::start({
            peer.stderr(Stdio::null());
            peer
        })
    };
    let other = peer();
    let id = peer_of(&other);
    let before = node.event("connected");
    assert_eq!(before["peer"], id.as_str());
    fs::write(&offset, offset_s.to_string()).unwrap();
    host.answers();
    // A peer that connects after the jump.
    let later = peer();
    later.event("connected");
    let after = node.event("connected");
    let years = year(&after) - year(&before);
    assert!((9..=11).contains(&years.abs()), "{before} {after}");
    assert_eq!(i64::from(years.signum()), offset_s.signum());
    let lost = |line: &serde_json::Value| line["event"] == "disconnected" && line["peer"] == id;
    let lost_early = node.find(0, std::time::Duration::ZERO, lost);
    assert!(lost_early.is_none(), "{:#?}", node.entries());
    drop(later);
    let seen = host.works(node, "/ip4/127.0.0.1/tcp", &host);
    assert!(
        other
            .find(0, LIMIT, |line| line["event"] == "disconnected")
            .is_some()
    );
    format!("keeps its connection, accepts another; {seen}")
}
