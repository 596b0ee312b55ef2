//! The behaviour in a minimal swarm: two nodes over TCP on this machine. One
//! sends back all frames that the other sends. The program exits when the
//! exchange is complete.
//!
//! `cargo run -p calimero-network-stream --example echo`

use std::{error::Error, time::Duration};

use calimero_network_stream::{
    Behaviour, Control, FrameStream, Inbound, StreamProtocol,
    config::{StreamsConfig, max_negotiating_inbound_streams},
};
use futures::StreamExt;
use libp2p_core::{Multiaddr, Transport, upgrade::Version};
use libp2p_identity::Keypair;
use libp2p_swarm::{Swarm, SwarmEvent};

/// Name of the protocol. Both sides must use the same name.
const PROTOCOL: StreamProtocol = StreamProtocol::new("/echo/1");

/// Deadline of the whole exchange.
const DEADLINE: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tokio::time::timeout(DEADLINE, run()).await?
}

async fn run() -> Result<(), Box<dyn Error>> {
    let (mut server, server_control) = swarm()?;
    let server_id = *server.local_peer_id();
    server.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
    let address = listening(&mut server).await;
    let mut incoming = server_control.accept(PROTOCOL)?;
    tokio::spawn(drive(server));
    tokio::spawn(async move {
        while let Some(inbound) = incoming.next().await {
            tokio::spawn(echo(inbound));
        }
    });

    let (mut client, control) = swarm()?;
    client.dial(address)?;
    connected(&mut client).await?;
    tokio::spawn(drive(client));
    let stream = control.open(server_id, PROTOCOL).await?;
    let (mut sender, mut receiver) = FrameStream::new(stream).split();
    // Send and receive concurrently: two peers that only send would deadlock.
    let sending = async {
        for frame in ["one", "two", "three"] {
            sender.feed(frame.into()).await?;
        }
        sender.close().await
    };
    let receiving = async {
        let mut frames = Vec::new();
        while let Some(frame) = receiver.next().await {
            frames.push(frame?);
        }
        Ok(frames)
    };
    let ((), frames) = futures::future::try_join(sending, receiving).await?;
    println!("{server_id} answered {frames:?}");
    assert_eq!(frames, ["one", "two", "three"]);
    Ok(())
}

/// Sends back all frames of one stream until the peer closes it.
async fn echo(inbound: Inbound) {
    let mut frames = FrameStream::new(inbound.stream);
    while let Some(Ok(frame)) = frames.next().await {
        if frames.send(frame).await.is_err() {
            return;
        }
    }
    let _gone = frames.close().await;
}

fn swarm() -> Result<(Swarm<Behaviour>, Control), Box<dyn Error>> {
    let identity = Keypair::generate_ed25519();
    let transport = libp2p_tcp::tokio::Transport::default()
        .upgrade(Version::V1Lazy)
        .authenticate(libp2p_noise::Config::new(&identity)?)
        .multiplex(libp2p_yamux::Config::default())
        .boxed();
    let config = StreamsConfig::default();
    let swarm_config = libp2p_swarm::Config::with_tokio_executor()
        .with_max_negotiating_inbound_streams(max_negotiating_inbound_streams(&config));
    let behaviour = Behaviour::new(config);
    let control = behaviour.control();
    let peer = identity.public().to_peer_id();
    Ok((
        Swarm::new(transport, behaviour, peer, swarm_config),
        control,
    ))
}

async fn listening(swarm: &mut Swarm<Behaviour>) -> Multiaddr {
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            return address;
        }
    }
}

async fn connected(swarm: &mut Swarm<Behaviour>) -> Result<(), Box<dyn Error>> {
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::ConnectionEstablished { .. } => return Ok(()),
            SwarmEvent::OutgoingConnectionError { error, .. } => return Err(error.into()),
            _ => {}
        }
    }
}

/// Polls a swarm until the program exits.
async fn drive(mut swarm: Swarm<Behaviour>) {
    loop {
        swarm.select_next_some().await;
    }
}
