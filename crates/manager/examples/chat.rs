//! A chat over a topic. With a name it reads lines from the terminal until it is closed:
//!
//! ```text
//! cargo run -p calimero-network --example chat -- Ada           # prints where it can be reached
//! cargo run -p calimero-network --example chat -- Bob ADDRESS
//! ```
//!
//! Without a name, two nodes in one process exchange messages and end.

use std::{error::Error, io::BufRead, ops::ControlFlow, time::Duration};

use calimero_network::{
    Events, GossipEvent, Keypair, NetworkClient, NetworkConfig, NetworkEvent, NetworkManager,
    Topic, addr,
};
use futures::{Stream, StreamExt, stream};
use tokio::sync::mpsc;

/// Time that a line is kept for the first subscriber.
const KEPT: Duration = Duration::from_secs(60);

/// Deadline of the program without a name.
const DEADLINE: Duration = Duration::from_secs(60);

/// Lines typed ahead of those that are sent.
const TYPED_AHEAD: usize = 16;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    match arguments.next() {
        Some(name) => interactive(name, arguments.next()).await,
        None => tokio::time::timeout(DEADLINE, talk()).await?,
    }
}

/// A node that is subscribed to the chat.
struct Person {
    name: String,
    client: NetworkClient,
    events: Events,
}

impl Person {
    async fn new(name: String, topic: &Topic) -> Result<Self, Box<dyn Error>> {
        let config = NetworkConfig {
            listen: vec!["/ip4/127.0.0.1/tcp/0".parse()?],
            ..NetworkConfig::default()
        };
        let (client, events) = NetworkManager::start(Keypair::generate_ed25519(), config).await?;
        client.subscribe(topic).await?;
        Ok(Self {
            name,
            client,
            events,
        })
    }

    /// Publishes `lines` and passes received messages to `receive`, until the lines end or `receive`
    /// returns `false`.
    async fn chat(
        &mut self,
        topic: &Topic,
        mut lines: impl Stream<Item = String> + Unpin,
        mut receive: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<(), Box<dyn Error>> {
        loop {
            tokio::select! {
                biased;
                line = lines.next() => {
                    let Some(line) = line else { return Ok(()) };
                    let line = format!("{}: {line}", self.name);
                    if let Err(error) = self.client.publish_or_keep(topic, line, KEPT).await {
                        println!("not said: {error}");
                    }
                }
                event = self.events.next() => match event.ok_or("the node has stopped")? {
                    NetworkEvent::Gossip(GossipEvent::Message(message)) => {
                        let line = String::from_utf8_lossy(&message.data);
                        if receive(&line).is_break() {
                            return Ok(());
                        }
                    }
                    NetworkEvent::Gossip(GossipEvent::Lagged { missed }) => println!("({missed} lines were missed)"),
                    _ => {}
                },
            }
        }
    }
}

async fn interactive(name: String, address: Option<String>) -> Result<(), Box<dyn Error>> {
    let topic = Topic::free("chat")?;
    let mut person = Person::new(name, &topic).await?;
    match address {
        Some(address) => {
            person.client.dial(address.parse()?).await?;
        }
        None => {
            let address = person.client.status().await?.listening.remove(0);
            println!("{}", addr::with_peer(&address, person.client.peer_id())?);
        }
    }
    // Reading the terminal blocks a thread.
    let (typed, lines) = mpsc::channel(TYPED_AHEAD);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if typed.blocking_send(line).is_err() {
                return;
            }
        }
    });
    let lines = Box::pin(stream::unfold(lines, async |mut lines| {
        lines.recv().await.map(|line| (line, lines))
    }));
    let printed = |line: &str| {
        println!("{line}");
        ControlFlow::Continue(())
    };
    person.chat(&topic, lines, printed).await?;
    person.client.shutdown().await?;
    Ok(())
}

async fn talk() -> Result<(), Box<dyn Error>> {
    let topic = Topic::free("chat")?;
    let mut ada = Person::new("Ada".into(), &topic).await?;
    let mut bob = Person::new("Bob".into(), &topic).await?;
    let address = ada.client.status().await?.listening.remove(0);
    bob.client.dial(address).await?;

    let (mut to_ada, mut to_bob) = (Vec::new(), Vec::new());
    futures::try_join!(
        ada.chat(
            &topic,
            said(["Is anybody there?", "Good."]),
            two(&mut to_ada)
        ),
        bob.chat(&topic, said(["I am.", "Goodbye, then."]), two(&mut to_bob)),
    )?;
    println!("{to_bob:?}\n{to_ada:?}");
    assert_eq!(to_bob, ["Ada: Is anybody there?", "Ada: Good."]);
    assert_eq!(to_ada, ["Bob: I am.", "Bob: Goodbye, then."]);
    ada.client.shutdown().await?;
    bob.client.shutdown().await?;
    Ok(())
}

/// A stream of these lines that stays open.
fn said(lines: [&'static str; 2]) -> impl Stream<Item = String> + Unpin {
    stream::iter(lines)
        .map(str::to_owned)
        .chain(stream::pending())
}

/// Returns `false` after two messages.
fn two(heard: &mut Vec<String>) -> impl FnMut(&str) -> ControlFlow<()> {
    |line| {
        heard.push(line.to_owned());
        if heard.len() < 2 {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    }
}
