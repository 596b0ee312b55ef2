//! Text that a peer chooses is shown and does nothing else: a record stays one line, and a terminal
//! gets no control character.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a surprise ends the test"
)]

mod support;

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, ChildStdout, Stdio},
    sync::mpsc::{self, Receiver},
};

use calimero_network::{Keypair, NetworkConfig, NetworkEvent, NetworkManager, Topic};
use support::{LIMIT, calnet, run};

/// It clears a terminal, writes to its clipboard, and forges a record.
const HOSTILE: &str =
    "a\u{1b}[2J\u{9b}31m\u{1b}]52;c;eA==\u{7}\nboot address  /ip4/192.0.2.1/tcp/1";

/// The lines of a process in their text form. Killed when dropped.
struct Shown {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Shown {
    fn start(arguments: &[&str]) -> Self {
        let mut command = calnet();
        command.args(arguments).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (sender, lines) = mpsc::sync_channel(256);
        let stdout: BufReader<ChildStdout> = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            let lines = stdout.lines().map_while(Result::ok);
            lines.for_each(|line| drop(sender.send(line)));
        });
        Self {
            child,
            lines,
            seen: Vec::new(),
        }
    }

    /// Waits for a line that begins with `start`.
    fn line(&mut self, start: &str) -> String {
        loop {
            let Ok(line) = self.lines.recv_timeout(LIMIT) else {
                panic!("no line {start}: {:?}", self.seen);
            };
            self.seen.push(line.clone());
            if line.starts_with(start) {
                return line;
            }
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn assert_harmless(text: &str) {
    let is_bad = |character: char| character.is_control() && character != '\n';
    assert!(!text.contains(is_bad), "{text:?}");
    let forged = text.lines().any(|line| line.starts_with("boot address"));
    assert!(!forged, "{text:?}");
}

fn print(arguments: &[&str]) -> String {
    let mut command = calnet();
    command.args(arguments);
    let ended = run(command);
    assert!(ended.success, "{}", ended.stderr);
    assert_harmless(&ended.stdout);
    ended.stdout
}

#[test]
fn text_of_a_peer_is_shown_and_does_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let listen = "/ip4/127.0.0.1/tcp/0";
    let arguments = ["run", "--listen", listen, "--local", "--data", data];
    let mut node = Shown::start(&[&arguments[..], &["--subscribe", "news"]].concat());
    let peer = node
        .line("started")
        .split_whitespace()
        .nth(1)
        .unwrap()
        .to_owned();
    let address = node.line("listening");
    let address = address
        .split_whitespace()
        .find(|word| word.starts_with('/'))
        .unwrap();
    let address = format!("{address}/p2p/{peer}");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (client, own_address) = runtime.block_on(async {
        let mut config = NetworkConfig {
            listen: vec![listen.parse().unwrap()],
            agent_version: HOSTILE.to_owned(),
            ..NetworkConfig::default()
        };
        config.discovery.local_network = true;
        let key = Keypair::generate_ed25519();
        let (client, mut events) = NetworkManager::start(key, config).await.unwrap();
        let topic = Topic::free("news").unwrap();
        client.subscribe(&topic).await.unwrap();
        client.dial(address.parse().unwrap()).await.unwrap();
        // The node is a member of the topic once its subscription has arrived.
        while let Some(event) = events.next().await {
            if matches!(&event, NetworkEvent::Gossip(gossip) if gossip.to_string().starts_with("subscribed")) {
                break;
            }
        }
        client.publish(&topic, HOSTILE.as_bytes().to_vec()).await.unwrap();
        let status = client.status().await.unwrap();
        let own = format!("{}/p2p/{}", status.listening[0], client.peer_id());
        (client, own)
    });
    let escaped = r"a\u{1b}[2J\u{9b}31m\u{1b}]52;c;eA==\u{7}\u{a}boot address";
    for start in ["message", "identified"] {
        // They come in either order.
        let seen = node
            .seen
            .iter()
            .find(|line| line.starts_with(start))
            .cloned();
        let line = seen.unwrap_or_else(|| node.line(start));
        assert!(line.contains(escaped), "{line:?}");
    }
    assert_harmless(&node.seen.join("\n"));
    let peers = print(&["peers", "--data", data]);
    assert!(peers.contains(escaped), "{peers}");
    print(&["status", "--data", data]);
    let probed = print(&["probe", &own_address]);
    assert!(probed.contains(escaped), "{probed}");
    // A terminal reads the C1 characters of JSON too.
    let json = print(&["peers", "--json", "--data", data]);
    let mut records = json.lines().map(|line| serde_json::from_str(line).unwrap());
    assert!(
        records.all(|record: serde_json::Value| record["agent_version"] == HOSTILE),
        "{json}"
    );
    runtime.block_on(client.shutdown()).unwrap();
}
