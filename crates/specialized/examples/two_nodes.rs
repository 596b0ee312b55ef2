//! The behaviour in a minimal swarm: two nodes over TCP on this machine. One
//! sends a quote and asks to be invited, the other checks the quote and
//! answers. The program exits when the exchange is complete.
//!
//! `cargo run -p calimero-network-specialized --example two_nodes`

use std::{error::Error, time::Duration};

use calimero_network_specialized::{
    Behaviour, Event, SpecializedConfig, SpecializedNodeInviteRequest as Request,
    SpecializedNodeInviteResponse as Response,
};
use futures::StreamExt;
use libp2p_core::{Multiaddr, Transport, upgrade::Version};
use libp2p_identity::Keypair;
use libp2p_swarm::{Swarm, SwarmEvent};

/// Deadline of the whole exchange.
const DEADLINE: Duration = Duration::from_secs(20);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (mut inviter, mut node) = (swarm()?, swarm()?);
    inviter.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
    let address = listening(&mut inviter).await?;

    let request = Request::TeeAttestation {
        nonce: [7; 32],
        quote_bytes: (&b"a genuine quote"[..]).into(),
        public_key: [9; 32],
    };
    let inviter_id = *inviter.local_peer_id();
    // Dials the peer if necessary. The returned id appears in exactly one
    // event.
    let asked =
        node.behaviour_mut()
            .send_request_with_addresses(inviter_id, &request, vec![address]);
    println!("asked {inviter_id}, request {asked}");

    let exchange = async {
        loop {
            tokio::select! {
                event = inviter.select_next_some() => answer(event),
                event = node.select_next_some() => if let Some(response) = answered(event)? {
                    return Ok::<_, Box<dyn Error>>(response);
                },
            }
        }
    };
    let response = tokio::time::timeout(DEADLINE, exchange).await??;
    println!("invited: {response:?}");
    Ok(())
}

fn swarm() -> Result<Swarm<Behaviour>, Box<dyn Error>> {
    let identity = Keypair::generate_ed25519();
    let transport = libp2p_tcp::tokio::Transport::default()
        .upgrade(Version::V1Lazy)
        .authenticate(libp2p_noise::Config::new(&identity)?)
        .multiplex(libp2p_yamux::Config::default())
        .boxed();
    Ok(Swarm::new(
        transport,
        Behaviour::new(&SpecializedConfig::default())?,
        identity.public().to_peer_id(),
        libp2p_swarm::Config::with_tokio_executor(),
    ))
}

async fn listening(swarm: &mut Swarm<Behaviour>) -> Result<Multiaddr, Box<dyn Error>> {
    let listening = async {
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::NewListenAddr { address, .. } => return Ok(address),
                SwarmEvent::ListenerClosed { reason, .. } => {
                    reason?;
                    return Err("the listener closed".into());
                }
                _ => {}
            }
        }
    };
    tokio::time::timeout(DEADLINE, listening).await?
}

/// Answers requests on the inviting side.
fn answer(event: SwarmEvent<Event>) {
    let SwarmEvent::Behaviour(Event::Request {
        peer,
        request: Request::TeeAttestation {
            nonce, quote_bytes, ..
        },
        channel,
        ..
    }) = event
    else {
        return;
    };
    let genuine = quote_bytes.starts_with(b"a genuine");
    println!(
        "{peer} shows {} bytes, genuine: {genuine}",
        quote_bytes.len()
    );
    let response = if genuine {
        Response::invitation(nonce, &b"welcome"[..])
    } else {
        Response::error(nonce, "bad quote")
    };
    if let Err(error) = channel.send(&response) {
        println!("not answered: {error}");
    }
}

/// Returns the response on the requesting side when it has arrived.
fn answered(event: SwarmEvent<Event>) -> Result<Option<Response>, Box<dyn Error>> {
    match event {
        SwarmEvent::Behaviour(Event::Response { response, .. }) => Ok(Some(response)),
        SwarmEvent::Behaviour(Event::OutboundFailure { failure, .. }) => Err(failure.into()),
        _ => Ok(None),
    }
}
