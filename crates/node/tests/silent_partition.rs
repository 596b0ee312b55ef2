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

    /// Loses every packet between the two, without either kernel hearing of it: both send to an
    /// Ethernet address that nobody has. Interfaces and routes stay as they are.
    fn cut(&self) -> Result<(), String> {
        for (side, name) in self.names.iter().enumerate() {
            let other = ADDRESSES[1 - side];
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
            ])?;
        }
        Ok(())
    }
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
    for transport in ["tcp/2428", "udp/2428/quic-v1"] {
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
        lab.cut().unwrap();
        for side in [&a, &b] {
            let lost = side.event("disconnected");
            assert_eq!(lost["remaining"], 0, "{transport}: {lost}");
            assert_eq!(lost["reason"], "unresponsive", "{transport}: {lost}");
        }
        for name in &lab.names {
            ip(&[
                "-n",
                name,
                "neigh",
                "flush",
                "dev",
                "veth0",
                "nud",
                "permanent",
            ])
            .unwrap();
        }
    }
}
