//! The own neighbourhood in the Kademlia table, where answers are lost.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::SeqCst},
};

use calimero_network_primitives::addr::without_peer;
use libp2p_swarm::SwarmEvent;
use prost::Message;

use crate::{
    common::{MEMORY, config, listen, node, spawn, until},
    servers::{read, script, write},
};

const KAD: &str = "/calimero/kad/1.0.0";
/// `FIND_NODE` among the types of messages.
const FIND_NODE: i32 = 4;
/// Looks of which every answer is lost.
const LOST: u32 = 2;

/// The parts of Kademlia's message that a look has need of.
#[derive(Clone, PartialEq, Message)]
struct Kad {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(bytes = "vec", tag = "2")]
    key: Vec<u8>,
    #[prost(message, repeated, tag = "8")]
    closer: Vec<Closer>,
}

#[derive(Clone, PartialEq, Message)]
struct Closer {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    addresses: Vec<Vec<u8>>,
}

#[tokio::test]
async fn a_look_that_nobody_answers_is_repeated_until_somebody_does() {
    let mut far = node(MEMORY, &config(&[]));
    let far_at = listen(&mut far, MEMORY).await;
    let far_id = *far.local_peer_id();
    spawn(far);

    let mut script = script(MEMORY, true).await;
    let answer = Kad {
        kind: FIND_NODE,
        key: Vec::new(),
        closer: vec![Closer {
            id: far_id.to_bytes(),
            addresses: vec![without_peer(&far_at).to_vec()],
        }],
    };
    let looks = Arc::new(AtomicU32::new(0));
    script.answer(KAD, move |_, peer, mut stream| {
        let (answer, looks) = (answer.clone(), Arc::clone(&looks));
        async move {
            let asked: Kad = read(&mut stream).await.unwrap();
            assert_eq!(asked.kind, FIND_NODE);
            // A look begins with the own id, and goes on with what is far from it.
            if asked.key == peer.to_bytes() {
                looks.fetch_add(1, SeqCst);
            }
            if looks.load(SeqCst) > LOST {
                write(&mut stream, &answer).await;
            }
        }
    });
    let boot = script.run();

    let mut node = node(MEMORY, &config(&[boot]));
    until(&mut [&mut node], |_, event| match event {
        SwarmEvent::ConnectionEstablished { peer_id, .. } if *peer_id == far_id => Some(()),
        _ => None,
    })
    .await;
}
