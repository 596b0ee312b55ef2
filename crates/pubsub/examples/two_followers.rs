//! The behaviour alone in a swarm: two nodes over TCP on this machine subscribe to the topic of a
//! context, and each receives what the other publishes. Ends after that.
//!
//! `cargo run -p calimero-network-pubsub --example two_followers`

use std::{error::Error, time::Duration};

use calimero_network_primitives::{ContextId, Keypair, Multiaddr, Topic};
use calimero_network_pubsub::{Behaviour, Config, Event, Message};
use futures::StreamExt;
use libp2p_core::{Transport, upgrade::Version};
use libp2p_swarm::{Swarm, SwarmEvent};

/// Within which it is all done, or has failed.
const DEADLINE: Duration = Duration::from_secs(20);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    tokio::time::timeout(DEADLINE, run()).await?
}

async fn run() -> Result<(), Box<dyn Error>> {
    let topic = Topic::context(ContextId::new([7; 32]));
    let (mut ada, mut bob) = (swarm(&topic)?, swarm(&topic)?);
    ada.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
    let address = listening(&mut ada).await;
    bob.dial(address)?;

    // There is no subscriber yet: each message is kept, and sent to the first one.
    for (swarm, said) in [(&mut ada, "I am Ada"), (&mut bob, "I am Bob")] {
        swarm
            .behaviour_mut()
            .publish_or_keep(&topic, said, DEADLINE)?;
    }
    let (mut to_ada, mut to_bob) = (None, None);
    while to_ada.is_none() || to_bob.is_none() {
        tokio::select! {
            event = ada.select_next_some() => to_ada = to_ada.or(message(event)),
            event = bob.select_next_some() => to_bob = to_bob.or(message(event)),
        }
    }
    let heard =
        [to_ada, to_bob].map(|message| message.map(|Message { source, data, .. }| (source, data)));
    println!("{heard:?}");
    assert_eq!(heard[0], Some((*bob.local_peer_id(), "I am Bob".into())));
    assert_eq!(heard[1], Some((*ada.local_peer_id(), "I am Ada".into())));
    Ok(())
}

fn message(event: SwarmEvent<Event>) -> Option<Message> {
    match event {
        SwarmEvent::Behaviour(Event::Message(message)) => Some(message),
        _ => None,
    }
}

fn swarm(topic: &Topic) -> Result<Swarm<Behaviour>, Box<dyn Error>> {
    let identity = Keypair::generate_ed25519();
    let transport = libp2p_tcp::tokio::Transport::default()
        .upgrade(Version::V1Lazy)
        .authenticate(libp2p_noise::Config::new(&identity)?)
        .multiplex(libp2p_yamux::Config::default())
        .boxed();
    let peer = identity.public().to_peer_id();
    let mut pubsub = Behaviour::new(identity, &Config::small())?;
    pubsub.subscribe(topic)?;
    let config = libp2p_swarm::Config::with_tokio_executor();
    Ok(Swarm::new(transport, pubsub, peer, config))
}

async fn listening(swarm: &mut Swarm<Behaviour>) -> Multiaddr {
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            return address;
        }
    }
}
