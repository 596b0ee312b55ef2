//! A QUIC path that is blocked between two nodes that also speak TCP: two network namespaces, two
//! processes, a filter in one of them, and messages in both directions all the time. None is lost.
//!
//! Needs root, `ip`, `nft` and Linux; elsewhere it says so and passes over.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a surprise ends the test"
)]

mod support;

use std::{
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use support::{Entry, LIMIT, Process, calnet, netns::Namespace};

const ADDRESSES: [&str; 2] = ["10.83.0.1", "10.83.0.2"];
/// Interval of the messages of each node.
const INTERVAL: Duration = Duration::from_millis(50);
/// Messages of each node after another path carries them.
const MORE: usize = 20;
/// What a host has to be between noticing and a working path. Three times the 5 s that are
/// required, because the host of the test does other work.
const BOUND: Duration = Duration::from_secs(15);

/// Two hosts joined by a link.
struct Lab {
    hosts: [Namespace; 2],
}

impl Lab {
    /// The lab, or why there is none here.
    fn new() -> Result<Self, String> {
        let hosts = [Namespace::new("a")?, Namespace::new("b")?];
        let [a, b] = &hosts;
        a.join("veth0", b, "veth0")?;
        for (host, address) in hosts.iter().zip(ADDRESSES) {
            host.ip(&format!("addr add {address}/24 dev veth0\n"))?;
            // Each packet on its own, as a filter of a length sees it.
            host.ip("link set veth0 gso_max_segs 1\n")?;
        }
        a.nft("add table inet probe\n")?;
        Ok(Self { hosts })
    }

    /// A node that listens on both transports and publishes its input.
    fn node(&self, side: usize, more: &[String]) -> Process {
        let mut command = self.hosts[side].command(calnet().get_program());
        command.args(["run", "--json"]);
        for transport in ["tcp/2428", "udp/2428/quic-v1"] {
            let listen = format!("/ip4/{}/{transport}", ADDRESSES[side]);
            command.args(["--listen", &listen]);
        }
        command.args(["--subscribe", "weather", "--publish", "weather"]);
        command.args(more).stdin(Stdio::piped());
        Process::start(command)
    }

    /// Drops the packets of `what` that arrive at either host from now on.
    fn drop_packets(&self, what: &str) {
        let script = format!(
            "table inet cut {{\nchain input {{\n\
             type filter hook input priority 0; policy accept;\n{what} counter drop\n}}\n}}\n"
        );
        for host in &self.hosts {
            host.nft(&script).unwrap();
        }
    }

    /// Whether packets were dropped.
    fn has_dropped(&self) -> bool {
        let mut hosts = self.hosts.iter();
        hosts.any(|host| {
            let list = host
                .command("nft")
                .args(["list", "table", "inet", "cut"])
                .output();
            let list = String::from_utf8(list.unwrap().stdout).unwrap();
            assert!(list.contains("counter packets"), "{list}");
            !list.contains("counter packets 0 ")
        })
    }
}

/// Two nodes, of which each publishes numbered messages.
struct Pair {
    lab: Lab,
    nodes: [Process; 2],
    /// Bytes that each message is filled up to.
    length: usize,
    published: usize,
}

impl Pair {
    /// Two nodes that are connected over QUIC, and over what else the first one dials.
    fn new(lab: Lab, also: &[&str], length: usize) -> Self {
        let b = lab.node(1, &[]);
        let addresses = b.addresses(2);
        let dial = addresses
            .iter()
            .find(|address| address.contains("/quic-v1"));
        let mut more = vec!["--dial".to_owned(), dial.unwrap().clone()];
        more.extend(also.iter().map(|&argument| argument.to_owned()));
        let a = lab.node(0, &more);
        let mut pair = Self {
            lab,
            nodes: [a, b],
            length,
            published: 0,
        };
        for node in &pair.nodes {
            pair.entry(node, 0, |line| {
                line["event"] == "connected" && is_quic(line)
            });
        }
        pair.publish();
        pair.until_all_arrived();
        pair
    }

    /// The first entry of a node from the `from`th on that is what is looked for.
    fn entry(&self, node: &Process, from: usize, is_it: impl Fn(&Value) -> bool) -> Entry {
        match node.find(from, LIMIT, is_it) {
            Some((_, entry)) => entry,
            None => panic!("no such record within {LIMIT:?}\n{}", self.story()),
        }
    }

    fn story(&self) -> String {
        let lines = self.nodes.iter().flat_map(|node| {
            let entries = node.entries().into_iter();
            let others = entries.filter(|entry| {
                entry.line["event"] != "message" && entry.line["event"] != "published"
            });
            others.map(|entry| format!("{:?} {}\n", entry.at, entry.line))
        });
        lines.collect()
    }

    /// Both nodes publish the next message.
    fn publish(&mut self) {
        let text = format!("{:0>1$}\n", self.published, self.length);
        for node in &mut self.nodes {
            node.write(text.as_bytes());
        }
        self.published += 1;
        thread::sleep(INTERVAL);
    }

    /// Publishes until a node has printed what is looked for, and returns when.
    fn publish_until(&mut self, side: usize, is_it: impl Fn(&Entry) -> bool) -> Entry {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(entry) = self.nodes[side].entries().into_iter().find(&is_it) {
                return entry;
            }
            assert!(Instant::now() < deadline, "{}", self.story());
            self.publish();
        }
    }

    /// The numbers of the messages that a node has received from the other one, in their order.
    fn received(&self, side: usize) -> Vec<usize> {
        let entries = self.nodes[side].entries();
        let texts = entries
            .iter()
            .filter(|entry| entry.line["event"] == "message")
            .map(|entry| entry.line["text"].as_str().unwrap().parse().unwrap());
        texts.collect()
    }

    fn until_all_arrived(&self) {
        let deadline = Instant::now() + LIMIT;
        for side in [0, 1] {
            loop {
                let mut received = self.received(side);
                received.sort_unstable();
                let expected = 0..self.published;
                if received.len() >= self.published && expected.clone().all(|n| received[n] == n) {
                    // None twice.
                    assert!(received.into_iter().eq(expected));
                    break;
                }
                let missing: Vec<_> = expected.filter(|n| !received.contains(n)).collect();
                assert!(
                    Instant::now() < deadline,
                    "node {side} of {} messages misses {missing:?}\n{}",
                    self.published,
                    self.story()
                );
                thread::park_timeout(Duration::from_millis(20));
            }
        }
    }
}

