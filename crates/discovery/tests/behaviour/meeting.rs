//! Nodes that know nothing but a boot node meet.

use std::collections::HashSet;

use calimero_network_discovery::{
    Event,
    machine::{Path, Phase},
};
use libp2p_rendezvous as rendezvous;

use crate::common::{MEMORY, TCP, config, listen, spawn, swarm, told, vouched};

async fn two_nodes_meet_at_a_rendezvous_server(at: &str) {
    let mut server = swarm(at, |_| {
        rendezvous::server::Behaviour::new(rendezvous::server::Config::default())
    });
    let boot = listen(&mut server, at).await;
    let server_id = *server.local_peer_id();
    spawn(server);

    // Nobody probes in this network, so the operators vouch.
    let config = config(&[boot]);
    let mut first = vouched(at, config.clone()).await;
    let mut second = vouched(at, config).await;
    let ids = [*first.local_peer_id(), *second.local_peer_id()];
    let (mut registered, mut joined) = (HashSet::new(), HashSet::new());
    told(&mut [&mut first, &mut second], |peer, event| {
        match event {
            Event::Registered { server: at, .. } => {
                assert_eq!(*at, server_id);
                registered.insert(peer);
            }
            Event::PhaseChanged {
                to: Phase::Joined, ..
            } => {
                joined.insert(peer);
            }
            _ => {}
        }
        (registered.len() == 2 && joined.len() == 2).then_some(())
    })
    .await;
    let status = first.behaviour_mut().status();
    let other = status
        .peers
        .iter()
        .find(|peer| peer.peer == ids[1])
        .unwrap();
    assert_eq!(other.path, Path::Direct);
    assert_eq!(status.discovery.registrations.len(), 1);
}

#[tokio::test]
async fn over_memory() {
    two_nodes_meet_at_a_rendezvous_server(MEMORY).await;
}

#[tokio::test]
async fn over_tcp() {
    two_nodes_meet_at_a_rendezvous_server(TCP).await;
}
