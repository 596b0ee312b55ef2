//! Boot nodes that cannot be reached, and those that accept and close.

use calimero_network_discovery::{
    Behaviour, Event,
    machine::{BootNode, UnreachableCause},
};
use calimero_network_primitives::{Multiaddr, PeerId};
use libp2p_swarm::Swarm;

use crate::common::{TCP, config, free_address, listen, node, spawn, told};

/// A listening node with one boot node, and the cause that it reports.
async fn reported(boot: Multiaddr) -> (Swarm<Behaviour>, UnreachableCause) {
    let mut node = node(TCP, &config(&[boot]));
    listen(&mut node, TCP).await;
    let cause = told(&mut [&mut node], |_, event| match event {
        Event::BootNodeUnreachable { cause, .. } => Some(*cause),
        _ => None,
    })
    .await;
    (node, cause)
}

#[tokio::test]
async fn a_dead_port_is_reported_as_refused_and_in_the_status() {
    let peer = PeerId::random();
    let boot = free_address(TCP).with_p2p(peer).unwrap();
    let (mut node, cause) = reported(boot).await;
    assert_eq!(cause, UnreachableCause::Refused);
    let status = node.behaviour_mut().status().discovery;
    let [boot_node] = &status.boot_nodes[..] else {
        panic!("{:?}", status.boot_nodes);
    };
    let BootNode::Unreachable { cause, .. } = boot_node.state else {
        panic!("{boot_node:?}");
    };
    assert_eq!((boot_node.peer, cause), (peer, UnreachableCause::Refused));
}

#[tokio::test]
async fn another_peer_at_the_address_is_named() {
    let mut other = node(TCP, &config(&[]));
    let obtained = *other.local_peer_id();
    let mut boot = listen(&mut other, TCP).await;
    spawn(other);
    boot.pop();
    let (_node, cause) = reported(boot.with_p2p(PeerId::random()).unwrap()).await;
    assert_eq!(cause, UnreachableCause::WrongPeer { obtained });
}

#[tokio::test]
async fn a_boot_node_that_accepts_and_closes_is_reported_as_closed() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let boot: Multiaddr = format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
    let (_node, cause) = reported(boot.with_p2p(PeerId::random()).unwrap()).await;
    assert_eq!(cause, UnreachableCause::Closed);
}
