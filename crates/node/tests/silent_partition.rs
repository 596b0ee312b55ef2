//! A peer that vanishes without a word: two network namespaces, two processes, and the link
//! between them cut. Needs root, `ip` and Linux; elsewhere it says so and passes over.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a surprise ends the test"
)]

mod support;

use std::{fs, process::Command};

use support::{Process, calnet};

/// Two namespaces joined by a veth pair. Removed when dropped, and the pair with them.
struct Lab {
    names: [String; 2],
}

const ADDRESSES: [&str; 2] = ["10.83.0.1", "10.83.0.2"];

impl Lab {
    /// The lab, or why there is none here.
    fn new() -> Result<Self, String> {
        let id = std::process::id();
        let names = ["a", "b"].map(|side| format!("calnet-{id}-{side}"));
        for name in &names {
            ip(&["netns", "add", name])?;
        }
        let lab = Self { names };
        let [a, b] = &lab.names;
        ip(&[
            "link", "add", "veth0", "netns", a, "type", "veth", "peer", "name", "veth0", "netns", b,
        ])?;
        for (name, address) in lab.names.iter().zip(ADDRESSES) {
            ip(&[
                "-n",
                name,
                "addr",
                "add",
                &format!("{address}/24"),
                "dev",
                "veth0",
            ])?;
            ip(&["-n", name, "link", "set", "veth0", "up"])?;
            ip(&["-n", name, "link", "set", "lo", "up"])?;
        }
        Ok(lab)
    }

    fn calnet(&self, side: usize) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.names[side]]);
        command.arg(calnet().get_program());
        command
    }

    /// Cuts the two from each other without a word: no FIN, no reset, no answer.
    fn cut(&self, how: Cut) -> Result<(), String> {
        match how {
            Cut::LinkDown => ip(&["-n", &self.names[0], "link", "set", "veth0", "down"]),
            Cut::Blackhole => self.each(|name, other| {
                ip(&[
                    "-n",
                    name,
                    "neigh",
                    "replace",
                    other,
                    "lladdr",
                    "02:00:00:00:00:99",
                    "dev",
                    "veth0",
                    "nud",
                    "permanent",
                ])
            }),
        }
    }

    /// Joins them again.
    fn mend(&self, how: Cut) -> Result<(), String> {
        match how {
            Cut::LinkDown => ip(&["-n", &self.names[0], "link", "set", "veth0", "up"]),
            Cut::Blackhole => {
                self.each(|name, other| ip(&["-n", name, "neigh", "del", other, "dev", "veth0"]))
            }
        }
    }

    /// Does something on each side, which is told the other's address.
    fn each(&self, act: impl Fn(&str, &str) -> Result<(), String>) -> Result<(), String> {
        act(&self.names[0], ADDRESSES[1])?;
        act(&self.names[1], ADDRESSES[0])
    }
}

/// How a link dies.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// One interface goes down, as when a cable is pulled.
    LinkDown,
    /// Every packet is sent to an Ethernet address that nobody has. Interfaces and routes stay
    /// as they are, so that no kernel hears of it.
    Blackhole,
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = ip(&["netns", "del", name]);
        }
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output();
    let output = output.map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(format!("ip {}: {said}", arguments.join(" ")))
}

#[test]
fn a_peer_that_vanishes_without_a_word_is_given_up_by_both_sides() {
    let lab = match Lab::new() {
        Ok(lab) => lab,
        Err(reason) => {
            eprintln!("skipped: no network namespaces here: {reason}");
            return;
        }
    };
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("node.toml");
    // Pings every second and half a second for an answer: three failures take a few seconds.
    let text = "[connections.ping]\ninterval_ms = 1000\ntimeout_ms = 500\nmax_failures = 3\n";
    fs::write(&config, text).unwrap();
    let transports = ["tcp/2428", "udp/2428/quic-v1"];
    let cuts = [Cut::LinkDown, Cut::Blackhole];
    let runs = cuts
        .iter()
        .flat_map(|cut| transports.map(|transport| (*cut, transport)));
    for (cut, transport) in runs {
        let start = |side: usize, more: &[&str]| {
            let mut command = lab.calnet(side);
            let listen = format!("/ip4/{}/{transport}", ADDRESSES[side]);
            command.args(["run", "--json", "--listen", &listen]);
            command
                .args(["--config", config.to_str().unwrap()])
                .args(more);
            Process::start(command)
        };
        let a = start(0, &[]);
        let address = a.addresses(1).remove(0);
        let b = start(1, &["--dial", &address]);
        a.event("connected");
        b.event("connected");
        lab.cut(cut).unwrap();
        for side in [&a, &b] {
            let lost = side.event("disconnected");
            assert_eq!(lost["remaining"], 0, "{cut:?} {transport}: {lost}");
            assert_eq!(
                lost["reason"], "unresponsive",
                "{cut:?} {transport}: {lost}"
            );
        }
        lab.mend(cut).unwrap();
    }
}
