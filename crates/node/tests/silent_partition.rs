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

use support::{Process, calnet, netns::Namespace};

/// Two hosts joined by a link.
struct Lab {
    hosts: [Namespace; 2],
}

const ADDRESSES: [&str; 2] = ["10.83.0.1", "10.83.0.2"];

impl Lab {
    /// The lab, or why there is none here.
    fn new() -> Result<Self, String> {
        let hosts = [Namespace::new("a")?, Namespace::new("b")?];
        let [a, b] = &hosts;
        a.join("veth0", b, "veth0")?;
        for (host, address) in hosts.iter().zip(ADDRESSES) {
            host.ip(&format!("addr add {address}/24 dev veth0\n"))?;
        }
        Ok(Self { hosts })
    }

    fn calnet(&self, side: usize) -> Command {
        self.hosts[side].command(calnet().get_program())
    }

    /// Cuts the two from each other without a word: no FIN, no reset, no answer.
    fn cut(&self, how: Cut) -> Result<(), String> {
        match how {
            Cut::LinkDown => self.hosts[0].ip("link set veth0 down\n"),
            Cut::Blackhole => self.each(|other| {
                format!("neigh replace {other} lladdr 02:00:00:00:00:99 dev veth0 nud permanent\n")
            }),
        }
    }

    /// Joins the two sides again.
    fn mend(&self, how: Cut) -> Result<(), String> {
        match how {
            Cut::LinkDown => self.hosts[0].ip("link set veth0 up\n"),
            Cut::Blackhole => self.each(|other| format!("neigh del {other} dev veth0\n")),
        }
    }

    /// Runs `ip` on each side with the address of the other one.
    fn each(&self, line: impl Fn(&str) -> String) -> Result<(), String> {
        self.hosts[0].ip(&line(ADDRESSES[1]))?;
        self.hosts[1].ip(&line(ADDRESSES[0]))
    }
}

/// How a link dies.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// One interface goes down, as when a cable is pulled.
    LinkDown,
    /// Every packet is sent to an Ethernet address that no interface has. Interfaces and routes stay
    /// as they are, so that no kernel hears of it.
    Blackhole,
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
