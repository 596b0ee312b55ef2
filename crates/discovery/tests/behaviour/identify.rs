//! Peers that say too much of themselves.

use calimero_network_discovery::{Event, behaviour::MAX_IDENTIFY_ITEMS};
use calimero_network_primitives::Multiaddr;
use libp2p_swarm::SwarmEvent;

use crate::{
    common::{MEMORY, config, node, until},
    servers::{Script, script, write},
};

const IDENTIFY: &str = "/ipfs/id/1.0.0";

#[derive(Clone, PartialEq, prost::Message)]
struct Identify {
    #[prost(bytes = "vec", optional, tag = "1")]
    public_key: Option<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    addresses: Vec<Vec<u8>>,
    #[prost(string, repeated, tag = "3")]
    protocols: Vec<String>,
    #[prost(bytes = "vec", optional, tag = "4")]
    observed: Option<Vec<u8>>,
}

/// Says that it is at so many addresses.
fn says(script: &mut Script, addresses: usize) {
    let public_key = Some(script.keypair.public().encode_protobuf());
    let address = |n: usize| format!("/ip4/10.0.{}.{}/tcp/1", n / 256, n % 256);
    let addresses = (0..addresses).map(|n| address(n).parse::<Multiaddr>().unwrap().to_vec());
    let message = Identify {
        public_key,
        addresses: addresses.collect(),
        protocols: vec!["/calimero/kad/1.0.0".to_owned()],
        observed: Some("/memory/9".parse::<Multiaddr>().unwrap().to_vec()),
    };
    script.answer(IDENTIFY, move |_, _, mut stream| {
        let message = message.clone();
        async move { write(&mut stream, &message).await }
    });
}

#[tokio::test]
async fn of_a_long_list_a_few_addresses_are_kept() {
    let mut script = script(MEMORY, false).await;
    says(&mut script, 300);
    let peer = *script.swarm.local_peer_id();
    let at = script.run();
    let config = config(&[]);
    let mut node = node(MEMORY, &config);
    node.dial(at).unwrap();
    let told = until(&mut [&mut node], |_, event| match event {
        SwarmEvent::Behaviour(Event::Identified { info, .. }) => Some(info.listen_addrs.len()),
        SwarmEvent::NewExternalAddrOfPeer { .. } => panic!("a flood for everybody"),
        _ => None,
    })
    .await;
    assert_eq!(told, MAX_IDENTIFY_ITEMS);
    let cache = node.behaviour().cache();
    assert_eq!(cache[0].peer, peer);
    let kept = cache[0].addresses.len();
    assert!(
        kept <= config.book.max_addresses_per_peer as usize,
        "{kept}"
    );
}

#[tokio::test]
async fn a_thousand_addresses_are_too_long_a_message() {
    let mut script = script(MEMORY, false).await;
    says(&mut script, 1_000);
    let at = script.run();
    let mut node = node(MEMORY, &config(&[]));
    node.dial(at).unwrap();
    until(&mut [&mut node], |_, event| match event {
        SwarmEvent::ConnectionEstablished { .. } => Some(()),
        _ => None,
    })
    .await;
    // An honest peer is identified after it.
    let mut honest = crate::common::node(MEMORY, &config(&[]));
    let at = crate::common::listen(&mut honest, MEMORY).await;
    let id = *honest.local_peer_id();
    node.dial(at).unwrap();
    until(&mut [&mut node, &mut honest], |who, event| match event {
        SwarmEvent::Behaviour(Event::Identified { peer, .. }) if who != id => {
            assert_eq!(*peer, id);
            Some(())
        }
        _ => None,
    })
    .await;
}
