//! The transport in minimal swarms: two nodes on this machine connect over TCP
//! and over QUIC and print the protocols of the connection. The program exits
//! when both connections are made.
//!
//! `cargo run -p calimero-network-transport --example connection`

use std::{error::Error, time::Duration};

use calimero_network_primitives::{Multiaddr, addr::DialPolicy, config::TransportConfig};
use calimero_network_transport::{Links, MuxerKind, SecurityKind, TransportKind, build, warm_up};
use futures::StreamExt;
use libp2p_identity::Keypair;
use libp2p_swarm::{Swarm, SwarmEvent, dummy};

/// Deadline of the whole program.
const DEADLINE: Duration = Duration::from_secs(20);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    tokio::time::timeout(DEADLINE, run()).await?
}

async fn run() -> Result<(), Box<dyn Error>> {
    // Collects entropy now instead of in the first handshake.
    warm_up();
    let (mut listener, _) = swarm()?;
    let (mut dialler, links) = swarm()?;
    for (address, kind) in [
        ("/ip4/127.0.0.1/tcp/0", TransportKind::Tcp),
        ("/ip4/127.0.0.1/udp/0/quic-v1", TransportKind::Quic),
    ] {
        listener.listen_on(address.parse()?)?;
        let address = listening(&mut listener).await;
        // Only this peer is accepted at the address.
        let expected = *listener.local_peer_id();
        dialler.dial(address.with_p2p(expected).map_err(|_| "another peer")?)?;
        let link = loop {
            tokio::select! {
                event = dialler.select_next_some() => match event {
                    SwarmEvent::ConnectionEstablished { peer_id, endpoint, .. } => {
                        assert_eq!(peer_id, expected);
                        break links.claim(&peer_id, &endpoint).ok_or("closed already")?;
                    }
                    SwarmEvent::OutgoingConnectionError { error, .. } => return Err(error.into()),
                    _ => {}
                },
                _ = listener.select_next_some() => {}
            }
        };
        println!(
            "{} secured by {}, multiplexed by {}: {} bytes in, {} out",
            link.transport(),
            link.security(),
            link.muxer(),
            link.bytes_in(),
            link.bytes_out()
        );
        assert_eq!(link.transport(), kind);
        assert!(matches!(
            link.security(),
            SecurityKind::Tls { .. } | SecurityKind::QuicTls { .. }
        ));
        assert_eq!(link.muxer() == MuxerKind::Quic, kind == TransportKind::Quic);
        assert!(link.bytes_in() > 0 && link.bytes_out() > 0);
    }
    Ok(())
}

fn swarm() -> Result<(Swarm<dummy::Behaviour>, Links), Box<dyn Error>> {
    let identity = Keypair::generate_ed25519();
    let transport = build(
        &identity,
        &TransportConfig::default(),
        DialPolicy::Local.into(),
    )?;
    let config = libp2p_swarm::Config::with_tokio_executor().with_idle_connection_timeout(DEADLINE);
    let peer = identity.public().to_peer_id();
    let swarm = Swarm::new(transport.boxed, dummy::Behaviour, peer, config);
    Ok((swarm, transport.links))
}

async fn listening(swarm: &mut Swarm<dummy::Behaviour>) -> Multiaddr {
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            return address;
        }
    }
}
