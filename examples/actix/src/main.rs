//! The network in an actor system: a bridge hands what happens in the network to an actor, as
//! messages of its own, and waits for each to be taken, so that a slow actor slows the bridge and
//! never fills a mailbox. Actors call the network by the handle. Ends by itself.
//!
//! `cargo run -p calimero-network-actix-example`

use std::{error::Error, time::Duration};

use actix::{
    Actor, ActorFutureExt, Addr, AtomicResponse, Context, Handler, Message, Recipient, WrapFuture,
};
use bytes::Bytes;
use calimero_network::{
    Events, FrameStream, GossipEvent, Keypair, NetworkClient, NetworkConfig, NetworkEvent,
    NetworkManager, PeerId, StreamEvent, Substream, Topic,
};
use tokio::sync::mpsc;

/// Within which it is all done, or has failed.
const DEADLINE: Duration = Duration::from_secs(60);

/// Reports that wait to be read.
const REPORTS: usize = 16;

/// What happens in the network, as a message.
struct Happened(NetworkEvent);

impl Message for Happened {
    type Result = ();
}

/// Hands every event to `actor`, in order, one at a time, until the manager or the actor stops.
/// While the actor is busy events wait in the manager's bounded queue: of messages, what does not
/// fit is counted and told as [`GossipEvent::Lagged`], and streams that nobody takes wait with
/// their limits.
async fn bridge(mut events: Events, actor: Recipient<Happened>) {
    while let Some(event) = events.next().await {
        if actor.send(Happened(event)).await.is_err() {
            return;
        }
    }
}

/// A counter that all nodes of a topic hold together: whoever hears a number says the next one.
struct Counter {
    network: NetworkClient,
    topic: Topic,
    reports: mpsc::Sender<u64>,
}

impl Actor for Counter {
    type Context = Context<Self>;
}

/// Says a number to all.
struct Say(u64);

impl Message for Say {
    type Result = ();
}

impl Handler<Say> for Counter {
    type Result = AtomicResponse<Self, ()>;

    /// No other message is handled until the number is on its way.
    fn handle(&mut self, Say(number): Say, _: &mut Self::Context) -> Self::Result {
        let (network, topic) = (self.network.clone(), self.topic.clone());
        let said = async move {
            let number = Bytes::copy_from_slice(&number.to_be_bytes());
            network.publish_or_keep(&topic, number, DEADLINE).await
        };
        AtomicResponse::new(Box::pin(said.into_actor(self).map(|said, _, _| {
            if let Err(error) = said {
                println!("not said: {error}");
            }
        })))
    }
}

impl Handler<Happened> for Counter {
    type Result = ();

    fn handle(&mut self, Happened(event): Happened, context: &mut Self::Context) {
        match event {
            NetworkEvent::Gossip(GossipEvent::Message(message)) => {
                let Ok(number) = message.data.as_ref().try_into().map(u64::from_be_bytes) else {
                    return;
                };
                println!("{} says {number}", message.source);
                // A report that nobody reads in time is let go; the actor waits for nobody.
                let _full = self.reports.try_send(number);
                actix::AsyncContext::notify(context, Say(number + 1));
            }
            // What takes time runs beside the actor.
            NetworkEvent::Stream(StreamEvent::Opened { peer, stream, .. }) => {
                actix::spawn(read(peer, stream));
            }
            NetworkEvent::Gossip(GossipEvent::Lagged { missed }) => {
                println!("{missed} numbers were missed")
            }
            _ => {}
        }
    }
}

/// Reads one stream to its end.
async fn read(peer: PeerId, mut stream: FrameStream<Substream>) {
    while let Some(Ok(frame)) = stream.next().await {
        println!("{peer} sends {} bytes", frame.len());
    }
}

/// A node with a counter behind its bridge.
async fn node(
    topic: &Topic,
) -> Result<(NetworkClient, Addr<Counter>, mpsc::Receiver<u64>), Box<dyn Error>> {
    let config = NetworkConfig {
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse()?],
        ..NetworkConfig::default()
    };
    let (network, events) = NetworkManager::start(Keypair::generate_ed25519(), config).await?;
    network.subscribe(topic).await?;
    let (reports, heard) = mpsc::channel(REPORTS);
    let counter = Counter {
        network: network.clone(),
        topic: topic.clone(),
        reports,
    };
    let counter = counter.start();
    actix::spawn(bridge(events, counter.clone().recipient()));
    Ok((network, counter, heard))
}

#[actix::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let topic = Topic::free("counter")?;
    let (ada, counter, mut heard_by_ada) = node(&topic).await?;
    let (bob, _counter, mut heard_by_bob) = node(&topic).await?;
    ada.dial(bob.status().await?.listening.remove(0)).await?;
    ada.open_stream(bob.peer_id()).await?.close().await?;

    counter.send(Say(1)).await?;
    let mut heard = Vec::new();
    for _ in 0..5 {
        heard.push(next(&mut heard_by_bob).await?);
        heard.push(next(&mut heard_by_ada).await?);
    }
    assert!(heard.into_iter().eq(1..=10));
    ada.shutdown().await?;
    bob.shutdown().await?;
    Ok(())
}

/// The next number that was heard.
async fn next(heard: &mut mpsc::Receiver<u64>) -> Result<u64, Box<dyn Error>> {
    let next = tokio::time::timeout(DEADLINE, heard.recv()).await?;
    Ok(next.ok_or("the counter has stopped")?)
}
