//! A private network: each node has a list of all members and connects with no other peer, in neither
//! direction. The program ends without input.
//!
//! `cargo run -p calimero-network --example private_network`

use std::{error::Error, time::Duration};

use calimero_network::{
    Denial, DialError, Events, Keypair, NetworkClient, NetworkConfig, NetworkEvent, NetworkManager,
    PeerId, StreamEvent,
};

/// Deadline of the whole program.
const DEADLINE: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tokio::time::timeout(DEADLINE, run()).await?
}

async fn run() -> Result<(), Box<dyn Error>> {
    let [ada, bob, eve] = std::array::from_fn(|_| Keypair::generate_ed25519());
    let members = [&ada, &bob].map(|key| key.public().to_peer_id());
    let (ada, mut ada_sees) = start(ada, &members).await?;
    let (bob, _) = start(bob, &members).await?;
    let (eve, _) = start(eve, &[]).await?; // accepts every peer

    // Members reach each other.
    let to_ada = ada.status().await?.listening.remove(0);
    bob.dial(to_ada.clone()).await?;
    let mut stream = bob.open_stream(ada.peer_id()).await?;
    stream.send("among us".into()).await?;
    loop {
        let event = ada_sees.next().await.ok_or("Ada has stopped")?;
        if let NetworkEvent::Stream(StreamEvent::Opened { mut stream, .. }) = event {
            assert_eq!(stream.next().await.transpose()?, Some("among us".into()));
            break;
        }
    }

    // A member does not dial other peers, and the error says so.
    let to_eve = eve.status().await?.listening.remove(0);
    let refused = ada.dial(to_eve).await.err().ok_or("a member strayed")?;
    println!("Ada to Eve: {refused}");
    assert!(matches!(refused, DialError::Denied(Denial::NotAllowed)));

    // A member refuses other peers after the handshake: Eve may see a connection, which closes before
    // any protocol runs on it.
    let dialled = eve.dial(to_ada).await;
    println!("Eve to Ada: {:?}", dialled.err());
    let opened = eve.open_stream(ada.peer_id()).await;
    println!("Eve's stream to Ada: {}", opened.err().ok_or("it opened")?);
    assert_eq!(ada.status().await?.peers(), [bob.peer_id()]);

    for client in [ada, bob, eve] {
        client.shutdown().await?;
    }
    Ok(())
}

/// A node that connects with `members` only, or with every peer if there are none.
async fn start(
    identity: Keypair,
    members: &[PeerId],
) -> Result<(NetworkClient, Events), Box<dyn Error>> {
    let mut config = NetworkConfig {
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse()?],
        ..NetworkConfig::default()
    };
    config.connections.allow = members.to_vec();
    Ok(NetworkManager::start(identity, config).await?)
}
