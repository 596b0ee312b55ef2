//! Peers that connect through a relay and name addresses for a hole punch.

use std::collections::HashSet;

use calimero_network_discovery::{Behaviour, Event, behaviour::HolePunch, machine::Path};
use calimero_network_primitives::{Keypair, Multiaddr, PeerId, addr::without_peer};
use futures::{AsyncReadExt, StreamExt};
use libp2p_relay as relay;
use libp2p_stream as stream;
use libp2p_swarm::{Config, NetworkBehaviour, Stream, StreamProtocol, Swarm};

use crate::{
    common::{DEADLINE, TCP, config, free_address, listen, node, spawn, told, transport},
    servers::{Setup, boot, read, say},
};

const DCUTR: StreamProtocol = StreamProtocol::new("/libp2p/dcutr");

/// CONNECT of the specification of DCUtR.
const CONNECT: i32 = 100;

#[derive(Clone, PartialEq, prost::Message)]
struct HolePunchMessage {
    #[prost(int32, required, tag = "1")]
    kind: i32,
    #[prost(bytes = "vec", repeated, tag = "2")]
    addresses: Vec<Vec<u8>>,
}

#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p_swarm::derive_prelude")]
struct Stranger {
    relay: relay::client::Behaviour,
    streams: stream::Behaviour,
}

/// Answers a hole punch with `address`, whatever the peer names.
async fn answer(mut stream: Stream, address: Multiaddr) {
    if read::<HolePunchMessage>(&mut stream).await.is_none() {
        return;
    }
    let answer = HolePunchMessage {
        kind: CONNECT,
        addresses: vec![address.to_vec()],
    };
    say(&mut stream, &answer).await;
    // SYNC, and the end.
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

/// A peer that connects with `to`, the address of a circuit, and answers each hole punch with an
/// address: its own if it listens, otherwise one where nothing listens.
async fn stranger(to: Multiaddr, listens: bool) -> PeerId {
    let keypair = Keypair::generate_ed25519();
    let transport = transport(&keypair, TCP);
    let behaviour = Stranger {
        relay: transport.relay_client.unwrap(),
        streams: stream::Behaviour::new(),
    };
    let peer = keypair.public().to_peer_id();
    let idle = Config::with_tokio_executor().with_idle_connection_timeout(DEADLINE);
    let mut swarm = Swarm::new(transport.boxed, behaviour, peer, idle);
    let address = match listens {
        true => without_peer(&listen(&mut swarm, TCP).await),
        false => free_address(TCP),
    };
    let mut control = swarm.behaviour().streams.new_control();
    let mut incoming = control.accept(DCUTR).unwrap();
    tokio::spawn(async move {
        while let Some((_, stream)) = incoming.next().await {
            tokio::spawn(answer(stream, address.clone()));
        }
    });
    swarm.dial(to).unwrap();
    spawn(swarm);
    peer
}

/// A relay that refuses no circuit.
async fn relay() -> Multiaddr {
    let relay = relay::Config {
        max_circuits: 100,
        max_circuits_per_peer: 100,
        circuit_src_rate_limiters: Vec::new(),
        ..relay::Config::default()
    };
    let setup = Setup {
        relay,
        ..Setup::default()
    };
    boot(TCP, setup).await.0
}

#[tokio::test]
async fn strangers_behind_one_relay_leave_hole_punches_to_those_behind_others() {
    /// Peers whose three attempts are all dials in a minute for unknown peers.
    const STRANGERS: usize = 20;
    let relays = [relay().await, relay().await];
    let mut node: Swarm<Behaviour> = node(TCP, &config(&relays));
    let target = *node.local_peer_id();
    let mut granted = HashSet::new();
    told(&mut [&mut node], |_, event| {
        if let Event::ReservationGranted { relay, .. } = event {
            granted.insert(*relay);
        }
        (granted.len() == relays.len()).then_some(())
    })
    .await;
    let [to_target, by_the_other] = relays.map(|relay| {
        let circuit = format!("{relay}/p2p-circuit/p2p/{target}");
        circuit.parse::<Multiaddr>().unwrap()
    });
    // One after the other: libp2p-relay refuses circuits that are opened at the same time.
    for _ in 0..STRANGERS {
        let one = stranger(to_target.clone(), false).await;
        let outcome = told(&mut [&mut node], |_, event| match event {
            Event::HolePunch { peer, outcome, .. } if *peer == one => Some(*outcome),
            _ => None,
        })
        .await;
        assert_eq!(outcome, HolePunch::Failed);
    }
    let honest = stranger(by_the_other, true).await;
    let path = told(&mut [&mut node], |_, event| match event {
        Event::PathChanged { peer, to, .. } if *peer == honest && *to != Some(Path::Relayed) => {
            Some(*to)
        }
        Event::HolePunch { peer, outcome, .. } if *peer == honest => {
            assert_eq!(*outcome, HolePunch::Direct);
            None
        }
        _ => None,
    })
    .await;
    assert_eq!(path, Some(Path::Direct));
}