fn is_quic(line: &Value) -> bool {
    line["transport"] == "quic"
}

/// Blocks UDP and returns the time from its noticing to the first message of the other node over
/// TCP, at each node, with the time from the fault to its noticing.
fn fail_over(mut pair: Pair) -> [[Duration; 2]; 2] {
    let before = pair.nodes.each_ref().map(|node| node.entries().len());
    pair.lab.drop_packets("meta l4proto udp");
    let cut = Instant::now();
    let noticed = [0, 1].map(|side| {
        let lost = pair.publish_until(side, |entry| {
            entry.at > cut && entry.line["event"] == "disconnected"
        });
        lost.at
    });
    let carried = [0, 1].map(|side| {
        let arrived = pair.publish_until(side, |entry| {
            entry.at > noticed[side] && entry.line["event"] == "message"
        });
        arrived.at
    });
    for _ in 0..MORE {
        pair.publish();
    }
    pair.until_all_arrived();
    for (node, from) in pair.nodes.iter().zip(before) {
        // Another QUIC connection would carry nothing.
        let entries = node.entries();
        let later = entries[from..].iter();
        let again =
            later.filter(|entry| entry.line["event"] == "connected" && is_quic(&entry.line));
        assert_eq!(again.count(), 0, "{}", pair.story());
    }
    println!("{} messages of each node, none lost", pair.published);
    [0, 1].map(|side| [noticed[side] - cut, carried[side] - noticed[side]])
}

fn lab() -> Option<Lab> {
    match Lab::new() {
        Ok(lab) => Some(lab),
        Err(reason) => {
            eprintln!("skipped: no network namespaces with nftables here: {reason}");
            None
        }
    }
}

#[test]
fn a_node_without_udp_goes_on_over_tcp_and_loses_no_message() {
    let Some(lab) = lab() else { return };
    let times = fail_over(Pair::new(lab, &[], 1));
    for [noticed, carried] in times {
        println!("noticed after {noticed:.2?}, a message {carried:.2?} later");
        assert!(carried < BOUND);
    }
}

#[test]
fn a_node_without_udp_goes_on_over_a_second_connection_and_loses_no_message() {
    let Some(lab) = lab() else { return };
    // Without a peer id, so that it is dialled although the peer is connected.
    let tcp = format!("/ip4/{}/tcp/2428", ADDRESSES[1]);
    let pair = Pair::new(lab, &["--dial", &tcp], 1);
    for node in &pair.nodes {
        pair.entry(node, 0, |line| {
            line["event"] == "connected" && line["transport"] == "tcp"
        });
    }
    let times = fail_over(pair);
    for [noticed, carried] in times {
        println!("noticed after {noticed:.2?}, a message {carried:.2?} later");
        assert!(carried < BOUND);
    }
}

/// A path that drops large packets without a sign, from some time on.
#[test]
fn a_path_that_drops_large_packets_carries_every_message_again() {
    let Some(lab) = lab() else { return };
    let mut pair = Pair::new(lab, &[], 8 * 1024);
    // Until QUIC has found that the path takes 1,452 bytes.
    for _ in 0..MORE {
        pair.publish();
    }
    pair.until_all_arrived();
    pair.lab.drop_packets("meta l4proto udp meta length > 1280");
    let cut = Instant::now();
    let first = pair.published;
    let last = first + MORE;
    while pair.published < last {
        pair.publish();
    }
    pair.until_all_arrived();
    println!("all messages after {:.2?}", cut.elapsed());
    assert!(pair.lab.has_dropped());
    let closed = pair.nodes.iter().flat_map(Process::entries);
    let closed = closed.filter(|entry| entry.line["event"] == "disconnected");
    assert_eq!(closed.count(), 0, "{}", pair.story());
}
