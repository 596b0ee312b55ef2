//! A whole node in thirty lines and a second one: they connect, publish a message and open a stream.
//! The program ends without input.
//!
//! `cargo run -p calimero-network --example node`

use calimero_network::{
    GossipEvent, Keypair, NetworkConfig, NetworkEvent, NetworkManager, StreamEvent, Topic,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listen = vec!["/ip4/127.0.0.1/tcp/0".parse()?];
    let config = NetworkConfig {
        listen,
        ..NetworkConfig::default()
    };
    let (ada, _) = NetworkManager::start(Keypair::generate_ed25519(), config.clone()).await?;
    let (bob, mut events) = NetworkManager::start(Keypair::generate_ed25519(), config).await?;

    let topic = Topic::free("greetings")?;
    bob.subscribe(&topic).await?;
    ada.dial(bob.status().await?.listening.remove(0)).await?;
    let minute = std::time::Duration::from_secs(60); // for the subscription of Bob to arrive
    ada.publish_or_keep(&topic, "hello, whoever listens", minute)
        .await?;
    let mut stream = ada.open_stream(bob.peer_id()).await?;
    stream.send("hello, Bob".into()).await?;

    let mut heard = Vec::new();
    while heard.len() < 2 {
        match events.next().await.ok_or("Bob has stopped")? {
            NetworkEvent::Gossip(GossipEvent::Message(message)) => heard.push(message.data),
            NetworkEvent::Stream(StreamEvent::Opened { mut stream, .. }) => {
                heard.extend(stream.next().await.transpose()?)
            }
            other => println!("{other:?}"),
        }
    }
    heard.sort();
    assert_eq!(heard, ["hello, Bob", "hello, whoever listens"]);
    ada.shutdown().await?;
    bob.shutdown().await?;
    Ok(())
}
