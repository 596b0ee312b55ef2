//! Dials: their number is limited, and each ends when the peer is connected, by either side.

use std::time::Duration;

use calimero_network_discovery::machine::CacheEntry;
use calimero_network_primitives::{PeerId, config::DiscoveryConfig};
use libp2p_kad::K_VALUE;
use libp2p_swarm::SwarmEvent;
use tokio::net::TcpListener;

use crate::common::{TCP, config, free_address, listen, node, until};

#[tokio::test]
async fn a_dial_ends_with_a_connection_that_the_peer_has_made() {
    // Takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let mut peer = node(TCP, &config(&[]));
    let id = *peer.local_peer_id();
    let at = format!("/ip4/127.0.0.1/tcp/{port}/p2p/{id}");
    let mut dialler = node(TCP, &config(&[at.parse().unwrap()]));
    let home = listen(&mut dialler, TCP).await;
    let both = &mut [&mut dialler, &mut peer];
    until(both, |_, event| match event {
        SwarmEvent::Dialing { peer_id, .. } if *peer_id == Some(id) => Some(()),
        _ => None,
    })
    .await;
    let status = dialler.behaviour_mut().status().discovery;
    assert_eq!((status.dials_in_flight, status.connected_peers), (1, 0));

    peer.dial(home).unwrap();
    until(&mut [&mut dialler, &mut peer], |who, event| match event {
        SwarmEvent::ConnectionEstablished { .. } if who != id => Some(()),
        _ => None,
    })
    .await;
    let status = dialler.behaviour_mut().status().discovery;
    assert_eq!((status.dials_in_flight, status.connected_peers), (0, 1));
    drop(silent);
}

#[tokio::test]
async fn of_a_large_cache_a_few_are_dialled() {
    let limit = DiscoveryConfig::default().cache.dialled_at_start as usize;
    let mut node = node(TCP, &config(&[]));
    listen(&mut node, TCP).await;
    let entry = |minutes: u64| CacheEntry {
        peer: PeerId::random(),
        addresses: vec![free_address(TCP)],
        age: Duration::from_secs(60 * minutes),
    };
    let cache: Vec<_> = (1..=10 * limit as u64).map(entry).collect();
    let latest: Vec<_> = cache.iter().take(limit).map(|entry| entry.peer).collect();
    node.behaviour_mut().cache_loaded(cache);
    let status = node.behaviour_mut().status().discovery;
    assert_eq!(status.queued_dials + status.dials_in_flight, limit);
    let mut dialled = Vec::new();
    loop {
        until(&mut [&mut node], |_, event| {
            if let SwarmEvent::Dialing {
                peer_id: Some(peer),
                ..
            } = event
            {
                dialled.push(*peer);
            }
            matches!(event, SwarmEvent::OutgoingConnectionError { .. }).then_some(())
        })
        .await;
        let status = node.behaviour_mut().status().discovery;
        if status.queued_dials + status.dials_in_flight == 0 {
            break;
        }
    }
    // Half a second after its table has changed, libp2p-kad asks the nearest peers for their
    // neighbours, and dials them for it: other peers of the cache, if the dials last that long.
    assert!(dialled.len() <= limit + K_VALUE.get(), "{}", dialled.len());
    assert!(latest.iter().all(|peer| dialled.contains(peer)));
}
