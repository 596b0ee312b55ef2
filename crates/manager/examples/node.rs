//! A whole node in thirty lines, and another one for it to meet: connected, a message published, a
//! stream opened. Ends by itself.
//!
//! `cargo run -p calimero-network --example node`

use calimero_network::{Keypair, NetworkConfig, NetworkEvent, NetworkManager, Topic};

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
    let minute = std::time::Duration::from_secs(60); // for Bob to say what he follows
    ada.publish_or_keep(&topic, "hello, whoever listens", minute)
        .await?;
    let mut stream = ada.open_stream(bob.peer_id()).await?;
    stream.send("hello, Bob".into()).await?;

    let mut heard = Vec::new();
    while heard.len() < 2 {
        match events.next().await.ok_or("Bob has stopped")? {
            NetworkEvent::Message(message) => heard.push(message.data),
            NetworkEvent::StreamOpened { mut stream, .. } => {
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
